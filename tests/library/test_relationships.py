"""Foreign keys that are set through a relationship: a row for the object whose column changes."""

import pytest
from sqlalchemy.orm import Session

from tests.library.models import Author, Book, Country, Shelf
from tests.library.rows import changes, history_rows

CREATED = [(-1, "insert")]
CHANGED = [(-1, "insert"), (0, "update")]


@pytest.fixture
def book(session: Session) -> Book:
    book = Book(id=1, title="A")
    session.add_all([book, Author(id=1), Author(id=2), Shelf(id=1), Shelf(id=2), Country(code="FR")])
    session.commit()
    return book


def test_foreign_key_set_from_the_many_side_is_recorded(session: Session, book: Book) -> None:
    book.author = session.get_one(Author, 1)
    session.commit()
    book.author = session.get_one(Author, 2)
    session.commit()
    book.author = None
    session.commit()
    rows = history_rows(session, "book_history")
    assert changes(rows) == [*CHANGED, (1, "update"), (2, "update")]
    assert [row["author_id"] for row in rows] == [None, None, 1, 2]


def test_foreign_key_set_from_the_one_side_with_backref_is_recorded(session: Session, book: Book) -> None:
    author = session.get_one(Author, 1)
    author.books.append(book)
    session.commit()
    author.books.remove(book)
    session.commit()
    rows = history_rows(session, "book_history")
    assert changes(rows) == [*CHANGED, (1, "update")]
    assert [row["author_id"] for row in rows] == [None, None, 1]


def test_foreign_key_set_from_the_one_side_without_backref_is_recorded(session: Session, book: Book) -> None:
    first, second = session.get_one(Shelf, 1), session.get_one(Shelf, 2)
    first.books.append(book)
    session.commit()
    second.books.append(book)
    session.commit()
    second.books.remove(book)
    session.commit()
    rows = history_rows(session, "book_history")
    assert changes(rows) == [*CHANGED, (1, "update"), (2, "update")]
    assert [row["shelf_id"] for row in rows] == [None, None, 1, 2]


def test_object_that_only_holds_the_collection_is_not_recorded(session: Session, book: Book) -> None:
    shelf = session.get_one(Shelf, 1)
    shelf.books.append(book)
    session.commit()
    assert changes(history_rows(session, "shelf_history", id=1)) == CREATED
    assert shelf.version == 0


def test_foreign_key_set_from_the_many_side_without_backref_is_recorded(session: Session, book: Book) -> None:
    book.country = session.get_one(Country, "FR")
    session.commit()
    book.country = None
    session.commit()
    rows = history_rows(session, "book_history")
    assert changes(rows) == [*CHANGED, (1, "update")]
    assert [row["country_code"] for row in rows] == [None, None, "FR"]
    assert changes(history_rows(session, "country_history")) == CREATED


def test_relationship_set_to_the_object_it_had_records_nothing(session: Session, book: Book) -> None:
    book.author = session.get_one(Author, 1)
    session.commit()
    book.author = session.get_one(Author, 1)
    session.commit()
    assert changes(history_rows(session, "book_history")) == CHANGED


def test_foreign_key_to_an_object_of_the_same_flush_is_recorded(session: Session, book: Book) -> None:
    book.author = Author(id=3)
    session.add(Shelf(id=3, books=[book]))
    session.commit()
    rows = history_rows(session, "book_history")
    assert changes(rows) == CHANGED
    assert (rows[-1]["author_id"], rows[-1]["shelf_id"]) == (None, None)
    assert book.author_id is not None
    assert book.shelf_id == 3


def test_delete_of_the_one_side_records_the_books_that_lose_their_foreign_key(session: Session, book: Book) -> None:
    shelf = session.get_one(Shelf, 1)
    shelf.books.append(book)
    session.commit()
    session.delete(shelf)
    session.commit()
    rows = history_rows(session, "book_history")
    assert changes(rows) == [*CHANGED, (1, "update")]
    assert rows[-1]["shelf_id"] == 1
    assert book.shelf_id is None
    deleted = history_rows(session, "shelf_history", id=1)
    assert changes(deleted) == [(-1, "insert"), (0, "delete")]
    assert deleted[-1]["transaction_id"] == rows[-1]["transaction_id"]


def test_both_ends_changed_in_one_flush_have_a_row_each(session: Session, book: Book) -> None:
    shelf = session.get_one(Shelf, 1)
    shelf.books.append(book)
    shelf.room = "attic"
    book.title = "B"
    session.commit()
    assert changes(history_rows(session, "shelf_history", id=1)) == CHANGED
    rows = history_rows(session, "book_history")
    assert changes(rows) == CHANGED
    assert (rows[-1]["title"], rows[-1]["shelf_id"]) == ("A", None)


@pytest.mark.parametrize("side", ["sequel_of", "sequels"])
def test_foreign_key_to_the_same_table_is_recorded(session: Session, book: Book, side: str) -> None:
    second = Book(id=2, title="B")
    session.add(second)
    session.commit()
    if side == "sequel_of":
        second.sequel_of = book
    else:
        book.sequels.append(second)
    session.commit()
    rows = history_rows(session, "book_history", id=2)
    assert changes(rows) == CHANGED
    assert rows[-1]["sequel_of_id"] is None
    assert changes(history_rows(session, "book_history", id=1)) == CREATED


def test_chain_in_one_table_is_inserted_changed_and_deleted_in_one_flush_each(session: Session) -> None:
    first = Book(id=1, title="A")
    second = Book(id=2, title="B", sequel_of=first)
    third = Book(id=3, title="C", sequel_of=second)
    session.add_all([third, second, first])
    session.commit()
    for book in (first, second, third):
        book.title = f"{book.title} changed"
    third.sequel_of = first
    session.commit()
    for book in (first, second, third):
        session.delete(book)
    session.commit()
    for key, title, before, after in ((1, "A", None, None), (2, "B", 1, 1), (3, "C", 2, 1)):
        created, updated, *others, deleted = history_rows(session, "book_history", id=key)
        assert changes([created, updated]) == CHANGED
        assert (updated["title"], updated["sequel_of_id"]) == (title, before)
        # A book that lost its predecessor in the delete's flush may have one more version.
        assert [*others, deleted][0]["sequel_of_id"] == after
        assert (deleted["operation"], deleted["title"]) == ("delete", f"{title} changed")
        assert [row["version"] for row in (*others, deleted)] == list(range(1, len(others) + 2))

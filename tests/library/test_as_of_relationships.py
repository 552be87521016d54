"""From a record at an instant to the records that were related to it then."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, relationship

from chrononaut import PastError, VersionedSQLAlchemy
from tests.library import shapes
from tests.library.models import Book, define
from tests.library.rows import history_rows
from tests.library.shapes import Item, Owner


@pytest.fixture
def family(open_database: Callable[..., Session]) -> Session:
    """Owner a has the items x and y, owner b has z."""
    session = open_database(shapes.db)
    first, second = Owner(name="a"), Owner(name="b")
    session.add_all([first, second])
    session.add_all([Item(title="x", owner=first), Item(title="y", owner=first), Item(title="z", owner=second)])
    session.commit()
    return session


def _last(session: Session, *tables: str) -> datetime:
    instant: datetime = max(row["changed"] for table in tables for row in history_rows(session, table))
    return instant


def _turned(session: Session) -> tuple[datetime, Owner, Owner]:
    """An instant at which the items were as the fixture says; afterwards they change hands, and names."""
    at = _last(session, "owner_history", "item_history")
    first, second = session.scalars(sa.select(Owner).order_by(Owner.id))
    for item in session.scalars(sa.select(Item)).all():
        item.owner = first if item.owner is second else second
        item.title = f"{item.title}!"
    first.name = second.name = "c"
    session.commit()
    return at, first, second


def _titles(session: Session, select: Any) -> list[str]:
    return sorted(state.title for state in session.scalars(select))


def test_from_one_to_many(family: Session) -> None:
    at, first, second = _turned(family)
    past = {owner.name: owner for owner in family.scalars(Owner.as_of(at))}
    assert _titles(family, Item.as_of(at).with_parent(past["a"], Owner.items)) == ["x", "y"]
    assert _titles(family, Item.as_of(at).with_parent(past["b"], Owner.items)) == ["z"]
    # Whichever state says which record it is.
    assert _titles(family, Item.as_of(at).with_parent(first, Owner.items)) == ["x", "y"]
    assert _titles(family, Item.as_of(at).with_parent(first.versions()[0], Owner.items)) == ["x", "y"]
    now = _last(family, "item_history")
    assert _titles(family, Item.as_of(now).with_parent(past["a"], Owner.items)) == ["z!"]
    assert _titles(family, Item.as_of(now).with_parent(second, Owner.items)) == ["x!", "y!"]


def test_from_many_to_one(family: Session) -> None:
    at, *_ = _turned(family)
    for item in family.scalars(sa.select(Item)):
        past = family.scalars(Item.as_of(at).where(Item.id == item.id)).one()
        expected = ["b" if past.title == "z" else "a"]
        assert [owner.name for owner in family.scalars(Owner.as_of(at).with_parent(past, Item.owner))] == expected
        # The live object has another owner now.
        assert [owner.name for owner in family.scalars(Owner.as_of(at).with_parent(item, Item.owner))] == expected
        assert family.scalars(Owner.as_of(at).with_parent(past, Item.keeper)).all() == []


def test_relationships_of_what_was_deleted(family: Session) -> None:
    at = _last(family, "owner_history", "item_history")
    past = family.scalars(Owner.as_of(at).where(Owner.name == "a")).one()
    for model in (Item, Owner):
        for obj in family.scalars(sa.select(model)).all():
            family.delete(obj)
        family.commit()
    assert _titles(family, Item.as_of(at).with_parent(past, Owner.items)) == ["x", "y"]
    assert family.scalars(Item.as_of(_last(family, "owner_history")).with_parent(past, Owner.items)).all() == []


def test_related_records_are_filtered_and_joined_further(family: Session) -> None:
    at, first, _ = _turned(family)
    related = Item.as_of(at).with_parent(first, Owner.items)
    assert _titles(family, related.where(Item.title > "x")) == ["y"]
    assert _titles(family, related.order_by(Item.title).limit(1)) == ["x"]
    joined = related.join(Item.owner).where(Owner.name == "a").add_columns(Owner.name)
    assert sorted((state.title, name) for state, name in family.execute(joined)) == [("x", "a"), ("y", "a")]
    assert family.execute(related.with_only_columns(sa.func.count(Item.id))).all() == [(2,)]


def test_from_a_record_to_others_of_its_model(session: Session) -> None:
    first = Book(title="a")
    session.add_all([first, Book(title="b", sequel_of=first), Book(title="c")])
    session.commit()
    at = _last(session, "book_history")
    for book in session.scalars(sa.select(Book)):
        book.sequel_of, book.title = None, "z"
    session.commit()
    past = {book.title: book for book in session.scalars(Book.as_of(at))}
    assert _titles(session, Book.as_of(at).with_parent(past["a"], Book.sequels)) == ["b"]
    assert _titles(session, Book.as_of(at).with_parent(past["b"], Book.sequel_of)) == ["a"]
    assert _titles(session, Book.as_of(at).with_parent(past["b"], Book.sequels)) == []
    assert _titles(session, Book.as_of(at).where(Book.sequels.any(Book.title == "b"))) == ["a"]


def test_from_many_to_many(open_database: Callable[..., Session]) -> None:
    database: Any = VersionedSQLAlchemy()
    membership = define(
        database,
        "Membership",
        person_id=sa.Column(sa.ForeignKey("person.id"), primary_key=True),
        club_id=sa.Column(sa.ForeignKey("club.id"), primary_key=True),
    )
    club = define(database, "Club", id=sa.Column(sa.Integer, primary_key=True), title=sa.Column(sa.String))
    person = define(
        database,
        "Person",
        id=sa.Column(sa.Integer, primary_key=True),
        title=sa.Column(sa.String),
        clubs=relationship(club, secondary=membership.__table__, viewonly=True, backref="persons"),
    )
    session = open_database(database)
    session.add_all([person(id=1, title="p"), person(id=2, title="q"), club(id=1, title="c"), club(id=2, title="d")])
    session.flush()
    session.add_all([membership(person_id=1, club_id=1), membership(person_id=1, club_id=2)])
    session.add(membership(person_id=2, club_id=2))
    session.commit()
    at = _last(session, "membership_history")
    session.delete(session.get_one(membership, (1, 2)))
    session.add(membership(person_id=2, club_id=1))
    for obj in [*session.scalars(sa.select(person)), *session.scalars(sa.select(club))]:
        obj.title = "z"
    session.commit()
    past = session.scalars(person.as_of(at).where(person.id == 1)).one()
    assert _titles(session, club.as_of(at).with_parent(past, person.clubs)) == ["c", "d"]
    past = session.scalars(club.as_of(at).where(club.id == 2)).one()
    assert _titles(session, person.as_of(at).with_parent(past, club.persons)) == ["p", "q"]
    assert _titles(session, person.as_of(at).join(person.clubs).where(club.title == "c")) == ["p"]
    assert _titles(session, person.as_of(at).where(~person.clubs.any(club.title == "c"))) == ["q"]
    now = _last(session, "membership_history")
    assert _titles(session, person.as_of(now).with_parent(past, club.persons)) == ["z"]


def test_relationship_over_a_table_that_is_not_versioned_is_refused(session: Session) -> None:
    book = Book(title="a")
    session.add(book)
    session.commit()
    at = _last(session, "book_history")
    with pytest.raises(PastError, match=r"the table author is not versioned.*map it as a model with Versioned"):
        session.scalars(Book.as_of(at).join(Book.author))
    with pytest.raises(PastError, match=r"Book\.author leads to Author"):
        Book.as_of(at).with_parent(book, Book.author)


def test_relationship_that_is_not_the_record_s_or_leads_elsewhere_is_refused(family: Session) -> None:
    at, first, _ = _turned(family)
    with pytest.raises(PastError, match=r"Item\.owner is no relationship of a Owner"):
        Owner.as_of(at).with_parent(first, Item.owner)
    with pytest.raises(PastError, match=r"Owner\.items is no relationship of a str"):
        Item.as_of(at).with_parent("a", Owner.items)
    with pytest.raises(PastError, match=r"Owner\.items leads to Item: ask Item\.as_of"):
        shapes.Part.as_of(at).with_parent(first, Owner.items)
    counted: Any = Item.as_of(at).with_only_columns(sa.func.count())
    with pytest.raises(PastError, match=r"Owner\.items leads to Item"):
        counted.with_parent(first, Owner.items)


def test_record_of_a_model_that_inherits_the_relationship(open_database: Callable[..., Session]) -> None:
    database: Any = VersionedSQLAlchemy()
    kinds = {"polymorphic_on": "kind", "polymorphic_identity": "house"}
    room = define(
        database,
        "Room",
        id=sa.Column(sa.Integer, primary_key=True),
        title=sa.Column(sa.String),
        house_id=sa.Column(sa.ForeignKey("house.id")),
    )
    house = define(
        database,
        "House",
        __mapper_args__=kinds,
        id=sa.Column(sa.Integer, primary_key=True),
        kind=sa.Column(sa.String),
        title=sa.Column(sa.String),
        rooms=relationship(room, backref="house"),
    )
    attributes = {
        "__tablename__": "castle",
        "__mapper_args__": {"polymorphic_identity": "castle"},
        "number": sa.Column(sa.ForeignKey("house.id"), primary_key=True),
        "towers": sa.Column(sa.Integer),
    }
    castle: Any = type("Castle", (house,), attributes)
    session = open_database(database)
    session.add(castle(title="a", towers=2, rooms=[room(title="x")]))
    session.commit()
    at = _last(session, "house_history", "room_history")
    for obj in session.scalars(sa.select(house)):
        obj.title, obj.rooms = "z", []
    session.commit()
    (past,) = session.scalars(castle.as_of(at))
    assert _titles(session, room.as_of(at).with_parent(past, house.rooms)) == ["x"]
    assert _titles(session, room.as_of(at).with_parent(past, castle.rooms)) == ["x"]
    (inside,) = session.scalars(room.as_of(at))
    assert _titles(session, house.as_of(at).with_parent(inside, room.house)) == ["a"]
    assert _titles(session, castle.as_of(at).with_parent(inside, room.house)) == ["a"]

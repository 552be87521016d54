"""What versioning costs: a statement per table, flush and five hundred rows, and no row of a pre-image."""

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests.library.conftest import Statements
from tests.library.models import Book, Country, User
from tests.library.rows import live_rows

ARCHIVES = "INSERT INTO appuser_history"


@pytest.fixture
def users(session: Session) -> list[User]:
    users = [User(id=number, email=f"{number}") for number in range(1, 26)]
    session.add_all(users)
    session.commit()
    return list(session.scalars(sa.select(User).order_by(User.id)))


def test_changed_objects_of_one_flush_are_archived_by_one_statement(
    session: Session, users: list[User], statements: Statements
) -> None:
    statements.clear()
    for user in users:
        user.name = "new"
    session.flush()
    assert len(statements.matching(ARCHIVES)) == 1
    assert len(statements.matching("UPDATE appuser SET")) == 1
    assert len(statements.executed) == 2


def test_deleted_objects_of_one_flush_are_archived_by_one_statement(
    session: Session, users: list[User], statements: Statements
) -> None:
    statements.clear()
    for user in users:
        session.delete(user)
    session.flush()
    assert len(statements.matching(ARCHIVES)) == 1
    assert len(statements.executed) == 2


def test_inserted_objects_of_one_flush_are_recorded_by_one_statement(session: Session, statements: Statements) -> None:
    session.add_all(User(id=number, email=f"{number}") for number in range(25))
    session.flush()
    assert len(statements.matching(ARCHIVES)) == 1


def test_updates_and_deletes_of_two_tables_are_archived_by_one_statement_each(
    session: Session, users: list[User], statements: Statements
) -> None:
    countries = [Country(code=f"{number:02}", name="old") for number in range(10)]
    session.add_all(countries)
    session.flush()
    statements.clear()
    for user in users[:10]:
        user.name = "new"
    for user in users[10:]:
        session.delete(user)
    for country in countries:
        country.name = "new"
    session.flush()
    assert len(statements.matching(ARCHIVES)) == 2
    assert len(statements.matching("INSERT INTO country_history")) == 1
    assert statements.matching("FROM appuser WHERE", "SELECT appuser.id AS") == []


def test_changed_objects_that_refer_to_each_other_are_archived_by_one_statement(
    session: Session, statements: Statements
) -> None:
    books = [Book(id=number, title="old") for number in range(1, 26)]
    session.add_all(books)
    session.commit()
    books = list(session.scalars(sa.select(Book)))
    first = session.get_one(Book, 1)
    statements.clear()
    for book in books:
        book.title = "new"
        book.sequel_of = None if book is first else first
    session.flush()
    assert len(statements.matching("INSERT INTO book_history")) <= 2
    assert len(statements.executed) <= 4


def test_untouched_session_executes_no_statement(session: Session, users: list[User], statements: Statements) -> None:
    session.commit()
    statements.clear()
    session.flush()
    session.commit()
    session.rollback()
    assert statements.executed == []


def test_objects_set_to_what_they_were_execute_no_statement(
    session: Session, users: list[User], statements: Statements
) -> None:
    statements.clear()
    for user in users:
        user.active = True
    session.flush()
    assert statements.executed == []


def test_change_of_untracked_columns_executes_only_the_update(
    session: Session, users: list[User], statements: Statements
) -> None:
    statements.clear()
    for user in users:
        user.clicks += 1
    session.flush()
    assert len(statements.executed) == 1
    assert statements.matching("UPDATE appuser SET clicks")


def test_a_statement_archives_five_hundred_rows_at_the_most(session: Session, statements: Statements) -> None:
    session.add_all(User(id=number, email=f"{number}") for number in range(2500))
    statements.clear()
    session.commit()
    created = statements.matching(ARCHIVES)
    users = list(session.scalars(sa.select(User)))
    statements.clear()
    for user in users:
        user.name = "new"
    session.flush()
    updated = statements.matching(ARCHIVES)
    for user in users:
        session.delete(user)
    statements.clear()
    session.commit()
    deleted = statements.matching(ARCHIVES)
    for archived in (created, updated, deleted):
        assert [count for _, count in archived] == [1] * 5
    operations = session.connection().execute(
        sa.text(
            "SELECT operation, count(*), count(DISTINCT id), count(DISTINCT changed) FROM appuser_history GROUP BY 1"
        )
    )
    assert sorted(tuple(row) for row in operations) == [
        ("delete", 2500, 2500, 1),
        ("insert", 2500, 2500, 1),
        ("update", 2500, 2500, 1),
    ]
    assert live_rows(session, "appuser") == []

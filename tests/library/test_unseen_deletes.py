"""Keys that another transaction has deleted where this one does not see it: to insert them is refused."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from chrononaut import ConcurrentChangeError, suppress_versioning
from tests.library.conftest import Statements
from tests.library.models import Country, Release, db
from tests.library.rows import changes, history_rows, live_rows

# SQLite has one writer at a time, and knows no lower isolation.
pytestmark = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
Write = Callable[[Session], Any]


@pytest.fixture
def sessions(app: Flask) -> Iterator[tuple[Session, Session]]:
    scoped = db._make_scoped_session({})
    first, second = scoped.session_factory(), scoped.session_factory()
    first.add_all([Country(code="XX", name="other"), Country(code="ZZ")])
    first.commit()
    yield first, second
    first.close()
    second.close()


def _insert(session: Session) -> None:
    session.add(Country(code="YU", name="old"))
    session.commit()


def _insert_before_versioning(session: Session) -> None:
    session.execute(sa.text("INSERT INTO country (code, name) VALUES ('YU', 'old')"))
    session.commit()


def _delete(session: Session) -> None:
    session.delete(session.get_one(Country, "YU"))
    session.commit()


def _replace(session: Session) -> None:
    _insert(session)
    _delete(session)


def _forget(session: Session) -> None:
    """The history is purged of what was long ago, and the row has another number than the first."""
    _insert(session)
    session.get_one(Country, "YU").name = "older"
    session.commit()
    with suppress_versioning(allow_deleting_history=True):
        session.execute(sa.text("DELETE FROM country_history WHERE code = 'YU'"))
    session.commit()


# What is there when the transaction begins to see the database, and what happens where it does not see it.
UNSEEN: dict[str, tuple[Write, Write]] = {
    "row_from_before": (_insert_before_versioning, _delete),
    "row_with_history": (_insert, _delete),
    "row_whose_history_was_purged": (_forget, _delete),
    "key_that_was_used_before": (_replace, _replace),
    "row_that_came_and_went": (lambda session: None, _replace),
}
INSERTS: dict[str, Write] = {
    "object": lambda s: s.add_all([Country(code="AA"), Country(code="YU", name="new")]),
    "insert": lambda s: s.execute(sa.insert(Country).values(code="YU", name="new")),
    "insert_many": lambda s: s.execute(sa.insert(Country), [{"code": "AA"}, {"code": "YU", "name": "new"}]),
    "insert_returning": lambda s: s.execute(sa.insert(Country).values(code="YU").returning(Country.name)),
    "insert_from_select": lambda s: s.execute(
        sa.insert(Country).from_select(["code", "name"], sa.select(sa.literal("YU"), sa.literal("new")))
    ),
    "changed_key": lambda s: setattr(s.get_one(Country, "XX"), "code", "YU"),
}


def _insert_and_roll_back(insert: Write, session: Session) -> None:
    try:
        insert(session)
        session.flush()
    finally:
        session.rollback()


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("insert", INSERTS.values(), ids=INSERTS)
def test_insert_of_a_key_whose_delete_is_not_seen_is_refused(
    sessions: tuple[Session, Session], isolation: str, insert: Write, subtests: pytest.Subtests
) -> None:
    first, second = sessions
    for name, (before, meanwhile) in UNSEEN.items():
        with subtests.test(name):
            before(first)
            second.connection(execution_options={"isolation_level": isolation})
            second.get_one(Country, "ZZ").name = name
            second.flush()
            meanwhile(first)
            history, live = history_rows(first, "country_history"), live_rows(first, "country")
            with pytest.raises(ConcurrentChangeError, match="Country") as error:
                _insert_and_roll_back(insert, second)
            assert ("YU",) in error.value.keys
            assert history_rows(first, "country_history") == history
            assert live_rows(first, "country") == live
            # Repeated, it sees the delete, and the numbering goes on.
            insert(second)
            second.commit()
            rows = history_rows(first, "country_history", code="YU")
            deleted = history[-1]["version"]
            assert changes(rows)[-2:] == [(deleted, "delete"), (deleted + 1, "insert")]
        first.rollback()
        first.execute(sa.text("DELETE FROM country WHERE code <> 'ZZ'"))
        first.execute(sa.text("DELETE FROM country_history WHERE code <> 'ZZ'"))
        first.execute(sa.text("INSERT INTO country (code) VALUES ('XX')"))
        first.commit()


@pytest.mark.parametrize("before", [_insert_before_versioning, _insert], ids=["row_from_before", "row_with_history"])
def test_suppressed_insert_of_a_key_whose_delete_is_not_seen_is_refused(
    sessions: tuple[Session, Session], before: Write
) -> None:
    first, second = sessions
    before(first)
    second.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    second.get_one(Country, "ZZ")
    _delete(first)
    second.add(Country(code="YU"))
    with suppress_versioning(), pytest.raises(ConcurrentChangeError, match=r"^Country 'YU': "):
        second.flush()


def test_refusal_names_the_keys_that_are_meant(sessions: tuple[Session, Session]) -> None:
    first, second = sessions
    parts = [("p", "1"), ("p", "2"), ("q", "1"), ("q", "2")]
    first.execute(sa.text("INSERT INTO release VALUES ('p', '1'), ('p', '2'), ('q', '1'), ('q', '2')"))
    first.commit()
    second.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    second.get_one(Release, ("q", "2"))
    for key in parts[1:3]:
        first.delete(first.get_one(Release, key))
    first.commit()
    second.add_all(Release(product=product, cycle=cycle) for product, cycle in [*parts[1:3], ("p", "3")])
    with pytest.raises(ConcurrentChangeError) as error:
        second.commit()
    assert {*error.value.keys} == {*parts[1:3]}


@pytest.mark.parametrize("insert", INSERTS.values(), ids=INSERTS)
def test_insert_at_read_committed_sees_the_delete_and_goes_on(sessions: tuple[Session, Session], insert: Write) -> None:
    first, second = sessions
    _insert_before_versioning(first)
    second.get_one(Country, "ZZ")
    _delete(first)
    insert(second)
    second.commit()
    assert changes(history_rows(first, "country_history", code="YU")) == [(0, "delete"), (1, "insert")]


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_insert_executes_no_statement_more_than_its_history(
    session: Session, statements: Statements, isolation: str
) -> None:
    session.connection(execution_options={"isolation_level": isolation})
    session.add_all(Country(code=f"{number:02}") for number in range(25))
    statements.clear()
    session.commit()
    assert len(statements.executed) == 2

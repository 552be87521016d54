"""What the changes of one transaction share, and what a rollback leaves."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from chrononaut import append_change_info, extra_change_info
from tests.library.models import Country, Release, User
from tests.library.rows import changes, history_rows, live_rows


@pytest.fixture
def user(session: Session) -> User:
    user = User(id=1, email="a", logins=0)
    session.add(user)
    session.commit()
    return user


def test_each_flush_of_a_transaction_makes_a_version_of_one_instant(session: Session, user: User) -> None:
    for number in (1, 2, 3):
        user.logins = number
        session.flush()
    session.commit()
    created, *updates = history_rows(session, "appuser_history")
    assert changes(updates) == [(0, "update"), (1, "update"), (2, "update")]
    assert [row["logins"] for row in updates] == [0, 1, 2]
    assert len({row["changed"] for row in updates}) == 1
    assert len({row["transaction_id"] for row in updates}) == 1
    assert updates[0]["transaction_id"] != created["transaction_id"]


def test_changes_of_one_transaction_share_instant_and_id_over_all_tables(session: Session, user: User) -> None:
    country = Country(code="FR", name="France")
    session.add(country)
    session.commit()
    user.email = "b"
    session.flush()
    session.add(Release(product="p", cycle="1"))
    session.flush()
    session.delete(country)
    session.flush()
    user.email = "c"
    session.commit()
    rows = [
        *history_rows(session, "appuser_history")[1:],
        *history_rows(session, "release_history"),
        *history_rows(session, "country_history")[1:],
    ]
    assert changes(rows) == [(0, "update"), (1, "update"), (-1, "insert"), (0, "delete")]
    assert len({row["changed"] for row in rows}) == 1
    assert len({row["transaction_id"] for row in rows}) == 1


def test_transactions_have_different_ids_in_the_order_of_time(session: Session, user: User) -> None:
    for number in range(1, 6):
        user.logins = number
        session.commit()
    rows = history_rows(session, "appuser_history")
    ids = [row["transaction_id"] for row in rows]
    assert len(set(ids)) == 6
    assert ids == sorted(ids)
    instants = [row["changed"] for row in rows]
    assert instants == sorted(instants)


def test_insert_change_and_delete_in_one_transaction_record_each(session: Session) -> None:
    user = User(id=1, email="a")
    session.add(user)
    session.flush()
    user.email = "b"
    session.flush()
    session.delete(user)
    session.commit()
    rows = history_rows(session, "appuser_history")
    assert changes(rows) == [(-1, "insert"), (0, "update"), (1, "delete")]
    assert [row["email"] for row in rows] == [None, "a", "b"]
    assert len({row["changed"] for row in rows}) == 1


def test_rollback_leaves_no_history_row(session: Session, user: User) -> None:
    user.email = "b"
    session.add(User(id=2, email="c"))
    session.flush()
    session.delete(user)
    session.flush()
    session.rollback()
    assert changes(history_rows(session, "appuser_history")) == [(-1, "insert")]
    assert user.version == 0
    user.email = "d"
    session.commit()
    assert changes(history_rows(session, "appuser_history", id=1)) == [(-1, "insert"), (0, "update")]


def test_transaction_after_a_rollback_has_an_id_and_an_instant_of_its_own(session: Session, user: User) -> None:
    user.email = "b"
    session.flush()
    undone = history_rows(session, "appuser_history")[-1]
    session.rollback()
    user.email = "c"
    session.commit()
    done = history_rows(session, "appuser_history")[-1]
    assert done["transaction_id"] != undone["transaction_id"]
    assert done["changed"] > undone["changed"]


def test_rollback_of_a_savepoint_leaves_no_history_row(session: Session, user: User) -> None:
    user.email = "before"
    session.flush()
    with _undone(session):
        user.email = "inside"
        session.add(User(id=2, email="new"))
        session.flush()
    assert user.version == 1
    user.email = "after"
    session.commit()
    rows = history_rows(session, "appuser_history")
    assert changes(rows) == [(-1, "insert"), (0, "update"), (1, "update")]
    assert [row["email"] for row in rows] == [None, "a", "before"]
    assert [row["email"] for row in live_rows(session, "appuser")] == ["after"]


def test_savepoint_that_is_released_keeps_its_history(session: Session, user: User) -> None:
    with session.begin_nested():
        user.email = "inside"
    user.email = "after"
    session.commit()
    rows = history_rows(session, "appuser_history")
    assert changes(rows) == [(-1, "insert"), (0, "update"), (1, "update")]
    assert rows[1]["transaction_id"] == rows[2]["transaction_id"]


def test_rollback_of_the_outer_savepoint_undoes_the_inner_one(session: Session, user: User) -> None:
    with _undone(session):
        with session.begin_nested():
            user.email = "inner"
        user.email = "outer"
        session.flush()
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == [(-1, "insert")]


def test_first_capture_inside_an_undone_savepoint_does_not_disturb_the_next(session: Session, user: User) -> None:
    with _undone(session):
        user.email = "inside"
        session.flush()
    user.email = "after"
    session.commit()
    rows = history_rows(session, "appuser_history")
    assert changes(rows) == [(-1, "insert"), (0, "update")]
    assert rows[-1]["email"] == "a"


def test_flush_that_violates_a_constraint_leaves_no_history_row(session: Session, user: User) -> None:
    other = User(id=2, email="b")
    session.add(other)
    session.commit()
    user.name = "changed in the same flush"
    other.email = "a"
    with pytest.raises(IntegrityError), extra_change_info(why="fails"):
        session.flush()
    session.rollback()
    assert changes(history_rows(session, "appuser_history")) == [(-1, "insert"), (-1, "insert")]
    other.email = "c"
    session.commit()
    row = history_rows(session, "appuser_history", id=2)[-1]
    assert (row["version"], row["operation"], row["email"]) == (0, "update", "b")
    assert "extra" not in row["change_info"]
    assert user.version == 0


def test_insert_that_violates_a_constraint_in_a_savepoint_lets_the_transaction_go_on(
    session: Session, user: User
) -> None:
    user.logins = 1
    with pytest.raises(IntegrityError), session.begin_nested():
        session.add(User(id=2, email="a"))
    user.logins = 2
    session.add(User(id=3, email="c"))
    session.commit()
    assert changes(history_rows(session, "appuser_history", id=1)) == [(-1, "insert"), (0, "update"), (1, "update")]
    assert changes(history_rows(session, "appuser_history", id=2)) == []
    assert changes(history_rows(session, "appuser_history", id=3)) == [(-1, "insert")]


def test_session_that_is_closed_leaves_no_history_row(session: Session, user: User) -> None:
    user.email = "b"
    session.flush()
    session.close()
    assert changes(history_rows(session, "appuser_history")) == [(-1, "insert")]


def test_untouched_session_writes_nothing(session: Session, user: User) -> None:
    assert session.scalars(sa.select(User)).all() == [user]
    append_change_info(user, why="looked at it")
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == [(-1, "insert")]


@contextmanager
def _undone(session: Session) -> Iterator[None]:
    """A savepoint that is rolled back."""
    savepoint = session.begin_nested()
    yield
    savepoint.rollback()

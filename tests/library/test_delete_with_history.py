"""A record can be deleted with all its history, and leaves no trace."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, relationship

from chrononaut import HistoryImmutableError, MissingChangeInfoError, Timeline, VersionedSQLAlchemy
from tests.library.models import Release, User, define
from tests.library.rows import changes, history_rows, live_rows


@pytest.fixture
def users(session: Session) -> list[User]:
    users = [User(id=1, email="a"), User(id=2, email="b")]
    session.add_all(users)
    session.commit()
    for user in users:
        user.name = "changed"
    session.commit()
    return users


def test_nothing_is_left_of_the_record_and_all_of_the_others(session: Session, users: list[User]) -> None:
    assert users[0].delete_with_history() == 3
    session.commit()
    assert [row["id"] for row in live_rows(session, "appuser")] == [2]
    assert history_rows(session, "appuser_history", id=1) == []
    assert changes(history_rows(session, "appuser_history", id=2)) == [(-1, "insert"), (0, "update")]
    assert not Timeline(session, User, (1,)).exists()


def test_record_that_is_deleted_already(session: Session) -> None:
    release = Release(product="p", cycle="1")
    session.add(release)
    session.commit()
    session.delete(release)
    session.commit()
    assert Timeline(session, Release, ("p", "1")).delete_with_history() == 2
    session.commit()
    assert history_rows(session, "release_history") == []


def test_key_begins_anew(session: Session, users: list[User]) -> None:
    users[0].delete_with_history()
    session.add(User(id=1, email="c"))
    session.commit()
    assert changes(history_rows(session, "appuser_history", id=1)) == [(-1, "insert")]


def test_rollback_gives_everything_back(session: Session, users: list[User]) -> None:
    users[0].delete_with_history()
    session.rollback()
    assert changes(history_rows(session, "appuser_history", id=1)) == [(-1, "insert"), (0, "update")]
    users[0].name = "goes on"
    session.commit()
    assert changes(history_rows(session, "appuser_history", id=1))[-1] == (1, "update")


def test_history_is_as_immutable_as_before(session: Session, users: list[User]) -> None:
    users[0].delete_with_history()
    session.delete(users[1].versions()[0])
    with pytest.raises(HistoryImmutableError):
        session.flush()


def test_required_reason_is_required(session: Session, users: list[User], app: Any) -> None:
    app.config["CHRONONAUT_REQUIRE_EXTRA_CHANGE_INFO"] = True
    with pytest.raises(MissingChangeInfoError):
        users[0].delete_with_history()
    session.rollback()
    assert len(history_rows(session, "appuser_history", id=1)) == 2


def test_what_is_deleted_with_it_leaves_history(open_database: Callable[..., Session]) -> None:
    db = VersionedSQLAlchemy()
    order = define(
        db,
        "Order",
        __tablename__="orders",
        id=sa.Column(sa.Integer, primary_key=True),
        lines=relationship("Line", cascade="all, delete-orphan"),
    )
    line = define(
        db,
        "Line",
        __tablename__="line",
        id=sa.Column(sa.Integer, primary_key=True),
        order_id=sa.Column(sa.ForeignKey("orders.id")),
    )
    session = open_database(db)
    one = order(id=1, lines=[line(id=1)])
    session.add(one)
    session.commit()
    one.delete_with_history()
    session.commit()
    assert history_rows(session, "orders_history") == []
    assert changes(history_rows(session, "line_history"))[-1][1] == "delete"

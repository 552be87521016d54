"""Erasing beside others that write the same record: no version slips through, and none is lost."""

import threading
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from chrononaut import ConcurrentChangeError, Timeline
from chrononaut.transactions import snapshot
from chrononaut.verify import verify
from tests.library.models import User, db
from tests.library.rows import history_rows

pytestmark = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
_WAITING = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")


@pytest.fixture
def sessions(app: Flask) -> Iterator[tuple[Session, Session]]:
    """Two sessions, and a user at version 1."""
    factory = db._make_scoped_session({"expire_on_commit": False}).session_factory
    first, second = factory(), factory()
    user = User(id=1, email="a", name="first")
    first.add(user)
    first.commit()
    user.name = "second"
    first.commit()
    yield first, second
    first.close()
    second.close()


def _while_it_waits(app: Flask, waiting: Callable[[], object], then: Callable[[], object]) -> None:
    """Do one thing, and while that waits for a lock, another, which lets it go on."""

    def run() -> None:
        with app.app_context():
            waiting()

    thread = threading.Thread(target=run)
    thread.start()
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while thread.is_alive() and not connection.scalar(_WAITING):
            pass
    then()
    thread.join()


def _names(session: Session) -> list[str | None]:
    session.rollback()
    return [row["name"] for row in history_rows(session, "appuser_history")]


def _clean() -> bool:
    with snapshot(db.engine) as connection:
        return not list(verify(connection, User))


def test_version_that_is_being_written_is_erased_too(app: Flask, sessions: tuple[Session, Session]) -> None:
    writer, eraser = sessions
    writer.get_one(User, 1).name = "third"
    writer.flush()

    def erase() -> None:
        Timeline(eraser, User, (1,)).erase()
        eraser.commit()

    _while_it_waits(app, erase, writer.commit)
    assert _names(writer) == [None, None, None]
    assert all("erased" in row["change_info"] for row in history_rows(writer, "appuser_history"))
    assert _clean()


def test_version_that_is_written_after_it_is_a_version(app: Flask, sessions: tuple[Session, Session]) -> None:
    writer, eraser = sessions
    user = writer.get_one(User, 1)
    Timeline(eraser, User, (1,)).erase()

    def write() -> None:
        user.name = "third"
        writer.commit()

    _while_it_waits(app, write, eraser.commit)
    assert _names(writer) == [None, None, "second"]
    assert ["erased" in row["change_info"] for row in history_rows(writer, "appuser_history")] == [True, True, False]
    assert _clean()


def test_two_erasures_leave_two_marks(app: Flask, sessions: tuple[Session, Session]) -> None:
    first, second = sessions
    Timeline(first, User, (1,)).erase(["name"])

    def erase() -> None:
        Timeline(second, User, (1,)).erase(["email"])
        second.commit()

    _while_it_waits(app, erase, first.commit)
    first.rollback()
    for row in history_rows(first, "appuser_history"):
        assert [mark["columns"] for mark in row["change_info"]["erased"]] == [["name"], ["email"]]


def test_change_that_the_transaction_cannot_see_refuses_it(sessions: tuple[Session, Session]) -> None:
    writer, eraser = sessions
    eraser.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    timeline = Timeline(eraser, User, (1,))
    writer.get_one(User, 1).name = "third"
    writer.commit()
    with pytest.raises(ConcurrentChangeError, match=r"^User 1: "):
        timeline.erase()
    eraser.rollback()
    assert _names(writer) == [None, "first", "second"]

"""Bulk statements that wait for another transaction: what they then find is what they archive and change."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from chrononaut import ConcurrentChangeError
from tests.library.exact import exactly_captured
from tests.library.models import User, db
from tests.library.rows import changes, history_rows, live_rows

# SQLite has one writer at a time.
pytestmark = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
Write = Callable[[Session], Any]
WAITING = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")


@pytest.fixture
def sessions(app: Flask) -> Iterator[tuple[Session, Session]]:
    scoped = db._make_scoped_session({"expire_on_commit": False})
    first, second = scoped.session_factory(), scoped.session_factory()
    first.add_all(User(id=number, email=f"{number}", logins=number) for number in (1, 2, 3))
    first.commit()
    yield first, second
    first.close()
    second.close()


def _count(session: Session, statement: Any) -> int:
    result: Any = session.execute(statement)
    count: int = result.rowcount
    return count


def _after(app: Flask, first: Session, second: Session, write: Write, then: Write = Session.commit) -> list[Any]:
    """Let one session write and commit while what another has written holds it up; what went wrong, or was returned."""
    outcome: list[Any] = []

    def run() -> None:
        with app.app_context():
            try:
                outcome.append(write(second))
                second.commit()
            except Exception as error:  # noqa: BLE001
                outcome.append(error)
                second.rollback()

    thread = threading.Thread(target=run)
    thread.start()
    with db.engine.connect() as observer:
        while thread.is_alive() and not observer.scalar(WAITING):
            observer.rollback()
    then(first)
    thread.join(20)
    assert not thread.is_alive()
    return outcome


UPDATE_OF_ALL: Any = sa.update(User).values(name="bulk", logins=User.logins * 10)
WAITED_FOR: dict[str, Write] = {
    "flush": lambda s: setattr(s.get_one(User, 2), "logins", 7),
    "bulk": lambda s: s.execute(sa.update(User).where(User.id == 2).values(logins=7)),
    "plain": lambda s: s.execute(sa.text("UPDATE appuser SET logins = 7 WHERE id = 2")),
}


@pytest.mark.parametrize("change", WAITED_FOR.values(), ids=WAITED_FOR)
def test_update_that_waited_takes_the_newer_row_and_its_version(
    app: Flask, sessions: tuple[Session, Session], change: Write
) -> None:
    first, second = sessions
    second.execute(sa.update(User).where(User.id == 1).values(token="begins"))
    change(first)
    first.flush()
    (result,) = _after(app, first, second, lambda s: _count(s, UPDATE_OF_ALL))
    assert result == 3
    plain = change is WAITED_FOR["plain"]
    rows = history_rows(second, "appuser_history", id=2)
    assert changes(rows) == [(-1, "insert"), (0, "update")] + ([] if plain else [(1, "update")])
    assert rows[-1]["logins"] == 7
    assert [row["changed"] for row in rows] == sorted(row["changed"] for row in rows)
    live = live_rows(second, "appuser", "id")
    assert [(row["logins"], row["version"]) for row in live] == [(10, 2), (70, len(rows) - 1), (30, 1)]
    # The others have the instant of the transaction, which began before.
    (begun, others) = (history_rows(second, "appuser_history", id=key)[1]["changed"] for key in (1, 3))
    assert begun == others <= rows[-1]["changed"]


def test_delete_that_waited_archives_the_newer_row(app: Flask, sessions: tuple[Session, Session]) -> None:
    first, second = sessions
    first.execute(sa.update(User).where(User.id == 2).values(name="newer"))
    _after(app, first, second, lambda s: s.execute(sa.delete(User)))
    rows = history_rows(second, "appuser_history", id=2)
    assert changes(rows) == [(-1, "insert"), (0, "update"), (1, "delete")]
    assert rows[-1]["name"] == "newer"
    assert live_rows(second, "appuser") == []


OVERTAKING: dict[str, Write] = {
    "no_longer_matches": lambda s: s.execute(sa.update(User).where(User.id == 2).values(logins=0)),
    "matches_now": lambda s: s.execute(sa.update(User).where(User.id == 1).values(logins=9)),
    "inserted": lambda s: s.execute(sa.insert(User).values(id=9, email="9", logins=9)),
    "deleted": lambda s: s.execute(sa.delete(User).where(User.id == 2)),
    "key_changed": lambda s: s.execute(sa.text("UPDATE appuser SET id = 20 WHERE id = 2")),
    "key_and_row_changed": lambda s: s.execute(sa.text("UPDATE appuser SET id = 20, logins = 8 WHERE id = 2")),
    "keys_shifted": lambda s: [
        s.execute(sa.text(f"UPDATE appuser SET id = {new} WHERE id = {old}")) for old, new in ((2, 20), (3, 2))
    ],
}


@pytest.mark.parametrize("operation", ["update", "delete"])
@pytest.mark.parametrize("change", OVERTAKING.values(), ids=OVERTAKING)
def test_rows_that_another_transaction_changes_meanwhile_agree_with_their_history(
    app: Flask, sessions: tuple[Session, Session], change: Write, operation: str
) -> None:
    first, second = sessions
    # Row 3 is what the statement waits for in any case.
    first.execute(sa.text("UPDATE appuser SET clicks = 1 WHERE id = 3"))
    change(first)
    write: Any = sa.update(User).values(name="bulk") if operation == "update" else sa.delete(User)
    (count,) = _after(app, first, second, lambda s: _count(s, write.where(User.logins > 1)))
    live = {row["id"]: row for row in live_rows(second, "appuser")}
    last = {row["id"]: row for row in history_rows(second, "appuser_history")}
    written = {key for key, row in live.items() if row["name"] == "bulk"}
    for key in written:
        assert live[key]["logins"] == last[key]["logins"]
        assert live[key]["version"] == last[key]["version"] + 1
    deleted = {key for key, row in last.items() if row["operation"] == "delete"} - live.keys()
    assert count == len(written) + len(deleted) - (change is OVERTAKING["deleted"])
    unwritten = live.keys() - written
    # Of what was not written there is no version that is not followed.
    for key in unwritten:
        versions = [row["version"] for row in history_rows(second, "appuser_history", id=key)]
        assert max(versions, default=-1) < live[key]["version"]
    second.commit()
    with exactly_captured(second, User):
        second.execute(sa.update(User).values(name="on"))


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("operation", ["update", "delete", "many"])
@pytest.mark.parametrize("waits", [True, False], ids=["waits", "comes_late"])
def test_change_that_the_transaction_does_not_see_is_refused_above_read_committed(
    app: Flask, sessions: tuple[Session, Session], isolation: str, operation: str, waits: bool
) -> None:
    first, second = sessions
    second.connection(execution_options={"isolation_level": isolation})
    second.get_one(User, 2)
    first.execute(sa.update(User).where(User.id == 2).values(name="first"))
    writes: dict[str, Write] = {
        "update": lambda s: s.execute(sa.update(User).values(name="second")),
        "delete": lambda s: s.execute(sa.delete(User)),
        "many": lambda s: s.execute(sa.update(User), [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}]),
    }
    if waits:
        (error,) = _after(app, first, second, writes[operation])
        assert isinstance(error, ConcurrentChangeError)
    else:
        first.commit()
        with pytest.raises(ConcurrentChangeError, match=r"^User: changed by another transaction"):
            writes[operation](second)
        second.rollback()
    assert [row["name"] for row in live_rows(second, "appuser", "id")] == [None, "first", None]
    assert changes(history_rows(second, "appuser_history", id=1)) == [(-1, "insert")]


def test_deadlock_is_a_concurrent_change(app: Flask, sessions: tuple[Session, Session]) -> None:
    first, second = sessions
    first.connection().execute(sa.text("SET LOCAL deadlock_timeout = '10ms'"))
    second.connection().execute(sa.text("SET LOCAL deadlock_timeout = '20s'"))
    second.execute(sa.update(User).where(User.id == 3).values(name="second"))
    first.execute(sa.update(User).where(User.id == 1).values(name="first"))

    def cross(session: Session) -> None:
        with pytest.raises(ConcurrentChangeError):
            session.execute(sa.update(User).where(User.id == 3).values(name="first"))
        session.rollback()

    update = sa.update(User).where(User.id < 3).values(name="x")
    assert _after(app, first, second, lambda s: _count(s, update), cross) == [2]
    assert [row["name"] for row in live_rows(second, "appuser", "id")] == ["x", "x", "second"]


def test_change_of_another_record_does_not_hide_a_concurrent_change(sessions: tuple[Session, Session]) -> None:
    first, second = sessions
    mine = second.get_one(User, 1)
    first.execute(sa.update(User).where(User.id == 1).values(name="first"))
    first.commit()
    second.execute(sa.update(User).where(User.id == 2).values(name="second"))
    mine.name = "lost update"
    with pytest.raises(ConcurrentChangeError):
        second.commit()

"""SQLAlchemy compiles each statement once: afterwards only its parameters are new."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import CacheStats
from sqlalchemy.orm import Session

from chrononaut import append_change_info, extra_change_info, rationale
from tests.library.models import Release, User, db

Work = Callable[[Session, int], None]


@contextmanager
def compiled_anew(engine: sa.Engine) -> Iterator[list[str]]:
    """The statements that are executed inside the block and were not found in the cache."""
    missed = []

    def note(connection: object, cursor: object, statement: str, parameters: object, context: Any, many: bool) -> None:
        if context.compiled is not None and context.cache_hit is not CacheStats.CACHE_HIT:
            missed.append(f"{context.cache_hit.name}: {statement}")

    event.listen(engine, "after_cursor_execute", note)
    try:
        yield missed
    finally:
        event.remove(engine, "after_cursor_execute", note)


def _users(session: Session, count: int) -> list[User]:
    return list(session.scalars(sa.select(User).order_by(User.id).limit(count)))


def _insert(session: Session, turn: int) -> None:
    session.add_all(User(email=uuid4().hex, password_hash="x") for _ in range(turn))


def _update(session: Session, turn: int) -> None:
    for user in _users(session, turn):
        user.name = f"updated {turn}"
        user.token = f"token {turn}"


def _update_for_reasons(session: Session, turn: int) -> None:
    for user in _users(session, turn):
        user.name = f"updated for a reason {turn}"
        append_change_info(user, ticket=f"{turn} {user.id}")
    with extra_change_info(**{f"name_{turn}": "value"}):
        session.flush()


def _delete(session: Session, turn: int) -> None:
    for user in _users(session, turn):
        session.delete(user)


def _change_composite_keys(session: Session, turn: int) -> None:
    releases = [Release(product=uuid4().hex, cycle=f"{number}") for number in range(turn)]
    session.add_all(releases)
    session.flush()
    for release in releases:
        release.cycle = f"moved {release.cycle}"
    session.flush()
    for release in releases:
        session.delete(release)


def _use_keys_again(session: Session, turn: int) -> None:
    for _ in range(2):
        releases = [Release(product="again", cycle=f"{number}") for number in range(turn)]
        session.add_all(releases)
        session.flush()
        for release in releases:
            session.delete(release)
        session.flush()


def _update_by_statement(session: Session, turn: int) -> None:
    with rationale(f"turn {turn}"):
        session.execute(sa.update(User).where(User.id > turn).values(logins=User.logins + turn, name=f"{turn}"))


def _delete_by_statement(session: Session, turn: int) -> None:
    session.execute(sa.delete(User).where(User.id <= turn))


def _insert_by_statement(session: Session, turn: int) -> None:
    session.execute(sa.insert(User), [{"email": uuid4().hex} for _ in range(turn)])


def _read(session: Session, turn: int) -> None:
    user = session.scalars(sa.select(User).order_by(User.id.desc())).first()
    assert user is not None
    at = datetime.now(UTC) - timedelta(milliseconds=turn)
    user.versions()
    user.version_at(at)
    user.has_changed_since(at)
    user.previous_version()
    user.name = f"read {turn}"
    session.flush()
    user.diff(user.versions()[-1])
    user.changes()
    user.blame()


@pytest.mark.parametrize(
    "work",
    [
        _insert,
        _update,
        _update_for_reasons,
        _delete,
        _change_composite_keys,
        _use_keys_again,
        _update_by_statement,
        _delete_by_statement,
        _insert_by_statement,
        _read,
    ],
)
def test_nothing_is_compiled_after_the_first_turns(session: Session, work: Work) -> None:
    session.add_all(User(email=f"{number}") for number in range(40))
    session.commit()
    # One record and several are given to the database in two ways.
    for turn in (1, 2):
        work(session, turn)
        session.commit()
    with compiled_anew(db.engine) as missed:
        for turn in (3, 4, 1):
            work(session, turn)
            session.commit()
    assert missed == []

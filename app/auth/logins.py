"""People who log in with a password, and the sessions that this begins."""

import secrets
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from threading import BoundedSemaphore

import argon2
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy

from app.auth.access import Principal
from app.auth.grants import Grants
from app.auth.tables import logins
from app.db import autocommitting
from app.problems import LATER, Problem
from chrononaut.types import Instant, now

SHORTEST_PASSWORD = 12
LONGEST_PASSWORD = 1024
"""Characters; there is nothing to gain in hashing more."""

_hasher = argon2.PasswordHasher()
_hashing = BoundedSemaphore(2)
_LONGEST_WAIT = 3.0  # seconds


class LoginError(Exception):
    """A login cannot be made or changed as asked; the message says why, and what would be right."""


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody who may log in.

    :ivar disabled_at: since when they may not; ``None`` while they may
    """

    email: str
    grants: Grants
    created_at: datetime
    disabled_at: datetime | None


def create_login(db: SQLAlchemy, email: str, password: str, grants: Grants) -> None:
    """Let somebody log in.

    :raises LoginError: the e-mail has a login already, or the password is too short or too long
    """
    values = {
        "email": _normal(email),
        "password_hash": _hashed(password),
        "grants": str(grants),
        "session_id": _new_session_id(),
        "created_at": now(),
    }
    try:
        with db.engine.begin() as connection:
            connection.execute(sa.insert(logins).values(values))
    except sa.exc.IntegrityError as error:
        raise LoginError(f"{values['email']} has a login already; set its password, or delete it first") from error


def list_logins(db: SQLAlchemy) -> list[Login]:
    """All logins by e-mail, also the disabled ones."""
    with autocommitting(db.engine) as connection:
        rows = connection.execute(sa.select(logins).order_by(logins.c.email)).all()
    return [Login(row.email, Grants.parse(row.grants.split()), row.created_at, row.disabled_at) for row in rows]


def set_password(db: SQLAlchemy, email: str, password: str) -> None:
    """Give a login another password, end its sessions, and enable it.

    :raises LoginError: there is no such login, or the password is too short or too long
    """
    _change(db, email, password_hash=_hashed(password), session_id=_new_session_id(), disabled_at=None)


def disable_login(db: SQLAlchemy, email: str) -> None:
    """Let somebody log in no more, and end their sessions.

    :raises LoginError: there is no such login
    """
    _change(
        db,
        email,
        disabled_at=sa.func.coalesce(logins.c.disabled_at, sa.literal(now(), Instant())),
        session_id=_new_session_id(),
    )


def delete_login(db: SQLAlchemy, email: str) -> None:
    """Forget a login; its sessions end.

    :raises LoginError: there is no such login
    """
    with db.engine.begin() as connection:
        if not connection.execute(sa.delete(logins).where(logins.c.email == _normal(email))).rowcount:
            raise _unknown(email)


def authenticate(db: SQLAlchemy, email: str, password: str) -> Principal | None:
    """Who logs in; ``None`` if the e-mail has no login, or a disabled one, or the password is wrong.

    The work is the same whoever there is, so that its time does not tell.

    :raises Problem: 503: too many log in at once
    """
    with autocommitting(db.engine) as connection:
        row = connection.execute(sa.select(logins).where(logins.c.email == _normal(email))).one_or_none()
    with _memory_to_hash():
        if row is None:
            _hasher.hash(_normal_password(password))
            return None
        try:
            _hasher.verify(row.password_hash, _normal_password(password))
        except argon2.exceptions.VerifyMismatchError:
            return None
    if row.disabled_at is not None:
        return None
    if _hasher.check_needs_rehash(row.password_hash):
        with _memory_to_hash():
            rehashed = _hasher.hash(_normal_password(password))
        with db.engine.begin() as connection:
            # Not where the password was changed meanwhile.
            unchanged = sa.and_(logins.c.email == row.email, logins.c.password_hash == row.password_hash)
            connection.execute(sa.update(logins).where(unchanged).values(password_hash=rehashed))
    return _principal(row)


@contextmanager
def _memory_to_hash() -> Iterator[None]:
    """Hash inside the block, which takes 64 MiB: as many at once as every process has the memory for."""
    if not _hashing.acquire(timeout=_LONGEST_WAIT):
        raise Problem("unavailable", "too many log in at once; try again", headers=LATER)
    try:
        yield
    finally:
        _hashing.release()


def find_session(db: SQLAlchemy, session_id: str) -> Principal | None:
    """Whose session it is; ``None`` if it has ended."""
    statement = sa.select(logins).where(logins.c.session_id == session_id, logins.c.disabled_at.is_(None))
    with autocommitting(db.engine) as connection:
        row = connection.execute(statement).one_or_none()
    return None if row is None else _principal(row)


def end_sessions(db: SQLAlchemy, session_id: str) -> None:
    """End all sessions of a login.

    The cookie that the browser forgets could have been copied: it has to be worth nothing, too.
    """
    with db.engine.begin() as connection:
        connection.execute(
            sa.update(logins).where(logins.c.session_id == session_id).values(session_id=_new_session_id())
        )


def _change(db: SQLAlchemy, email: str, **values: object) -> None:
    with db.engine.begin() as connection:
        if not connection.execute(sa.update(logins).where(logins.c.email == _normal(email)).values(values)).rowcount:
            raise _unknown(email)


def _unknown(email: str) -> LoginError:
    return LoginError(f"nobody logs in as {_normal(email)}; flask logins list shows who does")


def _principal(row: sa.Row[tuple[object, ...]]) -> Principal:
    return Principal(row.email, Grants.parse(row.grants.split()), row.session_id)


def _normal(email: str) -> str:
    return email.strip().lower()


def _normal_password(password: str) -> str:
    # One password, whichever way a keyboard composes its letters.
    return unicodedata.normalize("NFKC", password)


def _hashed(password: str) -> str:
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise LoginError(
            f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters; this one has {len(password)}"
        )
    return _hasher.hash(_normal_password(password))


def _new_session_id() -> str:
    return secrets.token_urlsafe(32)

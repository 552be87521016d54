"""Bearer tokens (RFC 6750) that the service makes itself, written ``chrononaut_<id>_<secret>``.

The id is no secret: it names the token in lists, and where somebody has found one. Only the hash of the whole is kept.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import sqlalchemy as sa
from flask import current_app
from flask_sqlalchemy import SQLAlchemy

from app.auth.access import Principal
from app.auth.grants import Grants
from app.auth.tables import tokens
from app.db import autocommitting, impatient
from chrononaut.types import now

PREFIX = "chrononaut_"
"""How every token begins."""
_USES_ARE_NOTED_EVERY = timedelta(minutes=1)
_BY_DIGEST = sa.select(tokens).where(tokens.c.digest == sa.bindparam("digest"))

State = Literal["valid", "expired", "revoked"]


class UnknownTokenError(LookupError):
    """There is no token with this id."""


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token, which is all but the token itself.

    :ivar name: what it is for
    :ivar user: whom its writes are recorded as
    :ivar last_used_at: to the minute
    """

    id: str
    name: str | None
    user: str
    grants: Grants
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    @property
    def state(self) -> State:
        """Is it taken now?"""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now() else "valid"


def create_token(
    db: SQLAlchemy, user: str, grants: Grants, lifetime: timedelta | None = None, *, name: str | None = None
) -> str:
    """Make a token.

    :param user: whom the change info of its writes names
    :param grants: what it may do; ``write`` includes ``read``, and ``admin`` both
    :param lifetime: after this long it is refused; never by default
    :param name: what it is for
    :return: the token. It cannot be read again.
    """
    id_ = secrets.token_hex(5)
    token = f"{PREFIX}{id_}_{secrets.token_urlsafe(32)}"
    created_at = now()
    with db.engine.begin() as connection:
        connection.execute(
            sa.insert(tokens).values(
                id=id_,
                digest=_digest(token),
                name=name,
                user_id=user,
                grants=str(grants),
                created_at=created_at,
                expires_at=None if lifetime is None else created_at + lifetime,
            )
        )
    return token


def list_tokens(db: SQLAlchemy) -> list[Token]:
    """All tokens, oldest first, also those that are refused."""
    with autocommitting(db.engine) as connection:
        rows = connection.execute(sa.select(tokens).order_by(tokens.c.created_at, tokens.c.id)).all()
    return [_token(row) for row in rows]


def revoke_token(db: SQLAlchemy, id_: str) -> bool:
    """Refuse a token from now on.

    :return: was it taken until now? ``False`` if it had been revoked before
    :raises UnknownTokenError: there is no such token
    """
    with db.engine.begin() as connection:
        revoked = connection.execute(
            sa.update(tokens).where(tokens.c.id == id_, tokens.c.revoked_at.is_(None)).values(revoked_at=now())
        )
        if revoked.rowcount:
            return True
        if connection.scalar(sa.select(tokens.c.id).where(tokens.c.id == id_)) is None:
            raise UnknownTokenError(id_)
    return False


def find_principal(db: SQLAlchemy, token: str) -> Principal | None:
    """Whom a token stands for; ``None`` if it is unknown, expired or revoked."""
    with autocommitting(db.engine) as connection:
        row = connection.execute(_BY_DIGEST, {"digest": _digest(token)}).one_or_none()
    found = None if row is None else _token(row)
    if found is None or found.state != "valid":
        return None
    _note_use(db, found)
    return Principal(found.user, found.grants)


def _note_use(db: SQLAlchemy, token: Token) -> None:
    """Keep when a token was used, unless that was noted just before.

    It neither waits nor fails: where somebody else is writing, or nobody can, a later request will note it.
    """
    used_at = now()
    latest = used_at - _USES_ARE_NOTED_EVERY
    if token.last_used_at is not None and token.last_used_at > latest:
        return
    # Of requests at once the first notes it, and the others pass its lock by.
    due = sa.select(tokens.c.id).where(
        tokens.c.id == token.id, sa.or_(tokens.c.last_used_at.is_(None), tokens.c.last_used_at <= latest)
    )
    statement = sa.update(tokens).where(tokens.c.id.in_(due.with_for_update(skip_locked=True)))
    try:
        with impatient(db.engine) as connection:
            connection.execute(statement.values(last_used_at=used_at))
    except sa.exc.DBAPIError as error:
        current_app.logger.info("the use of token %s is not noted: %s", token.id, type(error.orig).__name__)


def _token(row: sa.Row[tuple[object, ...]]) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        user=row.user_id,
        grants=Grants.parse(row.grants.split()),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )


def _digest(token: str) -> str:
    # A token is 256 bits of chance: there is nothing to guess that a slow hash would have to protect.
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()

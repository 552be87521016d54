"""Bearer tokens (RFC 6750).

The tokens are kept in a table of their own, which is no registered model: no route of ``/records`` or ``/history``
serves it, so that a token which may write records can never raise its own rights.
"""

import hashlib
import secrets
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from flask import Flask, Request
from flask_login import LoginManager
from flask_sqlalchemy import SQLAlchemy

from app.auth.access import InvalidTokenError, Principal, note_refused
from app.auth.grants import Grants
from app.auth.identity import Provider
from chrononaut.types import Instant, now

_PREFIX = "chrononaut_"
_DOTS_OF_JWT = 2

metadata = sa.MetaData()
tokens = sa.Table(
    "chrononaut_access_token",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("user_id", sa.String(254), nullable=False),
    sa.Column("grants", sa.Text, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant),
    sa.Column("revoked_at", Instant),
)


def create_token(db: SQLAlchemy, user_id: str, grants: Grants, lifetime: timedelta | None = None) -> str:
    """Make a token.

    :param user_id: what the change info of its writes names as their user
    :param grants: what it may do; ``write`` includes ``read``, and ``admin`` both
    :param lifetime: after this long it is refused; never by default
    :return: the token. It cannot be read again: only its hash is stored.
    """
    token = _PREFIX + secrets.token_urlsafe(32)
    created_at = now()
    with db.engine.begin() as connection:
        connection.execute(
            sa.insert(tokens).values(
                digest=_digest(token),
                user_id=user_id,
                grants=str(grants),
                created_at=created_at,
                expires_at=None if lifetime is None else created_at + lifetime,
            )
        )
    return token


def find_principal(db: SQLAlchemy, token: str) -> Principal | None:
    """Whom a token stands for; ``None`` if it is unknown, expired or revoked."""
    statement = sa.select(tokens.c.user_id, tokens.c.grants, tokens.c.expires_at).where(
        tokens.c.digest == _digest(token), tokens.c.revoked_at.is_(None)
    )
    # Outside of the request's transaction: a writer shall not hold SQLite's write lock before it is known.
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        row = connection.execute(statement).one_or_none()
    if row is None or (row.expires_at is not None and row.expires_at <= now()):
        return None
    return Principal(row.user_id, Grants.parse(row.grants.split()))


def _digest(token: str) -> str:
    # A token is 256 bits of chance: there is nothing to guess that a slow hash would have to protect.
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def init_login(app: Flask, db: SQLAlchemy, provider: Provider | None = None) -> None:
    """Let Flask-Login know who sends a bearer token (RFC 6750).

    :param provider: whose tokens are taken besides ours
    """
    manager: Any = LoginManager()
    manager.init_app(app)

    def load(request: Request) -> Principal | None:
        authorization = request.authorization
        if authorization is None or authorization.type != "bearer" or not authorization.token:
            return None
        try:
            return _bearer(authorization.token)
        except InvalidTokenError as error:
            note_refused(error)
            return None

    def _bearer(token: str) -> Principal:
        if provider is not None and not token.startswith(_PREFIX) and token.count(".") == _DOTS_OF_JWT:
            return provider.principal(token)
        principal = find_principal(db, token)
        if principal is None:
            raise InvalidTokenError("the token is unknown, expired or revoked")
        return principal

    manager.request_loader(load)

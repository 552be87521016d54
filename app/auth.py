"""Who may: bearer tokens with scopes, for Flask-Login.

The tokens are kept in a table of their own, which is no registered model: no route of ``/records`` or ``/history``
serves it, so that a token which may write records can never raise its own rights.
"""

import hashlib
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar, get_args

import sqlalchemy as sa
from flask import Flask, Request, current_app
from flask_login import LoginManager, UserMixin, current_user
from flask_sqlalchemy import SQLAlchemy

from app.problems import Problem
from chrononaut.types import Instant, now

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_IMPLIED: dict[Scope, frozenset[Scope]] = {
    "read": frozenset({"read"}),
    "write": frozenset({"read", "write"}),
    "admin": frozenset(SCOPES),
}
_PREFIX = "chrononaut_"

metadata = sa.MetaData()
tokens = sa.Table(
    "chrononaut_token",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("user_id", sa.String(254), nullable=False),
    sa.Column("scopes", sa.String(40), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant),
    sa.Column("revoked_at", Instant),
)


@dataclass(frozen=True, slots=True)
class Principal(UserMixin):  # type: ignore[misc]  # Flask-Login has no types
    """Who makes a request, and what they may do."""

    email: str
    scopes: frozenset[Scope]

    def get_id(self) -> str:
        return self.email


def create_token(db: SQLAlchemy, user_id: str, scopes: Collection[Scope], lifetime: timedelta | None = None) -> str:
    """Make a token.

    :param user_id: what the change info of its writes names as their user
    :param scopes: what it may do; ``write`` includes ``read``, and ``admin`` both
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
                scopes=" ".join(scope for scope in SCOPES if scope in scopes),
                created_at=created_at,
                expires_at=None if lifetime is None else created_at + lifetime,
            )
        )
    return token


def find_principal(db: SQLAlchemy, token: str) -> Principal | None:
    """Whom a token stands for; ``None`` if it is unknown, expired or revoked."""
    statement = sa.select(tokens.c.user_id, tokens.c.scopes, tokens.c.expires_at).where(
        tokens.c.digest == _digest(token), tokens.c.revoked_at.is_(None)
    )
    # Outside of the request's transaction: a writer shall not hold SQLite's write lock before it is known.
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        row = connection.execute(statement).one_or_none()
    if row is None or (row.expires_at is not None and row.expires_at <= now()):
        return None
    granted: list[Scope] = [scope for scope in SCOPES if scope in row.scopes.split()]
    return Principal(row.user_id, frozenset().union(*(_IMPLIED[scope] for scope in granted)))


def _digest(token: str) -> str:
    # A token is 256 bits of chance: there is nothing to guess that a slow hash would have to protect.
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def init_login(app: Flask, db: SQLAlchemy) -> None:
    """Let Flask-Login know who sends a bearer token (RFC 6750)."""
    manager: Any = LoginManager()
    manager.init_app(app)

    def load(request: Request) -> Principal | None:
        authorization = request.authorization
        if authorization is None or authorization.type != "bearer" or not authorization.token:
            return None
        return find_principal(db, authorization.token)

    manager.request_loader(load)


_P = ParamSpec("_P")
_R = TypeVar("_R")


def requires(scope: Scope) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Let a view be called only by who has a scope; reading can be open to all by a setting."""

    def decorate(view: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(view)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            if not (scope == "read" and current_app.config["OPEN_READING"]):
                check_scope(current_user, scope)
            return view(*args, **kwargs)

        return checked

    return decorate


def check_scope(user: Any, scope: Scope) -> None:
    """Refuse who has no token, or one without a scope.

    :raises Problem: 401 or 403
    """
    if not user.is_authenticated:
        raise Problem(
            "unauthenticated",
            "send a valid token as Authorization: Bearer …",
            headers={"WWW-Authenticate": 'Bearer realm="chrononaut"'},
        )
    if scope not in user.scopes:
        raise Problem(
            "forbidden",
            f"this takes a token with the scope {scope}; yours has {', '.join(sorted(user.scopes)) or 'none'}",
            headers={"WWW-Authenticate": f'Bearer realm="chrononaut", error="insufficient_scope", scope="{scope}"'},
        )

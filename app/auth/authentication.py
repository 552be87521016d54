"""Who sends a request: by a bearer token, or else by a session."""

from datetime import timedelta
from typing import Any

from flask import Flask, Request
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from flask_login import LoginManager, login_fresh
from flask_sqlalchemy import SQLAlchemy

from app.auth import logins, tokens
from app.auth.access import SESSION_COOKIE, InvalidTokenError, Principal, note_refused
from app.auth.identity import Provider
from app.settings import Settings

_LONGEST_SESSION = timedelta(hours=12)
_DOTS_OF_JWT = 2


def principal_of_bearer(db: SQLAlchemy, provider: Provider | None, token: str) -> Principal:
    """Whom a bearer token (RFC 6750) stands for, by what it looks like.

    :param provider: whose tokens are taken besides ours
    :raises InvalidTokenError: it is not, or no longer, valid
    """
    is_ours = token.startswith(tokens.PREFIX)
    if provider is not None and not is_ours and token.count(".") == _DOTS_OF_JWT:
        return provider.principal(token)
    principal = tokens.find_principal(db, token) if is_ours else None
    if principal is None:
        raise InvalidTokenError("the token is unknown, expired or revoked")
    return principal


def init_authentication(app: Flask, db: SQLAlchemy, settings: Settings, provider: Provider | None = None) -> None:
    """Let Flask-Login know who sends a request.

    :param provider: whose tokens are taken besides ours
    """
    app.config.update(
        SESSION_COOKIE_NAME=SESSION_COOKIE,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=settings.secure_cookies,
        # Of the login: the cookie is not made anew when it is used.
        PERMANENT_SESSION_LIFETIME=_LONGEST_SESSION,
        SESSION_REFRESH_EACH_REQUEST=False,
        # As long as the session.
        WTF_CSRF_TIME_LIMIT=None,
        # Nobody is remembered. No cookie can have this name, so that none comes before a token.
        REMEMBER_COOKIE_NAME=";",
    )
    app.session_interface = _Sessions()
    manager: Any = LoginManager()
    manager.session_protection = "basic"
    manager.init_app(app)

    def load_from_session(session_id: str) -> Principal | None:
        # It is not fresh any more where it comes from another address or another browser than it began with.
        return logins.find_session(db, session_id) if login_fresh() else None

    def load_from_request(request: Request) -> Principal | None:
        authorization = request.authorization
        if authorization is None or authorization.type != "bearer" or not authorization.token:
            return None
        try:
            return principal_of_bearer(db, provider, authorization.token)
        except InvalidTokenError as error:
            note_refused(error)
            return None

    manager.user_loader(load_from_session)
    manager.request_loader(load_from_request)


class _Sessions(SecureCookieSessionInterface):
    """Sessions of Flask, which a request that says by itself who sends it has none of."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        return self.session_class() if "Authorization" in request.headers else super().open_session(app, request)

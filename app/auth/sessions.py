"""The operations of ``/session``: a browser's login."""

from functools import partial
from typing import Any

from flask import session
from flask_limiter import Limiter
from flask_login import current_user, login_user
from flask_sqlalchemy import SQLAlchemy
from flask_wtf.csrf import generate_csrf
from marshmallow import fields, validate
from werkzeug import Response

from app.answers import Answer, no_content
from app.api import Blueprint
from app.auth import logins
from app.auth.access import CSRF_HEADER, Principal, unauthenticated
from app.auth.tables import LONGEST_USER
from app.columns import Body
from app.limits import limit_failed_logins

_LARGEST_BODY = 16 * 1024
_Secret = tuple[dict[str, Any], dict[str, str]]

_EXAMPLE = {
    "user": "ada@example.com",
    "grants": ["read", "release:write"],
    "csrf_token": "ImY3ZDk1OTk2ZDU0Zjci.aR2yVA.0fS0mQ1T",
}


class CredentialsSchema(Body):
    """Who logs in."""

    email = fields.String(
        required=True, validate=validate.Length(1, LONGEST_USER), metadata={"example": "ada@example.com"}
    )
    password = fields.String(
        required=True,
        load_only=True,
        validate=validate.Length(1, logins.LONGEST_PASSWORD),
        metadata={"format": "password", "example": "correct horse battery staple"},
    )


class SessionSchema(Answer):
    """Who makes a request, and what they may do."""

    user = fields.String(required=True, metadata={"description": "whom changes are recorded as made by"})
    grants = fields.List(
        fields.String(), required=True, metadata={"description": "scopes, for one model as `release:write`"}
    )
    csrf_token = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": f"what goes into `{CSRF_HEADER}` in this session; null of who sends a token"},
    )


def add_session(blueprint: Blueprint, db: SQLAlchemy, limiter: Limiter) -> None:
    """Add the operations of ``/session``."""
    authenticate = limit_failed_logins(limiter, partial(logins.authenticate, db))

    @blueprint.operation(
        "POST",
        "/session",
        "log_in",
        scope=None,
        public=True,
        status=201,
        answer=SessionSchema,
        example=_EXAMPLE,
        body=CredentialsSchema,
        largest_body=_LARGEST_BODY,
        headers=["Set-Cookie"],
        problems=["login-failed"],
    )
    def log_in(query: dict[str, Any], body: dict[str, Any]) -> _Secret:
        """Log in, for a browser.

        The answer's cookie makes a session of at most 12 hours, which ends when the browser's address changes. No cache
        may store the answer.
        """
        principal = authenticate(body["email"], body["password"])
        if principal is None:
            raise unauthenticated("login-failed", "the e-mail or the password is wrong, or the login is disabled")
        # Nothing of what was there before goes on in the new session.
        session.clear()
        login_user(principal)
        return _document(principal)

    @blueprint.operation("GET", "/session", "get_session", scope=None, answer=SessionSchema, example=_EXAMPLE)
    def get_session(query: dict[str, Any]) -> _Secret:
        """Who makes this request, by a session or by a token, and what they may do."""
        return _document(current_user)

    @blueprint.operation("DELETE", "/session", "log_out", scope=None, status=204, answer=None, headers=["Set-Cookie"])
    def log_out(query: dict[str, Any]) -> Response:
        """Log out: all sessions of the login end, in other browsers too. A token has none, and stays valid."""
        if current_user.session_id is not None:
            logins.end_sessions(db, current_user.session_id)
            session.clear()
        return no_content()


def _document(principal: Principal) -> _Secret:
    document = {
        "user": principal.email,
        "grants": sorted(map(str, principal.grants.all)),
        "csrf_token": None if principal.session_id is None else generate_csrf(),
    }
    # `app.compression` goes by it too: no length shall tell of the CSRF token.
    return document, {"Cache-Control": "no-store"}

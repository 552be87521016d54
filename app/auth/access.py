"""Who may do what: each request is checked before anything of it is read."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

from flask import current_app, g, request
from flask_login import UserMixin, current_user
from flask_wtf.csrf import validate_csrf
from wtforms import ValidationError

from app.auth.grants import Grant, Grants, Scope
from app.db import READING
from app.problems import Problem
from app.registry import Registry

CSRF_HEADER = "X-CSRF-Token"
"""The header that tells a request of our own pages from a forged one, of a site that the browser is on as well."""
SESSION_COOKIE = "chrononaut_session"
_CHALLENGE = 'Bearer realm="chrononaut"'


@dataclass(frozen=True, slots=True)
class Principal(UserMixin):  # type: ignore[misc]  # Flask-Login has no types
    """Who makes a request, and what they may do.

    :ivar email: whom the change info of their writes names
    :ivar session_id: by what their session is found again; ``None`` of who sends a bearer token
    """

    email: str
    grants: Grants
    session_id: str | None = None

    def get_id(self) -> str:
        """What Flask-Login keeps in the session."""
        return self.session_id or self.email


class InvalidTokenError(Exception):
    """A bearer token that is refused; the message says why, as much of it as whoever sent it may know."""


def note_refused(error: InvalidTokenError) -> None:
    """Let the answer say why the token of this request was refused, if it takes one."""
    g.refused_token = str(error)


_P = ParamSpec("_P")
_R = TypeVar("_R")


def may(scope: Scope, model: str | None = None) -> bool:
    """May who makes this request do something? Reading can be open to all by a setting.

    A grant for a model that others inherit from is one for their records too, as they are among its own.

    :param model: with the records of this model; of any model by default
    """
    if scope == "read" and current_app.config["OPEN_READING"]:
        return True
    if not current_user.is_authenticated:
        return False
    registry: Registry = current_app.extensions["chrononaut"]
    allowed: bool = current_user.grants.allow(scope, None if model is None else registry.lineage(model))
    return allowed


def requires(scope: Scope | None, model: str | None = None) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Let a view be called only by who may: 401 or 403 otherwise.

    What changes something is refused in a session without a CSRF token, too: a browser sends the session's cookie by
    itself, also where another site makes it.

    :param scope: what it takes; ``None`` where it is enough to be known
    :param model: the model that the view is about. A view about none is for who has the scope for any; what it tells
        of each is for it to check with `may`.
    """

    def decorate(view: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(view)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            _refuse_forged()
            if not (current_user.is_authenticated if scope is None else may(scope, model)):
                raise _refusal(scope, model)
            return view(*args, **kwargs)

        return checked

    return decorate


def unauthenticated(kind: str, detail: str, refused: str | None = None) -> Problem:
    """A problem of the status 401, which says how to say who asks (RFC 6750, section 3).

    :param refused: what was wrong with the token that was sent
    """
    error = "" if refused is None else f', error="invalid_token", error_description="{refused}"'
    challenge = f"{_CHALLENGE}{error}"
    return Problem(kind, detail, headers={"WWW-Authenticate": challenge})


def _refuse_forged() -> None:
    if request.method in READING or not current_user.is_authenticated or current_user.session_id is None:
        return
    try:
        validate_csrf(request.headers.get(CSRF_HEADER))
    except ValidationError as error:
        raise Problem(
            "csrf-failed", f"send the csrf_token of GET /session as {CSRF_HEADER}, as what changes something takes it"
        ) from error


def _refusal(scope: Scope | None, model: str | None) -> Problem:
    if scope is None or not current_user.is_authenticated:
        refused: str | None = g.get("refused_token")
        right = "send a valid token as Authorization: Bearer …, or log in"
        return unauthenticated("unauthenticated", f"{refused}; {right}" if refused else right, refused)
    least = Grant(scope, model)
    needed = scope if model is None else f"{scope} or {least}"
    return Problem(
        "forbidden",
        f"this takes the scope {needed}; yours is {current_user.grants or 'none'}",
        headers={"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{least}"'},
    )

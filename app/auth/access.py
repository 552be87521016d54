"""Who may do what: each request is checked before anything of it is read."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

from flask import current_app, g
from flask_login import UserMixin, current_user

from app.auth.grants import Grants, Scope
from app.problems import Problem


@dataclass(frozen=True, slots=True)
class Principal(UserMixin):  # type: ignore[misc]  # Flask-Login has no types
    """Who makes a request, and what they may do."""

    email: str
    grants: Grants

    def get_id(self) -> str:
        return self.email


class InvalidTokenError(Exception):
    """A bearer token that is refused; the message says why, as much of it as whoever sent it may know."""


def note_refused(error: InvalidTokenError) -> None:
    """Let the answer say why the token of this request was refused, if it takes one."""
    g.refused_token = str(error)


_P = ParamSpec("_P")
_R = TypeVar("_R")


def may(scope: Scope, model: str | None = None) -> bool:
    """May who makes this request do something? Reading can be open to all by a setting.

    :param model: with the records of this model; of any model by default
    """
    if scope == "read" and current_app.config["OPEN_READING"]:
        return True
    return bool(current_user.is_authenticated) and current_user.grants.allow(scope, model)


def requires(scope: Scope, model: str | None = None) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Let a view be called only by who may: 401 or 403 otherwise.

    :param model: the model that the view is about. A view about none is for who has the scope for any; what it tells
        of each is for it to check with `may`.
    """

    def decorate(view: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(view)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            if not may(scope, model):
                raise _refusal(scope, model)
            return view(*args, **kwargs)

        return checked

    return decorate


def _refusal(scope: Scope, model: str | None) -> Problem:
    if not current_user.is_authenticated:
        reason = g.get("refused_token")
        error = f', error="invalid_token", error_description="{reason}"' if reason else ""
        return Problem(
            "unauthenticated",
            f"{reason}; send a valid one" if reason else "send a valid token as Authorization: Bearer …",
            headers={"WWW-Authenticate": f'Bearer realm="chrononaut"{error}'},
        )
    needed = scope if model is None else f"{scope} or {model}:{scope}"
    return Problem(
        "forbidden",
        f"this takes the scope {needed}; yours is {current_user.grants or 'none'}",
        headers={"WWW-Authenticate": f'Bearer realm="chrononaut", error="insufficient_scope", scope="{scope}"'},
    )

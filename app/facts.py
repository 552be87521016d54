"""What a request is told of by in the log, the metrics and the traces: no value of a column, no query, no header."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask import Flask, Response, current_app, g, request

from app.methods import IMPLEMENTED
from app.problems import PROBLEM

_FACTS: Final = "chrononaut.facts"
_METHODS = frozenset(IMPLEMENTED)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a request.

    :ivar method: ``other`` where it is none that a resource has, so that there are few
    :ivar route: the rule that its address fits, as ``/records/user/<key>``; none of an address that is nothing's
    :ivar model: the public name of the model that it is about
    :ivar key: the text of the record key in its address
    :ivar user: who sends it, as change info names them; none if that was not asked
    :ivar problem: the kind of problem that it was answered with
    """

    method: str
    route: str | None
    model: str | None
    key: str | None
    user: str | None
    problem: str | None


def init_facts(app: Flask) -> None:
    """Keep of each request what is known of it when it has been answered, for `facts_of`."""

    @app.after_request
    def keep(response: Response) -> Response:
        request.environ[_FACTS] = current_facts()
        return response


def current_facts() -> Facts:
    """What is known of the current request so far."""
    rule, blueprint = request.url_rule, request.blueprint
    # Not asked here who sends it: that may take the database.
    user = g.get("_login_user")
    return Facts(
        request.method if request.method in _METHODS else "other",
        None if rule is None else rule.rule,
        blueprint if blueprint in current_app.extensions["chrononaut"] else None,
        (request.view_args or {}).get("key"),
        getattr(user, "email", None),
        request.environ.get(PROBLEM),
    )


def facts_of(environ: Mapping[str, Any]) -> Facts | None:
    """What is known of a request that was answered.

    :param environ: of WSGI
    :return: none of what the server itself has answered
    """
    facts: Facts | None = environ.get(_FACTS)
    return facts

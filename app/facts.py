"""What a request is told of by in the log, the metrics and the traces: no value of a column, no query, no header."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from flask import Flask, Response, current_app, g, request
from flask.globals import request_ctx

from app.methods import IMPLEMENTED
from app.problems import PROBLEM

_FACTS: Final = "chrononaut.facts"
_METHODS = frozenset(IMPLEMENTED)


class Facts(NamedTuple):
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
    # Each attribute of a proxy would be asked for by itself.
    current = request_ctx.request
    rule = current.url_rule
    blueprint = None if rule is None else rule.endpoint.rpartition(".")[0]
    # Not asked here who sends it: that may take the database.
    user = g.get("_login_user")
    return Facts(
        method=current.method if current.method in _METHODS else "other",
        route=None if rule is None else rule.rule,
        model=blueprint if blueprint in current_app.extensions["chrononaut"] else None,
        key=current.view_args.get("key") if current.view_args else None,
        user=getattr(user, "email", None),
        problem=current.environ.get(PROBLEM),
    )


def facts_of(environ: Mapping[str, Any]) -> Facts | None:
    """What is known of a request that was answered.

    :param environ: of WSGI
    :return: none of what the server itself has answered
    """
    facts: Facts | None = environ.get(_FACTS)
    return facts

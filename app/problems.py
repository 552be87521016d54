"""Errors → ``application/problem+json`` (RFC 9457)."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from flask import Flask, Response, current_app, request
from gunicorn.http.errors import ParseException
from marshmallow import fields
from sqlalchemy import exc
from sqlalchemy.orm.exc import StaleDataError
from werkzeug.exceptions import HTTPException
from werkzeug.sansio.response import Response as SansIOResponse

from app.answers import Answer
from app.change_headers import ChangeHeaderError, header_of
from app.database_errors import CONCURRENT, UNAVAILABLE, Refusal, log_unexpected, names_of, refusal_of
from app.headers import whole
from chrononaut import ChangeInfoError, MissingChangeInfoError, RequiredChangeInfoError, RestoreError

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: what is always the same about it.

    :ivar headers: names of headers that its answers may have, besides those that any answer may have
    """

    status: int
    title: str
    headers: tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    "malformed-request": Kind(400, "The request cannot be read"),
    "change-header-invalid": Kind(400, "An X-Change-* header cannot be taken"),
    "change-info-required": Kind(400, "The change needs a reason"),
    "unauthenticated": Kind(401, "A valid token is needed, or a login", ("WWW-Authenticate",)),
    "login-failed": Kind(401, "Nobody logs in with this e-mail and password", ("WWW-Authenticate",)),
    "forbidden": Kind(403, "The grants do not allow this", ("WWW-Authenticate",)),
    "csrf-failed": Kind(403, "The CSRF token is missing or wrong"),
    "not-found": Kind(404, "There is nothing at this address"),
    "unknown-model": Kind(404, "No such model"),
    "unknown-record": Kind(404, "No such record"),
    "unknown-version": Kind(404, "No such version"),
    "unknown-transaction": Kind(404, "No such transaction"),
    "method-not-allowed": Kind(405, "The method is not allowed here", ("Allow",)),
    "not-acceptable": Kind(406, "No acceptable representation"),
    "request-timeout": Kind(408, "The request took too long to arrive"),
    "record-exists": Kind(409, "The record exists already"),
    "conflict": Kind(409, "The change conflicts with other records"),
    "concurrent-change": Kind(409, "The record was changed meanwhile"),
    "bulk-failed": Kind(409, "Some items cannot be written"),
    "deleted": Kind(410, "The record was deleted", ("Link",)),
    "precondition-failed": Kind(412, "The record is at another version"),
    "content-too-large": Kind(413, "The request is too large"),
    "uri-too-long": Kind(414, "The address is too long"),
    "unsupported-media-type": Kind(415, "The body must be JSON", ("Accept", "Accept-Encoding", "Accept-Patch")),
    "expectation-failed": Kind(417, "The expectation cannot be met"),
    "invalid": Kind(422, "The request does not fit"),
    "bulk-invalid": Kind(422, "Some items do not fit"),
    "too-many-requests": Kind(429, "Too many requests", ("Retry-After",)),
    "headers-too-large": Kind(431, "The headers are too large"),
    "internal-error": Kind(500, "Something went wrong here"),
    "not-implemented": Kind(501, "This is not implemented"),
    "unavailable": Kind(503, "The service cannot answer now", ("Retry-After",)),
    "http-version-not-supported": Kind(505, "This version of HTTP is not spoken here"),
}
"""Every kind of problem, by the last part of its ``type``."""

_KINDS_BY_STATUS = {
    400: "malformed-request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    409: "conflict",
    410: "deleted",
    412: "precondition-failed",
    413: "content-too-large",
    415: "unsupported-media-type",
    422: "invalid",
    429: "too-many-requests",
    501: "not-implemented",
    503: "unavailable",
}


_MOST_ERRORS = 100
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,63}")


def problem_type(kind: str) -> str:
    """The ``type`` of a kind of problem."""
    return f"/problems/{kind}"


# A list of texts of each name, or the same again of its parts. A union would say so, but openapi-generator makes of one
# in a map what cannot be compiled.
_ERRORS = {"type": "object", "additionalProperties": True}


class ProblemSchema(Answer):
    """A problem (RFC 9457)."""

    type = fields.String(
        required=True,
        metadata={
            "format": "uri-reference",
            "description": "The kind of problem: what a client decides by. Others may be added, which a client takes "
            "for a problem of their status.",
            "example": problem_type("invalid"),
            # Not `enum`: a client that was generated before a kind was added would fail to read it.
            "x-extensible-enum": [problem_type(kind) for kind in KINDS],
        },
    )
    title = fields.String(required=True, metadata={"description": "what is the same about all problems of the kind"})
    status = fields.Integer(required=True, metadata={"format": "int32", "minimum": 400, "maximum": 599})
    detail = fields.String(metadata={"description": "what was wrong here, and what would be right"})
    errors = fields.Raw(
        metadata={
            "type": "object",
            "description": "Of what was sent, by location (`json`, `query`) and name: what was wrong with it.",
            "additionalProperties": _ERRORS,
        }
    )


class ItemProblemSchema(Answer):
    """What is wrong with one of the items of a request."""

    index = fields.Integer(
        required=True, metadata={"description": "its place in the request, from 0", "minimum": 0, "maximum": 999}
    )
    problem = fields.Nested(ProblemSchema, required=True)


class BulkProblemSchema(ProblemSchema):
    """A problem (RFC 9457) of a request with many items."""

    items = fields.List(
        fields.Nested(ItemProblemSchema), metadata={"description": "each of the items that cannot be written"}
    )


class Problem(Exception):  # noqa: N818  the term of RFC 9457
    """A request that is answered with a problem.

    :param kind: a key of `KINDS`
    :param detail: what was wrong here, and what would be right
    :param items: of a request with many, those that are wrong, as `ItemProblemSchema` describes them
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        errors: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        items: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self.kind, self.detail, self.errors, self.headers, self.items = kind, detail, errors, headers, items
        super().__init__(detail)


def register_problems(app: Flask) -> None:
    """Answer every error with a problem."""
    app.register_error_handler(Problem, _answer)
    app.register_error_handler(HTTPException, _answer_http)
    app.register_error_handler(ParseException, _answer_unreadable)
    app.register_error_handler(ChangeHeaderError, lambda error: _respond("change-header-invalid", str(error)))
    app.register_error_handler(ChangeInfoError, lambda error: _respond("change-header-invalid", str(error)))
    app.register_error_handler(MissingChangeInfoError, _answer_missing_change_info)
    app.register_error_handler(RequiredChangeInfoError, _answer_required_change_info)
    app.register_error_handler(RestoreError, _answer_not_restored)
    app.register_error_handler(StaleDataError, _answer_concurrent_change)
    app.register_error_handler(exc.StatementError, _answer_database)
    app.register_error_handler(exc.TimeoutError, _answer_no_connection)
    app.register_error_handler(Exception, _answer_unexpected)
    app.add_url_rule("/problems/<kind>", "problem", _describe)


def problem_document(problem: Problem) -> dict[str, Any]:
    """A problem as it is answered."""
    kind = KINDS[problem.kind]
    body = {"type": problem_type(problem.kind), "title": kind.title, "status": kind.status, "detail": problem.detail}
    if problem.errors:
        body["errors"] = problem.errors
    if problem.items:
        body["items"] = problem.items
    return body


def _respond(
    kind: str, detail: str, errors: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    return _answer(Problem(kind, detail, errors=errors, headers=headers))


def _answer(problem: Problem) -> Response:
    # A lone surrogate in a name that the client sent has no UTF-8; its escape is one of JSON.
    text = current_app.json.dumps(problem_document(problem)).encode(errors="backslashreplace")
    response = Response(text, KINDS[problem.kind].status, mimetype=MEDIA_TYPE)
    response.headers.extend(problem.headers or {})
    return response


def _answer_http(error: HTTPException) -> Response | SansIOResponse:
    code = error.code or 500
    if code < 400:  # noqa: PLR2004  a redirect is no error
        return error.get_response()
    kind = _KINDS_BY_STATUS.get(code, "malformed-request" if code < 500 else "internal-error")  # noqa: PLR2004
    headers = {name: value for name, value in error.get_headers() if name not in {"Content-Type", "Content-Length"}}
    if kind == "not-found":
        return _respond(*_not_found(), headers=headers)
    # webargs and flask-smorest keep what the schemas said in an attribute of their own.
    data: Mapping[str, Any] = getattr(error, "data", {})
    errors = repeatable(data.get("messages") or {})
    detail = data.get("message") or error.description or KINDS[kind].title
    if errors:
        detail = f"not as it must be: {', '.join(_places(errors))}; errors say what is wrong with each"
    return _respond(kind, detail, errors, headers)


def repeatable(messages: Any) -> Any:
    """What schemas say, at most `_MOST_ERRORS` things of each, and no name that no field could have.

    A name that a field could have is told to who sent it, also where there is no such field: it is how they find what
    they mistyped. Any other may be as long as a body, or a text in the wrong place, and helps nobody.
    """
    if not isinstance(messages, Mapping):
        return messages
    shown = islice(messages.items(), _MOST_ERRORS)
    return {
        name if isinstance(name, int) or _NAME.fullmatch(name) else "…": repeatable(message) for name, message in shown
    }


def _places(errors: Mapping[str, Any]) -> list[str]:
    places = []
    for location, names in errors.items():
        places += [f"{name} in the {location}" for name in names] if isinstance(names, Mapping) else [f"the {location}"]
    return places


def _not_found() -> tuple[str, str]:
    _, section, *rest = request.path.split("/")
    if section in {"history", "records", "bulk"} and rest and rest[0] not in current_app.extensions["chrononaut"]:
        models = ", ".join(current_app.extensions["chrononaut"])
        return "unknown-model", f"there is no model {rest[0][:60]!r}; there are {models}"
    if section == "transactions" and len(rest) == 1:
        return "unknown-transaction", f"the id of a transaction is a UUID, as changes tell it; not {rest[0][:60]!r}"
    return "not-found", f"there is nothing at {request.path[:200]}; /docs tells what there is"


def _answer_unreadable(error: ParseException) -> Response:
    """What gunicorn says of a body that it cannot read, as its parts are malformed."""
    current_app.logger.info("unreadable body: %s", type(error).__name__)
    return _respond("malformed-request", "the body cannot be read: its chunks are malformed (RFC 9112, section 7.1)")


def _answer_missing_change_info(error: MissingChangeInfoError) -> Response:
    return _respond(
        "change-info-required", f"{error.operation} of {error.model} without a reason; send X-Change-Rationale"
    )


def _answer_required_change_info(error: RequiredChangeInfoError) -> Response:
    missing = {
        header_of(key): f"missing or blank; send a text that matches {whole(text)}"
        for key, text in error.missing.items()
    }
    unfit = {header_of(key): f"does not match {whole(text)}" for key, text in error.unfit.items()}
    wrong = missing | unfit
    return _respond(
        "change-info-required",
        f"a write of {error.model} needs {', '.join(wrong)}; errors say what each must be",
        {"headers": {name: [said] for name, said in wrong.items()}},
    )


def _answer_not_restored(error: RestoreError) -> Response:
    if not error.missing:
        return _respond("invalid", str(error))
    errors = {"json": {"values": {name: ["cannot be empty, and history has no value of it"] for name in error.missing}}}
    names = ", ".join(error.missing)
    return _respond("invalid", f"history has no value of {names}, which cannot be empty; give it in values", errors)


def _answer_concurrent_change(error: StaleDataError) -> Response:
    return _answer(_problem(CONCURRENT))


def problem_of(error: exc.StatementError) -> Problem | None:
    """What a client is told of a statement that the database refuses; ``None`` if that is our fault."""
    refusal = refusal_of(error, names_of(current_app.extensions["sqlalchemy"].metadatas.values()))
    return None if refusal is None else _problem(refusal)


def _problem(refusal: Refusal) -> Problem:
    # Who reads changes nothing that could conflict.
    if refusal is CONCURRENT and request.method in _READING:
        refusal = UNAVAILABLE
    headers = {"Retry-After": "1"} if refusal is UNAVAILABLE else None
    return Problem(refusal.kind, refusal.detail, headers=headers)


def _answer_database(error: exc.StatementError) -> Response:
    problem = problem_of(error)
    if problem is None:
        return _answer_unexpected(error)
    level = logging.ERROR if problem.kind == "unavailable" else logging.INFO
    current_app.logger.log(level, "the database refuses a statement: %s: %s", type(error.orig).__name__, problem.kind)
    return _answer(problem)


def _answer_no_connection(error: exc.TimeoutError) -> Response:
    """All connections of the pool are taken."""
    current_app.logger.error("no connection is free")
    return _answer(_problem(UNAVAILABLE))


def _answer_unexpected(error: Exception) -> Response:
    log_unexpected(current_app.logger, error)
    return _respond("internal-error", "the error was logged; nothing was changed")


def _describe(kind: str) -> SansIOResponse:
    """What a ``type`` of a problem means."""
    if kind not in KINDS:
        raise Problem("not-found", f"there is no kind of problem {kind[:60]!r}; there are {', '.join(KINDS)}")
    body = {"type": problem_type(kind), "title": KINDS[kind].title, "status": KINDS[kind].status}
    return current_app.json.response(body)

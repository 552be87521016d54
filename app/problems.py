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
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.sansio.response import Response as SansIOResponse

from app.answers import Answer
from app.change_headers import ChangeHeaderError, header_of
from app.database_errors import CONCURRENT, UNAVAILABLE, Refusal, log_unexpected, name_of, names_of, refusal_of
from app.db import READING, OutcomeUnknownError
from app.headers import whole
from chrononaut import (
    ChangeInfoError,
    ErasureError,
    MissingChangeInfoError,
    PurgedError,
    RequiredChangeInfoError,
    RestoreError,
)

MEDIA_TYPE = "application/problem+json"
PROBLEM = "chrononaut.problem"
"""Where WSGI's environment has the kind of problem that a request is answered with."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: what is always the same about it.

    :ivar description: when it comes, and what to do
    :ivar headers: names of headers that its answers may have, besides those that any answer may have
    """

    status: int
    title: str
    description: str
    headers: tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    "malformed-request": Kind(
        400,
        "The request cannot be read",
        "It is no HTTP/1.1, its address or its body is no UTF-8, or its body is no JSON (RFC 8259) or ended too early. "
        "Nothing was done. Mend how the request is written before you send it again.",
    ),
    "change-header-invalid": Kind(
        400,
        "An X-Change-* header cannot be taken",
        "There are too many of them, they are too long, or one has no name, control characters or no UTF-8. Nothing "
        "was written. Send plain text on one line, as ASCII, UTF-8 or an ext-value of RFC 8187.",
    ),
    "change-info-required": Kind(
        400,
        "The change needs a reason",
        "The model takes no write without certain `X-Change-*` headers. Nothing was written. `errors.headers` says "
        "which are missing or do not match, and the pattern that the whole of each must match.",
    ),
    "unauthenticated": Kind(
        401,
        "A valid token is needed, or a login",
        "No token or session came with the request, or the token is unknown, expired or revoked. Send a valid one as "
        "`Authorization: Bearer …`, or log in at `POST /session`. `WWW-Authenticate` says what was wrong with the "
        "token.",
        ("WWW-Authenticate",),
    ),
    "login-failed": Kind(
        401,
        "Nobody logs in with this e-mail and password",
        "One of the two is wrong, or the login is disabled; which of these is not told. After too many of them, 429 "
        "comes.",
        ("WWW-Authenticate",),
    ),
    "forbidden": Kind(
        403,
        "The grants do not allow this",
        "It is known who asks, and they may not. `WWW-Authenticate` names the scope that it takes; ask who operates "
        "the service for a token that has it.",
        ("WWW-Authenticate",),
    ),
    "csrf-failed": Kind(
        403,
        "The CSRF token is missing or wrong",
        "What changes something in a session takes the `csrf_token` of `GET /session` as `X-CSRF-Token`. Read it "
        "again, as it ends with the session, and repeat.",
    ),
    "not-found": Kind(
        404,
        "There is nothing at this address",
        "No operation has it: a segment is missing, misspelt or too many. The OpenAPI document has all addresses.",
    ),
    "unknown-model": Kind(
        404,
        "No such model",
        "No model of this name is served. `GET /history` lists those that are, as far as you may read.",
    ),
    "unknown-record": Kind(
        404,
        "No such record",
        "There never was a record with this key, or no record can have it. A record that was deleted is `deleted` "
        "instead.",
    ),
    "unknown-version": Kind(
        404,
        "No such version",
        "The record has no version of this number, or did not exist at this instant. Its history lists those that it "
        "has.",
    ),
    "unknown-transaction": Kind(
        404,
        "No such transaction",
        "No transaction of this id has changed a record that you may read. Ids of transactions are told by changes.",
    ),
    "method-not-allowed": Kind(
        405, "The method is not allowed here", "The address takes other methods, which `Allow` names.", ("Allow",)
    ),
    "not-acceptable": Kind(
        406,
        "No acceptable representation",
        "The answer has none of the media types in `Accept`. Nothing was done. Name one of those that `detail` says, "
        "or leave `Accept` out.",
    ),
    "request-timeout": Kind(
        408,
        "The request took too long to arrive",
        "Its last byte did not come in time. Nothing was done. Send it anew, on a new connection.",
    ),
    "record-exists": Kind(
        409,
        "The record exists already",
        "A record with this key is there. Nothing was written. Change or replace that one.",
    ),
    "conflict": Kind(
        409,
        "The change conflicts with other records",
        "A value that must be unique is taken, or another record is missing or in the way. Nothing was written. Give "
        "another value, or change the other record first.",
    ),
    "concurrent-change": Kind(
        409,
        "The record was changed meanwhile",
        "Another request changed it at the same time, and won. Nothing of this one was written. Read the record again, "
        "and repeat what you still want.",
    ),
    "bulk-failed": Kind(
        409,
        "Some items cannot be written",
        "What is there does not allow them. None of the items was written, those that could have been included. "
        "`items` says what is wrong with each; mend or leave out these, and send all again.",
    ),
    "deleted": Kind(
        410,
        "The record was deleted",
        "It was there, and has no current state. `Link` leads to its history, which stays readable; "
        "`POST …/restore` makes it again.",
        ("Link",),
    ),
    "purged": Kind(
        410,
        "The version was purged",
        "It was there, and was taken out of history for good, as it was older than what is kept. The record's history "
        "lists what is left, and its `purged` says what went, when and why.",
    ),
    "precondition-failed": Kind(
        412,
        "The precondition does not hold",
        "`If-Match` names none of the record's entity tags, or `If-None-Match` one of them: it is at another version. "
        "Nothing was written. Read the record again, decide whether the change is still right, and repeat it with the "
        "new `ETag`. What has no entity tag, as a list or an erasure, takes no such condition: send it without.",
    ),
    "content-too-large": Kind(
        413,
        "The request is too large",
        "The body has more bytes than the operation takes. Nothing was done. Send less at once, in several requests.",
    ),
    "uri-too-long": Kind(
        414, "The address is too long", "Path and query have more characters than are taken. Ask for less at once."
    ),
    "unsupported-media-type": Kind(
        415,
        "The body must be JSON",
        "Its `Content-Type` is another or missing, it is not UTF-8, or it has a `Content-Encoding`. Nothing was done. "
        "`Accept` names the media types that are taken.",
        ("Accept", "Accept-Encoding", "Accept-Patch"),
    ),
    "expectation-failed": Kind(
        417, "The expectation cannot be met", "`Expect` may say `100-continue`, or be left out; nothing else is known."
    ),
    "invalid": Kind(
        422,
        "The request does not fit",
        "It can be read, and parameters or fields are missing, unknown or have values that cannot be. Nothing was "
        "written. `errors` says by location and name what each must be.",
    ),
    "bulk-invalid": Kind(
        422,
        "Some items do not fit",
        "Of some items fields are missing, unknown or have values that cannot be; others may be refused by what is "
        "there. None of the items was written. `items` says what is wrong with each; mend these, and send all again.",
    ),
    "too-many-requests": Kind(
        429,
        "Too many requests",
        "You asked, or tried to log in, more often than the limits allow. Nothing was done. Wait for as many seconds "
        "as `Retry-After` says.",
        ("Retry-After",),
    ),
    "headers-too-large": Kind(
        431,
        "The headers are too large",
        "There are too many, or one is too long. Nothing was done. Send fewer or shorter.",
    ),
    "internal-error": Kind(
        500,
        "Something went wrong here",
        "The service has a defect, or what it stands on. Nothing was written. Tell who operates it the "
        "`X-Request-ID` of the answer, by which their log has it.",
    ),
    "not-implemented": Kind(
        501,
        "This is not implemented",
        "The request uses a part of HTTP that the service does not have; `detail` says which.",
    ),
    "unavailable": Kind(
        503,
        "The service cannot answer now",
        "The database, or the identity provider, does not answer, or tables are not yet migrated. Send it again after "
        "as many seconds as `Retry-After` says. No record was changed.",
        ("Retry-After",),
    ),
    "outcome-unknown": Kind(
        503,
        "It is not known whether the change was made",
        "The connection to the database was lost while the change was being committed: all of it was made, or nothing. "
        "After as many seconds as `Retry-After` says read what is there, or the history, before you repeat it.",
        ("Retry-After",),
    ),
    "http-version-not-supported": Kind(
        505,
        "This version of HTTP is not spoken here",
        "Only HTTP/1.0 and HTTP/1.1 are. Set your client to one of these.",
    ),
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


_LOCATIONS = {"json": "body"}
"""Location as `errors` have it → as a sentence has it, if it is another word."""
_MOST_ERRORS = 100
LATER = {"Retry-After": "1"}
"""The header of what may be sent again soon."""
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
            "description": "The kind of problem: what a client decides by. It is an address that tells what the kind "
            "means. Others may be added, which a client takes for a problem of their status.",
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
            "description": "Of what was sent, by location and name: what was wrong with it, and what would be right. "
            "Locations are `json` (the body), `query` and `headers`; `_schema` is the name of all that is there.",
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
    app.register_error_handler(PurgedError, lambda error: _respond("purged", str(error)))
    app.register_error_handler(RestoreError, _answer_not_restored)
    app.register_error_handler(ErasureError, lambda error: _respond("invalid", str(error)))
    app.register_error_handler(StaleDataError, _answer_concurrent_change)
    app.register_error_handler(exc.StatementError, _answer_database)
    app.register_error_handler(exc.TimeoutError, _answer_no_connection)
    app.register_error_handler(OutcomeUnknownError, _answer_unknown_outcome)
    app.register_error_handler(Exception, _answer_unexpected)


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
    request.environ[PROBLEM] = problem.kind
    # A lone surrogate in a name that the client sent has no UTF-8; its escape is one of JSON.
    text = current_app.json.dumps(problem_document(problem)).encode(errors="backslashreplace")
    response = Response(text, KINDS[problem.kind].status, mimetype=MEDIA_TYPE)
    response.headers.extend(problem.headers or {})
    return response


def _answer_http(error: HTTPException) -> Response | SansIOResponse:
    code = error.code or 500
    if code < 400:  # noqa: PLR2004  a redirect is no error
        return error.get_response()
    if isinstance(error, MethodNotAllowed):
        return _answer(_not_allowed(error))
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
        where = _LOCATIONS.get(location, location)
        # marshmallow's name for all of it together.
        inside = [name for name in names if name != "_schema"] if isinstance(names, Mapping) else []
        places += [f"{name} in the {where}" for name in inside] or [f"the {where}"]
    return places


def _not_found() -> tuple[str, str]:
    _, section, *rest = request.path.split("/")
    if section in {"history", "records", "bulk"} and rest and rest[0] not in current_app.extensions["chrononaut"]:
        models = ", ".join(current_app.extensions["chrononaut"])
        return "unknown-model", f"there is no model {rest[0][:60]!r}; there are {models}"
    if section == "transactions" and len(rest) == 1:
        return "unknown-transaction", f"the id of a transaction is a UUID, as changes tell it; not {rest[0][:60]!r}"
    return "not-found", f"there is nothing at {request.path[:200]}; /docs tells what there is"


def _not_allowed(error: MethodNotAllowed) -> Problem:
    allowed = ", ".join(sorted(error.valid_methods or ()))
    detail = f"this address takes {allowed}, not {request.method[:20]!r}"
    return Problem("method-not-allowed", detail, headers={"Allow": allowed})


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
    errors = {"json": {"values": {name: ["must be given, as history has no value of it"] for name in error.missing}}}
    names = ", ".join(error.missing)
    return _respond("invalid", f"history has no value of {names}, which must be given; give it in values", errors)


def _answer_concurrent_change(error: StaleDataError) -> Response:
    return _answer(_problem(CONCURRENT))


def problem_of(error: exc.StatementError) -> Problem | None:
    """What a client is told of a statement that the database refuses; ``None`` if that is our fault."""
    refusal = refusal_of(error, names_of(current_app.extensions["sqlalchemy"].metadatas.values()))
    return None if refusal is None else _problem(refusal)


def _problem(refusal: Refusal) -> Problem:
    # Who reads changes nothing that could conflict.
    if refusal is CONCURRENT and request.method in READING:
        refusal = UNAVAILABLE
    headers = LATER if refusal.kind == "unavailable" else None
    return Problem(refusal.kind, refusal.detail, headers=headers)


def _answer_database(error: exc.StatementError) -> Response:
    problem = problem_of(error)
    if problem is None:
        return _answer_unexpected(error)
    level = logging.ERROR if problem.kind == "unavailable" else logging.INFO
    current_app.logger.log(
        level, "the database refuses a statement: %s: %s", name_of(error.orig or error), problem.kind
    )
    return _answer(problem)


def _answer_no_connection(error: exc.TimeoutError) -> Response:
    """All connections of the pool are taken."""
    current_app.logger.error("no connection is free")
    return _answer(_problem(UNAVAILABLE))


def _answer_unknown_outcome(error: OutcomeUnknownError) -> Response:
    current_app.logger.error("the connection was lost during a commit")
    detail = "the connection to the database was lost during the commit; read what is there before you repeat it"
    return _respond("outcome-unknown", detail, headers=LATER)


def _answer_unexpected(error: Exception) -> Response:
    log_unexpected(current_app.logger, error)
    return _respond("internal-error", "the error was logged; nothing was changed")

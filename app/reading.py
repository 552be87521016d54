"""How a request is read: its address, its query and its body, and what is refused before anything is made of them."""

import json
import math
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

import marshmallow
from flask import Request, request
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.routing import IntegerConverter

from app.bounds import refuse_many_parameters
from app.media import body_types
from app.problems import Problem

_DEEPEST = 100
"""Levels of a body at the most: all that reads it calls itself for each."""


class Parser(FlaskParser):
    """Refuses unknown query parameters, and bodies that are no JSON."""

    DEFAULT_UNKNOWN_BY_LOCATION = FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION | {"query": marshmallow.RAISE}

    def load_querystring(self, req: Request, schema: marshmallow.Schema) -> Any:
        """The parameters, each at most once."""
        refuse_many_parameters()
        if repeated := [name for name, values in req.args.lists() if len(values) > 1]:
            errors = {"query": {name: ["given more than once"] for name in repeated}}
            raise Problem("invalid", f"given more than once: {', '.join(repeated)}", errors=errors)
        return req.args.to_dict()

    def load_json(self, req: Request, schema: marshmallow.Schema) -> Any:
        _check_content(req)
        try:
            document = json.loads(
                _body_of(req).decode(), object_pairs_hook=_members, parse_float=_finite, parse_constant=_refuse_constant
            )
            _refuse_depth(document)
        except (ValueError, RecursionError) as error:
            raise Problem("malformed-request", f"the body is no JSON that can be taken: {error}") from error
        return document


def _check_content(req: Request) -> None:
    """Refuse a body that says it is something else than it may be (RFC 9110, section 15.5.16).

    :raises Problem: 415, with what would be right in ``Accept``, of ``PATCH`` in ``Accept-Patch`` too (RFC 5789)
    """
    if req.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(
            "unsupported-media-type",
            "send the body as it is, without a Content-Encoding",
            headers={"Accept-Encoding": "identity"},
        )
    types = body_types(req.method)
    if req.mimetype not in types or req.mimetype_params.get("charset", "utf-8").lower() != "utf-8":
        taken = ", ".join(types)
        raise Problem(
            "unsupported-media-type",
            f"send the body as {' or '.join(types)}, in UTF-8; its Content-Type was {req.content_type or 'missing'}",
            headers={"Accept": taken, **({"Accept-Patch": taken} if req.method == "PATCH" else {})},
        )


def _body_of(req: Request) -> bytes:
    try:
        body = req.get_data(cache=True)
    except OSError as error:
        raise Problem("malformed-request", "the body cannot be read: it ended too early") from error
    except RequestEntityTooLarge as error:
        raise _too_large(req) from error
    if req.content_length is not None and len(body) < req.content_length:
        raise Problem("malformed-request", "the body ended before its Content-Length; send it whole")
    # A body that comes in chunks is cut at the limit, silently.
    if req.content_length is None and len(body) >= (req.max_content_length or len(body) + 1):
        raise _too_large(req)
    return body


def _too_large(req: Request) -> Problem:
    return Problem("content-too-large", f"a body may have {req.max_content_length} bytes at the most")


def refuse_undecodable() -> None:
    """Refuse an address that is no UTF-8: read with replacement characters, it would be another one.

    :raises Problem: 400
    """
    if request.environ.get("SERVER_PROTOCOL") == "HTTP/1.1" and not request.environ.get("HTTP_HOST"):
        raise Problem("malformed-request", "a request of HTTP/1.1 names its Host (RFC 9112, section 3.2)")
    path = request.environ.get("PATH_INFO", "").encode("latin-1")
    parameters = unquote_to_bytes(request.environ.get("QUERY_STRING", "").encode("latin-1"))
    try:
        (path + b" " + parameters).decode()
    except UnicodeDecodeError as error:
        raise Problem("malformed-request", "the address holds bytes that are no UTF-8; encode them anew") from error


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Readers disagree about which of two counts (RFC 8259, section 4).
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name is given more than once in an object")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _refuse_depth(document: Any) -> None:
    level = [document]
    for _ in range(_DEEPEST):
        level = [part for item in level for part in _parts(item)]
        if not level:
            return
    raise ValueError(f"it is nested more than {_DEEPEST} deep")


def _parts(item: Any) -> Iterable[Any]:
    return item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


class Digits(IntegerConverter):
    """A number in ASCII digits: in others it would be a second address of the same thing."""

    regex = "[0-9]+"

"""Conditional requests (RFC 9110, section 13), and how long an answer may be kept (RFC 9111).

Whatever is kept, only the client keeps it (``private``), also where reading is open to all: it may be closed again, and
a record be purged with all its history, and no cache between us and the client would know. Every answer says so, and a
problem too: of one that says nothing a cache decides for itself, a 404 included.
"""

from flask import request
from werkzeug import Response

from app.problems import Problem

_READING = frozenset({"GET", "HEAD"})
_IMMUTABLE = "private, max-age=31536000, immutable"
_CHANGING = "private, no-cache"


def check_preconditions(etags: tuple[str, ...]) -> None:
    """Refuse a request whose ``If-Match`` is none of a record's entity tags, or a write whose ``If-None-Match`` is one.

    :param etags: what identifies the current representation; the first is its own tag. None of a deleted record.
    :raises Problem: 412
    """
    # A header that cannot be read matches nothing.
    unmet = "If-Match" in request.headers and not any(request.if_match.contains(etag) for etag in etags)
    unwanted = request.method not in _READING and any(request.if_none_match.contains(etag) for etag in etags)
    if unmet or unwanted:
        raise precondition_failed(etags)


def precondition_failed(etags: tuple[str, ...]) -> Problem:
    """The record is not as the client has it.

    :param etags: what identifies it now; none of a deleted record
    """
    return Problem(
        "precondition-failed",
        f'the record is at "{etags[0]}" now; read it again before you decide what to do'
        if etags
        else "the record is deleted; read its history before you decide what to do",
    )


def ask_again(response: Response) -> Response:
    """The response, which is asked for anew before each use if it does not say how long it may be kept."""
    response.headers.setdefault("Cache-Control", _CHANGING)
    return response


def cacheable(response: Response, etag: str, *, immutable: bool = False) -> Response:
    """The response with its entity tag, and how long it may be kept; without its body if the client has it already.

    :param immutable: will this never change? Otherwise it may be kept, but is asked for anew before each use.
    """
    response.set_etag(etag)
    if immutable:
        response.headers["Cache-Control"] = _IMMUTABLE
    if request.method in _READING and request.if_none_match.contains_weak(etag):
        response.status_code = 304
        response.set_data(b"")
        response.headers.pop("Content-Type", None)
    return response

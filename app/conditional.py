"""Conditional requests (RFC 9110, section 13)."""

from flask import request
from werkzeug import Response

from app.problems import Problem


def check_preconditions(etags: tuple[str, ...]) -> None:
    """Refuse a request whose ``If-Match`` is none of a record's entity tags, or a write whose ``If-None-Match`` is one.

    :param etags: what identifies the current representation; the first is its own tag
    :raises Problem: 412
    """
    # A header that cannot be read matches nothing.
    unmet = "If-Match" in request.headers and not any(request.if_match.contains(etag) for etag in etags)
    unwanted = request.method != "GET" and any(request.if_none_match.contains(etag) for etag in etags)
    if unmet or unwanted:
        raise Problem(
            "precondition-failed", f'the record is at "{etags[0]}" now; read it again before you decide what to do'
        )


def not_modified(response: Response, etag: str) -> Response:
    """The response with its entity tag; without its body if the client has it already."""
    response.set_etag(etag)
    if request.method in {"GET", "HEAD"} and request.if_none_match.contains_weak(etag):
        response.status_code = 304
        response.set_data(b"")
        response.headers.pop("Content-Type", None)
    return response

"""Conditional requests (RFC 9110, section 13), and how long an answer may be kept (RFC 9111).

Whatever is kept, only the client keeps it (``private``), also where reading is open to all: it may be closed again, and
a record be purged with all its history, and no cache between us and the client would know. Every answer says so, and a
problem too: of one that says nothing a cache decides for itself, a 404 included.

Nothing has a ``Last-Modified``: a second is too coarse for versions. So ``If-Modified-Since`` and
``If-Unmodified-Since`` are passed over, as section 13.1 wants it, and so is ``Range``, as section 14.2 allows. A read
of what has no ``ETag`` takes no precondition either.
"""

from flask import request
from werkzeug import Response

from app.problems import Problem

CODING = "gzip"
"""The one content coding of answers; it ends the entity tag of a representation that has it."""

_READING = frozenset({"GET", "HEAD"})
_IMMUTABLE = "private, max-age=31536000, immutable"
_CHANGING = "private, no-cache"


def check_preconditions(etags: tuple[str, ...]) -> None:
    """Refuse a request whose ``If-Match`` is none of a record's entity tags, or a write whose ``If-None-Match`` is one.

    :param etags: what identifies the current representation; the first is its own tag. None of a deleted record.
    :raises Problem: 412
    """
    tags = [tag for etag in etags for tag in _tags(etag)]
    # A header that cannot be read matches nothing. If-Match compares strongly, If-None-Match weakly.
    unmet = "If-Match" in request.headers and not any(map(request.if_match.contains, tags))
    unwanted = request.method not in _READING and any(map(request.if_none_match.contains_weak, tags))
    if unmet or unwanted:
        raise precondition_failed(etags)


def precondition_failed(etags: tuple[str, ...]) -> Problem:
    """The record is not as the client has it.

    :param etags: what identifies it now; none of a deleted record
    """
    return Problem(
        "precondition-failed",
        f'it is at "{etags[0]}" now; read it again before you decide what to do'
        if etags
        else "the record is deleted; read its history before you decide what to do",
    )


def check_untagged_preconditions() -> None:
    """Refuse a write to what is there and has no entity tag, as a list, if it is conditional on one.

    :raises Problem: 412
    """
    if ("If-Match" in request.headers and not request.if_match.star_tag) or request.if_none_match.star_tag:
        raise Problem(
            "precondition-failed",
            "this is a list, which is there and has no ETag; send it without If-Match and If-None-Match: what is to be "
            "made and is there already is refused anyway",
        )


def _tags(etag: str) -> tuple[str, str]:
    """The entity tags of a representation: plain, and coded."""
    return etag, f"{etag}:{CODING}"


def ask_again(response: Response) -> Response:
    """The response, which is asked for anew before each use if it does not say how long it may be kept."""
    response.headers.setdefault("Cache-Control", _CHANGING)
    return response


def cacheable(response: Response, *etags: str, immutable: bool = False) -> Response:
    """The response with its entity tag, and how long it may be kept; without its body if the client has it already.

    :param etags: its own tag, and others that are good enough for ``If-Match``
    :param immutable: will this never change? Otherwise it may be kept, but is asked for anew before each use.
    :raises Problem: 412, which goes before 304 (section 13.2.2)
    """
    check_preconditions(etags)
    etag = etags[0]
    response.set_etag(etag)
    if immutable:
        response.headers["Cache-Control"] = _IMMUTABLE
    known = next(filter(request.if_none_match.contains_weak, _tags(etag)), None)
    if request.method in _READING and known is not None:
        response.status_code = 304
        # That of the representation which the client has: it is as good as the one that would have been chosen.
        response.set_etag(known)
        response.set_data(b"")
        response.headers.pop("Content-Type", None)
    return response

"""Conditional requests (RFC 9110, section 13), and how long an answer may be kept (RFC 9111).

Whatever is kept, only the client keeps it (``private``), also where reading is open to all: it may be closed again, and
a record be purged with all its history, and no cache between us and the client would know. And it is asked for again
before each use (``no-cache``), a prior version too: its values may have been erased, which its ``ETag`` tells. Every
answer says so, and a problem too: of one that says nothing a cache decides for itself, a 404 included.

Nothing has a ``Last-Modified``: a second is too coarse for versions. So ``If-Modified-Since`` and
``If-Unmodified-Since`` are passed over, as section 13.1 wants it, and so is ``Range``, as section 14.2 allows. A read
of what has no ``ETag`` takes no precondition either.
"""

import re

from flask import request
from werkzeug import Response
from werkzeug.datastructures import ETags

from app.problems import Problem

CODING = "gzip"
"""The one content coding of answers; it ends the entity tag of a representation that has it."""

_ENTITY_TAG = r'(?:W/)?"[!#-~\x80-\xff]*"'
# Empty elements of a list are passed over (RFC 9110, section 5.6.1).
_ENTITY_TAGS = re.compile(rf"[ \t,]*(?:{_ENTITY_TAG}[ \t]*(?:,[ \t,]*|$))*")
_READING = frozenset({"GET", "HEAD"})
_ASKED_AGAIN = "private, no-cache"


def check_preconditions(etags: tuple[str, ...]) -> None:
    """Refuse a request whose ``If-Match`` is none of a record's entity tags, or a write whose ``If-None-Match`` is one.

    :param etags: what identifies the current representation; the first is its own tag. None of a deleted record.
    :raises Problem: 412
    """
    unmet = "If-Match" in request.headers and not matches(request.headers["If-Match"], etags)
    if unmet or (request.method not in _READING and _known(etags) is not None):
        raise precondition_failed(etags)


def matches(if_match: str, etags: tuple[str, ...]) -> bool:
    """Is one of a record's entity tags among those of an ``If-Match``? They are compared strongly.

    :param if_match: the value of the header
    :param etags: what identifies the current representation; none of a deleted record
    """
    wanted = entity_tags(if_match)
    return any(wanted.contains(tag) for etag in etags for tag in _tags(etag))


def _known(etags: tuple[str, ...]) -> str | None:
    """The first of a record's entity tags that is among those of ``If-None-Match``. They are compared weakly."""
    if "If-None-Match" not in request.headers:
        return None
    known = entity_tags(request.headers["If-None-Match"])
    return next((tag for etag in etags for tag in _tags(etag) if known.contains_weak(tag)), None)


def entity_tags(text: str) -> ETags:
    """What an ``If-Match`` or ``If-None-Match`` lists (RFC 9110, sections 8.8.3 and 13.1).

    A text that is neither ``*`` nor a list of entity tags, as ``v3`` without its quotes, matches nothing.
    """
    if text.strip(" \t") == "*":
        return ETags(star_tag=True)
    if not _ENTITY_TAGS.fullmatch(text):
        return ETags()
    tags = re.findall(_ENTITY_TAG, text)
    return ETags(
        [tag[1:-1] for tag in tags if tag.startswith('"')], [tag[3:-1] for tag in tags if tag.startswith("W/")]
    )


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
    unmet = "If-Match" in request.headers and not entity_tags(request.headers["If-Match"]).star_tag
    if unmet or entity_tags(request.headers.get("If-None-Match", "")).star_tag:
        raise Problem(
            "precondition-failed",
            "what is here has no ETag; send it without If-Match and If-None-Match: what is to be made and is there "
            "already is refused anyway",
        )


def _tags(etag: str) -> tuple[str, str]:
    """The entity tags of a representation: plain, and coded."""
    return etag, f"{etag}:{CODING}"


def ask_again(response: Response) -> Response:
    """The response, which is asked for anew before each use."""
    response.headers.setdefault("Cache-Control", _ASKED_AGAIN)
    return response


def cacheable(response: Response, *etags: str) -> Response:
    """The response with its entity tag; without its body if the client has it already.

    :param etags: its own tag, and others that are good enough for ``If-Match``
    :raises Problem: 412, which goes before 304 (section 13.2.2)
    """
    check_preconditions(etags)
    etag = etags[0]
    response.set_etag(etag)
    known = _known((etag,))
    if request.method in _READING and known is not None:
        response.status_code = 304
        # That of the representation which the client has: it is as good as the one that would have been chosen.
        response.set_etag(known)
        response.set_data(b"")
        response.headers.pop("Content-Type", None)
    return response

"""Media types: which a body may have, and which of several is answered (RFC 9110, section 12)."""

import re
from functools import lru_cache

from flask import request
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from app.problems import Problem

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
_RANGE = re.compile(r"[\w!#$%&'*+.^`|~-]+/[\w!#$%&'*+.^`|~-]+", re.ASCII)


def body_types(method: str) -> tuple[str, ...]:
    """The media types that the body of a method may have; the first is the one to prefer."""
    return (MERGE_PATCH, JSON) if method == "PATCH" else (JSON,)


def acceptable(*offered: str) -> str:
    """The one of some media types that the client prefers (RFC 9110, section 12.5.1).

    Parameters of a type, as ``charset=utf-8``, are passed over: none of what is offered has any. So is what is no media
    range; a header that has none is as good as no header.

    A problem is one whatever the client accepts, which RFC 9110 leaves open (section 12.4.1): nobody is helped by
    hearing that they cannot be told what was wrong.

    :param offered: first the one for clients that prefer none
    :raises Problem: 406
    """
    chosen = _preferred(request.headers.get("Accept"), offered)
    if chosen is None:
        raise Problem("not-acceptable", f"this is answered as {' or '.join(offered)}; say one of them in Accept")
    return chosen


# The same few texts come with most requests.
@lru_cache(maxsize=256)
def _preferred(accept: str | None, offered: tuple[str, ...]) -> str | None:
    listed = parse_accept_header(accept, MIMEAccept)
    named = [(type_.partition(";")[0].rstrip(), quality) for type_, quality in listed]
    named = [(range_, quality) for range_, quality in named if _RANGE.fullmatch(range_)]
    return MIMEAccept(named).best_match(offered) if named else offered[0]

"""The headers of requests and of answers, as the OpenAPI document tells of them."""

from collections.abc import Mapping
from typing import Any

from app.change_headers import MOST_BYTES, MOST_HEADERS

_TEXT = {"type": "string"}


def _parameter(description: str, example: str, **told: Any) -> dict[str, Any]:
    return {"schema": _TEXT, "description": description, "example": example, **told}


def _header(description: str, example: str) -> dict[str, Any]:
    return {"schema": _TEXT, "description": description, "example": example}


TAKEN: Mapping[str, Mapping[str, Any]] = {
    "X-Change-Rationale": _parameter(
        "Why: kept as `extra.change_rationale` of the change. Any other header `X-Change-…` is kept too, "
        f"at most {MOST_HEADERS} and {MOST_BYTES // 1024} KiB together. ASCII, UTF-8, or RFC 8187 "
        "(`UTF-8''%F0%9F%90%9B`).",
        "User request",
        # OpenAPI has no word for an open set of headers.
        **{
            "x-open-set": {
                "in": "header",
                "namePattern": "^X-Change-[A-Za-z0-9-]*[A-Za-z0-9][A-Za-z0-9-]*$",
                "schema": _TEXT,
                "maxCount": MOST_HEADERS,
                "maxBytes": MOST_BYTES,
            }
        },
    ),
    "X-CSRF-Token": _parameter(
        "The `csrf_token` of `GET /session`: in a session, what changes something takes it; with a token it is not "
        "read.",
        "ImY3ZDk1OTk2ZDU0Zjci.aR2yVA.0fS0mQ1T",
    ),
    "If-Match": _parameter(
        "Do it only if the record is still at this version (RFC 9110): the `ETag` of a read; 412 otherwise.", '"v3"'
    ),
    "If-None-Match": _parameter("Answer only if it is not the one with this `ETag` (RFC 9110): 304 otherwise.", '"v3"'),
    "Accept-Datetime": _parameter(
        "Go to the Memento of this datetime (RFC 7089): to the version that was valid when this second ended; to the "
        "last one before if the record was deleted then, and to the first one if it was not yet made.",
        "Sun, 01 Mar 2026 09:00:00 GMT",
    ),
}
"""Every header of requests that is told of, by its name."""

ANSWERED: Mapping[str, Mapping[str, Any]] = {
    "Allow": _header("The methods that the address has (RFC 9110).", "GET, HEAD, OPTIONS"),
    "Cache-Control": _header(
        "Whether it may be kept (RFC 9111): what never changes for a year; all else is asked for anew before each use, "
        "with its `ETag` if it has one. Always by the client alone.",
        "private, no-cache",
    ),
    "ETag": _header("What identifies this answer (RFC 9110).", '"v3"'),
    "Link": _header(
        "Links to what belongs to it (RFC 8288): of a page, `next`; of a record and its versions, the Mementos "
        "(RFC 7089) and the versions (RFC 5829) around it.",
        '</history/user/42>; rel="version-history"',
    ),
    "Location": _header("Where it is.", "/history/user/42/versions/3"),
    "Memento-Datetime": _header(
        "When the version began (RFC 7089), cut to the second; 1970-01-01 if it was there before the record was "
        "versioned, as it is taken to have always been.",
        "Sun, 01 Mar 2026 09:00:00 GMT",
    ),
    "Retry-After": _header("After how many seconds to try again (RFC 9110).", "1"),
    "Set-Cookie": _header(
        "The session's cookie (RFC 6265).",
        "chrononaut_session=eyJfZnJlc2giOnRydWV9; Secure; HttpOnly; Path=/; SameSite=Lax",
    ),
    "Vary": _header("The headers of the request that the answer depends on.", "Authorization, Cookie"),
    "WWW-Authenticate": _header(
        "How to say who asks (RFC 6750): what was wrong with the token, and which scope it takes.",
        'Bearer realm="chrononaut"',
    ),
}
"""Every header of answers that is told of, by its name."""

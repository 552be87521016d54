"""The headers of requests and of answers, as the OpenAPI document tells of them."""

import re
from collections.abc import Mapping
from typing import Any

from app.change_headers import MOST_BYTES, MOST_HEADERS, NAME
from chrononaut.options import ANY_TEXT
from chrononaut.reasons import LONGEST

_TEXT = {"type": "string"}


def _parameter(description: str, example: str, **told: Any) -> dict[str, Any]:
    return {"schema": _TEXT, "description": description, "example": example, **told}


def _header(description: str, example: str) -> dict[str, Any]:
    return {"schema": _TEXT, "description": description, "example": example}


TAKEN: Mapping[str, Mapping[str, Any]] = {
    "X-Change-Rationale": _parameter(
        "Why: kept as `extra.change_rationale` of the change. Any other header `X-Change-…` is kept too, whose name is "
        f"of letters, digits and hyphens, at most {MOST_HEADERS} and {MOST_BYTES // 1024} KiB together. ASCII, UTF-8, "
        "or RFC 8187 (`UTF-8''%F0%9F%90%9B`).",
        "User request",
        # OpenAPI has no word for an open set of headers.
        **{
            "x-open-set": {
                "in": "header",
                "namePattern": f"^X-Change-{NAME}$",
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
    "X-Request-ID": _parameter(
        "The name of this request: 1 to 128 visible characters of ASCII, or else one is made. The answer has it, the "
        "service's log, and as `request_id` the change info of what it changes.",
        "01990e5c-7d2a-7a31-9c1f-0d6a54b1f0aa",
    ),
    "If-Match": _parameter(
        "Only if it is still the one with this `ETag`, quotes included (RFC 9110): 412 otherwise. Of a record the bare "
        "version is enough.",
        '"v3"',
    ),
    "If-None-Match": _parameter(
        "Only if it is not the one with this `ETag` (RFC 9110): otherwise 304 for a read, and 412 for a write.", '"v2"'
    ),
    "Accept-Datetime": _parameter(
        "Go to the Memento of this datetime (RFC 7089): to the version that was valid when this second ended; to the "
        "last one before if the record was deleted then, and to the first one if it was not yet made.",
        "Sun, 01 Mar 2026 09:00:00 GMT",
    ),
}
"""Every header of requests that is told of, by its name."""
_RATIONALE = "X-Change-Rationale"


def change_parameters(required: Mapping[str, re.Pattern[str]]) -> list[str | dict[str, Any]]:
    """The headers that say why something is written: the names of those in `TAKEN`, and the others as they are.

    :param required: header that must be there → the pattern of its whole value
    """
    optional = [_RATIONALE] if _RATIONALE not in required else []
    return [*(_required(name, pattern) for name, pattern in required.items()), *optional]


def _required(name: str, pattern: re.Pattern[str]) -> dict[str, Any]:
    key = name.removeprefix("X-").lower().replace("-", "_")
    parameter: dict[str, Any] = {"in": "header", "name": name, "required": True}
    parameter |= TAKEN[name] if name == _RATIONALE else {"description": f"Kept as `extra.{key}` of the change."}
    parameter["description"] += " It must have a character that can be seen."
    if pattern == ANY_TEXT:
        return parameter | {"schema": _TEXT | {"pattern": VISIBLE}, "example": TAKEN[_RATIONALE]["example"]}
    # There is no example, as none is known that matches.
    parameter.pop("example", None)
    return parameter | {"schema": _TEXT | {"pattern": whole(pattern.pattern), "maxLength": LONGEST}}


VISIBLE = (
    r"[^\s\u0000-\u0020\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f"
    r"\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb]"
)
"""What a text holds that has a character which can be seen, as far as ECMA-262 says it without its flag ``u``.

It lets some more texts pass than `chrononaut.change_info.says_something`, and refuses none that passes there.
"""


def whole(pattern: str) -> str:
    """A pattern as ECMA-262 has it, where one is not anchored by itself: the whole text matches."""
    return f"^(?:{pattern})$"


ANSWERED: Mapping[str, Mapping[str, Any]] = {
    "Accept": _header("The media types that the body may have (RFC 9110).", "application/json"),
    "Accept-Encoding": _header("The content codings that the body may have (RFC 9110).", "identity"),
    "Accept-Patch": _header(
        "The media types that the body of a `PATCH` may have (RFC 5789).",
        "application/merge-patch+json, application/json",
    ),
    "Allow": _header("The methods that the address has (RFC 9110).", "GET, HEAD, OPTIONS"),
    "Cache-Control": _header(
        "Whether it may be kept (RFC 9111): by the client alone, which asks anew before each use, with its `ETag` if "
        "it has one; what holds a CSRF token by nobody (`no-store`).",
        "private, no-cache",
    ),
    "ETag": _header(
        "What identifies this answer (RFC 9110): of a record its version. A prior version from which values were "
        'erased has the instant of that after it (`"v3-erased-2026-03-02T10:00:00.000000Z"`), and a difference what '
        'was purged in between (`"v3.v7-purged-2-2026-03-02T10:00:00.000000Z"`). Of a model with columns '
        'that are not tracked it has their digest after it (`"v3.778d5d27b716"`), and of an answer that was compressed '
        '`:gzip` (`"v3:gzip"`). Sent back as it is, each is good for `If-Match` and `If-None-Match`; for `If-Match` '
        'the bare version (`"v3"`) is enough.',
        '"v3"',
    ),
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
    "X-Request-ID": _header("The name of the request.", "01990e5c-7d2a-7a31-9c1f-0d6a54b1f0aa"),
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
    "X-RateLimit-Limit": _header("How often it may be asked, by the limit that is nearest to be reached.", "100"),
    "X-RateLimit-Remaining": _header("How often it may still be asked.", "0"),
    "X-RateLimit-Reset": _header("When it may be asked as often again, in seconds since 1970.", "1772359200"),
}
"""Every header of answers that is told of, by its name."""

RATE_LIMIT = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
"""What every answer says where a limit is set."""

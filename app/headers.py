"""The headers of requests and of answers, as the OpenAPI document tells of them."""

import re
from collections.abc import Mapping
from typing import Any

from chrononaut.options import ANY_TEXT
from chrononaut.reasons import LONGEST

_TEXT = {"type": "string"}


def _parameter(name: str, description: str, example: str) -> dict[str, Any]:
    return {"in": "header", "name": name, "schema": _TEXT, "description": description, "example": example}


def _header(description: str, example: str) -> dict[str, Any]:
    return {"schema": _TEXT, "description": description, "example": example}


CHANGE = _parameter(
    "X-Change-Rationale",
    "Why: kept as `extra.change_rationale` of the change. Any other header `X-Change-…` is kept too, "
    "at most 16 and 8 KiB together. ASCII, UTF-8, or RFC 8187 (`UTF-8''%F0%9F%90%9B`).",
    "User request",
)


def change_parameters(required: Mapping[str, re.Pattern[str]]) -> list[dict[str, Any]]:
    """The headers that say why something is written.

    :param required: header that must be there → the pattern of its whole value
    """
    known = {CHANGE["name"]: CHANGE} | {name: _required(name, pattern) for name, pattern in required.items()}
    return [known[name] for name in sorted(known, key=lambda name: name not in required)]


def _required(name: str, pattern: re.Pattern[str]) -> dict[str, Any]:
    is_rationale = name == CHANGE["name"]
    key = name.removeprefix("X-").lower().replace("-", "_")
    described = CHANGE["description"] if is_rationale else f"Kept as `extra.{key}` of the change; a write needs it."
    parameter = CHANGE | {"name": name, "required": True, "description": described}
    if pattern == ANY_TEXT:
        return parameter | {"schema": _TEXT | {"minLength": 1}, "example": CHANGE["example"]}
    # Unanchored in JSON Schema. There is no example, as none is known that matches.
    del parameter["example"]
    return parameter | {"schema": _TEXT | {"pattern": whole(pattern.pattern), "maxLength": LONGEST}}


def whole(pattern: str) -> str:
    """A pattern as ECMA-262 has it, where one is not anchored by itself: the whole text matches."""
    return f"^(?:{pattern})$"


IF_MATCH = _parameter(
    "If-Match", "Write only if the record is still at this version (RFC 9110): the `ETag` of a read.", '"v3"'
)
IF_NONE_MATCH = _parameter(
    "If-None-Match", "Answer only if it is not the one with this `ETag` (RFC 9110): 304 otherwise.", '"v3"'
)
ACCEPT_DATETIME = _parameter(
    "Accept-Datetime",
    "Go to the Memento of this datetime (RFC 7089): to the version that was valid when this second ended; to the last "
    "one before if the record was deleted then, and to the first one if it was not yet made.",
    "Sun, 01 Mar 2026 09:00:00 GMT",
)

ANSWERED: Mapping[str, Mapping[str, Any]] = {
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
    "Vary": _header("The headers of the request that the answer depends on.", "Accept-Datetime"),
}
"""Every header of answers that is told of, by its name."""


def answered(*names: str) -> dict[str, Mapping[str, Any]]:
    """What the document tells of some headers of an answer."""
    return {name: ANSWERED[name] for name in sorted(set(names))}

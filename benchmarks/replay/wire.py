"""How a record and a rationale are spelled in HTTP."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from benchmarks.changes import Key

MODEL: Final = "release"
RECORDS: Final = f"/records/{MODEL}"

_ESCAPES: Final = str.maketrans({"~": "~0", "/": "~1", ",": "~2"})
_PLAIN: Final = re.compile(r"[!-~]([ -~]*[!-~])?")
"""Printable ASCII with no space at its ends, where HTTP would drop it."""
_LIKE_EXT_VALUE: Final = re.compile(r"utf-8'|[^\s']*'[^\s']*'", re.IGNORECASE)
"""Wider than RFC 8187: a service may refuse what only begins as an ext-value, and encoding too much costs nothing."""
_ATTR_CHAR: Final = "!#$&+^`|"
"""What RFC 8187 leaves as it is, beside what :func:`quote` does by itself: letters, digits and ``-._~``."""


def key_text(key: Key) -> str:
    """Spell a key as one text: its parts joined by ``,``, with ``~``, ``/`` and ``,`` inside a part escaped."""
    return ",".join(part.translate(_ESCAPES) for part in key)


def key_segment(key: Key) -> str:
    """Spell a key as one segment of a URL's path."""
    return quote(key_text(key), safe=",")


def record_path(key: Key) -> str:
    """Say where a record is read and written."""
    return f"{RECORDS}/{key_segment(key)}"


def history_path(key: Key) -> str:
    """Say where a record's prior versions are read."""
    return f"/history/{MODEL}/{key_segment(key)}"


def changes_path(key: Key) -> str:
    """Say where a record's changes are read."""
    return f"{history_path(key)}/changes"


def entity_tag(version: int) -> str:
    """Spell the entity tag of a live record, which is its version."""
    return f'"v{version}"'


def header_value(text: str) -> str:
    """Spell a text as the value of a header.

    :return: the text itself where it is plain ASCII and cannot be taken for anything else, else an RFC 8187 ext-value
    """
    if _PLAIN.fullmatch(text) and not _LIKE_EXT_VALUE.match(text):
        return text
    return f"UTF-8''{quote(text, safe=_ATTR_CHAR)}"

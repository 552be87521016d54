"""``X-Change-*`` headers → extra change info."""

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from werkzeug.datastructures import EnvironHeaders

_PREFIX = "x-change-"
NAME = "-*[A-Za-z0-9][A-Za-z0-9-]*"
"""What the rest of a header's name matches: letters, digits and hyphens, but not hyphens alone."""
_SETTABLE_KEY = re.compile("change_[a-z0-9_]*[a-z0-9][a-z0-9_]*")
MOST_HEADERS = 16
MOST_BYTES = 8 * 1024
_EXT_VALUE = re.compile(r"utf-8'[A-Za-z0-9-]*'((?:%[0-9A-Fa-f]{2}|[A-Za-z0-9!#$&+.^_`|~-])*)", re.IGNORECASE)
_EXT_PREFIX = re.compile(r"utf-8'", re.IGNORECASE)


class ChangeHeaderError(ValueError):
    """A change header that cannot be taken; the message says which, why, and what would be right."""


def change_info_of(headers: EnvironHeaders | Iterable[tuple[str, str]]) -> dict[str, str]:
    """The change info that a request's headers carry.

    ``X-Change-Rationale: why`` becomes ``change_rationale``. A value may be ASCII, raw UTF-8 or an ext-value of RFC
    8187 (``UTF-8''%F0%9F%90%9B``).

    :param headers: names and values, the values decoded as Latin-1 (WSGI, PEP 3333)
    :raises ChangeHeaderError: too many or too long, a name that is none, control characters, or no UTF-8
    """
    taken = [(name.lower(), value) for name, value in headers if name.lower().startswith(_PREFIX)]
    if len(taken) > MOST_HEADERS:
        raise ChangeHeaderError(f"there are {len(taken)} X-Change-* headers; at most {MOST_HEADERS} are taken")
    size = sum(len(name) + len(value) for name, value in taken)
    if size > MOST_BYTES:
        raise ChangeHeaderError(f"the X-Change-* headers have {size} bytes together; at most {MOST_BYTES} are taken")
    return {_key(name): _text(name, value) for name, value in taken}


def header_of(key: str) -> str:
    """The header that sets a key of the change info: ``change_rationale`` is ``X-Change-Rationale``.

    :raises ValueError: none does
    """
    if not _SETTABLE_KEY.fullmatch(key):
        raise ValueError(f"no header sets {key!r}; one that begins with change_, as change_ticket, is X-Change-Ticket")
    return f"X-{key.replace('_', '-').title()}"


def _key(name: str) -> str:
    if not re.fullmatch(NAME, name.removeprefix(_PREFIX)):
        raise ChangeHeaderError(
            "after X-Change- a change header needs a name of letters, digits and hyphens, as X-Change-Rationale"
        )
    return name.removeprefix("x-").replace("-", "_")


def _text(name: str, value: str) -> str:
    raw = value.encode("latin-1")
    if _EXT_PREFIX.match(value):
        ext_value = _EXT_VALUE.fullmatch(value)
        if ext_value is None:
            raise ChangeHeaderError(f"{name} begins as an RFC 8187 value and is none; write it as UTF-8''%F0%9F%90%9B")
        raw = unquote_to_bytes(ext_value.group(1))
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ChangeHeaderError(f"{name} is not UTF-8; send ASCII, UTF-8, or RFC 8187 as UTF-8''%F0%9F%90%9B") from None
    if any(ord(character) < ord(" ") or "\x7f" <= character <= "\x9f" for character in text):
        raise ChangeHeaderError(f"{name} holds a control character; send plain text on one line")
    return text

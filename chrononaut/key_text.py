"""Record keys as text, as they stand in addresses and commands: ``python,3.13``.

The parts are joined by ``,``; in a part ``~`` is ``~0``, ``/`` is ``~1`` and ``,`` is ``~2``. Pure.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any
from uuid import UUID

import sqlalchemy as sa

_ESCAPES = {"~": "~0", "/": "~1", ",": "~2"}
_UNESCAPES = {escape: character for character, escape in _ESCAPES.items()}
_INTEGER = re.compile(r"-?\d{1,19}", re.ASCII)


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(text)
    return int(text)


_PARSERS: Mapping[type, Callable[[str], Any]] = {str: str, int: _integer, UUID: UUID, date: date.fromisoformat}


class KeyTextError(ValueError):
    """A text that is the key of no record, or a key that has no text; the message says what would be right."""


def has_text(column: sa.Column[Any]) -> bool:
    """Can the values of a key column stand as text?"""
    return column.type.python_type in _PARSERS


def key_text(key: Sequence[Any]) -> str:
    """A key as text.

    :param key: primary key values, in mapping order
    """
    return ",".join(re.sub("[~/,]", lambda match: _ESCAPES[match.group()], str(part)) for part in key)


def key_parts(columns: Sequence[sa.Column[Any]], text: str) -> list[str]:
    """The parts of a key as texts.

    :param columns: the key columns, in mapping order
    :raises KeyTextError: too few parts or too many
    """
    parts = text.split(",")
    if len(parts) != len(columns) or re.search("~(?![012])", text) or "\0" in text:
        raise KeyTextError(_right(columns))
    return [re.sub("~[012]", lambda match: _UNESCAPES[match.group()], part) for part in parts]


def parse_key(columns: Sequence[sa.Column[Any]], text: str) -> tuple[Any, ...]:
    """The key that a text stands for. Each key has one text.

    :param columns: the key columns, in mapping order
    :raises KeyTextError: too few parts or too many, a letter in a number, a type that has no text
    """
    if wrong := [column for column in columns if not has_text(column)]:
        raise KeyTextError(f"{wrong[0]} is a {wrong[0].type}; a key as text can be text, integer, UUID or date")
    parts = key_parts(columns, text)
    try:
        key = tuple(_PARSERS[column.type.python_type](part) for column, part in zip(columns, parts, strict=True))
    except ValueError:
        raise KeyTextError(_right(columns)) from None
    if key_text(key) != text:
        raise KeyTextError(_right(columns))
    return key


def _right(columns: Sequence[sa.Column[Any]]) -> str:
    return f"a key is {','.join(f'{{{column.key}}}' for column in columns)}"

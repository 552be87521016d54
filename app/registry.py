"""The served models: public name → model, key text ↔ record key."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Mapper, defer
from sqlalchemy.orm.interfaces import ORMOption

from app.change_headers import header_of
from chrononaut.history import Key, Versioning, versioned_models
from chrononaut.key_text import KeyTextError, has_text, key_text, parse_key

# What a regular expression of Python has and one of JavaScript (ECMA-262) has not, or has with another meaning.
_PYTHON_ONLY = re.compile(r"\(\?(?![:=!]|<[=!])|(?<!\\)(?:\\\\)*\\[AZ]")
_NAME = re.compile("[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LONGEST_NAME = 60
"""Characters of a public name: what is made of it must be a name of a file too."""
_BITS: Mapping[type, int] = {sa.SmallInteger: 16, sa.BigInteger: 64, sa.Integer: 32}


LONGEST_KEY: Final = 600
"""Characters of the text parts of a key together: each of them percent-encoded, they fit into an address
(`app.bounds.LONGEST_ADDRESS`), and with the number of a version into an entry of an index of PostgreSQL (2,704 bytes).
"""
_LONGEST_PARTS: Mapping[type, int] = {int: 20, UUID: 36, date: 10}

RENAME = "register it under another name by __resource_name__"
"""What to do about a model whose name cannot be had."""


class RegistrationError(Exception):
    """A model that cannot be served; the message says which and why."""


class UnknownKeyError(KeyError):
    """A text that is the key of no record."""


def integer_range(type_: sa.Integer) -> tuple[int, int]:
    """The smallest and the largest number that a column of this type holds on every database."""
    bits = next(bits for class_, bits in _BITS.items() if isinstance(type_, class_))
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def longest_part(column: sa.Column[Any]) -> int | None:
    """How many characters a part of a key may have: what its column holds, and at most its share of `LONGEST_KEY`.

    :return: ``None`` for a part that is no text
    """
    if not _is_text(column):
        return None
    share = LONGEST_KEY // sum(map(_is_text, column.table.primary_key))
    return min(getattr(column.type, "length", None) or share, share)


def _is_text(column: sa.Column[Any]) -> bool:
    return column.type.python_type is str and not isinstance(column.type, sa.Uuid)


@dataclass(frozen=True, slots=True)
class Resource:
    """A served model under its public name."""

    name: str
    versioning: Versioning

    @property
    def model(self) -> Any:
        return self.versioning.model

    @property
    def lineage(self) -> tuple[str, ...]:
        """Its name and those of the models that it inherits from: its records are records of each of them.

        Where inheritance is concrete they are not, as they have a table of their own.
        """
        names = []
        mapper: Mapper[Any] | None = self.versioning.mapper
        while mapper is not None:
            versioning: Versioning | None = vars(mapper.class_).get("__chrononaut__")
            if versioning is not None:
                names.append(_public_name(versioning))
            mapper = None if mapper.concrete else mapper.inherits
        return tuple(names)

    @property
    def title(self) -> str:
        """The name as it stands in the names of schemas: ``UserGroup`` of ``user_group``."""
        return "".join(word.capitalize() for word in self.name.split("_"))

    @property
    def description(self) -> str:
        """The first sentence of the model's docstring."""
        return (self.model.__doc__ or self.versioning.name).strip().split("\n\n")[0]

    @property
    def shown(self) -> tuple[ORMOption, ...]:
        """What to load of a live object: no hidden column, so that nothing can tell or log its value."""
        return tuple(defer(getattr(self.model, name), raiseload=True) for name in self.versioning.hidden)

    @property
    def required(self) -> Mapping[str, re.Pattern[str]]:
        """Header that every write must have → what its whole value must match."""
        return {header_of(key): pattern for key, pattern in self.versioning.options.required.items()}

    def key_text(self, key: Key) -> str:
        """The key as text, as it stands in addresses."""
        return key_text(key)

    @property
    def longest_key_text(self) -> int:
        """How many characters the text of a key may have. Any character of a text may have to be escaped."""
        parts = [
            2 * (longest_part(column) or 0) or _LONGEST_PARTS.get(column.type.python_type, max(_LONGEST_PARTS.values()))
            for column in self.versioning.key_columns
        ]
        return sum(parts) + len(parts) - 1

    def parse_key(self, text: str, *, is_stored: bool = False) -> Key:
        """The key that a text stands for.

        :param is_stored: is it known to be that of a record? Other programs store longer ones than this service takes.
        :raises UnknownKeyError: no record can have it: too few parts, a letter in a number, a number beyond the column,
            a text that is too long
        """
        columns = self.versioning.key_columns
        try:
            key = parse_key(columns, text)
        except KeyTextError:
            raise UnknownKeyError(text) from None
        if not all(_can_be(column, part, is_stored) for column, part in zip(columns, key, strict=True)):
            raise UnknownKeyError(text)
        return key

    def links(self, key_text: str) -> dict[str, str]:
        """The paths of a record's resources."""
        segment = quote(key_text, safe=",~")
        return {"record": f"/records/{self.name}/{segment}", "history": f"/history/{self.name}/{segment}"}

    def identified(self, key_text: str) -> dict[str, Any]:
        """What every document about a record begins with."""
        return {"model": self.name, "key": key_text, "links": self.links(key_text)}


def _can_be(column: sa.Column[Any], part: Any, is_stored: bool) -> bool:
    """Can a record have this in a column of its key?"""
    if isinstance(column.type, sa.Integer):
        low, high = integer_range(column.type)
        is_within: bool = low <= part <= high
        return is_within
    longest = None if is_stored else longest_part(column)
    return longest is None or len(str(part)) <= longest


class Registry(Mapping[str, Resource]):
    """The served models by public name, in alphabetical order."""

    def __init__(self, db: SQLAlchemy) -> None:
        """Register the versioned models of a database object.

        :raises RegistrationError: two models of one name, a name that is none, a key that no URL can carry, or a
            required reason that no header can give
        """
        self._resources: dict[str, Resource] = {}
        base: Any = db.Model
        for versioning in versioned_models(base.registry):
            self._register(versioning)
        self._resources = dict(sorted(self._resources.items()))
        self._lineages = {name: resource.lineage for name, resource in self._resources.items()}

    def _register(self, versioning: Versioning) -> None:
        name = _public_name(versioning)
        if name in self._resources:
            raise RegistrationError(f"two models are called {name}; {RENAME}")
        for column in versioning.key_columns:
            if not has_text(column):
                raise RegistrationError(
                    f"the key column {column} of {name} is a {column.type}; "
                    "a key in a URL can be text, integer, UUID or date"
                )
        for key, pattern in versioning.options.required.items():
            _refuse_untellable(name, key, pattern.pattern)
        self._resources[name] = Resource(name, versioning)

    def lineage(self, name: str) -> tuple[str, ...]:
        """The name of a resource and those of the ones that its records are records of too."""
        return self._lineages[name]

    def __getitem__(self, name: str) -> Resource:
        return self._resources[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._resources)

    def __len__(self) -> int:
        return len(self._resources)


def _refuse_untellable(name: str, key: str, pattern: str) -> None:
    """Refuse a required reason that clients cannot give, or whose pattern the OpenAPI document cannot tell them."""
    try:
        header_of(key)
    except ValueError as error:
        raise RegistrationError(f"{name} requires a reason that nobody can give: {error}") from None
    if found := _PYTHON_ONLY.search(pattern):
        raise RegistrationError(
            f"the pattern of {key} that {name} requires, {pattern!r}, has {found.group()!r}, which only Python "
            "reads so; the OpenAPI document tells it to clients in other languages: write it in what ECMA-262 has too"
        )


def _public_name(versioning: Versioning) -> str:
    name = getattr(versioning.model, "__resource_name__", None) or _snake_case(versioning.name)
    if not isinstance(name, str) or len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        raise RegistrationError(
            f"{versioning.name} would be served as {name!r}, and a name has small letters of ASCII, digits and single "
            f"_ between them, as user_group, at most {_LONGEST_NAME} characters; {RENAME}"
        )
    return name


def _snake_case(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub("_+", "_", words).strip("_").lower()

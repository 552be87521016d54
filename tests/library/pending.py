"""What a session is told to write, and what the next flush makes of it."""

from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal, NamedTuple

from tests.library.oracle import Ident, Values
from tests.library.shapes import FAMILY

UNKNOWN = object()
"""The value before, where memory does not hold it."""

fresh = count(1)
"""Values that were never there."""


class Target(NamedTuple):
    """A record by its place: of a natural key among the keys, else among the records that are there."""

    shape: str
    slot: int


class Set(NamedTuple):
    """An attribute that is to be set, and to what: see `Player.value`."""

    target: Target
    attribute: str
    choice: str


@dataclass(frozen=True)
class Plus:
    """An SQL expression: the attribute's own column and a number."""

    number: int


@dataclass
class Pending:
    """What the next flush is to write of one object.

    :ivar values: what the attributes are set to
    :ivar before: what memory held before; `UNKNOWN` where it was not loaded
    """

    kind: Literal["add", "change", "delete", "replace"]
    obj: Any
    values: Values = field(default_factory=dict)
    before: Values = field(default_factory=dict)

    def is_unknown(self, name: str) -> bool:
        return self.before.get(name, UNKNOWN) is UNKNOWN or isinstance(self.values[name], Plus)


@dataclass
class Known:
    """What a session has loaded of a record.

    :ivar stale: has it changed since?
    """

    version: int
    values: Values
    stale: bool = False


def lock(ident: Ident) -> Any:
    """What a write to a record locks: of those that refer to each other, all."""
    return "family" if ident.shape in FAMILY else ident

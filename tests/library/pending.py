"""What a session is told to write, and what the next flush makes of it."""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError

from chrononaut import ConcurrentChangeError
from tests.library.oracle import Ident, Record, Shape, Values
from tests.library.shapes import FAMILY

UNKNOWN = object()
"""The value before, where memory does not hold it."""


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
class Known:
    """What a session has loaded of a record.

    :ivar stale: has it changed since?
    """

    version: int
    values: Values
    stale: bool = False


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

    def sets(self, name: str) -> bool:
        """Is an attribute set to another value than it had, as far as memory tells?"""
        return self.is_unknown(name) or bool(self.values[name] != self.before[name])

    def refusal(self, record: Record, known: Known | None, shape: Shape) -> type[Exception] | None:
        """What a flush of the object raises because another session was there first.

        :param record: the record as it is now
        :param known: as the session has loaded it
        """
        gone = record.values is None
        if self.kind == "add":
            return None if gone else IntegrityError
        stale = gone or (known is not None and known.version != record.version)
        if not stale:
            return None
        # A key that has expired is loaded when it is needed.
        loaded = shape.key[0] in self.obj.__dict__
        if self.kind == "delete" and gone and not loaded:
            return ObjectDeletedError
        if self.kind in ("delete", "replace"):
            return ConcurrentChangeError
        return self._refusal_of_stale(record, shape, loaded)

    def _refusal_of_stale(self, record: Record, shape: Shape, loaded: bool) -> type[Exception] | None:
        gone = record.values is None
        versioned = [name for name in self.values if name not in shape.untracked]
        unknown = [name for name in versioned if self.is_unknown(name)]
        if unknown and gone:
            return ConcurrentChangeError
        after = {name: evaluated(self.values[name], record.values, name) for name in unknown}
        if any(self.values[name] != self.before[name] for name in versioned if name not in unknown):
            return ConcurrentChangeError
        if any(value != record.current[name] for name, value in after.items()):
            return ConcurrentChangeError
        untracked = [name for name in self.values if name in shape.untracked]
        if not gone or not any(self.sets(name) for name in untracked):
            return None
        return StaleDataError if loaded else ObjectDeletedError


def evaluated(value: Any, current: Values | None, name: str) -> Any:
    """The value that an attribute is set to, an SQL expression worked out."""
    if not isinstance(value, Plus):
        return value
    before = None if current is None else current[name]
    return None if before is None else before + value.number


def lock(ident: Ident) -> Any:
    """What a write to a record locks: of those that refer to each other, all."""
    return "family" if ident.shape in FAMILY else ident

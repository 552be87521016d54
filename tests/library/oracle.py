"""What history must be, kept in plain Python: nothing of the library and no SQL stands between.

A `World` holds what is committed. Each session has a `View` of it: over what is committed lies what the session has
written itself. The changes of a view become rows as the design says, and the answers are worked out from these rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

Values = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """The attributes of a model, in mapping order.

    :ivar tracked: without the key's
    """

    name: str
    key: tuple[str, ...]
    tracked: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    untracked: tuple[str, ...] = ()

    @property
    def attributes(self) -> tuple[str, ...]:
        """All but the key's."""
        return (*self.tracked, *self.hidden, *self.untracked)


class Ident(NamedTuple):
    """Which record it is."""

    shape: str
    key: tuple[Any, ...]


@dataclass
class Transaction:
    """A database transaction that has written history.

    :ivar number: they are counted in the order of their beginnings
    :ivar alone: is it certain when it began, and was nothing committed meanwhile by another one?
    """

    number: int
    alone: bool = True


@dataclass
class Row:
    """A history row that must be there.

    :ivar state: the tracked attributes; of an insert none
    """

    version: int
    operation: str
    state: Values
    hidden: tuple[str, ...]
    extra: dict[str, str]
    transaction: int


@dataclass
class Record:
    """A record with its history.

    :ivar values: the live row, ``None`` while there is none
    :ivar version: the live row's
    """

    values: Values | None = None
    version: int = -1
    rows: list[Row] = field(default_factory=list)

    @property
    def current(self) -> Values:
        assert self.values is not None
        return self.values


@dataclass
class World:
    """What is committed."""

    shapes: Mapping[str, Shape]
    records: dict[Ident, Record] = field(default_factory=dict)
    transactions: dict[int, Transaction] = field(default_factory=dict)
    views: list["View"] = field(default_factory=list)

    def view(self) -> "View":
        view = View(self)
        self.views.append(view)
        return view

    def begin(self) -> Transaction:
        transaction = Transaction(len(self.transactions))
        self.transactions[transaction.number] = transaction
        return transaction


@dataclass
class View:
    """What one session sees."""

    world: World
    own: dict[Ident, Record] = field(default_factory=dict)
    savepoints: list[dict[Ident, Record]] = field(default_factory=list)
    transaction: Transaction | None = None

    def record(self, ident: Ident) -> Record:
        return self.own.get(ident) or self.world.records.get(ident) or Record()

    def records(self) -> dict[Ident, Record]:
        return self.world.records | self.own

    def live(self, shape: str) -> Iterator[tuple[Ident, Record]]:
        """The records of a shape that are live, in the order of their keys."""
        for ident, record in sorted(self.records().items()):
            if ident.shape == shape and record.values is not None:
                yield ident, record

    # Changes

    def insert(self, ident: Ident, values: Values, extra: dict[str, str]) -> None:
        record, shape = self._written(ident), self.world.shapes[ident.shape]
        assert record.values is None
        number = record.rows[-1].version + 1 if record.rows else -1
        given = tuple(name for name in shape.hidden if values.get(name) is not None)
        self._add(record, Row(number, "insert", dict.fromkeys(shape.tracked), given, extra, self.begin()))
        record.values = dict.fromkeys(shape.attributes) | deepcopy(values)
        record.version = number + 1

    def update(self, ident: Ident, values: Values, extra: dict[str, str], always: bool = False) -> bool:
        """Set attributes.

        :param always: also where no attribute gets another value
        :return: is it a change that history knows?
        """
        record, shape = self._written(ident), self.world.shapes[ident.shape]
        before, after = record.current, record.current | deepcopy(values)
        hidden = tuple(name for name in shape.hidden if before[name] != after[name])
        changed = always or bool(hidden) or any(before[name] != after[name] for name in shape.tracked)
        if changed:
            self._add(record, Row(record.version, "update", _state(shape, before), hidden, extra, self.begin()))
            record.version += 1
        record.values = after
        return changed

    def delete(self, ident: Ident, extra: dict[str, str]) -> None:
        record, shape = self._written(ident), self.world.shapes[ident.shape]
        before = record.current
        hidden = tuple(name for name in shape.hidden if before[name] is not None)
        self._add(record, Row(record.version, "delete", _state(shape, before), hidden, extra, self.begin()))
        record.values = None

    def move(self, ident: Ident, to: Ident, values: Values, extra: dict[str, str]) -> None:
        """Change a record's key, and attributes with it: the one of the old key ends, and one of the new key begins."""
        after = self.record(ident).current | values
        self.delete(ident, extra)
        self.insert(to, after, extra)

    def _written(self, ident: Ident) -> Record:
        if ident not in self.own:
            self.own[ident] = deepcopy(self.record(ident))
        return self.own[ident]

    def begin(self, surely: bool = True) -> int:
        """Take a transaction to begin now: by its first row, or by a statement that might have written one.

        :param surely: does the statement begin it for certain?
        :return: its number
        """
        if self.transaction is None:
            self.transaction = self.world.begin()
            self.transaction.alone = surely
        return self.transaction.number

    @staticmethod
    def _add(record: Record, row: Row) -> None:
        record.rows.append(row)

    # Transactions

    def begin_savepoint(self) -> None:
        self.savepoints.append(deepcopy(self.own))

    def release_savepoint(self) -> None:
        self.savepoints.pop()

    def roll_savepoint_back(self) -> None:
        self.own = self.savepoints.pop()

    def commit(self) -> None:
        if self.own:
            for other in self.world.views:
                if other is not self and other.transaction is not None:
                    other.transaction.alone = False
        self.world.records |= self.own
        self.rollback()

    def rollback(self) -> None:
        self.own, self.savepoints, self.transaction = {}, [], None


def _state(shape: Shape, values: Values) -> Values:
    return {name: deepcopy(values[name]) for name in shape.tracked}


# Answers. The oracle has no clock: `ends` are the instants that the table holds, one for each row of the record.


def prior(record: Record) -> list[Row]:
    """The rows that tell of a state."""
    return [row for row in record.rows if row.operation != "insert"]


def valid_at(record: Record, ends: Sequence[datetime], at: datetime) -> int | None:
    """The version that was valid at an instant; ``None`` for none."""
    for row, end in zip(record.rows, ends, strict=True):
        if at < end:
            return None if row.operation == "insert" else row.version
    return None if record.values is None else record.version


def states(shape: Shape, record: Record) -> dict[int, Values]:
    """The tracked attributes of each version, the live one's too, as the model of a shape has them."""
    known = {row.version: _state(shape, row.state) for row in prior(record)}
    if record.values is not None:
        known[record.version] = _state(shape, record.values)
    return known


def differences(before: Values, after: Values) -> dict[str, tuple[Any, Any]]:
    return {name: (value, after[name]) for name, value in before.items() if value != after[name]}


def hidden_changes(shape: Shape, record: Record, start: int, stop: int) -> dict[str, tuple[Any, Any]]:
    """What `diff` says of hidden attributes between two versions."""
    changed = {name for row in record.rows if start <= row.version < stop for name in row.hidden}
    live = record.values if stop == record.version else None
    return {name: (None, live[name] if live is not None else None) for name in shape.hidden if name in changed}


class Change(NamedTuple):
    """What a history row tells.

    :ivar at: by the table
    """

    at: datetime
    ident: Ident
    row: Row
    differences: dict[str, tuple[Any, Any]]

    @property
    def names(self) -> set[str]:
        """The attributes that changed."""
        return {*self.differences, *self.row.hidden}


Ends = Mapping[Ident, Sequence[datetime]]
"""The instants that the tables hold, for each record one for each row."""


def changes(shape: Shape, ident: Ident, record: Record, ends: Ends) -> list[Change]:
    """What happened to a record, as the model of a shape tells it."""
    known, absent = states(shape, record), dict.fromkeys(shape.tracked)
    return [
        Change(
            at,
            ident,
            row,
            differences(
                absent if row.operation == "insert" else known[row.version],
                absent if row.operation == "delete" else known[row.version + 1],
            ),
        )
        for row, at in zip(record.rows, ends[ident], strict=True)
    ]


def blame(shape: Shape, told: Sequence[Change]) -> dict[str, Change]:
    """For each attribute the last change of it; nothing where the record never was.

    :param told: its changes
    """
    last: dict[str, Change] = {}
    for change in told:
        if change.row.operation == "insert":
            last = dict.fromkeys((*shape.tracked, *shape.hidden), change)
        elif change.row.operation == "update":
            last |= dict.fromkeys(change.names, change)
    return last


def feed(shape: Shape, records: Mapping[Ident, Record], ends: Ends) -> list[Change]:
    """What happened to records, as the model of a shape tells it, newest first."""
    told = [change for ident, record in records.items() for change in changes(shape, ident, record, ends)]
    return sorted(told, key=lambda change: (change.at, change.ident.key, change.row.version), reverse=True)


def transaction(shapes: Mapping[str, Shape], records: Mapping[Ident, Record], ends: Ends, number: int) -> list[Change]:
    """What one transaction changed, each record as its own model tells it."""
    told = [
        change
        for ident, record in records.items()
        for change in changes(shapes[ident.shape], ident, record, ends)
        if change.row.transaction == number
    ]
    return sorted(told, key=lambda change: (*change.ident, change.row.version))


class State(NamedTuple):
    """A state of a record.

    :ivar began: by the table
    :ivar ended: by the table; ``None`` of the live row
    """

    version: int
    values: Values
    began: datetime | None
    ended: datetime | None


def as_of(shape: Shape, records: Mapping[Ident, Record], ends: Ends, at: datetime) -> dict[tuple[Any, ...], State]:
    """The state of each record that there was at an instant, by its key."""
    found: dict[tuple[Any, ...], State] = {}
    for ident, record in records.items():
        number = valid_at(record, ends[ident], at)
        if number is not None:
            changed = {row.version: end for row, end in zip(record.rows, ends[ident], strict=True)}
            values = states(shape, record)[number]
            found[ident.key] = State(number, values, changed.get(number - 1), changed.get(number))
    return found

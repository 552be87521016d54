"""What a file of a model's history has, and how it is read from the tables: history rows, and after them the live row.

One statement reads both, in the order of keys and versions, so that a file is one state of the database and each record
stands together in it. By joined inheritance a record has rows in several tables, which are read as one row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Dialect, Row

from chrononaut.exceptions import UnsupportedMappingError
from chrononaut.history import RecordTable, Versioning, versioning_of
from chrononaut.options import BOOKKEEPING
from chrononaut.transfer.values import Codec, Raw, Value, codec_of
from chrononaut.types import Instant, JSONDocument, JSONObject

Values = Sequence[Value | None]


class FileRow(NamedTuple):
    """A line of a file: a history row, or a live row.

    :ivar line: its number in the file, from 1; 0 for one that was read from the database
    :ivar key: the key's values, in mapping order
    :ivar operation: ``None`` of a live row, and so the three that follow
    :ivar state: the values of `Layout.state`, and of a live row besides them of `Layout.kept`; ``None`` where all are
        NULL
    :ivar tables: the tables besides the first that have a row of it
    """

    line: int
    key: Values
    version: int
    operation: str | None
    changed: datetime | None
    change_info: JSONObject | None
    transaction_id: Any
    state: Values | None
    tables: tuple[str, ...]

    @property
    def is_live(self) -> bool:
        return self.operation is None


@dataclass(frozen=True, slots=True, eq=False)
class Attribute:
    """An attribute of a model in a file.

    :ivar table: which of `Layout.tables` has its column
    :ivar history: the column of the history table; ``None`` of what history does not keep
    :ivar live: the column of the live table; ``None`` of what was dropped
    """

    name: str
    codec: Codec
    table: int
    history: sa.Column[Any] | None
    live: sa.Column[Any] | None


@dataclass(frozen=True, eq=False)
class Layout:
    """What a file of a model's history has.

    :ivar tables: all that rows of the model's records are in; the first has the version
    :ivar state: what history keeps, but for the key
    :ivar kept: what only live rows have, and is neither hidden nor untracked: by `RecordChanges`
    """

    versioning: Versioning
    dialect: Dialect
    tables: Sequence[RecordTable]
    key: Sequence[Attribute]
    state: Sequence[Attribute]
    kept: Sequence[Attribute]

    @cached_property
    def further(self) -> Sequence[str]:
        """The names of the tables besides the first."""
        return [one.live.name for one in self.tables[1:]]

    def history_rows(self) -> sa.Select[Any]:
        """All history rows, in no order."""
        first, *others = self.tables
        names = self.versioning.options.names
        source: sa.FromClause = first.history
        for one in others:
            version = one.history.c[names.version] == first.history.c[names.version]
            source = source.outerjoin(one.history, sa.and_(version, *_same_key(first, one, is_history=True)))
        own = self.versioning.column
        columns = [
            *(sa.type_coerce(attribute.history, Raw()) for attribute in self.key),
            own("version"),
            sa.type_coerce(own("operation"), sa.String()),
            own("changed"),
            own("change_info"),
            own("transaction_id"),
            *(one.history.c[names.version].is_not(None) for one in others),
            *(_selected(attribute, attribute.history) for attribute in (*self.key, *self.state, *self.kept)),
        ]
        return sa.select(*_labelled(columns)).select_from(source)

    def live_rows(self) -> sa.Select[Any]:
        """All live rows, in no order."""
        first, *others = self.tables
        source: sa.FromClause = first.live
        for one in others:
            source = source.outerjoin(one.live, sa.and_(*_same_key(first, one, is_history=False)))
        nothing: list[Any] = [sa.cast(sa.null(), type_) for type_ in (sa.String(), Instant(), JSONDocument, sa.Uuid())]
        columns = [
            *(sa.type_coerce(attribute.live, Raw()) for attribute in self.key),
            self.versioning.version,
            *nothing,
            *(one.key[0].is_not(None) for one in others),
            *(_selected(attribute, attribute.live) for attribute in (*self.key, *self.state, *self.kept)),
        ]
        return sa.select(*_labelled(columns)).select_from(source)

    def in_order(self, *parts: sa.Select[Any]) -> Any:
        """The rows of statements of ours by key and version, a live row after those that it has replaced."""
        union: Any = sa.union_all(*parts) if len(parts) > 1 else parts[0]
        places = range(1, len(self.key) + 2)
        return union.order_by(*(sa.text(str(place)) for place in places))

    def file_row(self, row: Row[Any]) -> FileRow:
        """What a row of these statements is in a file."""
        return self._file_row(row)

    @cached_property
    def _file_row(self) -> Callable[[Any], FileRow]:
        # What all rows share is made once: there are millions.
        size, others = len(self.key), len(self.tables) - 1
        writers = [one.codec.write for one in (*self.key, *self.state, *self.kept)]
        own, last, further = size + 5, size + len(self.state), self.further

        def file_row(row: Any) -> FileRow:
            version, operation, changed, change_info, transaction_id = row[size:own]
            written = [
                value if value is None or write is None else write(value)
                for write, value in zip(writers, row[own + others :], strict=True)
            ]
            state = written[size:] if operation is None else written[size:last]
            return FileRow(
                0,
                written[:size],
                version,
                operation,
                changed,
                change_info,
                transaction_id,
                state if any(value is not None for value in state) else None,
                tuple(name for name, is_in in zip(further, row[own : own + others], strict=True) if is_in),
            )

        return file_row

    def value(self, attribute: Attribute, column: sa.Column[Any], value: Any) -> sa.ColumnElement[Any]:
        """A value that a codec has read, in a statement: as the column takes it."""
        return self.cast(attribute.codec, column, sa.literal(value, self.parameter))

    def cast(self, codec: Codec, column: sa.Column[Any], value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        if self.dialect.name == "postgresql" and codec.is_cast:
            return sa.cast(value, column.type)
        return value

    @property
    def parameter(self) -> Any:
        """The type of parameters that codecs have read."""
        return sa.Text() if self.dialect.name == "postgresql" else Raw()


def layout_of(model: type, dialect: Dialect) -> Layout:
    """What a file of a model's history has.

    :raises UnsupportedMappingError: the model's rows are in the table of another, whose file has them too
    :raises TypeError: the model is not versioned
    """
    versioning = versioning_of(model)
    if versioning.mapper.inherits is not None and not versioning.mapper.concrete:
        base = versioning.tables[0].live
        *_, root = (mapper for mapper in versioning.mapper.iterate_to_root() if mapper.local_table is base)
        raise UnsupportedMappingError(
            versioning.name, f"its rows are in the table of {root.class_.__name__}; name that instead"
        )
    models = _hierarchy(versioning)
    tables = list({one.tables[-1].live: one.tables[-1] for one in models}.values())
    places = {one.live: place for place, one in enumerate(tables)} | {
        one.history: place for place, one in enumerate(tables)
    }

    def attribute(name: str, live: Any, history: Any) -> Attribute:
        column = history if live is None else live
        return Attribute(name, codec_of(column.type, dialect), places[column.table], history, live)

    key = [
        attribute(name, column, tables[0].history.c[column.key])
        for name, column in zip(versioning.key, tables[0].key, strict=True)
    ]
    state: dict[str, Attribute] = {}
    for one in models:
        for name, column in one.tracked.items():
            if name not in one.key and column.table in places:
                history = tables[places[column.table]].history.c[column.key]
                _add(state, attribute(name, column, history))
        for name, column in one.dropped.items():
            _add(state, attribute(name, None, column))
    # A concrete model does not inherit the columns.
    bookkeeping = [name for name in getattr(model, BOOKKEEPING, ()) if name in versioning.mapper.columns]
    kept = [attribute(name, versioning.mapper.columns[name], None) for name in bookkeeping]
    return Layout(versioning, dialect, tables, key, list(state.values()), kept)


def _hierarchy(versioning: Versioning) -> Sequence[Versioning]:
    """A model's, and those of the models whose rows are in its table too, each after the one that it inherits from."""
    below = [versioning_of(mapper.class_) for mapper in versioning.mapper.self_and_descendants]
    return [one for one in below if one.tables[0].live is versioning.tables[0].live]


def _add(state: dict[str, Attribute], added: Attribute) -> None:
    """Two columns of one attribute name, of two models of one table, are told apart."""
    for name in (added.name, f"{added.name} ({_column(added).name})"):
        there = state.get(name)
        if there is None:
            state[name] = Attribute(name, added.codec, added.table, added.history, added.live)
            return
        if _column(there) is _column(added):
            return


def _column(attribute: Attribute) -> Any:
    return attribute.history if attribute.live is None else attribute.live


def _same_key(one: RecordTable, other: RecordTable, *, is_history: bool) -> list[sa.ColumnElement[bool]]:
    pairs = zip(one.key, other.key, strict=True)
    if is_history:
        return [one.history.c[mine.key] == other.history.c[theirs.key] for mine, theirs in pairs]
    return [mine == theirs for mine, theirs in pairs]


def _selected(attribute: Attribute, column: sa.Column[Any] | None) -> sa.ColumnElement[Any]:
    if column is not None:
        return attribute.codec.select(column)
    there: Any = attribute.history if attribute.live is None else attribute.live
    return attribute.codec.select(sa.cast(sa.null(), there.type))


def _labelled(columns: Sequence[Any]) -> list[Any]:
    # Not the names of columns: those of several tables may be the same.
    return [column.label(f"column_{number}") for number, column in enumerate(columns)]

"""The statements that write the rows of a file, and that look up which of them are there."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection

from chrononaut.exceptions import ConcurrentChangeError
from chrononaut.transfer.files import GivenRow
from chrononaut.transfer.layout import Attribute, FileRow, Layout
from chrononaut.transfer.values import Codec, Raw, codec_of
from chrononaut.types import Instant, JSONDocument, instant_text, is_among

Key = tuple[Any, ...]
"""The key of a record as parameters."""

_LOOKED_UP = 1000  # rows by one statement

_Columns = Mapping[sa.Column[Any], Codec]
_Parameters = Sequence[Any]


class Writer:
    """Writes rows of a file on one connection, inside its transaction.

    :ivar set_values: what the live rows get besides what is in the file: attribute → parameter
    """

    def __init__(self, connection: Connection, layout: Layout, set_values: Mapping[Attribute, Any]) -> None:
        self.connection = connection
        self.layout = layout
        self.set_values = set_values

    def history_there(self, wanted: Iterable[tuple[Key, int]]) -> dict[tuple[Key, int], FileRow]:
        """The history rows that are there of some keys and versions."""
        version = self.layout.versioning.column("version")
        columns = {**self._history_key(0), version: self._version}
        select = self.layout.history_rows()
        rows = self._among(select, columns, [(*key, self._version.read(number)) for key, number in wanted])
        return {(self.key_of(row), row.version): row for row in rows}

    def cuts_there(self, keys: Iterable[Key]) -> dict[Key, list[FileRow]]:
        """The cuts that are there of some keys."""
        select = self.layout.history_rows().where(self.layout.versioning.column("operation") == "purge")
        found: defaultdict[Key, list[FileRow]] = defaultdict(list)
        for row in self._among(select, self._history_key(0), list(keys)):
            found[self.key_of(row)].append(row)
        return found

    def rows_before(self, versions: Mapping[Key, int]) -> dict[Key, FileRow]:
        """The last history row that is there of each of some keys before a version."""
        own = self.layout.versioning.column("version")
        found: dict[Key, FileRow] = {}
        for key, version in versions.items():
            select = self.layout.history_rows().where(own < version).order_by(own.desc()).limit(1)
            for row in self._among(select, self._history_key(0), [key]):
                found[key] = row
        return found

    def live_there(self, keys: Iterable[Key]) -> dict[Key, FileRow]:
        """The live rows that are there of some keys."""
        rows = self._among(self.layout.live_rows(), self._live_key(0), list(keys))
        return {self.key_of(row): row for row in rows}

    def key_of(self, row: FileRow) -> Key:
        """The key of a row that was read from the database, as parameters."""
        return tuple(one.codec.read(value) for one, value in zip(self.layout.key, row.key, strict=True))

    def insert_history(self, rows: Sequence[GivenRow]) -> None:
        """Write history rows."""
        for number, table in enumerate(self.layout.tables):
            state = [one for one in self.layout.state if one.table == number]
            own = self._own if number == 0 else {}
            columns: dict[sa.Column[Any], Codec] = {
                **self._history_key(number),
                table.history.c[self.layout.versioning.options.names.version]: self._version,
                **{one.history: one.codec for one in state if one.history is not None},
                **own,
            }
            self._insert(
                table.history,
                columns,
                [
                    (
                        *given.key,
                        self._version.read(given.row.version),
                        *(given.state.get(one.name) for one in state),
                        *(self._own_values(given.row) if number == 0 else ()),
                    )
                    for given in rows
                    if number == 0 or table.live.name in given.row.tables
                ],
            )

    def insert_live(self, rows: Sequence[GivenRow]) -> None:
        """Write live rows."""
        for number, table in enumerate(self.layout.tables):
            attributes = self._live_attributes(number)
            chosen = [given for given in rows if number == 0 or table.live.name in given.row.tables]
            columns = {
                **self._live_key(number),
                **self._live_version(number),
                **{one.live: one.codec for one in attributes if one.live is not None},
            }
            self._insert(
                table.live,
                columns,
                [
                    (
                        *given.key,
                        *([self._version.read(given.row.version)] if number == 0 else []),
                        *(self._live_value(one, given) for one in attributes),
                    )
                    for given in chosen
                ],
            )

    def update_live(self, rows: Sequence[tuple[GivenRow, int]]) -> None:
        """Let live rows go on to a later state.

        :param rows: the new ones, each with the version of that which is there
        :raises ConcurrentChangeError: one of them was changed meanwhile
        """
        for given, there in rows:
            for number, table in enumerate(self.layout.tables):
                if number and table.live.name not in given.row.tables:
                    continue
                # What a live row has besides the file is its own.
                attributes = [one for one in self._live_attributes(number) if one not in self.set_values]
                values = {
                    one.live: self.layout.value(one, one.live, given.state.get(one.name))
                    for one in attributes
                    if one.live is not None
                }
                values = {column: column for column in table.live.c if column.onupdate is not None} | values
                if number == 0:
                    values[self.layout.versioning.version] = sa.literal(given.row.version)
                if values:
                    self._change(sa.update(table.live).values(values), number, given.key, there)

    def delete_live(self, rows: Sequence[tuple[Key, FileRow]]) -> None:
        """Delete live rows.

        :raises ConcurrentChangeError: one of them was changed meanwhile
        """
        for key, row in rows:
            for number, table in reversed([*enumerate(self.layout.tables)]):
                if number == 0 or table.live.name in row.tables:
                    self._change(sa.delete(table.live), number, key, row.version)

    def _change(self, statement: Any, number: int, key: Key, version: int) -> None:
        for (column, codec), value in zip(self._live_key(number).items(), key, strict=True):
            statement = statement.where(
                column == self.layout.cast(codec, column, sa.literal(value, self.layout.parameter))
            )
        if number == 0:
            statement = statement.where(self.layout.versioning.version == version)
        if self.connection.execute(statement).rowcount != 1:
            raise ConcurrentChangeError(self.layout.versioning.name, [key])

    @cached_property
    def _version(self) -> Codec:
        return self._codec(sa.Integer())

    @cached_property
    def _own(self) -> _Columns:
        """Our own columns of the history table, but for the version."""
        own = self.layout.versioning.column
        types = {
            "operation": sa.String(),
            "changed": Instant(),
            "change_info": JSONDocument,
            "transaction_id": sa.Uuid(),
        }
        return {own(name): self._codec(type_) for name, type_ in types.items()}

    def _own_values(self, row: FileRow) -> _Parameters:
        assert row.changed is not None
        _, changed, _, transaction_id = self._own.values()
        return (
            row.operation,
            changed.read(instant_text(row.changed)),
            json.dumps(row.change_info),
            transaction_id.read(str(row.transaction_id)),
        )

    def _codec(self, type_: Any) -> Codec:
        return codec_of(type_, self.layout.dialect)

    def _history_key(self, number: int) -> _Columns:
        table = self.layout.tables[number]
        codecs = [one.codec for one in self.layout.key]
        return {table.history.c[column.key]: codec for column, codec in zip(table.key, codecs, strict=True)}

    def _live_key(self, number: int) -> _Columns:
        codecs = [one.codec for one in self.layout.key]
        return dict(zip(self.layout.tables[number].key, codecs, strict=True))

    def _live_version(self, number: int) -> _Columns:
        return {self.layout.versioning.version: self._version} if number == 0 else {}

    def _live_attributes(self, number: int) -> Sequence[Attribute]:
        layout = self.layout
        return [
            one
            for one in (*layout.state, *layout.kept, *self.set_values)
            if one.table == number and one.live is not None and one.live.computed is None
        ]

    def _live_value(self, attribute: Attribute, given: GivenRow) -> Any:
        if attribute in self.set_values:
            return self.set_values[attribute]
        return given.state.get(attribute.name)

    def _among(self, select: sa.Select[Any], columns: _Columns, rows: list[_Parameters]) -> Iterator[FileRow]:
        remaining = iter(rows)
        while some := list(islice(remaining, _LOOKED_UP)):
            statement = select.where(self._is_among(columns, some))
            for row in self.connection.execute(statement):
                yield self.layout.file_row(row)

    def _is_among(self, columns: _Columns, rows: Sequence[_Parameters]) -> sa.ColumnElement[bool]:
        if self.layout.dialect.name != "postgresql":
            raw = [sa.type_coerce(column, Raw()) for column in columns]
            return is_among(raw, [tuple(row) for row in rows], self.layout.dialect.name)
        return sa.tuple_(*columns).in_(self._listed(columns).params(self._arrays(columns, rows)))

    def _insert(self, table: sa.Table, columns: _Columns, rows: Sequence[_Parameters]) -> None:
        if not rows:
            return
        if self.layout.dialect.name == "postgresql" and not _has_own_defaults(table, columns):
            # Set-based: the driver sends a row's values as arrays, not row by row.
            insert = sa.insert(table).from_select(list(columns), self._listed(columns))
            self.connection.execute(insert, self._arrays(columns, rows))
            return
        values = {
            column: self.layout.cast(codec, column, bindparam(_parameter(number), type_=self.layout.parameter))
            for number, (column, codec) in enumerate(columns.items())
        }
        parameters = [{_parameter(number): value for number, value in enumerate(row)} for row in rows]
        self.connection.execute(sa.insert(table).values(values), parameters)

    def _listed(self, columns: _Columns) -> sa.Select[Any]:
        """On PostgreSQL: rows that the parameters give, an array for each column."""
        names = [_parameter(number) for number in range(len(columns))]
        arrays = [bindparam(name, type_=postgresql.ARRAY(sa.Text)) for name in names]
        rows = sa.func.unnest(*arrays).table_valued(*(sa.column(name, sa.Text) for name in names)).render_derived()
        return sa.select(
            *(
                self.layout.cast(codec, column, rows.c[name])
                for name, (column, codec) in zip(names, columns.items(), strict=True)
            )
        )

    def _arrays(self, columns: _Columns, rows: Sequence[_Parameters]) -> dict[str, Any]:
        return {_parameter(number): [row[number] for row in rows] for number in range(len(columns))}


def _parameter(number: int) -> str:
    return f"chrononaut_{number}"


def _has_own_defaults(table: sa.Table, columns: _Columns) -> bool:
    """Has a column that is left out a default that is made anew for each row, by Python?"""
    return any(
        column.default is not None and not column.default.is_scalar for column in table.c if column not in columns
    )

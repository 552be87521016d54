"""Histories of millions of rows, written by a few statements past the session.

The database computes the rows: the history rows of a table come in the order of time, as an application writes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from benchmarks.reading.models import LONG, SHORT, Document, Item, Leaflet, Sizes
from chrononaut.history import NEVER, Versioning, versioning_of
from chrononaut.types import Instant, JSONDocument
from chrononaut.verify import verify

_BATCH: Final = 50_000
_SPAN: Final = timedelta(days=365)
"""How long the histories are; they end before `RECENT`."""
RECENT: Final = timedelta(hours=1)
"""How long before now the last changes are."""
_BODY: Final = "A text of some length, as a record has it that people read and write, now and then. "

_Number = sa.ColumnElement[int]


@dataclass(frozen=True, slots=True)
class Rows:
    """History rows of some records of a table: each record's creation, and its updates.

    :ivar first: the least of the keys, which follow each other
    :ivar records: how many records
    :ivar each: history rows of each record
    :ivar again: of how many records one was updated once more, lately; of none if 0
    """

    model: type
    first: int
    records: int
    each: int
    again: int = 0

    @property
    def total(self) -> int:
        """How many history rows and live rows these are."""
        return self.records * (self.each + 1) + (self.records // self.again if self.again else 0)


def contents(sizes: Sizes) -> list[Rows]:
    """What the tables hold."""
    return [
        Rows(Document, SHORT, 1, sizes.short + 1),
        Rows(Document, LONG, 1, sizes.long + 1),
        Rows(Item, 1, sizes.items, sizes.rows, sizes.again),
        Rows(Leaflet, 1, sizes.leaflets, sizes.rows),
    ]


def fill(engine: sa.Engine, rows: Rows, now: datetime) -> Iterator[int]:
    """Write rows of history and the live rows that follow them.

    :param now: when the latest change is
    :return: how many rows were written with each statement
    """
    table = _Table(versioning_of(rows.model), engine.dialect.name)
    begin, count = now - RECENT - _SPAN, rows.records * rows.each
    for numbers in _batches(range(count)):
        number, series = _series(numbers)
        key, version = number % rows.records + rows.first, number // rows.records + NEVER
        changed = table.instant(begin, number, _SPAN / (count + 1))
        yield _execute(engine, table.insert_history(series, number, key, version, changed), numbers)
    last = rows.each + NEVER
    if rows.again:
        numbers = range(rows.records // rows.again)
        number, series = _series(numbers)
        key, version = (number + 1) * rows.again, sa.literal(last, sa.Integer)
        changed = table.instant(now - RECENT, number + 1, RECENT / (len(numbers) + 1))
        yield _execute(engine, table.insert_history(series, number + count, key, version, changed), numbers)
    for keys in _batches(range(rows.first, rows.first + rows.records)):
        key, series = _series(keys)
        is_again = key % rows.again == 0 if rows.again else sa.false()
        version = sa.case((is_again, last + 1), else_=last)
        yield _execute(engine, table.insert_live(series, key, version), keys)


def settle(engine: sa.Engine, sizes: Sizes) -> Iterator[str]:
    """Let the database gather its statistics, and check that what was written is a history.

    :return: what is wrong, a sentence each; nothing if all is well
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # On PostgreSQL as its autovacuum does: so that indexes answer alone what they know.
        connection.exec_driver_sql("VACUUM ANALYZE" if engine.dialect.name == "postgresql" else "ANALYZE")
    with engine.connect() as connection:
        for model in {rows.model for rows in contents(sizes)}:
            yield from map(str, verify(connection, model))


def _batches(numbers: range) -> Iterator[range]:
    for start in range(0, len(numbers), _BATCH):
        yield numbers[start : start + _BATCH]


def _series(numbers: range) -> tuple[_Number, sa.CTE]:
    """Whole numbers that follow each other: the column, and what it is selected from."""
    series = sa.select(sa.literal(numbers[0], sa.Integer).label("number")).cte("series", recursive=True)
    series = series.union_all(sa.select(series.c.number + 1).where(series.c.number < numbers[-1]))
    return series.c.number, series


def _execute(engine: sa.Engine, statement: sa.Insert, numbers: range) -> int:
    with engine.begin() as connection:
        connection.execute(statement)
    return len(numbers)


@dataclass(frozen=True, slots=True)
class _Table:
    """How the rows of a model are computed.

    :ivar dialect: the name of the dialect
    """

    versioning: Versioning
    dialect: str

    def insert_history(
        self, series: sa.CTE, number: _Number, key: _Number, version: _Number, changed: sa.ColumnElement[Any]
    ) -> sa.Insert:
        history = self.versioning.history_table
        is_insert = version == NEVER
        state = {name: sa.case((~is_insert, value)) for name, value in self._state(key, version).items()}
        user = _text("user", number % 20)
        values = state | {
            "id": key,
            "version": version,
            "operation": sa.case((is_insert, "insert"), else_="update"),
            "changed": changed,
            "change_info": self._json('{"user_id": "', user, '", "remote_addr": "127.0.0.1"}', JSONDocument),
            "transaction_id": self._uuid(number),
        }
        return sa.insert(history).from_select(list(values), sa.select(*values.values()).select_from(series))

    def insert_live(self, series: sa.CTE, key: _Number, version: sa.ColumnElement[int]) -> sa.Insert:
        unkept: dict[str, Any] = {"id": key, "version": version, "secret": _text("secret", key), "views": key}
        values = dict(self._state(key, version)) | unkept
        return sa.insert(self.versioning.table).from_select(
            list(values), sa.select(*values.values()).select_from(series)
        )

    def _state(self, key: _Number, version: sa.ColumnElement[int]) -> Mapping[str, sa.ColumnElement[Any]]:
        """Column → its value in a version of a record; with each version all but two are others."""
        number = key + version
        return {
            "title": _text("title", key) + _text(", edition", version),
            "body": sa.literal(_BODY) + _text("Edition", version),
            "owner": sa.case((number % 3 > 0, _text("owner", number % 100))),
            "status": sa.case((number % 2 == 0, "open"), else_="done"),
            "quantity": version,
            "weight": version * sa.literal(0.5, sa.Float),
            "active": number % 2 == 0,
            "created_on": sa.literal(date(2026, 1, 1)),
            "due_at": self.instant(datetime(2026, 1, 1, tzinfo=UTC), number, timedelta(seconds=1)),
            "tags": self._json('{"priority": ', sa.cast(number % 5, sa.Text), ', "labels": ["a", "b"]}', sa.JSON()),
        }

    def instant(self, begin: datetime, number: sa.ColumnElement[int], step: timedelta) -> sa.ColumnElement[Any]:
        """An instant so many steps after another, to the millisecond."""
        if self.dialect == "postgresql":
            seconds = sa.func.round(sa.cast(number * sa.literal(step.total_seconds(), sa.Float), sa.Numeric), 3)
            return sa.literal(begin, Instant) + sa.cast(seconds, sa.Float) * sa.literal(
                timedelta(seconds=1), sa.Interval
            )
        text = sa.cast(number * sa.literal(step.total_seconds(), sa.Float), sa.Text) + " seconds"
        return sa.func.strftime("%Y-%m-%d %H:%M:%f000", sa.literal(begin, Instant), text)

    def _json(self, before: str, value: sa.ColumnElement[str], after: str, type_: Any) -> sa.ColumnElement[Any]:
        text = sa.literal(before) + value + after
        return sa.cast(text, type_) if self.dialect == "postgresql" else text

    def _uuid(self, number: sa.ColumnElement[int]) -> sa.ColumnElement[Any]:
        if self.dialect == "postgresql":
            return sa.cast(sa.func.lpad(sa.func.to_hex(number), 32, "0"), sa.Uuid)
        return sa.func.printf("%032x", number)


def _text(prefix: str, number: sa.ColumnElement[int]) -> sa.ColumnElement[str]:
    return sa.literal(f"{prefix} ") + sa.cast(number, sa.Text)

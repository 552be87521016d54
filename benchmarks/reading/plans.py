"""By which indexes a database answers what it was really asked, as it tells itself.

PostgreSQL executes each statement once more for it (``EXPLAIN ANALYZE``) and says how many rows it read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event

_MOST_ROWS: Final = 300
"""History rows that a page may read: its own, those before them, those after them; and a few more."""
_ON_SQLITE: Final = re.compile(
    # Not the rows of a list or of a subquery, which lie in no table.
    r"(?P<how>SEARCH|SCAN) (?!CONSTANT|\d+ CONSTANT|\()(?P<table>\S+)"
    r"(?: USING (?:(?:PARTIAL )?(?:COVERING )?INDEX (?P<index>\S+)|(?P<rowid>INTEGER PRIMARY KEY)))?"
)
_ANONYMOUS: Final = re.compile(r"_\d+$")


@dataclass(frozen=True, slots=True)
class Access:
    """A table that is read.

    :ivar index: by which index; ``None`` if the whole table is
    :ivar finds: does it look up what it reads in the index, or read that along?
    :ivar rows: how many rows were read; ``None`` if that is not known
    """

    table: str
    index: str | None
    finds: bool
    rows: int | None = None

    def __str__(self) -> str:
        how = "whole" if self.index is None else f"by {self.index}" if self.finds else f"along {self.index}"
        return f"{self.table} {how}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a database does for one statement.

    :ivar accesses: the tables that it reads
    :ivar sorts: the sorts that it says it makes
    """

    accesses: tuple[Access, ...]
    sorts: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(dict.fromkeys([*map(str, self.accesses), *self.sorts]))


def faults(plan: Plan, history: sa.Table, engine: sa.Engine, of_record: bool) -> Iterator[str]:
    """Why a plan takes longer with a longer history.

    :param history: the history table
    :param of_record: is it of one record?
    """
    yield from plan.sorts
    first = {
        index["name"]: index["column_names"][0]
        for index in sa.inspect(engine).get_indexes(history.name, schema=history.schema)
    }
    key = next(iter(history.primary_key)).name
    for access in plan.accesses:
        if access.table != history.name:
            continue
        # An index without an entry is that of the primary key.
        by_key = access.finds and first.get(access.index, key) == key
        if access.index is None:
            yield f"reads {access}"
        elif access.rows is None:
            if of_record and not by_key:
                yield f"reads {access}, which does not begin with the record's key"
        elif access.rows > _MOST_ROWS:
            yield f"reads {access.rows:,} rows of {access}"


@contextmanager
def planned(engine: sa.Engine) -> Iterator[list[Plan]]:
    """The plans of the selects that an engine executes inside the block; they are there afterwards."""
    asked: list[tuple[str, Any]] = []
    plans: list[Plan] = []

    def note(
        connection: object, cursor: object, statement: str, parameters: Any, context: object, executemany: bool
    ) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield plans
    finally:
        event.remove(engine, "before_cursor_execute", note)
    explain = _explained_by_postgresql if engine.dialect.name == "postgresql" else _explained_by_sqlite
    with engine.connect() as connection:
        for statement, parameters in asked:
            plans.append(explain(connection, statement, parameters))


def _explained_by_sqlite(connection: sa.Connection, statement: str, parameters: Any) -> Plan:
    rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    details = [detail for *_, detail in rows]
    found = [match for match in map(_ON_SQLITE.match, details) if match is not None]
    return Plan(
        accesses=tuple(
            Access(_ANONYMOUS.sub("", match["table"]), match["index"] or match["rowid"], match["how"] == "SEARCH")
            for match in found
        ),
        sorts=tuple(detail for detail in details if detail.startswith("USE TEMP B-TREE")),
    )


def _explained_by_postgresql(connection: sa.Connection, statement: str, parameters: Any) -> Plan:
    explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
    nodes = list(_nodes(explained[0]["Plan"]))
    return Plan(
        accesses=tuple(_access(node) for node in nodes if "Relation Name" in node),
        sorts=tuple(f"sort by {', '.join(node['Sort Key'])}" for node in nodes if "Sort Key" in node),
    )


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from _nodes(below)


def _access(node: Mapping[str, Any]) -> Access:
    # A bitmap's indexes are those of the nodes below it.
    named = next((one for one in _nodes(node) if "Index Name" in one), {})
    rows = None
    if "Actual Loops" in node:
        removed = sum(node.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck"))
        rows = round((node["Actual Rows"] + removed) * node["Actual Loops"])
    return Access(node["Relation Name"], named.get("Index Name"), "Index Cond" in named, rows)

"""Whether live rows and history agree: what must hold of every record, and where it does not.

Two statements check a model. One reads the history rows in order, each with what the row before it says and with the
version of the live row; the other reads the live rows that have no history. Each finding comes from one row of one
statement, which sees one state of the database: what an application writes meanwhile gives no false alarm. The rows
are streamed, so that the size of the tables does not matter.

History that was purged, and records that were inserted or deleted past it (by other programs, or inside
`suppress_versioning`), are differences like any other: nobody can tell them from a loss.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from chrononaut.history import NEVER, Key, Operation, Versioning, versioning_of
from chrononaut.types import Instant

_BATCH = 1000  # rows that are held at once
_OPERATIONS: tuple[str, ...] = get_args(Operation)


@dataclass(frozen=True, slots=True)
class Finding:
    """Where live rows and history do not agree.

    :ivar model: the name of the model
    :ivar version: of the history row, or of the live row where that is what is wrong
    :ivar problem: what is wrong, in one sentence
    """

    model: str
    key: Key
    version: int
    problem: str

    def __str__(self) -> str:
        key = self.key[0] if len(self.key) == 1 else self.key
        return f"{self.model} {key!r} version {self.version}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Checked:
    """Some rows that were read, and what was found in them.

    :ivar rows: history rows and live rows; those of all parts add up to `total_rows`
    :ivar history_rows: how many of them are history rows
    :ivar records: records that end with these rows
    """

    rows: int
    history_rows: int
    records: int
    findings: tuple[Finding, ...]


class Link(NamedTuple):
    """A history row and its place between the row before it and the live row.

    :ivar is_earlier: did the state before it end later than this one?
    :ivar has_state: is any column besides the key and ours not NULL?
    :ivar is_last: is it the last history row of its record?
    :ivar live_version: of the live row; ``None`` where there is none
    """

    version: int
    operation: str
    version_before: int | None
    operation_before: str | None
    is_earlier: bool | None
    has_state: bool
    is_last: bool
    live_version: int | None


def verify(connection: Connection, model: type) -> Iterator[Finding]:
    """Where the live rows and the history of a model do not agree, by key and version.

    :param model: a versioned model
    :raises TypeError: the model is not versioned
    """
    for part in check(connection, model):
        yield from part.findings


def check(connection: Connection, model: type) -> Iterator[Checked]:
    """Check the live rows and the history of a model, part by part.

    :param model: a versioned model
    :raises TypeError: the model is not versioned
    """
    versioning = versioning_of(model)
    for rows in _streamed(connection, _links(versioning)):
        yield _check_links(versioning, rows)
    for rows in _streamed(connection, _without_history(versioning)):
        yield _check_without_history(versioning, rows)


def total_rows(connection: Connection, model: type) -> int:
    """How many history rows and live rows a model has.

    :raises TypeError: the model is not versioned
    """
    versioning = versioning_of(model)
    counts = (
        sa.select(sa.func.count()).select_from(table).scalar_subquery()
        for table in (versioning.history_table, versioning.table)
    )
    return sum(connection.execute(sa.select(*counts)).one())


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection that only reads; on PostgreSQL it reads all from one state of the database.

    Elsewhere it begins no transaction: an application may have SQLite begin each as a writer, and others would wait.
    """
    if engine.dialect.name == "postgresql":
        options: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    else:
        options = {"isolation_level": "AUTOCOMMIT"}
    with engine.connect() as connection:
        yield connection.execution_options(**options)


def problems(link: Link) -> Iterator[tuple[int, str]]:
    """What is wrong with a history row, as (version, sentence). What only follows from another problem is left out."""
    version, operation = link.version, link.operation
    is_known = operation in _OPERATIONS
    if not is_known:
        yield version, f"the operation {operation!r} is none of {', '.join(_OPERATIONS)}"
    if link.version_before is None:
        if is_known and version != (NEVER if operation == "insert" else NEVER + 1):
            yield version, f"history begins with this {operation}; the rows before it are missing"
    elif version != link.version_before + 1:
        yield version, f"history has a gap: the row before it is version {link.version_before}"
    elif is_known and link.operation_before in _OPERATIONS:
        if operation == "insert" and link.operation_before != "delete":
            yield version, f"this insert follows the {link.operation_before} of a record; it can only follow a delete"
        elif operation != "insert" and link.operation_before == "delete":
            yield version, f"this {operation} follows a delete, which only an insert can"
    if link.is_earlier:
        yield version, "it was replaced earlier than the version before it"
    if operation == "insert" and link.has_state:
        yield version, "the row of an insert holds a state, though nothing was there before"
    if link.is_last:
        yield from _problems_of_end(link, is_known)


def _problems_of_end(link: Link, is_known: bool) -> Iterator[tuple[int, str]]:
    if link.live_version is None:
        if is_known and link.operation != "delete":
            yield link.version, f"there is no live row, though history ends with this {link.operation}"
    elif link.operation == "delete":
        yield link.live_version, f"there is a live row, though history ends with the delete of version {link.version}"
    elif link.live_version != link.version + 1:
        yield link.live_version, f"the live row has this version, though history ends with version {link.version}"


def _streamed(connection: Connection, select: sa.Select[Any]) -> Iterator[list[Any]]:
    options = {"yield_per": _BATCH}
    with connection.execute(select, execution_options=options) as result:
        yield from map(list, result.partitions())


def _check_links(versioning: Versioning, rows: list[Any]) -> Checked:
    findings: list[Finding] = []
    records = live = 0
    for row in rows:
        link = Link(*row[: len(Link._fields)])
        for version, problem in problems(link):
            findings.append(Finding(versioning.name, tuple(row[len(Link._fields) :]), version, problem))
        if link.is_last:
            records += 1
            live += link.live_version is not None
    return Checked(len(rows) + live, len(rows), records, tuple(findings))


def _check_without_history(versioning: Versioning, rows: list[Any]) -> Checked:
    findings = tuple(
        Finding(versioning.name, tuple(key), version, "there is a live row of this version and no history")
        for version, *key in rows
        if version != NEVER + 1
    )
    return Checked(len(rows), 0, len(rows), findings)


def _links(versioning: Versioning) -> sa.Select[Any]:
    """Every history row as a `Link`, and its key."""
    history = versioning.history_table
    version, operation, changed = (versioning.column(own) for own in ("version", "operation", "changed"))
    key = [history.c[column.key] for column in versioning.key_columns]
    state = [history.c[column.key] for name, column in versioning.tracked.items() if name not in versioning.key]

    def neighbour(function: str, column: sa.Column[Any], type_: Any) -> sa.Over[Any]:
        value: sa.Function[Any] = getattr(sa.func, function)(column, type_=type_)
        return value.over(partition_by=key, order_by=version)

    # In the order of `Link`.
    columns: dict[str, sa.ColumnElement[Any]] = {
        "version": version,
        "operation": operation,
        "version_before": neighbour("lag", version, sa.Integer),
        "operation_before": neighbour("lag", operation, sa.String),
        "is_earlier": changed < neighbour("lag", changed, Instant),
        "has_state": sa.or_(sa.false(), *(column.is_not(None) for column in state)),
        "is_last": neighbour("lead", version, sa.Integer).is_(None),
        "live_version": versioning.version,
    }
    return (
        sa.select(*columns.values(), *key)
        .select_from(history.outerjoin(versioning.table, _same_key(versioning)))
        .order_by(*key, version)
    )


def _without_history(versioning: Versioning) -> sa.Select[Any]:
    """Version and key of every live row that has no history."""
    has_history = sa.exists().where(_same_key(versioning)).correlate(versioning.table)
    key = versioning.key_columns
    return sa.select(versioning.version, *key).where(~has_history).order_by(*key)


def _same_key(versioning: Versioning) -> sa.ColumnElement[bool]:
    history = versioning.history_table
    return sa.and_(*(history.c[column.key] == column for column in versioning.key_columns))

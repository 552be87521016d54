"""Whether live rows and history agree: what must hold of every record, and where it does not.

Two statements check a model. One reads the history rows in order, each with what the row before it says and with the
version of the live row; the other reads the live rows that have no history. Each finding comes from one row of one
statement, which sees one state of the database: what an application writes meanwhile gives no false alarm. The rows
are streamed, so that the size of the tables does not matter.

Where a row says that values were erased from it, they must be gone.

Of a model that has a table of its own besides that of its parent, by joined inheritance, it is checked that the two
histories agree.

A cut stands for the rows that were purged, and must join what is left. History that was deleted in any other way, and
records that were inserted or deleted past it (by other programs, or inside `suppress_versioning`), are differences like
any other: nobody can tell them from a loss.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from chrononaut.cuts import OPERATIONS, PURGED, damage
from chrononaut.erasing import REASONS, erasable, unkept
from chrononaut.history import (
    ERASED,
    NEVER,
    Key,
    Operation,
    RecordTable,
    Versioning,
    full_name,
    marks_of,
    versioning_of,
)
from chrononaut.queries import replaced_by
from chrononaut.types import Instant, has_key

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

    :ivar operation_before: of a cut, that of the last row that was purged
    :ivar change_info: of a cut; ``None`` of another row
    :ivar is_earlier: did the state before it end later than this one?
    :ivar has_state: is any column besides the key and ours not NULL?
    :ivar is_last: is it the last history row of its record?
    :ivar live_version: of the live row; ``None`` where there is none
    """

    version: int
    operation: str
    change_info: Any
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
    if len(versioning.tables) > 1:
        for rows in _streamed(connection, _joints(versioning)):
            yield _check_joints(versioning, rows)
        for rows in _streamed(connection, _strays(versioning)):
            yield _check_strays(versioning, rows)
        yield from _check_erased(connection, versioning)
        return
    for rows in _streamed(connection, _links(versioning)):
        yield _check_links(versioning, rows)
    for rows in _streamed(connection, _without_history(versioning)):
        yield _check_without_history(versioning, rows)
    yield from _check_erased(connection, versioning)


def total_rows(connection: Connection, model: type) -> int:
    """How many history rows and live rows of a model are read.

    :raises TypeError: the model is not versioned
    """
    versioning = versioning_of(model)
    counts = (
        sa.select(sa.func.count()).select_from(table).scalar_subquery()
        for table in (versioning.history_table, versioning.table)[: 1 if len(versioning.tables) > 1 else 2]
    )
    return sum(connection.execute(sa.select(*counts)).one())


def problems(link: Link) -> Iterator[tuple[int, str]]:
    """What is wrong with a history row, as (version, sentence). What only follows from another problem is left out."""
    version, operation = link.version, link.operation
    is_known = operation in _OPERATIONS
    if not is_known:
        yield version, f"the operation {operation!r} is none of {', '.join(_OPERATIONS)}"
    if operation == "purge":
        yield from _problems_of_cut(link)
    elif link.version_before is None:
        if is_known and version != (NEVER if operation == "insert" else NEVER + 1):
            yield version, f"history begins with this {operation}; the rows before it are missing"
    elif version != link.version_before + 1:
        yield version, f"history has a gap: the row before it is version {link.version_before}"
    elif is_known and link.operation_before in OPERATIONS:
        if operation == "insert" and link.operation_before != "delete":
            yield version, f"this insert follows the {link.operation_before} of a record; it can only follow a delete"
        elif operation != "insert" and link.operation_before == "delete":
            yield version, f"this {operation} follows a delete, which only an insert can"
    if link.is_earlier:
        yield version, "it was replaced earlier than the version before it"
    if operation == "insert" and link.has_state:
        yield version, "the row of an insert holds a state, though nothing was there before"
    if link.is_last:
        ends = link._replace(operation=link.change_info[PURGED]["operation"]) if _is_sound_cut(link) else link
        yield from _problems_of_end(ends, ends.operation in OPERATIONS)


def _is_sound_cut(link: Link) -> bool:
    return link.operation == "purge" and damage(link.version, link.change_info) is None


def _problems_of_cut(link: Link) -> Iterator[tuple[int, str]]:
    if problem := damage(link.version, link.change_info):
        yield link.version, f"this cut {problem}"
    else:
        first = link.change_info[PURGED]["first"]
        if link.version_before is None and first > NEVER + 1:
            yield link.version, f"history begins with this cut from version {first} on; the rows before it are missing"
        elif link.version_before is not None and first != link.version_before + 1:
            yield (
                link.version,
                f"this cut begins with version {first}; the row before it is version {link.version_before}",
            )
    if link.has_state:
        yield link.version, "this cut holds a state, though it was purged"


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
    is_cut = operation == "purge"

    def neighbour(function: str, column: sa.ColumnElement[Any], type_: Any) -> sa.Over[Any]:
        return _neighbour(versioning, function, column, type_)

    # In the order of `Link`.
    columns: dict[str, sa.ColumnElement[Any]] = {
        "version": version,
        "operation": operation,
        "change_info": sa.case((is_cut, versioning.column("change_info")), else_=sa.null()),
        "version_before": neighbour("lag", version, sa.Integer),
        "operation_before": neighbour("lag", replaced_by(versioning), sa.String),
        "is_earlier": changed < neighbour("lag", changed, Instant),
        "has_state": _has_state(versioning, versioning.tables[0], is_cut),
        "is_last": neighbour("lead", version, sa.Integer).is_(None),
        "live_version": versioning.version,
    }
    return (
        sa.select(*columns.values(), *key)
        .select_from(history.outerjoin(versioning.table, _same_key(versioning)))
        .order_by(*key, version)
    )


def _has_state(versioning: Versioning, table: RecordTable, is_cut: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Does a history row hold any state? A cut may say which model its record is of."""
    holds: sa.ColumnElement[bool] = sa.or_(sa.false(), *(column.is_not(None) for column in versioning.stateful(table)))
    kind = versioning.kind
    if kind is None or kind.table is not table.history:
        return holds
    return sa.or_(holds, sa.and_(~is_cut, kind.is_not(None)))


def _neighbour(versioning: Versioning, function: str, column: sa.ColumnElement[Any], type_: Any) -> sa.Over[Any]:
    """What the history row before (lag) or after (lead) of the same record says."""
    key = [versioning.history_table.c[column.key] for column in versioning.key_columns]
    value: sa.Function[Any] = getattr(sa.func, function)(column, type_=type_)
    return value.over(partition_by=key, order_by=versioning.column("version"))


def _joints(versioning: Versioning) -> sa.Select[Any]:
    """Every history row of the first table, whether the model's own table has one too, and its key."""
    own, history = versioning.tables[-1], versioning.history_table
    version = versioning.column("version")
    key = [history.c[column.key] for column in versioning.key_columns]
    own_key = [own.history.c[column.key] for column in own.key]
    own_version = own.history.c[versioning.options.names.version]
    same = [one == other for one, other in zip(own_key, key, strict=True)]
    live = [one == other for one, other in zip(own.key, key, strict=True)]
    has_row, is_cut = own_version.is_not(None), versioning.column("operation") == "purge"
    return (
        sa.select(
            version,
            replaced_by(versioning),
            has_row,
            _neighbour(versioning, "lag", has_row, sa.Boolean),
            _neighbour(versioning, "lead", version, sa.Integer).is_(None),
            own.key[0].is_not(None),
            is_cut,
            sa.and_(is_cut, _has_state(versioning, own, is_cut)),
            *key,
        )
        .select_from(
            history.outerjoin(own.history, sa.and_(own_version == version, *same)).outerjoin(own.live, sa.and_(*live))
        )
        .order_by(*key, version)
    )


def _check_joints(versioning: Versioning, rows: list[Any]) -> Checked:
    findings: list[Finding] = []
    table = versioning.tables[-1].history.name
    records = history_rows = 0
    for version, operation, has_row, had_row, is_last, is_live, is_cut, holds_state, *key in rows:
        if holds_state:
            problem = f"{table} has a state of this cut, though it was purged"
            findings.append(Finding(versioning.name, tuple(key), version, problem))
        # A cut may stand for several lives.
        if operation != "insert" and not is_cut and had_row is not None and bool(has_row) != bool(had_row):
            problem = f"{table} has {'a' if has_row else 'no'} row of it, unlike of the version before"
            findings.append(Finding(versioning.name, tuple(key), version, problem))
        if is_last and operation != "delete" and bool(has_row) != bool(is_live):
            problem = f"{table} has {'a' if has_row else 'no'} row of it, unlike the live record"
            findings.append(Finding(versioning.name, tuple(key), version, problem))
        history_rows += bool(has_row)
        records += bool(has_row and is_last)
    return Checked(len(rows), history_rows, records, tuple(findings))


def _strays(versioning: Versioning) -> sa.Select[Any]:
    """Version and key of the history rows of the model's own table that the first table's history does not have."""
    own = versioning.tables[-1].history
    version = own.c[versioning.options.names.version]
    key = [own.c[column.key] for column in versioning.tables[-1].key]
    same = [
        versioning.history_table.c[column.key] == one for column, one in zip(versioning.key_columns, key, strict=True)
    ]
    known = sa.exists().where(versioning.column("version") == version, *same).correlate(own)
    return sa.select(version, *key).where(~known).order_by(*key, version)


def _check_strays(versioning: Versioning, rows: list[Any]) -> Checked:
    problem = f"{versioning.tables[-1].history.name} has a row of it, and {versioning.history_table.name} has none"
    return Checked(
        0, len(rows), 0, tuple(Finding(versioning.name, tuple(key), version, problem) for version, *key in rows)
    )


def _check_erased(connection: Connection, versioning: Versioning) -> Iterator[Checked]:
    own = versioning.tables[-1].history
    kept = erasable(versioning), unkept(connection, versioning)
    held = [(name, one) for names in kept for name, found in names.items() for one in found if _is_of(one, own)]
    for rows in _streamed(connection, _erased(versioning, [column for _, column in held])):
        findings: list[Finding] = []
        for version, info, *row in rows:
            flags, key = row[: len(held)], tuple(row[len(held) :])
            marks = marks_of(info)
            erased = {name for mark in marks for name in mark["columns"]}
            for name in dict.fromkeys(name for (name, _), has_value in zip(held, flags, strict=True) if has_value):
                if name in erased:
                    problem = f"{own.name} has a value of {name}, which was erased"
                    findings.append(Finding(versioning.name, key, version, problem))
            has_reasons = REASONS in info and any(mark["reasons"] for mark in marks)
            if has_reasons and own is versioning.history_table:
                findings.append(Finding(versioning.name, key, version, "it has reasons, which were erased"))
        yield Checked(0, 0, 0, tuple(findings))


def _is_of(column: sa.Column[Any], table: sa.Table) -> bool:
    return full_name(column.table) == full_name(table)


def _erased(versioning: Versioning, columns: Sequence[sa.Column[Any]]) -> sa.Select[Any]:
    """Version and change info of the history rows that something was erased from, which of some columns of the model's
    own table have a value, and the key.
    """
    own, version = versioning.tables[-1], versioning.column("version")
    info = versioning.column("change_info")
    key = [versioning.history_table.c[column.key] for column in versioning.key_columns]
    rows: sa.FromClause = versioning.history_table
    if own.history is not rows:
        same = [own.history.c[column.key] == part for column, part in zip(own.key, key, strict=True)]
        rows = rows.join(own.history, sa.and_(own.history.c[versioning.options.names.version] == version, *same))
    there: list[sa.ColumnElement[Any]] = [column for column in columns if column.table is own.history]
    if unknown := [column for column in columns if column.table is not own.history]:
        # A description of the same table, with other columns.
        other = unknown[0].table.alias("unkept")
        same = [other.c[column.key] == part for column, part in zip(own.key, key, strict=True)]
        rows = rows.join(other, sa.and_(other.c[versioning.options.names.version] == version, *same))
        there += [other.c[column.key] for column in unknown]
    return (
        sa.select(version, info, *(column.is_not(None) for column in there), *key)
        .select_from(rows)
        .where(has_key(info, ERASED))
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

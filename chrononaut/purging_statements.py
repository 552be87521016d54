"""The parts of the statements of a purge: the rows that are looked at, what holds a record, runs, and what goes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from chrononaut.history import RecordTable, Versioning
from chrononaut.queries import history_key
from chrononaut.retention import Retention
from chrononaut.types import implementation


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive rows of a history table, in the order of its primary key.

    :ivar after: key and version of the row before; ``None`` at the beginning
    :ivar until: key and version of the last row; ``None`` at the end
    """

    after: tuple[Any, ...] | None
    until: tuple[Any, ...] | None
    rows: int

    def select(
        self, versioning: Versioning, columns: Iterable[sa.ColumnElement[Any]], with_before: bool = False
    ) -> sa.Select[Any]:
        """The keys of its rows, and other columns.

        :param with_before: of the row before too
        """
        key = history_key(versioning)
        # Where what is between two places has to be guessed, a limit says that it is not much. Writers may have added
        # some rows since they were counted.
        return (
            sa.select(*labelled(key), *columns)
            .where(*self.criteria(versioning, with_before))
            .order_by(*key, versioning.column("version"))
            .limit(2 * self.rows + 1)
        )

    def criteria(self, versioning: Versioning, with_before: bool = False) -> list[sa.ColumnElement[bool]]:
        """Is a history row one of its rows?

        :param with_before: is the row before one?
        """
        columns = [*history_key(versioning), versioning.column("version")]
        place = sa.tuple_(*columns)
        criteria: list[sa.ColumnElement[bool]] = []
        if self.after is not None:
            after = _values(columns, self.after)
            criteria.append(place >= after if with_before else place > after)
        if self.until is not None:
            criteria.append(place <= _values(columns, self.until))
        return criteria


def history_tables(versioning: Versioning) -> list[RecordTable]:
    """All that rows of a hierarchy are in, the first one last."""
    tables = {one.history: one for model in versioning.hierarchy for one in reversed(model.tables)}
    return sorted(tables.values(), key=lambda one: one.history is versioning.history_table)


def _values(columns: Sequence[sa.Column[Any]], values: Sequence[Any]) -> sa.Tuple:
    return sa.tuple_(*(sa.literal(value, column.type) for value, column in zip(values, columns, strict=True)))


def labelled(key: Sequence[sa.ColumnElement[Any]]) -> list[sa.Label[Any]]:
    """The parts of a key under names that no other column has."""
    return [part.label(f"key_{place}") for place, part in enumerate(key)]


def parts(versioning: Versioning, rows: sa.FromClause) -> list[sa.ColumnElement[Any]]:
    return [rows.c[f"key_{place}"] for place in range(len(versioning.key))]


def of_record(
    versioning: Versioning, table: sa.FromClause, key: Sequence[sa.ColumnElement[Any]]
) -> list[sa.ColumnElement[bool]]:
    """Is a row of the first history table, or of an alias of it, one of a record?"""
    return [table.c[column.key] == part for column, part in zip(versioning.key_columns, key, strict=True)]


def is_held(
    versioning: Versioning, retention: Retention, key: Sequence[sa.ColumnElement[Any]]
) -> sa.ColumnElement[bool]:
    if retention.held is None:
        return sa.false()
    live, last = aliased(versioning.model, flat=True), aliased(versioning.history, flat=True)
    names, other = versioning.options.names, versioning.history_table.alias()
    highest = (
        sa.select(sa.func.max(other.c[names.version]))
        .where(*of_record(versioning, other, key))
        .correlate_except(other)
        .scalar_subquery()
    )

    def is_there(entity: Any, *criteria: sa.ColumnElement[bool]) -> sa.Exists:
        same = (getattr(entity, name) == part for name, part in zip(versioning.key, key, strict=True))
        return sa.exists().select_from(entity).where(*same, *criteria, _holds(versioning, retention.held, entity))

    deleted = (getattr(last, names.operation) == "delete", getattr(last, names.version) == highest)
    return sa.or_(is_there(live), is_there(last, *deleted))


def _holds(versioning: Versioning, held: Any, entity: Any) -> Any:
    if callable(held):
        return held(entity)
    attribute, type_ = getattr(entity, held), versioning.tracked[held].type
    is_boolean = isinstance(implementation(type_), sa.Boolean)
    # What is true may be stored as something else, by a type of the application's.
    return attribute == sa.literal(True, type_) if is_boolean else attribute.is_not(None)


def runs_of(versioning: Versioning, rows: sa.Subquery) -> sa.Subquery:
    """Runs of rows that go together: the key, the number that each begins with, and that of its last row.

    ``marked`` is that of the first row that says of an erasure, if there is one.
    """
    key = parts(versioning, rows)
    order: dict[str, Any] = {"partition_by": key, "order_by": rows.c.version}
    follows = sa.and_(
        sa.func.lag(rows.c.goes, type_=sa.Boolean).over(**order),
        sa.func.lag(rows.c.version, type_=sa.Integer).over(**order) == rows.c.first - 1,
        # A cut says of one kind what the record was.
        sa.func.lag(rows.c.kind).over(**order).is_not_distinct_from(rows.c.kind),
    )
    begins = sa.case((follows, 0), else_=1)
    going = sa.select(*rows.c, begins.label("begins")).subquery("marked")
    key = parts(versioning, going)
    run = sa.func.sum(going.c.begins).over(partition_by=key, order_by=going.c.version)
    numbered = sa.select(*going.c, run.label("run")).where(going.c.goes).subquery("numbered")
    key = parts(versioning, numbered)
    return (
        sa.select(
            *key,
            sa.func.min(numbered.c.first).label("first"),
            sa.func.coalesce(
                sa.func.min(sa.case((numbered.c.is_marked, numbered.c.version))), sa.func.min(numbered.c.version)
            ).label("marked"),
            sa.func.max(numbered.c.version).label("last"),
        )
        .group_by(*key, numbered.c.run)
        # A cut alone stays as it is.
        .having(sa.or_(sa.func.count() > 1, sa.func.max(numbered.c.operation) != "purge"))
        .subquery("runs")
    )


def emptying(versioning: Versioning, table: RecordTable, columns: Iterable[str], cuts: sa.Subquery) -> sa.Update:
    """The statement that leaves cuts no value in some columns of one of the history tables."""
    own = [*(table.history.c[column.key] for column in table.key), table.history.c[versioning.options.names.version]]
    # Not the table itself, which may not know the columns.
    named = [*(sa.column(column.name, column.type) for column in own), *map(sa.column, columns)]
    rows = sa.table(table.history.name, *named, schema=table.history.schema)
    place = [*parts(versioning, cuts), cuts.c.last]
    same = (rows.c[column.name] == part for column, part in zip(own, place, strict=True))
    return sa.update(rows).values(dict.fromkeys(columns, sa.null())).where(*same)


def deleting(versioning: Versioning, table: RecordTable, cuts: sa.Subquery) -> sa.Delete:
    """The statement that deletes the rows that cuts stand for."""
    # By keys that are looked up: for a range of each cut PostgreSQL would read the table whole.
    gone = table.history.alias("gone")
    key = [column.key for column in table.key]
    place = [*key, versioning.options.names.version]
    version = gone.c[versioning.options.names.version]
    stands_for = (
        *(gone.c[name] == part for name, part in zip(key, parts(versioning, cuts), strict=True)),
        version >= cuts.c.first,
        version < cuts.c.last,
    )
    rows = sa.select(*(gone.c[name] for name in place)).where(*stands_for)
    return sa.delete(table.history).where(sa.tuple_(*(table.history.c[name] for name in place)).in_(rows))

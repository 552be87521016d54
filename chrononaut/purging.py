"""Taking out of history what a policy does not keep.

History is walked in the order of its primary key, some rows at a time. What goes of them is found by statements that
look at these rows, at the newest numbers of their records and at what is held; each part is purged in a transaction of
its own. No live row is locked: writers add rows to history and change none, so that they wait for nothing here.

In each part the last row of each run that goes becomes a cut (see `cuts`); then all that a cut of the part stands for
is deleted. Where a run goes on in the next part, its cut grows; so it does in a later purge by the same user for the
same reasons. Whoever ends the process anywhere leaves history sound: what was committed is cut, and all else is as
before.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect, Engine

from chrononaut.change_info import checked
from chrononaut.cuts import PURGED
from chrononaut.erasing import unkept
from chrononaut.history import ERASED, STATELESS, Key, RecordTable, Versioning, full_name, versioning_of
from chrononaut.policies import refuse_untold_hold
from chrononaut.purging_statements import (
    Stretch,
    deleting,
    emptying,
    history_tables,
    is_held,
    of_record,
    parts,
    runs_of,
)
from chrononaut.queries import history_key, replaced_by
from chrononaut.retention import Retention
from chrononaut.transactions import in_one, snapshot
from chrononaut.types import (
    JSONDocument,
    JSONObject,
    has_key,
    instant_text,
    is_distinct,
    last_midnight_before,
    now,
    utc,
    with_key_of,
    with_values,
)

BATCH = 2000
"""History rows that one transaction looks at."""

SMALLEST_BATCH = 3
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '1s'"
_BY_INDEX = (
    "SET LOCAL enable_seqscan = off"  # how many rows go of a part PostgreSQL can but guess, and guesses too many
)
_ALONE = sa.text("SELECT pg_advisory_xact_lock(hashtext('chrononaut purge'), hashtext(:table))")
_ATTEMPTS = 10
_PAUSE = 0.1  # seconds before the second attempt; more before each that follows


class Doomed(NamedTuple):
    """What goes of a record, in one part of its history.

    :ivar versions: how many
    :ivar first: the lowest number
    :ivar last: the highest number
    :ivar oldest: when the first to end has ended, in UTC
    :ivar newest: when the last to end has ended, in UTC
    """

    key: Key
    versions: int
    first: int
    last: int
    oldest: datetime
    newest: datetime


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a model's history that was purged, or looked at.

    :ivar rows: history rows in it; those of all parts add up to `total_rows`
    :ivar doomed: what went of it, or would go, in the order of keys; a record may be in parts that follow each other
    """

    rows: int
    doomed: Sequence[Doomed]


@dataclass(frozen=True, slots=True)
class Purge:
    """What is to go of a model's history, and why.

    ::

        for part in Purge(User, Retention(versions=10)).run(db.engine):
            ...

    :ivar model: a versioned model whose table has the versions, as the root of a hierarchy
    :ivar at: the instant from which ages count, and which cuts say; the present one by default
    :ivar user_id: who purges
    :ivar extra: why
    :ivar batch: history rows that one transaction looks at, and at the most changes; 3 and more
    :raises TypeError: the model is not versioned; the policy is none
    :raises ValueError: its records have their versions in another table; a batch is too small
    :raises OptionError: it cannot be told what is held
    :raises ChangeInfoError: the user or a reason is no text, or cannot be stored
    """

    model: type
    retention: Retention
    at: datetime = field(default_factory=now)
    user_id: str | None = None
    extra: dict[str, str] = field(default_factory=dict)
    batch: int = BATCH

    def __post_init__(self) -> None:
        if len(versioning_of(self.model).tables) > 1:
            raise ValueError(f"{self.model.__name__} is purged with the model that it inherits from")
        if not isinstance(self.retention, Retention):
            raise TypeError(f"what is kept is said by a Retention, not by {self.retention!r}")
        refuse_untold_hold(versioning_of(self.model), "held", self.retention)
        checked(self.extra if self.user_id is None else {**self.extra, "user_id": self.user_id})
        if self.batch < SMALLEST_BATCH:
            raise ValueError(f"batch must be at least {SMALLEST_BATCH}, not {self.batch}")

    def dry_run(self, engine: Engine) -> Iterator[Part]:
        """What would go, part by part. Nothing is changed, and nothing is locked."""
        for stretch in self._stretches(engine):
            with snapshot(engine) as connection:
                doomed = self._doomed(connection, stretch)
            yield Part(stretch.rows, doomed)

    def run(self, engine: Engine) -> Iterator[Part]:
        """Purge part by part; each is committed when it is told of.

        :raises sqlalchemy.exc.OperationalError: others hold rows locked
        """
        emptied = self._emptied(engine)
        for stretch in self._stretches(engine):
            with snapshot(engine) as connection:
                goes = bool(self._doomed(connection, stretch))
            yield Part(stretch.rows, self._commit(engine, stretch, emptied) if goes else [])

    def _stretches(self, engine: Engine) -> Iterator["Stretch"]:
        versioning = versioning_of(self.model)
        place = [*history_key(versioning), versioning.column("version")]
        rows = sa.select(*place, versioning.column("operation")).order_by(*place)
        after: tuple[Any, ...] | None = None
        while True:
            criteria = Stretch(after, None, self.batch).criteria(versioning)
            # No connection is kept while others change what it has read.
            with snapshot(engine) as connection:
                ends = connection.execute(rows.where(*criteria).offset(self.batch - 2).limit(2)).all()
                if len(ends) < 2:  # noqa: PLR2004  fewer than a batch are left
                    left = rows.where(*criteria).order_by(None).subquery()
                    count = connection.scalar(sa.select(sa.func.count()).select_from(left)) or 0
            if len(ends) < 2:  # noqa: PLR2004
                yield Stretch(after, None, count)
                return
            # A record's creation goes with the version after it: the two are in one part.
            is_creation = ends[1][-1] == "insert"
            until = tuple(ends[0 if is_creation else 1][:-1])
            yield Stretch(after, until, self.batch - is_creation)
            after = until

    def _doomed(self, connection: Connection, stretch: "Stretch") -> list[Doomed]:
        versioning = versioning_of(self.model)
        going = self._going(versioning, stretch, connection.dialect)
        version, changed = going.c.version, going.c.changed
        key = parts(versioning, going)
        figures = (
            sa.func.count(),
            sa.func.min(version),
            sa.func.max(version),
            sa.func.min(changed),
            sa.func.max(changed),
        )
        select = (
            sa.select(*key, *figures)
            .where(going.c.goes, going.c.operation.not_in(STATELESS))
            .group_by(*key)
            .order_by(*key)
        )
        return [Doomed(tuple(row[: len(key)]), *row[len(key) :]) for row in connection.execute(select)]

    def _emptied(self, engine: Engine) -> Mapping[RecordTable, Sequence[str]]:
        """The columns besides those of `_cutting` in which cuts keep nothing, by their history tables."""
        versioning = versioning_of(self.model)
        with snapshot(engine) as connection:
            there = [column for columns in unkept(connection, versioning).values() for column in columns]
        found: dict[RecordTable, list[str]] = {}
        for table in history_tables(versioning):
            name = full_name(table.history)
            found[table] = [one.name for one in there if one.nullable and full_name(one.table) == name]
            if table.history is not versioning.history_table:
                found[table] += [column.name for column in versioning.stateful(table)]
        return found

    def _commit(self, engine: Engine, stretch: "Stretch", emptied: Mapping[RecordTable, Sequence[str]]) -> list[Doomed]:
        failed = 0
        while True:
            try:
                with in_one(engine) as connection:
                    return self._cut(connection, stretch, emptied)
            except sa.exc.OperationalError as error:
                failed += 1
                if error.connection_invalidated or failed == _ATTEMPTS:
                    raise
                time.sleep(failed * _PAUSE)

    def _cut(
        self, connection: Connection, stretch: "Stretch", emptied: Mapping[RecordTable, Sequence[str]]
    ) -> list[Doomed]:
        """Purge a part; what is told of it is read from the state of the database that the statements see."""
        versioning, dialect = versioning_of(self.model), connection.dialect
        if dialect.name == "postgresql":
            connection.exec_driver_sql(_LOCK_TIMEOUT)
            connection.exec_driver_sql(_BY_INDEX)
            # One purge of a table at a time: another's cut would be written over by one that knows less of it.
            connection.execute(_ALONE, {"table": full_name(versioning.history_table)})
        doomed = self._doomed(connection, stretch)
        if not doomed:
            return doomed
        connection.execute(self._cutting(versioning, stretch, dialect))
        cuts = self._cuts(versioning, stretch)
        for table, columns in emptied.items():
            if columns:
                connection.execute(emptying(versioning, table, columns, cuts))
            connection.execute(deleting(versioning, table, cuts))
        return doomed

    def _cutting(self, versioning: Versioning, stretch: "Stretch", dialect: Dialect) -> sa.Update:
        """The statement that makes a cut of the last row of each run."""
        # With the row before: where it is a cut of the same purge, it is one with what goes behind it.
        rows = self._going(versioning, stretch, dialect, with_before=True)
        runs = runs_of(versioning, rows)
        document: JSONObject = {"first": None, "operation": None, "at": instant_text(self.at), "user_id": self.user_id}
        if self.extra:
            document["extra"] = dict(self.extra)
        template = sa.literal({"user_id": None, "remote_addr": None, PURGED: document}, JSONDocument)
        told: dict[tuple[str, ...], sa.ColumnElement[Any]] = {
            (PURGED, "first"): runs.c.first,
            (PURGED, "operation"): replaced_by(versioning),
        }
        info = with_values(template, told, dialect.name)
        # What was erased of a record was erased from all rows that there were: the first that says so tells most of it.
        before = versioning.history_table.alias("marked")
        marks = before.c[versioning.options.names.change_info]
        marked = sa.and_(
            *of_record(versioning, before, parts(versioning, runs)),
            before.c[versioning.options.names.version] == runs.c.marked,
        )
        table = versioning.history_table
        is_last = [part == other for part, other in zip(history_key(versioning), parts(versioning, runs), strict=True)]
        return (
            sa.update(table)
            .values(
                {
                    versioning.column("operation"): "purge",
                    versioning.column("change_info"): with_key_of(info, marks, ERASED, dialect.name),
                    **dict.fromkeys(versioning.stateful(versioning.tables[0]), sa.null()),
                }
            )
            .where(*is_last, versioning.column("version") == runs.c.last, marked)
        )

    def _cuts(self, versioning: Versioning, stretch: "Stretch") -> sa.Subquery:
        """The cuts of a part, those of earlier purges too: nothing is left of what any of them stands for."""
        version, operation, info = (versioning.column(own) for own in ("version", "operation", "change_info"))
        columns = (version.label("last"), operation.label("operation"), info.label("info"))
        rows = stretch.select(versioning, columns, with_before=True).subquery("written")
        first = rows.c.info[(PURGED, "first")].as_integer()
        select = sa.select(*parts(versioning, rows), first.label("first"), rows.c.last)
        return select.where(rows.c.operation == "purge").subquery("cuts")

    def _going(
        self, versioning: Versioning, stretch: "Stretch", dialect: Dialect, with_before: bool = False
    ) -> sa.Subquery:
        """History rows, and whether each goes: ``goes``. Cuts that the same one made for the same reasons do: they
        become one with what is beside.
        """
        version, changed, operation = (versioning.column(own) for own in ("version", "changed", "operation"))
        first = versioning.column("change_info")[(PURGED, "first")].as_integer()
        columns: dict[str, sa.ColumnElement[Any]] = {
            "version": version,
            "changed": changed,
            "operation": operation,
            "first": sa.case((operation == "purge", first), else_=version),
            "is_own_cut": sa.and_(operation == "purge", self._is_own(versioning, dialect)),
            "kind": sa.null() if versioning.kind is None else versioning.kind,
            "is_marked": has_key(versioning.column("change_info"), ERASED),
        }
        if self.retention.daily_after is not None:
            columns["valid_from"] = versioning.began(history_key(versioning), version)
        selected = [column.label(name) for name, column in columns.items()]
        rows = stretch.select(versioning, selected, with_before).cte("looked_at")
        records = self._records(versioning, rows)
        same = [one == other for one, other in zip(parts(versioning, rows), parts(versioning, records), strict=True)]
        is_kept = sa.or_(records.c.is_held, self._is_young(rows, dialect.name), *self._is_new(rows, records))
        judged = (
            sa.select(*rows.c, sa.and_(rows.c.operation.not_in(STATELESS), ~is_kept).label("is_doomed"))
            .join_from(rows, records, sa.and_(*same))
            .subquery("judged")
        )
        order: dict[str, Any] = {"partition_by": parts(versioning, judged), "order_by": judged.c.version}
        follows = sa.func.lead(judged.c.version).over(**order) == judged.c.version + 1
        next_goes = sa.func.lead(judged.c.is_doomed, type_=sa.Boolean).over(**order)
        goes = sa.case(
            (judged.c.operation == "purge", judged.c.is_own_cut),
            (judged.c.operation == "insert", sa.func.coalesce(sa.and_(follows, next_goes), sa.false())),
            else_=judged.c.is_doomed,
        )
        # The row of a creation does not say of which kind the record is; the one behind it does.
        kind = sa.func.coalesce(judged.c.kind, sa.func.lead(judged.c.kind).over(**order))
        columns = {column.key: column for column in judged.c} | {"kind": kind, "goes": goes}
        return sa.select(*(column.label(name) for name, column in columns.items())).subquery("going")

    def _is_own(self, versioning: Versioning, dialect: Dialect) -> sa.ColumnElement[bool]:
        """Was a cut made by the same one for the same reasons?"""
        info = versioning.column("change_info")
        user_id, extra = info[(PURGED, "user_id")].as_string(), info[(PURGED, "extra")]
        same = ~is_distinct(extra, self.extra, dialect) if self.extra else extra.as_string().is_(None)
        return sa.and_(user_id.is_not_distinct_from(sa.literal(self.user_id, sa.Text)), same)

    def _records(self, versioning: Versioning, rows: sa.FromClause) -> sa.CTE:
        """The records of some rows: whether each is held, and the lowest number of its newest versions."""
        records = sa.select(*parts(versioning, rows)).distinct().subquery("records")
        key = parts(versioning, records)
        columns: list[sa.ColumnElement[Any]] = [is_held(versioning, self.retention, key).label("is_held")]
        if self.retention.versions:
            other = versioning.history_table.alias()
            number = other.c[versioning.options.names.version]
            operation = other.c[versioning.options.names.operation]
            lowest = (
                sa.select(number)
                .where(*of_record(versioning, other, key), operation.not_in(STATELESS))
                .order_by(number.desc())
                .offset(self.retention.versions - 1)
                .limit(1)
                .scalar_subquery()
            )
            columns.append(lowest.label("lowest"))
        # Asked once for each record, and not for each row.
        return sa.select(*key, *columns).cte("of_records").prefix_with("MATERIALIZED")

    def _is_new(self, rows: sa.FromClause, records: sa.FromClause) -> Iterator[sa.ColumnElement[bool]]:
        if self.retention.versions:
            # Where there are fewer than are kept, none is the lowest.
            yield sa.or_(records.c.lowest.is_(None), rows.c.version >= records.c.lowest)

    def _is_young(self, rows: sa.FromClause, dialect: str) -> sa.ColumnElement[bool]:
        days, daily_after = self.retention.days, self.retention.daily_after
        if days is None and daily_after is None:
            return sa.false()
        rules: list[sa.ColumnElement[bool]] = []
        if days is not None:
            rules.append(rows.c.changed > self._ago(days))
        if daily_after is not None:
            midnight = last_midnight_before(rows.c.changed, dialect)
            was_valid = sa.or_(rows.c.valid_from.is_(None), midnight >= rows.c.valid_from)
            rules.append(sa.or_(rows.c.changed > self._ago(daily_after), was_valid))
        return sa.and_(*rules)

    def _ago(self, days: int) -> datetime:
        try:
            return utc(self.at) - timedelta(days=days)
        except OverflowError:
            return datetime.min.replace(tzinfo=utc(self.at).tzinfo)


def total_rows(connection: Connection, model: type) -> int:
    """How many history rows of a model are looked at."""
    select = sa.select(sa.func.count()).select_from(versioning_of(model).history_table)
    return connection.scalar(select) or 0

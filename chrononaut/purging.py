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
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.orm import aliased

from chrononaut.change_info import checked
from chrononaut.cuts import PURGED
from chrononaut.exceptions import OptionError
from chrononaut.history import ERASED, STATELESS, Key, RecordTable, Versioning, full_name, versioning_of
from chrononaut.options import RETENTION, check_held
from chrononaut.queries import history_key, replaced_by
from chrononaut.retention import Retention
from chrononaut.transactions import in_one, snapshot
from chrononaut.types import (
    JSONDocument,
    JSONObject,
    implementation,
    instant_text,
    is_distinct,
    last_midnight_before,
    now,
    utc,
    with_key_of,
    with_values,
)

SETTING = "CHRONONAUT_RETENTION"
"""The setting that goes before what models declare."""

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


def policies(versionings: Collection[Versioning], setting: Mapping[str, Retention]) -> dict[Versioning, Retention]:
    """The policies of models: what a setting says of each by its name, or else what the model itself declares. What is
    held by what the model declares stays so, unless the setting says what is.

    :param versionings: all models of the application
    :return: the roots of hierarchies that have one; the others' history is kept whole
    :raises OptionError: the setting names a model that has no history of its own, or it cannot be told what is held
    """
    roots = {one.name: one for one in versionings if len(one.tables) == 1 and not one.mapper.single}
    for name in setting:
        if name not in roots:
            below = next((one for one in versionings if one.name == name), None)
            raise OptionError(
                name,
                SETTING,
                f"no model of this name has a history table; there are {', '.join(sorted(roots))}"
                if below is None
                else f"it is purged with {below.root.name}, which it inherits from",
            )
    found = {}
    for name, one in roots.items():
        declared = one.options.retention
        retention = setting.get(name) or declared
        if retention is None:
            continue
        if retention.held is None and declared is not None:
            # Whoever sets a number means to let no held record go.
            retention = replace(retention, held=declared.held)
        _check_held(one, SETTING if name in setting else RETENTION, retention)
        found[one] = retention
    return found


def _check_held(versioning: Versioning, option: str, retention: Retention) -> None:
    """:raises OptionError: it cannot be told what is held"""
    check_held(versioning.name, option, retention, versioning.tracked)
    if not callable(retention.held):
        return
    for entity in (versioning.model, versioning.history):
        try:
            criterion = retention.held(entity)
        except Exception as error:
            raise OptionError(versioning.name, option, f"held cannot be told of {entity.__name__}: {error}") from error
        if not isinstance(criterion, sa.ClauseElement) and not hasattr(criterion, "__clause_element__"):
            raise OptionError(
                versioning.name,
                option,
                f"held must make a criterion of SQL of {entity.__name__}, as `lambda note: note.text == 'x'` does, "
                f"not {criterion!r}",
            )


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
    :raises ChangeInfoError: a reason cannot be stored
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
        _check_held(versioning_of(self.model), "held", self.retention)
        checked(self.extra)
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

    def _stretches(self, engine: Engine) -> Iterator["_Stretch"]:
        versioning = versioning_of(self.model)
        place = [*history_key(versioning), versioning.column("version")]
        rows = sa.select(*place, versioning.column("operation")).order_by(*place)
        after: tuple[Any, ...] | None = None
        while True:
            criteria = _Stretch(after, None, self.batch).criteria(versioning)
            # No connection is kept while others change what it has read.
            with snapshot(engine) as connection:
                ends = connection.execute(rows.where(*criteria).offset(self.batch - 2).limit(2)).all()
                if len(ends) < 2:  # noqa: PLR2004  fewer than a batch are left
                    left = rows.where(*criteria).order_by(None).subquery()
                    count = connection.scalar(sa.select(sa.func.count()).select_from(left)) or 0
            if len(ends) < 2:  # noqa: PLR2004
                yield _Stretch(after, None, count)
                return
            # A record's creation goes with the version after it: the two are in one part.
            is_creation = ends[1][-1] == "insert"
            until = tuple(ends[0 if is_creation else 1][:-1])
            yield _Stretch(after, until, self.batch - is_creation)
            after = until

    def _doomed(self, connection: Connection, stretch: "_Stretch") -> list[Doomed]:
        versioning = versioning_of(self.model)
        going = self._going(versioning, stretch, connection.dialect)
        version, changed = going.c.version, going.c.changed
        key = _parts(versioning, going)
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
            found = {table: _undeclared(connection, table) for table in _history_tables(versioning)}
        for table, names in found.items():
            if table.history is not versioning.history_table:
                names += [column.name for column in versioning.stateful(table)]
        return found

    def _commit(
        self, engine: Engine, stretch: "_Stretch", emptied: Mapping[RecordTable, Sequence[str]]
    ) -> list[Doomed]:
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
        self, connection: Connection, stretch: "_Stretch", emptied: Mapping[RecordTable, Sequence[str]]
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
                connection.execute(_emptying(versioning, table, columns, cuts))
            connection.execute(_deleting(versioning, table, cuts))
        return doomed

    def _cutting(self, versioning: Versioning, stretch: "_Stretch", dialect: Dialect) -> sa.Update:
        """The statement that makes a cut of the last row of each run."""
        # With the row before: where it is a cut of the same purge, it is one with what goes behind it.
        rows = self._going(versioning, stretch, dialect, with_before=True)
        runs = _runs(versioning, rows)
        document: JSONObject = {"first": None, "operation": None, "at": instant_text(self.at), "user_id": self.user_id}
        if self.extra:
            document["extra"] = dict(self.extra)
        template = sa.literal({"user_id": None, "remote_addr": None, PURGED: document}, JSONDocument)
        told: dict[tuple[str, ...], sa.ColumnElement[Any]] = {
            (PURGED, "first"): runs.c.first,
            (PURGED, "operation"): replaced_by(versioning),
        }
        info = with_values(template, told, dialect.name)
        # What was erased of a record was erased from all its rows: the oldest row of the run tells most of it.
        before = versioning.history_table.alias("oldest")
        marks = before.c[versioning.options.names.change_info]
        oldest = sa.and_(
            *_of_record(versioning, before, _parts(versioning, runs)),
            before.c[versioning.options.names.version] == runs.c.oldest,
        )
        table = versioning.history_table
        is_last = [part == other for part, other in zip(history_key(versioning), _parts(versioning, runs), strict=True)]
        return (
            sa.update(table)
            .values(
                {
                    versioning.column("operation"): "purge",
                    versioning.column("change_info"): with_key_of(info, marks, ERASED, dialect.name),
                    **dict.fromkeys(versioning.stateful(versioning.tables[0]), sa.null()),
                }
            )
            .where(*is_last, versioning.column("version") == runs.c.last, oldest)
        )

    def _cuts(self, versioning: Versioning, stretch: "_Stretch") -> sa.Subquery:
        """The cuts of a part, those of earlier purges too: nothing is left of what any of them stands for."""
        version, operation, info = (versioning.column(own) for own in ("version", "operation", "change_info"))
        columns = (version.label("last"), operation.label("operation"), info.label("info"))
        rows = stretch.select(versioning, columns, with_before=True).subquery("written")
        first = rows.c.info[(PURGED, "first")].as_integer()
        select = sa.select(*_parts(versioning, rows), first.label("first"), rows.c.last)
        return select.where(rows.c.operation == "purge").subquery("cuts")

    def _going(
        self, versioning: Versioning, stretch: "_Stretch", dialect: Dialect, with_before: bool = False
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
        }
        if self.retention.daily_after is not None:
            columns["valid_from"] = versioning.began(history_key(versioning), version)
        selected = [column.label(name) for name, column in columns.items()]
        rows = stretch.select(versioning, selected, with_before).cte("looked_at")
        records = self._records(versioning, rows)
        same = [one == other for one, other in zip(_parts(versioning, rows), _parts(versioning, records), strict=True)]
        is_kept = sa.or_(records.c.is_held, self._is_young(rows, dialect.name), *self._is_new(rows, records))
        judged = (
            sa.select(*rows.c, sa.and_(rows.c.operation.not_in(STATELESS), ~is_kept).label("is_doomed"))
            .join_from(rows, records, sa.and_(*same))
            .subquery("judged")
        )
        order: dict[str, Any] = {"partition_by": _parts(versioning, judged), "order_by": judged.c.version}
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
        records = sa.select(*_parts(versioning, rows)).distinct().subquery("records")
        key = _parts(versioning, records)
        columns: list[sa.ColumnElement[Any]] = [_is_held(versioning, self.retention, key).label("is_held")]
        if self.retention.versions:
            other = versioning.history_table.alias()
            number = other.c[versioning.options.names.version]
            operation = other.c[versioning.options.names.operation]
            lowest = (
                sa.select(number)
                .where(*_of_record(versioning, other, key), operation.not_in(STATELESS))
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


@dataclass(frozen=True, slots=True)
class _Stretch:
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
            sa.select(*_labelled(key), *columns)
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


def _history_tables(versioning: Versioning) -> list[RecordTable]:
    """All that rows of a hierarchy are in, the first one last."""
    tables = {one.history: one for model in versioning.hierarchy for one in reversed(model.tables)}
    return sorted(tables.values(), key=lambda one: one.history is versioning.history_table)


def _values(columns: Sequence[sa.Column[Any]], values: Sequence[Any]) -> sa.Tuple:
    return sa.tuple_(*(sa.literal(value, column.type) for value, column in zip(values, columns, strict=True)))


def _labelled(key: Sequence[sa.ColumnElement[Any]]) -> list[sa.Label[Any]]:
    """The parts of a key under names that no other column has."""
    return [part.label(f"key_{place}") for place, part in enumerate(key)]


def _parts(versioning: Versioning, rows: sa.FromClause) -> list[sa.ColumnElement[Any]]:
    return [rows.c[f"key_{place}"] for place in range(len(versioning.key))]


def _of_record(
    versioning: Versioning, table: sa.FromClause, key: Sequence[sa.ColumnElement[Any]]
) -> list[sa.ColumnElement[bool]]:
    """Is a row of the first history table, or of an alias of it, one of a record?"""
    return [table.c[column.key] == part for column, part in zip(versioning.key_columns, key, strict=True)]


def _is_held(
    versioning: Versioning, retention: Retention, key: Sequence[sa.ColumnElement[Any]]
) -> sa.ColumnElement[bool]:
    if retention.held is None:
        return sa.false()
    live, last = aliased(versioning.model, flat=True), aliased(versioning.history, flat=True)
    names, other = versioning.options.names, versioning.history_table.alias()
    highest = (
        sa.select(sa.func.max(other.c[names.version]))
        .where(*_of_record(versioning, other, key))
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


def _runs(versioning: Versioning, rows: sa.Subquery) -> sa.Subquery:
    """Runs of rows that go together: the key, the number that each begins with, and that of its last row."""
    key = _parts(versioning, rows)
    order: dict[str, Any] = {"partition_by": key, "order_by": rows.c.version}
    follows = sa.and_(
        sa.func.lag(rows.c.goes, type_=sa.Boolean).over(**order),
        sa.func.lag(rows.c.version, type_=sa.Integer).over(**order) == rows.c.first - 1,
        # A cut says of one kind what the record was.
        sa.func.lag(rows.c.kind).over(**order).is_not_distinct_from(rows.c.kind),
    )
    begins = sa.case((follows, 0), else_=1)
    going = sa.select(*rows.c, begins.label("begins")).subquery("marked")
    key = _parts(versioning, going)
    run = sa.func.sum(going.c.begins).over(partition_by=key, order_by=going.c.version)
    numbered = sa.select(*going.c, run.label("run")).where(going.c.goes).subquery("numbered")
    key = _parts(versioning, numbered)
    return (
        sa.select(
            *key,
            sa.func.min(numbered.c.first).label("first"),
            sa.func.min(numbered.c.version).label("oldest"),
            sa.func.max(numbered.c.version).label("last"),
        )
        .group_by(*key, numbered.c.run)
        # A cut alone stays as it is.
        .having(sa.or_(sa.func.count() > 1, sa.func.max(numbered.c.operation) != "purge"))
        .subquery("runs")
    )


def _of_cuts(versioning: Versioning, table: RecordTable, cuts: sa.Subquery) -> list[sa.ColumnElement[bool]]:
    """Is a row of one of the history tables one of a record that has cuts?"""
    return [
        table.history.c[column.key] == part for column, part in zip(table.key, _parts(versioning, cuts), strict=True)
    ]


def _emptying(versioning: Versioning, table: RecordTable, columns: Iterable[str], cuts: sa.Subquery) -> sa.Update:
    """The statement that leaves cuts no value in some columns of one of the history tables."""
    own = [*(table.history.c[column.key] for column in table.key), table.history.c[versioning.options.names.version]]
    # Not the table itself, which may not know the columns.
    named = [*(sa.column(column.name, column.type) for column in own), *map(sa.column, columns)]
    rows = sa.table(table.history.name, *named, schema=table.history.schema)
    place = [*_parts(versioning, cuts), cuts.c.last]
    same = (rows.c[column.name] == part for column, part in zip(own, place, strict=True))
    return sa.update(rows).values(dict.fromkeys(columns, sa.null())).where(*same)


def _undeclared(connection: Connection, table: RecordTable) -> list[str]:
    """The names of a history table's columns that no model has, as those of what is hidden since; that may be NULL."""
    known = {column.name for column in table.history.c}
    found = sa.inspect(connection).get_columns(table.history.name, table.history.schema)
    return [one["name"] for one in found if one["name"] not in known and one["nullable"] and "computed" not in one]


def _deleting(versioning: Versioning, table: RecordTable, cuts: sa.Subquery) -> sa.Delete:
    """The statement that deletes the rows that cuts stand for."""
    # By keys that are looked up: for a range of each cut PostgreSQL would read the table whole.
    gone = table.history.alias("gone")
    key = [column.key for column in table.key]
    place = [*key, versioning.options.names.version]
    version = gone.c[versioning.options.names.version]
    stands_for = (
        *(gone.c[name] == part for name, part in zip(key, _parts(versioning, cuts), strict=True)),
        version >= cuts.c.first,
        version < cuts.c.last,
    )
    rows = sa.select(*(gone.c[name] for name in place)).where(*stands_for)
    return sa.delete(table.history).where(sa.tuple_(*(table.history.c[name] for name in place)).in_(rows))

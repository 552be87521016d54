"""The statements that write history: set-based, from table to table, so that no pre-image travels through Python.

PostgreSQL does all of it in one statement: it locks the rows in key order, reads the clock, writes the history rows and
says how many and when. Other databases (SQLite) run one prepared INSERT … SELECT once per row in one ``executemany``;
their write lock is the whole transaction's, and their clock this process's.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Literal, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection

from chrononaut.change_info import with_extra
from chrononaut.exceptions import ConcurrentChangeError
from chrononaut.history import NEVER, Key, RecordTable, Versioning
from chrononaut.locking import locking, numbering
from chrononaut.types import Instant, JSONDocument, JSONObject, is_among, now, with_names

BATCH = 1000
"""History rows that one statement writes at the most."""

OWN = "chrononaut_"
"""How the names begin that we put into a statement besides those of columns."""

ARCHIVING = "chrononaut_archiving"
"""The execution option that our own statements carry."""

_T = TypeVar("_T")
OPTIONS = {ARCHIVING: True}
_INSTANT = bindparam("instant", type_=Instant)
_TRANSACTION = bindparam("transaction_id", type_=sa.Uuid())
CLOCK = sa.func.clock_timestamp(type_=Instant)


@dataclass(frozen=True, slots=True)
class Ending:
    """A state that is about to be replaced: its record, its version where it is known, and why."""

    key: Key
    version: int | None
    change_info: JSONObject


@dataclass(frozen=True, slots=True)
class Beginning:
    """A record that was inserted, and why."""

    key: Key
    change_info: JSONObject


@dataclass(slots=True)
class Transaction:
    """What all changes of one database transaction share. The instant is known from the first capture on."""

    id: UUID
    instant: datetime | None = None


def archive_states(
    connection: Connection,
    versioning: Versioning,
    operation: Literal["update", "delete"],
    endings: Sequence[Ending],
    transaction: Transaction,
) -> None:
    """Write the current states of records into history, before something replaces them.

    A ``delete`` row names the hidden attributes that had a value.

    :raises ConcurrentChangeError: a record is not at the version given; nothing may be written then
    """
    for batch in _batches(endings):
        if is_postgresql(connection):
            parameters = _arrays(versioning, batch) | {"versions": [ending.version for ending in batch]}
            statement = _archive_by_set(versioning, operation)
            with locking(versioning, [ending.key for ending in batch]):
                row = _execute(connection, statement, parameters, transaction).one()
            archived, transaction.instant = row.archived, row.instant
        else:
            rows = [
                key_parameters(versioning, ending.key)
                | {"known_version": ending.version, "change_info": ending.change_info}
                for ending in batch
            ]
            for archiving in _archive_by_row(versioning, operation):
                archived = _execute_many(connection, versioning, archiving, batch, rows, transaction)
        if archived != len(batch):
            raise changed_meanwhile(connection, versioning, batch, transaction)


def archive_inserts(
    connection: Connection, versioning: Versioning, beginnings: Sequence[Beginning], transaction: Transaction
) -> dict[Key, int]:
    """Write the ``insert`` rows of records that were just inserted.

    :return: the live version of each record whose key was used before: its numbering goes on. The live row is updated.
    :raises ConcurrentChangeError: another transaction deleted a record of such a key since this one began to see the
        database; nothing may be written then
    """
    reused: dict[Key, int] = {}
    for batch in _batches(beginnings):
        if is_postgresql(connection):
            statement = _insert_by_set(versioning)
            keys = [beginning.key for beginning in batch]
            with numbering(versioning, keys):
                inserted = _execute(connection, statement, _arrays(versioning, batch), transaction).all()
            if inserted[0].twice:
                _next_versions(connection, versioning, keys)  # which raises, with the keys that are
            for row in inserted:
                transaction.instant, _, version, *key = tuple(row)
                if version is not None:
                    reused[tuple(key)] = version + 1
        else:
            rows = [
                key_parameters(versioning, beginning.key) | {"change_info": beginning.change_info}
                for beginning in batch
            ]
            for insert in _insert_by_row(versioning):
                _execute_many(connection, versioning, insert, batch, rows, transaction)
            following = _next_versions(connection, versioning, [beginning.key for beginning in batch])
            reused |= {key: version for key, version in following.items() if version > NEVER + 1}
    _renumber(connection, versioning, reused)
    return reused


def continue_numbering(connection: Connection, versioning: Versioning, keys: Sequence[Key]) -> dict[Key, int]:
    """Give records that were inserted without an ``insert`` row the version that follows their key's history.

    :return: the live version of each record whose key was used before. The live row is updated.
    :raises ConcurrentChangeError: as `archive_inserts`
    """
    reused: dict[Key, int] = {}
    for batch in _batches(keys):
        reused |= _next_versions(connection, versioning, batch)
    _renumber(connection, versioning, reused)
    return reused


def hidden_values(connection: Connection, versioning: Versioning, keys: Sequence[Key]) -> dict[Key, list[str]]:
    """The hidden attributes that live records have a value of, in mapping order."""
    found: dict[Key, list[str]] = {}
    for batch in _batches(keys) if versioning.hidden else ():
        statement = (
            sa.select(*versioning.key_columns, *(column.is_not(None) for column in versioning.hidden.values()))
            .select_from(versioning.rows)
            .where(is_among(versioning.key_columns, batch, connection.dialect.name))
        )
        for row in connection.execute(statement, execution_options=OPTIONS):
            key, given = row[: len(versioning.key)], row[len(versioning.key) :]
            found[tuple(key)] = [name for name, has in zip(versioning.hidden, given, strict=True) if has]
    return found


def archived_versions(
    connection: Connection, versioning: Versioning, keys: Sequence[Key], transaction: Transaction
) -> set[tuple[Key, int]]:
    """The states of records that a transaction itself has replaced, by key and version."""
    columns = [versioning.history_table.c[column.key] for column in versioning.key_columns]
    found = set()
    for batch in _batches(keys):
        statement = sa.select(versioning.column("version"), *columns).where(
            is_among(columns, batch, connection.dialect.name), versioning.column("transaction_id") == transaction.id
        )
        for version, *key in connection.execute(statement, execution_options=OPTIONS):
            found.add((tuple(key), version))
    return found


def add_extra(
    connection: Connection, versioning: Versioning, extras: Mapping[tuple[Key, int], Mapping[str, str]]
) -> None:
    """Add extra to the change info of history rows, by key and version, that the transaction itself has written."""
    history, version, info = versioning.history_table, versioning.column("version"), versioning.column("change_info")
    columns = [history.c[column.key] for column in versioning.key_columns]
    adding = (
        sa.update(history)
        .where(version == bindparam(f"{OWN}version", type_=version.type))
        .where(*(history.c[column.key] == bind for column, bind in key_binds(versioning)))
        .values({info: bindparam(f"{OWN}info", type_=info.type)})
    )
    for batch in _batches([*extras]):
        states = [(*key, number) for key, number in batch]
        found = sa.select(info, version, *columns).where(is_among([*columns, version], states, connection.dialect.name))
        rows = [
            {
                **key_parameters(versioning, tuple(key)),
                f"{OWN}version": number,
                f"{OWN}info": with_extra(document, extras[tuple(key), number]),
            }
            for document, number, *key in connection.execute(found, execution_options=OPTIONS)
        ]
        connection.execute(adding, rows, execution_options=OPTIONS)


def changed_meanwhile(
    connection: Connection, versioning: Versioning, endings: Sequence[Ending], transaction: Transaction | None
) -> ConcurrentChangeError:
    """The error that names the records which are not at the version that they were taken to be at.

    :param transaction: ``None`` if it has captured nothing yet
    """
    keys = [ending.key for ending in endings]
    live = sa.select(*versioning.key_columns, versioning.version).where(
        is_among(versioning.key_columns, keys, connection.dialect.name)
    )
    found = {tuple(key): version for *key, version in connection.execute(live, execution_options=OPTIONS)}
    changed = [
        ending for ending in endings if ending.key not in found or ending.version not in (None, found[ending.key])
    ]
    keys = [ending.key for ending in changed]
    own = set() if transaction is None else archived_versions(connection, versioning, keys, transaction)
    # What is gone, and was changed by this transaction, was locked by it.
    gone = {key for key, _ in own} - found.keys()
    by_others = [ending.key for ending in changed if (ending.key, ending.version) not in own and ending.key not in gone]
    return ConcurrentChangeError(versioning.name, by_others or keys, own=bool(changed) and not by_others)


def fix_instant(connection: Connection, transaction: Transaction) -> datetime:
    """The instant of a transaction: now, if it had none before, by the clock of the database where it has one."""
    if transaction.instant is None:
        clock = sa.select(CLOCK)
        transaction.instant = (
            connection.execute(clock, execution_options=OPTIONS).scalar_one() if is_postgresql(connection) else now()
        )
    return transaction.instant


def _batches(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def is_postgresql(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _execute(
    connection: Connection, statement: sa.Executable, parameters: dict[str, Any], transaction: Transaction
) -> sa.CursorResult[Any]:
    parameters |= {"transaction_id": transaction.id, "instant": transaction.instant}
    return connection.execute(statement, parameters, execution_options=OPTIONS)


def _execute_many(
    connection: Connection,
    versioning: Versioning,
    statement: sa.Executable,
    changed: Sequence[Ending] | Sequence[Beginning],
    rows: list[dict[str, Any]],
    transaction: Transaction,
) -> int:
    keys = [one.key for one in changed]
    shared = {"transaction_id": transaction.id, "instant": fix_instant(connection, transaction), "now": now()}
    with locking(versioning, keys):
        return connection.execute(statement, [row | shared for row in rows], execution_options=OPTIONS).rowcount


def _key(name: str) -> str:
    return f"{OWN}key_{name}"


def key_parameters(versioning: Versioning, key: Key) -> dict[str, Any]:
    return {_key(name): part for name, part in zip(versioning.key, key, strict=True)}


def _arrays(versioning: Versioning, batch: Sequence[Ending] | Sequence[Beginning]) -> dict[str, Any]:
    keys = zip(*(changed.key for changed in batch), strict=True)
    return {
        **{_key(name): list(parts) for name, parts in zip(versioning.key, keys, strict=True)},
        "change_infos": [changed.change_info for changed in batch],
    }


def key_binds(versioning: Versioning) -> Iterator[tuple[sa.Column[Any], sa.BindParameter[Any]]]:
    for name, column in zip(versioning.key, versioning.key_columns, strict=True):
        yield column, bindparam(_key(name), type_=column.type)


def never_backwards(
    before: sa.ColumnElement[datetime],
    instant: sa.ColumnElement[datetime],
    clock: sa.ColumnElement[datetime],
    first: sa.ColumnElement[bool] | None = None,
) -> sa.ColumnElement[datetime]:
    """The transaction's instant, but where the version before was replaced later than that: the clock read anew.

    :param before: when the version before was replaced; NULL if there is none
    :param first: is there none? By default where ``before`` is NULL.
    """
    later = sa.case((before > clock, before), else_=clock)
    return sa.case((before <= instant, instant), (before.is_(None) if first is None else first, instant), else_=later)


def insert_into(values: Mapping[sa.Column[Any], Any], source: sa.Select[Any]) -> sa.Insert:
    """An INSERT … SELECT: column → what is inserted.

    :param source: what it is selected from
    """
    (table,) = {column.table for column in values}
    select = source.with_only_columns(*values.values(), maintain_column_froms=True)
    return sa.insert(table).from_select(list(values), select, include_defaults=False)


def naming_hidden(
    document: sa.ColumnElement[Any],
    hidden: Mapping[str, sa.Column[Any]],
    row: Mapping[sa.Column[Any], sa.ColumnElement[Any]],
    dialect: str,
) -> sa.ColumnElement[Any]:
    """A change info document that names the hidden attributes which a row has a value of."""
    given = {name: row[column].is_not(None) for name, column in hidden.items()}
    return with_names(document, "hidden_cols_changed", given, dialect)


def _state(one: RecordTable, row: Mapping[sa.Column[Any], Any]) -> dict[sa.Column[Any], Any]:
    """History column → what is archived in it: the key and the state.

    :param row: column of the live table → the same in the row that is archived
    """
    return {one.history.c[column.key]: row[column] for column in (*one.key, *one.state)}


def _archived_columns(versioning: Versioning) -> list[sa.Column[Any]]:
    return [column for one in versioning.tables for column in (*one.key, *one.state)]


# On PostgreSQL: the records as arrays, unnested.


def _unnested(versioning: Versioning, *further: tuple[str, str, Any]) -> sa.TableValuedAlias:
    binds: list[sa.ColumnElement[Any]] = []
    columns: list[sa.ColumnClause[Any]] = []
    for name, column in zip(versioning.key, versioning.key_columns, strict=True):
        binds.append(bindparam(_key(name), type_=postgresql.ARRAY(column.type)))
        columns.append(sa.column(_key(name), column.type))
    for parameter, name, type_ in (*further, ("change_infos", f"{OWN}info", JSONDocument)):
        binds.append(bindparam(parameter, type_=postgresql.ARRAY(type_)))
        columns.append(sa.column(name, type_))
    return sa.func.unnest(*binds).table_valued(*columns, name="given").render_derived()


def _is_given(given: sa.TableValuedAlias, versioning: Versioning, rows: sa.FromClause) -> list[sa.ColumnElement[bool]]:
    return [
        rows.c[column.key] == given.c[_key(name)]
        for name, column in zip(versioning.key, versioning.key_columns, strict=True)
    ]


@cache
def _archive_by_set(versioning: Versioning, operation: Literal["update", "delete"]) -> sa.Select[Any]:
    version = versioning.version
    given = _unnested(versioning, ("versions", "known_version", sa.Integer()))
    lost = versioning.hidden if operation == "delete" else {}
    columns = [*_archived_columns(versioning), *lost.values(), version]
    # Two tables may have columns of one name.
    labels = {column: f"column_{number}" for number, column in enumerate(columns)}
    locked = (
        sa.select(*(column.label(label) for column, label in labels.items()), given.c[f"{OWN}info"])
        .join_from(
            versioning.rows,
            given,
            sa.and_(
                *_is_given(given, versioning, versioning.table),
                version == sa.func.coalesce(given.c.known_version, version),
            ),
        )
        .order_by(*versioning.key_columns)
        # An update leaves the key alone, so that rows which refer to it need not wait.
        .with_for_update(of=[one.live for one in versioning.tables], key_share=operation == "update")
        .cte("locked")
        .prefix_with("MATERIALIZED")
    )
    row = {column: locked.c[label] for column, label in labels.items()}
    # An aggregate over the locked rows: the clock is read when the last lock is held.
    moment = (
        sa.select(sa.func.count().label("archived"), sa.func.coalesce(_INSTANT, CLOCK).label("instant"))
        .select_from(locked)
        .cte("moment")
        .prefix_with("MATERIALIZED")
    )
    before = versioning.began([row[column] for column in versioning.key_columns], row[version])
    first, *others = versioning.tables
    archived = insert_into(
        _state(first, row)
        | {
            versioning.column("version"): row[version],
            versioning.column("operation"): sa.literal(operation),
            versioning.column("changed"): never_backwards(before, moment.c.instant, CLOCK),
            versioning.column("change_info"): naming_hidden(locked.c[f"{OWN}info"], lost, row, "postgresql"),
            versioning.column("transaction_id"): _TRANSACTION,
        },
        sa.select().select_from(locked.join(moment, sa.true())),
    ).cte("archived")
    further = [
        insert_into(
            _state(one, row) | {one.history.c[versioning.options.names.version]: row[version]},
            sa.select().select_from(locked),
        ).cte(f"archived_{number}")
        for number, one in enumerate(others)
    ]
    return sa.select(moment.c.archived, moment.c.instant).add_cte(archived, *further)


@cache
def _insert_by_set(versioning: Versioning) -> sa.Select[Any]:
    given = _unnested(versioning)
    history = versioning.history_table
    names = versioning.options.names
    moment = (
        sa.select(sa.func.coalesce(_INSTANT, CLOCK).label("instant")).cte(f"{OWN}moment").prefix_with("MATERIALIZED")
    )
    before = history.alias("before")
    last = (
        sa.select(before.c[names.version].label("version"), before.c[names.changed].label("changed"))
        .where(*_is_given(given, versioning, before))
        .order_by(before.c[names.version].desc())
        .limit(1)
        .lateral("last")
    )
    key_columns = [history.c[column.key] for column in versioning.key_columns]
    archived = (
        insert_into(
            {
                **{column: given.c[_key(name)] for name, column in zip(versioning.key, key_columns, strict=True)},
                versioning.column("version"): sa.func.coalesce(last.c.version, NEVER - 1) + 1,
                versioning.column("operation"): sa.literal("insert"),
                versioning.column("changed"): never_backwards(last.c.changed, moment.c.instant, CLOCK),
                versioning.column("change_info"): given.c[f"{OWN}info"],
                versioning.column("transaction_id"): _TRANSACTION,
            },
            sa.select().select_from(given.join(moment, sa.true()).outerjoin(last, sa.true())),
        )
        .returning(versioning.column("version"), *key_columns)
        .cte(f"{OWN}archived")
    )
    further = [
        insert_into(
            {
                one.history.c[names.version]: archived.c[names.version],
                **{
                    one.history.c[own.key]: archived.c[column.key]
                    for own, column in zip(one.key, key_columns, strict=True)
                },
            },
            sa.select().select_from(archived),
        ).cte(f"{OWN}archived_{number}")
        for number, one in enumerate(versioning.tables[1:])
    ]
    # Above READ COMMITTED a transaction may insert a key that another one has deleted meanwhile, and sees neither that
    # nor the history of it: it would number as if the key were new. But it still sees the row that was deleted, beside
    # its own. Where it does not, because the other one has inserted that as well, their ``insert`` rows get one number.
    # Counted for each key by itself: a join would take the database at its word that a key is unique.
    found = (
        sa.select(sa.func.count())
        .select_from(versioning.table)
        .where(*_is_given(given, versioning, versioning.table))
        .correlate(given)
        .scalar_subquery()
    )
    twice = sa.select(sa.func.bool_or(found > 1)).select_from(given).scalar_subquery()
    isolation = sa.func.current_setting("transaction_isolation", type_=sa.String)
    return (
        sa.select(
            moment.c.instant,
            sa.case((isolation.in_(["repeatable read", "serializable"]), twice), else_=sa.false()).label("twice"),
            archived.c[names.version],
            *(archived.c[column.key] for column in key_columns),
        )
        .select_from(moment.outerjoin(archived, archived.c[names.version] > NEVER))
        .add_cte(*further)
    )


# Elsewhere: one record per execution.


@cache
def _archive_by_row(versioning: Versioning, operation: Literal["update", "delete"]) -> Sequence[sa.Insert]:
    """One INSERT … SELECT for each of the tables that records are in, the one with our own columns last."""
    version = versioning.version
    before = versioning.began(versioning.key_columns, version)
    known = bindparam("known_version", type_=sa.Integer)
    source = (
        sa.select()
        .select_from(versioning.rows)
        .where(
            *(column == bind for column, bind in key_binds(versioning)),
            version == sa.func.coalesce(known, version),
        )
    )
    lost = versioning.hidden if operation == "delete" else {}
    row = {column: column for column in (*_archived_columns(versioning), *lost.values())}
    first, *others = versioning.tables
    own = {
        versioning.column("operation"): sa.literal(operation),
        versioning.column("changed"): never_backwards(before, _INSTANT, bindparam("now", type_=Instant)),
        versioning.column("change_info"): naming_hidden(
            bindparam("change_info", type_=JSONDocument), lost, row, "sqlite"
        ),
        versioning.column("transaction_id"): _TRANSACTION,
    }
    return [
        insert_into(
            _state(one, row)
            | {one.history.c[versioning.options.names.version]: version}
            | (own if one is first else {}),
            source,
        )
        for one in (*others, first)
    ]


@cache
def _insert_by_row(versioning: Versioning) -> Sequence[sa.Insert]:
    """One INSERT for each of the tables that records are in, the one with our own columns first."""
    history = versioning.history_table
    names = versioning.options.names
    before = history.alias("before")
    last_changed: sa.ColumnElement[datetime] = sa.func.max(before.c[names.changed], type_=Instant)
    own = {
        **{history.c[column.key]: bind for column, bind in key_binds(versioning)},
        versioning.column("version"): sa.func.coalesce(sa.func.max(before.c[names.version]), NEVER - 1) + 1,
        versioning.column("operation"): sa.literal("insert"),
        versioning.column("changed"): never_backwards(last_changed, _INSTANT, bindparam("now", type_=Instant)),
        versioning.column("change_info"): bindparam("change_info", type_=JSONDocument),
        versioning.column("transaction_id"): _TRANSACTION,
    }
    source = (
        sa.select().select_from(before).where(*(before.c[column.key] == bind for column, bind in key_binds(versioning)))
    )
    further = [
        {
            one.history.c[names.version]: sa.func.max(before.c[names.version]),
            **{
                one.history.c[column.key]: bind
                for column, (_, bind) in zip(one.key, key_binds(versioning), strict=True)
            },
        }
        for one in versioning.tables[1:]
    ]
    return [insert_into(values, source) for values in (own, *further)]


def _next_versions(connection: Connection, versioning: Versioning, keys: Sequence[Key]) -> dict[Key, int]:
    """The version that follows the last row of each live record that has history.

    :raises ConcurrentChangeError: two rows of one key are seen
    """
    history = versioning.history_table
    last = (
        sa.select(sa.func.max(versioning.column("version")))
        .where(*(history.c[column.key] == column for column in versioning.key_columns))
        .correlate(versioning.table)
        .scalar_subquery()
    )
    key_columns = versioning.key_columns
    statement = sa.select(last, *key_columns).where(is_among(key_columns, keys, connection.dialect.name))
    rows = connection.execute(statement, execution_options=OPTIONS).all()
    found = Counter(tuple(key) for _, *key in rows)
    if twice := [key for key, count in found.items() if count > 1]:
        raise ConcurrentChangeError(versioning.name, twice)
    return {tuple(key): version + 1 for version, *key in rows if version is not None}


def _renumber(connection: Connection, versioning: Versioning, versions: Mapping[Key, int]) -> None:
    if versions:
        rows = [key_parameters(versioning, key) | {f"{OWN}live_version": version} for key, version in versions.items()]
        connection.execute(_renumbering(versioning), rows, execution_options=OPTIONS)


@cache
def _renumbering(versioning: Versioning) -> sa.Update:
    # What every UPDATE would stamp stays as it was inserted.
    stamped = {column: column for column in versioning.table.c if column.onupdate is not None}
    return (
        sa.update(versioning.table)
        .where(*(column == bind for column, bind in key_binds(versioning)))
        .values({**stamped, versioning.version: bindparam(f"{OWN}live_version", type_=sa.Integer)})
    )

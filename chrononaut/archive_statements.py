"""The statements that write history, made once for each model: set-based, from table to table.

Each is made for records that are given in one of the ways of `records`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import bindparam

from chrononaut.history import NEVER, RecordTable, Versioning
from chrononaut.records import OWN, Given, key_binds
from chrononaut.types import Instant, with_names

CLOCK = sa.func.clock_timestamp(type_=Instant)
_INSTANT = bindparam("instant", type_=Instant)
_NOW = bindparam("now", type_=Instant)
_TRANSACTION = bindparam("transaction_id", type_=sa.Uuid())


def never_backwards(
    before: sa.ColumnElement[datetime],
    instant: sa.ColumnElement[datetime],
    clock: sa.ColumnElement[datetime],
    first: sa.ColumnElement[bool] | None = None,
) -> sa.ColumnElement[datetime]:
    """The transaction's instant, but where the version before was replaced later than that: the clock read anew.

    :param before: when the version before was replaced; NULL if there is none
    :param first: is there none, where ``before`` is NULL? By default, yes.
    """
    # Looked up once for a row: what else names it is computed for few.
    in_time = sa.func.coalesce(before <= instant, sa.true() if first is None else first)
    return sa.case((in_time, instant), else_=sa.case((before > clock, before), else_=clock))


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


@cache
def archiving_on_postgresql(
    versioning: Versioning, operation: Literal["update", "delete"], given: Given
) -> sa.Select[Any]:
    """Write the current states of records into history, and return how many it found, and when.

    All of it is one statement: it locks the rows in key order, reads the clock and writes the history rows. What it
    looks up in history it has looked up before: by a plan that was made when history was empty, it would read the more
    the more it has written.
    """
    version = versioning.version
    lost = versioning.hidden if operation == "delete" else {}
    columns = [*_archived_columns(versioning), *lost.values(), version]
    # Two tables may have columns of one name.
    labels = {column: f"column_{number}" for number, column in enumerate(columns)}
    locked = (
        sa.select(
            *(column.label(label) for column, label in labels.items()),
            versioning.began(versioning.key_columns, version).label(f"{OWN}before"),
            given.change_info.label(f"{OWN}info"),
        )
        .join_from(
            versioning.rows,
            given.rows,
            sa.and_(*given.is_in(versioning, versioning.table), version == sa.func.coalesce(given.version, version)),
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
    first, *others = versioning.tables
    archived = insert_into(
        _state(first, row)
        | {
            versioning.column("version"): row[version],
            versioning.column("operation"): sa.literal(operation),
            versioning.column("changed"): never_backwards(locked.c[f"{OWN}before"], moment.c.instant, CLOCK),
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
def recording_on_postgresql(versioning: Versioning, given: Given) -> sa.Select[Any]:
    """Write the ``insert`` rows of records, and return the instant, if the database sees two rows of one key, and those
    records whose key was used before, with the version of their row.
    """
    history = versioning.history_table
    names = versioning.options.names
    moment = (
        sa.select(sa.func.coalesce(_INSTANT, CLOCK).label("instant")).cte(f"{OWN}moment").prefix_with("MATERIALIZED")
    )
    before = history.alias("before")
    last = (
        sa.select(before.c[names.version].label("version"), before.c[names.changed].label("changed"))
        .where(*given.is_in(versioning, before))
        .order_by(before.c[names.version].desc())
        .limit(1)
        .lateral("last")
    )
    given_key = [part.label(f"{OWN}key_{number}") for number, part in enumerate(given.key)]
    earlier = (
        sa.select(*given_key, last.c.version, last.c.changed, given.change_info.label(f"{OWN}info"))
        .select_from(given.rows.outerjoin(last, sa.true()))
        .cte(f"{OWN}earlier")
        .prefix_with("MATERIALIZED")
    )
    key_columns = [history.c[column.key] for column in versioning.key_columns]
    archived = (
        insert_into(
            {
                **{column: earlier.c[part.key] for column, part in zip(key_columns, given_key, strict=True)},
                versioning.column("version"): sa.func.coalesce(earlier.c.version, NEVER - 1) + 1,
                versioning.column("operation"): sa.literal("insert"),
                versioning.column("changed"): never_backwards(earlier.c.changed, moment.c.instant, CLOCK),
                versioning.column("change_info"): earlier.c[f"{OWN}info"],
                versioning.column("transaction_id"): _TRANSACTION,
            },
            sa.select().select_from(earlier.join(moment, sa.true())),
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
        .where(*given.is_in(versioning, versioning.table))
        .correlate(given.rows)
        .scalar_subquery()
    )
    twice = sa.select(sa.func.bool_or(found > 1)).select_from(given.rows).scalar_subquery()
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


@cache
def archiving_elsewhere(
    versioning: Versioning, operation: Literal["update", "delete"], given: Given
) -> Sequence[sa.Insert]:
    """Write the current states of records into history: a statement for each of the tables that records are in, the
    one with our own columns last.
    """
    version = versioning.version
    known = sa.and_(*given.is_in(versioning, versioning.table), version == sa.func.coalesce(given.version, version))
    source = sa.select().select_from(given.rows.join(versioning.rows, known))
    lost = versioning.hidden if operation == "delete" else {}
    row = {column: column for column in (*_archived_columns(versioning), *lost.values())}
    first, *others = versioning.tables
    before = versioning.began(versioning.key_columns, version)
    own = {
        versioning.column("operation"): sa.literal(operation),
        versioning.column("changed"): never_backwards(before, _INSTANT, _NOW),
        versioning.column("change_info"): naming_hidden(given.change_info, lost, row, "sqlite"),
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
def recording_elsewhere(versioning: Versioning, given: Given) -> Sequence[sa.Insert]:
    """Write the ``insert`` rows of records: a statement for each of the tables that records are in, the one with our
    own columns first.
    """
    history = versioning.history_table
    names = versioning.options.names
    before = history.alias("before")
    last_changed = _of_earlier(given, versioning, before, sa.func.max(before.c[names.changed], type_=Instant))
    last = _of_earlier(given, versioning, before, sa.func.max(before.c[names.version]))
    own = {
        **{history.c[column.key]: part for column, part in zip(versioning.key_columns, given.key, strict=True)},
        versioning.column("version"): sa.func.coalesce(last, NEVER - 1) + 1,
        versioning.column("operation"): sa.literal("insert"),
        versioning.column("changed"): never_backwards(last_changed, _INSTANT, _NOW),
        versioning.column("change_info"): given.change_info,
        versioning.column("transaction_id"): _TRANSACTION,
    }
    further = [
        {
            one.history.c[names.version]: last,
            **{one.history.c[column.key]: part for column, part in zip(one.key, given.key, strict=True)},
        }
        for one in versioning.tables[1:]
    ]
    return [insert_into(values, sa.select().select_from(given.rows)) for values in (own, *further)]


@cache
def reused_elsewhere(versioning: Versioning, given: Given) -> sa.Select[Any]:
    """The version that follows the last row of each record whose key was used before it was recorded."""
    before = versioning.history_table.alias("before")
    last = _of_earlier(given, versioning, before, sa.func.max(before.c[versioning.options.names.version]))
    return sa.select(last + 1, *given.key).where(last > NEVER)


def _of_earlier(
    given: Given, versioning: Versioning, before: sa.FromClause, value: sa.ColumnElement[Any]
) -> sa.ScalarSelect[Any]:
    """An aggregate of the history rows of each record that is given."""
    return sa.select(value).where(*given.is_in(versioning, before)).correlate_except(before).scalar_subquery()


@cache
def renumbering(versioning: Versioning) -> sa.Update:
    # What every UPDATE would stamp stays as it was inserted.
    stamped = {column: column for column in versioning.table.c if column.onupdate is not None}
    return (
        sa.update(versioning.table)
        .where(*(column == bind for column, bind in key_binds(versioning)))
        .values({**stamped, versioning.version: bindparam(f"{OWN}live_version", type_=sa.Integer)})
    )

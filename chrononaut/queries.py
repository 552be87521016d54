"""Questions to history: functions from a model and a record key to a select.

Validity is half-open: a state is valid in [``valid_from``, ``changed``), so that at the instant of a change the new
state holds. An ``insert`` row has no state, nor has a cut (see `cuts`); only `changes` lists them.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapper, aliased

from chrononaut.cuts import PURGED
from chrononaut.history import ERASED, NEVER, STATELESS, History, Key, Operation, Versioning, versioning_of
from chrononaut.types import as_loaded, is_among, is_distinct, lists_name, marks_name, utc

HistorySelect = sa.Select[History]

# The mark of `rows_at`, by which it is known wherever it becomes a part of another select.
_OF_THE_PAST = "chrononaut_of_the_past"


def changes(model: type, key: Key, select: HistorySelect | None = None) -> HistorySelect:
    """All history rows of a record, the creation's and cuts too, oldest first.

    :param key: primary key values, in mapping order
    :param select: what of them, as `as_columns`; by default history objects
    """
    versioning = versioning_of(model)
    criteria = (versioning.has_key(key), *of_model(versioning))
    select = sa.select(versioning.history) if select is None else select
    return select.where(*criteria).order_by(versioning.column("version"))


def exists(model: type, key: Key) -> sa.Select[bool]:
    """Has a record any history?

    :param key: primary key values, in mapping order
    """
    return sa.select(changes(model, key).order_by(None).exists())


def known(model: type, keys: Sequence[Key], dialect: Dialect) -> sa.Select[Any]:
    """Those of some record keys that have any history.

    :param keys: primary key values, in mapping order
    """
    versioning = versioning_of(model)
    columns = [getattr(versioning.history, name) for name in versioning.key]
    return sa.select(*columns).where(is_among(columns, keys, dialect.name), *of_model(versioning)).distinct()


def versions(
    model: type,
    key: Key,
    before: datetime | None = None,
    after: datetime | None = None,
    select: HistorySelect | None = None,
) -> HistorySelect:
    """The prior versions of a record, oldest first.

    :param key: primary key values, in mapping order
    :param before: only versions that ended at this instant or earlier
    :param after: only versions that ended later than this instant
    :param select: what of them, as `as_columns`; by default history objects
    """
    versioning = versioning_of(model)
    changed = versioning.column("changed")
    select = changes(model, key, select).where(_has_state(versioning))
    if before is not None:
        select = select.where(changed <= utc(before))
    if after is not None:
        select = select.where(changed > utc(after))
    return select


def versions_and_cuts(model: type, key: Key, select: HistorySelect | None = None) -> HistorySelect:
    """The prior versions of a record and the cuts among them, oldest first.

    :param key: primary key values, in mapping order
    :param select: what of them, as `as_columns`; by default history objects
    """
    return changes(model, key, select).where(versioning_of(model).column("operation") != "insert")


def cuts(
    model: type,
    key: Key,
    after: "int | sa.BindParameter[int]",
    until: "int | sa.BindParameter[int]",
    select: HistorySelect | None = None,
) -> HistorySelect:
    """The cuts of a record, oldest first.

    :param key: primary key values, in mapping order
    :param after: only with a higher number than this
    :param until: only with this number or a lower one
    :param select: what of them, as `as_columns`; by default history objects
    """
    versioning = versioning_of(model)
    number = versioning.column("version")
    return changes(model, key, select).where(versioning.column("operation") == "purge", number > after, number <= until)


def row_from(
    model: type, key: Key, number: "int | sa.BindParameter[int]", select: HistorySelect | None = None
) -> HistorySelect:
    """The first history row of a record with a number or a higher one: if that number was purged, the cut.

    :param key: primary key values, in mapping order
    :param select: what of it, as `as_columns`; by default the history object
    :return: a select of at most one history row
    """
    return changes(model, key, select).where(versioning_of(model).column("version") >= number).limit(1)


def version(model: type, key: Key, number: int) -> HistorySelect:
    """One prior version of a record.

    :return: a select of at most one history row
    """
    versioning = versioning_of(model)
    return versions(model, key).where(versioning.column("version") == number)


def version_at(
    model: type, key: Key, at: "datetime | sa.BindParameter[datetime]", select: HistorySelect | None = None
) -> HistorySelect:
    """The first change of a record after an instant: what it replaced is the state that was valid then.

    :param key: primary key values, in mapping order
    :param at: an instant; a naive one is read as UTC. Resolution 1 µs.
    :param select: what of it, as `as_columns`; by default the history object
    :return: a select of at most one history row. Its operation is ``insert`` where the record did not exist at the
        instant, and ``purge`` where that state was purged; there is none where nothing has changed since, so that the
        live row tells.
    """
    versioning = versioning_of(model)
    changed = versioning.column("changed")
    return (
        changes(model, key, select)
        .where(_ended_after(versioning, at))
        .order_by(None)
        .order_by(changed, versioning.column("version"))
        .limit(1)
    )


def live_state(model: type, key: Key) -> sa.Select[Any]:
    """The live state of a record as columns: the version, when it began, and the tracked attributes.

    :param key: primary key values, in mapping order
    """
    versioning = versioning_of(model)
    mapper, columns = versioning.mapper, versioning.tracked.values()
    same = [column == part for column, part in zip(versioning.key_columns, key, strict=True)]
    select = sa.select(versioning.version, began(model), *columns).select_from(versioning.rows).where(*same)
    if mapper.single and mapper.polymorphic_on is not None:
        select = select.where(mapper.polymorphic_on.in_(_identities(mapper)))
    return select


def as_columns(model: type) -> sa.Select[Any]:
    """The history rows of a model's table as columns: ours, as `State` has them, the tracked and the dropped ones."""
    versioning = versioning_of(model)
    rows: Any = sa.inspect(versioning.history)
    number = versioning.column("version")
    return sa.select(
        number,
        versioning.began(history_key(versioning), number),
        *(versioning.column(name) for name in ("changed", "operation", "change_info", "transaction_id")),
        *(rows.columns[name] for name in (*versioning.tracked, *versioning.dropped)),
    ).select_from(rows.persist_selectable)


def last_change_by(model: type, key: Key, at: datetime) -> "sa.Select[int, Operation]":
    """The last change of a record at an instant or before: its version and its operation.

    :param key: primary key values, in mapping order
    :param at: an instant; a naive one is read as UTC. Resolution 1 µs.
    :return: a select of at most one row; none if the record was not changed, and not created, by then
    """
    versioning = versioning_of(model)
    number, changed = versioning.column("version"), versioning.column("changed")
    return (
        sa.select(number, replaced_by(versioning))
        .where(versioning.has_key(key), sa.not_(_ended_after(versioning, at)))
        .order_by(changed.desc(), number.desc())
        .limit(1)
    )


def spans(
    model: type, key: Key, after: "int | sa.BindParameter[int]" = NEVER
) -> "sa.Select[int, datetime | None, datetime]":
    """When each prior version of a record was valid, oldest first, without its state: version, beginning and end.

    :param key: primary key values, in mapping order
    :param after: only versions with a higher number
    :return: a select whose beginning is NULL if the version was there before the record was versioned
    """
    versioning = versioning_of(model)
    number = versioning.column("version")
    key_columns = [versioning.history_table.c[column.key] for column in versioning.key_columns]
    return (
        sa.select(
            number.label("version"),
            versioning.began(key_columns, number).label("valid_from"),
            versioning.column("changed").label("changed"),
        )
        .where(versioning.has_key(key), _has_state(versioning), number > after)
        .order_by(number)
    )


def spans_around(
    model: type, key: Key, number: "int | sa.BindParameter[int]"
) -> "sa.Select[int, datetime | None, datetime]":
    """The `spans` of the first and the last prior version, of one version, and of the ones before and after it.

    :param key: primary key values, in mapping order
    :return: a select of at most five rows, in any order; one version may come several times
    """
    select, version = spans(model, key), versioning_of(model).column("version")
    newest_first = select.order_by(None).order_by(version.desc())
    # A LIMIT of its own for each, so that each is one step in the index, however long the history is.
    parts = (
        select.limit(1),
        newest_first.where(version < number).limit(1),
        select.where(version == number),
        spans(model, key, after=number).limit(1),
        newest_first.limit(1),
    )
    return sa.select(sa.union_all(*(sa.select(part.subquery()) for part in parts)).subquery())


def last_changed(model: type, key: Key) -> sa.Select[datetime]:
    """When a record was last updated or deleted; ``None`` if never.

    :param key: primary key values, in mapping order
    """
    versioning = versioning_of(model)
    newest_first: sa.Select[Any] = versions_and_cuts(model, key, as_columns(model)).order_by(None)
    newest_first = newest_first.order_by(versioning.column("version").desc())
    return newest_first.with_only_columns(versioning.column("changed")).limit(1)


def previous_version(model: type, key: Key) -> HistorySelect:
    """The last prior version of a record, or the cut if it was purged.

    :return: a select of at most one history row
    """
    versioning = versioning_of(model)
    return versions_and_cuts(model, key).order_by(None).order_by(versioning.column("version").desc()).limit(1)


def valid_from(model: type, key: Key, number: int) -> sa.Select[datetime]:
    """When a version began: ``changed`` of the row before it.

    :return: a select of at most one instant; none if the record was there before it was versioned
    """
    versioning = versioning_of(model)
    return sa.select(versioning.column("changed")).where(
        versioning.has_key(key), versioning.column("version") == number - 1
    )


def last_set(model: type, key: Key, end: int, is_live: bool, dialect: Dialect) -> sa.Select[Any]:
    """Which changes gave the attributes of a record the values that they have in its last state.

    :param key: primary key values, in mapping order
    :param end: the version of the last state
    :param is_live: is that the live row? Otherwise it is the history row of the record's deletion.
    :return: a select of one row: the version of the history row of the record's creation, NULL if that is unknown; then
        for each of `blamed` that of the last change of the attribute since then, or of the last state from which it was
        erased, NULL if there was none
    """
    versioning = versioning_of(model)
    history = versioning.history
    last: Any = aliased(versioning.model if is_live else history, flat=True)
    number, info = versioning.column("version"), versioning.column("change_info")
    operation = versioning.column("operation")
    # The row of the record's creation; or of its deletion, if it was made anew past history; or a cut.
    boundary = (
        sa.select(sa.func.max(number))
        .where(versioning.has_key(key), operation != "update", number < end)
        .scalar_subquery()
    )
    created = sa.func.max(sa.case((operation == "insert", number)))
    # What was purged may have set any of them.
    purged = operation == "purge"
    changed = (
        lists_name(info, "hidden_cols_changed", name, dialect.name)
        if name in versioning.hidden
        else sa.or_(
            is_distinct(as_loaded(getattr(history, name), dialect), as_loaded(getattr(last, name), dialect), dialect),
            sa.and_(_has_state(versioning), is_erased(info, name, dialect)),
        )
        for name in blamed(versioning)
    )
    return (
        sa.select(created, *(sa.func.max(sa.case((sa.or_(purged, condition), number))) for condition in changed))
        .join_from(history, last, sa.and_(*(getattr(history, name) == getattr(last, name) for name in versioning.key)))
        .where(
            versioning.has_key(key),
            getattr(last, versioning.options.names.version) == end,
            number.between(sa.func.coalesce(boundary, NEVER), end - 1),
            operation != "delete",
        )
    )


def blamed(versioning: Versioning) -> list[str]:
    """The attributes that changes can set: the tracked ones but the key's, and the hidden ones."""
    return [name for name in (*versioning.tracked, *versioning.hidden) if name not in versioning.key]


def live_states(versioning: Versioning, states: Sequence[tuple[Key, int]], dialect: str) -> sa.Select[Any]:
    """Those of some states that are live: the version, NULL, then the tracked attributes.

    :param states: record keys and versions
    :param dialect: the name of the dialect
    """
    key = versioning.key_columns
    columns = [sa.null(), *versioning.tracked.values()]
    return _states(versioning.rows, columns, key, versioning.version, states, dialect)


def prior_states(versioning: Versioning, states: Sequence[tuple[Key, int]], dialect: str) -> sa.Select[Any]:
    """Those of some states that were replaced: the version, the change info, then the tracked attributes.

    :param states: record keys and versions
    :param dialect: the name of the dialect
    """
    rows: Any = sa.inspect(versioning.history)
    key = [versioning.history_table.c[column.key] for column in versioning.key_columns]
    columns = [versioning.column("change_info"), *(rows.columns[name] for name in versioning.tracked)]
    select = _states(rows.persist_selectable, columns, key, versioning.column("version"), states, dialect)
    return select.where(_has_state(versioning))


def of_model(versioning: Versioning, exactly: bool = False) -> Iterator[sa.ColumnElement[bool]]:
    """Which rows of a history table are those of a model that shares it with others.

    :param exactly: leave out those of the models that inherit from it
    """
    mapper = versioning.mapper
    below = [one for one in versioning.hierarchy if one is not versioning]
    if not (mapper.single or (exactly and below)):
        return
    discriminator = _discriminator(versioning)
    if discriminator is None:
        for one in below if exactly else ():
            own = one.tables[-1]
            if own.history is not versioning.tables[-1].history:
                yield ~_has_row(versioning, one)
        return
    yield discriminator.in_([mapper.polymorphic_identity] if exactly else _identities(mapper))


def follows(versioning: Versioning, entity: Any) -> Iterator[sa.ColumnElement[bool]]:
    """Is a history row, or a live one, the state that followed?

    :param entity: an alias of the model or of its history
    """
    for name, column in zip(versioning.key, history_key(versioning), strict=True):
        yield getattr(entity, name) == column
    yield getattr(entity, versioning.options.names.version) == versioning.column("version") + 1


def history_key(versioning: Versioning) -> list[sa.Column[Any]]:
    """The key columns of the history table that has our own columns, in mapping order."""
    return [versioning.history_table.c[column.key] for column in versioning.key_columns]


def _states(
    rows: sa.FromClause,
    columns: Sequence[sa.ColumnElement[Any]],
    key: Sequence[sa.ColumnElement[Any]],
    version: sa.ColumnElement[int],
    states: Sequence[tuple[Key, int]],
    dialect: str,
) -> sa.Select[Any]:
    wanted = [(*of_record, number) for of_record, number in states]
    return sa.select(version, *columns).select_from(rows).where(is_among([*key, version], wanted, dialect))


def rows_at(versioning: Versioning, at: datetime, order: Sequence[Any] = ()) -> sa.CompoundSelect[Any]:
    """The rows of a model's own table as they were at an instant, of all models whose rows are in it.

    A row that was replaced since is in history: the first that was replaced later. One of a record of which nothing was
    replaced later is live.

    :param at: an instant; a naive one is read as UTC. Resolution 1 µs.
    :param order: what the rows will be ordered by, of the live table's columns. With it PostgreSQL reads the live rows
        by an index of that order and merges the few others into them, instead of sorting all
    :return: a select whose columns have the keys of the live table's: those of the record key and of the tracked
        attributes, and, of the table that has it, the version, followed by our own ones, which a live row leaves empty
    """
    at, names, (first, own) = utc(at), versioning.options.names, (versioning.tables[0], versioning.tables[-1])
    tracked = [column for column in versioning.whole().tracked.values() if column.table is own.live]
    live: list[sa.ColumnElement[Any]] = [*own.key, *(column for column in tracked if column not in own.key)]
    replaced = [own.history.c[str(column.key)] for column in live]
    if own is first:
        ours = [versioning.column(name) for name in ("changed", "operation", "change_info", "transaction_id")]
        live += [versioning.version, *(sa.cast(sa.null(), one.type).label(one.key) for one in ours)]
        replaced += [versioning.column("version"), *ours]
    rows: sa.FromClause = own.history
    if own is not first:
        same = [first.history.c[one.key] == rows.c[other.key] for one, other in zip(first.key, own.key, strict=True)]
        rows = rows.join(first.history, sa.and_(*same, versioning.column("version") == rows.c[names.version]))

    def replaced_later(key: Sequence[sa.ColumnElement[Any]], *which: Any) -> sa.Exists:
        same = [later.c[column.key] == part for column, part in zip(first.key, key, strict=True)]
        return sa.exists().where(*same, later.c[names.changed] > at, *which).correlate_except(later)

    later = first.history.alias()
    before = later.c[names.version] == versioning.column("version") - 1
    holding = sa.select(*live).where(~replaced_later(own.key))
    if order:
        # Within another select, because SQLite takes no ORDER BY in a part of a UNION.
        holding = holding.order_by(*order).subquery().select()
    ended = sa.select(*replaced).select_from(rows).where(_ended_after(versioning, at), _has_state(versioning))
    first_to_end = ~replaced_later([first.history.c[column.key] for column in first.key], before)
    return sa.union_all(holding, ended.where(first_to_end)).execution_options(**{_OF_THE_PAST: True})


def is_of_the_past(table: object) -> bool:
    """Is a table a subquery of `rows_at`?"""
    rows = table.element if isinstance(table, sa.Subquery) else None
    return isinstance(rows, sa.CompoundSelect) and _OF_THE_PAST in rows.get_execution_options()


def is_erased(info: sa.ColumnElement[Any], name: str, dialect: Dialect) -> sa.ColumnElement[bool]:
    """Was an attribute erased from the history row that has a change info?"""
    return marks_name(info, ERASED, "columns", name, dialect.name)


def began(model: type) -> sa.ScalarSelect[datetime]:
    """When the live state began, as a column of a select from the model; NULL if it was there before versioning."""
    versioning = versioning_of(model)
    return versioning.began(versioning.key_columns, versioning.version)


def change_infos(
    model: type, key: Key, start: "int | sa.BindParameter[int]", stop: "int | sa.BindParameter[int]"
) -> sa.Select[Any]:
    """The change info of all changes that led from one version to another.

    :param start: the number of the earlier version
    :param stop: the number of the later version
    """
    versioning = versioning_of(model)
    number = versioning.column("version")
    return sa.select(versioning.column("change_info")).where(versioning.has_key(key), number >= start, number < stop)


def replaced_by(versioning: Versioning) -> sa.ColumnElement[str]:
    """The operation of a history row; of a cut, that of the last row that was purged."""
    operation = versioning.column("operation")
    purged = versioning.column("change_info")[(PURGED, "operation")].as_string()
    return sa.case((operation == "purge", purged), else_=operation)


def _has_state(versioning: Versioning) -> sa.ColumnElement[bool]:
    return versioning.column("operation").not_in(STATELESS)


def _ended_after(versioning: Versioning, at: "datetime | sa.BindParameter[datetime]") -> sa.ColumnElement[bool]:
    # The type of a parameter makes the same of its value.
    return versioning.column("changed") > (at if isinstance(at, sa.BindParameter) else utc(at))


def _discriminator(versioning: Versioning) -> sa.ColumnElement[Any] | None:
    """Which model a history row is of; of an insert, the state that followed says so."""
    column: Any = versioning.mapper.polymorphic_on
    root = versioning_of(versioning.mapper.base_mapper.class_)
    name = next((name for name, one in root.tracked.items() if one is column), None)
    if name is None:
        return None
    following = [
        sa.select(getattr(entity, name)).where(*follows(versioning, entity)).scalar_subquery()
        for entity in (aliased(root.history, flat=True), aliased(root.model, flat=True))
    ]
    return sa.func.coalesce(getattr(versioning.history, name), *following)


def _identities(mapper: Mapper[Any]) -> list[Any]:
    """What tells the rows of a model, and of those that inherit from it, from others in their table."""
    return [one.polymorphic_identity for one in mapper.self_and_descendants]


def _has_row(versioning: Versioning, below: Versioning) -> sa.ColumnElement[bool]:
    """Has a model below a row of its own besides a history row?"""
    own = below.tables[-1]
    key = zip(own.key, history_key(versioning), strict=True)
    return sa.exists().where(
        *(own.history.c[column.key] == part for column, part in key),
        own.history.c[versioning.options.names.version] == versioning.column("version"),
    )

"""Questions to history: functions from a model and a record key to a select.

Validity is half-open: a state is valid in [``valid_from``, ``changed``), so that at the instant of a change the new
state holds. An ``insert`` row has no state, and only `changes` lists it.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper

from chrononaut.history import History, Key, Versioning, versioning_of
from chrononaut.types import utc

HistorySelect = sa.Select[History]

_OF_THE_PAST = "chrononaut_of_the_past"


def changes(model: type, key: Key) -> HistorySelect:
    """All history rows of a record, the creation's too, oldest first.

    :param key: primary key values, in mapping order
    """
    versioning = versioning_of(model)
    return sa.select(versioning.history).where(versioning.has_key(key)).order_by(versioning.column("version"))


def exists(model: type, key: Key) -> sa.Select[bool]:
    """Has a record any history?

    :param key: primary key values, in mapping order
    """
    return sa.select(sa.exists().where(versioning_of(model).has_key(key)))


def versions(model: type, key: Key, before: datetime | None = None, after: datetime | None = None) -> HistorySelect:
    """The prior versions of a record, oldest first.

    :param key: primary key values, in mapping order
    :param before: only versions that ended at this instant or earlier
    :param after: only versions that ended later than this instant
    """
    versioning = versioning_of(model)
    changed = versioning.column("changed")
    select = changes(model, key).where(_has_state(versioning))
    if before is not None:
        select = select.where(changed <= utc(before))
    if after is not None:
        select = select.where(changed > utc(after))
    return select


def version(model: type, key: Key, number: int) -> HistorySelect:
    """One prior version of a record.

    :return: a select of at most one history row
    """
    versioning = versioning_of(model)
    return versions(model, key).where(versioning.column("version") == number)


def version_at(model: type, key: Key, at: datetime) -> HistorySelect:
    """The first change of a record after an instant: what it replaced is the state that was valid then.

    :param key: primary key values, in mapping order
    :param at: an instant; a naive one is read as UTC. Resolution 1 µs.
    :return: a select of at most one history row. Its operation is ``insert`` where the record did not exist at the
        instant; there is none where nothing has changed since, so that the live row tells.
    """
    versioning = versioning_of(model)
    changed = versioning.column("changed")
    return (
        changes(model, key)
        .where(_ended_after(versioning, at))
        .order_by(None)
        .order_by(changed, versioning.column("version"))
        .limit(1)
    )


def last_changed(model: type, key: Key) -> sa.Select[datetime]:
    """When a record was last updated or deleted; ``None`` if never."""
    versioning = versioning_of(model)
    return (
        sa.select(versioning.column("changed"))
        .where(versioning.has_key(key), _has_state(versioning))
        .order_by(versioning.column("version").desc())
        .limit(1)
    )


def previous_version(model: type, key: Key) -> HistorySelect:
    """The last prior version of a record.

    :return: a select of at most one history row
    """
    versioning = versioning_of(model)
    return versions(model, key).order_by(None).order_by(versioning.column("version").desc()).limit(1)


def valid_from(model: type, key: Key, number: int) -> sa.Select[datetime]:
    """When a version began: ``changed`` of the row before it.

    :return: a select of at most one instant; none if the record was there before it was versioned
    """
    versioning = versioning_of(model)
    return sa.select(versioning.column("changed")).where(
        versioning.has_key(key), versioning.column("version") == number - 1
    )


def states_at(model: type, at: datetime) -> sa.CompoundSelect[Any]:
    """The states of all records of a model that were valid at an instant, one row for each record that existed then.

    A state that was replaced since is in history; one that still holds is live, and its row ends without an operation.
    Each is joined to the history row before it, which tells when it began.

    :param at: an instant; a naive one is read as UTC. Resolution 1 µs.
    :return: a select whose columns have the names of the tracked attributes, then ours
    """
    versioning = versioning_of(model)
    rows: Any = sa.inspect(versioning.history)
    own = {name: versioning.column(name) for name in ("changed", "operation", "change_info", "transaction_id")}
    replaced = _valid_at(
        versioning, at, rows.persist_selectable, rows.columns, versioning.column("version"), own
    ).where(_ended_after(versioning, at), _has_state(versioning))
    unset = dict.fromkeys(own, sa.null())
    live = _valid_at(versioning, at, versioning.rows, versioning.tracked, versioning.version, unset)
    return sa.union_all(replaced, live).execution_options(**{_OF_THE_PAST: True})


def is_of_the_past(clause: object) -> bool:
    """Is a clause what `states_at` has made?"""
    return isinstance(clause, sa.CompoundSelect) and _OF_THE_PAST in clause.get_execution_options()


def _valid_at(
    versioning: Versioning,
    at: datetime,
    rows: sa.FromClause,
    columns: Mapping[str, sa.ColumnElement[Any]],
    version: sa.ColumnElement[int],
    own: Mapping[str, sa.ColumnElement[Any]],
) -> sa.Select[Any]:
    """Those of some states that had begun at an instant."""
    names = versioning.options.names
    before, is_before = versioning.before([columns[name] for name in versioning.key], version)
    began = before.c[names.changed]
    return (
        sa.select(
            *(columns[name].label(name) for name in versioning.tracked),
            version.label(names.version),
            began.label(names.valid_from),
            *(column.label(getattr(names, name)) for name, column in own.items()),
        )
        .select_from(rows.outerjoin(before, is_before))
        .where(sa.or_(began.is_(None), began <= utc(at)), *_is_of(versioning.mapper, columns))
    )


def _is_of(mapper: Mapper[Any], columns: Mapping[str, sa.ColumnElement[Any]]) -> Iterator[sa.ColumnElement[bool]]:
    """Which rows of a table are those of a model that shares it with others."""
    if mapper.single and mapper.polymorphic_on is not None:
        kind = mapper.get_property_by_column(mapper.polymorphic_on).key
        yield columns[kind].in_([one.polymorphic_identity for one in mapper.self_and_descendants])


def began(model: type) -> sa.ScalarSelect[datetime]:
    """When the live state began, as a column of a select from the model; NULL if it was there before versioning."""
    versioning = versioning_of(model)
    return versioning.began(versioning.key_columns, versioning.version)


def change_infos(model: type, key: Key, start: int, stop: int) -> sa.Select[Any]:
    """The change info of all changes that led from one version to another.

    :param start: the number of the earlier version
    :param stop: the number of the later version
    """
    versioning = versioning_of(model)
    number = versioning.column("version")
    return sa.select(versioning.column("change_info")).where(versioning.has_key(key), number >= start, number < stop)


def _has_state(versioning: Versioning) -> sa.ColumnElement[bool]:
    return versioning.column("operation") != "insert"


def _ended_after(versioning: Versioning, at: datetime) -> sa.ColumnElement[bool]:
    return versioning.column("changed") > utc(at)

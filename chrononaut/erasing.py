"""Erasing: the values of one record leave all its history rows, and each row says that they did.

Numbers, instants, operations, users and transactions stay, so that history reads as before. Each row gets a mark in its
change info, a second erasure another one behind it::

    {"user_id": "…", "remote_addr": "…",
     "erased": [{"at": "2026-03-01T09:00:00.000000Z", "user_id": "admin@example.com", "columns": ["email", "name"],
                 "reasons": true, "extra": {"rationale": "…"}}]}

A cut, which stands for rows that were purged, has neither values nor reasons, and is left as it is.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from chrononaut.archive import OPTIONS
from chrononaut.exceptions import ErasureError
from chrononaut.history import ERASED, Key, RecordTable, Versioning, full_name
from chrononaut.locking import locking
from chrononaut.retention import read_setting
from chrononaut.types import JSONObject, instant_text, with_mark

REASONS = "extra"
"""The key of the change info under which reasons stand in free text."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was erased from the history of one record.

    :ivar versions: how many prior versions have lost the values
    :ivar changes: how many changes have lost their reasons, the record's creation among them
    :ivar columns: the attributes whose values went, of all models that the record may be of
    :ivar reasons: did the reasons go too?
    :ivar at: when, in UTC
    :ivar user_id: who erased it; ``None`` if that was not told
    :ivar extra: why
    """

    versions: int
    changes: int
    columns: tuple[str, ...]
    reasons: bool
    at: datetime
    user_id: str | None
    extra: Mapping[str, str]

    @property
    def mark(self) -> JSONObject:
        """What each history row says of it from now on."""
        return _mark(self.columns, self.reasons, self.at, self.user_id, self.extra)


def erasable(versioning: Versioning) -> Mapping[str, Sequence[sa.Column[Any]]]:
    """The attributes whose values can be erased → the columns of history tables that these are in.

    They are those of all models of a hierarchy: a key may have been of a record of each of them. Left out are the key,
    and what tells of which model a record is.
    """
    found: defaultdict[str, list[sa.Column[Any]]] = defaultdict(list)
    for one in versioning.root.hierarchy:
        kept = {column: table.history.c[column.key] for table in one.tables for column in table.state}
        tracked = {
            name: kept[column]
            for name, column in one.tracked.items()
            if name not in one.key and not _tells(one, column)
        }
        for name, column in {**tracked, **one.dropped}.items():
            if column not in found[name]:
                found[name].append(column)
    return dict(found)


def unkept(connection: Connection, versioning: Versioning) -> Mapping[str, Sequence[sa.Column[Any]]]:
    """The columns that history tables have in the database and for no model → themselves, of tables of their own.

    They hold what was tracked before it was hidden, untracked or taken from the model. Each has the name of the
    attribute that is hidden or untracked, or else its own.
    """
    inspector = sa.inspect(connection)
    left_out = {
        column: name for one in versioning.root.hierarchy for name, column in {**one.hidden, **one.untracked}.items()
    }
    found: defaultdict[str, list[sa.Column[Any]]] = defaultdict(list)
    for table in _tables(versioning):
        names = {column.name: name for column, name in left_out.items() if column.table is table.live}
        known = {column.name for column in table.history.c}
        is_there = inspector.has_table(table.history.name, table.history.schema)
        there = inspector.get_columns(table.history.name, table.history.schema) if is_there else []
        columns = [
            sa.Column(column["name"], column["type"], nullable=column["nullable"])
            for column in there
            if column["name"] not in known and "computed" not in column
        ]
        key = [sa.Column(table.history.c[column.key].name, column.type, key=column.key) for column in table.key]
        sa.Table(table.history.name, sa.MetaData(), *key, *columns, schema=table.history.schema)
        for column in columns:
            found[names.get(column.name, column.name)].append(column)
    return dict(found)


def holding(versioning: Versioning, setting: Any = None) -> Sequence[str]:
    """The attributes by which policies hold a model's records from purges. They stay, so that what is held stays held.

    :param setting: the policies that go before what models declare, as `read_setting` takes them
    :raises ValueError: the setting is wrong
    """
    declared, given = versioning.options.retention, read_setting(setting or {}).get(versioning.root.name)
    return [one.held for one in (declared, given) if one is not None and isinstance(one.held, str)]


def chosen(
    connection: Connection, versioning: Versioning, columns: Collection[str] | None, held_by: Collection[str] = ()
) -> Mapping[str, Sequence[sa.Column[Any]]]:
    """Those of `erasable` and `unkept` that are named, or all.

    :param held_by: more attributes that stay, besides those that are `holding` by the model's own policy
    :raises ErasureError: one of them cannot be erased
    """
    if isinstance(columns, str):
        raise ErasureError(f"columns must be a list of attribute names, not the text {columns!r}")
    there = dict(erasable(versioning))
    for name, found in unkept(connection, versioning).items():
        there[name] = [*there.get(name, ()), *found]
    holds = {*holding(versioning), *held_by}
    for name in columns or ():
        if name in holds:
            raise ErasureError(f"{versioning.name}.{name} cannot be erased: by it the record is held from purges", name)
        if name not in there:
            raise ErasureError(f"{versioning.name}.{name} cannot be erased: {_why_not(versioning, name, there)}", name)
    wanted = {
        name: found for name, found in there.items() if name not in holds and (columns is None or name in columns)
    }
    for name, found in wanted.items():
        for column in found:
            if not column.nullable:
                problem = (
                    f"{full_name(column.table)}.{column.name} takes no NULL, and no model has it; let it take NULL"
                )
                raise ErasureError(f"{versioning.name}.{name} cannot be erased: {problem}", name)
    return wanted


def erase(
    connection: Connection,
    versioning: Versioning,
    key: Key,
    columns: Mapping[str, Sequence[sa.Column[Any]]],
    reasons: bool,
    at: datetime,
    user_id: str | None,
    extra: Mapping[str, str],
) -> Erasure:
    """Scrub the history rows of one record, a statement for each table, and mark them.

    The live row is locked first, as it is by what archives it: a version that is being written comes before, and is
    scrubbed, or is one of what the live row holds from now on.

    :param columns: as `chosen`
    :raises ConcurrentChangeError: the database does not let this transaction see what another one has written
    """
    mark = _mark(tuple(columns), reasons, at, user_id, extra)
    with locking(versioning, [key]):
        same = [column == part for column, part in zip(versioning.key_columns, key, strict=True)]
        lock = sa.select(versioning.version).where(*same).with_for_update(key_share=True)
        connection.execute(lock, execution_options=OPTIONS)
        for scrubbing in _scrubbing(versioning, key, [one for found in columns.values() for one in found]):
            connection.execute(scrubbing, execution_options=OPTIONS)
        marking = _marking(versioning, key, mark, connection.dialect.name)
        changes = connection.execute(marking, execution_options=OPTIONS).rowcount
        operation = versioning.column("operation")
        created = sa.select(sa.func.count()).where(versioning.has_key(key), operation == "insert")
        versions = changes - connection.execute(created, execution_options=OPTIONS).scalar_one()
    return Erasure(versions, changes, tuple(columns), reasons, at, user_id, extra)


def _mark(
    columns: Sequence[str], reasons: bool, at: datetime, user_id: str | None, extra: Mapping[str, str]
) -> JSONObject:
    mark: JSONObject = {
        "at": instant_text(at),
        "user_id": user_id,
        "columns": [*columns],
        "reasons": reasons,
    }
    return mark | {"extra": dict(extra)} if extra else mark


def _scrubbing(versioning: Versioning, key: Key, columns: Sequence[sa.Column[Any]]) -> Sequence[sa.Update]:
    by_table: defaultdict[sa.Table, list[sa.Column[Any]]] = defaultdict(list)
    for column in columns:
        by_table[column.table].append(column)
    keys = {full_name(one.history): one.key for one in _tables(versioning)}
    return [
        sa.update(table)
        .where(*(table.c[column.key] == part for column, part in zip(keys[full_name(table)], key, strict=True)))
        .values({column: sa.null() for column in held})
        for table, held in by_table.items()
    ]


def _tables(versioning: Versioning) -> Sequence[RecordTable]:
    """All that rows of a record may be in, whichever model of a hierarchy it is of."""
    return [*{one.history: one for model in versioning.root.hierarchy for one in model.tables}.values()]


def _marking(versioning: Versioning, key: Key, mark: JSONObject, dialect: str) -> sa.Update:
    info = versioning.column("change_info")
    without = [REASONS] if mark["reasons"] else []
    return (
        sa.update(versioning.history_table)
        .where(versioning.has_key(key), versioning.column("operation") != "purge")
        .values({info: with_mark(info, ERASED, mark, without, dialect)})
    )


def _tells(versioning: Versioning, column: sa.Column[Any]) -> bool:
    """Does a column tell of which model of a hierarchy a record is?"""
    return column is versioning.mapper.polymorphic_on


def _why_not(versioning: Versioning, name: str, there: Collection[str]) -> str:
    models = versioning.root.hierarchy
    if name in versioning.key:
        return "by the key the record is found; delete_with_history() deletes the record and leaves no trace of it"
    if any(name in one.hidden or name in one.untracked for one in models):
        return "history holds no value of it, as it is hidden or untracked"
    if any(name in one.tracked for one in models):
        return "it tells of which model the record is"
    return f"there is no such attribute; there are {', '.join(there)}"

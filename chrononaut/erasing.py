"""Erasing: the values of one record leave all its history rows, and each row says that they did.

Numbers, instants, operations, users and transactions stay, so that history reads as before. Each row gets a mark in its
change info, a second erasure another one behind it::

    {"user_id": "…", "remote_addr": "…",
     "erased": [{"at": "2026-03-01T09:00:00.000000Z", "user_id": "admin@example.com", "columns": ["email", "name"],
                 "reasons": true, "extra": {"rationale": "…"}}]}

A cut, which stands for rows that were purged, has neither values nor reasons to lose; it gets the mark all the same, so
that each row of a record says what was erased of it.

Who changed a record of their own may be named by a value that goes, as by an address: such a ``user_id`` becomes null
in the record's own rows, and the mark says ``"users": true``.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
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
from chrononaut.types import JSONObject, has_key, instant_text, is_text, with_mark, with_null

REASONS = "extra"
"""The key of the change info under which reasons stand in free text."""

_USER = "user_id"


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was erased from the history of one record.

    :ivar versions: how many prior versions have lost a value
    :ivar changes: how many changes have lost their reasons, the record's creation among them
    :ivar users: how many changes have lost the user, who was named by one of the values
    :ivar rows: how many history rows say so from now on: all of the record, cuts among them
    :ivar columns: the attributes whose values went, of all models that the record may be of
    :ivar reasons: did the reasons go too?
    :ivar at: when, in UTC
    :ivar user_id: who erased it; ``None`` if that was not told
    :ivar extra: why
    """

    versions: int
    changes: int
    users: int
    rows: int
    columns: tuple[str, ...]
    reasons: bool
    at: datetime
    user_id: str | None
    extra: Mapping[str, str]

    @property
    def mark(self) -> JSONObject:
        """What each history row says of it from now on."""
        mark: JSONObject = {
            "at": instant_text(self.at),
            "user_id": self.user_id,
            "columns": [*self.columns],
            "reasons": self.reasons,
        }
        return mark | ({"users": True} if self.users else {}) | ({"extra": dict(self.extra)} if self.extra else {})


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
        version = sa.Column(versioning.options.names.version, sa.Integer)
        sa.Table(table.history.name, sa.MetaData(), *key, version, *columns, schema=table.history.schema)
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
    held = [one for found in columns.values() for one in found]
    with locking(versioning, [key]):
        same = [column == part for column, part in zip(versioning.key_columns, key, strict=True)]
        lock = sa.select(versioning.version).where(*same).with_for_update(key_share=True)
        connection.execute(lock, execution_options=OPTIONS)
        erasure = Erasure(
            versions=connection.scalar(_having_values(versioning, key, held)) or 0,
            changes=connection.scalar(_having_reasons(versioning, key)) or 0 if reasons else 0,
            users=_forget_users(connection, versioning, key, held),
            rows=connection.scalar(sa.select(sa.func.count()).where(versioning.has_key(key))) or 0,
            columns=tuple(columns),
            reasons=reasons,
            at=at,
            user_id=user_id,
            extra=extra,
        )
        for scrubbing in _scrubbing(versioning, key, held):
            connection.execute(scrubbing, execution_options=OPTIONS)
        connection.execute(_marking(versioning, key, erasure.mark, connection.dialect.name), execution_options=OPTIONS)
    return erasure


def _having_values(versioning: Versioning, key: Key, columns: Sequence[sa.Column[Any]]) -> sa.Select[Any]:
    """How many versions of a record have a value in one of some columns?"""
    name = versioning.options.names.version
    having = [
        sa.select(table.c[name]).where(*of_record, sa.or_(*(column.is_not(None) for column in held)))
        for table, of_record, held in _by_table(versioning, key, columns)
    ]
    if not having:
        return sa.select(sa.literal(0))
    return sa.select(sa.func.count()).select_from(sa.union(*having).subquery())


def _having_reasons(versioning: Versioning, key: Key) -> sa.Select[Any]:
    has_reasons = has_key(versioning.column("change_info"), REASONS)
    return sa.select(sa.func.count()).where(versioning.has_key(key), has_reasons)


def _forget_users(connection: Connection, versioning: Versioning, key: Key, columns: Sequence[sa.Column[Any]]) -> int:
    """Take the user from the changes of a record where one of its values names them; how many are they?"""
    info = versioning.column("change_info")
    user = sa.cast(info[_USER].as_string(), sa.Text)
    names = []
    for table, _, held in _by_table(versioning, key, columns):
        rows = table.alias()
        parts = zip(_key_of(versioning, table), key, strict=True)
        of_record = [rows.c[name] == part for name, part in parts]
        names += [
            sa.select(sa.cast(rows.c[one.key], sa.Text)).where(*of_record, rows.c[one.key].is_not(None))
            for one in held
            if is_text(one.type)
        ]
    if not names:
        return 0
    forgetting = (
        sa.update(versioning.history_table)
        .where(versioning.has_key(key), sa.or_(*(user.in_(named) for named in names)))
        .values({info: with_null(info, _USER, connection.dialect.name)})
    )
    return connection.execute(forgetting, execution_options=OPTIONS).rowcount


def _scrubbing(versioning: Versioning, key: Key, columns: Sequence[sa.Column[Any]]) -> Sequence[sa.Update]:
    return [
        sa.update(table).where(*of_record).values({column: sa.null() for column in held})
        for table, of_record, held in _by_table(versioning, key, columns)
    ]


def _by_table(
    versioning: Versioning, key: Key, columns: Sequence[sa.Column[Any]]
) -> Iterator[tuple[sa.Table, list[sa.ColumnElement[bool]], list[sa.Column[Any]]]]:
    """Each table that columns are in, whether a row of it is one of a record, and those of the columns."""
    by_table: defaultdict[sa.Table, list[sa.Column[Any]]] = defaultdict(list)
    for column in columns:
        by_table[column.table].append(column)
    for table, held in by_table.items():
        yield table, [table.c[name] == part for name, part in zip(_key_of(versioning, table), key, strict=True)], held


def _key_of(versioning: Versioning, table: sa.Table) -> list[str]:
    """The key columns of a history table, or of one that describes it too, by their keys."""
    (found,) = (one for one in _tables(versioning) if full_name(one.history) == full_name(table))
    return [column.key for column in found.key]


def _tables(versioning: Versioning) -> Sequence[RecordTable]:
    """All that rows of a record may be in, whichever model of a hierarchy it is of."""
    return [*{one.history: one for model in versioning.root.hierarchy for one in model.tables}.values()]


def _marking(versioning: Versioning, key: Key, mark: JSONObject, dialect: str) -> sa.Update:
    info = versioning.column("change_info")
    without = [REASONS] if mark["reasons"] else []
    return (
        sa.update(versioning.history_table)
        .where(versioning.has_key(key))
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

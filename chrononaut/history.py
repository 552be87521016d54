"""The rows of history, and what is known of each versioned model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapper
from sqlalchemy.orm import registry as orm_registry

from chrononaut.change_info import damage_of_marks
from chrononaut.exceptions import HiddenAttributeError, UntrackedAttributeError
from chrononaut.options import OWN_NAMES, Options
from chrononaut.types import JSONObject

Operation = Literal["insert", "update", "delete", "purge"]
"""What replaced a state; ``purge`` marks a row that stands for others which were purged (see `cuts`)."""

Key = tuple[Any, ...]

STATELESS: tuple[Operation, ...] = ("insert", "purge")
"""The operations of rows that hold no state."""

NEVER = -1
"""The version that an ``insert`` row of a new key carries: the one before the first."""

ERASED = "erased"
"""The key of the change info under which stands, oldest first, what was erased from a row (see `erasing`)."""

# Not in the table's `info`, which Alembic writes into the migrations that it generates.
_VERSIONING = "_chrononaut_versioning"


class History:
    """A row of history: a state that a record had, and what replaced it.

    It has the key and every tracked attribute of its model under the same names, those that the model says were
    dropped, and besides them ``version``,
    ``operation``, ``changed`` (UTC, when the state ended), ``valid_from`` (UTC, when it began; ``None`` if it was there
    before versioning), ``change_info`` (who and why replaced it) and ``transaction_id``. A row whose operation is
    ``insert`` or ``purge`` has no state. ``erased`` has the names of the attributes whose values were erased: they read
    ``None``. Of a model with an attribute of that name it is that; ``Change.erased`` says what was erased then.

    :raises HiddenAttributeError: on access to a hidden attribute
    :raises UntrackedAttributeError: on access to an untracked attribute
    """

    __chrononaut__: ClassVar["Versioning"]

    if TYPE_CHECKING:
        version: int
        operation: Operation
        changed: datetime
        valid_from: datetime | None
        change_info: JSONObject
        transaction_id: UUID
        erased: tuple[str, ...]

    def __getattr__(self, name: str) -> Any:
        # Only called for what is no column of ours.
        versioning = type(self).__chrononaut__
        if name == "erased":
            return versioning.erased(self)
        if name in versioning.options.hidden:
            raise HiddenAttributeError(versioning.model.__name__, name)
        if name in versioning.options.untracked:
            raise UntrackedAttributeError(versioning.model.__name__, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        versioning = type(self).__chrononaut__
        key = ", ".join(repr(getattr(self, name)) for name in versioning.key)
        return f"<{type(self).__name__} {key} version {getattr(self, versioning.options.names.version)}>"


@dataclass(frozen=True, slots=True, eq=False)
class RecordTable:
    """A table that holds rows of a model, and its history table. By joined inheritance, a record has a row in several.

    :ivar key: the key columns of the live table, in mapping order
    :ivar state: the other columns of the live table that history keeps, without ``version``
    """

    live: sa.Table
    history: sa.Table
    key: Sequence[sa.Column[Any]]
    state: Sequence[sa.Column[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Versioning:
    """All that is known of one versioned model.

    :ivar tables: those that a record's rows are in; the first has the version, the last is the model's own
    :ivar key: the attribute names of the primary key, in mapping order
    :ivar columns: attribute name → column, all but ``version``
    :ivar tracked: attribute name → column, the key's included, `version` not
    :ivar hidden: attribute name → column
    :ivar untracked: attribute name → column
    :ivar dropped: attribute name → column of a history table, of what the model no longer has
    :ivar stamped: tracked and hidden attributes that every UPDATE sets anew: by ``onupdate``, or as ``version_id_col``
    """

    model: Any
    mapper: Mapper[Any]
    tables: tuple[RecordTable, ...]
    options: Options
    key: tuple[str, ...]
    columns: Mapping[str, sa.Column[Any]]
    tracked: Mapping[str, sa.Column[Any]]
    hidden: Mapping[str, sa.Column[Any]]
    untracked: Mapping[str, sa.Column[Any]]
    dropped: Mapping[str, sa.Column[Any]]
    version: sa.Column[int]
    stamped: frozenset[str]
    history: type[History]

    @property
    def name(self) -> str:
        return str(self.model.__name__)

    @property
    def table(self) -> sa.Table:
        """The table that has the version."""
        return self.tables[0].live

    @property
    def history_table(self) -> sa.Table:
        """The history table that has our own columns."""
        return self.tables[0].history

    @property
    def rows(self) -> sa.FromClause:
        """What the whole rows of records are selected from: the table, or the join of the tables."""
        return self.mapper.persist_selectable

    @property
    def key_columns(self) -> Sequence[sa.Column[Any]]:
        """The key columns of the table that has the version."""
        return self.tables[0].key

    @property
    def root(self) -> "Versioning":
        """That of the model whose own table has the version: this one, or one that it inherits from."""
        return versioning_of_table(self.table) or self

    @property
    def hierarchy(self) -> "Sequence[Versioning]":
        """This model's, and those of the models that inherit from it and have rows in its table."""
        below = [versioning_of(mapper.class_) for mapper in self.mapper.self_and_descendants]
        return [self, *(one for one in below if one is not self and one.table is self.table)]

    @property
    def generated(self) -> frozenset[str]:
        """The attributes that nobody sets: computed columns, always generated identities, ``version_id_col``."""
        return frozenset(
            name
            for name, column in self.columns.items()
            if column.computed is not None
            or (column.identity is not None and column.identity.always)
            or column is self.mapper.version_id_col
        )

    @property
    def kind(self) -> sa.Column[Any] | None:
        """The column of the first history table that tells which model of a hierarchy a record is of, if any does."""
        column: Any = self.mapper.polymorphic_on
        return next((self.history_table.c[one.key] for one in self.tables[0].state if one is column), None)

    def stateful(self, table: RecordTable) -> list[sa.Column[Any]]:
        """The columns of a history table that hold what a record was: neither its key, nor ours, nor its `kind`."""
        own = {getattr(self.options.names, name) for name in OWN_NAMES} | {column.key for column in table.key}
        return [column for column in table.history.c if column.key not in own and column is not self.kind]

    def whole(self) -> "Versioning":
        """The same with the columns of all models whose rows are in the table."""
        hierarchy = self.hierarchy
        if len(hierarchy) == 1:
            return self
        return replace(
            self,
            columns=_merged([one.columns for one in hierarchy]),
            tracked=_merged([one.tracked for one in hierarchy]),
            hidden=_merged([one.hidden for one in hierarchy]),
            untracked=_merged([one.untracked for one in hierarchy]),
            stamped=frozenset().union(*(one.stamped for one in hierarchy)),
        )

    def is_history(self, table: sa.FromClause) -> bool:
        """Is a table one of the history tables, whichever object describes it?"""
        return any(full_name(table) == full_name(one.history) for one in self.tables)

    @property
    def valid_from(self) -> Any:
        """The attribute of the history class that says when a state began. It is loaded when it is asked for."""
        return getattr(self.history, self.options.names.valid_from)

    def column(self, own: str) -> sa.Column[Any]:
        """One of our own columns of the history table, by its unrenamed name."""
        column: sa.Column[Any] = self.history_table.c[getattr(self.options.names, own)]
        return column

    def began(self, key: Sequence[sa.ColumnElement[Any]], version: sa.ColumnElement[int]) -> sa.ScalarSelect[datetime]:
        """When a version of a record began: the ``changed`` of the row before it; NULL if there is none.

        :param key: the key columns of the row that has the version, in mapping order
        """
        before = self.history_table.alias()
        same = [before.c[column.key] == part for column, part in zip(self.key_columns, key, strict=True)]
        return (
            sa.select(before.c[self.options.names.changed])
            .where(*same, before.c[self.options.names.version] == version - 1)
            .correlate_except(before)
            .scalar_subquery()
        )

    def key_of(self, obj: object) -> Key:
        """The record key of a live object or of a history object."""
        return tuple([getattr(obj, name) for name in self.key])

    def own(self, obj: object, name: str) -> Any:
        """One of our own attributes of the live object or of a history object, by its unrenamed name."""
        return getattr(obj, getattr(self.options.names, name))

    def identity_of(self, obj: object) -> tuple[Key, int]:
        """The record key and the version of a live object or of a history object."""
        return self.key_of(obj), self.own(obj, "version")

    def state(self, obj: object) -> Mapping[str, Any]:
        """The tracked attributes of a live object or of a history object."""
        return {name: getattr(obj, name) for name in self.tracked}

    def erased(self, row: object) -> tuple[str, ...]:
        """The attributes whose values were erased from a history object."""
        return self.erased_by(self.own(row, "change_info"))

    def erased_by(self, change_info: JSONObject | None) -> tuple[str, ...]:
        """The attributes whose values were erased from the history row that has a change info."""
        # They name those of all models of a hierarchy.
        names = dict.fromkeys(name for mark in marks_of(change_info) for name in mark["columns"])
        return tuple(name for name in names if name in self.tracked or name in self.dropped)

    def known(self, obj: object) -> Mapping[str, Any]:
        """The tracked attributes of a live object or of a history object, without those that were erased."""
        erased = self.erased(obj) if isinstance(obj, History) else ()
        return {name: getattr(obj, name) for name in self.tracked if name not in erased}

    def has_key(self, key: Key) -> sa.ColumnElement[bool]:
        """Is a row of the history table one of the record with this key?"""
        columns = [self.history_table.c[column.key] for column in self.key_columns]
        return sa.and_(*(column == part for column, part in zip(columns, key, strict=True)))


def _merged(models: Sequence[Mapping[str, sa.Column[Any]]]) -> Mapping[str, sa.Column[Any]]:
    """The columns of several models, each once; two of one attribute name are told apart."""
    merged: dict[str, sa.Column[Any]] = {}
    for columns in models:
        for name, column in columns.items():
            merged[name if merged.get(name, column) is column else f"{name} ({column.name})"] = column
    return merged


def versioning_of(model: type) -> Versioning:
    """What is known of a versioned model, given the model or its history class.

    :raises TypeError: it is neither
    """
    versioning: Versioning | None = getattr(model, "__chrononaut__", None)
    if versioning is None or not isinstance(versioning, Versioning):
        raise TypeError(f"{model.__name__} is no versioned model")
    return versioning


def versioned_models(registry: orm_registry) -> Iterator[Versioning]:
    """What is known of each versioned model of a registry."""
    for mapper in registry.mappers:
        versioning: Versioning | None = vars(mapper.class_).get("__chrononaut__")
        if versioning is not None and versioning.mapper is mapper:
            yield versioning


def history_model(model: type) -> type[History]:
    """The mapped class of a model's history rows.

    :raises TypeError: the model is not versioned
    """
    return versioning_of(model).history


def versioning_of_table(table: sa.FromClause) -> Versioning | None:
    """The versioning that a table belongs to, as the live table or as the history table."""
    versioning: Versioning | None = getattr(table, _VERSIONING, None)
    return versioning


def marks_of(change_info: JSONObject | None) -> list[JSONObject]:
    """What was erased from the history row that has a change info, oldest first.

    An application may have kept something of its own under the same key before there were erasures.
    """
    marks = change_info.get(ERASED) if change_info else None
    if not isinstance(marks, list):
        return []
    return [mark for mark in marks if damage_of_marks([mark]) is None]


def describe_tables(versioning: Versioning) -> None:
    """Let `versioning_of_table` find the live table and the history table that a model is the first of."""
    for table in (versioning.tables[-1].live, versioning.tables[-1].history):
        if versioning_of_table(table) is None:
            setattr(table, _VERSIONING, versioning)


def full_name(table: sa.FromClause) -> str:
    """The name of a table with its schema's, as metadata keep it."""
    schema, name = getattr(table, "schema", None), getattr(table, "name", None)
    return f"{schema}.{name}" if schema else str(name)

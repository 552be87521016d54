"""The history table of a model and its mapped class, built from the model's mapper."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Mapper, column_property
from sqlalchemy.sql.base import SchemaEventTarget

from chrononaut.exceptions import HiddenAttributeError, UnsupportedMappingError, UntrackedAttributeError
from chrononaut.options import Options, read_options
from chrononaut.types import Instant, JSONDocument, JSONObject

Operation = Literal["insert", "update", "delete"]
Key = tuple[Any, ...]

NEVER = -1
"""The version that an ``insert`` row of a new key carries: the one before the first."""

_INFO = "chrononaut"
_LONGEST_NAME = 63  # PostgreSQL's limit, in bytes
_TRANSACTION_ID = sa.Uuid()


class History:
    """A row of history: a state that a record had, and what replaced it.

    It has the key and every tracked attribute of its model under the same names, and besides them `version`,
    `operation`, `changed` (UTC, when the state ended), `valid_from` (UTC, when it began; ``None`` if it was there
    before versioning), `change_info` (who and why replaced it) and `transaction_id`. A row whose operation is
    ``insert`` has no state.

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

    def __getattr__(self, name: str) -> Any:
        # Only called for what is no column of ours.
        versioning = type(self).__chrononaut__
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
class Versioning:
    """All that is known of one versioned model.

    :ivar key: the attribute names of the primary key, in mapping order
    :ivar columns: attribute name → column of the model's table, all but ``version``
    :ivar tracked: attribute name → column of the model's table, the key's included, `version` not
    :ivar hidden: attribute name → column
    :ivar untracked: attribute name → column
    :ivar stamped: tracked and hidden attributes that every UPDATE sets anew: by ``onupdate``, or as ``version_id_col``
    """

    model: Any
    mapper: Mapper[Any]
    table: sa.Table
    options: Options
    key: tuple[str, ...]
    columns: Mapping[str, sa.Column[Any]]
    tracked: Mapping[str, sa.Column[Any]]
    hidden: Mapping[str, sa.Column[Any]]
    untracked: Mapping[str, sa.Column[Any]]
    version: sa.Column[int]
    stamped: frozenset[str]
    history: type[History]
    history_table: sa.Table

    @property
    def name(self) -> str:
        return str(self.model.__name__)

    @property
    def key_columns(self) -> Sequence[sa.Column[Any]]:
        """The key columns of the model's table."""
        return [self.tracked[name] for name in self.key]

    @property
    def valid_from(self) -> Any:
        """The attribute of the history class that says when a state began. It is loaded when it is asked for."""
        return getattr(self.history, self.options.names.valid_from)

    def column(self, own: str) -> sa.Column[Any]:
        """One of our own columns of the history table, by its unrenamed name."""
        column: sa.Column[Any] = self.history_table.c[getattr(self.options.names, own)]
        return column

    def key_of(self, obj: object) -> Key:
        """The record key of a live object or of a history object."""
        return tuple(getattr(obj, name) for name in self.key)

    def has_key(self, key: Key) -> sa.ColumnElement[bool]:
        """Is a row of the history table one of the record with this key?"""
        columns = [self.history_table.c[column.key] for column in self.key_columns]
        return sa.and_(*(column == part for column, part in zip(columns, key, strict=True)))


def versioning_of(model: type) -> Versioning:
    """What is known of a versioned model, given the model or its history class.

    :raises TypeError: it is neither
    """
    versioning: Versioning | None = getattr(model, "__chrononaut__", None)
    if versioning is None or not isinstance(versioning, Versioning):
        raise TypeError(f"{model.__name__} is no versioned model")
    return versioning


def history_model(model: type) -> type[History]:
    """The mapped class of a model's history rows.

    :raises TypeError: the model is not versioned
    """
    return versioning_of(model).history


def versioning_of_table(table: sa.FromClause) -> Versioning | None:
    """The versioning that a table belongs to, as the live table or as the history table."""
    info: Mapping[str, Versioning] = getattr(table, "info", {})
    return info.get(_INFO)


def build_history(mapper: Mapper[Any]) -> Versioning:
    """Give a model its column ``version``, its history table and the class that maps it.

    :raises OptionError: an option is wrong
    :raises UnsupportedMappingError: the mapping's changes would not be captured
    """
    model: Any = mapper.class_
    table = mapper.local_table
    if mapper.inherits is not None and not mapper.concrete:
        raise UnsupportedMappingError(
            model.__name__,
            "changes of models that inherit from a mapped model are not captured yet; "
            "make the parent abstract, or do not version the model",
        )
    if not isinstance(table, sa.Table):
        raise UnsupportedMappingError(model.__name__, "only a model that is mapped to one table can be versioned")
    if cascading := [constraint for constraint in table.foreign_key_constraints if _cascades(constraint)]:
        columns = ", ".join(column.name for constraint in cascading for column in constraint.columns)
        raise UnsupportedMappingError(
            model.__name__,
            f"the foreign key of {columns} lets the database change or delete rows by itself (ON DELETE or ON UPDATE), "
            "which would leave no history; leave it to the session, by a relationship's cascade",
        )
    options = read_options(mapper)
    names = options.names
    attributes = {
        name: column
        for name, column in mapper.columns.items()
        if isinstance(column, sa.Column) and column.table is table
    }
    left_out = {*options.hidden, *options.untracked}
    tracked = {name: column for name, column in attributes.items() if name not in left_out}
    key = tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)

    version: sa.Column[int] = sa.Column(names.version, sa.Integer, nullable=False, default=0, server_default="0")
    table.append_column(version)
    mapper.add_property(names.version, version)
    history_table = _history_table(table, options, tracked, key)
    history: Any = type(f"{model.__name__}History", (History,), {"__doc__": f"The history of {model.__name__}."})
    versioning = Versioning(
        model=model,
        mapper=mapper,
        table=table,
        options=options,
        key=key,
        columns=attributes,
        tracked=tracked,
        hidden={name: attributes[name] for name in options.hidden},
        untracked={name: attributes[name] for name in options.untracked},
        version=version,
        stamped=frozenset(
            name
            for name, column in attributes.items()
            if name not in options.untracked
            and (column.onupdate is not None or column.server_onupdate is not None or column is mapper.version_id_col)
        ),
        history=history,
        history_table=history_table,
    )
    history.__chrononaut__ = versioning
    model.__chrononaut__ = versioning
    table.info[_INFO] = history_table.info[_INFO] = versioning
    mapper.registry.map_imperatively(
        history,
        history_table,
        properties={
            **{name: history_table.c[column.key] for name, column in tracked.items()},
            names.valid_from: column_property(_valid_from(versioning), deferred=True),
        },
    )
    return versioning


def _cascades(constraint: sa.ForeignKeyConstraint) -> bool:
    actions = {(action or "no action").lower() for action in (constraint.ondelete, constraint.onupdate)}
    return not actions <= {"no action", "restrict"}


def _history_table(
    table: sa.Table, options: Options, tracked: Mapping[str, sa.Column[Any]], key: Sequence[str]
) -> sa.Table:
    names = options.names
    key_columns = [_copy(tracked[name], primary_key=True) for name in key]
    state_columns = [_copy(column) for name, column in tracked.items() if name not in key]
    changed: sa.Column[datetime] = sa.Column(names.changed, Instant, nullable=False)
    history_table = sa.Table(
        options.history_table,
        table.metadata,
        *key_columns,
        sa.Column(names.version, sa.Integer, primary_key=True, autoincrement=False),
        *state_columns,
        sa.Column(names.operation, sa.String(6), nullable=False),
        changed,
        sa.Column(names.change_info, JSONDocument, nullable=False),
        sa.Column(names.transaction_id, _TRANSACTION_ID, nullable=False),
        schema=table.schema,
    )
    sa.Index(_shortened(f"ix_{options.history_table}_changed"), *key_columns, changed)
    return history_table


def _shortened(name: str) -> str:
    """A name that PostgreSQL takes; one that is too long ends with a digest, so that no two become the same."""
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: _LONGEST_NAME - len(digest) - 1].decode(errors='ignore')}_{digest}"


def _copy(column: sa.Column[Any], primary_key: bool = False) -> sa.Column[Any]:
    """The column without default, unique, foreign key, index and identity."""
    type_ = column.type
    if isinstance(type_, SchemaEventTarget):
        # An Enum or a Boolean with a constraint belongs to the one table that it was made for.
        type_ = type_.copy()
    copy: sa.Column[Any] = sa.Column(
        column.name, type_, key=column.key, primary_key=primary_key, nullable=not primary_key, autoincrement=False
    )
    if isinstance(type_, sa.types.NullType):
        _untyped.append((copy, column))
    return copy


# Columns that will take their type from the one that their foreign key refers to, in a table yet to be defined.
_untyped: list[tuple[sa.Column[Any], sa.Column[Any]]] = []


@event.listens_for(sa.Table, "after_parent_attach")
def _adopt_types(table: sa.Table, metadata: sa.MetaData) -> None:
    for copy, column in [pair for pair in _untyped if not isinstance(pair[1].type, sa.types.NullType)]:
        copy.type = column.type
        _untyped.remove((copy, column))


def _valid_from(versioning: Versioning) -> sa.ScalarSelect[datetime]:
    """When a state began: the ``changed`` of the row before it."""
    table = versioning.history_table
    before = table.alias()
    names = versioning.options.names
    keys = [column.key for column in versioning.key_columns]
    return (
        sa.select(before.c[names.changed])
        .where(
            *(before.c[key] == table.c[key] for key in keys),
            before.c[names.version] == table.c[names.version] - 1,
        )
        .correlate(table)
        .scalar_subquery()
    )

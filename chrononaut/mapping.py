"""The history tables of a model and their mapped class, built from the model's mapper."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Mapper, RelationshipDirection, RelationshipProperty, column_property
from sqlalchemy.sql import visitors
from sqlalchemy.sql.base import SchemaEventTarget

from chrononaut.exceptions import OptionError, UnsupportedMappingError
from chrononaut.history import History, RecordTable, Versioning, describe_tables, versioning_of_table
from chrononaut.options import RETENTION, Options, check_held, inherit_options, read_options, state_columns
from chrononaut.types import Instant, JSONDocument

_LONGEST_NAME = 63  # PostgreSQL's limit, in bytes
_Columns = Mapping[str, sa.Column[Any]]


def build_history(mapper: Mapper[Any]) -> Versioning:
    """Give a model its column ``version``, its history table and the class that maps it.

    A model that inherits from a versioned one shares its version and its history table; where it has a table of its
    own, by joined inheritance, that gets a history table too.

    :raises OptionError: an option is wrong
    :raises UnsupportedMappingError: the mapping's changes would not be captured
    """
    model, table = mapper.class_, mapper.local_table
    if not isinstance(table, sa.Table):
        raise UnsupportedMappingError(model.__name__, "only a model that is mapped to one table can be versioned")
    if cascading := [constraint for constraint in table.foreign_key_constraints if _cascades(constraint)]:
        columns = ", ".join(column.name for constraint in cascading for column in constraint.columns)
        raise UnsupportedMappingError(
            model.__name__,
            f"the foreign key of {columns} lets the database change or delete rows by itself (ON DELETE or ON UPDATE), "
            "which would leave no history; leave it to the session, by a relationship's cascade",
        )
    if _lets_rows_give_way(table):
        raise UnsupportedMappingError(
            model.__name__,
            "a conflict clause (sqlite_on_conflict…) of REPLACE or IGNORE lets the database drop rows by itself, "
            "which would leave no history; leave the conflict to be an error",
        )
    _refuse_wrapped_keys(mapper)
    if mapper.inherits is None or mapper.concrete:
        versioning = _of_root(mapper, table)
    else:
        parent: Versioning | None = vars(mapper.inherits.class_).get("__chrononaut__")
        if parent is None:
            raise UnsupportedMappingError(
                model.__name__,
                f"it inherits from {mapper.inherits.class_.__name__}, whose changes would not be captured; "
                "version that as well",
            )
        versioning = _of_child(mapper, table, parent)
        _refuse_contradictions(versioning)
    model.__chrononaut__ = versioning.history.__chrononaut__ = versioning
    describe_tables(versioning)
    _map_history(versioning)
    return versioning


def _of_root(mapper: Mapper[Any], table: sa.Table) -> Versioning:
    options = read_options(mapper)
    columns = state_columns(mapper)
    key = tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)
    # The database's default alone: the compiler loses one of Python's where the CTE of an INSERT … SELECT writes too.
    version: sa.Column[int] = sa.Column(options.names.version, sa.Integer, nullable=False, server_default="0")
    table.append_column(version)
    mapper.add_property(options.names.version, version)
    key_columns, state = [columns[name] for name in key], _state(columns, options, key)
    history_table = _history_table(table, options, key_columns, [*state, *options.dropped.values()])
    return _versioning(mapper, options, (RecordTable(table, history_table, key_columns, state),), key, columns, version)


def _of_child(mapper: Mapper[Any], table: sa.Table, parent: Versioning) -> Versioning:
    inherited = {*parent.columns, parent.options.names.version}
    own = {name: column for name, column in state_columns(mapper).items() if name not in inherited}
    options = inherit_options(mapper, parent.options, own)
    above = parent.tables[-1]
    if table is above.live:
        # Single-table inheritance: the model's columns came to the table after its history table was made.
        added = _state(own, options, ())
        for column in (*added, *_dropped_here(options, parent)):
            if column.key not in above.history.c:
                above.history.append_column(_copy(column))
        tables = (*parent.tables[:-1], RecordTable(table, above.history, above.key, [*above.state, *added]))
    else:
        key_columns = _child_key(mapper, table, parent)
        for name in parent.columns:
            merged = [column for column in mapper.get_property(name).columns if column.table is table]
            if merged and merged[0] not in key_columns:
                raise UnsupportedMappingError(
                    mapper.class_.__name__, f"{name} is a column of two tables; give the attributes different names"
                )
        state = [column for column in _state(own, options, ()) if column not in key_columns]
        kept = [*state, *_dropped_here(options, parent)]
        history_table = _child_history_table(table, options, key_columns, kept)
        tables = (*parent.tables, RecordTable(table, history_table, key_columns, state))
        own = {name: column for name, column in own.items() if column not in key_columns}
    return _versioning(mapper, options, tables, parent.key, {**parent.columns, **own}, parent.version)


def _versioning(
    mapper: Mapper[Any],
    options: Options,
    tables: tuple[RecordTable, ...],
    key: tuple[str, ...],
    columns: _Columns,
    version: sa.Column[int],
) -> Versioning:
    model: Any = mapper.class_
    left_out = {*options.hidden, *options.untracked}
    described = {"__module__": model.__module__, "__doc__": f"The history of {model.__name__}."}
    history: Any = type(f"{model.__name__}History", (History,), described)
    tracked = {name: column for name, column in columns.items() if name not in left_out}
    check_held(model.__name__, RETENTION, options.retention, tracked)
    return Versioning(
        model=model,
        mapper=mapper,
        tables=tables,
        options=options,
        key=key,
        columns=columns,
        tracked=tracked,
        hidden={name: columns[name] for name in options.hidden},
        untracked={name: columns[name] for name in options.untracked},
        dropped={
            name: next(one.history.c[column.key] for one in tables if column.key in one.history.c)
            for name, column in options.dropped.items()
        },
        version=version,
        stamped=frozenset(
            name
            for name, column in columns.items()
            if name not in options.untracked
            and (column.onupdate is not None or column.server_onupdate is not None or column is mapper.version_id_col)
        ),
        history=history,
    )


def _map_history(versioning: Versioning) -> None:
    """Map the class of history rows, to the join of the history tables where there are several."""
    names = versioning.options.names
    first, *others = versioning.tables
    rows: Any = first.history
    version = first.history.c[names.version]
    identity = [(version, *(one.history.c[names.version] for one in others))]
    for position, column in enumerate(first.key):
        identity.append((first.history.c[column.key], *(one.history.c[one.key[position].key] for one in others)))
    for number, one in enumerate(others, start=1):
        rows = rows.join(one.history, sa.and_(*(columns[0] == columns[number] for columns in identity)))
    kept = {column: one.history.c[column.key] for one in versioning.tables for column in (*one.key, *one.state)}
    properties: dict[str, Any] = {
        name: kept[column] for name, column in versioning.tracked.items() if name not in versioning.key
    }
    properties |= {
        name: list(columns) for name, columns in zip((names.version, *versioning.key), identity, strict=True)
    }
    properties |= versioning.dropped
    began = versioning.began([first.history.c[column.key] for column in first.key], version)
    versioning.mapper.registry.map_imperatively(
        versioning.history,
        rows,
        primary_key=[*(first.history.c[column.key] for column in first.key), version],
        properties={**properties, names.valid_from: column_property(began, deferred=True)},
        # A parent's history table has the columns of all models whose rows it holds.
        include_properties=[*properties, names.operation, names.changed, names.change_info, names.transaction_id],
    )


def _state(columns: _Columns, options: Options, key: Sequence[str]) -> list[sa.Column[Any]]:
    left_out = {*options.hidden, *options.untracked, *key}
    return [column for name, column in columns.items() if name not in left_out]


def _dropped_here(options: Options, parent: Versioning) -> list[sa.Column[Any]]:
    return [column for name, column in options.dropped.items() if name not in parent.dropped]


def _child_key(mapper: Mapper[Any], table: sa.Table, parent: Versioning) -> list[sa.Column[Any]]:
    """The columns of a joined model's own table that refer to the record key, in mapping order."""
    referring: dict[sa.Column[Any], sa.Column[Any]] = {}
    for condition in visitors.iterate(mapper.inherit_condition) if mapper.inherit_condition is not None else ():
        if isinstance(condition, sa.BinaryExpression):
            pair: list[Any] = [condition.left, condition.right]
            child, other = pair if pair[0].table is table else pair[::-1]
            referring[other] = child
    keys = zip(*(one.key for one in parent.tables), strict=True)
    return [next(referring[column] for column in columns if column in referring) for columns in keys]


def _refuse_wrapped_keys(mapper: Mapper[Any]) -> None:
    """:raises UnsupportedMappingError: a key is another value in the database than in Python, by an SQL expression"""
    for column in mapper.primary_key:
        for type_ in (column.type, *column.type._variant_mapping.values()):
            if type_._has_bind_expression or type_._has_column_expression:
                raise UnsupportedMappingError(
                    mapper.class_.__name__,
                    f"the type of the key column {column.name} has a bind_expression or a column_expression, so that "
                    "records would not be found by their keys; convert in process_bind_param and process_result_value",
                )


def _refuse_contradictions(versioning: Versioning) -> None:
    """:raises OptionError: another model of the same table versions a column in another way"""
    for mapper in versioning.mapper.base_mapper.self_and_descendants:
        other: Versioning | None = vars(mapper.class_).get("__chrononaut__")
        if other is None or other.tables[-1].live is not versioning.tables[-1].live:
            continue
        for name, column in versioning.columns.items():
            same_name = other.columns.get(name, column) is column
            hidden_differently = any(
                (kept.get(name) is column) != (column in others.values())
                for kept, others in (
                    (versioning.hidden, other.hidden),
                    (versioning.untracked, other.untracked),
                )
                if column in other.columns.values()
            )
            if hidden_differently or (not same_name and (name in versioning.hidden or name in other.hidden)):
                raise OptionError(
                    versioning.name,
                    name,
                    f"{other.name} has the same column or attribute in the same table, and hides or ignores it "
                    "otherwise; declare it at both, or at the model they inherit from",
                )


def _lets_rows_give_way(table: sa.Table) -> bool:
    clauses = [
        value for described in (*table.constraints, *table.columns) for value in described.dialect_kwargs.values()
    ]
    return any(isinstance(value, str) and value.upper() in ("REPLACE", "IGNORE") for value in clauses)


def _cascades(constraint: sa.ForeignKeyConstraint) -> bool:
    actions = {(action or "no action").lower() for action in (constraint.ondelete, constraint.onupdate)}
    return not actions <= {"no action", "restrict"}


def _history_table(
    table: sa.Table, options: Options, key: Sequence[sa.Column[Any]], state: Sequence[sa.Column[Any]]
) -> sa.Table:
    names = options.names
    key_columns = [_copy(column, primary_key=True) for column in key]
    version: sa.Column[int] = sa.Column(names.version, sa.Integer, primary_key=True, autoincrement=False)
    changed: sa.Column[datetime] = sa.Column(names.changed, Instant, nullable=False)
    transaction_id: sa.Column[UUID] = sa.Column(names.transaction_id, sa.Uuid(), nullable=False)
    history_table = sa.Table(
        options.history_table,
        table.metadata,
        *key_columns,
        version,
        *(_copy(column) for column in state),
        sa.Column(names.operation, sa.String(6), nullable=False),
        changed,
        sa.Column(names.change_info, JSONDocument, nullable=False),
        transaction_id,
        schema=table.schema,
    )
    # Each ends with what orders equal instants, so that nothing is sorted: a record as of an instant; the changes of
    # all records, newest first; those of one transaction.
    for what, columns in (
        ("changed", (*key_columns, changed, version)),
        ("feed", (changed, *key_columns, version)),
        ("transaction", (transaction_id,)),
    ):
        sa.Index(_shortened(f"ix_{options.history_table}_{what}"), *columns)
    _make_after(history_table, table)
    return history_table


def _child_history_table(
    table: sa.Table, options: Options, key: Sequence[sa.Column[Any]], state: Sequence[sa.Column[Any]]
) -> sa.Table:
    """The history table of a table that has further columns of records: what happened is in that of the first table."""
    history_table = sa.Table(
        options.history_table,
        table.metadata,
        *(_copy(column, primary_key=True) for column in key),
        sa.Column(options.names.version, sa.Integer, primary_key=True, autoincrement=False),
        *(_copy(column) for column in state),
        schema=table.schema,
    )
    _make_after(history_table, table)
    return history_table


def _make_after(history_table: sa.Table, table: sa.Table) -> None:
    """Let a history table be made after the live one, also where a migration does it: with that its types are made."""
    history_table.add_is_dependent_on(table)


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
        column.name,
        type_,
        key=column.key,
        primary_key=primary_key,
        nullable=not primary_key,
        autoincrement=False,
        # SQLAlchemy's `Mutable` finds the columns of its type by it.
        info=dict(column.info),
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


@event.listens_for(Mapper, "mapper_configured")
def _refuse_uncaptured(mapper: Mapper[Any], model: type) -> None:
    try:
        _refuse_late_columns(mapper)
        _refuse_uncaptured_cascades(mapper)
    except UnsupportedMappingError:
        # SQLAlchemy takes it for configured by now, and would not ask again when it is used once more.
        mapper.configured = False
        raise


def _refuse_late_columns(mapper: Mapper[Any]) -> None:
    versioning: Versioning | None = vars(mapper.class_).get("__chrononaut__")
    if versioning is None or versioning.mapper is not mapper:
        return
    # A key takes its type from the one that its foreign key refers to, in a table that may come later.
    _refuse_wrapped_keys(mapper)
    known = {*versioning.columns.values(), versioning.version, *(key for one in versioning.tables for key in one.key)}
    if late := [name for name, column in state_columns(mapper).items() if column not in known]:
        raise UnsupportedMappingError(
            versioning.name, f"{', '.join(late)} came after its history table was made; declare it in the class's body"
        )


def _refuse_uncaptured_cascades(mapper: Mapper[Any]) -> None:
    # What is not configured yet is looked at when it is. But a backref comes to the other side's mapper later than that
    # may have been, and so may the model of a secondary table.
    others = {relationship.mapper for relationship in mapper.relationships if relationship.mapper.configured}
    backrefs = [one for other in others for one in other.relationships if one.mapper is mapper]
    configured = [other for other in mapper.registry.mappers if other.configured]
    through = [one for other in configured for one in other.relationships if one.secondary is mapper.local_table]
    for relationship in (*mapper.relationships, *backrefs, *through):
        _refuse_uncaptured_cascade(relationship)


def _refuse_uncaptured_cascade(relationship: RelationshipProperty[Any]) -> None:
    written: Any = {
        RelationshipDirection.ONETOMANY: relationship.mapper.local_table,
        RelationshipDirection.MANYTOONE: relationship.parent.local_table,
        RelationshipDirection.MANYTOMANY: relationship.secondary,
    }[relationship.direction]
    versioning = versioning_of_table(written)
    if versioning is None or versioning.is_history(written):
        return
    if relationship.post_update and relationship.direction is not RelationshipDirection.MANYTOMANY:
        cascade = "post_update=True"
    elif relationship.passive_deletes and relationship.direction is not RelationshipDirection.MANYTOONE:
        cascade = f"passive_deletes={relationship.passive_deletes!r}"
    else:
        return
    raise UnsupportedMappingError(
        versioning.name, f"{relationship} has {cascade}, by which it would change without history; remove it"
    )

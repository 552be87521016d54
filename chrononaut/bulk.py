"""Statements that write many records at once: `update()`, `delete()` and `insert()`, executed by the session.

They are rewritten before they are executed, so that the statement itself counts the versions of what it changes:

* PostgreSQL does all of it in one statement: a CTE locks the rows that the criteria match and computes what they are
  set to, a second one writes the history rows of those that really change, and the statement then writes exactly the
  rows that were locked.
* Elsewhere (SQLite, whose write lock is the whole transaction's) an INSERT … SELECT with the criteria of the statement
  goes first, and the statement counts the rows that it has archived.
* Of an INSERT, the database returns the keys of what it has inserted.

Rows that are set to what they were are written, as without history, and keep their version.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.engine import Connection, CursorResult
from sqlalchemy.sql import visitors
from sqlalchemy.sql.dml import UpdateBase

from chrononaut.archive import (
    CLOCK,
    OPTIONS,
    OWN,
    Transaction,
    fix_instant,
    insert_into,
    is_postgresql,
    never_backwards,
)
from chrononaut.exceptions import UncapturedWriteError
from chrononaut.history import NEVER, Key, Versioning
from chrononaut.types import Instant, JSONDocument, JSONObject, is_distinct, now, with_names

Parameters = Sequence[Mapping[str, Any]]

# Functions of SQLite that answer the same when they are asked again.
_PURE = frozenset(
    {
        *("abs", "char", "coalesce", "concat", "count", "hex", "ifnull", "iif", "instr", "length", "lower", "ltrim"),
        *("max", "min", "nullif", "printf", "quote", "replace", "round", "rtrim", "sign", "substr", "substring", "sum"),
        *("total", "trim", "unhex", "unicode", "upper", "json", "json_array", "json_extract", "json_insert"),
        *("json_object", "json_patch", "json_remove", "json_replace", "json_set", "json_valid"),
    }
)


@dataclass(frozen=True, slots=True)
class _Write:
    """An UPDATE or a DELETE of a versioned table, resolved to columns.

    :ivar target: the table, or the alias of it that the statement writes
    :ivar criteria: its WHERE clause, with what the mapper adds to it
    :ivar values: column key → what an UPDATE sets, as an SQL expression
    :ivar given: the keys of the columns that an UPDATE sets by the parameters it is executed with
    :ivar joins: does it draw on further tables (UPDATE … FROM, DELETE … USING)?
    """

    versioning: Versioning
    statement: sa.Update | sa.Delete
    target: Any
    criteria: Sequence[sa.ColumnElement[bool]]
    values: Mapping[str, sa.ColumnElement[Any]]
    given: frozenset[str]
    joins: bool

    @property
    def operation(self) -> str:
        return self.statement.__visit_name__

    @property
    def key(self) -> list[str]:
        return [column.key for column in self.versioning.key_columns]

    @property
    def archived(self) -> list[str]:
        """The keys of the columns that history keeps."""
        (table,) = self.versioning.tables
        columns = [*table.key, *self.versioning.tracked.values(), self.versioning.version]
        return list(dict.fromkeys(column.key for column in columns))

    @property
    def replaced(self) -> dict[str, sa.Column[Any]]:
        """The columns, by key, whose change makes a version."""
        columns = [*self.versioning.tracked.values(), *self.versioning.hidden.values()]
        return {column.key: column for column in columns if column.key in self.values or column.key in self.given}

    @property
    def stamps(self) -> bool:
        """Does the UPDATE set further columns by itself, by their ``onupdate``?"""
        columns = [self.versioning.columns[name] for name in self.versioning.stamped]
        return any(
            (column.onupdate is not None or column.server_onupdate is not None)
            and column.key not in self.values
            and column.key not in self.given
            for column in columns
        )


def captured(
    statement: sa.Update | sa.Delete,
    parameters: Parameters,
    versioning: Versioning,
    connection: Connection,
    transaction: Transaction,
    document: JSONObject,
) -> tuple[sa.Update | sa.Delete, Parameters]:
    """An UPDATE or DELETE that leaves history, with its parameters; on SQLite the history is written at once.

    :param document: the change info
    :raises UncapturedWriteError: the statement cannot be captured exactly
    """
    refuse_joined(versioning, statement)
    write = _resolved(statement, parameters, versioning.whole(), connection)
    if write.operation == "update" and not (write.replaced or write.stamps):
        return statement, parameters
    fix_instant(connection, transaction)
    for column in sorted(write.given):
        parameters = [{**row, _given(column): row[column]} for row in parameters]
    if is_postgresql(connection):
        return _in_one_statement(write, connection, transaction, document), parameters
    if write.joins:
        raise UncapturedWriteError(
            versioning.table.name,
            f"a{'n UPDATE … FROM' if write.operation == 'update' else ' DELETE … USING'}",
            "use a subquery in values() and where()",
        )
    archiving = _archiving(write, connection, transaction, document, once=len(parameters) > 1)
    connection.execute(archiving, list(parameters) or None, execution_options=OPTIONS)
    return _after_archiving(write), parameters


def refuse_joined(versioning: Versioning, statement: UpdateBase) -> None:
    """:raises UncapturedWriteError: the records of the model have rows in several tables, or may have"""
    if any(len(one.tables) > 1 for one in versioning.hierarchy):
        raise UncapturedWriteError(
            versioning.table.name, f"this {statement.__visit_name__.upper()} of a model with joined inheritance"
        )


def _resolved(
    statement: sa.Update | sa.Delete, parameters: Parameters, versioning: Versioning, connection: Connection
) -> _Write:
    names = frozenset(parameters[0]) if parameters else frozenset()
    compiled: Any = statement.compile(dialect=connection.dialect, column_keys=sorted(names))
    # What the ORM makes of its statement: entities are tables, attributes are columns, criteria are complete.
    state = compiled.compile_state
    target: Any = state.statement.table
    table = target
    while not isinstance(table, sa.TableClause):
        table = table.element
    if table != versioning.table:
        raise UncapturedWriteError(
            versioning.table.name,
            f"this {statement.__visit_name__.upper()} of another description of the table",
            f"use {versioning.name}.__table__",
        )
    values: dict[str, Any] = {}
    for column, value in (getattr(state, "_dict_parameters", None) or {}).items():
        key = column if isinstance(column, str) else str(getattr(column, "key", column))
        if key not in versioning.table.c.keys():  # noqa: SIM118
            raise UncapturedWriteError(versioning.table.name, f"setting {column}", "set the whole column")
        values[key] = value
    # The version is nobody's to set.
    values.pop(versioning.version.key, None)
    write = _Write(
        versioning=versioning,
        statement=statement,
        target=target,
        criteria=state.statement._where_criteria,
        values={key: _expression(versioning.table.c[key], value) for key, value in values.items()},
        given=_given_columns(statement, names, versioning) - values.keys(),
        joins=bool(state.is_multitable),
    )
    if moved := [key for key in write.key if key in write.values or key in write.given]:
        raise UncapturedWriteError(
            versioning.table.name,
            f"changing the primary key ({', '.join(moved)}) by an UPDATE",
            "set it on objects in the session instead",
        )
    return write


def _given_columns(
    statement: sa.Update | sa.Delete, parameters: frozenset[str], versioning: Versioning
) -> frozenset[str]:
    if isinstance(statement, sa.Delete):
        return frozenset()
    return (parameters & {*versioning.table.c.keys()}) - {versioning.version.key}


def _expression(column: sa.Column[Any], value: Any) -> sa.ColumnElement[Any]:
    """A value to be set, as an expression that may stand in the statement once more."""
    if not isinstance(value, sa.ClauseElement):
        return bindparam(None, value, type_=column.type)
    if isinstance(value, sa.BindParameter) and value.unique:
        return bindparam(None, value.effective_value, type_=column.type)
    assert isinstance(value, sa.ColumnElement)
    return value


def _given(column: str) -> str:
    return f"{OWN}given_{column}"


def _set_to(write: _Write, column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """What an UPDATE sets a column to."""
    if column.key in write.given:
        return bindparam(_given(column.key), type_=column.type)
    return write.values[column.key]


def _document(
    write: _Write, document: JSONObject, hidden: Mapping[str, sa.ColumnElement[bool]], connection: Connection
) -> sa.ColumnElement[Any]:
    stored = bindparam(None, document, type_=JSONDocument)
    return with_names(stored, "hidden_cols_changed", hidden, connection.dialect.name)


def _hidden(write: _Write, conditions: Mapping[str, sa.ColumnElement[bool]]) -> dict[str, sa.ColumnElement[bool]]:
    """Hidden attribute → does its value change?

    :param conditions: the same by column key
    """
    hidden = write.versioning.hidden
    return {
        name: sa.true()
        if column.key not in write.replaced and name in write.versioning.stamped
        else conditions[column.key]
        for name, column in hidden.items()
        if column.key in conditions or name in write.versioning.stamped
    }


def _same_key(write: _Write, one: Any, other: Any) -> list[sa.ColumnElement[bool]]:
    return [one[key] == other[key] for key in write.key]


# PostgreSQL


def _in_one_statement(
    write: _Write, connection: Connection, transaction: Transaction, document: JSONObject
) -> sa.Update | sa.Delete:
    versioning, target = write.versioning, write.target
    version = versioning.version.key
    # An expression is computed once, so that what is compared is what is set.
    computed = {
        key: sa.type_coerce(value, versioning.table.c[key].type).label(f"{OWN}{number}")
        for number, (key, value) in enumerate(write.values.items())
        if not isinstance(value, (sa.BindParameter, sa.Null))
    }
    hidden = {column.key for column in versioning.hidden.values()}
    compared = [key for key in hidden if write.operation == "delete" or key in write.replaced]
    locked: Any = (
        sa.select(*(target.c[key] for key in (*write.archived, *compared)), *computed.values())
        .select_from(target)
        .where(*write.criteria)
        .order_by(*(target.c[key] for key in write.key))
        .with_for_update(of=target, key_share=write.operation == "update")
        .cte(f"{OWN}locked")
        .prefix_with("MATERIALIZED")
    )
    if write.joins:
        # The database would take any one of the rows that it is joined with.
        keys = [locked.c[key] for key in write.key]
        locked = sa.select(locked).distinct(*keys).order_by(*keys).cte(f"{OWN}chosen").prefix_with("MATERIALIZED")
    new = {key: locked.c[label.key] for key, label in computed.items()}
    if write.operation == "update":
        conditions = {
            key: is_distinct(locked.c[key], new.get(key, _set_to(write, column)), connection.dialect)
            for key, column in write.replaced.items()
        }
        changes = sa.true() if write.stamps else sa.or_(*conditions.values())
    else:
        conditions = {key: locked.c[key].is_not(None) for key in compared}
        changes = sa.true()
    hidden_named = _document(write, document, _hidden(write, conditions), connection)
    archived = insert_into(
        _history_values(write, locked.c, transaction, hidden_named, connection),
        # A row whose key another transaction has just changed was locked, and the statement does not find it.
        sa.select()
        .select_from(locked.join(seen := versioning.table.alias(), sa.and_(*_same_key(write, seen.c, locked.c))))
        .where(changes),
    ).cte(f"{OWN}archived")
    statement: Any = write.statement._clone()
    statement._where_criteria = tuple(_same_key(write, target.c, locked.c))
    if write.operation == "update":
        counted = locked.c[version] + sa.case((changes, 1), else_=0)
        _set(statement, write, {**write.values, **new, version: counted})
    captured: sa.Update | sa.Delete = statement.add_cte(archived)
    return captured


def _set(statement: Any, write: _Write, values: Mapping[str, Any]) -> None:
    table = write.versioning.table
    statement._values = {table.c[key]: value for key, value in values.items()}
    # SQLAlchemy 2.0 keeps the values of ordered_values() apart.
    if getattr(statement, "_ordered_values", None):
        statement._ordered_values = None


# Elsewhere


def _archiving(
    write: _Write, connection: Connection, transaction: Transaction, document: JSONObject, once: bool
) -> sa.Insert:
    """The history rows of what the statement is going to change.

    :param once: is it executed for several sets of parameters, of which two may match the same row?
    """
    versioning, target = write.versioning, write.target
    if write.operation == "update":
        conditions = {
            key: is_distinct(target.c[key], _set_to(write, column), connection.dialect)
            if key in write.given or _is_pure(write.values[key])
            else sa.true()
            for key, column in write.replaced.items()
        }
        changes = sa.true() if write.stamps else sa.or_(*conditions.values())
    else:
        conditions = {column.key: target.c[column.key].is_not(None) for column in versioning.hidden.values()}
        changes = sa.true()
    select = sa.select().select_from(target).where(*write.criteria, changes)
    if once:
        select = select.where(~_is_archived(write))
    hidden = _document(write, document, _hidden(write, conditions), connection)
    return insert_into(_history_values(write, target.c, transaction, hidden, connection), select)


def _after_archiving(write: _Write) -> Any:
    versioning, target = write.versioning, write.target
    statement: Any = write.statement._clone()
    if not all(map(_is_pure, write.criteria)):
        # They might match other rows when they are asked again.
        statement._where_criteria = (_is_archived(write),)
    if write.operation == "update":
        version = versioning.version.key
        _set(
            statement, write, {**write.values, version: target.c[version] + sa.case((_is_archived(write), 1), else_=0)}
        )
    return statement


def _is_archived(write: _Write) -> sa.ColumnElement[bool]:
    """Is the current state of a row in its history already?"""
    target, version = write.target, write.versioning.version.key
    history = write.versioning.history_table.alias()
    return (
        sa.exists()
        .where(
            *_same_key(write, history.c, target.c),
            history.c[write.versioning.options.names.version] == target.c[version],
        )
        .correlate(target)
    )


def _is_pure(expression: sa.ColumnElement[Any]) -> bool:
    """Does an expression give the same value when the database is asked again?"""
    for element in visitors.iterate(expression):
        if isinstance(element, sa.sql.functions.FunctionElement):
            if getattr(element, "name", None) not in _PURE:
                return False
        elif isinstance(element, sa.TextClause) or getattr(element, "is_literal", False):
            return False
    return True


# Both


def _history_values(
    write: _Write, row: Any, transaction: Transaction, document: sa.ColumnElement[Any], connection: Connection
) -> dict[sa.Column[Any], Any]:
    """History column → what is archived in it.

    :param row: the columns of the row that is archived, by key
    """
    versioning = write.versioning
    names = versioning.options.names
    version = row[versioning.version.key]
    before = versioning.history_table.alias()
    earlier = (
        sa.select(before.c[names.changed])
        .where(*_same_key(write, before.c, row), before.c[names.version] == version - 1)
        .correlate_except(before)
        .scalar_subquery()
    )
    instant: sa.ColumnElement[Any] = bindparam(None, transaction.instant, type_=Instant)
    clock = CLOCK if is_postgresql(connection) else bindparam(None, now(), type_=Instant)
    # The history of a transaction that the statement waited for is there, but the statement does not see it.
    first = sa.and_(earlier.is_(None), version == NEVER + 1)
    return {
        **{versioning.history_table.c[key]: row[key] for key in write.archived},
        versioning.column("operation"): sa.literal(write.operation),
        versioning.column("changed"): never_backwards(earlier, instant, clock, first),
        versioning.column("change_info"): document,
        versioning.column("transaction_id"): bindparam(None, transaction.id, type_=sa.Uuid()),
    }


# Inserts


def numbered(statement: sa.Insert, parameters: Parameters, versioning: Versioning) -> sa.Insert:
    """An INSERT that leaves the version to be counted.

    :raises UncapturedWriteError: what it inserts or replaces cannot be known
    """
    refuse_joined(versioning, statement)
    table, version = versioning.table, versioning.version.key
    upsert = statement._post_values_clause
    if upsert is not None and upsert.__visit_name__ != "on_conflict_do_nothing":
        raise UncapturedWriteError(
            table.name, "an INSERT that updates", "insert with on_conflict_do_nothing(), then update() what was there"
        )
    if any("replace" in str(prefix).lower() for prefix, _ in statement._prefixes):
        raise UncapturedWriteError(table.name, "INSERT OR REPLACE", "delete() first, then insert()")
    if statement.table != table:
        raise UncapturedWriteError(
            table.name, "this INSERT into another description of the table", f"use {versioning.name}.__table__"
        )
    if version not in {*(parameters[0] if parameters else ()), *_names(statement)}:
        return statement
    if _names_several_rows(statement):
        raise UncapturedWriteError(table.name, f"setting {version}", "leave it out: it is counted")
    return statement.values({versioning.version: NEVER + 1})


def returning_keys(statement: sa.Insert, parameters: Parameters, versioning: Versioning) -> sa.Insert:
    """An INSERT whose result tells the keys of what it has inserted, by `inserted_keys`."""
    keys = versioning.key_columns
    if _names_several_rows(statement) or statement._post_values_clause is not None:
        return statement.returning(*keys)
    if statement._return_defaults:
        return statement
    if len(parameters) > 1 and all(row.get(column.key) is not None for row in parameters for column in keys):
        return statement
    return statement.return_defaults(*keys)


def _names_several_rows(statement: Any) -> bool:
    return bool(statement._multi_values or statement._select_names)


def _names(statement: Any) -> set[str]:
    """The columns that an INSERT names in its VALUES or as those of its SELECT."""
    rows = [row for group in statement._multi_values for row in group] or [statement._values or ()]
    named = [*(name for row in rows if isinstance(row, Mapping) for name in row), *(statement._select_names or ())]
    return {name if isinstance(name, str) else name.key for name in named}


def inserted_keys(result: CursorResult[Any], versioning: Versioning) -> list[Key]:
    """The keys of what an INSERT has inserted that was made by `returning_keys`."""
    statement: Any = result.context.invoked_statement
    if statement._returning:
        return [tuple(row) for row in result.all()]
    rows: list[Any] = result.inserted_primary_key_rows
    order = [list(versioning.table.primary_key).index(column) for column in versioning.key_columns]
    return [tuple(row[index] for index in order) for row in rows]

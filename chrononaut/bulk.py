"""Statements that change many records at once: `update()` and `delete()`, executed by the session.

They are rewritten before they are executed, so that the statement itself counts the versions of what it changes:

* PostgreSQL does all of it in one statement: a CTE locks the rows that the criteria match and computes what they are
  set to, a second one writes the history rows of those that really change, and the statement then writes exactly the
  rows that were locked.
* Elsewhere (SQLite, whose write lock is the whole transaction's) an INSERT … SELECT with the criteria of the statement
  goes first, and the statement counts the rows that it has archived.

Rows that are set to what they were are written, as without history, and keep their version.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.engine import Connection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import visitors
from sqlalchemy.sql.annotation import Annotated
from sqlalchemy.sql.elements import Grouping
from sqlalchemy.sql.operators import custom_op

from chrononaut.archive import OPTIONS, Transaction, fix_instant, is_postgresql
from chrononaut.archive_statements import CLOCK, insert_into, never_backwards
from chrononaut.exceptions import UncapturedWriteError
from chrononaut.history import NEVER, Versioning
from chrononaut.reasons import refuse_unreasoned
from chrononaut.records import OWN
from chrononaut.statements import Parameters, models_of, refuse_joined, target
from chrononaut.types import Instant, JSONDocument, JSONObject, is_distinct, now, with_names

# What is the same when SQLite is asked again, by lists, since of anything else nothing is known. SQLAlchemy's own
# elements, by their visit names;
_PURE_ELEMENTS = frozenset(
    {
        *(
            "alias",
            "binary",
            "bindparam",
            "case",
            "cast",
            "clauselist",
            "collation",
            "column",
            "compound_select",
            "cte",
        ),
        *("expression_clauselist", "extract", "false", "funcfilter", "function", "grouping", "join", "label"),
        *("label_reference", "lambda_element", "memoized_select_entities", "null", "over", "select"),
        *("select_statement_grouping", "subquery", "table", "textual_label_reference", "true", "tuple", "type_coerce"),
        *("unary", "values"),
    }
)
# functions;
_PURE_FUNCTIONS = frozenset(
    {
        *("abs", "char", "coalesce", "concat", "count", "hex", "ifnull", "iif", "instr", "length", "lower", "ltrim"),
        *("max", "min", "nullif", "printf", "quote", "replace", "round", "rtrim", "sign", "substr", "substring", "sum"),
        *("total", "trim", "unhex", "unicode", "upper", "json", "json_array", "json_extract", "json_insert"),
        *("json_object", "json_patch", "json_remove", "json_replace", "json_set", "json_valid"),
    }
)
# text, as in EXISTS (SELECT *), count(*) and EXISTS (SELECT 1);
_PURE_TEXT = r"\*|\d+"
# operators that are given as text.
_PURE_OPERATORS = r"[-+*/%&|<>=~!]+|(not )?(glob|like|match|regexp)"


@dataclass(frozen=True, slots=True)
class _Write:
    """An UPDATE or a DELETE of a versioned table, resolved to columns.

    :ivar target: the table, or the alias of it that the statement writes
    :ivar criteria: its WHERE clause, with what the mapper adds to it
    :ivar values: column key → what an UPDATE sets, as an SQL expression
    :ivar given: the keys of the columns that an UPDATE sets by the parameters it is executed with
    :ivar joins: does it draw on further tables (UPDATE … FROM, DELETE … USING)?
    :ivar sets_version: does it name the version among what it sets?
    """

    versioning: Versioning
    statement: sa.Update | sa.Delete
    target: Any
    criteria: Sequence[sa.ColumnElement[bool]]
    values: Mapping[str, sa.ColumnElement[Any]]
    given: frozenset[str]
    joins: bool
    sets_version: bool

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
        return {column.key: column for column in columns if self.sets(column)}

    @property
    def stamps(self) -> bool:
        """Does the UPDATE set further columns by itself, by their ``onupdate``, or as they are computed?"""
        columns = [self.versioning.columns[name] for name in self.versioning.stamped]
        # What is computed from versioned columns changes with them.
        untracked = any(self.sets(column) for column in self.versioning.untracked.values())
        return any(
            (column.onupdate is not None or column.server_onupdate is not None)
            and (column.computed is None or untracked)
            and not self.sets(column)
            for column in columns
        )

    @property
    def finds_same_rows(self) -> bool:
        """Do the criteria match the same rows when they are asked again, after history was written?"""
        return all(_is_pure(criterion, self.versioning.history_table) for criterion in self.criteria)

    def sets(self, column: sa.Column[Any]) -> bool:
        """Does the UPDATE name a column among what it sets?"""
        return column.key in self.values or column.key in self.given


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
    :raises MissingChangeInfoError: it does not say what it must
    :raises UncapturedWriteError: the statement cannot be captured exactly
    """
    if any(str(prefix).lower().startswith("or ") for prefix, _ in statement._prefixes):
        raise UncapturedWriteError(versioning.table.name, "UPDATE OR …", "leave the conflict to be an error")
    refuse_joined(versioning, statement)
    write = _resolved(statement, parameters, versioning.whole(), connection)
    if write.operation == "update" and not (write.replaced or write.stamps):
        return _leaving_version(write) if write.sets_version else statement, parameters
    for model in models_of(statement, versioning):
        refuse_unreasoned(model, write.operation, document)
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
    if len(parameters) > 1 and not _independent(write):
        raise UncapturedWriteError(
            versioning.table.name,
            f"this {write.operation.upper()} for several sets of parameters, of which one may change what others find,",
            "execute it once for each set",
        )
    archiving = _archiving(write, connection, transaction, document, once=len(parameters) > 1)
    connection.execute(archiving, list(parameters) or None, execution_options=OPTIONS)
    return _after_archiving(write), parameters


def _resolved(
    statement: sa.Update | sa.Delete, parameters: Parameters, versioning: Versioning, connection: Connection
) -> _Write:
    names = frozenset(parameters[0]) if parameters else frozenset()
    compiled: Any = statement.compile(dialect=connection.dialect, column_keys=sorted(names))
    # What the ORM makes of its statement: entities are tables, attributes are columns, criteria are complete.
    state = compiled.compile_state
    written: Any = state.statement
    if target(written) != versioning.table:
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
    version = versioning.version.key
    sets_version = version in names or values.pop(version, None) is not None
    write = _Write(
        versioning=versioning,
        statement=statement,
        target=written.table,
        criteria=written._where_criteria,
        values={key: _expression(versioning.table.c[key], value) for key, value in values.items()},
        given=_given_columns(statement, names, versioning) - values.keys(),
        joins=bool(state.is_multitable),
        sets_version=sets_version,
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
        type_ = column.type if isinstance(value.type, sa.types.NullType) else value.type
        return bindparam(None, value.effective_value, type_=type_)
    if isinstance(value, sa.TextClause):
        return Grouping(value)
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
    stamped = write.versioning.stamped if write.operation == "update" else ()
    return {
        name: conditions.get(column.key, sa.true())
        for name, column in hidden.items()
        if column.key in conditions or name in stamped
    }


def _same_key(write: _Write, one: Any, other: Any) -> list[sa.ColumnElement[bool]]:
    return [one[key] == other[key] for key in write.key]


# PostgreSQL


class _InsertInWith(sa.Insert):
    """An INSERT in the WITH clause of another write."""

    inherit_cache = True


@compiles(_InsertInWith)
def _compile_insert_in_with(insert: _InsertInWith, compiler: Any, **options: Any) -> str:
    # SQLAlchemy's compiler notes of one write at a time what it returns by itself and which defaults it has.
    noted = ("implicit_returning", "insert_prefetch", "update_prefetch", "postfetch", "_get_bind_name_for_col")
    of_outer = {name: getattr(compiler, name) for name in noted}
    text: str = compiler.visit_insert(insert, **options)
    for name, value in of_outer.items():
        setattr(compiler, name, value)
    return text


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
    hidden = [column.key for column in versioning.hidden.values()]
    compared = [key for key in hidden if write.operation == "delete" or key in write.replaced]
    # Names of our own: text SQL in a RETURNING or an onupdate may name the table's without the table.
    read = {key: target.c[key].label(f"{OWN}was_{number}") for number, key in enumerate((*write.archived, *compared))}
    # A row whose key another transaction has just changed is no longer the one that the statement will find by it.
    keys = [column.label(f"{OWN}key_{number}") for number, column in enumerate(versioning.key_columns)]
    seen = sa.select(*keys).subquery(f"{OWN}seen")
    same = sa.and_(*(target.c[key] == seen.c[label.key] for key, label in zip(write.key, keys, strict=True)))
    # Before history is written: by a plan that was made when it was empty, that would read more and more of it.
    began = versioning.began([target.c[key] for key in write.key], target.c[version]).label(f"{OWN}before")
    locked: Any = (
        sa.select(*read.values(), *computed.values(), began)
        .select_from(sa.join(target, seen, same))
        .where(*write.criteria)
        .order_by(*(target.c[key] for key in write.key))
        .with_for_update(of=target, key_share=write.operation == "update")
        .cte(f"{OWN}locked")
        .prefix_with("MATERIALIZED")
    )
    if write.joins:
        named = {column.table for clause in write.statement._returning for column in _columns_in(clause)}
        if any(table not in (target, versioning.table) for table in named):
            raise UncapturedWriteError(
                versioning.table.name, "RETURNING of what is joined", f"return only columns of {versioning.name}"
            )
        # The database would take any one of the rows that it is joined with.
        number = (
            sa.func.row_number().over(partition_by=[locked.c[read[key].key] for key in write.key]).label(f"{OWN}number")
        )
        each = sa.select(locked, number).subquery()
        locked = sa.select(each).where(each.c[number.name] == 1).cte(f"{OWN}chosen").prefix_with("MATERIALIZED")
    old = {key: locked.c[label.key] for key, label in read.items()}
    new = {key: locked.c[label.key] for key, label in computed.items()}
    if write.operation == "update":
        conditions = {
            # What is computed may have digits that the column does not keep.
            key: is_distinct(
                old[key], sa.cast(new[key], column.type) if key in new else _set_to(write, column), connection.dialect
            )
            for key, column in write.replaced.items()
        }
        changes = sa.true() if write.stamps else sa.or_(*conditions.values())
    else:
        conditions = {key: old[key].is_not(None) for key in compared}
        changes = sa.true()
    hidden_named = _document(write, document, _hidden(write, conditions), connection)
    values = _history_values(write, old, locked.c[began.key], transaction, hidden_named, connection)
    source = sa.select(*values.values()).select_from(locked).where(changes)
    history = _InsertInWith(versioning.history_table).from_select(list(values), source, include_defaults=False)
    archived = history.cte(f"{OWN}archived")
    statement: Any = write.statement._clone()
    statement._where_criteria = tuple(_same_key(write, target.c, old))
    if write.operation == "update":
        counted = old[version] + sa.case((changes, 1), else_=0)
        _set(statement, write, {**write.values, **new, version: counted})
    captured: sa.Update | sa.Delete = statement.add_cte(archived)
    return captured


def _leaving_version(write: _Write) -> Any:
    statement: Any = write.statement._clone()
    version = write.versioning.version.key
    _set(statement, write, {**write.values, version: write.target.c[version]})
    return statement


def _columns_in(expression: sa.ClauseElement) -> Iterator[sa.ColumnClause[Any]]:
    for element in visitors.iterate(expression):
        if isinstance(element, sa.ColumnClause) and element.table is not None:
            yield element


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
        # The database computes a value when it comes to a row, after it has changed others.
        written = versioning.table, versioning.history_table
        conditions = {
            key: is_distinct(target.c[key], _set_to(write, column), connection.dialect)
            if _is_pure(_set_to(write, column), *written)
            else sa.true()
            for key, column in write.replaced.items()
        }
        changes = sa.or_(*conditions.values()) if write.finds_same_rows and not write.stamps else sa.true()
    else:
        conditions = {column.key: target.c[column.key].is_not(None) for column in versioning.hidden.values()}
        changes = sa.true()
    select = sa.select().select_from(target).where(*write.criteria, changes)
    if once:
        select = select.where(~_is_archived(write))
    hidden = _document(write, document, _hidden(write, conditions), connection)
    before = versioning.began([target.c[key] for key in write.key], target.c[versioning.version.key])
    return insert_into(_history_values(write, target.c, before, transaction, hidden, connection), select)


def _independent(write: _Write) -> bool:
    """Is what a set of parameters finds and sets the same before and after another set was executed?

    A row that an earlier set has changed is archived, and one that it has set to what it was is what it was.
    """
    versioning = write.versioning
    unarchived = {
        column.key
        for column in versioning.untracked.values()
        if write.sets(column) or column.onupdate is not None or column.server_onupdate is not None
    }
    return write.finds_same_rows and not any(
        (isinstance(element, sa.TableClause) and element.name in (versioning.table.name, versioning.history_table.name))
        or (isinstance(element, sa.Column) and element.table is write.target and element.key in unarchived)
        for expression in (*write.criteria, *write.values.values())
        for element in visitors.iterate(expression)
    )


def _after_archiving(write: _Write) -> Any:
    versioning, target = write.versioning, write.target
    statement: Any = write.statement._clone()
    if write.operation == "update" and not all(_is_pure(criterion, versioning.table) for criterion in write.criteria):
        # A subquery that depends on the row is asked when the database comes to it, after it has changed others.
        found = sa.select(*(target.c[key] for key in write.key)).select_from(target).where(*write.criteria)
        statement._where_criteria = (sa.tuple_(*(target.c[key] for key in write.key)).in_(found.correlate(None)),)
    if not write.finds_same_rows:
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


def _is_pure(expression: sa.ColumnElement[Any], *written: sa.Table) -> bool:
    """Does an expression give the same value when the database is asked again?

    :param written: tables that are written meanwhile
    """
    names = {table.name for table in written}
    return all(_is_pure_element(element, names) for element in visitors.iterate(expression))


def _is_pure_element(element: Any, written: set[str]) -> bool:
    # An annotated element is of a class of its own.
    class_ = next(base for base in type(element).__mro__ if not issubclass(base, Annotated))
    if not class_.__module__.startswith("sqlalchemy.") or element.__visit_name__ not in _PURE_ELEMENTS:
        return False
    if isinstance(element, sa.sql.functions.FunctionElement):
        return str(getattr(element, "name", None)).lower() in _PURE_FUNCTIONS
    if isinstance(element, sa.BindParameter):
        return _is_pure_parameter(element, written)
    if isinstance(element, sa.TableClause):
        return element.name not in written
    text = getattr(element, "is_literal", False) and not re.fullmatch(_PURE_TEXT, element.name)
    added = any(getattr(element, name, ()) for name in ("_prefixes", "_suffixes", "_statement_hints"))
    operator = getattr(element, "operator", None)
    own = isinstance(operator, custom_op) and not re.fullmatch(_PURE_OPERATORS, operator.opstring, re.IGNORECASE)
    return not (text or added or own)


def _is_pure_parameter(parameter: sa.BindParameter[Any], written: set[str]) -> bool:
    # The ORM's own callables read what a relationship is compared with.
    if parameter.callable and not str(parameter.callable.__module__).startswith("sqlalchemy.orm."):
        return False
    wrapped = parameter.type.bind_expression(parameter)
    return wrapped is None or all(
        element is parameter or _is_pure_element(element, written) for element in visitors.iterate(wrapped)
    )


# Both


def _history_values(
    write: _Write,
    row: Any,
    before: sa.ColumnElement[datetime],
    transaction: Transaction,
    document: sa.ColumnElement[Any],
    connection: Connection,
) -> dict[sa.Column[Any], Any]:
    """History column → what is archived in it.

    :param row: the columns of the row that is archived, by key
    :param before: when the version before it was replaced
    """
    versioning = write.versioning
    version = row[versioning.version.key]
    instant: sa.ColumnElement[Any] = bindparam(None, transaction.instant, type_=Instant)
    clock = CLOCK if is_postgresql(connection) else bindparam(None, now(), type_=Instant)
    # The history of a transaction that the statement waited for is there, but the statement does not see it.
    first = version == NEVER + 1
    return {
        **{versioning.history_table.c[key]: row[key] for key in write.archived},
        versioning.column("operation"): sa.literal(write.operation),
        versioning.column("changed"): never_backwards(before, instant, clock, first),
        versioning.column("change_info"): document,
        versioning.column("transaction_id"): bindparam(None, transaction.id, type_=sa.Uuid()),
    }

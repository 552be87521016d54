"""Whether tables are as models and their histories need them: what is missing, and the statements that mend it.

Live tables are looked at for their columns, their types and the column ``version``; history tables for all that capture
relies on. What else a model says of its table (its indexes, unique columns, foreign keys) is Alembic's to compare.

What type a column must have the database says itself: a temporary table is made of the model's types, and goes with the
transaction.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from chrononaut.history import Versioning, full_name

_SCRATCH = "chrononaut_doctor"
_ZERO = re.compile(r"\(*'?0'?\)*(::\w+)?")


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a table.

    :ivar table: its name
    :ivar problem: what is wrong
    :ivar statements: what mends it, in this order
    :ivar advice: what no statement can do, or what to know before they are executed
    """

    table: str
    problem: str
    statements: tuple[str, ...] = ()
    advice: str = ""

    def __str__(self) -> str:
        """As SQL: what is said of it is a comment."""
        comments = [f"-- {self.table}: {self.problem}", *([f"-- {self.advice}"] if self.advice else [])]
        return "\n".join([*comments, *(f"{statement};" for statement in self.statements)])


def examine(connection: Connection, versionings: Iterable[Versioning]) -> list[Finding]:
    """What is wrong with the tables of models and with those of their histories.

    :param connection: in a transaction that is rolled back afterwards
    """
    patient = _Patient(connection)
    return [finding for pair in _pairs(versionings) for finding in (*_live(patient, pair), *_history(patient, pair))]


def undeclared(connection: Connection, versionings: Iterable[Versioning]) -> list[str]:
    """The columns of history tables that no model has, each as ``table.column``: only SQL reads what they hold."""
    patient = _Patient(connection)
    return [
        f"{full_name(pair.history)}.{name}"
        for pair in _pairs(versionings)
        if patient.has(pair.history)
        for name in patient.columns(pair.history)
        if name not in _names(pair.history.columns)
    ]


@dataclass(frozen=True, slots=True)
class _Pair:
    """A live table and its history table.

    :ivar version: the column of the live table; ``None`` where another table has it
    """

    live: sa.Table
    history: sa.Table
    version: sa.Column[int] | None


def _pairs(versionings: Iterable[Versioning]) -> Sequence[_Pair]:
    """The tables of models, each once, and those first that others refer to."""
    found: dict[sa.Table, _Pair] = {}
    for versioning in versionings:
        for one in versioning.tables:
            version = versioning.version if one.live is versioning.table else None
            found[one.live] = _Pair(one.live, one.history, version)
    return [found[table] for table in sa.schema.sort_tables(found)]


def _names(columns: Iterable[Any]) -> list[str]:
    return [column.name for column in columns]


class _Patient:
    """A database that is looked at, and how statements for it are written."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._inspector = connection, sa.inspect(connection)
        self.is_sqlite = connection.dialect.name == "sqlite"
        # As people write them: they double no percent sign for a driver.
        self._dialect: Any = type(connection.dialect)(paramstyle="named")  # type: ignore[call-arg]
        self._made: set[str] = set()

    def has(self, table: sa.Table) -> bool:
        return self._inspector.has_table(table.name, table.schema)

    def columns(self, table: sa.Table) -> Mapping[str, Any]:
        """What the database says of the columns, by their names."""
        return {column["name"]: column for column in self._inspector.get_columns(table.name, table.schema)}

    def key(self, table: sa.Table) -> tuple[str | None, list[str]]:
        """The name of the primary key's constraint, and its columns."""
        key = self._inspector.get_pk_constraint(table.name, table.schema)
        return key["name"], key["constrained_columns"]

    def indexes(self, table: sa.Table) -> list[Any]:
        """What the database says of the indexes, but for those that constraints have."""
        indexes = self._inspector.get_indexes(table.name, table.schema)
        return [index for index in indexes if "duplicates_constraint" not in index]

    def constraints(self, table: sa.Table) -> Iterator[tuple[str | None, str, list[str]]]:
        """The unique constraints and foreign keys: the name of each, what it is, and its columns."""
        for unique in self._inspector.get_unique_constraints(table.name, table.schema):
            yield unique["name"], "unique", unique["column_names"]
        for foreign_key in self._inspector.get_foreign_keys(table.name, table.schema):
            yield foreign_key["name"], "a foreign key", foreign_key["constrained_columns"]

    def other_types(self, table: sa.Table) -> Iterator[tuple[sa.Column[Any], str, str]]:
        """The columns that have another type than they should: each with its type, and with that which it should have.

        SQLite takes any value in any column: there it is another type where it would convert values otherwise.
        """
        columns = self.columns(table)
        there = [column for column in table.columns if column.name in columns]
        lacking = [column for column in there if (named := self._enum(column)) and self._labels(named) is None]
        expected = self._expected([column for column in there if column not in lacking])
        for column in there:
            told = self._told(columns[column.name]["type"])
            wanted = self.type_of(column) if column in lacking else self._told(expected[column.name]["type"])
            if told != wanted:
                yield column, told, wanted

    def _expected(self, columns: Sequence[sa.Column[Any]]) -> Mapping[str, Any]:
        described = ", ".join(f"{self.name(column)} {self.type_of(column)}" for column in columns)
        self._connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {_SCRATCH} ({described})")
        inspector = sa.inspect(self._connection)
        found = inspector.get_columns(_SCRATCH, "temp" if self.is_sqlite else None)
        self._connection.exec_driver_sql(f"DROP TABLE {_SCRATCH}")
        return {column["name"]: column for column in found}

    def _told(self, type_: Any) -> str:
        told = str(type_.compile(dialect=self._dialect))
        return _affinity(told) if self.is_sqlite else told

    def type_of(self, column: sa.Column[Any]) -> str:
        """The type of a model's column, as a statement has it."""
        return str(self._dialect.type_compiler_instance.process(column.type, type_expression=column))

    def name(self, thing: sa.Table | sa.Column[Any]) -> str:
        """The name of a table or of a column, as a statement has it."""
        preparer = self._dialect.identifier_preparer
        return str(preparer.format_table(thing) if isinstance(thing, sa.Table) else preparer.format_column(thing))

    def quoted(self, name: str | None) -> str:
        """A name of something else, as a statement has it."""
        return str(self._dialect.identifier_preparer.quote(name or ""))

    def compiled(self, *statements: ExecutableDDLElement) -> tuple[str, ...]:
        return tuple(str(statement.compile(dialect=self._dialect)).strip() for statement in statements)

    def described(self, column: sa.Column[Any]) -> str:
        """A column as ADD COLUMN has it; one that must be filled first can be NULL."""
        described = str(self._dialect.ddl_compiler(self._dialect, None).get_column_specification(column))
        return described.removesuffix(" NOT NULL") if _is_filled_by_hand(column) else described

    def created(self, table: sa.Table) -> tuple[str, ...]:
        """What makes a table that is missing, and the types and indexes that it needs."""
        types = [statement for column in table.columns for statement in self.types_of(column)]
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        return (*types, *self.compiled(CreateTable(table), *map(CreateIndex, indexes)))

    def types_of(self, column: sa.Column[Any]) -> tuple[str, ...]:
        """What makes the enumerated type of a column, if it is missing; told once."""
        enum = self._enum(column)
        if enum is None or self._labels(enum) is not None or str(enum.name) in self._made:
            return ()
        self._made.add(str(enum.name))
        return self.compiled(postgresql.CreateEnumType(enum))

    def missing_labels(self, column: sa.Column[Any]) -> tuple[str, ...]:
        """What gives the enumerated type of a column the values that it lacks; told once."""
        enum = self._enum(column)
        labels = None if enum is None else self._labels(enum)
        if enum is None or labels is None or str(enum.name) in self._made:
            return ()
        self._made.add(str(enum.name))
        name = self._dialect.identifier_preparer.format_type(enum)
        return tuple(
            f"ALTER TYPE {name} ADD VALUE {self._literal(label)}" for label in enum.enums if label not in labels
        )

    def _enum(self, column: sa.Column[Any]) -> postgresql.ENUM | None:
        """The type of a column that has values of PostgreSQL's enumerated types."""
        type_: Any = column.type.dialect_impl(self._connection.dialect)
        while isinstance(type_, sa.types.TypeDecorator):
            type_ = type_.impl_instance
        if isinstance(type_, sa.ARRAY):
            type_ = type_.item_type.dialect_impl(self._connection.dialect)
        return type_ if isinstance(type_, postgresql.ENUM) else None

    def _literal(self, text: str) -> str:
        return str(sa.literal(text, sa.String).compile(dialect=self._dialect, compile_kwargs={"literal_binds": True}))

    def _labels(self, enum: postgresql.ENUM) -> list[str] | None:
        """The values that an enumerated type has; ``None`` if it is missing."""
        inspector: Any = self._inspector
        known = {each["name"]: each["labels"] for each in inspector.get_enums(schema=enum.schema)}
        return known.get(enum.name)

    def index_statements(self, table: sa.Table) -> Iterator[tuple[str, str]]:
        """The indexes of a table of SQLite that statements have made: their names and these statements."""
        found = self._connection.exec_driver_sql(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL AND tbl_name = ?",
            (table.name,),
        )
        yield from ((name, statement) for name, statement in found)


def _is_filled_by_hand(column: sa.Column[Any]) -> bool:
    return not (column.nullable or column.server_default is not None or column.computed or column.identity)


def _affinity(type_: str) -> str:
    """How SQLite converts the values of a column (its documentation, "Determination Of Column Affinity")."""
    for affinity, parts in (
        ("INTEGER", ("INT",)),
        ("TEXT", ("CHAR", "CLOB", "TEXT")),
        ("BLOB", ("BLOB",)),
        ("REAL", ("REAL", "FLOA", "DOUB")),
    ):
        if any(part in type_.upper() for part in parts):
            return affinity
    return "NUMERIC"


_BY_COPYING = "SQLite changes no column in place: let a migration copy the table, by Alembic's op.batch_alter_table"


def _live(patient: _Patient, pair: _Pair) -> Iterator[Finding]:
    """What is wrong with a table of a model."""
    table, name = pair.live, patient.name(pair.live)
    if not patient.has(table):
        yield Finding(full_name(table), "there is no such table", patient.created(table))
        return
    columns = patient.columns(table)
    for column in table.columns:
        if column.name not in columns:
            yield _without_column(patient, table, column)
        elif labels := patient.missing_labels(column):
            yield Finding(full_name(table), f"the type of {column.name} lacks values", labels)
    for column, told, wanted in patient.other_types(table):
        problem = f"{column.name} is {told}, and should be {wanted}"
        yield _altered(patient, table, problem, _retyped(patient, table, column, wanted))
    if pair.version is None or pair.version.name not in columns:
        return
    version, there = patient.name(pair.version), columns[pair.version.name]
    if not _ZERO.fullmatch(there["default"] or ""):
        problem = f"{pair.version.name} has no default of 0, by which others insert rows"
        yield _altered(patient, table, problem, (f"ALTER TABLE {name} ALTER COLUMN {version} SET DEFAULT 0",))
    if there["nullable"]:
        filled = f"UPDATE {name} SET {version} = 0 WHERE {version} IS NULL"  # noqa: S608  quoted names
        required = f"ALTER TABLE {name} ALTER COLUMN {version} SET NOT NULL"
        yield _altered(patient, table, f"{pair.version.name} can be NULL", (filled, required))


def _without_column(patient: _Patient, table: sa.Table, column: sa.Column[Any]) -> Finding:
    name = patient.name(table)
    return Finding(
        full_name(table),
        f"there is no column {column.name}",
        (*patient.types_of(column), f"ALTER TABLE {name} ADD COLUMN {patient.described(column)}"),
        f"then fill it, and let it no longer be NULL: ALTER COLUMN {patient.name(column)} SET NOT NULL"
        if _is_filled_by_hand(column)
        else "",
    )


def _altered(patient: _Patient, table: sa.Table, problem: str, statements: tuple[str, ...]) -> Finding:
    if patient.is_sqlite:
        return Finding(full_name(table), problem, advice=_BY_COPYING)
    return Finding(full_name(table), problem, statements)


def _retyped(patient: _Patient, table: sa.Table, column: sa.Column[Any], wanted: str) -> tuple[str, ...]:
    name = patient.name(column)
    alter = f"ALTER TABLE {patient.name(table)} ALTER COLUMN {name} TYPE {wanted} USING {name}::{wanted}"
    return (*patient.types_of(column), alter)


def _history(patient: _Patient, pair: _Pair) -> Iterator[Finding]:
    """What is wrong with a history table."""
    table = pair.history
    if not patient.has(table):
        yield Finding(full_name(table), "there is no such table", patient.created(table))
        return
    altered = [*_columns_of_history(patient, table), *_constraints_of_history(patient, table)]
    if altered and patient.is_sqlite:
        problems = "; ".join(problem for problem, _ in altered)
        yield Finding(full_name(table), problems, tuple(_rebuilt(patient, table)), "SQLite alters it by copying it")
        return
    yield from (Finding(full_name(table), problem, statements) for problem, statements in altered)
    columns = patient.columns(table)
    for column in table.columns:
        if column.name not in columns:
            yield _without_column_of_history(patient, table, column)
    yield from _without_indexes(patient, table)


_Problem = tuple[str, tuple[str, ...]]


def _columns_of_history(patient: _Patient, table: sa.Table) -> Iterator[_Problem]:
    """What is wrong with columns that are there."""
    alter = f"ALTER TABLE {patient.name(table)} ALTER COLUMN"
    for column, told, wanted in patient.other_types(table):
        yield f"{column.name} is {told}, and should be {wanted}", _retyped(patient, table, column, wanted)
    for name, column in patient.columns(table).items():
        known = table.columns.get(name)
        if column["default"] is not None:
            yield (
                f"{name} has a default, which a row without a state would have",
                (f"{alter} {patient.quoted(name)} DROP DEFAULT",),
            )
        if known is not None and known.primary_key:
            continue
        may_be_null = known is None or bool(known.nullable)
        if may_be_null and not column["nullable"]:
            yield (
                f"{name} cannot be NULL, as it is in a row without a state",
                (f"{alter} {patient.quoted(name)} DROP NOT NULL",),
            )
        if column["nullable"] and not may_be_null:
            yield f"{name} can be NULL", (f"{alter} {patient.quoted(name)} SET NOT NULL",)


def _constraints_of_history(patient: _Patient, table: sa.Table) -> Iterator[_Problem]:
    alter = f"ALTER TABLE {patient.name(table)}"
    name, key = patient.key(table)
    if sorted(key) != sorted(_names(table.primary_key)):
        columns = ", ".join(patient.name(column) for column in table.primary_key)
        dropped = (f"{alter} DROP CONSTRAINT {patient.quoted(name)}",) if name else ()
        yield f"its primary key is not {columns}", (*dropped, f"{alter} ADD PRIMARY KEY ({columns})")
    for constraint, what, constrained in patient.constraints(table):
        problem = f"{', '.join(constrained)} is {what}, which old states need not be"
        yield problem, (f"{alter} DROP CONSTRAINT {patient.quoted(constraint)}",)
    for index in patient.indexes(table):
        if index["unique"]:
            schema = f"{patient.quoted(table.schema)}." if table.schema else ""
            yield (
                f"the index {index['name']} is unique, which old states need not be",
                (f"DROP INDEX {schema}{patient.quoted(index['name'])}",),
            )


def _without_column_of_history(patient: _Patient, table: sa.Table, column: sa.Column[Any]) -> Finding:
    described = f"{patient.name(column)} {patient.type_of(column)}"
    return Finding(
        full_name(table),
        f"there is no column {column.name}",
        (
            *patient.types_of(column),
            f"ALTER TABLE {patient.name(table)} ADD COLUMN {described}{'' if column.nullable else ' NOT NULL'}",
        ),
        "" if column.nullable else "it can be added to an empty table only: what it said of each row is lost",
    )


def _without_indexes(patient: _Patient, table: sa.Table) -> Iterator[Finding]:
    there = patient.indexes(table)
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        columns = _names(index.columns)
        if any(each["column_names"] == columns and not each["unique"] for each in there):
            continue
        taken = any(each["name"] == index.name for each in there)
        yield Finding(
            full_name(table),
            f"there is no index on {', '.join(columns)}",
            patient.compiled(*([sa.schema.DropIndex(index)] if taken else []), CreateIndex(index)),
        )


def _rebuilt(patient: _Patient, table: sa.Table) -> Iterator[str]:
    """What copies a history table of SQLite into one that is as it should be, with all columns that it has."""
    there = patient.columns(table)
    kept = [sa.Column(name, column["type"]) for name, column in there.items() if name not in _names(table.columns)]
    declared = [
        sa.Column(column.name, column.type, primary_key=column.primary_key, nullable=column.nullable)
        for column in table.columns
    ]
    copy = sa.Table(f"{table.name}_copy", sa.MetaData(), *declared, *kept, schema=table.schema)
    names = ", ".join(patient.name(column) for column in copy.columns if column.name in there)
    yield from patient.compiled(CreateTable(copy))
    yield f"INSERT INTO {patient.name(copy)} ({names}) SELECT {names} FROM {patient.name(table)}"  # noqa: S608  quoted names
    yield f"DROP TABLE {patient.name(table)}"
    yield f"ALTER TABLE {patient.name(copy)} RENAME TO {patient.quoted(table.name)}"
    yield from patient.compiled(*map(CreateIndex, sorted(table.indexes, key=lambda index: str(index.name))))
    others = {index["name"] for index in patient.indexes(table) if not index["unique"]} - {
        i.name for i in table.indexes
    }
    yield from (statement for name, statement in patient.index_statements(table) if name in others)

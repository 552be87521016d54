"""Whether tables are as models and their histories need them: what is missing, and the statements that mend it.

Live tables are looked at for their columns, their types and the column ``version``; history tables for all that capture
relies on. What else a model says of its table (its indexes, unique columns, foreign keys) is Alembic's to compare.

What type a column must have the database says itself: a temporary table is made of the model's types, and goes with the
transaction.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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


class _Mistyped(NamedTuple):
    """A column that has another type than it should.

    :ivar holds_all: is each value of the type that it should have one of the type that it has?
    :ivar are_texts: are both types of texts of any or of limited length?
    """

    column: sa.Column[Any]
    told: str
    wanted: str
    holds_all: bool = False
    are_texts: bool = False


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

    def unused_name(self, table: sa.Table) -> sa.Table:
        """What the table can be renamed to."""
        names = (f"{table.name}_before{number or ''}" for number in itertools.count())
        tables = (sa.Table(name, sa.MetaData(), schema=table.schema) for name in names)
        return next(unused for unused in tables if not self.has(unused))

    def without_index(self, table: sa.Table, name: str) -> str:
        schema = f"{self.quoted(table.schema)}." if table.schema else ""
        return f"DROP INDEX {schema}{self.quoted(name)}"

    def index_that_serves(self, table: sa.Table, columns: Sequence[str]) -> bool:
        """Is there an index on these columns, of whatever name, that has all rows?"""
        broken = self._invalid_indexes(table)
        return any(
            index["column_names"] == columns
            and not index["unique"]
            and f"{self._connection.dialect.name}_where" not in index.get("dialect_options", {})
            and index["name"] not in broken
            for index in self.indexes(table)
        )

    def _invalid_indexes(self, table: sa.Table) -> Sequence[str]:
        """Those that PostgreSQL does not use: what made them without a lock did not come to its end."""
        if self.is_sqlite:
            return ()
        index = sa.table("pg_index", *map(sa.column, ("indexrelid", "indrelid", "indisvalid")))
        relation = sa.table("pg_class", sa.column("oid"), sa.column("relname"))
        is_of_table = index.c.indrelid == sa.func.to_regclass(self.name(table)).cast(postgresql.OID)
        of_table = sa.select(relation.c.relname).join(index, index.c.indexrelid == relation.c.oid)
        return self._connection.scalars(of_table.where(is_of_table, ~index.c.indisvalid)).all()

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

    def mistyped(self, table: sa.Table) -> Iterator[_Mistyped]:
        """The columns that have another type than they should.

        SQLite takes any value in any column: there it is another type where it would convert values otherwise.
        """
        columns = self.columns(table)
        there = [column for column in table.columns if column.name in columns]
        lacking = [column for column in there if (named := self._enum(column)) and self._labels(named) is None]
        expected = self._expected([column for column in there if column not in lacking])
        for column in there:
            type_ = columns[column.name]["type"]
            if column in lacking:
                yield _Mistyped(column, self._told(type_), self.type_of(column))
            elif (told := self._told(type_)) != (wanted := self._told(expected[column.name]["type"])):
                yield _Mistyped(column, told, wanted, *_compared(type_, expected[column.name]["type"]))

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
        """A name of something else, as a statement has it; empty if it has none, as constraints of SQLite."""
        return str(self._dialect.identifier_preparer.quote(name)) if name else ""

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


_WHOLE_NUMBERS = [sa.SMALLINT, sa.INTEGER, sa.BIGINT]


def _compared(told: Any, wanted: Any) -> tuple[bool, bool]:
    """Does a type hold all that another one holds, and are both of texts?"""
    if isinstance(told, sa.ARRAY) and isinstance(wanted, sa.ARRAY):
        return _compared(told.item_type, wanted.item_type)
    kinds = type(told), type(wanted)
    if {*kinds} <= {sa.VARCHAR, sa.TEXT}:
        return told.length is None or (wanted.length is not None and told.length >= wanted.length), True
    if {*kinds} <= {*_WHOLE_NUMBERS}:
        return _WHOLE_NUMBERS.index(kinds[0]) >= _WHOLE_NUMBERS.index(kinds[1]), False
    if {*kinds} == {sa.NUMERIC}:
        return told.precision is None or (
            wanted.precision is not None
            and told.scale >= wanted.scale
            and told.precision - told.scale >= wanted.precision - wanted.scale
        ), False
    return False, False


def _is_filled_by_hand(column: sa.Column[Any]) -> bool:
    return not (column.nullable or column.server_default is not None or column.computed or column.identity)


def _is_computed(column: sa.Column[Any]) -> bool:
    """Does the database compute its values, so that SQLite adds it to no table that has rows?"""
    default = column.server_default
    is_constant = isinstance(default, sa.DefaultClause) and isinstance(default.arg, str)
    return column.primary_key or not (default is None or is_constant)


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


_BY_COPYING = "SQLite cannot do it in place: let a migration copy the table, by Alembic's op.batch_alter_table"


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
    for mistyped in patient.mistyped(table):
        retyped = _retyped(patient, table, mistyped)
        yield Finding(retyped.table, retyped.problem, advice=_BY_COPYING) if patient.is_sqlite else retyped
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
    name, problem = patient.name(table), f"there is no column {column.name}"
    if patient.is_sqlite and _is_computed(column):
        return Finding(full_name(table), problem, advice=_BY_COPYING)
    return Finding(
        full_name(table),
        problem,
        (*patient.types_of(column), f"ALTER TABLE {name} ADD COLUMN {patient.described(column)}"),
        f"then fill it, and let it no longer be NULL: ALTER COLUMN {patient.name(column)} SET NOT NULL"
        if _is_filled_by_hand(column)
        else "",
    )


def _altered(patient: _Patient, table: sa.Table, problem: str, statements: tuple[str, ...]) -> Finding:
    if patient.is_sqlite:
        return Finding(full_name(table), problem, advice=_BY_COPYING)
    return Finding(full_name(table), problem, statements)


def _retyped(patient: _Patient, table: sa.Table, mistyped: _Mistyped) -> Finding:
    column, told, wanted, _, are_texts = mistyped
    name = patient.name(column)
    altered = f"ALTER TABLE {patient.name(table)} ALTER COLUMN {name} TYPE {wanted}"
    problem = f"{column.name} is {told}, and should be {wanted}"
    if are_texts:
        # By itself PostgreSQL refuses what is too long; a cast would cut it.
        return Finding(full_name(table), problem, (altered,))
    statements = (*patient.types_of(column), f"{altered} USING {name}::{wanted}")
    return Finding(
        full_name(table), problem, statements, "look at its values before: what does not fit is rounded or refused"
    )


def _history(patient: _Patient, pair: _Pair) -> Iterator[Finding]:
    """What is wrong with a history table."""
    table = pair.history
    if not patient.has(table):
        yield Finding(full_name(table), "there is no such table", patient.created(table))
        return
    altered = [*_columns_of_history(patient, table), *_constraints_of_history(patient, table)]
    if altered and patient.is_sqlite:
        yield _rebuilt(patient, table, "; ".join(finding.problem for finding in altered))
        return
    yield from altered
    columns = patient.columns(table)
    for column in table.columns:
        if column.name not in columns:
            yield _without_column_of_history(patient, table, column)
    yield from _without_indexes(patient, table)


def _columns_of_history(patient: _Patient, table: sa.Table) -> Iterator[Finding]:
    """What is wrong with columns that are there."""
    alter = f"ALTER TABLE {patient.name(table)} ALTER COLUMN"
    for mistyped in patient.mistyped(table):
        # Old states were of the type that the model had then.
        if not mistyped.holds_all:
            yield _retyped(patient, table, mistyped)
    for name, column in patient.columns(table).items():
        known, altered = table.columns.get(name), f"{alter} {patient.quoted(name)}"
        if column["default"] is not None:
            problem = f"{name} has a default, which a row without a state would have"
            yield Finding(full_name(table), problem, (f"{altered} DROP DEFAULT",))
        if known is not None and known.primary_key:
            continue
        may_be_null = known is None or bool(known.nullable)
        if may_be_null and not column["nullable"]:
            problem = f"{name} cannot be NULL, as it is in a row without a state"
            yield Finding(full_name(table), problem, (f"{altered} DROP NOT NULL",))
        if column["nullable"] and not may_be_null:
            yield Finding(full_name(table), f"{name} can be NULL", (f"{altered} SET NOT NULL",))


def _constraints_of_history(patient: _Patient, table: sa.Table) -> Iterator[Finding]:
    alter = f"ALTER TABLE {patient.name(table)}"
    name, key = patient.key(table)
    if sorted(key) != sorted(_names(table.primary_key)):
        columns = ", ".join(patient.name(column) for column in table.primary_key)
        dropped = (f"{alter} DROP CONSTRAINT {patient.quoted(name)}",) if name else ()
        problem = f"its primary key is not {columns}"
        yield Finding(full_name(table), problem, (*dropped, f"{alter} ADD PRIMARY KEY ({columns})"))
    for constraint, what, constrained in patient.constraints(table):
        problem = f"{', '.join(constrained)} is {what}, which old states need not be"
        yield Finding(full_name(table), problem, (f"{alter} DROP CONSTRAINT {patient.quoted(constraint)}",))
    for index in patient.indexes(table):
        if index["unique"]:
            problem = f"the index {index['name']} is unique, which old states need not be"
            yield Finding(full_name(table), problem, (patient.without_index(table, index["name"]),))


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
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        columns = _names(index.columns)
        if patient.index_that_serves(table, columns):
            continue
        taken = any(each["name"] == index.name for each in patient.indexes(table))
        yield Finding(
            full_name(table),
            f"there is no index on {', '.join(columns)}",
            patient.compiled(*([sa.schema.DropIndex(index)] if taken else []), CreateIndex(index)),
        )


def _rebuilt(patient: _Patient, table: sa.Table, problem: str) -> Finding:
    """What copies a history table of SQLite into one that is as it should be, with all columns that it has.

    The old one stays: who executes statements one after the other, whatever becomes of them, would drop it also where
    its rows did not fit the new one.
    """
    there = patient.columns(table)
    kept = [sa.Column(name, column["type"]) for name, column in there.items() if name not in _names(table.columns)]
    declared = [
        sa.Column(column.name, column.type, primary_key=column.primary_key, nullable=column.nullable)
        for column in table.columns
    ]
    new, old = sa.Table(table.name, sa.MetaData(), *declared, *kept, schema=table.schema), patient.unused_name(table)
    columns = ", ".join(patient.name(column) for column in new.columns if column.name in there)
    own = {str(index.name) for index in table.indexes}
    unique = {index["name"] for index in patient.indexes(table) if index["unique"]}
    indexes = {name: made for name, made in patient.index_statements(table) if name not in unique}
    statements = (
        f"ALTER TABLE {patient.name(table)} RENAME TO {patient.quoted(old.name)}",
        # Those of the new one have their names.
        *(patient.without_index(table, name) for name in indexes),
        *patient.compiled(CreateTable(new)),
        f"INSERT INTO {patient.name(table)} ({columns}) SELECT {columns} FROM {patient.name(old)}",  # noqa: S608  quoted names
        *patient.compiled(*map(CreateIndex, sorted(table.indexes, key=lambda index: str(index.name)))),
        *(made for name, made in indexes.items() if name not in own),
    )
    advice = f"SQLite alters it by copying it; when all its rows are in the new one, DROP TABLE {patient.name(old)}"
    return Finding(full_name(table), problem, statements, advice)

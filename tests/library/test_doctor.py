"""``flask history doctor``: whatever is wrong with tables is found, and mended by the statements that it prints."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from chrononaut import VersionedSQLAlchemy
from chrononaut.transactions import snapshot
from chrononaut.verify import verify
from tests.library.conftest import opened
from tests.library.models import define

Change = Callable[[sa.Table], object]


def models() -> tuple[VersionedSQLAlchemy, Any, Any]:
    """A database object with a model and one that inherits from it by a table of its own."""
    db = VersionedSQLAlchemy()
    kind = sa.Column(sa.String(10))
    person = define(
        db,
        "Person",
        __tablename__="person",
        __mapper_args__={"polymorphic_on": kind, "polymorphic_identity": "person"},
        id=sa.Column(sa.Integer, primary_key=True),
        kind=kind,
        name=sa.Column(sa.String(80), nullable=False, unique=True),
        size=sa.Column(sa.Enum("s", "l", name="size")),
        motto=sa.Column(sa.String(20), server_default="it's 100%"),
        since=sa.Column(sa.DateTime(timezone=True), server_default=sa.func.now()),
        debt=sa.Column(sa.Numeric(8, 2)),
    )
    pilot: Any = type(
        "Pilot",
        (person,),
        {
            "__tablename__": "pilot",
            "__mapper_args__": {"polymorphic_identity": "pilot"},
            "id": sa.Column(sa.ForeignKey("person.id"), primary_key=True),
            "flights": sa.Column(sa.Integer),
        },
    )
    return db, person, pilot


class Clinic:
    """An application whose tables are damaged, and mended."""

    def __init__(self, app: Flask, db: VersionedSQLAlchemy, person: Any, pilot: Any) -> None:
        self.app, self.db, self.person, self.pilot = app, db, person, pilot

    @property
    def is_sqlite(self) -> bool:
        return self.db.engine.dialect.name == "sqlite"

    def execute(self, *statements: str) -> None:
        with self.db.engine.begin() as connection:
            # As psql would: with parameters, the driver takes a percent sign for the place of one.
            as_it_is = connection.execution_options(no_parameters=True)
            for statement in statements:
                as_it_is.exec_driver_sql(statement)

    def remake(self, name: str, change: Change) -> None:
        """Make a table anew, changed, with the rows that it has."""
        with self.db.engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                # The rows of others may refer to it.
                connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
            table = sa.Table(name, sa.MetaData(), autoload_with=connection, resolve_fks=False)
            rows = connection.execute(sa.select(table)).mappings().all()
            cascade = "" if connection.dialect.name == "sqlite" else " CASCADE"
            connection.exec_driver_sql(f"DROP TABLE {name}{cascade}")
            for column in table.columns:
                if column.primary_key and column.server_default is not None:
                    column.server_default = None
            change(table)
            table.create(connection, checkfirst=True)
            for row in rows:
                connection.execute(
                    sa.insert(table).values({n: value for n, value in row.items() if n in table.columns})
                )

    def doctor(self, *names: str) -> tuple[int, str, str]:
        """The exit status of the command, what it prints, and what it says besides."""
        result = self.app.test_cli_runner().invoke(args=["history", "doctor", *names])
        assert isinstance(result.exception, SystemExit | None), result.output
        return result.exit_code, result.stdout, result.stderr

    def statements(self) -> list[str]:
        """What the doctor prints."""
        _, script, _ = self.doctor()
        return [*filter(None, re.split(r";\n", re.sub(r"(?m)^--.*\n", "", script)))]

    def mend(self) -> None:
        """Execute what the doctor prints."""
        self.execute(*self.statements())

    def live_on(self) -> list[str]:
        """Write what leaves history of each kind; what `verify` finds then."""
        session: Session = self.db.session()
        ada = self.pilot(name="Ada", size="s", flights=0)
        session.add_all([ada, self.person(name="Bob")])
        session.commit()
        ada.name, ada.flights = "Ada King", 1
        session.commit()
        session.delete(ada)
        session.commit()
        session.add(self.person(name="Ada", size="l"))
        session.commit()
        with snapshot(self.db.engine) as connection:
            return [str(finding) for model in (self.person, self.pilot) for finding in verify(connection, model)]


@contextmanager
def _clinic(url: str) -> Iterator[Clinic]:
    db, person, pilot = models()
    with opened(db, url) as app:
        yield Clinic(app, db, person, pilot)


@pytest.fixture
def clinic(database_url: str) -> Iterator[Clinic]:
    with _clinic(database_url) as clinic:
        yield clinic


def _without(*names: str) -> Change:
    def change(table: sa.Table) -> None:
        for name in names:
            for index in [index for index in table.indexes if name in index.columns]:
                table.indexes.remove(index)
            table._columns.remove(table.columns[name])

    return change


def _with(column: str, **options: Any) -> Change:
    def change(table: sa.Table) -> None:
        for name, value in options.items():
            setattr(table.columns[column], name, value)

    return change


def _with_key(*names: str) -> Change:
    def change(table: sa.Table) -> None:
        for column in table.columns:
            column.primary_key = column.name in names
        table.append_constraint(sa.PrimaryKeyConstraint(*names))

    return change


def _default(column: str, text: str | None) -> Change:
    def change(table: sa.Table) -> None:
        table.columns[column].server_default = None
        if text is not None:
            sa.DefaultClause(text)._set_parent_with_dispatch(table.columns[column])

    return change


HISTORY_DAMAGES: dict[str, tuple[str, Change, str]] = {
    "state": ("person_history", _without("name"), "there is no column name"),
    "own column": ("person_history", _without("change_info"), "there is no column change_info"),
    "indexed column": ("person_history", _without("transaction_id"), "there is no column transaction_id"),
    "enum": ("person_history", _without("size"), "there is no column size"),
    "joined state": ("pilot_history", _without("flights"), "there is no column flights"),
    "required": ("person_history", _with("name", nullable=False), "name cannot be NULL"),
    "own not required": ("person_history", _with("operation", nullable=True), "operation can be NULL"),
    "default": ("person_history", _default("name", "nobody"), "name has a default"),
    "type": ("person_history", _with("name", type=sa.Integer()), "name is INTEGER, and should be "),
    "type of a key": ("pilot_history", _with("id", type=sa.String(10)), "id is "),
    "unique": ("person_history", lambda t: t.append_constraint(sa.UniqueConstraint("name")), "name is unique"),
    "unique index": ("person_history", lambda t: sa.Index("i", t.c.name, unique=True), "the index i is unique"),
    "foreign key": (
        "pilot_history",
        lambda t: t.append_constraint(sa.ForeignKeyConstraint(["id"], ["person.id"])) if _person(t) is not None else 0,
        "id is a foreign key",
    ),
    "key": (
        "person_history",
        _with_key("id", "version", "transaction_id"),
        "its primary key is not id, version",
    ),
    "required column of before": (
        "person_history",
        lambda t: t.append_column(sa.Column("nickname", sa.String(10), nullable=False)),
        "nickname cannot be NULL",
    ),
}


def _person(table: sa.Table) -> sa.Table:
    return sa.Table("person", table.metadata, sa.Column("id", sa.Integer, primary_key=True))


def test_sound_tables_are_no_problem(clinic: Clinic) -> None:
    assert clinic.doctor() == (0, "", "2 models: no problems\n")
    assert clinic.live_on() == []
    assert clinic.doctor() == (0, "", "2 models: no problems\n")


@pytest.mark.parametrize(("table", "change", "problem"), HISTORY_DAMAGES.values(), ids=HISTORY_DAMAGES)
def test_damaged_history_is_mended(clinic: Clinic, table: str, change: Change, problem: str) -> None:
    clinic.remake(table, change)
    status, script, said = clinic.doctor()
    assert (status, said.splitlines()[-1].startswith("2 models: ")) == (1, True)
    assert re.search(rf"^-- {table}: (.*; )?{re.escape(problem)}", script, re.MULTILINE), script
    clinic.mend()
    assert clinic.doctor()[:2] == (0, "")
    assert clinic.live_on() == []


DROPS = {
    "history": ("DROP TABLE person_history", "person_history: there is no such table"),
    "joined history": ("DROP TABLE pilot_history", "pilot_history: there is no such table"),
    "joined table": ("DROP TABLE pilot", "pilot: there is no such table"),
    "version": ("ALTER TABLE person DROP COLUMN version", "person: there is no column version"),
    "live column": ("ALTER TABLE person DROP COLUMN motto", "person: there is no column motto"),
    "index": ("DROP INDEX ix_person_history_feed", "person_history: there is no index on changed, id, version"),
}


@pytest.mark.parametrize(("statement", "problem"), DROPS.values(), ids=DROPS)
def test_what_is_missing_is_made(clinic: Clinic, statement: str, problem: str) -> None:
    clinic.execute(statement)
    status, script, _ = clinic.doctor()
    assert (status, script.splitlines()[0]) == (1, f"-- {problem}")
    clinic.mend()
    assert clinic.doctor()[:2] == (0, "")
    assert clinic.live_on() == []


def test_whole_database_is_made(clinic: Clinic) -> None:
    clinic.db.drop_all()
    assert clinic.doctor()[0] == 1
    clinic.mend()
    assert clinic.doctor()[:2] == (0, "")
    assert clinic.live_on() == []
    assert set(clinic.db.session.scalars(sa.select(clinic.person.motto))) == {"it's 100%"}


def test_index_of_another_name_is_as_good_and_one_on_other_columns_is_not(clinic: Clinic) -> None:
    clinic.execute(
        "DROP INDEX ix_person_history_transaction",
        "CREATE INDEX of_transactions ON person_history (transaction_id)",
        "DROP INDEX ix_person_history_feed",
        "CREATE INDEX ix_person_history_feed ON person_history (changed)",
    )
    _, script, _ = clinic.doctor()
    assert re.findall("^-- .*", script, re.MULTILINE) == [
        "-- person_history: there is no index on changed, id, version"
    ]
    clinic.mend()
    assert clinic.doctor()[:2] == (0, "")


def test_column_that_cannot_be_empty_is_added_empty(clinic: Clinic) -> None:
    assert clinic.live_on() == []
    clinic.remake("person", _without_unique_name)
    _, script, _ = clinic.doctor()
    assert "-- then fill it, and let it no longer be NULL: ALTER COLUMN name SET NOT NULL" in script
    clinic.mend()
    assert clinic.doctor()[:2] == (0, "")


def _without_unique_name(table: sa.Table) -> None:
    _without("name")(table)
    for constraint in [each for each in table.constraints if isinstance(each, sa.UniqueConstraint)]:
        table.constraints.remove(constraint)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_default("version", None), "version has no default of 0, by which others insert rows"),
        (_with("version", nullable=True), "version can be NULL"),
        (_with("motto", type=sa.Integer()), "motto is INTEGER, and should be "),
    ],
)
def test_damaged_live_table_is_mended_where_the_database_can(clinic: Clinic, change: Change, problem: str) -> None:
    clinic.remake("person", lambda table: _default("motto", None)(table) or change(table))
    status, script, _ = clinic.doctor()
    assert (status, script.startswith(f"-- person: {problem}")) == (1, True)
    if clinic.is_sqlite:
        assert script.count("\n") == 2
        assert "let a migration copy the table" in script
        return
    clinic.mend()
    assert clinic.doctor()[:2] == (0, "")
    assert clinic.live_on() == []


def test_history_keeps_its_rows_and_all_its_columns_and_indexes(clinic: Clinic) -> None:
    assert clinic.live_on() == []

    def change(table: sa.Table) -> None:
        table.append_column(sa.Column("nickname", sa.String(10), server_default="Countess"))
        sa.Index("of_nicknames", table.c.nickname)
        sa.Index("i", table.c.id, table.c.version, unique=True)

    clinic.remake("person_history", change)
    with clinic.db.engine.connect() as connection:
        before = connection.exec_driver_sql("SELECT * FROM person_history ORDER BY id, version").mappings().all()
    clinic.mend()
    status, script, said = clinic.doctor()
    assert (status, script) == (0, "")
    assert "person_history.nickname is of no model; __chrononaut_dropped__ makes it readable in old versions" in said
    with clinic.db.engine.connect() as connection:
        after = connection.exec_driver_sql("SELECT * FROM person_history ORDER BY id, version").mappings().all()
        assert "of_nicknames" in {index["name"] for index in sa.inspect(connection).get_indexes("person_history")}
    assert [dict(row) for row in after] == [dict(row) for row in before]
    assert {row["nickname"] for row in after} == {"Countess"}
    with snapshot(clinic.db.engine) as connection:
        assert list(verify(connection, clinic.person)) == []


def test_index_without_all_rows_is_none(clinic: Clinic) -> None:
    clinic.execute(
        "DROP INDEX ix_person_history_feed",
        "CREATE INDEX ix_person_history_feed ON person_history (changed, id, version) WHERE version > 5",
    )
    _, script, _ = clinic.doctor()
    assert script.startswith("-- person_history: there is no index on changed, id, version\nDROP INDEX ix_person")
    clinic.mend()
    assert clinic.doctor()[:2] == (0, "")


# SQLite makes indexes at once.
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_index_that_was_not_made_to_the_end_is_none(clinic: Clinic) -> None:
    clinic.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_person_history_feed'::regclass",
    )
    assert clinic.doctor()[1].startswith("-- person_history: there is no index on changed, id, version\n")
    clinic.mend()
    assert clinic.doctor()[:2] == (0, "")


# SQLite has no types that differ by what they hold.
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("column", "type_"),
    [("name", sa.String(200)), ("name", sa.Text()), ("version", sa.BigInteger()), ("debt", sa.Numeric(12, 2))],
    ids=str,
)
def test_old_states_may_be_of_a_wider_type(clinic: Clinic, column: str, type_: Any) -> None:
    clinic.remake("person_history", _with(column, type=type_))
    assert clinic.doctor()[:2] == (0, "")
    assert clinic.live_on() == []


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("column", "type_", "told"),
    [
        ("name", sa.String(20), "name is VARCHAR(20), and should be VARCHAR(80)"),
        ("version", sa.SmallInteger(), "version is SMALLINT, and should be INTEGER"),
        ("debt", sa.Numeric(9, 4), "debt is NUMERIC(9, 4), and should be NUMERIC(8, 2)"),
        ("debt", sa.Double(), "debt is DOUBLE PRECISION, and should be NUMERIC(8, 2)"),
    ],
    ids=str,
)
def test_history_that_holds_less_is_widened(clinic: Clinic, column: str, type_: Any, told: str) -> None:
    clinic.remake("person_history", _with(column, type=type_))
    assert clinic.doctor()[1].startswith(f"-- person_history: {told}\n")
    clinic.mend()
    assert clinic.doctor()[:2] == (0, "")
    assert clinic.live_on() == []


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_no_text_is_cut(clinic: Clinic) -> None:
    clinic.execute("ALTER TABLE person ALTER name TYPE text", "INSERT INTO person (name) VALUES (repeat('x', 81))")
    with pytest.raises(sa.exc.DataError, match="value too long"):
        clinic.mend()
    clinic.execute("UPDATE person SET name = 'x'")
    clinic.mend()
    assert clinic.doctor()[:2] == (0, "")


# PostgreSQL alters in place, and nothing where a value does not fit.
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_rows_that_do_not_fit_are_not_lost(clinic: Clinic) -> None:
    assert clinic.live_on() == []
    clinic.remake("person_history", _with("operation", nullable=True))
    clinic.execute("UPDATE person_history SET operation = NULL WHERE version = 0")
    with clinic.db.engine.connect() as connection:
        before = connection.exec_driver_sql("SELECT * FROM person_history ORDER BY id, version").all()
    refused = 0
    for statement in clinic.statements():
        try:
            clinic.execute(statement)
        except sa.exc.IntegrityError:
            refused += 1
    with clinic.db.engine.connect() as connection:
        kept = connection.exec_driver_sql("SELECT * FROM person_history_before ORDER BY id, version").all()
    assert (refused, kept) == (1, before)


def test_column_whose_values_are_computed_is_added_where_the_database_can(clinic: Clinic) -> None:
    assert clinic.live_on() == []
    clinic.execute("ALTER TABLE person RENAME COLUMN since TO beginning")
    _, script, _ = clinic.doctor()
    assert script.startswith("-- person: there is no column since\n")
    if clinic.is_sqlite:
        assert script.splitlines()[1].endswith("let a migration copy the table, by Alembic's op.batch_alter_table")
        assert clinic.statements() == []
        return
    clinic.mend()
    assert clinic.doctor()[:2] == (0, "")


# SQLite has neither.
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_enumerated_type_is_made_and_gets_its_values(clinic: Clinic) -> None:
    clinic.execute(
        "ALTER TABLE person ALTER size TYPE varchar(10)",
        "ALTER TABLE person_history ALTER size TYPE varchar(10)",
        "DROP TYPE size",
    )
    _, script, _ = clinic.doctor()
    assert script.count("CREATE TYPE size AS ENUM ('s', 'l')") == 1
    clinic.mend()
    assert clinic.doctor()[:2] == (0, "")
    clinic.execute("ALTER TYPE size RENAME VALUE 'l' TO 'm'")
    _, script, _ = clinic.doctor()
    assert script == "-- person: the type of size lacks values\nALTER TYPE size ADD VALUE 'l';\n"
    clinic.mend()
    assert clinic.doctor()[:2] == (0, "")
    assert clinic.live_on() == []


def test_nothing_is_changed(clinic: Clinic) -> None:
    clinic.execute("DROP INDEX ix_person_history_feed")
    first = clinic.doctor()
    assert clinic.doctor() == first
    names = sa.inspect(clinic.db.engine).get_table_names()
    assert sorted(names) == ["person", "person_history", "pilot", "pilot_history"]


def test_model_that_is_named_is_looked_at_alone(clinic: Clinic) -> None:
    clinic.execute("DROP TABLE pilot_history")
    assert clinic.doctor("Person")[0] == 0
    assert clinic.doctor("Pilot")[0] == 1
    status, _, said = clinic.doctor("Plane")
    assert (status, "no such model: Plane; there are Person, Pilot" in said) == (2, True)


def test_database_that_cannot_be_asked_is_status_2(database_kind: str, database_url: str) -> None:
    with _clinic(database_url) as clinic:
        clinic.db.engine.dispose()
        gone = "/nowhere/test.db" if database_kind == "sqlite" else "nowhere"
        clinic.db._app_engines[clinic.app][None] = sa.create_engine(
            f"sqlite:///{gone}" if database_kind == "sqlite" else sa.make_url(database_url).set(database=gone)
        )
        status, script, said = clinic.doctor()
    assert (status, script) == (2, "")
    assert said.startswith("Error: Person, Pilot could not be checked: ")
    assert said.count("\n") == 1


def test_each_database_is_looked_at(database_url: str, other_database_url: str) -> None:
    db = VersionedSQLAlchemy()
    define(db, "Here", id=sa.Column(sa.Integer, primary_key=True))
    define(db, "There", __bind_key__="there", id=sa.Column(sa.Integer, primary_key=True))
    with opened(db, database_url, {"there": other_database_url}) as app:
        with db.engines["there"].begin() as connection:
            connection.exec_driver_sql("DROP TABLE there_history")
        result = app.test_cli_runner().invoke(args=["history", "doctor"])
    assert result.exit_code == 1
    name = sa.make_url(other_database_url).database
    assert result.stdout.splitlines()[:2] == [
        f"-- in the database {name}:",
        "-- there_history: there is no such table",
    ]

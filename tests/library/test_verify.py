"""``verify`` and ``flask history verify``: each disagreement of live rows and history is found and named, once."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import sqlalchemy as sa
from flask import Flask, current_app
from sqlalchemy.orm import Session

from chrononaut import Retention, VersionedSQLAlchemy
from chrononaut import verify as verifying
from chrononaut.purging import Purge
from chrononaut.transactions import snapshot
from chrononaut.verify import Finding, check, total_rows, verify
from tests.library.models import Country, Release, User, db, define

Open = Callable[..., Session]
ROOT = Path(__file__).parents[2]


def found(model: type, engine: sa.Engine | None = None) -> list[str]:
    """What is wrong with a model."""
    with snapshot(engine or db.engine) as connection:
        return [str(finding) for finding in verify(connection, model)]


def execute(session: Session, *statements: str, bind: sa.Engine | None = None) -> None:
    """What another program does to the tables."""
    options: dict[str, Any] = {} if bind is None else {"bind_arguments": {"bind": bind}}
    for statement in statements:
        session.connection(**options).execute(sa.text(statement))
    session.commit()


@pytest.fixture
def lives(session: Session) -> Session:
    """FR is at version 2, DE deleted, IT at version 3 in its second life, ES from before versioning."""
    execute(session, "INSERT INTO country (code, name) VALUES ('ES', 'from before')")
    countries = {code: Country(code=code, name="first") for code in ("FR", "DE", "IT")}
    session.add_all(countries.values())
    session.commit()
    countries["FR"].name = countries["DE"].name = "second"
    session.delete(countries["IT"])
    session.commit()
    countries["FR"].name = "third"
    session.delete(countries["DE"])
    again = Country(code="IT", name="second life")
    session.add(again)
    session.commit()
    again.name = "changed"
    session.commit()
    return session


def test_ordinary_lives_are_clean(lives: Session) -> None:
    assert found(Country) == []
    lives.get_one(Country, "ES").name = "changed"
    lives.commit()
    lives.delete(lives.get_one(Country, "ES"))
    lives.commit()
    assert found(Country) == []


@pytest.fixture
def cut(lives: Session) -> Session:
    """Of FR the versions up to 0 were purged; of IT all of the first life, by rows that are next to each other."""
    lives.get_one(Country, "FR").name = "fourth"
    lives.commit()
    lives.rollback()
    list(Purge(Country, Retention(versions=1), batch=3).run(db.engine))
    return lives


def test_cuts_are_clean(cut: Session) -> None:
    rows = cut.execute(sa.text("SELECT code, version, operation FROM country_history ORDER BY code, version")).all()
    assert [tuple(row) for row in rows] == [
        ("DE", 0, "purge"),
        ("DE", 1, "delete"),
        ("FR", 1, "purge"),
        ("FR", 2, "update"),
        ("IT", 0, "purge"),
        ("IT", 1, "insert"),
        ("IT", 2, "update"),
    ]
    assert found(Country) == []


def _told(**changes: Any) -> str:
    told = {"first": -1, "operation": "update", "at": "2026-03-01T09:00:00.000000Z", "user_id": None} | changes
    return json.dumps({"user_id": None, "remote_addr": None, "purged": told})


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ("DELETE FROM country_history WHERE code = 'FR' AND version = 1", "history begins with this update; the rows"),
        (
            "UPDATE country_history SET change_info = '{}' WHERE code = 'FR' AND version = 1",
            "does not say what was purged",
        ),
        (
            f"UPDATE country_history SET change_info = '{_told(first=1)}' WHERE code = 'FR' AND version = 1",
            "from version 1",
        ),
        (f"UPDATE country_history SET change_info = '{_told(first=2)}' WHERE code = 'FR' AND version = 1", "version 2"),
        (f"UPDATE country_history SET change_info = '{_told(first='x')}' WHERE code = 'FR' AND version = 1", "'x'"),
        (f"UPDATE country_history SET change_info = '{_told(at='x')}' WHERE code = 'FR' AND version = 1", "no instant"),
        (
            f"UPDATE country_history SET change_info = '{_told(operation='purge')}' WHERE code = 'FR' AND version = 1",
            "this cut cannot end with the operation 'purge'",
        ),
        (
            f"UPDATE country_history SET change_info = '{_told(operation='delete')}' WHERE code = 'FR' AND version = 1",
            "'FR' version 2: this update follows a delete, which only an insert can",
        ),
        (
            f"UPDATE country_history SET change_info = '{_told()}' WHERE code = 'IT' AND version = 0",
            "'IT' version 1: this insert follows the update of a record; it can only follow a delete",
        ),
        ("UPDATE country_history SET name = 'x' WHERE code = 'FR' AND version = 1", "this cut holds a state"),
        (
            "UPDATE country_history SET operation = 'update' WHERE code = 'FR' AND version = 1",
            "begins with this update",
        ),
        (
            "DELETE FROM country_history WHERE code = 'FR' AND version > 1",
            "'FR' version 3: the live row has this version",
        ),
        (
            # The second of two rows, of which a cut says that it stands for both.
            (
                f"UPDATE country_history SET operation = 'purge', name = NULL, change_info = '{_told(first=1)}'"
                " WHERE code = 'FR' AND version = 2"
            ),
            "'FR' version 2: this cut begins with version 1; the row before it is version 1",
        ),
    ],
)
def test_damaged_cut_is_found_once(cut: Session, damage: str, finding: str) -> None:
    cut.connection().exec_driver_sql(damage)
    cut.commit()
    (told,) = found(Country)
    assert finding in told


def test_versions_of_one_instant_are_clean(lives: Session) -> None:
    country = lives.get_one(Country, "FR")
    for name in ("fourth", "fifth"):
        country.name = name
        lives.flush()
    lives.commit()
    assert found(Country) == []


def test_empty_tables_are_clean(app: Flask) -> None:
    assert found(User) == []


def test_parts_add_up_to_all_rows(lives: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "_BATCH", 2)
    execute(lives, "UPDATE country SET version = 7")
    with snapshot(db.engine) as connection:
        parts = list(check(connection, Country))
        assert sum(part.rows for part in parts) == total_rows(connection, Country) == 13
    assert sum(part.history_rows for part in parts) == 10
    assert sum(part.records for part in parts) == 4
    assert all(part.rows <= 4 for part in parts)
    assert [finding.key for part in parts for finding in part.findings] == [("FR",), ("IT",), ("ES",)]


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        pytest.param(
            "DELETE FROM country_history WHERE code = 'FR' AND version = 0",
            "'FR' version 1: history has a gap: the row before it is version -1",
            id="gap",
        ),
        pytest.param(
            "DELETE FROM country_history WHERE code = 'FR' AND version < 1",
            "'FR' version 1: history begins with this update; the rows before it are missing",
            id="beginning missing",
        ),
        pytest.param(
            "DELETE FROM country_history WHERE code = 'IT' AND version < 1",
            "'IT' version 1: history begins with this insert; the rows before it are missing",
            id="first life missing",
        ),
        pytest.param(
            "UPDATE country_history SET operation = 'update' WHERE code = 'FR' AND version = -1",
            "'FR' version -1: history begins with this update; the rows before it are missing",
            id="update of nothing",
        ),
        pytest.param(
            "UPDATE country_history SET operation = 'update' WHERE code = 'IT' AND version = 0",
            "'IT' version 1: this insert follows the update of a record; it can only follow a delete",
            id="insert of what is there",
        ),
        pytest.param(
            "UPDATE country_history SET operation = 'delete' WHERE code = 'FR' AND version = 0",
            "'FR' version 1: this update follows a delete, which only an insert can",
            id="update of what is deleted",
        ),
        pytest.param(
            "UPDATE country_history SET operation = 'delete' WHERE code = 'DE' AND version = 0",
            "'DE' version 1: this delete follows a delete, which only an insert can",
            id="delete of what is deleted",
        ),
        pytest.param(
            "UPDATE country_history SET operation = 'upsert' WHERE code = 'IT' AND version = 0",
            "'IT' version 0: the operation 'upsert' is none of insert, update, delete, purge",
            id="unknown operation",
        ),
        pytest.param(
            "UPDATE country_history SET operation = '' WHERE code = 'DE' AND version = 1",
            "'DE' version 1: the operation '' is none of insert, update, delete, purge",
            id="unknown operation at the end",
        ),
        pytest.param(
            "UPDATE country_history SET operation = 'INSERT' WHERE code = 'FR' AND version = -1",
            "'FR' version -1: the operation 'INSERT' is none of insert, update, delete, purge",
            id="unknown operation at the beginning",
        ),
        pytest.param(
            "UPDATE country_history SET operation = 'x' WHERE code = 'IT' AND version = 1",
            "'IT' version 1: the operation 'x' is none of insert, update, delete, purge",
            id="unknown operation after a delete",
        ),
        pytest.param(
            "UPDATE country_history SET changed = '2000-01-01 00:00:00.000000' WHERE code = 'IT' AND version = 2",
            "'IT' version 2: it was replaced earlier than the version before it",
            id="time runs backwards",
        ),
        pytest.param(
            "UPDATE country_history SET name = '' WHERE code = 'IT' AND version = 1",
            "'IT' version 1: the row of an insert holds a state, though nothing was there before",
            id="insert with a state",
        ),
        pytest.param(
            "UPDATE country SET version = 1 WHERE code = 'FR'",
            "'FR' version 1: the live row has this version, though history ends with version 1",
            id="live version too low",
        ),
        pytest.param(
            "DELETE FROM country_history WHERE code = 'FR' AND version = 1",
            "'FR' version 2: the live row has this version, though history ends with version 0",
            id="last history row missing",
        ),
        pytest.param(
            "DELETE FROM country WHERE code = 'FR'",
            "'FR' version 1: there is no live row, though history ends with this update",
            id="live row missing",
        ),
        pytest.param(
            "DELETE FROM country_history WHERE code = 'DE' AND version = 1",
            "'DE' version 0: there is no live row, though history ends with this update",
            id="delete row missing",
        ),
        pytest.param(
            "INSERT INTO country (code) VALUES ('DE')",
            "'DE' version 0: there is a live row, though history ends with the delete of version 1",
            id="live row after delete",
        ),
        pytest.param(
            "UPDATE country SET version = 1 WHERE code = 'ES'",
            "'ES' version 1: there is a live row of this version and no history",
            id="live version without history",
        ),
        pytest.param(
            "DELETE FROM country_history WHERE code = 'FR'",
            "'FR' version 2: there is a live row of this version and no history",
            id="all of history missing",
        ),
    ],
)
def test_damage_is_found_once(lives: Session, damage: str, finding: str) -> None:
    execute(lives, damage)
    assert found(Country) == [f"Country {finding}"]


def test_number_below_the_first_is_found(lives: Session) -> None:
    execute(lives, "UPDATE country_history SET version = -2 WHERE code = 'IT' AND version = -1")
    assert found(Country) == [
        "Country 'IT' version -2: history begins with this insert; the rows before it are missing",
        "Country 'IT' version 0: history has a gap: the row before it is version -2",
    ]


def test_findings_come_by_key_and_version_with_their_facts(lives: Session) -> None:
    execute(
        lives,
        "DELETE FROM country WHERE code = 'IT'",
        "UPDATE country_history SET name = 'x' WHERE operation = 'insert' AND code <> 'DE'",
    )
    with snapshot(db.engine) as connection:
        findings = list(verify(connection, Country))
    assert [(finding.key, finding.version) for finding in findings] == [
        (("FR",), -1),
        (("IT",), -1),
        (("IT",), 1),
        (("IT",), 2),
    ]
    state = "the row of an insert holds a state, though nothing was there before"
    assert findings[0] == Finding("Country", ("FR",), -1, state)


def test_composite_keys_do_not_mix(session: Session) -> None:
    releases = [Release(product=product, cycle=cycle) for product in "ab" for cycle in "12"]
    session.add_all(releases)
    session.commit()
    for release in releases[1:]:
        release.label = "changed"
    session.commit()
    assert found(Release) == []
    execute(session, "DELETE FROM release WHERE product = 'a' AND cycle = '2'")
    assert found(Release) == [
        "Release ('a', '2') version 0: there is no live row, though history ends with this update"
    ]


def test_model_without_a_state_is_checked(open_database: Open) -> None:
    database = VersionedSQLAlchemy()
    model = define(database, "Tag", id=sa.Column(sa.Integer, primary_key=True))
    session = open_database(database)
    session.add(model(id=1))
    session.commit()
    assert found(model, database.engine) == []
    execute(session, "UPDATE tag SET version = 2")
    assert len(found(model, database.engine)) == 1


def test_names_of_our_columns_and_of_attributes_do_not_matter(open_database: Open) -> None:
    database = VersionedSQLAlchemy()
    names = {
        "version": "row_version",
        "operation": "row_operation",
        "changed": "row_changed",
        "change_info": "row_info",
        "transaction_id": "row_transaction",
    }
    model = define(
        database,
        "Song",
        __tablename__="song",
        __chrononaut_rename__=names,
        __chrononaut_tablename__="songs of the past",
        __chrononaut_hidden__=["secret"],
        number=sa.Column("Song No", sa.Integer, primary_key=True),
        version=sa.Column(sa.String, primary_key=True),
        title=sa.Column("full title", sa.String),
        operation=sa.Column(sa.String),
        changed=sa.Column(sa.JSON),
        secret=sa.Column(sa.String),
    )
    session = open_database(database)
    songs = [model(number=1, version=version, operation="x", secret="s") for version in ("live", "studio")]
    session.add_all(songs)
    session.commit()
    songs[0].title, songs[1].changed = "a", {"a": None}
    session.commit()
    session.delete(songs[1])
    session.commit()
    assert found(model, database.engine) == []
    execute(
        session, """UPDATE "songs of the past" SET "full title" = 'x' WHERE row_version = -1 AND version = 'live'"""
    )
    execute(session, "UPDATE song SET row_version = 5")
    assert found(model, database.engine) == [
        "Song (1, 'live') version -1: the row of an insert holds a state, though nothing was there before",
        "Song (1, 'live') version 5: the live row has this version, though history ends with version 0",
    ]


def _create_schema(metadata: object, connection: sa.Connection, **_: object) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS staff")


def test_schema_is_that_of_the_model(open_database: Open, database_kind: str) -> None:
    database = VersionedSQLAlchemy()
    schema = "main" if database_kind == "sqlite" else "staff"
    model = define(
        database,
        "Person",
        __tablename__="person",
        __table_args__={"schema": schema},
        id=sa.Column(sa.Integer, primary_key=True),
        name=sa.Column(sa.String),
    )
    sa.event.listen(database.metadata, "before_create", _create_schema)
    session = open_database(database)
    session.add(model(id=1, name="a"))
    session.commit()
    assert found(model, database.engine) == []
    execute(session, f"DELETE FROM {schema}.person")
    assert len(found(model, database.engine)) == 1


def test_command_checks_each_model_in_its_own_database(open_database: Open, other_database_url: str) -> None:
    database = VersionedSQLAlchemy()
    here, there = (
        define(database, name, id=sa.Column(sa.Integer, primary_key=True), x=sa.Column(sa.String), **bind)
        for name, bind in (("Here", {}), ("There", {"__bind_key__": "other"}))
    )
    session = open_database(database, {"other": other_database_url})
    session.add_all([here(id=1), there(id=1), there(id=2)])
    session.commit()
    result = run(current_app)
    assert (result.exit_code, result.stdout) == (0, "2 models, 3 records, 3 history rows: no differences\n")
    execute(session, "DELETE FROM there WHERE id = 2", bind=database.engines["other"])
    result = run(current_app)
    assert (result.exit_code, result.stdout.splitlines()) == (
        1,
        [
            "There 2 version -1: there is no live row, though history ends with this insert",
            "2 models, 3 records, 3 history rows: 1 difference",
        ],
    )


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_snapshot_neither_writes_nor_sees_what_is_written_meanwhile(lives: Session) -> None:
    """On PostgreSQL; elsewhere each statement sees one state by itself."""
    with snapshot(db.engine) as connection:
        before = total_rows(connection, Country)
        lives.get_one(Country, "FR").name = "meanwhile"
        lives.add(Country(code="AT"))
        lives.commit()
        assert total_rows(connection, Country) == before
        assert list(verify(connection, Country)) == []
        with pytest.raises(sa.exc.InternalError, match="read-only"):
            connection.execute(sa.text("DELETE FROM country"))
    assert found(Country) == []


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_writers_of_sqlite_are_not_held_up(database_url: str, lives: Session) -> None:
    """On SQLite, where an application may begin each transaction as a writer, as the service does."""
    engine = sa.create_engine(database_url)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    with snapshot(engine) as connection:
        assert list(verify(connection, Country)) == []
        lives.get_one(Country, "FR").name = "meanwhile"
        lives.commit()
        assert list(verify(connection, Country)) == []
    engine.dispose()


# The command


def run(app: Flask, *arguments: str) -> Any:
    """Run the command."""
    return app.test_cli_runner().invoke(args=["history", "verify", *arguments], catch_exceptions=False)


def test_command_says_what_was_checked(app: Flask, lives: Session) -> None:
    result = run(app)
    assert result.exit_code == 0
    assert result.stdout == "5 models, 4 records, 10 history rows: no differences\n"
    # Where standard error is no terminal: a line for each model, when it is done.
    assert result.stderr.splitlines() == [
        "Book: 0 records, 0 history rows: no differences",
        "Country: 4 records, 10 history rows: no differences",
        "Release: 0 records, 0 history rows: no differences",
        "Shelf: 0 records, 0 history rows: no differences",
        "User: 0 records, 0 history rows: no differences",
    ]


def test_command_checks_the_models_that_are_named(app: Flask, lives: Session) -> None:
    execute(lives, "DELETE FROM country")
    result = run(app, "User", "Release", "User")
    assert (result.exit_code, result.stdout) == (0, "2 models, 0 records, 0 history rows: no differences\n")
    assert run(app, "Country").stdout.endswith("1 model, 3 records, 10 history rows: 2 differences\n")


def test_command_lists_differences_and_fails(app: Flask, lives: Session) -> None:
    execute(
        lives,
        "DELETE FROM country WHERE code = 'FR'",
        "INSERT INTO appuser (id, email, active, clicks, version) VALUES (1, 'a', '1', 0, 4)",
    )
    result = run(app)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "Country 'FR' version 1: there is no live row, though history ends with this update",
        "User 1 version 4: there is a live row of this version and no history",
        "5 models, 5 records, 10 history rows: 2 differences",
    ]
    assert "Country: 4 records, 10 history rows: 1 difference\n" in result.stderr


@pytest.mark.parametrize(
    ("limit", "shown", "rest"),
    [
        (0, 0, ["Country: 3 more differences, not shown"]),
        (2, 2, ["Country: 1 more difference, not shown"]),
        (3, 3, []),
        (4, 3, []),
    ],
)
def test_command_counts_differences_beyond_the_limit(
    app: Flask, lives: Session, limit: int, shown: int, rest: list[str]
) -> None:
    execute(lives, "UPDATE country SET version = 7")
    result = run(app, "--limit", str(limit), "Country")
    *lines, summary = result.stdout.splitlines()
    assert lines[shown:] == rest
    assert summary == "1 model, 4 records, 10 history rows: 3 differences"
    assert result.exit_code == 1


def test_command_shows_a_hundred_differences_by_default(app: Flask, session: Session) -> None:
    session.add_all(Release(product="p", cycle=f"{number:04}") for number in range(1234))
    session.commit()
    execute(session, "DELETE FROM release")
    *lines, rest, summary = run(app).stdout.splitlines()
    assert len(lines) == 100
    assert rest == "Release: 1,134 more differences, not shown"
    assert summary == "5 models, 1,234 records, 1,234 history rows: 1,234 differences"


def test_unknown_model_is_a_usage_error_that_lists_what_there_is(app: Flask) -> None:
    result = run(app, "Country", "Nobody", "Author")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "no such model: Nobody, Author; there are Book, Country, Release, Shelf, User\n" in result.stderr


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_application_without_versioned_models_is_a_usage_error(open_database: Open) -> None:
    database = VersionedSQLAlchemy()
    open_database(database)
    result = run(current_app)
    assert result.exit_code == 2
    assert "there are no versioned models; is the module that defines them imported?\n" in result.stderr


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite:////nowhere/at/all.db", "unable to open database file"),
        ("postgresql+psycopg://postgres:pass-word@127.0.0.1:1/postgres", "connection failed"),
    ],
)
def test_unreachable_database_is_one_line(url: str, reason: str) -> None:
    app = Flask("unreachable")
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    db.init_app(app)
    result = run(app)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: Book could not be checked: {reason}")
    assert "pass-word" not in line
    with app.app_context():
        db.engine.dispose()


def test_missing_table_is_one_line(app: Flask, session: Session) -> None:
    execute(session, "DROP TABLE country_history")
    result = run(app)
    assert result.exit_code == 2
    assert result.stdout == ""
    *done, line = result.stderr.splitlines()
    assert [text.partition(":")[0] for text in done] == ["Book"]
    assert line.startswith("Error: Country could not be checked: ")
    assert "country_history" in line


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_progress_is_drawn_on_a_terminal(app: Flask, lives: Session, database_url: str, tmp_path: Path) -> None:
    execute(lives, "DELETE FROM country WHERE code = 'FR'")
    (tmp_path / "shown.py").write_text(
        "from flask import Flask\n"
        "from tests.library.models import db\n"
        "app = Flask('shown')\n"
        f"app.config['SQLALCHEMY_DATABASE_URI'] = {database_url!r}\n"
        "db.init_app(app)\n"
    )
    terminal, end = pty.openpty()
    process = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "shown", "history", "verify", "Country"],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=end,
        check=False,
        text=True,
    )
    os.close(end)
    drawn = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert process.returncode == 1
    assert process.stdout.splitlines() == [
        "Country 'FR' version 1: there is no live row, though history ends with this update",
        "1 model, 4 records, 10 history rows: 1 difference",
    ]
    assert "Country" in drawn
    assert "100%" in drawn
    assert "records" not in drawn


# The group


def _versioned_app(name: str) -> tuple[Flask, VersionedSQLAlchemy]:
    app = Flask(name)
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    database = VersionedSQLAlchemy()
    define(database, name, id=sa.Column(sa.Integer, primary_key=True))
    return app, database


def test_each_application_checks_the_models_of_its_own_database_object() -> None:
    for name in ("One", "Two"):
        app, database = _versioned_app(name)
        database.init_app(app)
        result = run(app, "Three")
        assert f"no such model: Three; there are {name}\n" in result.stderr


def test_application_may_have_more_commands_in_the_group() -> None:
    app, database = _versioned_app("Thing")

    @app.cli.group("history")
    def group() -> None: ...

    @group.command("tell")
    def tell() -> None:
        click.echo("told")

    database.init_app(app)
    runner = app.test_cli_runner()
    assert runner.invoke(args=["history", "tell"]).stdout == "told\n"
    assert "there are Thing\n" in run(app, "Three").stderr
    other, another_database = _versioned_app("Other")
    another_database.init_app(other)
    assert other.test_cli_runner().invoke(args=["history", "tell"]).exit_code == 2


@pytest.mark.parametrize("arguments", [["history"], ["history", "verify"]])
def test_commands_of_the_application_stay_as_they_are(arguments: list[str]) -> None:
    app, database = _versioned_app("Thing")
    group: click.Group = app.cli
    for name in arguments[:-1]:
        inner = click.Group(name)
        group.add_command(inner)
        group = inner
    group.add_command(click.Command(arguments[-1], callback=lambda: click.echo("mine")))
    database.init_app(app)
    assert app.test_cli_runner().invoke(args=arguments).stdout == "mine\n"

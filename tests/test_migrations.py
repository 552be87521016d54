"""The migrations that the service brings: they make the same tables as its models say."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from app import create_app
from app.cli import create_tables
from app.db import db
from app.migrations import is_behind, parts_of
from tests.service import own_models

_NOTED = {"chrononaut_service_version", "chrononaut_models_version"}
_OWN = {"CHRONONAUT_MODELS": own_models.__name__, "CHRONONAUT_DB": f"{own_models.__name__}:db"}

Service = Callable[..., Flask]


@pytest.fixture
def service(database_url: str) -> Iterator[Service]:
    """Makes the service on an empty database."""
    made = []

    def make(url: str = database_url, **settings: str) -> Flask:
        made.append(create_app({"SECRET_KEY": "0123456789abcdef", "DATABASE_URL": url, **settings}))
        return made[-1]

    yield make
    for app in made:
        with app.app_context():
            for engine in app.extensions["sqlalchemy"].engines.values():
                engine.dispose()


def run(app: Flask, command: str) -> str:
    """What a command of ``flask db`` says, but for what Alembic says by itself."""
    result = app.test_cli_runner().invoke(args=["db", *command.split()])
    assert result.exit_code == 0, result.output
    return result.output


def fails(app: Flask, command: str) -> str:
    """What a command of ``flask db`` says that fails, without a traceback."""
    result = app.test_cli_runner().invoke(args=["db", *command.split()])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    return result.output


def tables(url: str) -> dict[str, Any]:
    """All that a database says of its tables, but for those that note revisions."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    inspector = sa.inspect(engine)
    told: dict[str, Any] = {}
    for name in set(inspector.get_table_names()) - _NOTED:
        told[name] = {
            "columns": [column | {"type": str(column["type"])} for column in inspector.get_columns(name)],
            "primary key": inspector.get_pk_constraint(name),
            "unique": sorted(inspector.get_unique_constraints(name), key=str),
            "foreign keys": inspector.get_foreign_keys(name),
            "checks": inspector.get_check_constraints(name),
            "indexes": sorted(inspector.get_indexes(name), key=str),
        }
    return told


def test_upgrade_makes_what_the_models_say(service: Service, database_url: str, other_database_url: str) -> None:
    app, other = service(), service(other_database_url)
    assert "models goes to 0001" in run(app, "upgrade")
    with other.app_context():
        create_tables(db)
    assert len(tables(database_url)) == 6
    assert tables(database_url) == tables(other_database_url)
    run(app, "check")


def test_downgrade_leaves_nothing(service: Service, database_url: str) -> None:
    app = service()
    run(app, "upgrade")
    run(app, "downgrade base")
    assert tables(database_url) == {}


def test_what_create_tables_made_is_upgraded(service: Service, database_url: str) -> None:
    app = service()
    with app.app_context():
        create_tables(db)
    before = tables(database_url)
    assert "goes to" not in run(app, "upgrade")
    assert tables(database_url) == before
    run(app, "check")


def test_tables_from_before_there_were_migrations_are_upgraded(service: Service, database_url: str) -> None:
    app = service()
    with app.app_context():
        create_tables(db)
        before = tables(database_url)
        with db.engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO appuser (id, email, active) VALUES (1, 'a@example.com', true)")
            # A release of long ago had fewer indexes.
            connection.exec_driver_sql("DROP INDEX ix_appuser_history_feed")
            for table in _NOTED:
                connection.exec_driver_sql(f"DROP TABLE {table}")
        create_tables(db)
    assert "models goes to 0001" in run(app, "upgrade")
    assert tables(database_url) == before
    with app.app_context(), db.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT email FROM appuser").scalars().all() == ["a@example.com"]


def test_statements_are_printed_for_who_runs_them_elsewhere(service: Service, database_url: str) -> None:
    printed = run(service(), "upgrade --sql")
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in re.sub(r"(?m)^--.*$|^(BEGIN|COMMIT);$|^\w+ goes to .*$", "", printed).split(";"):
            if statement.strip():
                connection.exec_driver_sql(statement)
    run(service(), "check")


def test_database_is_behind_until_it_is_upgraded(service: Service) -> None:
    app = service()

    def behind() -> list[str]:
        with app.app_context(), db.engine.connect() as connection:
            return [part.name for part in parts_of(app) if is_behind(connection, part)]

    assert behind() == ["service", "models"]
    run(app, "upgrade")
    assert behind() == []
    with app.app_context(), db.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE chrononaut_models_version SET version_num = 'of a newer release'")
    assert behind() == []
    run(app, "stamp base --purge")
    assert behind() == ["service", "models"]


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_upgrade_gives_up_soon_where_a_table_is_in_use(service: Service, database_url: str) -> None:
    app = service()
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE appuser_history (id integer)")
        connection.exec_driver_sql("LOCK TABLE appuser_history")
        # It waits for locks of tables no longer than the application can be kept waiting.
        assert "nothing was migrated: canceling statement due to lock timeout" in fails(app, "upgrade")
    assert set(tables(database_url)) == {"appuser_history"}


# Flask-Migrate's own `env.py` asks for the engine in the old way first, and sets all logging.
@pytest.mark.filterwarnings("ignore:'get_engine' is deprecated")
def test_own_models_have_migrations_of_their_own(
    service: Service, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logging.config.fileConfig", lambda name: None)
    app, folder = service(**_OWN), tmp_path / "migrations"
    assert "models goes to" not in run(app, "upgrade")
    assert set(tables(database_url)) == {"chrononaut_access_token", "chrononaut_login"}
    run(app, f"init -d {folder}")
    run(app, f"migrate -d {folder} --rev-id 1")
    (script,) = (folder / "versions").glob("*.py")
    assert "chrononaut_" not in script.read_text()
    run(app, f"upgrade -d {folder}")
    run(service(**_OWN), f"check -d {folder}")
    assert "goes to" not in run(app, "upgrade")
    with app.app_context():
        create_tables(own_models.db)
        assert set(own_models.db.metadata.tables) < set(tables(database_url))

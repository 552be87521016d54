"""``/health``: a worker that answers is live; it is ready once its database answers and has the tables it needs."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.auth.tokens import PREFIX
from app.cli import create_tables
from app.db import db
from tests.service import own_models
from tests.service.api import Api, assert_problem
from tests.service.conftest import SECRET_KEY


@pytest.fixture
def service(other_database_url: str) -> Iterator[Callable[..., Flask]]:
    """Makes the service on a database that is empty at first."""
    made: list[Flask] = []

    def make(**settings: str) -> Flask:
        made.append(create_app({"SECRET_KEY": SECRET_KEY, "DATABASE_URL": other_database_url, **settings}))
        return made[-1]

    yield make
    for app in made:
        with app.app_context():
            app.extensions["sqlalchemy"].engine.dispose()


@pytest.fixture
def execute(other_database_url: str) -> Callable[[str], None]:
    def execute(statement: str) -> None:
        engine = sa.create_engine(other_database_url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)

    return execute


def _ready(client: FlaskClient) -> Any:
    return client.get("/health/ready")


def _why_not(response: Any) -> str:
    assert response.headers["Retry-After"] == "1"
    detail: str = assert_problem(response, 503, "unavailable")["detail"]
    return detail


def test_is_ready_once_its_tables_are_made(service: Callable[..., Flask]) -> None:
    app = service()
    client = app.test_client()
    assert client.get("/health/live").json == {"status": "live"}
    assert _why_not(_ready(client)) == (
        "the tables of the service and the models are behind: run flask --app app db upgrade"
    )
    assert app.test_cli_runner().invoke(args=["db", "upgrade"]).exit_code == 0
    response = _ready(client)
    assert (response.status_code, response.json) == (200, {"status": "ready"})
    assert response.headers["Cache-Control"] == "no-store"


def test_part_that_is_behind_is_named(service: Callable[..., Flask], execute: Callable[[str], None]) -> None:
    app = service()
    with app.app_context():
        create_tables(db)
    assert _ready(app.test_client()).status_code == 200
    execute("DELETE FROM chrononaut_models_version")
    assert "the tables of the models are behind" in _why_not(_ready(service().test_client()))


@pytest.mark.parametrize(
    ("table", "statement"),
    [
        ("release_history", "DROP TABLE release_history"),
        ("appuser_history", "ALTER TABLE appuser_history DROP COLUMN name"),
    ],
)
def test_table_that_lacks_something_is_named(
    service: Callable[..., Flask], execute: Callable[[str], None], table: str, statement: str
) -> None:
    with service().app_context():
        create_tables(db)
    execute(statement)
    assert f"the table {table} is missing, lacks a column" in _why_not(_ready(service().test_client()))


def test_tables_of_own_models_are_looked_at(service: Callable[..., Flask], execute: Callable[[str], None]) -> None:
    own = {"CHRONONAUT_MODELS": own_models.__name__, "CHRONONAUT_DB": f"{own_models.__name__}:db"}
    app = service(**own)
    with app.app_context():
        create_tables(own_models.db)
    assert _ready(app.test_client()).status_code == 200
    execute("ALTER TABLE parcel_history RENAME TO elsewhere")
    assert "the table parcel_history is missing" in _why_not(_ready(service(**own).test_client()))


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_is_live_and_not_ready_where_its_database_cannot_be_reached(app_with: Callable[..., Flask]) -> None:
    client = app_with(DATABASE_URL="postgresql://127.0.0.1:1/nothing").test_client()
    assert client.get("/health/live").status_code == 200
    # It is not even asked who asks.
    assert client.get("/health/live", headers={"Authorization": f"Bearer {PREFIX}a"}).status_code == 200
    assert _why_not(_ready(client)) == "the database does not answer; try again"


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_database_that_takes_no_changes_is_not_ready_and_no_defect(
    app_with: Callable[..., Flask], database_url: str, write_token: str
) -> None:
    read_only = f"{database_url}{'&' if '?' in database_url else '?'}options=-c%20default_transaction_read_only%3Don"
    client = app_with(DATABASE_URL=read_only).test_client()
    assert _why_not(_ready(client)) == "the database takes no changes"
    api = Api(client, write_token)
    response = api.call("POST", "/records/user", {"email": "a@example.com"})
    assert _why_not(response) == "the database takes no changes now; try again"
    assert api.call("GET", "/records/user").status_code == 200


def test_missing_tables_are_no_defect(service: Callable[..., Flask]) -> None:
    app = service()
    client = app.test_client()
    headers = {"Authorization": "Bearer chrononaut_23e0f09762_Cz0UrzzrngKz-zufxN_JSlF7Cf7np37IkLRl7aW3-3Y"}
    assert "migrations have not been run" in _why_not(client.get("/records/user", headers=headers))
    result = app.test_cli_runner().invoke(args=["tokens", "list"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: the database does not take it: ")
    assert result.output.endswith("; run flask --app app db upgrade\n")
    assert result.output.count("\n") == 1


def test_no_limit_counts_it(app_with: Callable[..., Flask]) -> None:
    # One that does not ask for the document meanwhile.
    client = FlaskClient(app_with(CHRONONAUT_RATE_LIMITS="3 per hour"))

    def left() -> int:
        return int(client.get("/records/user").headers["X-RateLimit-Remaining"])

    before = left()
    for path in ("/health/live", "/health/ready"):
        assert {client.get(path).status_code for _ in range(4)} == {200}
    assert left() == before - 1

"""The service on each database, with tokens for it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.auth.grants import Grants
from app.auth.tables import metadata as token_metadata
from app.auth.tokens import create_token
from app.cli import create_tables
from app.db import db
from tests.service import own_models
from tests.service.api import Api
from tests.service.contract import ContractClient

SECRET_KEY = "a key for tests only"


@pytest.fixture(autouse=True)
def contract(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer that a test gets of an operation is one that the document tells of."""
    monkeypatch.setattr(Flask, "test_client_class", ContractClient)


@pytest.fixture(scope="session")
def service_database_urls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A database of each kind for all tests of the service: making tables takes longer than emptying them."""
    server = sa.make_url(request.getfixturevalue("postgres_url"))
    engine = sa.create_engine(server, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE service")
    return {
        "sqlite": f"sqlite:///{tmp_path_factory.mktemp('service') / 'test.db'}",
        "postgresql": server.set(database="service").render_as_string(hide_password=False),
    }


@pytest.fixture(scope="session")
def apps(service_database_urls: dict[str, str]) -> Iterator[dict[str, Flask]]:
    apps = {}
    for kind, url in service_database_urls.items():
        apps[kind] = create_app({"SECRET_KEY": SECRET_KEY, "DATABASE_URL": url})
        with apps[kind].app_context():
            create_tables(db)
    yield apps
    for app in apps.values():
        with app.app_context():
            db.engine.dispose()


@pytest.fixture
def database_url(database_kind: str, service_database_urls: dict[str, str]) -> str:
    return service_database_urls[database_kind]


@pytest.fixture
def app(database_kind: str, apps: dict[str, Flask]) -> Flask:
    """The service with empty tables."""
    app = apps[database_kind]
    with app.app_context(), db.engine.begin() as connection:
        for table in (*db.metadata.sorted_tables, *token_metadata.sorted_tables):
            connection.execute(sa.delete(table))
    for limiter in app.extensions["limiter"]:
        limiter.reset()
    return app


class _InContextOfItsOwn(Api):
    """Calls the API so that a request shares no session and no user with the context that the test is in."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        with self.client.application.app_context():
            return super().call(*args, **kwargs)


@pytest.fixture
def app_with(app: Flask, database_url: str) -> Iterator[Callable[..., Flask]]:
    """Makes a service with other settings, on the same tables as `app`, which are empty."""
    made = []

    def make(**settings: str) -> Flask:
        made.append(create_app({"SECRET_KEY": SECRET_KEY, "DATABASE_URL": database_url, **settings}))
        return made[-1]

    yield make
    for other in made:
        with other.app_context():
            db.engine.dispose()


@pytest.fixture
def own_api(database_url: str) -> Iterator[Api]:
    """The service of `own_models`, as someone uses it who may write; in its application's context."""
    module = own_models.__name__
    database = {"DATABASE_URL": database_url, "CHRONONAUT_DB": f"{module}:db"}
    app = create_app({"SECRET_KEY": SECRET_KEY, "CHRONONAUT_MODELS": module, **database})
    with app.app_context():
        create_tables(own_models.db)
        with own_models.db.engine.begin() as connection:
            for table in (*own_models.db.metadata.sorted_tables, *token_metadata.sorted_tables):
                connection.execute(sa.delete(table))
        token = create_token(own_models.db, "writer@example.com", Grants.parse(["write"]))
        yield _InContextOfItsOwn(app.test_client(), token)
        own_models.db.session.remove()
        own_models.db.engine.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client without a token."""
    return app.test_client()


@pytest.fixture
def read_token(app: Flask) -> str:
    with app.app_context():
        return create_token(db, "reader@example.com", Grants.parse(["read"]))


@pytest.fixture
def write_token(app: Flask) -> str:
    with app.app_context():
        return create_token(db, "writer@example.com", Grants.parse(["write"]))


@pytest.fixture
def api(client: FlaskClient, write_token: str) -> Api:
    """The API as someone uses it who may write."""
    return Api(client, write_token)


@pytest.fixture
def admin(app: Flask, client: FlaskClient) -> Api:
    """The API as someone uses it who may do all."""
    with app.app_context():
        return Api(client, create_token(db, "admin@example.com", Grants.parse(["admin"])))

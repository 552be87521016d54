"""The service on each database, with tokens for it."""

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.auth import create_token
from app.cli import create_tables
from app.db import db
from tests.service.api import Api

SECRET_KEY = "a key for tests only"


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    """The service with empty tables."""
    app = create_app({"SECRET_KEY": SECRET_KEY, "DATABASE_URL": database_url})
    with app.app_context():
        create_tables(db)
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client without a token."""
    return app.test_client()


@pytest.fixture
def read_token(app: Flask) -> str:
    with app.app_context():
        return create_token(db, "reader@example.com", ["read"])


@pytest.fixture
def write_token(app: Flask) -> str:
    with app.app_context():
        return create_token(db, "writer@example.com", ["write"])


@pytest.fixture
def api(client: FlaskClient, write_token: str) -> Api:
    """The API as someone uses it who may write."""
    return Api(client, write_token)

"""A database of its own, for as long as the run lasts, with the durability that it has by default."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flask import Flask

from benchmarks.reading.models import db
from tests.conftest import postgres_server

DATABASES: Final = ("postgresql", "sqlite")


@contextmanager
def database(kind: str) -> Iterator[Flask]:
    """An application on an empty database with the tables, inside its context.

    :param kind: one of `DATABASES`
    """
    with empty_database(kind) as url, connected(url) as app:
        yield app


@contextmanager
def empty_database(kind: str) -> Iterator[str]:
    """The URL of a database with nothing in it.

    :param kind: one of `DATABASES`
    """
    if kind == "postgresql":
        with postgres_server() as server:
            yield server.get_uri(driver="psycopg")
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{Path(folder) / 'benchmark.db'}"


@contextmanager
def connected(url: str) -> Iterator[Flask]:
    """An application with the tables, inside its context. Its connections end with the block."""
    app = Flask("reading")
    app.config.update(SQLALCHEMY_DATABASE_URI=url)
    db.init_app(app)
    with app.app_context():
        try:
            db.create_all()
            yield app
        finally:
            db.session.remove()
            db.engine.dispose()

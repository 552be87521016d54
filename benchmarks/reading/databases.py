"""A database of its own, for as long as the run lasts, with the durability that it has by default."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from flask import Flask

from benchmarks.reading.models import db
from tests.conftest import postgres_server

DATABASES: Final = ("postgresql", "sqlite")


@contextmanager
def database(kind: str) -> Iterator[Flask]:
    """An application on an empty database with the tables, inside its context.

    :param kind: one of `DATABASES`
    """
    if kind == "postgresql":
        with postgres_server() as server, connected(server.get_uri(driver="psycopg")) as app:
            yield app
    else:
        with (
            tempfile.TemporaryDirectory() as folder,
            connected(f"sqlite:///{Path(folder) / 'reading.db'}") as app,
        ):
            yield app


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


def release(engine: sa.Engine) -> str:
    """The name and the version of a database, for a person."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            number: str = connection.exec_driver_sql("SHOW server_version").scalar_one()
            return f"PostgreSQL {number.split(maxsplit=1)[0]}"
        return f"SQLite {connection.exec_driver_sql('SELECT sqlite_version()').scalar_one()}"

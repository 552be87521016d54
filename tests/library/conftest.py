"""An application with the shared models, its session, and what statements it executes."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import event
from sqlalchemy.orm import Session

from tests.library.models import db

OpenApp = Callable[..., AbstractContextManager[Flask]]


def prepare_sqlite(engine: sa.Engine) -> None:
    """Let SQLAlchemy begin SQLite's transactions: the driver begins them late, too late for a savepoint.

    Nor does it wait for the disk.
    """
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous = OFF")

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")


@contextmanager
def opened(database: SQLAlchemy, url: str, binds: dict[str, str] | None = None, **config: Any) -> Iterator[Flask]:
    """An application with its context and its tables; afterwards nothing of it is left open.

    :param config: further settings
    """
    app = Flask("library")
    app.config.update(SQLALCHEMY_DATABASE_URI=url, SQLALCHEMY_BINDS=binds or {}, SECRET_KEY="x", **config)
    database.init_app(app)
    with app.app_context():
        for engine in database.engines.values():
            prepare_sqlite(engine)
        try:
            database.create_all()
            yield app
        finally:
            database.session.remove()
            for engine in database.engines.values():
                engine.dispose()


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    """An application with the shared models, inside its context."""
    with opened(db, database_url) as app:
        yield app


@pytest.fixture
def session(app: Flask) -> Session:
    """The session of the shared models."""
    session: Session = db.session()
    return session


@pytest.fixture
def open_database(database_url: str) -> Iterator[Callable[..., Session]]:
    """Bind a test's own ``VersionedSQLAlchemy`` and create its tables, until the test ends."""
    with ExitStack() as stack:

        def open_database(database: SQLAlchemy, binds: dict[str, str] | None = None, **config: Any) -> Session:
            stack.enter_context(opened(database, database_url, binds, **config))
            session: Session = database.session()
            return session

        yield open_database


@dataclass
class Statements:
    """The statements that an engine executed.

    :ivar executed: (statement, how many sets of parameters)
    """

    executed: list[tuple[str, int]] = field(default_factory=list)

    def matching(self, *parts: str) -> list[tuple[str, int]]:
        """The statements that hold all of the parts."""
        return [(statement, count) for statement, count in self.executed if all(part in statement for part in parts)]

    def clear(self) -> None:
        self.executed.clear()


@contextmanager
def recorded(engine: sa.Engine) -> Iterator[Statements]:
    """Record what an engine executes inside the block."""
    statements = Statements()

    def note(
        connection: object, cursor: object, statement: str, parameters: Any, context: object, executemany: bool
    ) -> None:
        statements.executed.append((statement, len(parameters) if executemany else 1))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


@pytest.fixture
def statements(app: Flask) -> Iterator[Statements]:
    """What the shared models' engine executes."""
    with recorded(db.engine) as statements:
        yield statements

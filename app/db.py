"""The service's database object, and how SQLite is opened so that several workers can write."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flask import current_app, g, has_request_context, request
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Session

from chrononaut import VersionedSQLAlchemy

READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, section 9.2.1)."""
_IN_SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
_BUSY_TIMEOUT = 30_000  # milliseconds that a writer waits for the writer before it


class OutcomeUnknownError(Exception):
    """The connection was lost while a transaction was being committed: it may have been, or not."""


class Base(DeclarativeBase):
    """The base class of the bundled models."""


db = VersionedSQLAlchemy(model_class=Base)

if TYPE_CHECKING:
    Model = Base
else:
    Model = db.Model


def prepare_engine(engine: Engine) -> None:
    """Let several processes write to one SQLite file; other databases need nothing.

    Write-ahead logging lets readers and the writer go on side by side. A transaction that is going to write says so
    when it begins: one that read first and then wants to write could only fail, if another has written meanwhile.
    """
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _connect_sqlite)
        event.listen(engine, "begin", _begin_sqlite)


def _connect_sqlite(dbapi_connection: Any, record: object) -> None:
    # The driver would begin transactions by itself, and always as readers.
    dbapi_connection.isolation_level = None
    dbapi_connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT}")
    dbapi_connection.execute("PRAGMA journal_mode = WAL")
    dbapi_connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN" if _is_reading() else "BEGIN IMMEDIATE")


def _is_reading() -> bool:
    return has_request_context() and request.method in READING


def session() -> Session:
    """The session of a request, of the database object that the service's models belong to.

    All that a request reads, it reads from one snapshot: a page could otherwise show a version both as the current one
    and as a prior one.
    """
    database: Any = current_app.extensions["sqlalchemy"]
    current: Session = database.session()
    if _is_reading() and not current.in_transaction() and current.get_bind().dialect.name == "postgresql":
        current.connection(execution_options=_IN_SNAPSHOT)
    return current


def commit() -> None:
    """Commit what the request has written, as the last thing that it does with the database.

    :raises OutcomeUnknownError: the connection was lost meanwhile
    """
    current = session()
    # Where this fails, nothing has been committed.
    current.flush()
    try:
        current.commit()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise OutcomeUnknownError from error
        raise


def start_over() -> None:
    """Undo what the request has done so far; what it does from here on is a transaction of its own."""
    database: Any = current_app.extensions["sqlalchemy"]
    database.session.remove()
    close_snapshot()


def snapshot() -> Connection:
    """The connection of a request that only reads, and only plain values, from one snapshot as in `session`.

    A session would make about a tenth of what such a request takes. It ends with the request.
    """
    if "snapshot" not in g:
        database: Any = current_app.extensions["sqlalchemy"]
        # Kept first, so that it is closed also where it cannot be set so.
        connection = g.snapshot = database.engine.connect()
        if connection.dialect.name == "postgresql":
            connection.execution_options(**_IN_SNAPSHOT)
    begun: Connection = g.snapshot
    return begun


def close_snapshot(_: BaseException | None = None) -> None:
    """End the `snapshot` of a request, where there is one."""
    if (connection := g.pop("snapshot", None)) is not None:
        connection.close()


@contextmanager
def autocommitting(engine: Engine) -> Iterator[Connection]:
    """A connection outside of the request's transaction, whose every statement is one of its own.

    What is asked before it is known who sends a request shall neither hold SQLite's write lock nor begin the snapshot.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@contextmanager
def impatient(engine: Engine) -> Iterator[Connection]:
    """The same, whose statements fail on SQLite where they would wait for a writer."""
    with autocommitting(engine) as connection:
        if engine.dialect.name != "sqlite":
            yield connection
            return
        connection.exec_driver_sql("PRAGMA busy_timeout = 0")
        try:
            yield connection
        finally:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT}")

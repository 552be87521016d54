"""The service's database object, and how SQLite is opened so that several workers can write."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from flask import current_app, has_request_context, request
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import DeclarativeBase, Session

from app.pool import Pool
from app.threads import SLOW_THREADS, THREADS
from chrononaut import VersionedSQLAlchemy

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_SPARE_CONNECTIONS = 4
_POOL_TIMEOUT = 10  # seconds that a request waits for a connection, before it is 503
_BUSY_TIMEOUT = 30_000  # milliseconds that a writer waits for the writer before it


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
    return has_request_context() and request.method in _READING


def session() -> Session:
    """The session of a request, of the database object that the service's models belong to.

    All that a request reads, it reads from one snapshot: a page could otherwise show a version both as the current one
    and as a prior one.
    """
    database: Any = current_app.extensions["sqlalchemy"]
    current: Session = database.session()
    if _is_reading() and not current.in_transaction() and current.get_bind().dialect.name == "postgresql":
        current.connection(execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True})
    return current


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


def engine_options(url: str) -> dict[str, Any]:
    """The options that an engine for a database URL is made with."""
    # An error's message would hold the parameters otherwise, and the log the hidden values among them.
    options: dict[str, Any] = {"hide_parameters": True}
    parsed = sa.make_url(url)
    dialect: Any = parsed.get_dialect()
    if dialect.get_pool_class(parsed) is sa.QueuePool:
        # A request has one connection at a time, so that no thread waits; where it is otherwise, none does without end.
        threads = THREADS + SLOW_THREADS
        options |= {
            "poolclass": Pool,
            "pool_size": threads,
            "max_overflow": _SPARE_CONNECTIONS,
            "pool_timeout": _POOL_TIMEOUT,
        }
    if parsed.get_backend_name() != "sqlite":
        options["pool_pre_ping"] = True
    return options

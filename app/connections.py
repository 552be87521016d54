"""How a database is connected to, so that no thread waits for it without end.

A PostgreSQL that cannot be reached, that takes what it is sent and says nothing, or whose packets are lost, is given up
after a time that is set, and so are a statement that takes too long, a lock that others hold, and a pool whose
connections are all taken. What a request was doing then is 503.
"""

from typing import Any, Final

import psycopg
import sqlalchemy as sa
from psycopg.pq import TransactionStatus
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import ConnectionPoolEntry

from app.pool import Pool
from app.settings import Settings

_GRACE: Final = 5.0
"""Seconds after which a server that should have ended a statement by itself is taken for lost."""
_IDLE: Final = 60
"""Seconds after which the server ends a transaction that is sent nothing: its locks would outlive a lost worker."""
_KEEPALIVES: Final = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


def engine_options(settings: Settings) -> dict[str, Any]:
    """The options that the engine for the database is made with."""
    # An error's message would hold the parameters otherwise, and the log the hidden values among them.
    options: dict[str, Any] = {"hide_parameters": True}
    url = sa.make_url(settings.database_url)
    dialect: Any = url.get_dialect()
    if dialect.get_pool_class(url) is sa.QueuePool:
        options |= {
            "poolclass": Pool,
            "pool_size": settings.most_connections,
            "max_overflow": 0,
            "pool_timeout": settings.pool_timeout,
        }
    if url.get_backend_name() == "postgresql":
        options |= {"pool_pre_ping": True, "connect_args": _connect_args(settings, url)}
    return options


def bound_waits(engine: Engine, settings: Settings) -> None:
    """Let no connection of an engine be waited for without end; those of SQLite never are."""
    if engine.dialect.name != "postgresql":
        return
    at_rest = float(settings.connect_timeout)
    at_work = settings.statement_timeout + _GRACE if settings.statement_timeout else None

    def connect(dialect: object, record: object, args: Any, parameters: dict[str, Any]) -> _Connection:
        connection = _Connection.connect(*args, **parameters)
        connection.patience = at_rest
        return connection

    def begin_work(connection: _Connection, *_: object) -> None:
        connection.patience = at_work

    def end_work(connection: _Connection | None, _: object) -> None:
        # Before it is used again it is asked whether it still works, which takes no time.
        if connection is not None:
            connection.patience = at_rest

    def drop_lost(connection: _Connection, record: ConnectionPoolEntry, _: object) -> None:
        # What the request has changed of how it works cannot be changed back.
        if connection.closed:
            record.invalidate()

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "reset", drop_lost)
    event.listen(engine, "checkout", begin_work)
    event.listen(engine, "checkin", end_work)
    limits = _limits(settings)
    if settings.transaction_pooling and limits:
        # What a session is told would go to whoever has the server's connection next.
        statement = "; ".join(f"SET LOCAL {name} = {value}" for name, value in limits.items())

        def begin(connection: Connection) -> None:
            if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
                connection.exec_driver_sql(statement)

        event.listen(engine, "begin", begin)


class _Connection(psycopg.Connection[Any]):
    """A connection that is closed when its server says nothing for too long.

    The server's own limits end a statement only as long as it works, and TCP's only if its machine does not.

    :ivar patience: seconds that an answer is waited for; ``None`` for ever
    """

    patience: float | None = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except psycopg.OperationalError:
            # The answer may still come, and would be taken for that to the next statement.
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.close()
            raise

    def rollback(self) -> None:
        try:
            super().rollback()
        except psycopg.Error:
            # The server has undone it; nobody who has read what they wanted need be told.
            if not self.closed:
                raise


def _limits(settings: Settings) -> dict[str, int]:
    """What the server is told, in milliseconds; nothing in a command."""
    if not settings.statement_timeout:
        return {}
    return {
        "statement_timeout": settings.statement_timeout * 1000,
        "lock_timeout": settings.lock_timeout * 1000,
        "idle_in_transaction_session_timeout": _IDLE * 1000,
    }


def _connect_args(settings: Settings, url: sa.URL) -> dict[str, Any]:
    """What is said when connecting; what the database's URL says by itself goes before it."""
    ours: dict[str, Any] = {
        **_KEEPALIVES,
        "connect_timeout": settings.connect_timeout,
        "tcp_user_timeout": settings.connect_timeout * 1000,
    }
    args = {name: value for name, value in ours.items() if name not in url.query}
    if settings.transaction_pooling:
        # The next transaction may be on another connection of the server, which knows none of those of this one.
        args["prepare_threshold"] = None
    elif limits := _limits(settings):
        told = [f"-c {name}={value}" for name, value in limits.items()]
        args["options"] = " ".join([*told, str(url.query.get("options", ""))]).strip()
    return args

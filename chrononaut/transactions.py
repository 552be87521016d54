"""Transactions of the library's own, beside the session's: such that read one state of the database."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.engine import Connection, Engine


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection that only reads; on PostgreSQL it reads all from one state of the database.

    Elsewhere it begins no transaction: an application may have SQLite begin each as a writer, and others would wait.
    """
    if engine.dialect.name == "postgresql":
        options: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    else:
        options = {"isolation_level": "AUTOCOMMIT"}
    with engine.connect() as connection:
        yield connection.execution_options(**options)


@contextmanager
def in_one(engine: Engine) -> Iterator[Connection]:
    """A transaction that reads one state of the database, and of which all is committed at the end, or nothing.

    It is so whatever isolation level the engine has, AUTOCOMMIT too. On SQLite it waits first until nobody else writes.

    :raises sqlalchemy.exc.OperationalError: another transaction has written what this one would write
    """
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            if engine.dialect.name == "sqlite":
                # The driver would begin none for a statement that starts with WITH, and so commit that alone. And what
                # the application begins may be refused once it has read, if others have written since.
                driver: Any = connection.connection.dbapi_connection
                if driver.in_transaction:
                    connection.exec_driver_sql("ROLLBACK")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

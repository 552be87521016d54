"""Databases for as long as the run lasts, with the durability that they have by default: one for each contestant."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from tests.conftest import postgres_server


@contextmanager
def databases(kind: str, names: Sequence[str]) -> Iterator[Mapping[str, str]]:
    """Empty databases of their own: the name of each with its URL.

    :param kind: ``postgresql`` (all on one server) or ``sqlite``
    """
    if kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield {name: f"sqlite:///{Path(folder) / name}.db" for name in names}
        return
    with postgres_server() as server:
        url = sa.make_url(server.get_uri(driver="psycopg"))
        engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for name in names:
                connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
        yield {name: url.set(database=name).render_as_string(hide_password=False) for name in names}

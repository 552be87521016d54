"""Export and import take the same memory, however long a history is; and not much longer than the database's own COPY.

``CHRONONAUT_SOAK_VERSIONS`` says how many history rows there are, 1,000,000 by default.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from tests.library.conftest import opened
from tests.library.large import VERSIONS_OF_A_RECORD, Person, db, fill
from tests.library.transferring import differences

VERSIONS = int(os.environ.get("CHRONONAUT_SOAK_VERSIONS", "1000000"))
MOST_MEMORY = 200 * 1024
"""KiB."""

ROOT = Path(__file__).parents[2]


def flask(url: str, *arguments: str) -> tuple[float, int]:
    """Run a command, with its progress on our standard error.

    :return: how many seconds it took, and its peak of memory in KiB
    """
    command = [sys.executable, "-m", "flask", "--app", "tests.library.large:create_app()", "history", *arguments]
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "DATABASE_URL": url}, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        told = ""
        for line in process.stderr:
            sys.stderr.write(line)
            told += line
    assert process.returncode == 0, told
    peak = re.search(r"peak (\d+) kB", told)
    assert peak is not None
    assert re.search(r"Person: [\d,]+ rows written", told)
    return time.perf_counter() - began, int(peak[1])


@contextmanager
def timed() -> Iterator[list[float]]:
    began, took = time.perf_counter(), list[float]()
    yield took
    took.append(time.perf_counter() - began)


def copied_out(engine: sa.Engine, folder: Path) -> float:
    """How long the database's own COPY takes for both tables."""
    with engine.connect() as connection, timed() as took:
        driver: Any = connection.connection.dbapi_connection
        for table in ("person_history", "person"):
            with (folder / table).open("wb") as file, driver.cursor().copy(f"COPY {table} TO STDOUT") as copy:
                for block in copy:
                    file.write(block)
    return took[0]


def copied_in(engine: sa.Engine, folder: Path) -> float:
    with engine.begin() as connection, timed() as took:
        driver: Any = connection.connection.dbapi_connection
        for table in ("person_history", "person"):
            with (folder / table).open("rb") as file, driver.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                while block := file.read(1 << 20):
                    copy.write(block)
    return took[0]


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    """A database with much history."""
    with opened(db, database_url) as app:
        fill(db.engine, VERSIONS)
        yield app


def ratio(taken: float, copying: float) -> str:
    return f"{taken:.1f} s, {taken / copying:.1f} times COPY ({copying:.1f} s)"


@pytest.mark.soak
@pytest.mark.parametrize("format_", ["ndjson", "csv"])
def test_million_versions_in_little_memory(
    app: Flask, database_kind: str, database_url: str, other_database_url: str, tmp_path: Path, format_: str
) -> None:
    file = tmp_path / f"history.{format_}"
    written, memory = flask(database_url, "export", "Person", "-o", str(file))
    told = [f"{database_kind}, {VERSIONS:,} versions, {format_}: {file.stat().st_size / 2**20:.0f} MiB"]
    out = copied_out(db.engine, tmp_path) if database_kind == "postgresql" else None
    told.append(f"export: {ratio(written, out) if out else f'{written:.1f} s'}, peak {memory // 1024} MiB")
    with opened(db, other_database_url):
        into = None
        if database_kind == "postgresql":
            into = copied_in(db.engine, tmp_path)
            db.drop_all()
            db.create_all()
        read, memory_of_import = flask(other_database_url, "import", "Person", str(file))
        told.append(f"import: {ratio(read, into) if into else f'{read:.1f} s'}, peak {memory_of_import // 1024} MiB")
        sys.stderr.write("\n".join(told) + "\n")
        assert differences(db.engine, Person) == []
        rows = db.session.execute(sa.text("SELECT count(*) FROM person_history")).scalar_one()
        assert rows == VERSIONS // VERSIONS_OF_A_RECORD * VERSIONS_OF_A_RECORD
        again = tmp_path / f"again.{format_}"
        flask(other_database_url, "export", "Person", "-o", str(again))
        assert again.read_bytes() == file.read_bytes()
    assert memory < MOST_MEMORY
    assert memory_of_import < MOST_MEMORY

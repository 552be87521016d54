"""Writers and servers that are killed in the middle of their work: what was committed is whole, and all of it is there.

Each test has a short form and a soak of many kills, which shows its progress: ``pytest -m soak -s``.
"""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from chrononaut.history import versioning_of
from chrononaut.transactions import snapshot
from chrononaut.verify import verify
from tests.conftest import postgres_server
from tests.library.models import db
from tests.library.rows import history_rows, live_rows
from tests.library.writer import VALUES, Step, configure, write

WRITERS = 3
PATIENCE = 60  # seconds
_LONGEST_LINE = 2000  # bytes of a writer's log

# The writers are forked from a process that has imported what they need, so that there is one soon after another.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.library.writer"])

Transactions = dict[str, list[Step]]
Record = tuple[str, tuple[Any, ...]]


def forms(short: int, soak: int) -> pytest.MarkDecorator:
    """How many kills: a few in every run of the tests, many in the soak."""
    return pytest.mark.parametrize("kills", [short, pytest.param(soak, marks=pytest.mark.soak)])


def show(progress: str) -> None:
    """Say how far a test is; seen where pytest captures nothing."""
    sys.stdout.write(f"\n{progress}")
    sys.stdout.flush()


# The writers


@dataclass
class Writer:
    """A process that writes, and its log."""

    process: ForkServerProcess
    log: Path
    errors: Path

    def lines(self) -> list[list[Any]]:
        """What it has told; a line that it was killed in is left out."""
        return [json.loads(line) for line in self.log.read_bytes().split(b"\n")[:-1]] if self.log.exists() else []

    def committed(self) -> int:
        return self.log.read_bytes().count(b'["committed"') if self.log.exists() else 0

    def is_committing(self) -> bool:
        """Is a commit on its way? Asked often, so that it reads no more than the longest line."""
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LONGEST_LINE))
            return log.read().splitlines()[-1].startswith(b'["committing"')

    def assert_running(self) -> None:
        assert self.process.is_alive(), self.errors.read_text()

    def kill(self) -> None:
        self.assert_running()
        self.process.kill()
        self.process.join(PATIENCE)
        assert self.process.exitcode == -signal.SIGKILL


@dataclass
class Crew:
    """Writers at the same records; one that is killed is replaced.

    :ivar interrupted: how many were killed inside a transaction
    """

    url: str
    folder: Path
    at_work: list[Writer] = field(default_factory=list)
    gone: list[Writer] = field(default_factory=list)
    interrupted: int = 0

    def hire(self) -> None:
        name = f"w{len(self.at_work) + len(self.gone)}"
        log, errors = self.folder / f"{name}.log", self.folder / f"{name}.errors"
        process = processes.Process(target=write, args=(self.url, log, errors), daemon=True)
        process.start()
        self.at_work.append(Writer(process, log, errors))

    def kill(self, writer: Writer) -> None:
        writer.kill()
        self.at_work.remove(writer)
        self.gone.append(writer)
        self.interrupted += writer.lines()[-1][0] != "committed"

    def choose(self) -> Writer:
        """One that writes, at a random moment: any, or one of a commit, which is short and hardly met by chance."""
        ready = self.wait(1, commits=random.randint(1, 8))
        pause = random.uniform(0, 0.2)
        if random.random() < 0.5:
            time.sleep(pause)
            return ready[0]
        deadline = time.monotonic() + pause
        while time.monotonic() < deadline:
            for writer in ready:
                if writer.is_committing():
                    return writer
        return ready[0]

    def wait(self, number: int, commits: int) -> list[Writer]:
        """Wait until some writers have committed so many transactions."""
        return self._wait(number, [(writer, commits) for writer in self.at_work])

    def wait_for_more(self, commits: int) -> None:
        """Wait until all writers have committed so many more transactions than now."""
        self._wait(len(self.at_work), [(writer, writer.committed() + commits) for writer in self.at_work])

    def _wait(self, number: int, goals: list[tuple[Writer, int]]) -> list[Writer]:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for writer, _ in goals:
                writer.assert_running()
            there = [writer for writer, goal in goals if writer.committed() >= goal]
            if len(there) >= number:
                return random.sample(there, len(there))
            time.sleep(0.01)
        raise AssertionError(f"{number} writers have not committed what they should within {PATIENCE} s")

    def transactions(self) -> tuple[Transactions, Transactions]:
        """What is acknowledged, and what is in doubt: the writer does not know what became of its commit."""
        acknowledged: Transactions = {}
        in_doubt: Transactions = {}
        for writer in [*self.gone, *self.at_work]:
            for what, token, *steps in writer.lines():
                if what == "committing":
                    in_doubt[token] = [Step(*step) for step in steps[0]]
                elif what == "committed":
                    acknowledged[token] = in_doubt.pop(token)
        return acknowledged, in_doubt


@contextmanager
def crew(url: str, folder: Path) -> Iterator[Crew]:
    """Some writers at an empty database of the shared models; afterwards none of them is left."""
    app = Flask("crashes")
    configure(app, url)
    with app.app_context():
        db.create_all()
        db.engine.dispose()
    crew = Crew(url, folder)
    try:
        for _ in range(WRITERS):
            crew.hire()
        yield crew
    finally:
        for writer in crew.at_work:
            writer.process.kill()
            writer.process.join()


# What must be there


@dataclass
class Stored:
    """What one state of the database holds.

    :ivar changes: record → version of the history row → (operation, token)
    :ivar values: record → version → value, of the prior versions and of the current one
    """

    changes: dict[Record, dict[int, tuple[str, str]]] = field(default_factory=lambda: defaultdict(dict))
    values: dict[Record, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))

    def has(self, token: str, step: Step) -> bool:
        record = (step.table, tuple(step.key))
        changed = self.changes[record].get(step.version) == (step.operation, token)
        return changed and (step.value is None or self.values[record].get(step.version + 1) == step.value)

    def tokens(self) -> set[str]:
        return {token for changes in self.changes.values() for _, token in changes.values()}


def differences(url: str) -> list[str]:
    """What the library's own check finds."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with snapshot(engine) as connection:
        return [str(finding) for model in VALUES for finding in verify(connection, model)]


def stored(url: str) -> Stored:
    """What the tables hold, read by plain SQL."""
    found = Stored()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with snapshot(engine) as connection, Session(connection) as session:
        if engine.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalars().all() == ["ok"]
        for model, attribute in VALUES.items():
            versioning = versioning_of(model)
            column = versioning.tracked[attribute].name
            key = [column.name for column in versioning.key_columns]
            for row in history_rows(session, versioning.history_table.name):
                record = (versioning.table.name, tuple(row[name] for name in key))
                found.changes[record][row["version"]] = (row["operation"], row["change_info"]["extra"]["token"])
                if row["operation"] != "insert":
                    found.values[record][row["version"]] = row[column]
            for row in live_rows(session, versioning.table.name):
                record = (versioning.table.name, tuple(row[name] for name in key))
                assert row["version"] not in found.values[record]
                found.values[record][row["version"]] = row[column]
    return found


def assert_whole(crew: Crew, *, at_rest: bool = True) -> str:
    """Live rows and history agree, what is acknowledged is there, what is in doubt is there whole or not at all.

    :param at_rest: does nobody write any more?
    :return: the figures
    """
    acknowledged, in_doubt = crew.transactions()
    found = stored(crew.url)
    lost = [(token, step) for token, steps in acknowledged.items() for step in steps if not found.has(token, step)]
    assert lost == []
    there = {token: [found.has(token, step) for step in steps] for token, steps in in_doubt.items()}
    assert [token for token, steps in there.items() if any(steps) and not all(steps)] == []
    kept = {token for token, steps in there.items() if all(steps)}
    versions = sum(map(len, found.changes.values()))
    if at_rest:
        assert found.tokens() == acknowledged.keys() | kept
        # One history row for each step: nothing is there twice.
        assert versions == sum(len(steps) for steps in (acknowledged | {t: in_doubt[t] for t in kept}).values())
    assert differences(crew.url) == []
    return (
        f"{len(acknowledged)} acknowledged commits, {len(in_doubt)} in doubt ({len(kept)} of them kept), "
        f"{versions} history rows"
    )


def kill_writers(url: str, folder: Path, kills: int) -> None:
    """Kill writers at random moments, replace them, and check."""
    began = time.monotonic()
    with crew(url, folder) as at_work:
        at_work.wait(WRITERS, commits=1)
        for number in range(1, kills + 1):
            at_work.kill(at_work.choose())
            at_work.hire()
            if number % 10 == 0:
                # While the others write.
                assert differences(url) == []
                show(f"{number} of {kills} killed, {time.monotonic() - began:.0f} s")
        at_work.wait(WRITERS, commits=1)
        for writer in list(at_work.at_work):
            at_work.kill(writer)
        figures = assert_whole(at_work)
        # Most moments are inside a transaction: the kills were no idle ones.
        assert at_work.interrupted > kills // 2
        show(
            f"{len(at_work.gone)} writers killed, {at_work.interrupted} of them inside a transaction: {figures}, "
            f"{time.monotonic() - began:.0f} s",
        )


@forms(short=5, soak=100)
def test_writers_that_are_killed_leave_whole_transactions(database_url: str, tmp_path: Path, kills: int) -> None:
    kill_writers(database_url, tmp_path, kills)


@pytest.mark.parametrize("database_kind", ["sqlite"])
@forms(short=5, soak=100)
def test_writers_that_are_killed_leave_whole_transactions_in_the_write_ahead_log(
    database_url: str, tmp_path: Path, kills: int
) -> None:
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode = WAL").scalar() == "wal"
    kill_writers(database_url, tmp_path, kills)


# The server


@dataclass
class Server:
    """A PostgreSQL server of a test's own, which may crash. It waits for the disk, as one does that keeps data."""

    process: Any

    @property
    def url(self) -> str:
        url: str = self.process.get_uri(driver="psycopg")
        return url

    def crash(self) -> None:
        """Kill the server's processes, and wait until none of them is left."""
        info = self.process.get_postmaster_info()
        # Suspended, it starts no more processes, nor does it see to those that end.
        info.process.suspend()
        killed = [*info.process.children(recursive=True), info.process]
        for process in killed:
            process.kill()
        deadline = time.monotonic() + PATIENCE
        while any(_runs(process) for process in killed):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # Until somebody asks for its exit status, its number is taken, and the next one would take it for running.
        for lock in [self.process.pgdata / "postmaster.pid", *info.socket_dir.glob(".s.PGSQL.*.lock")]:
            lock.unlink()

    def restart(self) -> None:
        self.process.ensure_postgres_running()


def _runs(process: Any) -> bool:
    with suppress(Exception):  # no such process: it ended in between
        return process.is_running() and process.status() not in {"zombie", "dead"}
    return False


@pytest.fixture
def server() -> Iterator[Server]:
    """A PostgreSQL server that no other test uses."""
    with postgres_server() as process:
        yield Server(process)


@forms(short=1, soak=10)
def test_server_that_is_killed_keeps_what_it_acknowledged(server: Server, tmp_path: Path, kills: int) -> None:
    began = time.monotonic()
    with crew(server.url, tmp_path) as at_work:
        at_work.wait(WRITERS, commits=1)
        for number in range(1, kills + 1):
            at_work.wait_for_more(random.randint(2, 20))
            at_work.choose()
            server.crash()
            # None of the writers ends with it: they ask again until the server is back.
            server.restart()
            figures = assert_whole(at_work, at_rest=False)
            show(f"{number} of {kills} crashes: {figures}, {time.monotonic() - began:.0f} s")
        at_work.wait_for_more(5)
        for writer in list(at_work.at_work):
            at_work.kill(writer)
        figures = assert_whole(at_work)
        show(f"{kills} crashes of the server: {figures}, {time.monotonic() - began:.0f} s")

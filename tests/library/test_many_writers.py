"""Many processes at the same records: no count is lost, and history tells each one, once and in order."""

import json
import subprocess
import sys
from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice, pairwise, product
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from tests.library import counting
from tests.library.rows import Row, changes, history_rows, live_rows

ROOT = Path(__file__).parents[2]


ON_SQLITE = {
    "sqlite": counting.Database(),
    "sqlite-begins": counting.Database(begins=True),
    "sqlite-wal": counting.Database(journal="WAL"),
    "sqlite-wal-begins": counting.Database(journal="WAL", begins=True),
}
ON_POSTGRESQL = {
    level.lower().replace(" ", "-"): counting.Database(isolation=level)
    for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
}
on_each_database = pytest.mark.parametrize(
    ("database_kind", "database"),
    [
        *(pytest.param("sqlite", database, id=name) for name, database in ON_SQLITE.items()),
        *(pytest.param("postgresql", database, id=name) for name, database in ON_POSTGRESQL.items()),
    ],
    indirect=["database_kind"],
)


@dataclass(frozen=True, slots=True)
class Crowd:
    """Many processes; what they do goes around among them.

    :ivar at_once: how many records a transaction counts up
    """

    processes: int
    steps: int
    at_once: tuple[int, ...] = (1,)
    by: tuple[counting.By, ...] = ("object",)

    def tasks(self, url: str, database: counting.Database) -> list[counting.Task]:
        ways = islice(cycle(product(self.by, self.at_once)), self.processes)
        return [
            counting.Task(url, database, process, self.steps, by, at_once) for process, (by, at_once) in enumerate(ways)
        ]


@pytest.fixture
def session(database_url: str, database: counting.Database) -> Iterator[Session]:
    """A session that sees the counters, which stand at zero."""
    with counting.connected(database_url, database):
        counting.db.create_all()
        session: Session = counting.db.session()
        session.add_all(counting.Counter(id=key) for key in range(1, counting.RECORDS + 1))
        session.commit()
        yield session


def run_at_once(tasks: list[counting.Task]) -> Tally[str]:
    """Run each task in a process of its own, all at the same time.

    :return: why transactions had to be repeated → how often
    """
    repeated: Tally[str] = Tally()
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(
                    counting.command(task), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for task in tasks
        ]
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in running:
            said, _ = process.communicate()
            assert process.returncode == 0
            repeated.update(json.loads(said))
    return repeated


def assert_exact(session: Session, tasks: list[counting.Task]) -> None:
    """Each step of each process was counted once, and history has it at its place."""
    live = live_rows(session, "counter", "id")
    assert sum(row["count"] for row in live) == sum(task.steps for task in tasks)
    told: list[str] = []
    for row in live:
        rows = history_rows(session, "counter_history", id=row["id"])
        assert_in_order(rows, row)
        told += [_rationale(change) for change in rows[1:]]
    assert Tally(told) == sum((task.reasons() for task in tasks), Tally())


def assert_in_order(rows: list[Row], live: Row) -> None:
    """The history of one counter: a version for each count, and each told by the process that counted."""
    assert live["version"] == live["count"]
    assert changes(rows) == [(-1, "insert"), *((number, "update") for number in range(live["count"]))]
    assert [row["count"] for row in rows] == [None, *range(live["count"])]
    for before, after in pairwise([*rows, live][1:]):
        assert after["last"] == _rationale(before)
    for before, after in pairwise(rows):
        assert before["changed"] <= after["changed"]


def report(repeated: Tally[str]) -> None:
    """Show, where pytest shows it, why transactions had to be repeated, and how often."""
    sys.stdout.write(f"{dict(repeated)}\n")


def _rationale(row: Row) -> str:
    text: str = row["change_info"]["extra"]["rationale"]
    return text


@pytest.mark.parametrize(
    "crowd",
    [
        pytest.param(Crowd(4, 25, at_once=(1, 2), by=("object", "statement")), id="few"),
        pytest.param(Crowd(8, 500), id="many", marks=pytest.mark.soak),
        # Transactions of two records, taken in different orders, meet in deadlocks.
        pytest.param(Crowd(8, 500, at_once=(1, 2)), id="many-in-different-orders", marks=pytest.mark.soak),
        pytest.param(
            Crowd(8, 500, at_once=(1, 2), by=("object", "statement")), id="many-with-statements", marks=pytest.mark.soak
        ),
    ],
)
@on_each_database
def test_every_count_of_every_process_is_kept_and_told_once(
    session: Session, database_url: str, database: counting.Database, crowd: Crowd
) -> None:
    tasks = crowd.tasks(database_url, database)
    report(run_at_once(tasks))
    assert_exact(session, tasks)

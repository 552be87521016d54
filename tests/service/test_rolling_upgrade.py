"""A new release replaces the old one, process after process, while everybody goes on writing."""

import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

from app import create_app
from app.auth.grants import Grants
from app.auth.tokens import create_token
from app.cli import create_tables
from chrononaut.history import history_model
from chrononaut.transactions import snapshot
from chrononaut.verify import verify
from tests.service.conftest import SECRET_KEY
from tests.service.releases import new, old
from tests.service.serving import Server, running

_WRITERS = 4
_PAUSE = 0.02  # seconds
_ROOT = Path(__file__).parents[2]
(_MIGRATION,) = (
    example
    for example in re.findall(r"```python \S+\n(.*?)```", (_ROOT / "docs" / "operations.md").read_text(), re.DOTALL)
    if "item_history" in example
)


def _settings(release: Any) -> dict[str, str]:
    return {"CHRONONAUT_MODELS": release.__name__, "CHRONONAUT_DB": f"{release.__name__}:db"}


@pytest.fixture
def token(other_database_url: str) -> Iterator[str]:
    """Lets the writers write into the tables of the old release, in which there are two items."""
    app = create_app({"SECRET_KEY": SECRET_KEY, "DATABASE_URL": other_database_url, **_settings(old)})
    with app.app_context():
        create_tables(old.db)
        old.db.session.add_all([old.Item(id=number, pieces=0) for number in (1, 2)])
        old.db.session.commit()
        yield create_token(old.db, "writer@example.com", Grants.parse(["write"]))
        old.db.session.remove()
        old.db.engine.dispose()


class Writers:
    """Change two items all the time, each write with a reason of its own.

    :ivar servers: those that they write to, in turn
    :ivar body: what they write besides the number of the write
    :ivar refused: answers that acknowledge nothing
    """

    def __init__(self, *servers: Server) -> None:
        self.servers: Sequence[Server] = servers
        self.body: dict[str, Any] = {}
        self.acknowledged: list[str] = []
        self.refused: list[tuple[int, Any]] = []
        # From 1: there are 0 pieces already, and what changes nothing leaves no history.
        self._numbers, self._is_over = itertools.count(1), threading.Event()
        self._done = [0] * _WRITERS

    def _write(self, writer: int) -> None:
        try:
            while not self._is_over.is_set():
                number, servers, body = next(self._numbers), self.servers, self.body
                reason = f"write {number}"
                status, answer = servers[number % len(servers)].call(
                    "PATCH",
                    f"/records/item/{number // 2 % 2 + 1}",
                    body | {"pieces": number},
                    **{"X-Change-Rationale": reason},
                )
                if status == 200:
                    self.acknowledged.append(reason)
                else:
                    self.refused.append((status, answer))
                self._done[writer] += 1
                # Processes start beside them, on the same cores.
                time.sleep(_PAUSE)
        finally:
            self._is_over.set()

    def wait(self, writes: int) -> None:
        """Wait until each of them has had so many more answers; the second is one to what was asked since."""
        before = [*self._done]
        while not self._is_over.is_set() and any(
            done - then < writes for done, then in zip(self._done, before, strict=True)
        ):
            time.sleep(0.01)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with ThreadPoolExecutor(_WRITERS) as threads:
            written = [threads.submit(self._write, writer) for writer in range(_WRITERS)]
            try:
                yield
            finally:
                self._is_over.set()
        for one in written:
            one.result()


def _migrate(url: str) -> None:
    """Run the migration that docs/operations.md shows."""
    names: dict[str, Any] = {}
    exec(compile(_MIGRATION, "operations.md", "exec"), names)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection, Operations.context(MigrationContext.configure(connection)) as op:
        context = op.get_context()
        with context.begin_transaction():
            names["upgrade"]()


# Several processes that write while tables are altered are PostgreSQL's work.
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_rolling_upgrade_loses_no_write_and_answers_no_error(
    other_database_url: str, token: str, tmp_path: Path
) -> None:
    def release(models: Any) -> AbstractContextManager[Server]:
        log = tmp_path / f"{models.__name__}.log"
        return running(other_database_url, token, log, settings=_settings(models))

    with ExitStack() as processes:
        leaving = processes.enter_context(ExitStack())
        before = leaving.enter_context(release(old))
        writers = Writers(before)
        with writers.at_work():
            writers.wait(10)
            _migrate(other_database_url)
            writers.wait(10)
            after = processes.enter_context(release(new))
            writers.servers = (before, after)
            writers.wait(20)
            writers.servers = (after,)
            # All that the old processes were asked is answered by then.
            writers.wait(2)
            leaving.close()
            # Nobody writes the new column before the last old process has ended, whose history would lack it.
            writers.body = {"place": "shelf"}
            writers.wait(10)
    assert writers.refused == []
    _check(other_database_url, writers.acknowledged)


def _check(url: str, acknowledged: Sequence[str]) -> None:
    """Is every acknowledged write in history, once, and nothing else?"""
    app = create_app({"SECRET_KEY": SECRET_KEY, "DATABASE_URL": url, **_settings(new)})
    with app.app_context():
        history: Any = history_model(new.Item)
        rows = new.db.session.scalars(sa.select(history).order_by(history.id, history.version)).all()
        reasons = [row.change_info["extra"]["change_rationale"] for row in rows if row.operation == "update"]
        assert Counter(reasons) == Counter(acknowledged)
        places = {number: [row.place for row in rows if row.id == number] for number in (1, 2)}
        for kept in places.values():
            assert kept == sorted(kept, key=str)  # None, None, …, shelf, shelf, …
            assert {None, "shelf"} == set(kept)
        with snapshot(new.db.engine) as connection:
            assert list(verify(connection, new.Item)) == []
        new.db.session.remove()
        new.db.engine.dispose()

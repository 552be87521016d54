"""The service under load, while its database and its own processes end and begin: no acknowledged write is lost.

Each test has a short form and a soak, which shows its progress: ``make soak-deploy``.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import psycopg
import pytest
import sqlalchemy as sa

from app import create_app
from app.auth.grants import Grants
from app.auth.tokens import create_token
from app.cli import create_tables
from app.db import db
from app.models import User
from tests.conftest import postgres_server
from tests.service.conftest import SECRET_KEY
from tests.service.load import RECORDS, Load
from tests.service.serving import Server, free_port, running

_ROOT = Path(__file__).parents[2]
_CLIENTS = 12
_PATIENCE = 60  # seconds
_OTHERS = sa.text("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
_DROPPING = 3.0  # seconds within which the end of a process is noticed by all of its clients


def show(progress: str) -> None:
    """Say how far a test is; seen where pytest captures nothing."""
    sys.stdout.write(f"\n{progress}")
    sys.stdout.flush()


@dataclass
class Site:
    """A database, a port for the service, and who asks it.

    :ivar endings: when processes of the service were ended, and until when: clients may miss answers then
    """

    postgres: Any
    load: Load
    folder: Path
    endings: list[tuple[float, float]] = field(default_factory=list)

    @property
    def url(self) -> str:
        url: str = self.postgres.get_uri(driver="psycopg")
        return url

    def stop_database(self) -> None:
        self.postgres.stop()

    def start_database(self) -> float:
        """Start it, and measure how long after it took connections the service had its next success, in seconds."""
        starting = Thread(target=self.postgres.ensure_postgres_running)
        starting.start()
        back = self.wait_until(self._connects)
        answered = self.wait_until(lambda: self.load.succeeded > back)
        starting.join()
        return answered - back

    def _connects(self) -> bool:
        try:
            psycopg.connect(self.postgres.get_uri(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    @staticmethod
    def wait_until(holds: Callable[[], bool], patience: float = _PATIENCE) -> float:
        """Wait until something holds.

        :return: when it did, on the monotonic clock
        """
        deadline = time.monotonic() + patience
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return time.monotonic()

    def go_on(self, requests: int) -> None:
        """Wait until so many more requests have succeeded."""
        goal = self._successes() + requests
        self.wait_until(lambda: self._successes() >= goal)

    def _successes(self) -> int:
        return self.load.statuses[200] + self.load.statuses[201]

    def wait_for_dropping(self, began: float) -> None:
        self.endings.append((began, time.monotonic() + _DROPPING))

    def assert_whole(self) -> str:
        """What was acknowledged is there once, what was refused is not, what is unknown is there once or not.

        :return: the figures
        """
        load = self.load
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            reasons = connection.exec_driver_sql(
                "SELECT change_info->'extra'->>'change_rationale' FROM appuser_history WHERE change_info ? 'extra'"
            ).scalars()
            found = Counter(reasons)
        assert load.acknowledged - found.keys() == set()
        assert load.refused & found.keys() == set()
        assert found.keys() <= load.acknowledged | load.unknown
        assert set(found.values()) == {1}
        assert load.wrong == []
        assert set(load.statuses) <= {200, 201, 503}
        unexplained = [at for at in load.dropped if not any(begin <= at <= end for begin, end in self.endings)]
        assert unexplained == []
        command = [sys.executable, "-m", "flask", "--app", "app", "history", "verify"]
        environment = {"SECRET_KEY": SECRET_KEY, "DATABASE_URL": self.url, "PATH": "/usr/bin:/bin"}
        verified = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        return (
            f"{load.requests()} answers {dict(load.statuses)}, {len(load.dropped)} dropped; "
            f"{len(load.acknowledged)} acknowledged writes all there, {len(load.refused)} refused none there, "
            f"{len(load.unknown & found.keys())} of {len(load.unknown)} unknown there; flask history verify is clean"
        )


@dataclass(frozen=True)
class Footprint:
    """What the service takes.

    :ivar memory: worker → its resident memory, in MiB
    :ivar connections: to the database, of all workers
    """

    memory: dict[int, float]
    connections: int

    @classmethod
    def of(cls, server: Server, url: str) -> "Footprint":
        with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
            others = connection.execute(_OTHERS).scalars().all()
        workers = psutil.Process(server.pid).children()
        return cls({worker.pid: worker.memory_info().rss / 2**20 for worker in workers}, len(others))

    def __str__(self) -> str:
        sizes = " ".join(f"{size:.0f}" for size in self.memory.values())
        return f"workers with {sizes} MiB, {self.connections} connections"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A database of its own with some records."""
    with postgres_server() as postgres:
        url = postgres.get_uri(driver="psycopg")
        app = create_app({"SECRET_KEY": SECRET_KEY, "DATABASE_URL": url})
        with app.app_context():
            create_tables(db)
            token = create_token(db, "writer@example.com", Grants.parse(["write"]))
            db.session.add_all(User(email=f"{number}@example.org") for number in range(RECORDS))
            db.session.commit()
            assert sorted(db.session.scalars(sa.select(User.id))) == list(range(1, RECORDS + 1))
            db.session.remove()
            db.engine.dispose()
        yield Site(postgres, Load(free_port(), token), tmp_path)


def _serve(site: Site, name: str, **settings: str) -> Any:
    return running(
        site.url,
        site.load.token,
        site.folder / f"{name}.log",
        settings=settings,
        options=("-w", "4"),
        port=site.load.port,
    )


@pytest.mark.parametrize(
    ("steps", "down", "whole"),
    [(50, 0.5, False), pytest.param(1000, 30.0, True, marks=pytest.mark.soak)],
    ids=["short", "soak"],
)
def test_no_acknowledged_write_is_lost(
    site: Site, caplog: pytest.LogCaptureFixture, steps: int, down: float, whole: bool
) -> None:
    """Restart of the database, SIGKILL of a worker, refused connections; as a soak SIGTERM and a full pool as well."""
    # It would tell of each attempt to reach a service that is starting.
    caplog.set_level("ERROR", "urllib3")
    began = time.monotonic()

    def tell(what: str) -> None:
        show(f"{time.monotonic() - began:5.1f} s  {what}; {dict(site.load.statuses)} so far")

    backs = []
    with ExitStack() as service, ExitStack() as load:
        server = service.enter_context(_serve(site, "first"))
        load.enter_context(site.load.running(_CLIENTS))
        site.go_on(steps)
        tell("the database is restarted")
        site.stop_database()
        backs.append(site.start_database())
        tell(f"first success {backs[-1]:.3f} s after the database took connections")
        site.go_on(steps)
        ended = time.monotonic()
        os.kill(psutil.Process(server.pid).children()[0].pid, signal.SIGKILL)
        site.go_on(steps)
        site.wait_for_dropping(ended)
        tell("a worker was killed")
        before = site.load.statuses[503]
        site.stop_database()
        time.sleep(down)
        assert site.load.statuses[503] > before
        backs.append(site.start_database())
        tell(f"first success {backs[-1]:.3f} s after {down} s of refused connections")
        site.go_on(steps)
        if whole:
            ended = time.monotonic()
            service.close()
            tell("the service was ended")
            service.enter_context(_serve(site, "second", CHRONONAUT_POOL_SIZE="1", CHRONONAUT_POOL_TIMEOUT="1"))
            site.go_on(steps)
            site.wait_for_dropping(ended)
            tell("it was begun again, with one connection for each worker")
            before = site.load.statuses[503]
            with sa.create_engine(site.url, poolclass=sa.NullPool).begin() as blocking:
                blocking.exec_driver_sql("LOCK TABLE appuser IN EXCLUSIVE MODE")
                site.wait_until(lambda: site.load.statuses[503] > before + _CLIENTS)
            assert "no connection is free" in (site.folder / "second.log").read_text()
            tell("the pool was full")
            site.go_on(steps)
        load.close()
        show(f"{time.monotonic() - began:5.1f} s  {site.assert_whole()}")
    if whole:
        assert max(backs) < 2


@pytest.mark.soak
def test_many_requests_leave_memory_and_connections_as_they_were(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """24 hours in miniature. That no traceback is in the log, the end of the service finds out."""
    caplog.set_level("ERROR", "urllib3")
    requests = int(os.environ.get("SOAK_REQUESTS", "200000"))
    began = time.monotonic()
    measured = []
    with _serve(site, "long") as server, ExitStack() as load:
        load.enter_context(site.load.running(_CLIENTS))
        for goal in range(requests // 10, requests + 1, requests // 10):
            site.wait_until(lambda goal=goal: site.load.requests() >= goal, patience=3600)  # type: ignore[misc]
            measured.append(Footprint.of(server, site.url))
            show(f"{time.monotonic() - began:6.1f} s  {site.load.requests()} of {requests} requests: {measured[-1]}")
        load.close()
        assert site.load.statuses.keys() <= {200, 201}
        assert site.load.dropped == []
        show(site.assert_whole())
    warm, last = measured[2], measured[-1]
    # The same workers to the end, each with at most a tenth more than when all was warm.
    assert warm.memory.keys() == last.memory.keys()
    assert all(last.memory[pid] <= 1.1 * warm.memory[pid] for pid in warm.memory)
    assert last.connections <= warm.connections

"""Purging half of a long history on PostgreSQL, beside writers: how long these wait, by what plans, and against COPY.

``HISTORY_ROWS=1000000 pytest -m soak -s tests/library/test_purging_much.py``
"""

import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask, current_app
from sqlalchemy.orm import Session

from chrononaut import Retention
from chrononaut.purging import Purge
from tests.library.explaining import explained
from tests.library.shapes import Price, db
from tests.library.test_verify import found

ROWS = int(os.environ.get("HISTORY_ROWS", "100000"))
EACH = 100  # history rows of each record, but of one that has a tenth of all
WRITERS = 3
LONGEST_WAIT = 100  # milliseconds

_FILL = """
WITH records AS (
    SELECT 'p' || lpad(number::text, 7, '0') AS product, {each} AS rows FROM generate_series(1, {records}) AS number
    UNION ALL SELECT 'long', {long}
), live AS (
    INSERT INTO price (prod, cyc, codename, label, amount, version)
    SELECT product, 1, 'label ' || rows, rows, 'x', rows - 1 FROM records
)
INSERT INTO price_history (prod, cyc, version, codename, label, operation, changed, change_info, transaction_id)
SELECT product, 1, version,
    CASE WHEN version >= 0 THEN 'label ' || version END, CASE WHEN version >= 0 THEN version END,
    CASE WHEN version < 0 THEN 'insert' ELSE 'update' END,
    now() - (rows - version) * INTERVAL '1 hour',
    '{{"user_id": "ada@example.com", "remote_addr": null, "extra": {{"rationale": "as filled"}}}}', gen_random_uuid()
FROM records CROSS JOIN LATERAL generate_series(-1, rows - 2) AS version
"""


def show(text: str) -> None:
    """Say something; seen where pytest captures nothing."""
    sys.stdout.write(f"\n{text}")
    sys.stdout.flush()


@dataclass
class Writers:
    """Threads that change records, and how long the statements of each commit took."""

    app: Flask
    keys: list[str]
    took: list[float] = field(default_factory=list)
    failed: list[Exception] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator["Writers"]:
        threads = [threading.Thread(target=self._write, args=(number,)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def _write(self, number: int) -> None:
        dice = random.Random(number)
        own = self.keys[number::WRITERS]
        with self.app.app_context():
            try:
                while not self._ended.is_set():
                    record = db.session.get_one(Price, (dice.choice(own), 1))
                    record.amount = dice.randrange(10**9)
                    begun = time.perf_counter()
                    db.session.commit()
                    self.took.append(time.perf_counter() - begun)
                    time.sleep(0.002)
            except Exception as error:  # noqa: BLE001  told by the test
                self.failed.append(error)
            finally:
                db.session.remove()

    @property
    def nearly_all(self) -> float:
        """How long 99.9 % took at the most, in milliseconds."""
        return sorted(self.took)[round((len(self.took) - 1) * 0.999)] * 1000

    def __str__(self) -> str:
        took = sorted(self.took)
        points = [*(took[round((len(took) - 1) * part)] * 1000 for part in (0.5, 0.99)), self.nearly_all]
        told = zip(("median", "99 %", "99.9 %", "longest"), (*points, took[-1] * 1000), strict=True)
        return f"{len(took):,} writes: {', '.join(f'{name} {point:.1f} ms' for name, point in told)}"


@dataclass
class Locks:
    """Watches how long others wait for locks that the purge holds."""

    engine: sa.Engine
    waits: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watched(self) -> Iterator["Locks"]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()

    def _watch(self) -> None:
        asked = sa.text(
            "SELECT waiting.query FROM pg_stat_activity AS waiting JOIN pg_stat_activity AS holding"
            " ON holding.pid = ANY(pg_blocking_pids(waiting.pid)) WHERE holding.application_name = 'purge'"
        )
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not self._ended.is_set():
                self.waits += connection.execute(asked).scalars().all()
                time.sleep(0.01)


@pytest.mark.soak
@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_half_of_a_long_history_goes_beside_writers(open_database: Callable[..., Session]) -> None:
    # A write that waits for a lock longer than this fails: a busy machine makes writes slow, and no lock.
    waits = {"options": f"-c lock_timeout={LONGEST_WAIT}"}
    session = open_database(db, SQLALCHEMY_ENGINE_OPTIONS={"connect_args": waits})
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    long = ROWS // 10
    records = (ROWS - long) // EACH
    session.connection().exec_driver_sql(_FILL.format(each=EACH, records=records, long=long))
    session.commit()
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE price_history, price")
        total = connection.scalar(sa.text("SELECT count(*) FROM price_history")) or 0
        copied = _copy(connection)
    show(f"{total:,} history rows of {records + 1:,} records; COPY of them to the client takes {copied:.1f} s")
    keys = ["long", *(f"p{number:07}" for number in range(1, records + 1))]

    with Writers(app, keys).running() as alone:
        time.sleep(max(5.0, ROWS / 50_000))
    show(f"without purge: {alone}")

    engine = sa.create_engine(db.engine.url, connect_args={"application_name": "purge"})
    plan = Purge(Price, Retention(versions=EACH // 2 - 2, daily_after=0), extra={"rationale": "soak"})
    with explained(engine, "price_history") as plans:
        next(plan.run(engine))
    for one in plans:
        show(f"{one.statement[:60]}…\n{one.text}\n")
    half = Purge(Price, Retention(versions=EACH // 2), extra={"rationale": "soak"})
    rows = gone = 0
    with Locks(db.engine).watched() as locks, Writers(app, keys).running() as beside:
        begun = told = time.perf_counter()
        for part in half.run(engine):
            rows += part.rows
            gone += sum(doomed.versions for doomed in part.doomed)
            if time.perf_counter() - told > 5:
                told = time.perf_counter()
                show(f"{rows:,} of {total:,} rows looked at, {gone:,} versions purged")
        took = time.perf_counter() - begun
    engine.dispose()
    show(f"with purge:    {beside}")
    show(f"{gone:,} versions purged in {took:.1f} s, {took / copied:.1f} times COPY")
    show(f"{len(locks.waits)} times a statement was seen that waited for a lock of the purge")
    assert (alone.failed, beside.failed) == ([], [])
    assert locks.waits == []
    assert gone > total * 0.4
    assert found(Price, db.engine) == []
    assert beside.nearly_all < LONGEST_WAIT + max(alone.took) * 1000
    whole = [one.text for one in plans if any(node["Node Type"] == "Seq Scan" for node in one.reads("price_history"))]
    assert whole == []


def _copy(connection: sa.Connection) -> float:
    """How long it takes to copy all history to the client, in seconds."""
    cursor: Any = connection.connection.cursor()
    begun = time.perf_counter()
    with cursor.copy("COPY price_history TO STDOUT") as copy:
        for _ in copy:
            pass
    return time.perf_counter() - begun

"""The process of a contestant: it prepares the tables anew for each run, and does the work."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final, NamedTuple

import sqlalchemy as sa
from flask import Flask

from benchmarks.writing.contestants import Contestant, contestant
from benchmarks.writing.meters import Clock, Memory, Meter, Statements, Writing
from benchmarks.writing.models import values
from benchmarks.writing.workloads import Workload

_BATCH: Final = 1_000
"""Records whose values are computed; further ones repeat them."""


class LostHistoryError(Exception):
    """A contestant has not recorded what it was to record, so that nothing was measured."""


class Sizes(NamedTuple):
    """Bytes of a row, without indexes.

    :ivar live: of the records
    :ivar kept: of history; ``None`` if there is none
    """

    live: float
    kept: float | None


def seconds(name: str, url: str, workload: Workload) -> float:
    """How long a contestant takes."""
    with _ready(name, url, workload) as ready:
        return done(name, ready, workload, Clock())


def share(name: str, url: str, workload: Workload) -> float:
    """How much of the time of a contestant that keeps history passes in statements that write it, from 0 to 1."""
    with _ready(name, url, workload) as ready:
        assert ready.history is not None
        meter = Writing(ready.db.engine, ready.history)
        whole = done(name, ready, workload, meter)
        return meter.writing / whole


def statements(name: str, url: str, workload: Workload) -> float:
    """How many statements a contestant sends to the database."""
    with _ready(name, url, workload) as ready:
        return done(name, ready, workload, Statements(ready.db.engine))


def memory(name: str, url: str, workload: Workload) -> float:
    """How many bytes a contestant holds at once, at the most, beyond those at the start."""
    with _ready(name, url, workload) as ready:
        return done(name, ready, workload, Memory())


def sizes(name: str, url: str, workload: Workload) -> Sizes:
    """How large rows are on PostgreSQL: the live ones before the work, and those of history after it."""
    with _ready(name, url, workload) as ready:
        live = _bytes(ready, ready.model.__table__)
        done(name, ready, workload, Clock())
        return Sizes(live, None if ready.history is None else _bytes(ready, ready.history))


def opened(name: str, url: str) -> tuple[Contestant, Flask]:
    """A contestant and an application whose database it works on."""
    # SQLite has no decimal numbers; SQLAlchemy says so.
    warnings.filterwarnings("ignore", "Dialect sqlite.* does .*not.* support Decimal")
    app, found = Flask(__name__), contestant(name)
    app.config.update(SQLALCHEMY_DATABASE_URI=url)
    found.db.init_app(app)
    return found, app


_kept = cache(opened)


@contextmanager
def _ready(name: str, url: str, workload: Workload) -> Iterator[Contestant]:
    """A contestant in an application's context, with the records that the work needs."""
    ready, app = _kept(name, url)
    with app.app_context():
        prepare(ready, workload.filled)
        yield ready


def prepare(ready: Contestant, count: int) -> None:
    """Make the tables anew, with so many records and no history, on the database of the application's context."""
    engine, live = ready.db.engine, ready.model.__table__
    _make_template(engine, live)
    ready.db.drop_all()
    ready.db.create_all()
    with engine.begin() as connection:
        connection.execute(_fill(live, count))
        for statement in ready.installing.get(connection.dialect.name, ()):
            connection.exec_driver_sql(statement)
    _settle(engine, live)


def done(name: str, ready: Contestant, workload: Workload, meter: Meter) -> float:
    """Let a contestant that is prepared do the work.

    :raises LostHistoryError: it has not recorded it
    """
    workload.work(ready, meter, workload.size)
    ready.db.session.remove()
    if workload.counts and ready.history is not None:
        with ready.db.engine.connect() as connection:
            recorded = connection.execute(sa.select(sa.func.count()).select_from(ready.history)).scalar_one()
        if recorded != workload.size:
            raise LostHistoryError(f"{name}: {workload.title}: {recorded:,} changes were recorded")
    return meter.figure


def _settle(engine: sa.Engine, live: sa.Table) -> None:
    """Let the database do now what it would do at some time or other."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name == "postgresql":
            # As its autovacuum does, which passes over tables that nothing was written to: those of history.
            connection.exec_driver_sql(f"VACUUM ANALYZE {live.name}")
            connection.exec_driver_sql("CHECKPOINT")
        else:
            connection.exec_driver_sql("ANALYZE")


def _template(live: sa.Table) -> sa.Table:
    """The table that the records are copied from."""
    columns = [sa.Column(column.name, column.type, primary_key=column.primary_key) for column in _plain(live)]
    return sa.Table("template", sa.MetaData(), *columns)


def _plain(live: sa.Table) -> list[sa.Column[object]]:
    return [column for column in live.c if column.name == "id" or column.name in values(1)]


def _make_template(engine: sa.Engine, live: sa.Table) -> None:
    template = _template(live)
    if sa.inspect(engine).has_table(template.name):
        return
    with engine.begin() as connection:
        template.create(connection)
        rows = [{"id": number, **values(number)} for number in range(1, _BATCH + 1)]
        connection.execute(sa.insert(template), rows)


def _fill(live: sa.Table, count: int) -> sa.Insert:
    """Write the first records past the session."""
    template, columns = _template(live), _plain(live)
    repeats = sa.select(sa.literal(0, sa.Integer).label("number")).cte("repeats", recursive=True)
    repeats = repeats.union_all(sa.select(repeats.c.number + 1).where(repeats.c.number < max(0, count - 1) // _BATCH))
    key = template.c.id + repeats.c.number * _BATCH
    copied = [key, *(template.c[column.name] for column in columns if not column.primary_key)]
    names = ["id", *(column.name for column in columns if not column.primary_key)]
    rows = sa.select(*copied).select_from(template.join(repeats, sa.true())).where(key <= count).order_by(key)
    if "version" in live.c:
        names, rows = [*names, "version"], rows.add_columns(sa.literal(0))
    return sa.insert(live).from_select(names, rows, include_defaults=False)


def _bytes(ready: Contestant, table: sa.Table) -> float:
    with ready.db.engine.connect() as connection:
        size = sa.select(sa.func.pg_relation_size(table.name))
        count = sa.select(sa.func.count()).select_from(table)
        return float(connection.execute(size).scalar_one() / connection.execute(count).scalar_one())

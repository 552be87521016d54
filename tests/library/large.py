"""An application with one model of which there is much history, for `flask --app tests.library.large`.

When it ends, it says on standard error how much memory it took at the most.
"""

import atexit
import os
import re
import sys
from pathlib import Path

import sqlalchemy as sa
from flask import Flask

from chrononaut import VersionedSQLAlchemy
from tests.library.models import define

VERSIONS_OF_A_RECORD = 10
"""History rows of each record."""

db = VersionedSQLAlchemy()
Person = define(
    db,
    "Person",
    __tablename__="person",
    id=sa.Column(sa.Integer, primary_key=True),
    email=sa.Column(sa.String(100)),
    name=sa.Column(sa.String(100)),
    active=sa.Column(sa.Boolean, nullable=False),
    balance=sa.Column(sa.Numeric(12, 2)),
    seen=sa.Column(sa.DateTime(timezone=True)),
    settings=sa.Column(sa.JSON),
)

_NUMBERS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {last}) SELECT i FROM n",
    "postgresql": "SELECT i FROM generate_series(0, {last}) AS n(i)",
}
_TEXTS = {
    "sqlite": (
        "strftime('%Y-%m-%d %H:%M:%S', '2020-01-01', '+' || ({0}) || ' seconds') || '.000000'",
        "'01900000000070008' || printf('%015x', {0})",
    ),
    "postgresql": (
        "'2020-01-01 00:00:00Z'::timestamptz + ({0}) * interval '1 second'",
        "('01900000000070008' || lpad(to_hex({0}), 15, '0'))::uuid",
    ),
}


def fill(engine: sa.Engine, versions: int) -> None:
    """So many history rows, in lives of an insert and updates, and the live rows that they lead to."""
    kind, records = engine.dialect.name, versions // VERSIONS_OF_A_RECORD
    instant, transaction = _TEXTS[kind]
    json = "" if kind == "sqlite" else "::json"
    state = (
        "i / {n}, 'somebody' || (i / {n}) || '@example.com', CASE WHEN {v} < 0 THEN NULL ELSE 'Name ' || {v} END, "
        "CASE WHEN {v} >= 0 THEN {v} % 2 = 0 END, CASE WHEN {v} >= 0 THEN {v} * 1.25 END, "
        'CASE WHEN {v} >= 0 THEN {at} END, CASE WHEN {v} >= 0 THEN \'{{"theme": "dark", "size": 12}}\'{json} END'
    )
    version = f"(i % {VERSIONS_OF_A_RECORD} - 1)"
    in_history = state.format(n=VERSIONS_OF_A_RECORD, v=version, at=instant.format("i"), json=json)
    in_history = in_history.replace("'somebody'", f"CASE WHEN {version} >= 0 THEN 'somebody' END", 1)
    info = '{"user_id": "admin@example.com", "remote_addr": "127.0.0.1", "extra": {"rationale": "because"}}'
    # A % is one.
    with engine.execution_options(no_parameters=True).begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO person_history (id, email, name, active, balance, seen, settings, version, operation, "
            f"changed, change_info, transaction_id) SELECT {in_history}, {version}, "
            f"CASE WHEN {version} < 0 THEN 'insert' ELSE 'update' END, {instant.format('i')}, '{info}', "
            f"{transaction.format('i')} FROM ({_NUMBERS[kind].format(last=versions - 1)}) AS numbers"
        )
        live = state.format(n=1, v="9", at=instant.format("i"), json=json)
        connection.exec_driver_sql(
            "INSERT INTO person (id, email, name, active, balance, seen, settings, version) "
            f"SELECT {live}, {VERSIONS_OF_A_RECORD - 1} FROM ({_NUMBERS[kind].format(last=records - 1)}) AS numbers"
        )
        connection.exec_driver_sql("ANALYZE")


def create_app() -> Flask:
    """The application, on the database that the environment names."""
    app = Flask("large")
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
    db.init_app(app)
    atexit.register(_tell_memory)
    return app


def _tell_memory() -> None:
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    sys.stderr.write(f"peak {peak[1]} kB\n")

"""What a benchmark ran on, for whoever reads its results."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import sqlalchemy as sa


def cores() -> int:
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0))


def processor() -> str:
    """The name of the processor, for a person."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def busy() -> float:
    """How many processes wanted a processor at a time, in the last five minutes: they disturb what is measured."""
    return os.getloadavg()[1]


def release(engine: sa.Engine) -> str:
    """The name and the version of a database, for a person."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            number: str = connection.exec_driver_sql("SHOW server_version").scalar_one()
            return f"PostgreSQL {number.split(maxsplit=1)[0]}"
        return f"SQLite {connection.exec_driver_sql('SELECT sqlite_version()').scalar_one()}"

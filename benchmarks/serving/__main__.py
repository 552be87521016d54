"""The command line of the benchmark of the service."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from tqdm import tqdm

from app import create_app
from app.db import autocommitting, db
from app.models import User
from benchmarks.machine import busy, release
from benchmarks.reading.databases import DATABASES, empty_database
from benchmarks.serving.filling import fill
from benchmarks.serving.load import LoadError, MissingToolError, find_tool, send
from benchmarks.serving.measuring import Measured, WrongAnswerError, check, measure, recorded, start
from benchmarks.serving.report import Results, document, failures, terminal
from benchmarks.serving.workloads import WORKLOADS, WRITE, Workload
from chrononaut.history import versioning_of
from tests.service.conftest import SECRET_KEY
from tests.service.serving import Server, running

COMMAND: Final = "python -m benchmarks.serving"
RESULTS: Final = Path(__file__).parents[1] / "results" / "serving.md"

_FLOORS: Final = "benchmarks.serving.floors:create_app()"
# How connections fall to several workers, all to one or as many to each, would decide more than the views.
_ONE_WORKER: Final = ("--workers=1",)
_FAILED: Final = 1
_MISUSED: Final = 2
_INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    :ivar rounds: in how many turns
    :ivar seconds: how long a contestant is under load in each
    :ivar starts: how often the service is started
    """

    rounds: int
    seconds: int
    starts: int


FULL: Final = Effort(rounds=11, seconds=1, starts=7)
QUICK: Final = Effort(rounds=3, seconds=1, starts=3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    :param arguments: those of the command line by default
    :return: the exit status
    """
    options = _parser().parse_args(arguments)
    effort = QUICK if options.quick else FULL
    kinds = DATABASES if options.database == "both" else (options.database,)
    busy_before = busy()
    try:
        find_tool()
        results = [_measured(kind, effort) for kind in kinds]
    except KeyboardInterrupt:
        return _complain("interrupted", _INTERRUPTED)
    except MissingToolError as error:
        return _complain(str(error), _MISUSED)
    except (LoadError, WrongAnswerError) as error:
        return _complain(str(error), _FAILED)
    if not options.quick:
        RESULTS.parent.mkdir(exist_ok=True)
        told = document(results, effort.rounds, effort.seconds, busy_before, datetime.now(UTC))
        RESULTS.write_text(told, encoding="utf-8")
    status = 0
    for failure in failures(results):
        status = _complain(failure, _FAILED)
    return status


def _measured(kind: str, effort: Effort) -> Results:
    """What the service does on one database, which is there only for it.

    :raises LoadError: a request failed
    :raises WrongAnswerError: an answer is not what it must be
    """
    with empty_database(kind) as url, tempfile.TemporaryDirectory() as folder, _filled(url) as token:
        results = Results(kind, release(db.engine))
        log = Path(folder) / "gunicorn.log"
        bar = partial(tqdm, leave=False)
        results.starts.extend(bar(start(url, token, log, effort.starts), total=effort.starts, desc="starts"))
        with running(url, token, log, options=_ONE_WORKER, application=_FLOORS) as server:
            check(partial(_ask, server))
            for workload in WORKLOADS:
                results.measured.append(_loaded(server, workload, effort))
    print(f"\n{results.release}\n{terminal(results)}\n", flush=True)
    return results


@contextmanager
def _filled(url: str) -> Iterator[str]:
    """A database with the records, inside the context of an application on it, and a token for it."""
    app = create_app({"SECRET_KEY": SECRET_KEY, "DATABASE_URL": url})
    with app.app_context():
        try:
            yield fill()
        finally:
            db.session.remove()
            db.engine.dispose()


def _loaded(server: Server, workload: Workload, effort: Effort) -> Measured:
    send_here = partial(send, server.port, server.token, seconds=effort.seconds)
    sends = recorded(send_here, _count_versions) if workload is WRITE else send_here
    with tqdm(total=effort.rounds, desc=workload.name, unit="round", leave=False) as bar:
        for measured in measure(sends, workload, effort.rounds):
            bar.update(measured.rounds - bar.n)
    return measured


def _count_versions() -> int:
    # In no transaction: one that might write would wait for the last requests.
    with autocommitting(db.engine) as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(versioning_of(User).history_table)) or 0


def _ask(server: Server, method: str, path: str, document: Any) -> tuple[int, bytes]:
    answer = server.pool.request(method, path, json=document, headers={"Authorization": f"Bearer {server.token}"})
    return answer.status, answer.data


def _complain(text: str, status: int) -> int:
    print(f"serving: {text}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Measure the service under gunicorn, against views that do less, with load from wrk.",
        epilog=f"Results of a whole run are written to {'/'.join(RESULTS.parts[-3:])}. Exit status: 0 all targets are "
        "met; 1 one is missed, a request failed, or an answer is wrong; 2 a bad argument, or there is no wrk; 130 "
        "interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument("--database", choices=(*DATABASES, "both"), default="both", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="a few rounds; nothing is written")
    return parser


if __name__ == "__main__":
    sys.exit(main())

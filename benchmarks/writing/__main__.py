"""The command line of the writing benchmark."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from tqdm import tqdm

from benchmarks.machine import release
from benchmarks.reading.databases import DATABASES
from benchmarks.writing import working
from benchmarks.writing.chart import draw
from benchmarks.writing.contestants import FLOOR, NAMES
from benchmarks.writing.databases import databases
from benchmarks.writing.lookups import LENGTHS, QUICK_LENGTHS, WrongVersionError, look_up
from benchmarks.writing.measuring import Measured, Workers, measure, runs, workers
from benchmarks.writing.report import document, terminal
from benchmarks.writing.targets import Results, failures
from benchmarks.writing.working import LostHistoryError
from benchmarks.writing.workloads import CHANGES, REPLAY, UPDATE, WORKLOADS, Workload

COMMAND: Final = "python -m benchmarks.writing"
RESULTS: Final = Path(__file__).parents[1] / "results"
TABLE: Final = RESULTS / "writing.md"
CHART: Final = RESULTS / "writing.svg"

_ROUNDS: Final = 7
_FEWEST: Final = 2
"""Rounds that have quartiles."""
_LOOKUPS: Final = "version_at"
_FAILED: Final = 1
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    :param arguments: those of the command line by default
    :return: the exit status
    """
    options = _parser().parse_args(arguments)
    kinds = DATABASES if options.database == "both" else (options.database,)
    is_whole = not options.quick and options.only is None
    try:
        results = [_measured(kind, options) for kind in kinds]
    except KeyboardInterrupt:
        return _complain("interrupted", _INTERRUPTED)
    except (LostHistoryError, WrongVersionError) as error:
        return _complain(str(error), _FAILED)
    if is_whole:
        RESULTS.mkdir(exist_ok=True)
        continuum = version("sqlalchemy-continuum")
        TABLE.write_text(document(results, options.rounds, datetime.now(UTC), continuum), encoding="utf-8")
        draw(results, CHART)
    status = 0
    for failure in failures(results):
        status = _complain(failure, _FAILED)
    return status


def _measured(kind: str, options: argparse.Namespace) -> Results:
    """What was measured on one database.

    :raises LostHistoryError: a contestant has not recorded what it did
    :raises WrongVersionError: a wrong version was found
    """
    with databases(kind, NAMES) as urls:
        results = Results(_release(urls[FLOOR]))
        with workers(urls) as own:
            for workload in _workloads(options):
                results.measured.append(_timed(own, workload, results.release, options.rounds))
            if options.only in {None, UPDATE.key}:
                _weigh(own, UPDATE.quickly() if options.quick else UPDATE, results, kind)
    if options.only in {None, _LOOKUPS}:
        lengths = QUICK_LENGTHS if options.quick else LENGTHS
        for lookups in tqdm(look_up(kind, lengths), desc=f"{results.release}: version_at", unit="step", leave=False):
            results.lookups[:] = lookups
    print(f"\n{results.release}\n\n{terminal(results)}\n", flush=True)
    return results


def _workloads(options: argparse.Namespace) -> list[Workload]:
    chosen = [one for one in WORKLOADS if options.only in {None, one.key}]
    if REPLAY in chosen and not CHANGES.exists():
        _complain(f"the real changes are not replayed: there is no {CHANGES}", 0)
        chosen.remove(REPLAY)
    return [one.quickly() for one in chosen] if options.quick else chosen


def _timed(own: Workers, workload: Workload, name: str, rounds: int) -> Measured:
    with tqdm(total=runs(workload, rounds), desc=f"{name}: {workload.title}", unit="run", leave=False) as bar:
        measured = Measured(workload)
        for _ in measure(own, measured, rounds):
            bar.update()
    return measured


def _weigh(own: Workers, workload: Workload, results: Results, kind: str) -> None:
    """Memory, and on PostgreSQL the size of rows."""
    for name in tqdm(workload.contestants, desc=f"{results.release}: memory and size", unit="contestant", leave=False):
        results.memory[name] = own.do(working.memory, name, workload)
        if kind == "postgresql":
            results.sizes[name] = own.do(working.sizes, name, workload)


def _release(url: str) -> str:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    return release(engine)


def _complain(text: str, status: int) -> int:
    print(f"writing: {text}", file=sys.stderr)
    return status


def _rounds(text: str) -> int:
    rounds = int(text)
    if rounds < _FEWEST:
        raise argparse.ArgumentTypeError(f"at least {_FEWEST}, not {rounds}: one round has no quartiles")
    return rounds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Measure what writing history costs, against the same work without it and with others' ways.",
        epilog=f"Results of a whole run are written to {'/'.join(TABLE.parts[-3:])} and {CHART.name}. Exit status: 0 "
        "all is well; 1 a target is missed, or history is lost; 2 a bad argument; 130 interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument("--database", choices=(*DATABASES, "both"), default="both", help="default: %(default)s")
    parser.add_argument("--rounds", type=_rounds, default=_ROUNDS, help="default: %(default)s")
    parser.add_argument(
        "--only",
        choices=[*(one.key for one in WORKLOADS), _LOOKUPS],
        metavar="WORKLOAD",
        help="one of %(choices)s; nothing is written",
    )
    parser.add_argument("--quick", action="store_true", help="less rows; nothing is written")
    return parser


if __name__ == "__main__":
    sys.exit(main())

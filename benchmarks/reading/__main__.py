"""The command line of the reading benchmark."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from flask import Flask
from tqdm import tqdm

from benchmarks.machine import release
from benchmarks.reading.databases import DATABASES, database
from benchmarks.reading.filling import contents, fill, settle
from benchmarks.reading.measuring import WrongAnswerError, measure
from benchmarks.reading.models import FULL, QUICK, Sizes, db
from benchmarks.reading.plans import faults, planned
from benchmarks.reading.questions import Question, questions
from benchmarks.reading.report import Answered, Results, document, failures, terminal
from chrononaut.history import versioning_of

COMMAND: Final = "python -m benchmarks.reading"
RESULTS: Final = Path(__file__).parents[1] / "results" / "reading.md"

_FAILED: Final = 1
_INTERRUPTED: Final = 130


class UnsoundError(Exception):
    """What was written is not a history."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    :param arguments: those of the command line by default
    :return: the exit status
    """
    options = _parser().parse_args(arguments)
    sizes = QUICK if options.quick else FULL
    kinds = DATABASES if options.database == "both" else (options.database,)
    try:
        results = [_measured(kind, sizes) for kind in kinds]
    except KeyboardInterrupt:
        return _complain("interrupted", _INTERRUPTED)
    except (UnsoundError, WrongAnswerError) as error:
        return _complain(str(error), _FAILED)
    if not options.quick:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(document(results, sizes, datetime.now(UTC)), encoding="utf-8")
    status = 0
    for failure in failures(results):
        status = _complain(failure, _FAILED)
    return status


def _measured(kind: str, sizes: Sizes) -> Results:
    """What one database answers, on a database that is there only for it.

    :raises UnsoundError: what was written is not a history
    :raises WrongAnswerError: an answer is not what it must be
    """
    with database(kind) as app:
        results = Results(release(db.engine))
        now = datetime.now(UTC)
        _fill(results.release, sizes, now)
        for question in questions(sizes, now):
            results.answers.append(_answered(app, question))
    print(f"\n{results.release}\n{terminal(results)}\n", flush=True)
    return results


def _fill(name: str, sizes: Sizes, now: datetime) -> None:
    tables = contents(sizes)
    with tqdm(total=sum(rows.total for rows in tables), desc=f"{name}: rows", unit="row", unit_scale=True) as bar:
        for rows in tables:
            for written in fill(db.engine, rows, now):
                bar.update(written)
        bar.set_description(f"{name}: verifying")
        if wrong := next(settle(db.engine, sizes), None):
            raise UnsoundError(f"what was written is not a history: {wrong}")


def _answered(app: Flask, question: Question) -> Answered:
    with tqdm(total=question.rounds, desc=question.name, unit="round", leave=False) as bar:
        for measured in measure(app, question):
            bar.update(len(measured.seconds) - bar.n)
    with app.app_context(), planned(db.engine) as plans:
        question.ask()
    history = versioning_of(question.model).history_table
    wrong = [fault for plan in plans for fault in faults(plan, history, db.engine, question.of_record)]
    return Answered(
        measured, list(dict.fromkeys(map(str, plans))), list(dict.fromkeys(wrong)) if question.by_index else []
    )


def _complain(text: str, status: int) -> int:
    print(f"reading: {text}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Measure that reading a history takes the same time however long the history is.",
        epilog=f"Results of a whole run are written to {'/'.join(RESULTS.parts[-3:])}. Exit status: 0 all is well; 1 a "
        "question takes longer than its limit, or a plan sorts or reads a whole history; 2 a bad argument; 130 "
        "interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument("--database", choices=(*DATABASES, "both"), default="both", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the rows; nothing is written")
    return parser


if __name__ == "__main__":
    sys.exit(main())

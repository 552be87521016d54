"""Tables for the terminal and for the file of results."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from benchmarks.machine import cores, processor
from benchmarks.reading.measuring import Measured
from benchmarks.reading.models import Sizes


@dataclass(frozen=True, slots=True)
class Answered:
    """A question that was measured.

    :ivar plans: what the database does for it, each plan once
    :ivar faults: what is wrong with these
    """

    measured: Measured
    plans: Sequence[str]
    faults: Sequence[str]


@dataclass(frozen=True, slots=True)
class Results:
    """What one database answered.

    :ivar release: the name and the version of the database
    """

    release: str
    answers: list[Answered] = field(default_factory=list)


def failures(results: Sequence[Results]) -> Iterator[str]:
    """What went over its limit or has a plan that it must not have, a sentence each."""
    for one in results:
        for answer in one.answers:
            name = f"{one.release}: {answer.measured.question.name}"
            if answer.measured.is_too_slow:
                limit = answer.measured.question.limit
                yield f"{name} takes {answer.measured.ratio:.2f} times as long; at most {limit:g} times is allowed"
            yield from (f"{name}: {fault}" for fault in answer.faults)


_ROUND: Final = 100
"""Milliseconds from which on no fraction is told."""
_HEAD: Final = """\
# Reading long histories

Written by `python -m benchmarks.reading`. Each question is asked in turn with the one that it is compared with, in a
new session each time, through the library; times are medians. The ratio is that of the medians, with the quartiles of
the ratios of each round. By index: no plan sorts, or reads history otherwise than by an index.

{day:%Y-%m-%d}; {cores} cores of {processor}; Python {python}, SQLAlchemy {sqlalchemy}.

A record with {long:,} versions, and one with {short:,}, the short one, in the same table; a table of {items:,} records
and {changes:,} changes, {again:,} of these in the last hour.
"""


def document(results: Sequence[Results], sizes: Sizes, day: datetime) -> str:
    """All that was found, as Markdown."""
    again = sizes.items // sizes.again
    head = _HEAD.format(
        day=day,
        cores=cores(),
        processor=processor(),
        python=platform.python_version(),
        sqlalchemy=sa.__version__,
        long=sizes.long,
        short=sizes.short,
        items=sizes.items,
        changes=sizes.items * sizes.rows + again,
        again=again,
    )
    lines = [head]
    for one in results:
        lines += [f"## {one.release}", "", *_table(_times(one)), "", "What the database does:", ""]
        for answer in one.answers:
            lines.append(f"- {answer.measured.question.name}")
            lines += [f"    - {plan}" for plan in answer.plans]
        lines.append("")
    return "\n".join(lines)


def terminal(results: Results) -> str:
    """The times, for the terminal."""
    rows = _times(results)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _times(results: Results) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("question", "long", "short", "ratio (quartiles)", "limit", "by index")]
    for answer in results.answers:
        measured = answer.measured
        question = measured.question
        first, third = measured.quartiles
        by_index = ("no" if answer.faults else "yes") if question.by_index else ""
        rows.append(
            (
                question.name,
                _duration(measured.median),
                _duration(measured.other_median),
                f"{measured.ratio:.2f} ({first:.2f} to {third:.2f})",
                "" if question.limit is None else f"{question.limit:g}",
                by_index,
            )
        )
    return rows


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    head, *body = rows
    for row in (head, ["---"] * len(head), *body):
        yield f"| {' | '.join(row)} |"


def _duration(seconds: float) -> str:
    milliseconds = seconds * 1000
    return f"{milliseconds:,.{0 if milliseconds >= _ROUND else 2}f} ms"

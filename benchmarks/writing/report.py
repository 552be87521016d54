"""Tables for the terminal and for the file of results."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from datetime import datetime
from statistics import median
from typing import Final

import sqlalchemy as sa

from benchmarks.machine import cores, processor
from benchmarks.writing.contestants import CHRONONAUT, CONTINUUM, HISTORY_OBJECT, NAMES, ROUNDS
from benchmarks.writing.measuring import Measured
from benchmarks.writing.targets import Results, verdicts

Rows = list[Sequence[str]]
"""Rows of a table, the first of which is its head."""

UNABLE: Final = "keeps none"
"""What is said of a contestant that cannot do the work and leave history."""

_ROUND: Final = 100
"""Milliseconds from which on no fraction is told."""
_HEAD: Final = """\
# What writing history costs

Written by `make bench`. The same model of ten mixed columns, written through the same sessions, by five contestants:

- **floor**: without history
- **chrononaut**: this library
- **trigger**: a row trigger in the server, written by hand for this table. Its history table has the columns, the key
  and the three indexes of Chrononaut's; the application tells it once in a transaction who writes
- **history object**: an object for each row, added to the session before the flush; the same history table
- **continuum**: SQLAlchemy-Continuum {continuum} as it comes; its own version table and indexes

Each has a database and a process of its own, of which one works at a time. A round lets every contestant do the work
once, in a changing order, on new tables; loading, and making new objects, is not timed, the change of the first object
and the end of the commit are. Figures are how many times as long as the floor of the same round it takes: the median
of {rounds} rounds (of {objects} of history object, of {others} of continuum) after one to warm up, with their
quartiles. The databases sync every commit, as they do by default. Rows of history are counted after each work: one for
each change, or the run fails. Listed are the versions of one record, against as many records of the floor. The real
changes are the first of `releases.ndjson.gz`, with their rationales; those that were made together are one transaction.

![Times as long as without history](writing.svg)

{day:%Y-%m-%d}; {cores} cores of {processor}; Python {python}, SQLAlchemy {sqlalchemy}.
"""
_MADE_OF: Final = """\
Of the library, as many times as long as the floor. The statements that write history insert a row with four index
entries for each change; on PostgreSQL they also lock the rows and compare their versions. All else is what the
library's listeners do for each object, and the version that each UPDATE sets besides."""
_MEMORY: Final = """\
Memory is the most that Python held at once in the update in one flush, beyond what it held before the first change,
counted by tracemalloc: two runs say the same, which they do not of a process's resident memory."""


def document(results: Sequence[Results], rounds: int, day: datetime, continuum: str) -> str:
    """All that was found, as Markdown.

    :param continuum: the version of SQLAlchemy-Continuum
    """
    lines = [
        _HEAD.format(
            continuum=continuum,
            rounds=rounds,
            objects=min(rounds, ROUNDS[HISTORY_OBJECT]),
            others=min(rounds, ROUNDS[CONTINUUM]),
            day=day,
            cores=cores(),
            processor=processor(),
            python=platform.python_version(),
            sqlalchemy=sa.__version__,
        )
    ]
    for one in results:
        lines += [f"## {one.release}", ""]
        for title, text, rows in _tables(one):
            lines += [f"### {title}", "", *([text, ""] if text else []), *_markdown(rows), ""]
    return "\n".join(lines)


def terminal(results: Results) -> str:
    """All that was found, for the terminal."""
    return "\n\n".join(f"{title}\n{_aligned(rows)}" for title, _, rows in _tables(results))


def _tables(results: Results) -> Iterator[tuple[str, str, Rows]]:
    """The tables: the title of each, and what is to be said of it."""
    if targets := _targets(results):
        yield "Targets", "", targets
    if results.measured:
        yield "Times as long as the floor", "", [_head("work"), *map(_ratios, results.measured)]
        if parts := [_parts(measured) for measured in results.measured if measured.shares]:
            head = "work", "in all", "statements that write history", "all else that is more than the floor"
            yield "What the time is made of", _MADE_OF, [head, *parts]
        yield "Statements", "", [_head("work"), *map(_statements, results.measured)]
    if results.memory:
        yield "Memory", _MEMORY, [_head(""), ("peak", *(_size(results.memory.get(name)) for name in NAMES))]
    if results.sizes:
        sizes = [results.sizes[name] for name in NAMES]
        live = ("live", *(f"{size.live:.0f}" for size in sizes))
        kept = ("history", *("" if size.kept is None else f"{size.kept:.0f}" for size in sizes))
        yield "Bytes of a row, without indexes", "", [_head("table"), live, kept]
    if results.lookups:
        yield "version_at, in the middle of a history", "", _lookups(results)


def _head(first: str) -> Sequence[str]:
    return (first, *NAMES)


def _targets(results: Results) -> Rows:
    rows: Rows = [
        (verdict.name, verdict.figure, verdict.limit, "met" if verdict.is_met else "missed")
        for verdict in verdicts(results)
    ]
    return [("target", "figure (quartiles)", "at most", ""), *rows] if rows else []


def _ratios(measured: Measured) -> Sequence[str]:
    base = measured.workload.contestants[0]
    told = {name: str(measured.ratio(name)) for name in measured.workload.contestants if name != base}
    told[base] = _duration(measured.median(base))
    told |= dict.fromkeys(measured.workload.unable, UNABLE)
    return (measured.workload.title, *(told.get(name, "") for name in NAMES))


def _parts(measured: Measured) -> Sequence[str]:
    """What the library's time is made of, where the floor is 1."""
    ratio = measured.ratio(CHRONONAUT).median
    writing = ratio * median(measured.shares)
    return (measured.workload.title, f"{ratio:.2f}", f"{writing:.2f}", f"{ratio - writing - 1:.2f}")


def _statements(measured: Measured) -> Sequence[str]:
    told = {name: f"{count:,}" for name, count in measured.statements.items()}
    return (measured.workload.title, *(told.get(name, "") for name in NAMES))


def _size(size: float | None) -> str:
    return "" if size is None else f"{size / 1e6:,.1f} MB"


def _lookups(results: Results) -> Rows:
    shortest = results.lookups[0]
    rows: Rows = [("versions", "median", f"times as long as with {shortest.versions:,}")]
    for lookup in results.lookups:
        rows.append((f"{lookup.versions:,}", _duration(lookup.median), str(lookup.ratio(shortest))))
    return rows


def _markdown(rows: Rows) -> Iterator[str]:
    head, *body = rows
    for row in (head, ["---"] * len(head), *body):
        yield f"| {' | '.join(row)} |"


def _aligned(rows: Rows) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _duration(seconds: float) -> str:
    milliseconds = seconds * 1000
    return f"{milliseconds:,.{0 if milliseconds >= _ROUND else 2}f} ms"

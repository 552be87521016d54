"""Tables for the terminal and for the file of results."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from typing import Final

from benchmarks.machine import cores, processor
from benchmarks.serving.load import CONNECTIONS
from benchmarks.serving.measuring import Measured, Spread
from benchmarks.serving.workloads import SERVICE, START

_MILLISECONDS: Final = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """What must be reached, and what was.

    :ivar limit: what the figure's median must be at the least, or at the most
    """

    what: str
    figure: Spread
    limit: float
    is_most: bool = False
    unit: str = ""

    @property
    def is_met(self) -> bool:
        return self.figure.median <= self.limit if self.is_most else self.figure.median >= self.limit

    @property
    def wanted(self) -> str:
        return f"at {'most' if self.is_most else 'least'} {self.limit:g}{self.unit}"

    @property
    def told(self) -> str:
        return _told(self.figure, self.unit)


@dataclass(frozen=True, slots=True)
class Results:
    """What was measured with one database.

    :ivar kind: of the database
    :ivar release: the name and the version of the database
    :ivar starts: seconds from the start of the service to its first answer
    """

    kind: str
    release: str
    measured: list[Measured] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)

    @property
    def targets(self) -> Iterator[Target]:
        for measured in self.measured:
            for floor, limit in measured.workload.targets.get(self.kind, {}).items():
                what = f"{measured.workload.name}: requests per second, to those of {floor}"
                yield Target(what, measured.ratio(floor), limit)
        yield Target("start to first answer", Spread.of(self.starts), START, is_most=True, unit=" s")


def failures(results: Sequence[Results]) -> Iterator[str]:
    """The targets that were missed, a sentence each."""
    for one in results:
        for target in one.targets:
            if not target.is_met:
                yield f"{one.release}: {target.what}: {target.told}; {target.wanted} is wanted"


_HEAD: Final = """\
# The service under load

Written by `python -m benchmarks.serving`. The service answers under gunicorn, with one worker (how connections happen
to fall to several decides more than what is compared) and a token in each request; wrk sends the requests from another
process, {connections} at once, and does not ask for compression. Every `PATCH` goes to another record than the one
before, and changes it. The floors are views of the same application:

- `constant` answers the same bytes from memory.
- `hand-written` reads the same rows by statements of its own and answers the same bytes; its `PATCH` changes a table
  that has no history.
- `unversioned` is the service's own view, with capture suppressed.

The service and its floors take turns, in another order each time, {rounds} rounds of {seconds} s each. Requests per
second and latencies are medians of the rounds. The ratio is that of the service's requests per second to the floor's in
the same round: the median of the rounds, with the quartiles. Starting was measured {starts} times.

{day:%Y-%m-%d}; {cores} cores of {processor}; Python {python}, Flask {flask}, SQLAlchemy {sqlalchemy},
gunicorn {gunicorn}. Before, {busy:.1f} processes of others wanted a processor at a time; what is told in
seconds and not as a ratio is longer for each.
"""


def document(results: Sequence[Results], rounds: int, seconds: int, busy: float, day: datetime) -> str:
    """All that was measured, as Markdown.

    :param rounds: how many there were
    :param seconds: how long the service and each floor was under load in each
    :param busy: how many processes wanted a processor before
    """
    head = _HEAD.format(
        connections=CONNECTIONS,
        rounds=rounds,
        seconds=seconds,
        starts=len(results[0].starts),
        busy=busy,
        day=day,
        cores=cores(),
        processor=processor(),
        python=platform.python_version(),
        flask=version("flask"),
        sqlalchemy=version("sqlalchemy"),
        gunicorn=version("gunicorn"),
    )
    lines = [head]
    for one in results:
        lines += [f"## {one.release}", "", *_table(_targets(one)), "", *_table(_loads(one)), ""]
    return "\n".join(lines)


def terminal(results: Results) -> str:
    """All that was measured, for the terminal."""
    return "\n\n".join("\n".join(_aligned(rows)) for rows in (_loads(results), _targets(results)))


def _targets(results: Results) -> list[Sequence[str]]:
    head = ("target", "figure (quartiles)", "wanted", "met")
    return [head, *((one.what, one.told, one.wanted, "yes" if one.is_met else "no") for one in results.targets)]


def _loads(results: Results) -> list[Sequence[str]]:
    head = ("request", "answered by", "requests/s", "p50", "p99", "ratio to it (quartiles)")
    return [head, *(_load(one, name) for one in results.measured for name in one.workload.contestants)]


def _load(measured: Measured, contestant: str) -> Sequence[str]:
    return (
        measured.workload.name,
        contestant,
        f"{measured.median(contestant, lambda load: load.rate):,.0f}",
        _duration(measured.median(contestant, lambda load: load.p50)),
        _duration(measured.median(contestant, lambda load: load.p99)),
        "" if contestant == SERVICE else _told(measured.ratio(contestant)),
    )


def _told(spread: Spread, unit: str = "") -> str:
    return f"{spread.median:.2f}{unit} ({spread.first:.2f} to {spread.third:.2f})"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    head, *body = rows
    for row in (head, ["---"] * len(head), *body):
        yield f"| {' | '.join(row)} |"


def _duration(seconds: float) -> str:
    return f"{seconds * _MILLISECONDS:,.1f} ms"

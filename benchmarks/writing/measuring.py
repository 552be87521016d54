"""Rounds in which every contestant does the work once, so that what else the machine does falls on all alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from statistics import median, quantiles
from typing import NamedTuple, TypeVar

from benchmarks.writing import working
from benchmarks.writing.contestants import CHRONONAUT, FLOOR, ROUNDS
from benchmarks.writing.workloads import Workload

_SHARES = 3
"""How often it is measured what a workload's time is made of."""

_T = TypeVar("_T")


class Ratio(NamedTuple):
    """The median of the ratios of each round, between their quartiles."""

    median: float
    first: float
    third: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.first:.2f} to {self.third:.2f})"


@dataclass(frozen=True, slots=True)
class Measured:
    """What each contestant took for a workload.

    :ivar seconds: contestant → round by round; a slow one has the first rounds only
    :ivar statements: contestant → how many
    :ivar shares: how much of Chrononaut's time passed in statements that write history, from 0 to 1, round by round;
        empty where it writes none apart
    """

    workload: Workload
    seconds: dict[str, list[float]] = field(default_factory=dict)
    statements: dict[str, int] = field(default_factory=dict)
    shares: list[float] = field(default_factory=list)

    def median(self, contestant: str) -> float:
        """Seconds."""
        return median(self.seconds[contestant])

    def ratio(self, contestant: str, base: str = FLOOR) -> Ratio:
        """How many times as long a contestant takes as another in the same round."""
        # A slow contestant has not been in all rounds.
        rounds = zip(self.seconds[contestant], self.seconds[base], strict=False)
        ratios = [one / other for one, other in rounds]
        first, middle, third = quantiles(ratios, method="inclusive")
        return Ratio(middle, first, third)


class Workers:
    """A process for each contestant. Only one of them works at a time."""

    def __init__(self, processes: Mapping[str, ProcessPoolExecutor], urls: Mapping[str, str]) -> None:
        self._processes = processes
        self._urls = urls

    def do(self, task: Callable[[str, str, Workload], _T], contestant: str, workload: Workload) -> _T:
        """Let a contestant's process do something, and wait for it."""
        return self._processes[contestant].submit(task, contestant, self._urls[contestant], workload).result()


@contextmanager
def workers(urls: Mapping[str, str]) -> Iterator[Workers]:
    """Processes of contestants, which end with the block.

    :param urls: contestant → the URL of its database
    """
    with ExitStack() as stack:
        # Not forked: a process that knows of no other contestant's listeners.
        context = get_context("spawn")
        processes = {name: stack.enter_context(ProcessPoolExecutor(1, mp_context=context)) for name in urls}
        yield Workers(processes, urls)


def runs(workload: Workload, rounds: int) -> int:
    """How often a workload is done in all, by any contestant."""
    shares = _SHARES if workload.writes_apart else 0
    return sum(1 + _rounds(name, rounds) for name in workload.contestants) + shares


def measure(own: Workers, measured: Measured, rounds: int) -> Iterator[str]:
    """Do the work in rounds, in each of which another contestant is the first. The round before them warms up.

    :param measured: is filled with what they take
    :return: the contestant, each time that one has done it
    """
    workload = measured.workload
    for name in workload.contestants:
        measured.statements[name] = int(own.do(working.statements, name, workload))
        yield name
    for number in range(rounds):
        for name in _turned(workload.contestants, number):
            if number < _rounds(name, rounds):
                measured.seconds.setdefault(name, []).append(own.do(working.seconds, name, workload))
                yield name
    for _ in range(_SHARES if workload.writes_apart else 0):
        measured.shares.append(own.do(working.share, CHRONONAUT, workload))
        yield CHRONONAUT


def _rounds(contestant: str, rounds: int) -> int:
    return min(rounds, ROUNDS.get(contestant, rounds))


def _turned(contestants: Sequence[str], number: int) -> list[str]:
    first = number % len(contestants)
    return [*contestants[first:], *contestants[:first]]

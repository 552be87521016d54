"""The service and its floors in turn; how long the service takes to start."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Self

from benchmarks.serving.load import CONNECTIONS, Load
from benchmarks.serving.workloads import READS, SERVICE, WRITE, WRITTEN_FIRST, Workload
from tests.service.serving import running

Ask = Callable[[str, str, Any], tuple[int, bytes]]
"""Sends a request with a method, to a path, with a document; says the status and the bytes of the answer."""
Send = Callable[[str, str], Load]
"""Sends requests with a method, to a path, for a while."""


class WrongAnswerError(Exception):
    """An answer is not what it must be, so that nothing was measured."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and the quartiles around it."""

    median: float
    first: float
    third: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """:param values: two or more"""
        first, middle, third = quantiles(values, method="inclusive")
        return cls(middle, first, third)


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of the requests of one kind, by contestant, round by round."""

    workload: Workload
    loads: dict[str, list[Load]] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """How many rounds were measured."""
        return len(self.loads[SERVICE])

    def median(self, contestant: str, of: Callable[[Load], float]) -> float:
        """The median over the rounds of what one load says."""
        return median(map(of, self.loads[contestant]))

    def ratio(self, floor: str) -> Spread:
        """How much of a floor's requests per second the service answered in each round."""
        pairs = zip(self.loads[SERVICE], self.loads[floor], strict=True)
        return Spread.of([service.rate / other.rate for service, other in pairs])


def check(ask: Ask) -> None:
    """Hold the floors to the service: to its bytes where they read, to the same change where they write.

    :raises WrongAnswerError: an answer is another
    """
    for workload in READS:
        answers = {name: ask("GET", path, None) for name, path in workload.contestants.items()}
        for name, answer in answers.items():
            if answer != answers[SERVICE] or answer[0] != HTTPStatus.OK:
                raise WrongAnswerError(f"{workload.name}: {name} answers {answer}, the service {answers[SERVICE]}")
    states = {}
    for name, path in WRITE.contestants.items():
        status, data = ask("PATCH", path.replace(WRITE.path, WRITTEN_FIRST), {"name": name})
        states[name] = json.loads(data).get("state")
        if status != HTTPStatus.OK or states[name] != states[SERVICE] | {"name": name}:
            raise WrongAnswerError(f"{WRITE.name}: {name} answers {status} with {states[name]}")


def measure(send: Send, workload: Workload, rounds: int) -> Iterator[Measured]:
    """Load the service and its floors in turn, in another order in each round; the first round is not counted.

    :return: what was measured so far, after each round
    :raises LoadError: a request failed
    """
    contestants = list(workload.contestants.items())
    measured = Measured(workload, {name: [] for name, _ in contestants})
    for number in range(rounds + 1):
        turn = number % len(contestants)
        order = contestants[turn:] + contestants[:turn]
        for name, path in order if number % 2 else reversed(order):
            load = send(workload.method, path)
            if number:
                measured.loads[name].append(load)
        yield measured


def recorded(send: Send, count: Callable[[], int]) -> Send:
    """Sends writes, and holds the number of new versions to them: one for each that the service answers, and no other.

    :param count: says how many versions there are
    """

    def send_recorded(method: str, path: str) -> Load:
        """:raises WrongAnswerError: there are too few or too many versions"""
        before = count()
        load = send(method, path)
        new = count() - before
        wanted = load.requests if path == WRITE.path else 0
        # What is under way when a load ends is carried out, and answered to nobody: then, or while the next one runs.
        if not wanted <= new <= wanted + 2 * CONNECTIONS:
            raise WrongAnswerError(f"{load.requests} answers of {path} made {new} new versions, not {wanted}")
        return load

    return send_recorded


def start(database_url: str, token: str, log: Path, times: int) -> Iterator[float]:
    """Start the service, and end it when it has answered.

    :param log: the file that gunicorn's log goes to
    :return: each time the seconds from the start of the process to the first answer
    """
    for _ in range(times):
        begin = time.perf_counter()
        with running(database_url, token, log, first=READS[0].path):
            took = time.perf_counter() - begin
        yield took

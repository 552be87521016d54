"""How long two questions take, asked in turn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Final

from flask import Flask

from benchmarks.reading.questions import Question

_WARM_UP: Final = 10
"""Rounds that are not counted, or a tenth of them: caches fill, and PostgreSQL prepares what it is asked again."""


class WrongAnswerError(Exception):
    """A question was answered wrongly, so that nothing was measured."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How long a question and the one that it is compared with took, in seconds, round by round."""

    question: Question
    seconds: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def other_median(self) -> float:
        return median(self.others)

    @property
    def ratio(self) -> float:
        """The ratio of the medians."""
        return self.median / self.other_median

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third quartile of the ratios of each round."""
        ratios = [one / other for one, other in zip(self.seconds, self.others, strict=True)]
        first, _, third = quantiles(ratios)
        return first, third

    @property
    def is_too_slow(self) -> bool:
        return self.question.limit is not None and self.ratio > self.question.limit


def measure(app: Flask, question: Question) -> Iterator[Measured]:
    """Ask in turn, each time in a new session, with either question first every other time.

    :return: what was measured so far, after each round
    :raises WrongAnswerError: an answer is not what it must be
    """
    measured = Measured(question)
    answer, other_answer = question.answers
    asks = [(question.ask, answer, measured.seconds), (question.other, other_answer, measured.others)]
    warm_up = min(_WARM_UP, -(-question.rounds // 10))
    for number in range(warm_up + question.rounds):
        for ask, expected, seconds in asks if number % 2 else reversed(asks):
            # The context's session is a new one.
            with app.app_context():
                begin = time.perf_counter()
                answered = ask()
                took = time.perf_counter() - begin
                told = question.told(answered)
            if told != expected:
                raise WrongAnswerError(f"{question.name}: the answer is {told!r}, and should be {expected!r}")
            if number >= warm_up:
                seconds.append(took)
        yield measured

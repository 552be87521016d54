"""What the reading benchmark says of what it measured."""

from datetime import UTC, datetime

from benchmarks.reading.measuring import Measured
from benchmarks.reading.models import QUICK, Item
from benchmarks.reading.questions import Question
from benchmarks.reading.report import Answered, Results, document, failures, terminal


def answered(times: int, limit: float | None, *faults: str) -> Answered:
    """A question that takes so many times as long as another, but for an outlier each."""
    question = Question("the question", Item, list, list, bool, (True, True), limit=limit)
    seconds = [0.001, 0.002, 0.003, 0.004, 9.0]
    return Answered(Measured(question, [one * times for one in seconds], seconds), ["the plan"], faults)


def test_ratio_over_its_limit_is_a_failure() -> None:
    assert list(failures([Results("Base 1", [answered(2, 2.5), answered(2, None)])])) == []
    (failure,) = failures([Results("Base 1", [answered(2, 1.5)])])
    assert failure == "Base 1: the question takes 2.00 times as long; at most 1.5 times is allowed"


def test_plan_that_must_not_be_is_a_failure() -> None:
    results = [Results("Base 1", [answered(1, 1.5, "reads all of it")])]
    assert list(failures(results)) == ["Base 1: the question: reads all of it"]


def test_results_tell_medians_ratios_and_plans() -> None:
    results = Results("Base 1", [answered(2, 1.5)])
    told = document([results], QUICK, datetime(2026, 1, 2, tzinfo=UTC))
    assert "2026-01-02; " in told
    assert "| the question | 6.00 ms | 3.00 ms | 2.00 (2.00 to 2.00) | 1.5 | yes |" in told
    assert "    - the plan" in told
    assert "6.00 ms  3.00 ms" in terminal(results)

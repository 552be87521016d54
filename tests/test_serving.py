"""What the benchmark of the service holds its floors to, reads from wrk, and says of what it measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from app.db import autocommitting, db
from app.models import User
from benchmarks.serving import __main__ as command
from benchmarks.serving.filling import READ, VERSIONS, fill
from benchmarks.serving.floors import create_app, twin
from benchmarks.serving.load import Load, LoadError, parsed
from benchmarks.serving.measuring import Ask, Measured, Spread, WrongAnswerError, check, measure, recorded
from benchmarks.serving.report import Results, document, failures, terminal
from benchmarks.serving.workloads import READS, WRITE, WRITTEN_FIRST
from chrononaut.history import versioning_of

_HISTORY = READS[0]


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    """The service with the floors, on a database with the records, inside its context."""
    app = create_app({"SECRET_KEY": "a key for tests only", "DATABASE_URL": database_url})
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()


@pytest.fixture
def ask(app: Flask) -> Ask:
    """Asks as someone who may write."""
    client: FlaskClient = app.test_client()
    known = {"Authorization": f"Bearer {fill()}"}

    def ask(method: str, path: str, document: Any) -> tuple[int, bytes]:
        with app.app_context():
            answer = client.open(path, method=method, json=document, headers=known)
        return answer.status_code, answer.data

    return ask


def _count(table: sa.FromClause) -> int:
    with autocommitting(db.engine) as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def test_floors_answer_the_same_bytes_and_make_the_same_change(ask: Ask) -> None:
    check(ask)
    page = json.loads(ask("GET", _HISTORY.path, None)[1])
    assert len(page["versions"]) == VERSIONS
    for path in _HISTORY.contestants.values():
        again, never = ask("GET", path, None), ask("GET", path.replace(str(READ), "43"), None)
        assert json.loads(again[1]) == page
        # What is constant is so for any key.
        assert never[0] == (200 if "constant" in path else 404)


def test_another_answer_of_a_floor_is_noticed(ask: Ask) -> None:
    def wrong_read(method: str, path: str, document: Any) -> tuple[int, bytes]:
        status, data = ask(method, path, document)
        return status, data + b" " if path.startswith("/hand-written/history") else data

    def wrong_write(method: str, path: str, document: Any) -> tuple[int, bytes]:
        return ask(method, path, {"email": "x@example.com"} if path.startswith("/unversioned") else document)

    with pytest.raises(WrongAnswerError, match="history, 20 versions: hand-written answers"):
        check(wrong_read)
    with pytest.raises(WrongAnswerError, match="PATCH with a rationale: unversioned answers"):
        check(wrong_write)


def test_floors_want_a_token_as_the_service_does(app: Flask) -> None:
    fill()
    client = app.test_client()
    for workload in (*READS, WRITE):
        for path in workload.contestants.values():
            whole = path.replace(WRITE.path, WRITTEN_FIRST)
            assert client.open(whole, method=workload.method, json={"name": "x"}).status_code == 401


def test_only_the_service_keeps_what_its_writes_replace(ask: Ask) -> None:
    history = versioning_of(User).history_table
    before = _count(history)
    for floor, new in ((WRITE.floors[0], 0), (WRITE.floors[1], 0), ("service", 1)):
        path = WRITE.contestants[floor].replace(WRITE.path, WRITTEN_FIRST)
        assert ask("PATCH", path, {"name": f"by {floor}"})[0] == 200
        assert _count(history) - before == new
    number = int(WRITTEN_FIRST.rpartition("/")[2])
    assert db.session.scalar(sa.select(User.name).where(User.id == number)) == "by service"
    assert db.session.scalar(sa.select(twin.c.name).where(twin.c.id == number)) == "by hand-written"


def _output(**told: int) -> str:
    numbers = {"requests": 1000, "microseconds": 2_000_000, "p50": 4000, "p99": 20_000, "refused": 0, "failed": 0}
    return f"Running 2s test @ http://127.0.0.1:1\n  4 threads\n{json.dumps(numbers | told)}\n"


def test_load_is_what_wrk_says() -> None:
    load = parsed(_output())
    assert load == Load(requests=1000, seconds=2.0, p50=0.004, p99=0.02)
    assert load.rate == 500


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (_output(refused=2), "1000 requests were answered, 2 of them not by 2xx, and 0 connections failed"),
        (_output(failed=3), "1000 requests were answered, 0 of them not by 2xx, and 3 connections failed"),
        (_output(requests=0), "0 requests were answered"),
        ("unable to connect\n", "does not say what came of the requests: unable to connect"),
    ],
)
def test_load_that_fails_measures_nothing(output: str, told: str) -> None:
    with pytest.raises(LoadError, match=told):
        parsed(output)


@pytest.mark.parametrize("arguments", [[], ["--quick"]])
def test_without_wrk_the_command_says_what_to_install(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert command.main(arguments) == 2
    said = "serving: there is no wrk, which makes the load; install it (on Debian: apt install wrk)\n"
    assert capsys.readouterr().err == said


def test_each_contestant_is_loaded_in_each_round_in_a_changing_order() -> None:
    paths = []

    def send(method: str, path: str) -> Load:
        assert method == "GET"
        paths.append(path)
        return Load(len(paths), 1.0, 0.0, 0.0)

    *_, measured = measure(send, _HISTORY, 5)
    rounds = [tuple(paths[number : number + 3]) for number in range(0, len(paths), 3)]
    assert len(set(rounds)) == len(rounds) == 6
    assert all(set(one) == {*_HISTORY.contestants.values()} for one in rounds)
    # The first round only warms up.
    for name, path in _HISTORY.contestants.items():
        assert [load.requests for load in measured.loads[name]] == [
            number for number, sent in enumerate(paths, 1) if sent == path and number > 3
        ]


@pytest.mark.parametrize(("floor", "new"), [("service", 99), ("service", 109), ("unversioned", 9), ("unversioned", -1)])
def test_writes_that_are_not_recorded_one_by_one_are_noticed(floor: str, new: int) -> None:
    def send_with(new: int) -> Load:
        counts = iter([5, 5 + new])
        return recorded(lambda method, path: Load(100, 1.0, 0.0, 0.0), lambda: next(counts))(
            "PATCH", WRITE.contestants[floor]
        )

    assert send_with(104 if floor == "service" else 4).requests == 100
    with pytest.raises(WrongAnswerError, match=f"made {new} new versions"):
        send_with(new)


def _measured(workload: Any, *factors: float) -> Measured:
    """The service at 100 requests per second, but for an outlier; and floors so many times as fast."""
    seconds = [1.0, 2.0, 3.0, 4.0, 90.0]
    loads = {
        name: [Load(round(100 * factor), one, 0.001 * one, 0.002 * one) for one in seconds]
        for name, factor in zip(workload.contestants, (1.0, *factors), strict=True)
    }
    return Measured(workload, loads)


def test_ratio_is_the_median_of_those_of_the_rounds() -> None:
    rates = {"service": [1, 2, 3, 40, 5], "constant": [10, 10, 10, 10, 10], "hand-written": [1, 1, 1, 1, 1]}
    measured = Measured(_HISTORY, {name: [Load(rate, 1.0, 0, 0) for rate in all_] for name, all_ in rates.items()})
    assert measured.ratio("constant") == Spread(0.3, 0.2, 0.5)
    assert measured.ratio("hand-written") == Spread(3, 2, 5)


def _results(kind: str, history: float, patch: float, start: float) -> Results:
    measured = [_measured(_HISTORY, 5, 1 / history), _measured(WRITE, 1 / patch, 5)]
    return Results(kind, "Base 1", measured, [start, start, start + 1])


def test_missed_targets_are_failures() -> None:
    assert list(failures([_results("postgresql", 1, 0.8, 1.5), _results("sqlite", 1, 0.5, 1.5)])) == []
    history, patch, start = failures([_results("postgresql", 0.5, 0.5, 1.6)])
    to_floor = "requests per second, to those of"
    told = f"{to_floor} hand-written: 0.50 (0.50 to 0.50); at least 0.9 is wanted"
    assert history == f"Base 1: history, 20 versions: {told}"
    told = f"{to_floor} unversioned: 0.50 (0.50 to 0.50); at least 0.8 is wanted"
    assert patch == f"Base 1: PATCH with a rationale: {told}"
    assert start == "Base 1: start to first answer: 1.60 s (1.60 to 2.10); at most 1.5 s is wanted"


def test_results_tell_targets_loads_and_ratios() -> None:
    results = _results("postgresql", 0.5, 1, 1)
    told = document([results], 11, 1, 2.34, datetime(2026, 1, 2, tzinfo=UTC))
    assert "2026-01-02; " in told
    assert "11 rounds of 1 s each" in told
    assert "Before, 2.3 processes of others wanted a processor" in told
    assert "| history, 20 versions | service | 33 | 3.0 ms | 6.0 ms |  |" in told
    assert "| history, 20 versions | hand-written | 67 | 3.0 ms | 6.0 ms | 0.50 (0.50 to 0.50) |" in told
    target = "history, 20 versions: requests per second, to those of hand-written"
    assert f"| {target} | 0.50 (0.50 to 0.50) | at least 0.9 | no |" in told
    assert "| start to first answer | 1.00 s (1.00 to 1.50) | at most 1.5 s | yes |" in told
    assert "0.50 (0.50 to 0.50)    at least 0.9   no" in terminal(results)

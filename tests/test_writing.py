"""What the writing benchmark compares is comparable, and what it says of it follows from what it measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from benchmarks.writing import workloads
from benchmarks.writing.__main__ import CHART, TABLE, main
from benchmarks.writing.chart import draw
from benchmarks.writing.contestants import CHRONONAUT, CONTINUUM, FLOOR, HISTORY_OBJECT, NAMES, TRIGGER, Contestant
from benchmarks.writing.history import HISTORY
from benchmarks.writing.lookups import Lookup, look_up
from benchmarks.writing.measuring import Measured, runs
from benchmarks.writing.meters import Clock, Memory, Statements, Writing
from benchmarks.writing.models import change, values
from benchmarks.writing.report import document, terminal
from benchmarks.writing.targets import Results, failures, verdicts
from benchmarks.writing.working import LostHistoryError, Sizes, done, opened, prepare
from benchmarks.writing.workloads import BULK, DELETE, INSERT, LISTING, REPLAY, TRANSACTIONS, UPDATE, Workload

DAY = datetime(2026, 1, 2, tzinfo=UTC)
FILLED = 12
CHANGES = [
    {"op": "insert", "product": "a", "cycle": "1", "set": {"latest": "1.0"}, "rationale": "First", "ref": "x"},
    {"op": "insert", "product": "b", "cycle": "1", "set": {"lts": True}, "rationale": "First", "ref": "x"},
    {"op": "update", "product": "b", "cycle": "1", "set": {"latest": "1.1"}, "rationale": "Second", "ref": "y"},
    {"op": "delete", "product": "a", "cycle": "1", "rationale": "Second", "ref": "y"},
    {"op": "delete", "product": "b", "cycle": "1", "rationale": "Too many", "ref": "z"},
]


@contextmanager
def ready(name: str, url: str, filled: int = FILLED) -> Iterator[Contestant]:
    """A contestant with some records, in an application's context."""
    contestant, app = opened(name, url)
    with app.app_context():
        try:
            prepare(contestant, filled)
            yield contestant
        finally:
            contestant.db.session.remove()
            contestant.db.engine.dispose()


def write(contestant: Contestant) -> None:
    """All kinds of changes, in three transactions."""
    session, model = contestant.db.session(), contestant.model
    first, second, third = session.scalars(sa.select(model).order_by(model.id).limit(3)).all()
    for record in (first, second):
        change(record)
    third.note = None
    session.commit()
    session.delete(first)
    change(second)
    session.flush()
    change(second)
    session.commit()
    session.delete(third)
    session.commit()


def write_new(contestant: Contestant) -> None:
    """Records that begin, change and end, in two transactions."""
    session = contestant.db.session()
    records = [contestant.model(**values(number)) for number in (1, 2)]
    session.add_all(records)
    session.commit()
    change(records[0])
    session.delete(records[1])
    session.commit()


def write_at_once(contestant: Contestant) -> None:
    """All records by one statement."""
    session, model = contestant.db.session(), contestant.model
    session.execute(sa.update(model).values(quantity=model.quantity + 1))
    session.commit()


def history(contestant: Contestant) -> list[dict[str, Any]]:
    """All rows of history, with the order of the transactions in place of their numbers and instants."""
    table = contestant.history
    assert table is not None
    with contestant.db.engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key)).mappings()]
    instants = {row["transaction_id"]: row["changed"] for row in rows}
    numbers = {one: number for number, one in enumerate(sorted(instants, key=lambda one: instants[one]))}
    for row in rows:
        # All of one transaction is of one instant.
        assert row.pop("changed") == instants[row["transaction_id"]]
        row["transaction_id"] = numbers[row["transaction_id"]]
    return rows


@pytest.mark.parametrize(
    ("name", "filled", "writing"),
    [
        (TRIGGER, FILLED, write),
        (TRIGGER, 0, write_new),
        (TRIGGER, FILLED, write_at_once),
        (HISTORY_OBJECT, FILLED, write),
        (HISTORY_OBJECT, 0, write_new),
    ],
)
def test_others_leave_the_history_that_chrononaut_leaves(
    name: str, filled: int, writing: Any, database_url: str, other_database_url: str
) -> None:
    with ready(CHRONONAUT, database_url, filled) as contestant:
        writing(contestant)
        expected = history(contestant)
    assert expected
    with ready(name, other_database_url, filled) as contestant:
        writing(contestant)
        assert history(contestant) == expected


def test_history_tables_are_alike(database_url: str, other_database_url: str) -> None:
    with ready(CHRONONAUT, database_url) as contestant:
        expected = described(contestant)
    assert len(expected[1]) == 3
    for name in (TRIGGER, HISTORY_OBJECT):
        with ready(name, other_database_url) as contestant:
            assert described(contestant) == expected


def described(contestant: Contestant) -> tuple[Any, Any, Any]:
    """The columns, the indexes and the key of the history table that a database has."""
    inspector = sa.inspect(contestant.db.engine)
    columns = {
        one["name"]: (str(one["type"]), one["nullable"], one["default"]) for one in inspector.get_columns(HISTORY)
    }
    indexes = sorted((one["name"], one["column_names"], one["unique"]) for one in inspector.get_indexes(HISTORY))
    return columns, indexes, inspector.get_pk_constraint(HISTORY)["constrained_columns"]


@pytest.mark.parametrize(
    ("workload", "name"),
    [
        (workload, name)
        for workload in (INSERT, UPDATE, TRANSACTIONS, DELETE, BULK, LISTING)
        for name in workload.contestants
        if name != CONTINUUM
    ],
    ids=lambda one: one.key if isinstance(one, Workload) else one,
)
def test_work_leaves_history(workload: Workload, name: str, database_url: str) -> None:
    small = workload.of(FILLED)
    with ready(name, database_url, small.filled) as contestant:
        assert done(name, contestant, small, Clock()) > 0


@pytest.mark.parametrize("name", REPLAY.contestants)
def test_replay_makes_the_real_changes(
    name: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "changes.ndjson"
    file.write_text("\n".join(map(json.dumps, CHANGES)))
    monkeypatch.setattr(workloads, "CHANGES", file)
    workloads.real_changes.cache_clear()
    with ready(name, database_url, 0) as contestant:
        done(name, contestant, REPLAY.of(2), Clock())
        (left,) = contestant.db.session.scalars(sa.select(contestant.release))
        assert (left.product, left.cycle, left.lts, left.latest) == ("b", "1", "true", "1.1")
        if name == CHRONONAUT:
            changes = contestant.release.timeline(("b", "1")).changes()
            assert [one.info["extra"]["rationale"] for one in changes] == ["First", "Second"]
    workloads.real_changes.cache_clear()


def test_lookups_find_the_middle_of_each_history() -> None:
    *_, lookups = look_up("sqlite", (20, 50))
    assert [one.versions for one in lookups] == [20, 50]
    assert len(lookups[0].seconds) == len(lookups[1].seconds) > 100


def test_single_round_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--rounds", "1"])
    assert ended.value.code == 2
    assert "one round has no quartiles" in capsys.readouterr().err


def test_lost_history_ends_the_run(database_url: str) -> None:
    with ready(HISTORY_OBJECT, database_url) as contestant, pytest.raises(LostHistoryError, match="0 changes"):
        done(HISTORY_OBJECT, contestant, BULK.of(FILLED), Clock())


def test_statements_and_memory_are_of_the_work_alone(database_url: str) -> None:
    with ready(FLOOR, database_url) as contestant:
        assert done(FLOOR, contestant, UPDATE.of(FILLED), Statements(contestant.db.engine)) == 1
        small = done(FLOOR, contestant, UPDATE.of(FILLED), Memory())
        prepare(contestant, 600)
        assert done(FLOOR, contestant, UPDATE.of(600), Memory()) > 2 * small > 0


@pytest.mark.parametrize("workload", [INSERT, UPDATE, DELETE], ids=lambda one: one.key)
def test_time_of_statements_that_write_history_is_told_apart(workload: Workload, database_url: str) -> None:
    small = workload.of(FILLED)
    with ready(CHRONONAUT, database_url, small.filled) as contestant:
        assert contestant.history is not None
        meter = Writing(contestant.db.engine, contestant.history)
        done(CHRONONAUT, contestant, small, meter)
        written = meter.writing
        assert 0 < written < meter.figure
        with meter:
            contestant.db.session.scalars(sa.select(contestant.model)).all()
        assert meter.writing == written


def measured(workload: Workload, **seconds: list[float]) -> Measured:
    """What contestants took, by their names without spaces."""
    named = {name: seconds[name.replace(" ", "_")] for name in NAMES if name.replace(" ", "_") in seconds}
    return Measured(workload, named, dict.fromkeys(named, 7))


def updated(times: float) -> Measured:
    """An update that takes so many times as long as without history, but for an outlier."""
    floor = [1.0, 2.0, 3.0, 4.0, 5.0]
    return measured(UPDATE, floor=floor, chrononaut=[*(one * times for one in floor[:4]), 500.0], continuum=[9.0, 18.0])


def test_ratio_is_the_median_of_the_rounds_between_its_quartiles() -> None:
    one = measured(UPDATE, floor=[1.0, 2.0, 4.0, 1.0, 1.0], chrononaut=[1.0, 4.0, 12.0, 4.0, 5.0])
    assert one.ratio(CHRONONAUT) == (3.0, 2.0, 4.0)
    assert str(one.ratio(CHRONONAUT)) == "3.00 (2.00 to 4.00)"


def test_slow_contestant_is_held_against_its_own_rounds() -> None:
    assert updated(2).ratio(CONTINUUM) == (9.0, 9.0, 9.0)
    assert runs(UPDATE, 7) == 3 * 8 + 4 + 3 + 3
    assert runs(BULK, 7) == 3 * 8


def test_missed_target_is_a_failure() -> None:
    assert list(failures([Results("Base 1", [updated(1.1)])])) == []
    (failure,) = failures([Results("Base 1", [updated(1.2)])])
    assert failure == (
        "Base 1: update 10,000 in one flush: 1.20 (1.20 to 1.20); at most 1.1 times the floor is allowed"
    )


def test_bulk_update_is_held_against_the_trigger() -> None:
    bulk = measured(BULK, floor=[1.0, 1.0], chrononaut=[3.0, 3.0], trigger=[4.0, 4.0])
    (verdict,) = verdicts(Results("Base 1", [bulk]))
    assert (verdict.figure, verdict.limit, verdict.is_met) == ("0.75 (0.75 to 0.75)", "1 times the trigger", True)


def test_memory_and_bytes_have_targets() -> None:
    results = Results("Base 1", memory={FLOOR: 10.0, CHRONONAUT: 11.0})
    results.sizes.update({FLOOR: Sizes(200.0, None), CHRONONAUT: Sizes(210.0, 361.0)})
    memory, size = verdicts(results)
    assert memory.is_met
    assert (size.figure, size.limit, size.is_met) == ("live row + 161", "live row + 160", False)


def whole() -> Results:
    """Something of everything."""
    bulk = measured(BULK, floor=[1.0, 1.0], chrononaut=[3.0, 3.0], trigger=[4.0, 4.0])
    floor = [1.0, 1.0]
    update = measured(
        UPDATE, floor=floor, chrononaut=[1.2, 1.2], trigger=floor, history_object=floor, continuum=[9.0, 9.0]
    )
    update.shares.extend([0.5, 0.25, 0.1])
    results = Results("Base 1", [update, bulk], memory=dict.fromkeys(NAMES, 5e6))
    results.sizes.update({name: Sizes(200.0, None if name == FLOOR else 300.0) for name in NAMES})
    results.lookups.extend([Lookup(1000, [0.001, 0.002]), Lookup(10_000, [0.002, 0.004])])
    return results


def test_results_tell_targets_ratios_statements_and_sizes() -> None:
    told = document([whole()], 5, DAY, "9.8.7")
    assert "SQLAlchemy-Continuum 9.8.7" in told
    assert "2026-01-02; " in told
    assert "| update 10,000 in one flush | 1.20 (1.20 to 1.20) | 1.1 times the floor | missed |" in told
    assert "| update 10,000 in one flush | 1,000 ms | 1.20 (1.20 to 1.20) | 1.00" in told
    assert "| 3.00 (3.00 to 3.00) | 4.00 (4.00 to 4.00) | keeps none | keeps none |" in told
    assert "| update 10,000 in one flush | 1.20 | 0.30 | -0.10 |" in told
    assert "| update 10,000 in one flush | 7 | 7 | 7 | 7 | 7 |" in told
    assert "| peak | 5.0 MB | 5.0 MB | 5.0 MB | 5.0 MB | 5.0 MB |" in told
    assert "| history |  | 300 | 300 | 300 | 300 |" in told
    assert "| 10,000 | 3.00 ms | 2.00 (2.00 to 2.00) |" in told
    assert "live row + 100" in terminal(whole())


@pytest.mark.bench
def test_chart_names_all_and_has_a_day_of_its_own_only_in_the_table(tmp_path: Path) -> None:
    charts = [tmp_path / "one" / "chart.svg", tmp_path / "other" / "chart.svg"]
    for chart in charts:
        chart.parent.mkdir()
        draw([whole(), whole()], chart)
    one, other = (chart.read_text() for chart in charts)
    assert one == other
    for text in ("Base 1", "chrononaut 1.20", "trigger 4.00", "continuum 9.00", "update 10,000 in one flush"):
        assert f"<!-- {text} -->" in one


@pytest.mark.bench
@pytest.mark.parametrize("workload", [INSERT, UPDATE, TRANSACTIONS, DELETE], ids=lambda one: one.key)
def test_continuum_keeps_history(workload: Workload, database_url: str) -> None:
    small = workload.of(FILLED)
    with ready(CONTINUUM, database_url, small.filled) as contestant:
        assert done(CONTINUUM, contestant, small, Clock()) > 0


@pytest.mark.bench
def test_quick_run_prints_its_targets_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before = [path.read_bytes() if path.exists() else b"" for path in (TABLE, CHART)]
    status = main(["--quick", "--only", "delete", "--database", "sqlite", "--rounds", "2"])
    printed = capsys.readouterr().out
    assert "delete 500 in one flush" in printed
    assert status == (1 if "missed" in printed else 0)
    assert [path.read_bytes() if path.exists() else b"" for path in (TABLE, CHART)] == before

"""``flask history purge``: what it says, how it ends, and what goes on beside it."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask, current_app
from sqlalchemy import event
from sqlalchemy.orm import Session

from chrononaut import ConcurrentChangeError, Retention
from chrononaut.purging import Purge
from tests.library.shapes import Gauge, Price, db
from tests.library.test_purging import DAY, NOW, lives, rows
from tests.library.test_verify import found

# A process that is killed has a database of its own to open.
processes = multiprocessing.get_context("spawn")


@pytest.fixture
def app(open_database: Callable[..., Session]) -> Flask:
    """An application of which two models have a policy, by a setting."""
    setting = {"Gauge": {"versions": 1}, "Price": Retention(days=36_500)}
    session = open_database(db, CHRONONAUT_RETENTION=setting)
    for code in "abc":
        lives(session, Gauge, code, *(NOW - number * DAY for number in (5, 4, 3)))
    lives(session, Price, ("p", 1), NOW - DAY)
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return app


def run(app: Flask, *arguments: str) -> Any:
    db.session.remove()
    return app.test_cli_runner().invoke(args=["history", "purge", *arguments], catch_exceptions=False)


def test_dry_run_says_what_would_go_and_changes_nothing(app: Flask) -> None:
    before = rows(db.session(), Gauge)
    result = run(app, "--dry-run", "--limit", "2", "--batch", "3")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "Gauge: 6 versions of 3 records, which ended 2026-03-26T12:00:00Z to 2026-03-27T12:00:00Z would go",
        "  a: 2 versions, 0 to 1",
        "  b: 2 versions, 0 to 1",
        "  and 1 more record",
        "Price: 0 versions of 0 records would go",
    ]
    assert rows(db.session(), Gauge) == before


@pytest.mark.parametrize("batch", ["3", "2000"])
def test_purge_says_what_has_gone_and_has_nothing_to_do_again(app: Flask, batch: str) -> None:
    result = run(app, "--batch", batch, "--rationale", "too old", "--extra", "ticket=T-1", "--user", "ada")
    assert (result.exit_code, result.stdout.splitlines()[1]) == (0, "Price: 0 versions of 0 records purged")
    assert result.stdout.startswith("Gauge: 6 versions of 3 records, which ended ")
    (cut,) = Gauge.timeline("a").cuts()
    assert (cut.first, cut.last, cut.user_id, cut.extra) == (-1, 1, "ada", {"ticket": "T-1", "rationale": "too old"})
    assert run(app, "Gauge").stdout == "Gauge: 0 versions of 0 records purged\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Item"], "Item has no policy; declare __chrononaut_retention__, or set CHRONONAUT_RETENTION"),
        (["Truck"], "Truck is purged with Vehicle, which it inherits from"),
        (["--rationale", " "], "Invalid value for '--rationale': is blank; say why"),
        (["--extra", "ticket"], "Invalid value for '--extra': 'ticket' is no KEY=VALUE"),
        (["Nothing"], "no such model: Nothing"),
        (["--batch", "2"], "2 is not in the range x>=3"),
    ],
)
def test_what_cannot_be_done_is_said(app: Flask, arguments: list[str], message: str) -> None:
    result = run(app, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_setting_that_became_wrong_is_said(app: Flask) -> None:
    app.config["CHRONONAUT_RETENTION"] = {"Nothing": {"versions": 1}}
    result = run(app)
    assert (result.exit_code, "no model of this name" in result.stderr) == (2, True)
    app.config["CHRONONAUT_RETENTION"] = "{"
    assert "Error: CHRONONAUT_RETENTION is no JSON: " in run(app).stderr
    app.config["CHRONONAUT_RETENTION"] = {}
    assert "no model has a policy" in run(app).stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_behind_a_part_and_it_goes_on_again(app: Flask, number: signal.Signals) -> None:
    def interrupt(connection: Any, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("DELETE FROM gauge_history") and not sent:
            sent.append(statement)
            os.kill(os.getpid(), number)

    sent: list[str] = []
    event.listen(db.engine, "before_cursor_execute", interrupt)
    result = run(app, "--batch", "4")
    assert result.exit_code == 1
    assert "Gauge: 2 versions of 1 record, " in result.stdout
    assert "ended before all was done; the same command goes on" in result.stderr
    assert found(Gauge, db.engine) == []
    event.remove(db.engine, "before_cursor_execute", interrupt)
    assert run(app).stdout.startswith("Gauge: 4 versions of 2 records")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def die_in_the_third_part(url: str) -> None:
    """Purge, and be killed before a part is committed: its cuts are made, and what they stand for is there."""

    def kill(connection: Any, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("DELETE FROM gauge_history"):
            statements.append(statement)
            if len(statements) == 3:
                os.kill(os.getpid(), signal.SIGKILL)

    statements: list[str] = []
    # With the driver as it is: SQLite's begins transactions late.
    engine = sa.create_engine(url)
    event.listen(engine, "before_cursor_execute", kill)
    list(Purge(Gauge, Retention(versions=1), at=NOW, batch=3).run(engine))


def test_process_that_is_killed_leaves_history_sound(app: Flask) -> None:
    db.session.remove()
    url = db.engine.url.render_as_string(hide_password=False)
    process = processes.Process(target=die_in_the_third_part, args=(url,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert found(Gauge, db.engine) == []
    left = [row.version for row in rows(db.session(), Gauge)]
    assert 3 < len(left) < 12
    assert run(app).exit_code == 0
    assert [(row.version, row.operation) for row in rows(db.session(), Gauge)] == [(1, "purge"), (2, "update")] * 3


def test_part_is_purged_whole_or_not_where_each_statement_would_be_committed_by_itself(app: Flask) -> None:
    def fail(connection: Any, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("DELETE FROM gauge_history"):
            raise KeyboardInterrupt

    before = rows(db.session(), Gauge)
    db.session.remove()
    engine = sa.create_engine(db.engine.url, isolation_level="AUTOCOMMIT")
    event.listen(engine, "before_cursor_execute", fail)
    with pytest.raises(KeyboardInterrupt):
        list(Purge(Gauge, Retention(versions=1), at=NOW).run(engine))
    engine.dispose()
    assert rows(db.session(), Gauge) == before


def test_writers_and_purge_run_beside_each_other(app: Flask) -> None:
    ended, failed = threading.Event(), list[Exception]()

    def write() -> None:
        with app.app_context():
            number = 0
            while not ended.is_set():
                for code in "abc":
                    try:
                        db.session.get_one(Gauge, code).count = number
                        db.session.commit()
                    except ConcurrentChangeError as error:
                        # SQLite has but one writer, and refuses another that has read before.
                        if db.engine.dialect.name != "sqlite":
                            failed.append(error)
                        db.session.rollback()
                    except Exception as error:  # noqa: BLE001  told by the test
                        failed.append(error)
                        return
                number += 1
                time.sleep(0.01)
            db.session.remove()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(10):
            list(Purge(Gauge, Retention(versions=2), batch=5).run(db.engine))
    finally:
        ended.set()
        writer.join()
    assert failed == []
    list(Purge(Gauge, Retention(versions=2)).run(db.engine))
    assert found(Gauge, db.engine) == []
    for code in "abc":
        live = db.session.get_one(Gauge, code)
        assert [version.version for version in live.versions()] == [live.version - 2, live.version - 1]


def test_two_that_purge_at_once_leave_history_sound_and_tell_each_version_once(app: Flask) -> None:
    def states() -> int:
        return sum(row.operation not in ("insert", "purge") for row in rows(db.session(), Gauge))

    for code in "defgh":
        lives(db.session(), Gauge, code, *(NOW - number * DAY for number in range(12, 2, -1)), deleted=code == "e")
    before = states()
    db.session.remove()
    failed, told = list[Exception](), list[int]()

    def purge(versions: int, batch: int) -> None:
        with app.app_context():
            try:
                for fewer in range(4):
                    plan = Purge(Gauge, Retention(versions=max(versions - fewer, 1)), batch=batch)
                    told.extend(doomed.versions for part in plan.run(db.engine) for doomed in part.doomed)
            except Exception as error:  # noqa: BLE001  told by the test
                failed.append(error)

    threads = [threading.Thread(target=purge, args=which) for which in ((8, 3), (7, 5), (6, 4))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sum(told) == before - states()
    assert found(Gauge, db.engine) == []
    assert run(app).exit_code == 0
    of_record = {code: [row for row in rows(db.session(), Gauge) if row.key == (code,)] for code in "abcdefgh"}
    assert {tuple(row.operation for row in left) for code, left in of_record.items() if code != "e"} == {
        ("purge", "update")
    }
    assert [row.operation for row in of_record["e"]] == ["purge", "delete"]


def test_lock_that_others_hold_is_waited_for_and_then_told(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    if db.engine.dialect.name != "postgresql":
        return
    monkeypatch.setattr("chrononaut.purging._LOCK_TIMEOUT", "SET LOCAL lock_timeout = '20ms'")
    monkeypatch.setattr("chrononaut.purging._PAUSE", 0)
    db.session.remove()
    with db.engine.begin() as connection:
        connection.execute(sa.text("SELECT * FROM gauge_history WHERE code = 'b' FOR UPDATE"))
        result = run(app, "--batch", "4")
    assert result.exit_code == 2
    assert "Error: Gauge could not be purged: canceling statement due to lock timeout; the same command goes on" in (
        result.stderr
    )
    # What had gone before is told, and the models that follow are purged.
    gauge, price = result.stdout.splitlines()
    assert gauge.startswith("Gauge: 2 versions of 1 record, ")
    assert price == "Price: 0 versions of 0 records purged"
    assert run(app).stdout.startswith("Gauge: 4 versions of 2 records")


def test_it_runs_in_a_thread_that_gets_no_signals(app: Flask) -> None:
    def purge() -> None:
        with app.app_context():
            results.append(run(app))

    results: list[Any] = []
    thread = threading.Thread(target=purge)
    thread.start()
    thread.join()
    assert results[0].stdout.startswith("Gauge: 6 versions of 3 records")


def test_dry_run_waits_for_no_writer(app: Flask) -> None:
    """As an application that begins each transaction as a writer has it on SQLite."""
    if db.engine.dialect.name != "sqlite":
        return

    def begin(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    db.session.remove()
    engine = sa.create_engine(db.engine.url, connect_args={"timeout": 0})
    event.listen(engine, "begin", begin)
    with db.engine.begin() as connection:
        connection.execute(sa.text("UPDATE gauge SET count = 1"))
        parts = list(Purge(Gauge, Retention(versions=1), at=NOW).dry_run(engine))
    engine.dispose()
    assert sum(len(part.doomed) for part in parts) == 3


def test_tables_that_are_not_there_are_told_as_such(app: Flask) -> None:
    db.session.remove()
    db.drop_all()
    result = run(app, "Gauge")
    assert result.exit_code == 2
    assert "Gauge could not be purged: " in result.stderr
    assert "gauge_history" in result.stderr.removeprefix("Gauge could not be purged: ")
    db.create_all()

"""Two transactions at one record: one of them is refused, and no version is lost or doubled."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from chrononaut import ChrononautException, ConcurrentChangeError
from tests.library.models import Book, Country, Release, User, db
from tests.library.rows import changes, history_rows, live_rows


@pytest.fixture
def sessions(app: Flask) -> Iterator[tuple[Session, Session]]:
    """Two sessions that keep what they have loaded, over the transaction's end."""
    scoped = db._make_scoped_session({"expire_on_commit": False})
    first, second = scoped.session_factory(), scoped.session_factory()
    first.add_all([User(id=1, email="a", logins=0), User(id=2, email="b"), Release(product="p", cycle="1")])
    first.commit()
    yield first, second
    first.close()
    second.close()


def _loaded(session: Session, key: int = 1) -> User:
    """The record as the session sees it now; no transaction stays open."""
    user = session.get_one(User, key, populate_existing=True)
    session.commit()
    return user


def test_second_of_two_changes_is_refused_and_names_model_and_key(sessions: tuple[Session, Session]) -> None:
    first, second = sessions
    mine, yours = _loaded(first), _loaded(second)
    mine.name = "first"
    first.commit()
    yours.name = "second"
    with pytest.raises(ConcurrentChangeError, match=r"^User 1: changed by another transaction.* roll back") as error:
        second.commit()
    assert (error.value.model, error.value.keys, error.value.own) == ("User", ((1,),), False)
    second.rollback()
    rows = history_rows(second, "appuser_history", id=1)
    assert changes(rows) == [(-1, "insert"), (0, "update")]
    assert [(row["name"], row["version"]) for row in live_rows(second, "appuser", "id")] == [("first", 1), (None, 0)]


def test_change_that_is_repeated_after_the_refusal_goes_through(sessions: tuple[Session, Session]) -> None:
    first, second = sessions
    mine, yours = _loaded(first), _loaded(second)
    mine.name = "first"
    first.commit()
    yours.name = "second"
    with pytest.raises(ConcurrentChangeError):
        second.commit()
    second.rollback()
    _loaded(second).name = "second"
    second.commit()
    rows = history_rows(second, "appuser_history", id=1)
    assert changes(rows) == [(-1, "insert"), (0, "update"), (1, "update")]
    assert [row["name"] for row in rows] == [None, None, "first"]


def test_other_changes_of_the_refused_flush_are_not_written(sessions: tuple[Session, Session]) -> None:
    first, second = sessions
    mine, yours, other = _loaded(first), _loaded(second), _loaded(second, 2)
    mine.name = "first"
    first.commit()
    yours.name = other.name = "second"
    second.add(Country(code="FR"))
    with pytest.raises(ConcurrentChangeError, match=r"^User 1: ") as error:
        second.commit()
    assert error.value.keys == ((1,),)
    second.rollback()
    assert changes(history_rows(second, "appuser_history", id=2)) == [(-1, "insert")]
    assert history_rows(second, "country_history") == live_rows(second, "country") == []


def test_delete_of_a_record_that_was_changed_is_refused(sessions: tuple[Session, Session]) -> None:
    first, second = sessions
    mine, yours = _loaded(first), _loaded(second)
    mine.name = "first"
    first.commit()
    second.delete(yours)
    with pytest.raises(ConcurrentChangeError, match=r"^User 1: "):
        second.commit()
    second.rollback()
    assert changes(history_rows(second, "appuser_history", id=1)) == [(-1, "insert"), (0, "update")]
    assert len(live_rows(second, "appuser")) == 2


@pytest.mark.parametrize("operation", ["update", "delete"])
def test_record_that_was_deleted_cannot_be_changed_or_deleted(
    sessions: tuple[Session, Session], operation: str
) -> None:
    first, second = sessions
    mine, yours = _loaded(first), _loaded(second)
    first.delete(mine)
    first.commit()
    if operation == "update":
        yours.name = "second"
    else:
        second.delete(yours)
    with pytest.raises(ConcurrentChangeError, match=r"^User 1: "):
        second.commit()
    second.rollback()
    assert changes(history_rows(second, "appuser_history", id=1)) == [(-1, "insert"), (0, "delete")]


@pytest.mark.parametrize("operation", ["update", "delete"])
def test_record_that_was_deleted_and_added_again_is_not_the_one_that_was_loaded(
    sessions: tuple[Session, Session], operation: str
) -> None:
    first, second = sessions
    mine, yours = _loaded(first), _loaded(second)
    first.delete(mine)
    first.commit()
    first.add(User(id=1, email="again"))
    first.commit()
    if operation == "update":
        yours.email = "late"
    else:
        second.delete(yours)
    with pytest.raises(ConcurrentChangeError):
        second.commit()
    second.rollback()
    assert changes(history_rows(second, "appuser_history", id=1)) == [(-1, "insert"), (0, "delete"), (1, "insert")]
    assert live_rows(second, "appuser", "id")[0]["email"] == "again"


def test_hidden_change_after_another_transactions_change_is_refused(sessions: tuple[Session, Session]) -> None:
    first, second = sessions
    mine, yours = _loaded(first), _loaded(second)
    mine.password_hash = "x"
    first.commit()
    yours.password_hash = "y"
    with pytest.raises(ConcurrentChangeError):
        second.commit()
    second.rollback()
    assert live_rows(second, "appuser", "id")[0]["password_hash"] == "x"


def test_untracked_changes_do_not_stand_in_each_others_way(sessions: tuple[Session, Session]) -> None:
    first, second = sessions
    mine, yours = _loaded(first), _loaded(second)
    mine.clicks = 5
    first.commit()
    yours.name = "second"
    second.commit()
    (live, _) = live_rows(second, "appuser", "id")
    assert (live["clicks"], live["name"], live["version"]) == (5, "second", 1)


def test_composite_key_is_named_whole(sessions: tuple[Session, Session]) -> None:
    first, second = sessions
    mine, yours = (session.get_one(Release, ("p", "1")) for session in sessions)
    first.commit()
    second.commit()
    mine.label = "first"
    first.commit()
    yours.label = "second"
    with pytest.raises(ConcurrentChangeError, match=r"^Release \('p', '1'\): "):
        second.commit()


def test_many_changed_records_are_counted_after_the_first_five(sessions: tuple[Session, Session]) -> None:
    first, second = sessions
    first.add_all(User(id=number, email=f"{number}") for number in range(10, 22))
    first.commit()
    mine, yours = (list(session.scalars(sa.select(User).where(User.id >= 10))) for session in sessions)
    second.commit()
    for user in mine:
        user.name = "first"
    first.commit()
    for user in yours:
        user.name = "second"
    with pytest.raises(ConcurrentChangeError, match=r"^User (\d+, ){4}\d+ and 7 more: ") as error:
        second.commit()
    assert len(error.value.keys) == 12


def test_refusal_is_a_chrononaut_exception_and_stale_data() -> None:
    assert issubclass(ConcurrentChangeError, ChrononautException)
    assert issubclass(ConcurrentChangeError, StaleDataError)


def test_expired_object_changes_what_the_row_has_become(sessions: tuple[Session, Session]) -> None:
    first, second = sessions
    mine, yours = _loaded(first), _loaded(second)
    mine.name = "first"
    first.commit()
    second.expire(yours)
    yours.name = "second"
    second.commit()
    rows = history_rows(second, "appuser_history", id=1)
    assert changes(rows) == [(-1, "insert"), (0, "update"), (1, "update")]
    assert rows[-1]["name"] == "first"


def test_merged_object_of_which_nothing_was_written_is_still_compared_with_its_row(
    sessions: tuple[Session, Session],
) -> None:
    first, second = sessions
    mine = _loaded(first)
    first.expunge(mine)
    mine.clicks = 5
    merged = first.merge(mine)
    first.commit()
    _loaded(second).name = "second"
    second.commit()
    merged.name = "first"
    with pytest.raises(ConcurrentChangeError):
        first.commit()
    first.rollback()
    assert live_rows(second, "appuser", "id")[0]["name"] == "second"


def test_loaded_value_of_an_unknown_version_is_compared_with_the_row(sessions: tuple[Session, Session]) -> None:
    first, second = sessions
    mine = _loaded(first)
    _loaded(second).name = "same"
    second.commit()
    first.expire(mine, ["version"])
    mine.name = "same"
    first.commit()
    assert changes(history_rows(second, "appuser_history", id=1)) == [(-1, "insert"), (0, "update")]


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_change_that_waits_for_another_transactions_lock_is_refused(
    app: Flask, sessions: tuple[Session, Session]
) -> None:
    """On PostgreSQL, where two transactions can write at once."""
    first, second = sessions
    mine, yours = _loaded(first), _loaded(second)
    mine.name = "first"
    first.flush()
    yours.name = "second"
    outcome: list[BaseException] = []

    def commit() -> None:
        with app.app_context():
            try:
                second.commit()
            except ConcurrentChangeError as error:
                outcome.append(error)

    waiting = threading.Thread(target=commit)
    waiting.start()
    waits = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    with db.engine.connect() as observer:
        while waiting.is_alive() and not observer.scalar(waits):
            observer.rollback()
    first.commit()
    waiting.join(10)
    assert [type(error) for error in outcome] == [ConcurrentChangeError]
    second.rollback()
    assert changes(history_rows(second, "appuser_history", id=1)) == [(-1, "insert"), (0, "update")]


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_time_of_a_record_does_not_run_backwards_under_a_long_transaction(
    app: Flask, sessions: tuple[Session, Session]
) -> None:
    """On PostgreSQL, where a short transaction can overtake a long one."""
    long, short = sessions
    long.get_one(User, 2).name = "begins"
    long.flush()
    short.get_one(User, 1).name = "short"
    short.commit()
    long.get_one(User, 1, populate_existing=True).name = "long"
    long.commit()
    rows = history_rows(long, "appuser_history", id=1)
    assert changes(rows) == [(-1, "insert"), (0, "update"), (1, "update")]
    (begun,) = history_rows(long, "appuser_history", id=2)[1:]
    assert begun["changed"] < rows[1]["changed"] <= rows[2]["changed"]
    assert begun["transaction_id"] == rows[2]["transaction_id"]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_time_of_a_record_does_not_run_backwards_when_the_clock_is_set_back(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite, whose clock is the process's."""
    user = User(id=1, email="a")
    session.add(user)
    session.commit()
    (created,) = history_rows(session, "appuser_history")
    monkeypatch.setattr("chrononaut.archive.now", lambda: created["changed"] - timedelta(hours=1))
    user.email = "b"
    session.commit()
    session.delete(user)
    session.commit()
    session.add(User(id=1, email="c"))
    session.commit()
    rows = history_rows(session, "appuser_history")
    assert [row["changed"] for row in rows] == [created["changed"]] * 4


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_instant_is_the_clock_at_the_first_capture_of_the_transaction(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite, whose clock is the process's."""
    session.add(User(id=1, email="a"))
    session.commit()
    (created,) = history_rows(session, "appuser_history")
    ticks = iter(range(1, 1000))
    monkeypatch.setattr("chrononaut.archive.now", lambda: created["changed"] + timedelta(seconds=next(ticks)))
    user = session.get_one(User, 1)
    for email in ("b", "c"):
        user.email = email
        session.flush()
    session.add(User(id=2, email="d"))
    session.commit()
    rows = [row for row in history_rows(session, "appuser_history") if row != created]
    assert sorted(changes(rows)) == [(-1, "insert"), (0, "update"), (1, "update")]
    assert {row["changed"] for row in rows} == {created["changed"] + timedelta(seconds=1)}


# SQLite knows no lower isolation, and answers with its own lock error.
@pytest.mark.parametrize("database_kind", ["postgresql"])
@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("expired", [False, True], ids=["loaded", "expired"])
def test_change_that_the_transaction_does_not_see_is_refused_above_read_committed(
    sessions: tuple[Session, Session], isolation: str, expired: bool
) -> None:
    first, second = sessions
    second.connection(execution_options={"isolation_level": isolation})
    yours = second.get_one(User, 1)
    first.get_one(User, 1).name = "first"
    first.commit()
    if expired:
        second.expire(yours)
    yours.name = "second"
    with pytest.raises(ConcurrentChangeError, match=r"^User 1: changed by another transaction"):
        second.commit()
    second.rollback()
    rows = history_rows(second, "appuser_history", id=1)
    assert changes(rows) == [(-1, "insert"), (0, "update")]
    assert live_rows(second, "appuser", "id")[0]["name"] == "first"


# Of an expired object that is gone, SQLAlchemy itself refuses the delete.
@pytest.mark.parametrize(("operation", "expired"), [("update", False), ("update", True), ("delete", False)])
def test_own_delete_is_not_blamed_on_another_transaction(
    sessions: tuple[Session, Session], operation: str, expired: bool
) -> None:
    session, _ = sessions
    user, other = session.get_one(User, 1), session.get_one(User, 2)
    session.execute(sa.delete(User).where(User.id == 1), execution_options={"synchronize_session": False})
    if expired:
        session.expire(user)
    if operation == "update":
        user.name = "late"
    else:
        session.delete(user)
    other.name = "x"
    with pytest.raises(ConcurrentChangeError, match=r"^User 1: .* by this transaction itself.* roll back") as error:
        session.commit()
    assert (error.value.keys, error.value.own) == (((1,),), True)
    session.rollback()
    assert changes(history_rows(session, "appuser_history", id=1)) == [(-1, "insert")]


def test_others_changes_are_told_from_own_ones(sessions: tuple[Session, Session]) -> None:
    first, second = sessions
    mine, yours, own = _loaded(first), _loaded(second), _loaded(second, 2)
    mine.name = "first"
    first.commit()
    second.execute(sa.delete(User).where(User.id == 2), execution_options={"synchronize_session": False})
    yours.name = own.name = "second"
    with pytest.raises(ConcurrentChangeError, match=r"^User 1: changed by another transaction") as error:
        second.commit()
    assert (error.value.keys, error.value.own) == (((1,),), False)


def test_replacing_in_one_flush_of_a_model_that_refers_to_itself_is_not_blamed_on_another_transaction(
    sessions: tuple[Session, Session],
) -> None:
    """SQLAlchemy would write the new row and delete it."""
    session, _ = sessions
    session.add(Book(id=1, title="A"))
    session.commit()
    session.delete(session.get_one(Book, 1))
    session.add(Book(id=1, title="B"))
    with pytest.raises(ConcurrentChangeError, match=r"^Book 1: .* by this transaction itself.* flush"):
        session.commit()
    session.rollback()
    assert changes(history_rows(session, "book_history")) == [(-1, "insert")]


@pytest.mark.parametrize("database_kind", ["postgresql"])
@pytest.mark.parametrize("how", ["object", "statement", "connection"])
def test_first_insert_of_a_transaction_that_cannot_be_serialized_is_a_concurrent_change(
    sessions: tuple[Session, Session], how: str
) -> None:
    first, second = sessions
    for session in sessions:
        session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
    second.execute(sa.select(User.email)).all()
    first.delete(first.get_one(User, 1))
    first.commit()
    insert = sa.insert(User).values(id=1, email="again")
    writes: dict[str, Callable[[], object]] = {
        "object": lambda: (second.add(User(id=1, email="again")), second.flush()),  # type: ignore[func-returns-value]
        "statement": lambda: second.execute(insert),
        "connection": lambda: second.connection().execute(insert),
    }
    with pytest.raises(ConcurrentChangeError, match=r"^User: changed by another transaction"):
        writes[how]()
    second.rollback()
    assert changes(history_rows(second, "appuser_history", id=1)) == [(-1, "insert"), (0, "delete")]

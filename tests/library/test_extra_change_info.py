"""``extra_change_info`` and ``rationale``: why, for all that is flushed inside the block and for nothing else."""

import asyncio
import threading
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from chrononaut import (
    ChangeInfoError,
    ChangeInfoTypeError,
    ChrononautException,
    append_change_info,
    extra_change_info,
    rationale,
)
from tests.library.models import Country, User, db
from tests.library.rows import history_rows, live_rows


@pytest.fixture
def user(session: Session) -> User:
    user = User(id=1, email="a", logins=0)
    session.add(user)
    session.commit()
    return user


def _extras(session: Session, **key: Any) -> list[dict[str, str] | None]:
    return [row["change_info"].get("extra") for row in history_rows(session, "appuser_history", **key)]


def test_all_changes_inside_the_block_carry_the_extra(session: Session) -> None:
    with extra_change_info(change_rationale="User request", ticket="T-1"):
        user = User(id=1, email="a")
        session.add(user)
        session.flush()
        user.email = "b"
        session.add(Country(code="FR"))
        session.flush()
        session.delete(user)
        session.commit()
    assert _extras(session) == [{"change_rationale": "User request", "ticket": "T-1"}] * 3
    (row,) = history_rows(session, "country_history")
    assert row["change_info"]["extra"]["ticket"] == "T-1"


def test_change_that_is_flushed_after_the_block_does_not_carry_it(session: Session, user: User) -> None:
    with extra_change_info(why="inside"):
        user.email = "b"
    session.commit()
    assert _extras(session) == [None, None]


def test_inner_value_wins_and_the_outer_one_comes_back(session: Session, user: User) -> None:
    with extra_change_info(who="outer", where="here"):
        with extra_change_info(who="inner", when="now"):
            user.logins = 1
            session.commit()
        user.logins = 2
        session.commit()
    user.logins = 3
    session.commit()
    assert _extras(session) == [
        None,
        {"who": "inner", "where": "here", "when": "now"},
        {"who": "outer", "where": "here"},
        None,
    ]


def test_exception_inside_extra_change_info_leaves_no_trace_in_the_next_change(session: Session, user: User) -> None:
    def fail() -> None:
        with extra_change_info(why="fails"):
            user.email = "b"
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    session.rollback()
    user.email = "c"
    session.commit()
    assert _extras(session) == [None, None]


def test_exception_in_an_inner_block_gives_back_the_outer_extra(session: Session, user: User) -> None:
    with extra_change_info(why="outer"):
        with pytest.raises(ZeroDivisionError), extra_change_info(why="inner"):
            raise ZeroDivisionError
        user.email = "b"
        session.commit()
    assert _extras(session)[-1] == {"why": "outer"}


def test_rationale_is_extra_of_that_name(session: Session, user: User) -> None:
    with rationale("the user asked"):
        user.email = "b"
        session.commit()
    assert _extras(session)[-1] == {"rationale": "the user asked"}


def test_block_without_values_adds_nothing(session: Session, user: User) -> None:
    with extra_change_info():
        user.email = "b"
        session.commit()
    assert "extra" not in history_rows(session, "appuser_history")[-1]["change_info"]


@pytest.mark.parametrize("text", ["", "naïve \U0001f600", "a\nb\tc", '"}{\\', "x" * 100_000, "\u202e", "%s :x"])
def test_text_is_stored_as_it_is(session: Session, user: User, text: str) -> None:
    with extra_change_info(why=text, **{"é key": "x"}):
        user.email = "b"
        session.commit()
    assert _extras(session)[-1] == {"why": text, "é key": "x"}


@pytest.mark.parametrize("wrong", [1, None, b"x", ["a"], {"a": "b"}, 1.5, True])
def test_value_that_is_no_string_is_refused(session: Session, user: User, wrong: Any) -> None:
    name = type(wrong).__name__
    with pytest.raises(ChangeInfoTypeError, match=f"'why' must be a string, not {name}"), extra_change_info(why=wrong):
        pass
    with pytest.raises(ChangeInfoTypeError), rationale(wrong):
        pass
    with pytest.raises(ChangeInfoTypeError):
        append_change_info(user, why=wrong)
    user.email = "b"
    session.commit()
    assert _extras(session)[-1] is None


@pytest.mark.parametrize("wrong", ["a\0b", "\ud800", "x\udfffy"])
def test_text_that_no_database_stores_is_refused(session: Session, user: User, wrong: str) -> None:
    for values in ({"why": wrong}, {wrong: "why"}):
        with pytest.raises(ChangeInfoError, match="no database stores"), extra_change_info(**values):
            pass
        with pytest.raises(ChangeInfoError, match="no database stores"):
            append_change_info(user, **values)
    user.email = "b"
    session.commit()
    assert _extras(session)[-1] is None


def test_errors_are_of_the_builtin_families() -> None:
    assert issubclass(ChangeInfoError, ChrononautException)
    assert issubclass(ChangeInfoError, ValueError)
    assert issubclass(ChangeInfoTypeError, TypeError)


def test_threads_with_different_reasons_never_mix(app: Flask, session: Session) -> None:
    count, rounds = 4, 5
    session.add_all(User(id=number, email=f"{number}") for number in range(count))
    session.commit()
    session.close()
    barrier = threading.Barrier(count)
    lock = threading.Lock()
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with app.app_context():
                for turn in range(rounds):
                    barrier.wait(30)
                    with extra_change_info(why=f"{number}", **{f"only_{number}": "x"}):
                        barrier.wait(30)
                        # All blocks are open now. SQLite takes one writer at a time.
                        with lock:
                            db.session.get_one(User, number).name = f"{turn}"
                            db.session.commit()
                        barrier.wait(30)
                    with lock:
                        db.session.get_one(User, number).name = f"{turn} without"
                        db.session.commit()
        except BaseException as error:
            barrier.abort()
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    for number in range(count):
        assert _extras(session, id=number) == [None, *[{"why": f"{number}", f"only_{number}": "x"}, None] * rounds]


def test_thread_does_not_take_over_the_extra_of_the_one_that_started_it(
    app: Flask, session: Session, user: User
) -> None:
    def work() -> None:
        with app.app_context():
            db.session.get_one(User, 1).email = "b"
            db.session.commit()

    session.close()
    with extra_change_info(why="of the starter"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(30)
    assert _extras(session) == [None, None]


def test_tasks_with_different_reasons_never_mix(app: Flask, session: Session) -> None:
    count = 5
    session.add_all(User(id=number, email=f"{number}") for number in range(count))
    session.commit()

    async def work(number: int, barrier: asyncio.Barrier) -> None:
        with extra_change_info(why=f"{number}"):
            await barrier.wait()
            session.get_one(User, number).name = "inside"
            session.commit()
            await barrier.wait()
        await barrier.wait()
        session.get_one(User, number).name = "outside"
        session.commit()

    async def main() -> None:
        barrier = asyncio.Barrier(count)
        await asyncio.gather(*(work(number, barrier) for number in range(count)))

    asyncio.run(main())
    for number in range(count):
        assert _extras(session, id=number) == [None, {"why": f"{number}"}, None]
    assert len(live_rows(session, "appuser")) == count

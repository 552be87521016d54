"""``append_change_info``: why, for one object's next version and for no later one."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from chrononaut import append_change_info, extra_change_info, suppress_versioning
from tests.library.models import User
from tests.library.rows import history_rows


@pytest.fixture
def users(session: Session) -> tuple[User, User]:
    users = User(id=1, email="a"), User(id=2, email="b")
    session.add_all(users)
    session.commit()
    return users


def _extras(session: Session, key: int) -> list[dict[str, str] | None]:
    return [row["change_info"].get("extra") for row in history_rows(session, "appuser_history", id=key)]


def test_only_the_marked_object_carries_the_extra_and_only_once(session: Session, users: tuple[User, User]) -> None:
    marked, other = users
    append_change_info(marked, why="because")
    for name in ("first", "second"):
        marked.name = other.name = name
        session.flush()
    session.commit()
    assert _extras(session, 1) == [None, {"why": "because"}, None]
    assert _extras(session, 2) == [None, None, None]


def test_mark_stays_until_a_version_is_written(session: Session, users: tuple[User, User]) -> None:
    user, other = users
    append_change_info(user, why="because")
    user.clicks += 1
    session.commit()
    other.name = "x"
    session.commit()
    user.name = "x"
    session.commit()
    assert _extras(session, 1) == [None, {"why": "because"}]
    assert _extras(session, 2) == [None, None]


def test_mark_can_be_made_after_the_change_and_before_the_flush(session: Session, users: tuple[User, User]) -> None:
    user, _ = users
    user.name = "x"
    append_change_info(user, why="because")
    session.commit()
    assert _extras(session, 1) == [None, {"why": "because"}]


def test_marks_of_one_object_add_up_and_the_later_value_wins(session: Session, users: tuple[User, User]) -> None:
    user, _ = users
    append_change_info(user, who="first", why="because")
    append_change_info(user, who="second")
    user.name = "x"
    session.commit()
    assert _extras(session, 1)[-1] == {"who": "second", "why": "because"}


def test_mark_wins_over_the_block_around(session: Session, users: tuple[User, User]) -> None:
    user, other = users
    append_change_info(user, why="mark")
    with extra_change_info(why="block", ticket="T-1"):
        user.name = other.name = "x"
        session.commit()
    assert _extras(session, 1)[-1] == {"why": "mark", "ticket": "T-1"}
    assert _extras(session, 2)[-1] == {"why": "block", "ticket": "T-1"}


def test_marked_insert_and_marked_delete_carry_the_extra(session: Session, users: tuple[User, User]) -> None:
    added, (deleted, _) = User(id=3, email="c"), users
    append_change_info(added, why="new")
    append_change_info(deleted, why="gone")
    session.add(added)
    session.delete(deleted)
    session.commit()
    assert _extras(session, 3) == [{"why": "new"}]
    assert _extras(session, 1) == [None, {"why": "gone"}]


def test_marked_change_of_a_hidden_column_carries_both(session: Session, users: tuple[User, User]) -> None:
    user, _ = users
    append_change_info(user, why="because")
    user.token = "x"
    session.commit()
    assert history_rows(session, "appuser_history", id=1)[-1]["change_info"] == {
        "user_id": None,
        "remote_addr": None,
        "extra": {"why": "because"},
        "hidden_cols_changed": ["token"],
    }


def test_rollback_takes_the_mark_away(session: Session, users: tuple[User, User]) -> None:
    user, _ = users
    append_change_info(user, why="undone")
    user.name = "x"
    session.rollback()
    user.name = "y"
    session.commit()
    assert _extras(session, 1) == [None, None]


def test_rollback_after_the_flush_takes_the_mark_away(session: Session, users: tuple[User, User]) -> None:
    user, _ = users
    append_change_info(user, why="undone")
    user.name = "x"
    session.flush()
    session.rollback()
    user.name = "y"
    session.commit()
    assert _extras(session, 1) == [None, None]


def test_flush_that_fails_takes_the_mark_away(session: Session, users: tuple[User, User]) -> None:
    user, _ = users
    append_change_info(user, why="failed")
    user.email = "b"
    with pytest.raises(IntegrityError):
        session.flush()
    session.rollback()
    user.email = "c"
    session.commit()
    assert _extras(session, 1) == [None, None]


def test_rollback_takes_the_mark_of_a_new_object_away(session: Session) -> None:
    user = User(id=1, email="a")
    session.add(user)
    append_change_info(user, why="undone")
    session.rollback()
    session.add(user)
    session.commit()
    assert _extras(session, 1) == [None]


def test_rollback_of_a_savepoint_takes_the_mark_away(session: Session, users: tuple[User, User]) -> None:
    user, _ = users
    savepoint = session.begin_nested()
    append_change_info(user, why="undone")
    user.name = "x"
    savepoint.rollback()
    user.name = "y"
    session.commit()
    assert _extras(session, 1) == [None, None]


def test_change_that_is_not_recorded_leaves_the_mark(session: Session, users: tuple[User, User]) -> None:
    user, _ = users
    append_change_info(user, why="because")
    with suppress_versioning():
        user.name = "x"
        session.commit()
    user.name = "y"
    session.commit()
    assert _extras(session, 1) == [None, {"why": "because"}]


def test_rollback_of_a_savepoint_leaves_marks_that_were_made_before_it(session: Session) -> None:
    first, second = User(email="a"), User(email="b")
    session.add_all([first, second])
    session.commit()
    append_change_info(first, why="marked")
    savepoint = session.begin_nested()
    second.email = "bb"
    session.flush()
    savepoint.rollback()
    first.email = "aa"
    session.commit()
    assert _extras(session, first.id)[-1] == {"why": "marked"}


@pytest.mark.parametrize("how", ["rolled back", "refused"])
def test_rollback_of_a_savepoint_gives_back_marks_that_were_used_in_it(
    session: Session, users: tuple[User, User], how: str
) -> None:
    user, other = users
    append_change_info(user, who="me", why="because")
    outer = session.begin_nested()
    with session.begin_nested():
        append_change_info(user, why="in the savepoint")
    user.name = "x"
    session.flush()
    append_change_info(user, why="again")
    if how == "refused":
        other.email = user.email
        with pytest.raises(IntegrityError):
            session.flush()
    outer.rollback()
    user.name = "y"
    session.commit()
    user.name = "z"
    session.commit()
    assert _extras(session, 1) == [None, {"who": "me", "why": "because"}, None]


@pytest.mark.parametrize("change", ["update", "delete"])
def test_mark_that_was_used_in_a_released_savepoint_is_gone(
    session: Session, users: tuple[User, User], change: str
) -> None:
    user, other = users
    append_change_info(user, why="because")
    with session.begin_nested():
        user.name = "x"
    savepoint = session.begin_nested()
    other.name = "x"
    savepoint.rollback()
    if change == "delete":
        session.delete(user)
    else:
        user.name = "y"
    session.commit()
    assert _extras(session, 1) == [None, {"why": "because"}, None]


_MARKED = {"user_id": None, "remote_addr": None, "extra": {"ticket": "T-1", "why": "because"}}


def _save(session: Session, user: User) -> None:
    session.refresh(user)
    user.name, user.token = "x", "y"
    session.bulk_save_objects([user])
    session.expire(user)


STATEMENTS: dict[str, Callable[[Session, User], object]] = {
    "update": lambda session, user: session.execute(sa.update(User).values(name="x", token="y")),
    "update of the table": lambda session, user: session.execute(
        sa.update(User.__table__).values(name="x", token="y"),  # type: ignore[arg-type]
    ),
    "query": lambda session, user: session.query(User).update({"name": "x", "token": "y"}),
    "unsynchronized": lambda session, user: session.execute(
        sa.update(User).values(name="x", token="y"), execution_options={"synchronize_session": False}
    ),
    "by key": lambda session, user: session.execute(sa.update(User), [{"id": 1, "name": "x", "token": "y"}]),
    "mappings": lambda session, user: session.bulk_update_mappings(
        sa.inspect(User), [{"id": 2, "name": "x", "token": "y"}, {"id": 1, "name": "x", "token": "y"}]
    ),
    "objects": _save,
}


@pytest.mark.parametrize("flushed", [False, True], ids=["first", "after a flush"])
@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "expired"])
@pytest.mark.parametrize("how", STATEMENTS)
def test_version_that_a_statement_writes_carries_the_mark(
    session: Session, users: tuple[User, User], how: str, loaded: bool, flushed: bool
) -> None:
    user, _ = users
    if flushed:
        user.name = "before"
        session.flush()
    if loaded:
        session.refresh(user)
    append_change_info(user, why="because")
    with extra_change_info(ticket="T-1"):
        STATEMENTS[how](session, user)
    session.commit()
    user.name = "another's"
    session.commit()
    *_, written, after = history_rows(session, "appuser_history", id=1)
    assert written["change_info"] == {**_MARKED, "hidden_cols_changed": ["token"]}
    assert after["change_info"].get("extra") is None
    assert all("why" not in (extra or {}) for extra in _extras(session, 2))


def test_delete_by_a_statement_carries_the_mark(session: Session, users: tuple[User, User]) -> None:
    user, _ = users
    append_change_info(user, why="because")
    session.execute(sa.delete(User))
    session.commit()
    assert _extras(session, 1) == [None, {"why": "because"}]
    assert _extras(session, 2) == [None, None]


def test_insert_by_a_statement_under_the_key_of_an_object_that_was_gone_carries_no_mark(
    session: Session, users: tuple[User, User]
) -> None:
    user, _ = users
    with session.no_autoflush:
        session.execute(sa.delete(User.__table__).where(User.id == 1))  # type: ignore[arg-type]
        append_change_info(user, why="again")
        session.execute(sa.insert(User).values(id=1, email="c"))
    session.commit()
    user.name = "x"
    session.commit()
    assert _extras(session, 1) == [None, None, None, None]


def test_statement_that_leaves_the_object_as_it_is_leaves_the_mark(session: Session, users: tuple[User, User]) -> None:
    user, _ = users
    append_change_info(user, why="because")
    session.execute(sa.update(User).where(User.id == 2).values(name="x"))
    session.execute(sa.update(User).values(email=User.email, clicks=7))
    session.commit()
    assert _extras(session, 1) == [None]
    user.name = "x"
    session.commit()
    assert _extras(session, 1) == [None, {"why": "because"}]
    assert _extras(session, 2) == [None, None]


def test_mark_that_a_statement_took_in_a_savepoint_is_back_after_its_rollback(
    session: Session, users: tuple[User, User]
) -> None:
    user, _ = users
    append_change_info(user, why="because")
    savepoint = session.begin_nested()
    session.execute(sa.update(User).values(name="x"))
    savepoint.rollback()
    session.execute(sa.update(User).values(name="y"))
    session.execute(sa.update(User).values(name="z"))
    session.commit()
    assert _extras(session, 1) == [None, {"why": "because"}, None]


def test_first_of_several_versions_of_one_statement_carries_the_mark(
    session: Session, users: tuple[User, User]
) -> None:
    user, _ = users
    append_change_info(user, why="because")
    session.execute(sa.update(User), [{"id": 1, "name": "x"}, {"id": 1, "name": "y"}])
    user.name = "z"
    session.commit()
    assert [extra for extra in _extras(session, 1) if extra] == [{"why": "because"}]
    assert _extras(session, 1)[1] == {"why": "because"}


def test_marks_of_many_objects_are_told_apart(session: Session) -> None:
    users = [User(id=number, email=f"{number}") for number in range(1, 1501)]
    session.add_all(users)
    session.commit()
    for user in users:
        append_change_info(user, why=f"{user.id}")
    session.execute(sa.update(User).where(User.id % 3 != 0).values(name="x"))
    session.commit()
    rows = [row for row in history_rows(session, "appuser_history") if row["operation"] == "update"]
    assert {row["id"]: row["change_info"]["extra"]["why"] for row in rows} == {
        number: f"{number}" for number in range(1, 1501) if number % 3
    }

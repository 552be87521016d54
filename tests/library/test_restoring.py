"""``revert_to`` and ``restore``: an old state once more, as a new version like any other."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut import RestoreError, Timeline, VersionedSQLAlchemy, rationale
from tests.library.models import Release, User, define
from tests.library.rows import changes, history_rows, live_rows
from tests.library.staff import Staff


@pytest.fixture
def user(session: Session) -> User:
    """At version 2, with values in columns of every kind."""
    user = User(email="a", name="x", settings={"a": 1}, token="1", clicks=1, biography="long")
    session.add(user)
    session.commit()
    user.email, user.settings, user.born = "b", {"a": 2}, datetime(2000, 1, 1, tzinfo=UTC)
    session.commit()
    user.name, user.token, user.clicks, user.biography = None, "2", 5, "longer"
    session.commit()
    return user


def tracked(obj: Any) -> dict[str, Any]:
    return {name: getattr(obj, name) for name in User.__chrononaut__.tracked}


def test_record_gets_its_old_state_as_a_new_version(session: Session, user: User) -> None:
    (first, second) = user.versions()
    with rationale("back"):
        assert user.revert_to(0) is user
        session.commit()
    assert tracked(user) == tracked(first)
    assert user.version == 3
    assert changes(history_rows(session, "appuser_history"))[-1] == (2, "update")
    assert history_rows(session, "appuser_history")[-1]["change_info"]["extra"] == {"rationale": "back"}
    user.revert_to(second)
    session.commit()
    assert tracked(user) == tracked(second)


def test_state_of_an_instant_is_reverted_to(session: Session, user: User) -> None:
    first = user.versions()[0]
    assert first.valid_from is not None
    user.revert_to(user.version_at(datetime.now(UTC)))
    assert not session.dirty
    with pytest.raises(RestoreError, match="None is no version of User 1"):
        user.revert_to(user.version_at(first.valid_from - timedelta(days=1)))
    user.revert_to(user.version_at(first.valid_from))
    session.commit()
    assert (user.version, user.email) == (3, "a")


@pytest.mark.parametrize("deleted", [False, True])
def test_values_of_the_old_state_are_copied(session: Session, user: User, deleted: bool) -> None:
    first = user.versions()[0]
    if deleted:
        session.delete(user)
        session.commit()
    again: Any = User.restore(user.id, first) if deleted else user.revert_to(first)
    session.commit()
    again.settings["b"] = 5
    session.commit()
    assert first.settings == {"a": 1}
    assert history_rows(session, "appuser_history")[-1]["operation"] == "update"
    assert again.settings == {"a": 1, "b": 5}


def test_hidden_and_untracked_attributes_keep_their_values(session: Session, user: User) -> None:
    user.revert_to(0)
    session.commit()
    assert (user.token, user.clicks) == ("2", 5)
    assert "hidden_cols_changed" not in history_rows(session, "appuser_history")[-1]["change_info"]


def test_reverting_to_the_state_that_is_changes_nothing(session: Session, user: User) -> None:
    user.revert_to(0)
    session.commit()
    user.revert_to(0)
    user.revert_to(3)
    session.commit()
    assert user.version == 3


def test_values_go_before_old_ones(session: Session, user: User) -> None:
    user.revert_to(0, email="c", token="3")
    session.commit()
    assert (user.email, user.name, user.token) == ("c", "x", "3")
    assert history_rows(session, "appuser_history")[-1]["change_info"]["hidden_cols_changed"] == ["token"]


def test_deleted_record_is_made_again_with_its_last_state(session: Session, user: User) -> None:
    before, key = tracked(user), user.id
    session.delete(user)
    session.commit()
    with rationale("a mistake"):
        restored = User.restore(key)
        session.commit()
    assert tracked(restored) == before
    assert restored.version == 4
    assert (restored.token, restored.clicks) == (None, 0)
    rows = history_rows(session, "appuser_history")
    assert changes(rows)[-2:] == [(2, "delete"), (3, "insert")]
    assert rows[-1]["change_info"]["extra"] == {"rationale": "a mistake"}


def test_deleted_record_is_made_again_with_any_state(session: Session, user: User) -> None:
    key, states = user.id, [tracked(version) for version in user.versions()]
    for number, state in enumerate(states):
        session.delete(session.get_one(User, key))
        session.commit()
        assert tracked(User.restore(key, number)) == state
        session.commit()
    assert tracked(session.get_one(User, key)) == states[-1]


def test_composite_key_is_a_tuple(session: Session) -> None:
    release = Release(product="p", cycle="1", label="x")
    session.add(release)
    session.commit()
    session.delete(release)
    session.commit()
    assert Release.restore(("p", "1")).label == "x"


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda user: user.revert_to(7), r"^User 1 has no version 7$"),
        (lambda user: user.revert_to(-1), r"^User 1 has no version -1$"),
        (lambda user: user.revert_to(0, id=3), r"^User\.id cannot be given; what can: email, "),
        (lambda user: user.revert_to(0, mail="x"), r"^User\.mail cannot be given"),
        (
            lambda user: user.revert_to(0, email=None),
            r"no value is known of User\.email, which cannot be empty; give it",
        ),
        (lambda user: user.revert_to(None), r"^None is no version of User 1: give its number, or a history object$"),
        (lambda user: user.revert_to(True), r"^True is no version of User 1"),
        (lambda user: user.revert_to("0"), r"^'0' is no version of User 1"),
        (lambda user: user.revert_to(2**40), r"^User 1 has no version 1099511627776$"),
        (lambda user: User.timeline(9).revert_to(0), r"^there never was a User 9$"),
        (lambda user: User.restore(1), r"^User 1 is live: revert it with revert_to$"),
        (lambda user: User.restore(9), r"^User 9 has no prior version$"),
        (lambda user: Release.restore(("p", "1")), r"^Release \('p', '1'\) has no prior version$"),
        (lambda user: user.revert_to(user.timeline(user.id).changes()[0].version), "has no version -1"),
    ],
)
def test_what_cannot_be_had_again_is_refused(
    session: Session, user: User, act: Callable[[User], Any], message: str
) -> None:
    with pytest.raises(RestoreError, match=message):
        act(user)
    assert not session.dirty
    assert not session.new


def test_state_of_another_record_is_refused(session: Session, user: User) -> None:
    other = User(email="z")
    session.add(other)
    session.commit()
    other.email = "y"
    session.commit()
    with pytest.raises(RestoreError, match=r"UserHistory 2 version 0> is no state of User 1"):
        user.revert_to(other.versions()[0])


def test_deleted_record_cannot_be_reverted(session: Session, user: User) -> None:
    session.delete(user)
    session.commit()
    with pytest.raises(RestoreError, match=r"User 1 is deleted: restore it"):
        Timeline(session, User, (1,)).revert_to(0)


@pytest.fixture
def account(open_database: Callable[..., Session]) -> Any:
    """A model whose hidden, untracked and newer columns cannot be empty."""
    database: Any = VersionedSQLAlchemy()
    return (
        define(
            database,
            "Account",
            __chrononaut_hidden__=["secret"],
            __chrononaut_untracked__=["seen", "hits"],
            id=sa.Column(sa.Integer, primary_key=True),
            name=sa.Column(sa.String),
            twice=sa.Column(sa.String, sa.Computed("name || name")),
            touched=sa.Column(sa.Integer, default=1, onupdate=2),
            secret=sa.Column(sa.String, nullable=False),
            seen=sa.Column(sa.String, nullable=False),
            hits=sa.Column(sa.Integer, nullable=False, default=0),
            newer=sa.Column(sa.Integer, nullable=False, server_default="7"),
        ),
        open_database(database),
    )


def test_missing_values_are_all_named(account: Any) -> None:
    model, session = account
    session.add(model(id=1, name="a", secret="s", seen="x"))
    session.commit()
    session.get_one(model, 1).name = "b"
    session.commit()
    session.delete(session.get_one(model, 1))
    session.commit()
    with pytest.raises(
        RestoreError, match=r"no value is known of Account\.secret, seen, which cannot be empty"
    ) as error:
        model.restore(1)
    assert error.value.missing == ("secret", "seen")
    with pytest.raises(RestoreError, match=r"no value is known of Account\.hits, which"):
        model.restore(1, secret="swordfish", seen="y", hits=None)
    restored = model.restore(1, 0, secret="swordfish", seen="y")
    session.commit()
    values = (restored.name, restored.twice, restored.touched, restored.secret, restored.hits, restored.newer)
    assert values == ("a", "aa", 1, "swordfish", 0, 7)
    assert "swordfish" not in str(history_rows(session, "account_history"))


def test_column_that_is_newer_than_the_state_gets_its_default_or_must_be_given(account: Any) -> None:
    model, session = account
    session.add(model(id=1, name="a", secret="s", seen="x"))
    session.commit()
    obj = session.get_one(model, 1)
    obj.name = "b"
    session.commit()
    # As it is of rows that were archived before the column was there.
    session.connection().exec_driver_sql("UPDATE account_history SET newer = NULL")
    session.commit()
    with pytest.raises(RestoreError, match=r"Account\.newer, which cannot be empty; give it: newer=…"):
        obj.revert_to(0)
    obj.revert_to(0, newer=1)
    session.commit()
    assert (obj.name, obj.newer, obj.touched) == ("a", 1, 2)
    session.delete(obj)
    session.commit()
    restored = model.restore(1, 0, secret="swordfish", seen="y")
    session.commit()
    assert restored.newer == 7


def test_record_of_a_hierarchy_is_made_again_as_what_it_was(open_database: Callable[..., Session]) -> None:
    staff = Staff()
    session = open_database(staff.db)
    session.add_all([staff.director(id=1, name="a", budget=1, car="b"), staff.clerk(id=2, desk="c")])
    session.commit()
    for number in (1, 2):
        session.get_one(staff.employee, number).name = "x"
    session.commit()
    # By its root, all of a record is reverted.
    Timeline(session, staff.employee, (1,)).revert_to(0).car = "d"
    session.commit()
    for number in (1, 2):
        session.delete(session.get_one(staff.employee, number))
    session.commit()
    director, clerk = staff.employee.restore(1), staff.employee.restore(2, 0)
    session.commit()
    assert (type(director), director.name, director.budget, director.car) == (staff.director, "a", 1, "d")
    assert (type(clerk), clerk.name, clerk.desk) == (staff.clerk, None, "c")
    assert [row["kind"] for row in live_rows(session, "employee", "id")] == ["director", "clerk"]


def test_record_of_a_hierarchy_is_had_again_by_the_history_object_of_its_root(
    open_database: Callable[..., Session],
) -> None:
    staff = Staff()
    session = open_database(staff.db)
    director = staff.director(id=1, name="a", car="b")
    session.add(director)
    session.commit()
    director.name, director.car = "x", "y"
    session.commit()
    timeline = Timeline(session, staff.employee, (1,))
    (first,) = timeline.versions()
    assert timeline.revert_to(first) is director
    assert (director.name, director.car) == ("a", "b")
    session.delete(director)
    session.commit()
    restored = staff.employee.restore(1, first)
    assert (type(restored), restored.name, restored.car) == (staff.director, "a", "b")


def test_record_that_was_of_another_class_then_is_not_reverted(open_database: Callable[..., Session]) -> None:
    staff = Staff()
    session = open_database(staff.db)
    session.add(staff.clerk(id=1))
    session.commit()
    session.delete(session.get_one(staff.clerk, 1))
    session.commit()
    employee = staff.employee(id=1)
    session.add(employee)
    session.commit()
    with pytest.raises(RestoreError, match="it was no Employee in that version: delete it, and restore the version"):
        employee.revert_to(0)

"""``versions``, ``previous_version``, ``has_changed_since`` and ``valid_from``: the prior versions of a record."""

from datetime import datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Query, Session

from chrononaut import ChrononautException, DetachedError, History, Timeline, history_model
from tests.library.models import Country, Release, User
from tests.library.rows import history_rows

TICK = timedelta(microseconds=1)


@pytest.fixture
def user(session: Session) -> User:
    """A record with the versions 0 to 3 and the live version 4."""
    user = User(id=1, email="0")
    session.add_all([user, User(id=2, email="other")])
    session.commit()
    for email in ("1", "2", "3", "4"):
        user.email = email
        session.commit()
    return user


def _emails(versions: list[History]) -> list[str]:
    return [version.email for version in versions]


def test_versions_are_the_replaced_states_oldest_first(session: Session, user: User) -> None:
    versions = user.versions()
    assert _emails(versions) == ["0", "1", "2", "3"]
    assert [version.version for version in versions] == [0, 1, 2, 3]
    assert {type(version) for version in versions} == {history_model(User)}
    assert {version.operation for version in versions} == {"update"}


def test_record_that_never_changed_has_no_versions(session: Session, user: User) -> None:
    other = session.get_one(User, 2)
    assert other.versions() == []
    assert other.previous_version() is None


def test_version_object_has_what_its_row_has(session: Session, user: User) -> None:
    row = history_rows(session, "appuser_history", id=1)[1]
    version = user.versions()[0]
    for name in ("id", "email", "logins", "operation", "changed", "change_info", "transaction_id"):
        assert getattr(version, name) == row[name]


def test_version_begins_when_the_one_before_it_ended(session: Session, user: User) -> None:
    rows = history_rows(session, "appuser_history", id=1)
    versions = user.versions()
    assert [version.valid_from for version in versions] == [row["changed"] for row in rows[:-1]]
    assert [version.changed for version in versions] == [row["changed"] for row in rows[1:]]


def test_before_and_after_split_the_history_at_any_instant(session: Session, user: User) -> None:
    everything = _emails(user.versions())
    for row in history_rows(session, "appuser_history", id=1):
        for at in (row["changed"] - TICK, row["changed"], row["changed"] + TICK):
            before, after = _emails(user.versions(before=at)), _emails(user.versions(after=at))
            assert before + after == everything
            assert len(before) == sum(
                other["changed"] <= at for other in history_rows(session, "appuser_history", id=1)[1:]
            )


def test_before_and_after_together_are_an_interval(session: Session, user: User) -> None:
    first, second, third, _ = (version.changed for version in user.versions())
    assert _emails(user.versions(after=first, before=third)) == ["1", "2"]
    assert _emails(user.versions(after=second, before=second)) == []


def test_instants_are_taken_naive_as_utc_and_in_any_zone(session: Session, user: User) -> None:
    at = user.versions()[1].changed
    for same in (at.replace(tzinfo=None), at.astimezone(timezone(timedelta(hours=5, minutes=30)))):
        assert _emails(user.versions(before=same)) == ["0", "1"]
        assert _emails(user.versions(after=same)) == ["2", "3"]
        assert user.version_at(same).email == "2"
        assert user.has_changed_since(same)


@pytest.mark.parametrize("wrong", ["2026-03-01", 5, object()])
def test_instant_that_is_no_datetime_is_refused(session: Session, user: User, wrong: datetime) -> None:
    with pytest.raises(TypeError, match="an instant must be a datetime"):
        user.versions(before=wrong)
    with pytest.raises(TypeError, match="an instant must be a datetime"):
        user.version_at(wrong)
    with pytest.raises(TypeError, match="an instant must be a datetime"):
        user.has_changed_since(wrong)


def test_query_can_be_filtered_further(session: Session, user: User) -> None:
    history = history_model(User)
    query = user.versions(return_query=True)
    assert isinstance(query, Query)
    assert _emails(query.all()) == ["0", "1", "2", "3"]
    assert query.filter(sa.column("email") > "1").count() == 2
    at = user.versions()[1].changed
    assert _emails(user.versions(before=at, return_query=True).all()) == ["0", "1"]
    assert _emails(user.versions(after=at, return_query=True).all()) == ["2", "3"]
    assert {type(version) for version in query} == {history}


def test_creation_and_deletion_are_listed_as_what_they_replaced(session: Session) -> None:
    for name in ("first", "second"):
        country = Country(code="YU", name=name)
        session.add(country)
        session.commit()
        session.delete(country)
        session.commit()
    session.add(Country(code="YU", name="third"))
    session.commit()
    country = session.get_one(Country, "YU")
    versions = country.versions()
    assert [(version.version, version.name, version.operation) for version in versions] == [
        (0, "first", "delete"),
        (2, "second", "delete"),
    ]
    rows = history_rows(session, "country_history")
    assert [version.valid_from for version in versions] == [rows[0]["changed"], rows[2]["changed"]]
    previous = country.previous_version()
    assert previous is not None
    assert previous.name == "second"


def test_versions_flush_pending_changes_first(session: Session, user: User) -> None:
    user.email = "5"
    assert _emails(user.versions()) == ["0", "1", "2", "3", "4"]
    session.rollback()
    assert _emails(user.versions()) == ["0", "1", "2", "3"]


def test_pending_object_is_flushed_by_the_question(session: Session) -> None:
    user = User(id=1, email="a")
    session.add(user)
    assert user.versions() == []
    assert [row["version"] for row in history_rows(session, "appuser_history")] == [-1]


def test_previous_version_is_the_last_of_the_versions(session: Session, user: User) -> None:
    assert user.previous_version() is user.versions()[-1]


def test_record_has_changed_since_any_instant_before_its_last_change(session: Session, user: User) -> None:
    created, *_, last = (row["changed"] for row in history_rows(session, "appuser_history", id=1))
    assert user.has_changed_since(created - timedelta(days=1))
    assert user.has_changed_since(created)
    assert user.has_changed_since(last - TICK)
    assert not user.has_changed_since(last)
    assert not user.has_changed_since(last + TICK)


def test_creation_is_no_change_of_a_record(session: Session, user: User) -> None:
    (created,) = history_rows(session, "appuser_history", id=2)
    assert not session.get_one(User, 2).has_changed_since(created["changed"] - timedelta(days=1))


def test_deletion_is_a_change_of_the_key(session: Session, user: User) -> None:
    other = session.get_one(User, 2)
    session.delete(other)
    session.commit()
    session.add(User(id=2, email="again"))
    session.commit()
    _, deleted, created = (row["changed"] for row in history_rows(session, "appuser_history", id=2))
    again = session.get_one(User, 2)
    assert again.has_changed_since(deleted - TICK)
    assert not again.has_changed_since(deleted)
    assert not again.has_changed_since(created)


def test_deleted_record_can_be_asked_by_its_key(session: Session) -> None:
    release = Release(product="p", cycle="1", label="a")
    session.add(release)
    session.commit()
    release.label = "b"
    session.commit()
    session.delete(release)
    session.commit()
    timeline = Timeline(session, Release, ("p", "1"))
    assert timeline.live is None
    assert [version.label for version in timeline.versions()] == ["a", "b"]
    rows = history_rows(session, "release_history")
    assert timeline.last_changed() == rows[-1]["changed"]
    second = timeline.version(1)
    assert second is not None
    assert second.label == "b"
    assert timeline.version(-1) is None
    assert timeline.version(2) is None
    never = Timeline(session, Release, ("p", "2"))
    assert (never.live, never.versions(), never.last_changed()) == (None, [], None)


def test_valid_from_of_the_live_state_is_its_last_change(session: Session, user: User) -> None:
    rows = history_rows(session, "appuser_history", id=1)
    assert Timeline(session, User, (1,)).valid_from() == rows[-1]["changed"]
    assert Timeline(session, User, (2,)).valid_from() == history_rows(session, "appuser_history", id=2)[0]["changed"]


def test_valid_from_of_the_live_state_counts_pending_changes(session: Session, user: User) -> None:
    session.refresh(user)
    user.email = "5"
    timeline = Timeline(session, User, (1,), live=user)
    begun = timeline.valid_from()
    rows = history_rows(session, "appuser_history", id=1)
    assert rows[-1]["email"] == "4"
    assert begun == rows[-1]["changed"]


@pytest.mark.parametrize("question", ["versions", "previous_version", "changes"])
def test_object_outside_a_session_cannot_be_asked(session: Session, user: User, question: str) -> None:
    session.expunge(user)
    with pytest.raises(DetachedError, match="this User belongs to no session") as error:
        getattr(user, question)()
    assert error.value.model == "User"
    assert isinstance(error.value, ChrononautException)


def test_transient_object_cannot_be_asked(app: Flask) -> None:
    user, at = User(id=1, email="a"), datetime.fromisoformat("2026-03-01T00:00Z")
    for question in (user.versions, lambda: user.version_at(at), lambda: user.has_changed_since(at)):
        with pytest.raises(DetachedError):
            question()
    with pytest.raises(DetachedError):
        user.diff(None)

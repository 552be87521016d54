"""``diff``: what changed between two states of one record."""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from chrononaut import ChrononautException, DiffError, History, Timeline, history_model
from tests.library.models import Country, User


@pytest.fixture
def user(session: Session) -> User:
    """A record with the versions 0 to 2 and the live version 3."""
    user = User(id=1, email="a", name="Ada", settings={"x": 1})
    session.add_all([user, User(id=2, email="other")])
    session.commit()
    user.email = "b"
    session.commit()
    user.email, user.password_hash = "a", "secret"
    session.commit()
    user.name, user.active, user.token = None, False, "token"
    session.commit()
    return user


def test_difference_of_two_versions_is_what_differs(session: Session, user: User) -> None:
    first, second, third = user.versions()
    assert user.diff(first, second) == {"email": ("a", "b")}
    assert user.diff(second, third) == {"email": ("b", "a")}


def test_difference_to_the_live_state_is_the_default(session: Session, user: User) -> None:
    _, second, third = user.versions()
    expected = {"name": ("Ada", None), "active": (True, False)}
    assert user.diff(third) == user.diff(third, user) == expected
    assert user.diff(second) == {"email": ("b", "a"), **expected}


def test_change_that_was_taken_back_is_no_difference(session: Session, user: User) -> None:
    first, _, third = user.versions()
    assert user.diff(first, third) == {}


def test_state_does_not_differ_from_itself(session: Session, user: User) -> None:
    for version in user.versions():
        assert user.diff(version, version) == {}


def test_document_is_compared_by_its_content(session: Session, user: User) -> None:
    before = user.versions()[0]
    user.settings = {"x": 2}
    session.commit()
    assert user.diff(before)["settings"] == ({"x": 1}, {"x": 2})


def test_untracked_columns_are_in_no_difference(session: Session, user: User) -> None:
    before = user.versions()[-1]
    user.clicks = 99
    session.commit()
    assert "clicks" not in user.diff(before, include_hidden=True)


def test_hidden_columns_are_listed_only_on_request(session: Session, user: User) -> None:
    first, second, third = user.versions()
    assert user.diff(second, third, include_hidden=True) == {"email": ("b", "a"), "password_hash": (None, None)}
    assert user.diff(first, second, include_hidden=True) == {"email": ("a", "b")}
    assert user.diff(first, third, include_hidden=True) == {"password_hash": (None, None)}


def test_hidden_columns_have_their_value_now_against_the_live_object(session: Session, user: User) -> None:
    first, _, third = user.versions()
    plain = {"name": ("Ada", None), "active": (True, False)}
    assert user.diff(first, include_hidden=True) == {
        **plain,
        "password_hash": (None, "secret"),
        "token": (None, "token"),
    }
    assert user.diff(third, include_hidden=True) == {**plain, "token": (None, "token")}


def test_hidden_column_that_was_set_at_an_insert_again_is_listed(session: Session) -> None:
    session.add(Country(code="YU", name="a", secret="old"))
    session.commit()
    session.delete(session.get_one(Country, "YU"))
    session.commit()
    again = Country(code="YU", name="a", secret="new")
    session.add(again)
    session.commit()
    assert again.diff(again.versions()[0], include_hidden=True) == {"secret": (None, "new")}


def test_hidden_column_that_was_lost_by_delete_and_insert_is_listed(session: Session) -> None:
    session.add(Country(code="YU", name="a", secret="old"))
    session.commit()
    session.delete(session.get_one(Country, "YU"))
    session.commit()
    again = Country(code="YU", name="a")
    session.add(again)
    session.commit()
    assert again.diff(again.versions()[0], include_hidden=True) == {"secret": (None, None)}


def test_pending_change_of_a_hidden_column_is_listed(session: Session) -> None:
    country = Country(code="FR", name="a")
    session.add(country)
    session.commit()
    country.name = "b"
    session.commit()
    (first,) = country.versions()
    session.refresh(country)
    country.secret = "pending"
    assert country.diff(first, include_hidden=True) == {"name": ("a", "b"), "secret": (None, "pending")}


def test_pending_change_of_a_tracked_column_is_listed(session: Session, user: User) -> None:
    third = user.versions()[-1]
    user.email = "pending"
    assert user.diff(third)["email"] == ("a", "pending")


def test_states_of_different_keys_are_refused(session: Session, user: User) -> None:
    other = session.get_one(User, 2)
    other.email = "changed"
    session.commit()
    (of_other,) = other.versions()
    first = user.versions()[0]
    with pytest.raises(DiffError, match=r"^from is a state of User \(2,\), not of \(1,\)"):
        user.diff(of_other)
    with pytest.raises(DiffError, match=r"^to is a state of User \(2,\), not of \(1,\)"):
        user.diff(first, of_other)
    with pytest.raises(DiffError, match=r"^to is a state of User \(2,\), not of \(1,\)"):
        user.diff(first, other)


@pytest.mark.parametrize("wrong", [None, 0, "version"])
def test_from_that_is_no_history_object_is_refused(session: Session, user: User, wrong: Any) -> None:
    with pytest.raises(DiffError, match=r"^from must be a history object of User, not"):
        user.diff(wrong)


def test_live_object_as_from_is_refused(session: Session, user: User) -> None:
    with pytest.raises(DiffError, match=r"^from must be a history object of User, not a User"):
        user.diff(user)


def test_states_of_another_model_are_refused(session: Session, user: User) -> None:
    country = Country(code="FR", name="a")
    session.add(country)
    session.commit()
    country.name = "b"
    session.commit()
    (of_country,) = country.versions()
    with pytest.raises(DiffError, match=r"^from must be a history object of User, not a CountryHistory"):
        user.diff(of_country)
    with pytest.raises(DiffError, match=r"^to must be a User or a history object of it, not a Country"):
        user.diff(user.versions()[0], country)
    with pytest.raises(DiffError, match=r"^to must be a User or a history object of it, not a str"):
        user.diff(user.versions()[0], "now")


def test_to_that_is_older_than_from_is_refused(session: Session, user: User) -> None:
    first, second, _ = user.versions()
    with pytest.raises(DiffError, match=r"^to is version 0, older than from, which is version 1; swap them"):
        user.diff(second, first)


def test_creation_has_no_state_to_compare(session: Session, user: User) -> None:
    history: Any = history_model(User)
    created: History = session.query(history).filter_by(id=1, version=-1).one()
    with pytest.raises(DiffError, match=r"^from is the creation of User \(1,\), which has no state"):
        user.diff(created)
    with pytest.raises(DiffError, match=r"^to is the creation of User \(1,\), which has no state"):
        user.diff(user.versions()[0], created)


def test_deleted_record_has_no_live_state_to_compare_with(session: Session, user: User) -> None:
    session.delete(user)
    session.commit()
    timeline = Timeline(session, User, (1,))
    first, *_, last = timeline.versions()
    assert timeline.diff(first, last) == {"name": ("Ada", None), "active": (True, False)}
    with pytest.raises(DiffError, match=r"^to must be a User or a history object of it, not None"):
        timeline.diff(first)


def test_refusal_is_a_chrononaut_exception_and_a_value_error() -> None:
    assert issubclass(DiffError, ChrononautException)
    assert issubclass(DiffError, ValueError)

"""``blame``: for each attribute, the change that gave it its value."""

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from chrononaut import Change, Timeline, extra_change_info, suppress_versioning
from tests.library.models import Country, User
from tests.library.staff import Staff


def versions(blame: dict[str, Change | None]) -> dict[str, int | None]:
    return {name: None if change is None else change.version for name, change in blame.items()}


def test_each_attribute_has_the_change_that_last_set_it(session: Session) -> None:
    user = User(email="a", name="x", token="1")
    session.add(user)
    session.commit()
    with extra_change_info(why="moved"):
        user.email = "b"
        session.commit()
    user.name, user.active = "y", False
    session.commit()
    user.token, user.name = "2", "x"
    session.commit()
    blame = user.blame()
    assert versions(blame) == {
        "email": 0,
        "name": 2,
        "active": 1,
        "logins": -1,
        "born": -1,
        "settings": -1,
        "biography": -1,
        "password_hash": -1,
        "token": 2,
    }
    email = blame["email"]
    assert email is not None
    assert email.differences["email"] == ("a", "b")
    assert email.info["extra"] == {"why": "moved"}
    token = blame["token"]
    assert token is not None
    assert (token.hidden, token.differences) == (("token",), {"name": ("y", "x")})


def test_value_that_was_there_before_versioning_is_blamed_on_nobody(session: Session) -> None:
    with suppress_versioning():
        country = Country(code="AA", name="a", secret="x")
        session.add(country)
        session.commit()
    assert versions(country.blame()) == {"name": None, "secret": None}
    country.name = "b"
    session.commit()
    assert versions(country.blame()) == {"name": 0, "secret": None}


def test_deleted_record_tells_who_set_what_it_had_in_the_end(session: Session) -> None:
    country = Country(code="AA", name="a", secret="x")
    session.add(country)
    session.commit()
    country.name = "b"
    session.commit()
    session.delete(country)
    session.commit()
    assert versions(Timeline(session, Country, ("AA",)).blame()) == {"name": 0, "secret": -1}


def test_record_that_was_made_again_is_blamed_on_what_happened_since(session: Session) -> None:
    for name in ("a", "b"):
        country = Country(code="AA", name="x")
        session.add(country)
        session.commit()
        country.name = name
        session.commit()
        session.delete(country)
        session.commit()
    session.add(Country(code="AA", name="b"))
    session.commit()
    assert versions(Timeline(session, Country, ("AA",)).blame()) == {"name": 5, "secret": 5}


def test_record_that_was_made_anew_past_history_is_blamed_on_nobody(session: Session) -> None:
    session.add(Country(code="AA", name="a"))
    session.commit()
    session.delete(session.get_one(Country, "AA"))
    session.commit()
    session.connection().exec_driver_sql("INSERT INTO country (code, name, version) VALUES ('AA', 'a', 2)")
    session.commit()
    assert versions(Timeline(session, Country, ("AA",)).blame()) == {"name": None, "secret": None}


def test_record_that_never_was_has_no_blame(session: Session) -> None:
    assert Timeline(session, Country, ("XX",)).blame() == {}


def test_attributes_of_all_tables_of_a_hierarchy_are_blamed(open_database: Callable[..., Session]) -> None:
    staff = Staff()
    session = open_database(staff.db)
    manager = staff.manager(id=1, name="a", budget=1)
    session.add(manager)
    session.commit()
    manager.budget, manager.bonus = 2, 3
    session.commit()
    manager.name = "b"
    session.commit()
    assert versions(manager.blame()) == {"kind": -1, "name": 1, "pin": -1, "budget": 0, "bonus": 0}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(["a", "b", None, "delete", "hide"]), max_size=15))
def test_blame_is_the_last_change_of_each_attribute(session: Session, steps: list[Any]) -> None:
    for number, step in enumerate(steps):
        country = session.get(Country, "AA")
        if country is None:
            session.add(Country(code="AA", name=step if step in ("a", "b") else None))
        elif step == "delete":
            session.delete(country)
        elif step == "hide":
            country.secret = str(number)
        else:
            country.name = step
        session.commit()
    timeline = Timeline(session, Country, ("AA",))
    expected: dict[str, Change | None] = {}
    for change in timeline.changes():
        if change.operation == "insert":
            expected = {"name": change, "secret": change}
        elif change.operation == "update":
            expected |= dict.fromkeys((*change.differences, *change.hidden), change)
    assert timeline.blame() == expected

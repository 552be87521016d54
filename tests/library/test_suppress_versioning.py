"""``suppress_versioning``: no history inside the block, and numbers that go on after it."""

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut import history_model, suppress_versioning
from tests.library.models import Country, User
from tests.library.rows import changes, history_rows, live_rows

CREATED = [(-1, "insert")]


@pytest.fixture
def country(session: Session) -> Country:
    country = Country(code="FR", name="first")
    session.add(country)
    session.commit()
    return country


@pytest.mark.parametrize("allow", [False, True])
def test_nothing_is_recorded_inside_the_block(session: Session, country: Country, allow: bool) -> None:
    with suppress_versioning(allow_deleting_history=allow):
        country.name = "second"
        session.add(Country(code="DE"))
        session.commit()
        session.delete(session.get_one(Country, "DE"))
        session.commit()
    assert changes(history_rows(session, "country_history")) == CREATED
    assert live_rows(session, "country") == [{"code": "FR", "name": "second", "secret": None, "version": 0}]


def test_change_after_the_block_is_recorded_with_the_next_number(session: Session, country: Country) -> None:
    country.name = "second"
    session.commit()
    with suppress_versioning():
        country.name = "third"
        session.commit()
    assert country.version == 1
    country.name = "fourth"
    session.commit()
    rows = history_rows(session, "country_history")
    assert changes(rows) == [*CREATED, (0, "update"), (1, "update")]
    assert [row["name"] for row in rows] == [None, "first", "third"]
    assert country.version == 2


def test_record_inserted_inside_the_block_has_versions_from_zero_on(session: Session) -> None:
    with suppress_versioning():
        country = Country(code="DE", name="first")
        session.add(country)
        session.commit()
    country.name = "second"
    session.commit()
    rows = history_rows(session, "country_history")
    assert changes(rows) == [(0, "update")]
    assert country.versions()[0].valid_from is None
    assert country.version == 1


def test_key_deleted_outside_and_added_inside_the_block_goes_on(session: Session, country: Country) -> None:
    session.delete(country)
    session.commit()
    with suppress_versioning():
        again = Country(code="FR", name="again")
        session.add(again)
        session.commit()
    assert again.version == 1
    again.name = "changed"
    session.commit()
    rows = history_rows(session, "country_history")
    assert changes(rows) == [*CREATED, (0, "delete"), (1, "update")]
    assert live_rows(session, "country")[0]["version"] == 2


def test_key_deleted_inside_and_added_outside_the_block_goes_on(session: Session, country: Country) -> None:
    country.name = "second"
    session.commit()
    with suppress_versioning():
        session.delete(country)
        session.commit()
    again = Country(code="FR", name="again")
    session.add(again)
    session.commit()
    again.name = "changed"
    session.commit()
    rows = history_rows(session, "country_history")
    versions = [row["version"] for row in rows]
    assert versions == list(range(-1, len(rows) - 1))
    assert live_rows(session, "country")[0]["version"] == versions[-1] + 1
    assert again.version == versions[-1] + 1


def test_key_deleted_and_added_in_one_flush_inside_the_block_keeps_its_number(
    session: Session, country: Country
) -> None:
    country.name = "second"
    session.commit()
    with suppress_versioning():
        session.delete(country)
        again = Country(code="FR", name="again")
        session.add(again)
        session.commit()
    assert live_rows(session, "country")[0]["version"] == 1
    again.name = "changed"
    session.commit()
    rows = history_rows(session, "country_history")
    assert changes(rows) == [*CREATED, (0, "update"), (1, "update")]
    assert rows[-1]["name"] == "again"


def test_statements_are_let_through_inside_the_block(session: Session, country: Country) -> None:
    with suppress_versioning():
        session.execute(sa.update(Country).values(name="set"))
        session.execute(sa.insert(Country), [{"code": "DE"}, {"code": "IT"}])
        session.query(Country).filter_by(code="IT").delete()
        session.bulk_save_objects([Country(code="ES")])
        session.commit()
    assert [(row["code"], row["name"], row["version"]) for row in live_rows(session, "country", "code")] == [
        ("DE", None, 0),
        ("ES", None, 0),
        ("FR", "set", 0),
    ]
    assert changes(history_rows(session, "country_history")) == CREATED
    session.execute(sa.update(Country).where(Country.code == "ES").values(name="set"))
    assert changes(history_rows(session, "country_history", code="ES")) == [(0, "update")]


def test_block_that_raises_ends_the_suppression(session: Session, country: Country) -> None:
    with pytest.raises(ZeroDivisionError), suppress_versioning():
        raise ZeroDivisionError
    country.name = "second"
    session.commit()
    assert changes(history_rows(session, "country_history")) == [*CREATED, (0, "update")]


def test_inner_block_gives_back_what_the_outer_one_permits(session: Session, country: Country) -> None:
    with suppress_versioning(allow_deleting_history=True):
        with suppress_versioning():
            country.name = "second"
            session.commit()
        session.execute(sa.delete(history_model(Country)))
        session.commit()
    assert history_rows(session, "country_history") == []


def test_what_is_flushed_after_the_block_is_recorded(session: Session, country: Country) -> None:
    with suppress_versioning():
        country.name = "second"
    session.commit()
    assert changes(history_rows(session, "country_history")) == [*CREATED, (0, "update")]


def test_change_inside_the_block_moves_no_version_of_an_object_whose_version_was_set(session: Session) -> None:
    user = User(id=1, email="a")
    session.add(user)
    session.commit()
    assert user.version == 0
    with suppress_versioning():
        user.version = 7
        user.email = "b"
        session.commit()
    assert live_rows(session, "appuser")[0]["version"] == 0

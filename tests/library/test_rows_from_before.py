"""Rows that were there before versioning was switched on: their version 0 is taken to have always been."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut import Timeline
from tests.library.models import Country
from tests.library.rows import changes, history_rows

TICK = timedelta(microseconds=1)
LONG_AGO = datetime(1900, 1, 1, tzinfo=UTC)


@pytest.fixture
def country(session: Session) -> Country:
    # Another program fills the table; it need not know the column `version`.
    session.connection().execute(sa.text("INSERT INTO country (code, name) VALUES ('FR', 'a'), ('DE', 'a')"))
    session.commit()
    return session.get_one(Country, "FR")


def test_row_from_before_is_version_0_and_was_always_valid(session: Session, country: Country) -> None:
    assert country.version == 0
    assert country.versions() == []
    assert country.changes() == []
    assert country.version_at(LONG_AGO) is country
    assert not country.has_changed_since(LONG_AGO)
    assert Timeline(session, Country, ("FR",)).valid_from() is None


def test_first_change_of_a_row_from_before_ends_its_version_0(session: Session, country: Country) -> None:
    country.name = "b"
    session.commit()
    rows = history_rows(session, "country_history")
    assert changes(rows) == [(0, "update")]
    assert rows[0]["name"] == "a"
    (version,) = country.versions()
    assert version.valid_from is None
    assert country.version_at(LONG_AGO) is version
    assert country.version_at(version.changed - TICK) is version
    assert country.version_at(version.changed) is country
    assert Timeline(session, Country, ("FR",)).valid_from() == version.changed
    assert [change.operation for change in country.changes()] == ["update"]


def test_deleted_row_from_before_was_always_valid_until_then(session: Session, country: Country) -> None:
    session.delete(country)
    session.commit()
    rows = history_rows(session, "country_history")
    assert changes(rows) == [(0, "delete")]
    timeline = Timeline(session, Country, ("FR",))
    assert timeline.version_at(LONG_AGO).name == "a"
    assert timeline.version_at(rows[0]["changed"]) is None
    again = Country(code="FR", name="b")
    session.add(again)
    session.commit()
    assert changes(history_rows(session, "country_history")) == [(0, "delete"), (1, "insert")]
    assert again.version == 2


def test_row_from_before_that_is_taken_over_in_one_flush_is_changed(session: Session, country: Country) -> None:
    session.delete(country)
    session.add(Country(code="FR", name="b"))
    session.commit()
    rows = history_rows(session, "country_history")
    assert changes(rows) == [(0, "update")]
    assert rows[0]["name"] == "a"

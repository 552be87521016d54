"""``changes``: what happened to a record, oldest first."""

import pytest
from sqlalchemy.orm import Session

from chrononaut import Timeline, extra_change_info, queries
from tests.library.models import Country
from tests.library.rows import history_rows


@pytest.fixture
def country(session: Session) -> Country:
    """Created, changed twice, deleted and added again."""
    with extra_change_info(why="founded"):
        country = Country(code="YU", name="a", secret="x")
        session.add(country)
        session.commit()
    with extra_change_info(why="renamed"):
        country.name = "b"
        session.commit()
    with extra_change_info(why="in secret"):
        country.secret = "y"
        session.commit()
    session.delete(country)
    session.commit()
    again = Country(code="YU", name="c")
    session.add(again)
    session.commit()
    return again


def test_changes_are_listed_with_creation_and_deletion(session: Session, country: Country) -> None:
    changes = country.changes()
    assert [(change.version, change.operation) for change in changes] == [
        *((-1, "insert"), (0, "update"), (1, "update"), (2, "delete"), (3, "insert")),
    ]
    rows = history_rows(session, "country_history")
    assert [change.at for change in changes] == [row["changed"] for row in rows]
    assert [change.transaction_id for change in changes] == [row["transaction_id"] for row in rows]
    assert [change.info for change in changes] == [row["change_info"] for row in rows]


def test_differences_are_those_to_the_state_that_followed(session: Session, country: Country) -> None:
    assert [change.differences for change in country.changes()] == [
        {"name": (None, "a")},
        {"name": ("a", "b")},
        {},
        {"name": ("b", None)},
        {"name": (None, "c")},
    ]


def test_hidden_changes_are_named_without_their_values(session: Session, country: Country) -> None:
    changes = country.changes()
    # A delete takes the value away too; the second insert brings none back.
    assert [change.hidden for change in changes] == [("secret",), (), ("secret",), ("secret",), ()]


def test_last_change_of_a_live_record_is_to_the_live_state(session: Session, country: Country) -> None:
    country.name = "d"
    session.commit()
    assert country.changes()[-1].differences == {"name": ("c", "d")}


def test_last_change_of_a_deleted_record_is_its_deletion(session: Session, country: Country) -> None:
    session.delete(country)
    session.commit()
    changes = Timeline(session, Country, ("YU",)).changes()
    assert changes[-1].operation == "delete"
    assert changes[-1].differences == {"name": ("c", None)}


def test_part_of_the_changes_is_told_in_the_order_given(session: Session, country: Country) -> None:
    timeline = Timeline(session, Country, ("YU",))
    rows = session.scalars(queries.changes(Country, ("YU",))).all()
    everything = timeline.changes()
    for part in (rows[:2], rows[1:3], rows[3:], rows[::-1], rows[:0]):
        numbers = [row.version for row in part]
        assert timeline.changes(part) == sorted(
            (change for change in everything if change.version in numbers),
            key=lambda change: numbers.index(change.version),
        )


def test_record_that_another_program_deleted_keeps_its_changes(session: Session, country: Country) -> None:
    country.name = "d"
    session.commit()
    session.connection().exec_driver_sql("DELETE FROM country")
    session.commit()
    session.expunge_all()
    changes = Timeline(session, Country, ("YU",)).changes()
    assert [change.version for change in changes] == [-1, 0, 1, 2, 3, 4]
    assert changes[1].differences == {"name": ("a", "b")}


def test_record_that_never_was_has_no_changes(session: Session) -> None:
    assert Timeline(session, Country, ("XX",)).changes() == []

"""Where a version stands among the others of its record, and which one an instant falls to."""

from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut import Place, Span, Timeline
from tests.library.models import Country
from tests.library.rows import history_rows

_TICK = timedelta(microseconds=1)


def _live(session: Session, operations: str) -> Timeline:
    """A record that is made, changed and deleted, each in a transaction of its own: ``i``, ``u``, ``d``."""
    for number, operation in enumerate(operations):
        if operation == "i":
            session.add(Country(code="YU", name="a"))
        elif operation == "u":
            session.get_one(Country, "YU").name = f"name {number}"
        else:
            session.delete(session.get_one(Country, "YU"))
        session.commit()
    return Timeline(session, Country, ("YU",))


def _changed(session: Session) -> dict[int, datetime]:
    return {row["version"]: row["changed"] for row in history_rows(session, "country_history", code="YU")}


def _numbers(place: Place) -> tuple[int | None, ...]:
    spans = (place.this, place.before, place.after, place.first, place.last)
    return tuple(None if span is None else span.version for span in spans)


@pytest.mark.parametrize(
    ("operations", "numbers"),
    [("i", [0]), ("iuuuuuu", [0, 1, 2, 3, 4, 5, 6]), ("iuudiudiu", [0, 1, 2, 4, 5, 7, 8]), ("iuud", [0, 1, 2])],
)
def test_place_of_every_version_and_of_none(session: Session, operations: str, numbers: list[int]) -> None:
    timeline = _live(session, operations)
    for number in range(-1, numbers[-1] + 3):
        this = number if number in numbers else None
        before = max((one for one in numbers if one < number), default=None)
        after = min((one for one in numbers if one > number), default=None)
        assert _numbers(timeline.place(number)) == (this, before, after, numbers[0], numbers[-1]), number


def test_span_is_of_the_changes_that_began_and_ended_the_version(session: Session) -> None:
    timeline = _live(session, "iud")
    changed = _changed(session)
    assert timeline.place(1).this == Span(1, changed[0], changed[1])
    assert timeline.span() is None
    assert _live(session, "i").span() == Span(3, _changed(session)[2], None)


def test_record_without_any_version_has_no_place(session: Session) -> None:
    assert _numbers(Timeline(session, Country, ("XX",)).place(0)) == (None,) * 5


@pytest.mark.parametrize("operations", ["i", "iuu", "iud", "iudiu"])
def test_instant_falls_to_the_last_version_that_had_begun(session: Session, operations: str) -> None:
    timeline = _live(session, operations)
    changed = _changed(session)
    begun = {version + 1: at for version, at in changed.items() if operations[version + 1] != "d"}
    assert timeline.number_at(min(changed.values()) - _TICK) is None
    for at in (end + step for end in changed.values() for step in (-_TICK, 0 * _TICK, _TICK)):
        expected = max((number for number, start in begun.items() if start <= at), default=None)
        assert timeline.number_at(at) == expected


def test_version_from_before_versioning_has_no_known_beginning(session: Session) -> None:
    timeline = _live(session, "iu")
    session.execute(sa.text("DELETE FROM country_history WHERE version = -1"))
    session.commit()
    changed = _changed(session)
    assert timeline.place(0).this == Span(0, None, changed[0])
    assert timeline.number_at(changed[0] - _TICK) is None

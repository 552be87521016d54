"""States as plain values are those that the objects of a timeline have, whatever tables they are in."""

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut import Span, State, States, Timeline
from chrononaut.states import RecordStates
from chrononaut.types import Instant
from tests.library.conftest import Statements
from tests.library.models import Country, Release
from tests.library.staff import Staff

_TICK = timedelta(microseconds=1)


@pytest.fixture
def staff() -> Staff:
    return Staff()


def _state(timeline: Timeline, obj: Any) -> State | None:
    """What the state of an object should be as a value."""
    if obj is None:
        return None
    if obj is timeline.live:
        return State(timeline.number(obj), timeline.valid_from(), None, None, None, None, timeline.state(obj))
    return State(**timeline.own(obj), values=timeline.state(obj))


def _read(session: Session, model: type, key: tuple[Any, ...]) -> RecordStates:
    return States(model).of(session, key)


def _assert_same(session: Session, model: type, key: tuple[Any, ...]) -> None:
    timeline, record = Timeline(session, model, key), _read(session, model, key)
    rows = timeline.versions()
    expected = [_state(timeline, row) for row in rows]
    assert record.live == _state(timeline, timeline.live)
    by_connection = States(model).of(session.connection(bind_arguments={"mapper": sa.inspect(model)}), key)
    assert by_connection.live == record.live
    assert by_connection.versions("asc", 100) == expected
    assert record.exists() is timeline.exists()
    assert record.last_changed() == timeline.last_changed()
    assert record.versions("asc", 100) == expected
    assert record.versions("desc", 2) == expected[::-1][:2]
    for from_, to in itertools.combinations_with_replacement(rows, 2):
        hidden = record.hidden_changes(timeline.number(from_), timeline.number(to))
        assert hidden == timeline.hidden_changes(from_, to)
    for number in range(-1, 9):
        live = record.live if record.live is not None and record.live.version == number else None
        assert _read(session, model, key).version(number) == (_state(timeline, timeline.version(number)) or live)
        assert record.place(number) == timeline.place(number)
    for change in timeline.changes():
        for at in (change.at - _TICK, change.at, change.at + _TICK):
            assert record.version_at(at) == _state(timeline, timeline.version_at(at)), at
            before, after = [timeline.versions(before=at), timeline.versions(after=at)]
            assert record.versions("asc", 100, before=at) == [_state(timeline, row) for row in before]
            assert record.versions("asc", 100, after=at) == [_state(timeline, row) for row in after]


@pytest.mark.parametrize("kind", ["clerk", "director"])
def test_states_are_those_of_the_objects(staff: Staff, open_database: Callable[..., Session], kind: str) -> None:
    session = open_database(staff.db)
    models = [staff.employee, staff.clerk, staff.manager, staff.director]

    def assert_same() -> None:
        session.commit()
        for model in models:
            _assert_same(session, model, (7,))
        session.rollback()

    model = getattr(staff, kind)
    own: dict[str, Any] = {"desk": "d"} if kind == "clerk" else {"budget": 1, "car": "x"}
    assert_same()
    session.add_all([model(id=7, name="a", **own), staff.director(id=8, name="other")])
    assert_same()
    for name in ("b", "c"):
        session.get_one(model, 7).name = name
        assert_same()
    for name, value in (
        {"pin": "secret", "seen": "today"} if kind == "clerk" else {"bonus": 1, "pin": "secret"}
    ).items():
        setattr(session.get_one(model, 7), name, value)
    assert_same()
    session.delete(session.get_one(model, 7))
    assert_same()
    session.add(model(id=7, name="again", **own))
    assert_same()


def test_states_of_a_key_of_several_parts(session: Session) -> None:
    session.add_all([Release(product="a", cycle="1"), Release(product="a", cycle="2")])
    session.commit()
    session.get_one(Release, ("a", "1")).label = "x"
    session.commit()
    _assert_same(session, Release, ("a", "1"))
    with pytest.raises(ValueError, match="zip"):
        _read(session, Release, ("a",))


def test_versions_between_numbers(session: Session) -> None:
    session.add(Country(code="YU", name="0"))
    for number in range(1, 6):
        session.commit()
        session.get_one(Country, "YU").name = f"{number}"
    session.commit()
    record = _read(session, Country, ("YU",))
    assert [state.version for state in record.versions("asc", 2, above=1)] == [2, 3]
    assert [state.version for state in record.versions("desc", 2, below=4)] == [3, 2]
    assert [state.values["name"] for state in record.versions("desc", 9, above=0, below=3)] == ["2", "1"]


def test_what_is_pending_is_flushed_first(session: Session) -> None:
    session.add(Country(code="YU", name="a"))
    live = _read(session, Country, ("YU",)).live
    assert live is not None
    assert live.values == {"code": "YU", "name": "a"}


@pytest.mark.parametrize("question", ["version", "version_at", "place"])
@pytest.mark.parametrize("replace", ["update", "delete"])
def test_state_that_is_replaced_between_two_statements_is_found(session: Session, question: str, replace: str) -> None:
    """What another transaction commits meanwhile, a transaction without a snapshot sees as it sees its own flush."""
    country = Country(code="YU", name="a")
    session.add(country)
    session.commit()
    (began,) = session.scalars(sa.select(Country.__chrononaut__.column("changed")))
    session.refresh(country)
    record, has_replaced = _read(session, Country, ("YU",)), False

    def replace_after_the_first(*_: object) -> None:
        nonlocal has_replaced
        if has_replaced:
            return
        has_replaced = True
        if replace == "delete":
            session.delete(country)
        else:
            country.name = "b"
        session.flush()

    engine = session.get_bind()
    sa.event.listen(engine, "after_cursor_execute", replace_after_the_first)
    try:
        found: Any = getattr(record, question)(began if question == "version_at" else 0)
    finally:
        sa.event.remove(engine, "after_cursor_execute", replace_after_the_first)
    assert has_replaced
    state = found.this if question == "place" else found
    assert (state.version, state.valid_from) == (0, began)


def _loaded(session: Session) -> Timeline:
    """A timeline of an object that was loaded with the beginning of its state."""
    span = Timeline(session, Country, ("YU",)).span()
    return Timeline(session, Country, ("YU",), session.get_one(Country, "YU"), span)


@pytest.mark.parametrize("changes", [0, 1, 2])
def test_beginning_is_known_of_what_the_transaction_wrote(
    session: Session, statements: Statements, changes: int
) -> None:
    session.add(Country(code="YU", name="a"))
    session.commit()
    timeline = _loaded(session)
    for number in range(changes):
        timeline.live.name = f"{number}"
        session.flush()
    statements.clear()
    began = timeline.valid_from()
    assert len(statements.executed) == (1 if changes > 1 else 0)
    session.commit()
    assert began == Timeline(session, Country, ("YU",)).valid_from()


def test_beginning_is_asked_for_where_the_record_s_time_is_ahead(session: Session) -> None:
    session.add(Country(code="YU", name="a"))
    session.commit()
    (made,) = session.scalars(sa.select(Country.__chrononaut__.column("changed")))
    ahead = sa.bindparam("ahead", made + timedelta(hours=1), type_=Instant)
    session.execute(sa.text("UPDATE country_history SET changed = :ahead").bindparams(ahead))
    session.commit()
    timeline = _loaded(session)
    timeline.live.name = "b"
    session.flush()
    assert timeline.valid_from() == made + timedelta(hours=1)


@pytest.mark.parametrize("is_changed", [False, True])
def test_beginning_is_asked_for_where_none_was_seen(session: Session, is_changed: bool) -> None:
    session.add(Country(code="YU", name="a"))
    session.commit()
    live = session.get_one(Country, "YU")
    timeline = Timeline(session, Country, ("YU",), live, Span(0, None, None))
    if is_changed:
        live.name = "b"
        session.flush()
    began = timeline.valid_from()
    session.commit()
    assert began is not None
    assert began == Timeline(session, Country, ("YU",)).valid_from()

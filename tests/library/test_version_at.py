"""``version_at``: validity is half-open, so that at the instant of a change the new state holds."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from chrononaut import Timeline
from tests.library.models import Country, User
from tests.library.rows import history_rows

TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)


def _name_at(session: Session, at: datetime, code: str = "YU") -> str | None:
    state = Timeline(session, Country, (code,)).version_at(at)
    return None if state is None else state.name


def _life(session: Session, *names: str, delete: bool = False) -> None:
    """A record that is created with the first name and gets the others, each in its own transaction."""
    country = Country(code="YU", name=names[0])
    session.add(country)
    session.commit()
    for name in names[1:]:
        country.name = name
        session.commit()
    if delete:
        session.delete(country)
        session.commit()


def _instants(session: Session) -> list[datetime]:
    return [row["changed"] for row in history_rows(session, "country_history", code="YU")]


def test_state_holds_from_its_change_up_to_the_next(session: Session) -> None:
    _life(session, "a", "b", "c")
    created, first, second = _instants(session)
    assert _name_at(session, created) == "a"
    assert _name_at(session, first - TICK) == "a"
    assert _name_at(session, first) == "b"
    assert _name_at(session, first + TICK) in {"b", "c"}
    assert _name_at(session, second - TICK) == "b"
    assert _name_at(session, second) == "c"
    assert _name_at(session, second + TICK) == "c"


def test_current_state_is_answered_by_the_object_itself(session: Session) -> None:
    _life(session, "a", "b")
    country = session.get_one(Country, "YU")
    _, changed = _instants(session)
    assert country.version_at(changed) is country
    assert country.version_at(changed + DAY) is country
    assert country.version_at(changed - TICK) is not country


def test_record_is_absent_before_its_creation(session: Session) -> None:
    _life(session, "a", "b")
    created, _ = _instants(session)
    assert _name_at(session, created - TICK) is None
    assert _name_at(session, created - DAY) is None
    assert _name_at(session, datetime(1, 1, 1, tzinfo=UTC)) is None


def test_record_that_never_changed_is_absent_before_its_creation(session: Session) -> None:
    _life(session, "a")
    (created,) = _instants(session)
    country = session.get_one(Country, "YU")
    assert country.version_at(created - TICK) is None
    assert country.version_at(created) is country


def test_record_is_absent_while_it_is_deleted(session: Session) -> None:
    _life(session, "a", delete=True)
    _, deleted = _instants(session)
    assert _name_at(session, deleted - TICK) == "a"
    assert _name_at(session, deleted) is None
    assert _name_at(session, deleted + DAY) is None
    _life(session, "b", "c")
    _, _, again, changed = _instants(session)
    assert _name_at(session, deleted - TICK) == "a"
    assert _name_at(session, deleted) is None
    assert _name_at(session, again - TICK) is None
    assert _name_at(session, again) == "b"
    assert _name_at(session, changed - TICK) == "b"
    assert _name_at(session, changed) == "c"


def test_object_that_was_just_deleted_is_absent_now(session: Session) -> None:
    _life(session, "a")
    country = session.get_one(Country, "YU")
    session.delete(country)
    session.flush()
    _, deleted = _instants(session)
    assert country.version_at(deleted - TICK).name == "a"
    assert country.version_at(deleted) is None


def test_state_that_its_own_transaction_replaced_is_never_found(session: Session) -> None:
    _life(session, "a")
    country = session.get_one(Country, "YU")
    for name in ("passing", "by", "b"):
        country.name = name
        session.flush()
    session.commit()
    assert [version.name for version in country.versions()] == ["a", "passing", "by"]
    created, changed, *others = _instants(session)
    assert set(others) == {changed}
    assert _name_at(session, changed - TICK) == "a"
    for at in (changed, changed + TICK, changed + DAY):
        assert _name_at(session, at) == "b"
    assert _name_at(session, created) == "a"
    _, passing, by = country.versions()
    assert passing.valid_from == passing.changed == by.valid_from == by.changed


def test_record_created_and_changed_in_one_transaction_is_found_as_it_was_committed(session: Session) -> None:
    country = Country(code="YU", name="passing")
    session.add(country)
    session.flush()
    country.name = "a"
    session.commit()
    created, _ = _instants(session)
    assert _name_at(session, created - TICK) is None
    assert country.version_at(created) is country


def test_record_created_and_deleted_in_one_transaction_is_never_found(session: Session) -> None:
    country = Country(code="YU", name="passing")
    session.add(country)
    session.flush()
    session.delete(country)
    session.commit()
    (at, _) = _instants(session)
    assert [_name_at(session, at + step) for step in (-TICK, 0 * TICK, TICK)] == [None, None, None]
    assert [version.name for version in Timeline(session, Country, ("YU",)).versions()] == ["passing"]


def test_record_deleted_and_added_in_one_transaction_is_never_absent(session: Session) -> None:
    _life(session, "a")
    session.delete(session.get_one(Country, "YU"))
    session.flush()
    session.add(Country(code="YU", name="b"))
    session.commit()
    created, deleted, added = _instants(session)
    assert deleted == added
    assert _name_at(session, deleted - TICK) == "a"
    assert _name_at(session, deleted) == "b"
    assert _name_at(session, created - TICK) is None


def test_records_of_one_transaction_are_seen_together_or_not_at_all(session: Session) -> None:
    users = [User(id=1, email="a1"), User(id=2, email="a2")]
    session.add_all([*users, Country(code="YU", name="a")])
    session.commit()
    users[0].email = "b1"
    session.flush()
    users[1].email = "b2"
    session.flush()
    session.get_one(Country, "YU").name = "b"
    session.commit()
    _, changed = _instants(session)
    before = [session.get_one(User, key).version_at(changed - TICK).email for key in (1, 2)]
    after = [session.get_one(User, key).version_at(changed).email for key in (1, 2)]
    assert [*before, _name_at(session, changed - TICK)] == ["a1", "a2", "a"]
    assert [*after, _name_at(session, changed)] == ["b1", "b2", "b"]


def test_answer_counts_pending_changes(session: Session) -> None:
    _life(session, "a")
    country = session.get_one(Country, "YU")
    country.name = "b"
    at = history_rows(session, "country_history")[0]["changed"]
    assert country.version_at(at).name == "a"


def test_version_of_another_record_is_not_found(session: Session) -> None:
    _life(session, "a", "b")
    session.add(Country(code="XX", name="x"))
    session.commit()
    at = _instants(session)[0]
    assert _name_at(session, at, "XX") is None
    assert _name_at(session, at + DAY, "ZZ") is None

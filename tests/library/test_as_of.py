"""``as_of``: all records as they were at an instant, those that were deleted since included."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask_sqlalchemy.pagination import Pagination
from sqlalchemy.orm import Session, aliased

from chrononaut import (
    HiddenAttributeError,
    PastError,
    Timeline,
    UntrackedAttributeError,
    history_model,
)
from tests.library.models import Book, Country, Note, Release, User, db
from tests.library.rows import history_rows

TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)
LONG_AGO = datetime(1900, 1, 1, tzinfo=UTC)


def _rename(session: Session, *names: str) -> list[datetime]:
    """Give a country each of the names in turn, and tell when."""
    instants = []
    for name in names:
        session.merge(Country(code="YU", name=name))
        session.commit()
        instants.append(_changed(session)[-1])
    return instants


def _changed(session: Session, table: str = "country_history") -> list[datetime]:
    return sorted(row["changed"] for row in history_rows(session, table))


def _names(session: Session, at: datetime) -> list[str | None]:
    return [state.name for state in session.scalars(Country.as_of(at).order_by(Country.code))]


def test_state_holds_from_its_change_up_to_the_next(session: Session) -> None:
    created, first, second = _rename(session, "a", "b", "c")
    assert _names(session, created - TICK) == []
    assert _names(session, created) == _names(session, first - TICK) == ["a"]
    assert _names(session, first) == _names(session, second - TICK) == ["b"]
    assert _names(session, second) == _names(session, second + DAY) == ["c"]


def test_deleted_record_is_found_while_it_lived(session: Session) -> None:
    created, changed = _rename(session, "a", "b")
    session.delete(session.get_one(Country, "YU"))
    session.commit()
    deleted = _changed(session)[-1]
    (again,) = _rename(session, "c")
    assert _names(session, created) == ["a"]
    assert _names(session, changed) == _names(session, deleted - TICK) == ["b"]
    assert _names(session, deleted) == _names(session, again - TICK) == []
    assert _names(session, again) == ["c"]


def test_state_that_its_own_transaction_replaced_again_is_never_found(session: Session) -> None:
    country = Country(code="YU", name="a")
    session.add(country)
    session.flush()
    for name in ("b", "c"):
        country.name = name
        session.flush()
    session.commit()
    (instant,) = {*_changed(session)}
    assert len(_changed(session)) == 3
    assert _names(session, instant - TICK) == []
    assert _names(session, instant) == ["c"]


def test_row_from_before_versioning_has_always_been(session: Session) -> None:
    session.execute(sa.text("INSERT INTO country (code, name) VALUES ('FR', 'a'), ('DE', 'b')"))
    session.get_one(Country, "FR").name = "c"
    session.commit()
    past = session.scalars(Country.as_of(LONG_AGO).order_by(Country.code)).all()
    assert [(state.code, state.name, state.version, state.valid_from) for state in past] == [
        ("DE", "b", 0, None),
        ("FR", "a", 0, None),
    ]


def test_naive_instant_is_read_as_utc(session: Session) -> None:
    created, _ = _rename(session, "a", "b")
    assert _names(session, created.replace(tzinfo=None)) == ["a"]
    with pytest.raises(TypeError, match="an instant must be a datetime, not str"):
        Country.as_of("2026-01-01")  # type: ignore[arg-type]


def test_pending_changes_are_flushed_first(session: Session) -> None:
    (created,) = _rename(session, "a")
    session.get_one(Country, "YU").name = "b"
    assert _names(session, created) == ["a"]
    assert _names(session, _changed(session)[-1]) == ["b"]


def test_what_comes_are_history_objects_of_no_session(session: Session) -> None:
    created, changed = _rename(session, "a", "b")
    session.expunge_all()
    (past,) = session.scalars(Country.as_of(created))
    (present,) = session.scalars(Country.as_of(changed))
    assert isinstance(past, history_model(Country))
    assert isinstance(present, history_model(Country))
    assert not list(session)
    assert repr(past) == "<CountryHistory 'YU' version 0>"
    assert (past.version, past.operation, past.valid_from, past.changed) == (0, "update", created, changed)
    assert past.change_info == {"user_id": None, "remote_addr": None}
    assert past.transaction_id == history_rows(session, "country_history")[-1]["transaction_id"]
    assert (present.version, present.valid_from) == (1, changed)
    assert [present.operation, present.changed, present.change_info, present.transaction_id] == [None] * 4
    with pytest.raises(HiddenAttributeError):
        _ = past.secret
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = past.nothing


def test_states_can_be_compared(session: Session) -> None:
    created, changed = _rename(session, "a", "b")
    country = session.get_one(Country, "YU")
    (past,), (present,) = session.scalars(Country.as_of(created)), session.scalars(Country.as_of(changed))
    assert country.diff(past) == country.diff(past, present) == {"name": ("a", "b")}
    assert country.diff(present) == {}
    session.delete(country)
    session.commit()
    timeline = Timeline(session, Country, ("YU",))
    assert timeline.diff(past, present) == {"name": ("a", "b")}
    assert timeline.state(present) == {"code": "YU", "name": "b"}
    assert timeline.number(present) == 1


def test_it_is_a_select_wherever_one_is_taken(session: Session) -> None:
    created, *_ = _rename(session, "a", "b")
    past = Country.as_of(created)
    assert session.scalar(sa.select(sa.func.count()).select_from(past.subquery())) == 1
    assert session.scalars(sa.select(past.subquery().c.name)).all() == ["a"]
    assert session.scalars(sa.select(past.cte().c.name)).all() == ["a"]
    assert session.execute(past.with_only_columns(Country.name)).all() == [("a",)]
    assert session.scalar(sa.select(past.exists()))
    assert session.scalar(sa.select(past.with_only_columns(Country.name).scalar_subquery())) == "a"
    assert session.scalars(sa.union(*[past.with_only_columns(Country.name)] * 2)).all() == ["a"]
    assert session.scalars(
        sa.select(Country.name).where(Country.code.in_(past.with_only_columns(Country.code)))
    ).all() == ["b"]
    assert session.query(history_model(Country)).from_statement(past.with_only_columns(Country.name)) is not None
    assert "country_history" in str(past)
    assert [column.key for column in past.selected_columns][:3] == ["version", "code", "name"]


def test_subquery_has_the_columns_of_one_of_the_live_model_and_ours(session: Session) -> None:
    own = {"valid_from", "changed", "operation", "change_info", "transaction_id"}
    columns = {*Release.as_of(LONG_AGO).subquery().c.keys()}
    assert (
        columns == {*sa.select(Release).subquery().c.keys(), *own} == {"product", "cycle", "codename", "version", *own}
    )


def test_present_tables_can_be_joined_to_the_past(session: Session) -> None:
    created, *_ = _rename(session, "a", "b")
    session.add(Note(text="a"))
    session.commit()
    past = Country.as_of(created).subquery()
    assert session.execute(sa.select(past.c.name, Note.text).join(Note, Note.text == past.c.name)).all() == [("a", "a")]
    joined = sa.select(past.c.name, Country.name).join(Country, Country.code == past.c.code)
    assert session.execute(joined).all() == [("a", "b")]


def test_pages_of_flask_sqlalchemy(session: Session) -> None:
    session.add_all(Country(code=f"{number:02}", name="x") for number in range(5))
    session.commit()
    at = _changed(session)[-1]
    session.execute(sa.delete(Country))
    session.commit()
    page: Pagination = db.paginate(Country.as_of(at).order_by(Country.code), page=2, per_page=2)
    assert (page.total, [state.code for state in page.items]) == (5, ["02", "03"])


def test_two_instants_in_one_question(session: Session) -> None:
    one, other = _rename(session, "a", "b")
    session.add(Country(code="XX", name="a"))
    session.commit()
    session.execute(sa.update(Country).values(name="z"))
    session.commit()
    then = Country.as_of(other).with_only_columns(Country.name)
    assert session.scalars(Country.as_of(one).where(Country.name.in_(then))).all() == []
    assert len(session.scalars(Country.as_of(other).where(Country.name.in_(then))).all()) == 1
    latest = Country.as_of(other + DAY).where(Country.name == "z")
    assert len(session.scalars(Country.as_of(one).where(latest.exists())).all()) == 1, (
        "live rows are of that other instant"
    )
    was = aliased(Country.as_of(one).subquery())
    joined = Country.as_of(other).add_columns(was.c.name).join(was, was.c.code == Country.code)
    ((state, name),) = session.execute(joined)
    assert (state.name, name) == ("b", "a")


def test_what_was_asked_once_can_be_asked_again_and_further(session: Session) -> None:
    _rename(session, "a", "b")
    session.add(Country(code="XX", name="x"))
    session.commit()
    everything = Country.as_of(_changed(session)[-1])
    assert len(session.scalars(everything).all()) == 2
    assert [state.name for state in session.scalars(everything.where(Country.code == "XX"))] == ["x"]
    assert len(session.scalars(everything).all()) == 2


_people = sa.select(User).subquery()
_person: Any = aliased(User, _people)


@pytest.mark.parametrize(
    ("ask", "attribute"),
    [
        (lambda past: past.where(User.token == "x"), "User.token"),
        (lambda past: past.order_by(User.password_hash), "User.password_hash"),
        (lambda past: past.add_columns(sa.func.lower(User.token)), "User.token"),
        (lambda past: past.with_only_columns(User.token), "User.token"),
        (lambda past: past.where(User.id.in_(sa.select(User.id).where(User.token == "x"))), "User.token"),
        (lambda past: past.where(User.name.in_(sa.select(User.token))), "User.token"),
        (lambda past: past.where(sa.exists().where(aliased(User).token == User.name)), "User.token"),
        (lambda past: past.join(_people, _people.c.token == User.name), "User.token"),
        (lambda past: past.join(_person, _person.token == User.name), "User.token"),
        (lambda past: past.where(User.__table__.c.token == "x"), "User.token"),
        (lambda past: past.filter_by(token="x"), "User.token"),
    ],
)
def test_hidden_column_is_refused(session: Session, ask: Callable[[Any], Any], attribute: str) -> None:
    with pytest.raises(HiddenAttributeError, match=f"^{attribute} is hidden"):
        session.execute(ask(User.as_of(LONG_AGO)))


def test_untracked_column_is_refused(session: Session) -> None:
    with pytest.raises(UntrackedAttributeError, match=r"^User\.clicks is untracked"):
        session.scalars(User.as_of(LONG_AGO).where(User.clicks > 3))


def test_model_with_hidden_columns_can_be_selected_within(session: Session) -> None:
    session.add_all([User(email="a", name="a", token="s"), User(email="b", name="b")])
    session.commit()
    at = _changed(session, "appuser_history")[-1]
    session.execute(sa.update(User).values(name="z"))
    session.commit()
    within = sa.select(User).where(User.name == "a").subquery()
    past = User.as_of(at).join(within, within.c.id == User.id)
    assert [state.name for state in session.scalars(past)] == ["a"]
    assert [
        state.name
        for state in session.scalars(
            User.as_of(at).where(sa.select(_person).where(_person.id == User.id, _person.name == "a").exists())
        )
    ] == ["a"]


_elsewhere = sa.table("country", sa.column("code"), sa.column("name"))
_reflected = sa.Table("country", sa.MetaData(), sa.Column("code", sa.String))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda past: past.where(sa.text("name = 'x'")), "nobody knows which tables"),
        (lambda past: past.where(sa.literal_column("(SELECT max(id) FROM book)") == 1), "nobody knows which tables"),
        (lambda past: past.order_by(sa.text("title")), "nobody knows which tables"),
        (lambda past: past.add_columns(sa.literal_column("title")), "nobody knows which tables"),
        (
            lambda past: past.where(Book.id.in_(sa.text("SELECT 1").columns(sa.column("id")))),
            "nobody knows which tables",
        ),
        (lambda past: past.where(lambda: Book.id == 1), "nobody knows which tables"),
        (
            lambda past: past.where(Book.id.in_(sa.insert(Book).returning(Book.id).cte().select())),
            "nobody knows which tables",
        ),
        (lambda past: past.select_from(sa.tablesample(Book, 10)), "nobody knows which tables"),
        (lambda past: past.join(Book.author), "the table author is not versioned.*map it as a model with Versioned"),
        (lambda past: past.where(Book.author.has()), "the table author is not versioned"),
        (lambda past: past.union(sa.select(Book)), "would take the others as they are now"),
        (lambda past: past.from_statement(sa.text("SELECT * FROM book")), "would take the others as they are now"),
        (lambda past: past.add_columns(Note), "the table note is not versioned"),
        (lambda past: past.add_columns(Note.text), "the table note is not versioned"),
        (lambda past: past.join(Note, sa.true()), "the table note is not versioned"),
        (lambda past: past.where(sa.exists().where(Note.text == Book.title)), "the table note is not versioned"),
        (lambda past: past.where(Book.title.in_(sa.select(_elsewhere.c.name))), "the table country is not versioned"),
        (lambda past: past.where(Book.title.in_(sa.select(_reflected.c.code))), "the table country is not versioned"),
        (lambda past: past.add_columns(sa.orm.Bundle("b", Book.id)), "the Bundle b has no past"),
        (lambda past: past.add_columns(aliased(Book, sa.select(Book).subquery())), "is a subquery of Book"),
    ],
)
def test_what_has_no_past_is_refused(session: Session, ask: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(PastError, match=message):
        session.execute(ask(Book.as_of(LONG_AGO)))

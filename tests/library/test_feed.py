"""The change feed: what happened to all records of a model, newest first."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from chrononaut import (
    Change,
    ChangeFilter,
    Timeline,
    UntrackedAttributeError,
    Versioned,
    VersionedSQLAlchemy,
    extra_change_info,
)
from tests.library.models import Country, Release, User, define
from tests.library.staff import Staff

TICK = timedelta(microseconds=1)
CODES = ("AA", "BB", "CC")


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Say who makes the changes that follow."""

    def act(user_id: str | None) -> None:
        monkeypatch.setattr(Versioned, "_fetch_current_user_id", classmethod(lambda cls: user_id))

    return act


@pytest.fixture
def history(session: Session, actor: Callable[[str | None], None]) -> list[Change]:
    """Changes of three countries by two people, newest first; some are of one transaction, and one is deleted."""
    actor("ada")
    with extra_change_info(ticket="1", **{'an "odd" key.': "x"}):
        session.add_all([Country(code=code, name="a") for code in CODES])
        session.commit()
    actor("bob")
    with extra_change_info(ticket="2"):
        for code in CODES[:2]:
            session.get_one(Country, code).name = "b"
            session.flush()
            session.get_one(Country, code).secret = "x"
        session.commit()
    session.delete(session.get_one(Country, "AA"))
    session.commit()
    actor(None)
    session.get_one(Country, "CC").name = None
    session.commit()
    everything = [change for code in CODES for change in Timeline(session, Country, (code,)).changes()]
    return sorted(everything, key=lambda change: (change.at, change.key, change.version), reverse=True)


def pages(limit: int, which: ChangeFilter | None = None, model: Any = Country) -> Iterator[list[Change]]:
    cursor = None
    while True:
        page = model.feed(*([] if which is None else [which]), limit=limit, cursor=cursor)
        yield page.changes
        cursor = page.next
        if cursor is None:
            return


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
def test_feed_lists_every_change_once_newest_first(history: list[Change], limit: int) -> None:
    assert [change for page in pages(limit) for change in page] == history
    assert [len(page) for page in pages(limit)][:-1] == [limit] * ((len(history) - 1) // limit)


def test_feed_of_a_model_without_history_is_empty(session: Session) -> None:
    assert [*pages(10)] == [[]]


def test_change_says_which_record_it_is_of(history: list[Change]) -> None:
    newest = history[0]
    assert (newest.model, newest.key, newest.version, newest.operation) == (Country, ("CC",), 0, "update")
    assert newest.differences == {"name": ("a", None)}


@pytest.mark.parametrize(
    ("which", "fits"),
    [
        (ChangeFilter(user_id="bob"), lambda change: change.info["user_id"] == "bob"),
        (ChangeFilter(operation="delete"), lambda change: change.operation == "delete"),
        (ChangeFilter(extra={"ticket": "2"}), lambda change: change.info.get("extra", {}).get("ticket") == "2"),
        (ChangeFilter(extra={"ticket": "1", 'an "odd" key.': "x"}), lambda change: change.operation == "insert"),
        (ChangeFilter(extra={"ticket": "1", "none": "x"}), lambda change: False),
        (ChangeFilter(attribute="name"), lambda change: "name" in change.differences),
        (ChangeFilter(attribute="secret"), lambda change: "secret" in change.hidden),
        (
            ChangeFilter(attribute="name", user_id="bob", operation="update"),
            lambda change: "name" in change.differences and change.operation == "update" and change.info["user_id"],
        ),
    ],
)
def test_feed_is_filtered(history: list[Change], which: ChangeFilter, fits: Callable[[Change], bool]) -> None:
    assert [change for page in pages(2, which) for change in page] == [change for change in history if fits(change)]


def test_since_and_until_split_the_feed(history: list[Change]) -> None:
    for at in {change.at + step for change in history for step in (-TICK, 0 * TICK, TICK)}:
        later = [change for page in pages(3, ChangeFilter(since=at)) for change in page]
        earlier = [change for page in pages(3, ChangeFilter(until=at)) for change in page]
        assert later + earlier == history
        assert all(change.at > at for change in later)
    naive = history[0].at.replace(tzinfo=None)
    assert [change for page in pages(3, ChangeFilter(until=naive)) for change in page] == history


def test_feed_of_one_transaction(history: list[Change]) -> None:
    for transaction_id in {change.transaction_id for change in history}:
        expected = [change for change in history if change.transaction_id == transaction_id]
        assert Country.feed(ChangeFilter(transaction_id=transaction_id)).changes == expected


def test_pages_stay_whole_while_new_versions_arrive(session: Session, history: list[Change]) -> None:
    seen: list[Change] = []
    for page in pages(2):
        seen += page
        country = session.get_one(Country, "BB")
        country.name = f"{country.name}!"
        session.commit()
    described = [(change.key, change.version, change.operation) for change in seen]
    assert described == [(change.key, change.version, change.operation) for change in history]


def test_differences_are_to_the_state_that_followed_though_it_is_on_another_page(history: list[Change]) -> None:
    (second,) = [*pages(1)][1]
    assert second.differences == history[1].differences


def test_attribute_that_history_does_not_keep_is_refused(session: Session) -> None:
    with pytest.raises(UntrackedAttributeError, match=r"User\.clicks"):
        User.feed(ChangeFilter(attribute="clicks"))
    with pytest.raises(AttributeError, match="no change sets 'nme' of a Country; there are name, secret"):
        Country.feed(ChangeFilter(attribute="nme"))


@pytest.mark.parametrize(
    ("which", "error", "message"),
    [
        ({"operation": "upsert"}, ValueError, "operation must be one of insert, update, delete, purge, not 'upsert'"),
        ({"user_id": 5}, TypeError, "user_id must be a str, not int"),
        ({"transaction_id": "x"}, TypeError, "transaction_id must be a UUID, not str"),
        ({"since": "2026-01-01"}, TypeError, "since must be a datetime, not str"),
        ({"extra": {"ticket": 7}}, TypeError, "extra 'ticket' must be a str, not int"),
        ({"extra": {"ticket": "a\0"}}, ValueError, "extra 'ticket' holds NUL"),
        ({"attribute": 7}, TypeError, "attribute must be a str, not int"),
    ],
)
def test_wrong_filter_is_refused(which: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ChangeFilter(**which)


def test_key_is_set_by_no_change(session: Session) -> None:
    with pytest.raises(AttributeError, match="no change sets 'code' of a Country"):
        Country.feed(ChangeFilter(attribute="code"))


def test_cursor_of_another_model_is_refused(history: list[Change]) -> None:
    with pytest.raises(ValueError, match="the cursor is of Country country, not of Release release"):
        Release.feed(cursor=Country.feed(limit=1).next)


def test_filters_that_are_equal_have_one_hash() -> None:
    assert len({ChangeFilter(extra={"a": "b"}), ChangeFilter(extra={"a": "b"}), ChangeFilter()}) == 2


@pytest.mark.parametrize("key", [(), ("AA", "BB")])
def test_key_of_another_length_is_refused(session: Session, key: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="a key of Country has a value for code"):
        Country.timeline(key)


def test_page_of_no_changes_is_refused(session: Session) -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Country.feed(limit=0)


def test_composite_keys_are_paged_in_their_order(session: Session) -> None:
    session.add_all([Release(product=product, cycle=cycle, label="x") for product in "ab" for cycle in "ab"])
    session.commit()
    listed = [change.key for page in pages(1, model=Release) for change in page]
    assert listed == [("b", "b"), ("b", "a"), ("a", "b"), ("a", "a")]
    assert [change.key for change in Release.feed(ChangeFilter(attribute="label"), limit=9).changes] == listed


@pytest.mark.parametrize("document", [None, {}, {"a": None}, {"a": 1}])
def test_document_that_is_none_is_no_change_from_none(session: Session, document: dict[str, Any] | None) -> None:
    user = User(email="a", settings=None)
    session.add(user)
    session.commit()
    user.settings = document
    session.commit()
    changed = User.feed(ChangeFilter(attribute="settings")).changes
    assert [change.version for change in changed] == ([] if document is None else [0])
    assert all("settings" in change.differences for change in changed)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["AA", "BB"]), st.sampled_from(["a", "b", None, "delete"]), st.booleans()),
        max_size=12,
    ),
    limit=st.integers(1, 4),
)
def test_feed_is_the_merged_changes_of_all_records(
    session: Session, steps: list[tuple[str, str | None, bool]], limit: int
) -> None:
    since = datetime.now(UTC)
    for code, name, commit in steps:
        country = session.get(Country, code)
        if country is None:
            session.add(Country(code=code, name=name))
        elif name == "delete":
            session.delete(country)
        else:
            country.name = name
        session.commit() if commit else session.flush()
    session.commit()
    merged = [change for code in ("AA", "BB") for change in Timeline(session, Country, (code,)).changes()]
    expected = sorted(merged, key=lambda change: (change.at, change.key, change.version), reverse=True)
    assert [change for page in pages(limit) for change in page] == expected
    for attribute in ("name", "secret"):
        which = ChangeFilter(since=since, attribute=attribute)
        assert [change for page in pages(limit, which) for change in page] == [
            change
            for change in expected
            if change.at > since and (attribute in change.differences or attribute in change.hidden)
        ]


def test_names_of_ours_may_be_others(open_database: Callable[..., Session]) -> None:
    database: Any = VersionedSQLAlchemy()
    model = define(
        database,
        "Odd",
        __chrononaut_rename__={"version": "row_version", "changed": "ended", "change_info": "info"},
        id=sa.Column(sa.Integer, primary_key=True),
        changed=sa.Column(sa.String),
    )
    session = open_database(database)
    session.add(model(id=1, changed="a"))
    session.commit()
    session.get_one(model, 1).changed = "b"
    session.commit()
    assert [change.version for change in model.feed(ChangeFilter(attribute="changed")).changes] == [0, -1]


def test_changes_of_an_attribute_are_found_in_any_table_of_a_hierarchy(open_database: Callable[..., Session]) -> None:
    staff = Staff()
    session = open_database(staff.db)
    people = [staff.director(id=number, name="a", budget=1, car="x") for number in (1, 2)]
    session.add_all(people)
    session.commit()
    for director, (name, value) in zip(people, [("name", "b"), ("car", "y")], strict=True):
        setattr(director, name, value)
        session.commit()
    for name, changed in (("name", 1), ("car", 2)):
        (update,) = staff.director.feed(ChangeFilter(attribute=name, operation="update")).changes
        assert (update.key, list(update.differences)) == ((changed,), [name])
    assert staff.director.feed(ChangeFilter(attribute="budget", operation="update")).changes == []

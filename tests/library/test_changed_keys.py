"""A changed primary key: the record of the old key ends, and one of the new key begins."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, relationship

from chrononaut import MissingChangeInfoError, Timeline, VersionedSQLAlchemy, append_change_info, suppress_versioning
from tests.library.models import Country, Release, User, define
from tests.library.rows import changes, history_rows, live_rows

LIFE = [(-1, "insert"), (0, "delete")]


@pytest.fixture
def user(session: Session) -> User:
    user = User(id=1, email="a", name="first", password_hash="s")
    session.add(user)
    session.commit()
    return user


@pytest.mark.parametrize("loaded", ["expired", "loaded", "key_only"])
def test_changed_key_ends_one_history_and_begins_another(session: Session, user: User, loaded: str) -> None:
    if loaded == "loaded":
        session.refresh(user)
    user.id = 2
    if loaded != "key_only":
        user.name = "second"
    append_change_info(user, reason="merged")
    session.commit()
    ended, begun = history_rows(session, "appuser_history", id=1), history_rows(session, "appuser_history", id=2)
    assert changes(ended) == LIFE
    assert changes(begun) == [(-1, "insert")]
    assert (ended[1]["name"], begun[0]["name"]) == ("first", None)
    for row in (ended[1], begun[0]):
        assert row["change_info"]["extra"] == {"reason": "merged"}
        assert "password_hash" in row["change_info"]["hidden_cols_changed"]
        assert row["transaction_id"] == ended[1]["transaction_id"]
        assert row["changed"] == ended[1]["changed"]
    assert [(row["id"], row["version"]) for row in live_rows(session, "appuser")] == [(2, 0)]
    assert user.versions() == []
    (version,) = Timeline(session, User, (1,)).versions()
    assert (version.id, version.name) == (1, "first")
    user.name = "third"
    session.commit()
    assert changes(history_rows(session, "appuser_history", id=2)) == [(-1, "insert"), (0, "update")]


def test_numbering_ends_and_goes_on_by_key(session: Session, user: User) -> None:
    user.name = "second"
    session.commit()
    user.id = 2
    session.commit()
    assert user.version == 0
    user.id = 1
    session.commit()
    assert user.version == 3
    user.name = "third"
    session.commit()
    assert changes(history_rows(session, "appuser_history", id=1)) == [
        (-1, "insert"),
        (0, "update"),
        (1, "delete"),
        (2, "insert"),
        (3, "update"),
    ]
    assert changes(history_rows(session, "appuser_history", id=2)) == LIFE
    assert [version.name for version in user.versions()] == ["first", "second", "second"]


def test_part_of_a_composite_key_is_changed_alike(session: Session) -> None:
    release = Release(product="p", cycle="1", label="x")
    session.add(release)
    session.commit()
    release.cycle, release.label = "2", "y"
    session.commit()
    assert changes(history_rows(session, "release_history", cycle="1")) == LIFE
    assert changes(history_rows(session, "release_history", cycle="2")) == [(-1, "insert")]
    assert live_rows(session, "release") == [{"product": "p", "cycle": "2", "codename": "y", "version": 0}]


def test_key_set_to_the_value_it_had_is_no_change(session: Session, user: User) -> None:
    user.id = 1
    user.email = "b"
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == [(-1, "insert"), (0, "update")]


def test_rollback_takes_both_records_back(session: Session, user: User) -> None:
    user.id = 2
    session.flush()
    session.rollback()
    assert user.id == 1
    user.name = "second"
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == [(-1, "insert"), (0, "update")]


def test_changed_key_in_a_suppressed_block_leaves_no_history(session: Session, user: User) -> None:
    with suppress_versioning():
        user.id = 2
        session.commit()
    assert changes(history_rows(session, "appuser_history")) == [(-1, "insert")]


def test_changed_key_without_a_required_reason_is_refused(session: Session, user: User, app: Any) -> None:
    app.config["CHRONONAUT_REQUIRE_EXTRA_CHANGE_INFO"] = True
    user.id = 2
    with pytest.raises(MissingChangeInfoError):
        session.commit()


def test_several_keys_in_one_flush_with_other_changes(session: Session) -> None:
    countries = [Country(code=code, name=code) for code in ("A", "B", "C", "D")]
    session.add_all(countries)
    session.commit()
    for country, code in zip(countries, ("W", "X"), strict=False):
        country.code = code
    countries[2].name = "changed"
    session.delete(countries[3])
    session.add(Country(code="E"))
    session.commit()
    expected = {"A": LIFE, "B": LIFE, "C": [(-1, "insert"), (0, "update")], "D": LIFE}
    expected |= {code: [(-1, "insert")] for code in ("E", "W", "X")}
    for code, rows in expected.items():
        assert changes(history_rows(session, "country_history", code=code)) == rows


def test_children_follow_the_key_of_their_parent(open_database: Callable[..., Session]) -> None:
    db = VersionedSQLAlchemy()
    parent = define(
        db,
        "Parent",
        code=sa.Column(sa.String, primary_key=True),
        children=relationship("Child", passive_updates=False, backref="parent"),
    )
    child = define(
        db,
        "Child",
        id=sa.Column(sa.Integer, primary_key=True),
        parent_code=sa.Column(sa.ForeignKey("parent.code", deferrable=True, initially="DEFERRED")),
    )
    session = open_database(db)
    one = parent(code="a", children=[child(id=1)])
    session.add(one)
    session.commit()
    one.code = "b"
    session.commit()
    assert changes(history_rows(session, "parent_history", code="a")) == LIFE
    assert changes(history_rows(session, "parent_history", code="b")) == [(-1, "insert")]
    rows = history_rows(session, "child_history")
    assert [(*change, row["parent_code"]) for change, row in zip(changes(rows), rows, strict=True)] == [
        (-1, "insert", None),
        (0, "update", "a"),
    ]
    assert live_rows(session, "child") == [{"id": 1, "parent_code": "b", "version": 1}]


def test_key_that_was_used_before_goes_on_after_a_suppressed_change_to_it(session: Session) -> None:
    session.add_all([Country(code="A"), Country(code="B")])
    session.commit()
    session.delete(session.get_one(Country, "B"))
    session.commit()
    country = session.get_one(Country, "A")
    with suppress_versioning():
        country.code = "B"
        session.commit()
    country.name = "changed"
    session.commit()
    assert changes(history_rows(session, "country_history", code="B")) == [*LIFE, (1, "update")]

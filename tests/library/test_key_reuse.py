"""Keys that are used again after a delete: numbering goes on."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut import VersionedSQLAlchemy
from tests.library.models import Country, Release, User, define
from tests.library.rows import changes, history_rows, live_rows

AGAIN = [(-1, "insert"), (0, "delete"), (1, "insert")]


def test_natural_key_goes_on_with_its_numbering(session: Session) -> None:
    session.add(Country(code="YU", name="first"))
    session.commit()
    session.delete(session.get_one(Country, "YU"))
    session.commit()
    again = Country(code="YU", name="second")
    session.add(again)
    session.commit()
    rows = history_rows(session, "country_history")
    assert changes(rows) == AGAIN
    assert [row["name"] for row in rows] == [None, "first", None]
    assert live_rows(session, "country")[0]["version"] == 2
    assert again.version == 2


def test_composite_key_goes_on_with_its_numbering(session: Session) -> None:
    for label in ("first", "second"):
        release = Release(product="p", cycle="1", label=label)
        session.add(release)
        session.commit()
        session.delete(release)
        session.commit()
    rows = history_rows(session, "release_history")
    assert changes(rows) == [*AGAIN, (2, "delete")]
    assert [row["codename"] for row in rows] == [None, "first", None, "second"]


def test_key_of_the_databases_making_goes_on_when_given_again(session: Session) -> None:
    user = User(email="first")
    session.add(user)
    session.commit()
    key = user.id
    session.delete(user)
    session.commit()
    again = User(id=key, email="second")
    session.add(again)
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == AGAIN
    assert again.version == 2


def test_key_that_the_database_gives_out_again_goes_on(session: Session, database_kind: str) -> None:
    # SQLite gives the highest key out again by itself; PostgreSQL's sequence is set back.
    user = User(email="first")
    session.add(user)
    session.commit()
    key = user.id
    session.delete(user)
    session.commit()
    if database_kind == "postgresql":
        session.connection().exec_driver_sql("SELECT setval('appuser_id_seq', 1, false)")
    again = User(email="second")
    session.add(again)
    session.commit()
    assert again.id == key
    assert changes(history_rows(session, "appuser_history")) == AGAIN
    assert again.version == live_rows(session, "appuser")[0]["version"] == 2


def test_key_deleted_and_added_in_one_transaction_goes_on(session: Session) -> None:
    first = Country(code="YU", name="first")
    session.add(first)
    session.commit()
    session.delete(first)
    session.flush()
    session.add(Country(code="YU", name="second"))
    session.commit()
    rows = history_rows(session, "country_history")
    assert changes(rows) == AGAIN
    assert rows[1]["changed"] == rows[2]["changed"]
    assert rows[1]["transaction_id"] == rows[2]["transaction_id"]
    assert live_rows(session, "country")[0]["version"] == 2


def test_key_deleted_and_added_in_one_flush_is_an_update(session: Session) -> None:
    first = Country(code="YU", name="first")
    session.add(first)
    session.commit()
    session.delete(first)
    again = Country(code="YU", name="second")
    session.add(again)
    session.commit()
    rows = history_rows(session, "country_history")
    assert changes(rows) == [(-1, "insert"), (0, "update")]
    assert rows[-1]["name"] == "first"
    assert live_rows(session, "country") == [{"code": "YU", "name": "second", "secret": None, "version": 1}]
    assert again.version == 1


def test_composite_key_deleted_and_added_in_one_flush_is_an_update(session: Session) -> None:
    first = Release(product="p", cycle="1", label="first")
    session.add_all([first, Release(product="p", cycle="2", label="other")])
    session.commit()
    session.delete(first)
    session.add(Release(product="p", cycle="1", label="second"))
    session.commit()
    assert changes(history_rows(session, "release_history", cycle="1")) == [(-1, "insert"), (0, "update")]
    assert changes(history_rows(session, "release_history", cycle="2")) == [(-1, "insert")]


def test_row_that_an_update_takes_over_notes_the_hidden_columns_that_change(session: Session) -> None:
    first = Country(code="YU", name="first", secret="one")
    session.add(first)
    session.commit()
    session.delete(first)
    session.add(Country(code="YU", name="second", secret=None))
    session.commit()
    assert live_rows(session, "country")[0]["secret"] is None
    row = history_rows(session, "country_history")[-1]
    assert row["change_info"]["hidden_cols_changed"] == ["secret"]


def test_numbering_goes_on_through_many_lives(session: Session) -> None:
    for life in range(3):
        country = Country(code="YU", name=f"{life}")
        session.add(country)
        session.commit()
        assert country.version == 3 * life
        country.name = f"{life} changed"
        session.commit()
        assert country.version == 3 * life + 1
        session.delete(country)
        session.commit()
    rows = history_rows(session, "country_history")
    assert changes(rows) == [
        *((-1, "insert"), (0, "update"), (1, "delete")),
        *((2, "insert"), (3, "update"), (4, "delete")),
        *((5, "insert"), (6, "update"), (7, "delete")),
    ]


def test_only_the_keys_that_were_used_before_go_on(session: Session) -> None:
    session.add_all([Country(code="AA"), Country(code="BB")])
    session.commit()
    session.delete(session.get_one(Country, "BB"))
    session.commit()
    added = [Country(code=code) for code in ("BB", "CC", "DD")]
    session.add_all(added)
    session.commit()
    assert [country.version for country in added] == [2, 0, 0]
    assert {row["code"]: row["version"] for row in live_rows(session, "country")} == {
        "AA": 0,
        "BB": 2,
        "CC": 0,
        "DD": 0,
    }


def test_change_right_after_the_key_was_used_again_counts_on(session: Session) -> None:
    country = Country(code="YU", name="first")
    session.add(country)
    session.commit()
    session.delete(country)
    session.flush()
    again = Country(code="YU", name="second")
    session.add(again)
    session.flush()
    again.name = "third"
    session.commit()
    rows = history_rows(session, "country_history")
    assert changes(rows) == [*AGAIN, (2, "update")]
    assert rows[-1]["name"] == "second"
    assert again.version == 3


@pytest.mark.parametrize("expire", [True, False])
def test_delete_of_an_expired_object_archives_its_row(session: Session, expire: bool) -> None:
    country = Country(code="YU", name="first")
    session.add(country)
    session.commit()
    if not expire:
        session.refresh(country)
    session.delete(country)
    session.commit()
    rows = history_rows(session, "country_history")
    assert changes(rows) == AGAIN[:2]
    assert rows[-1]["name"] == "first"


def test_row_stays_as_it_was_inserted_when_its_numbering_goes_on(open_database: Callable[..., Session]) -> None:
    database: Any = VersionedSQLAlchemy()
    page = define(
        database,
        "Page",
        id=sa.Column(sa.Integer, primary_key=True),
        state=sa.Column(sa.String, default="new", onupdate="edited"),
    )
    session = open_database(database)
    for again in (lambda: session.add(page(id=1)), lambda: session.execute(sa.insert(page).values(id=1))):
        session.add(page(id=1))
        session.commit()
        session.delete(session.get_one(page, 1))
        session.commit()
        again()
        session.commit()
        (row,) = live_rows(session, "page")
        assert row["state"] == "new"
        session.delete(session.get_one(page, 1))
        session.commit()

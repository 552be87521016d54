"""``CHRONONAUT_REQUIRE_EXTRA_CHANGE_INFO``: no update or delete without a reason."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from chrononaut import (
    ChrononautException,
    MissingChangeInfoError,
    Versioned,
    VersionedSQLAlchemy,
    append_change_info,
    extra_change_info,
    rationale,
    suppress_versioning,
)
from tests.library.conftest import Statements
from tests.library.models import Country, Shelf, User, define
from tests.library.rows import changes, history_rows, live_rows

CREATED = [(-1, "insert")]
CHANGED = [(-1, "insert"), (0, "update")]


@pytest.fixture
def user(app: Flask, session: Session) -> User:
    app.config["CHRONONAUT_REQUIRE_EXTRA_CHANGE_INFO"] = True
    user = User(id=1, email="a")
    session.add(user)
    session.commit()
    session.refresh(user)
    return user


def test_insert_needs_no_reason(session: Session, user: User) -> None:
    assert changes(history_rows(session, "appuser_history")) == CREATED


def test_update_without_a_reason_is_refused_before_anything_is_written(
    session: Session, user: User, statements: Statements
) -> None:
    user.email = "b"
    session.add(Country(code="FR"))
    statements.clear()
    with pytest.raises(MissingChangeInfoError, match="update of User without a reason") as error:
        session.commit()
    assert statements.matching("INSERT") == statements.matching("UPDATE") == []
    assert (error.value.model, error.value.operation) == ("User", "update")
    assert isinstance(error.value, ChrononautException)
    session.rollback()
    assert live_rows(session, "appuser")[0]["email"] == "a"
    assert live_rows(session, "country") == []
    assert changes(history_rows(session, "appuser_history")) == CREATED


@pytest.mark.parametrize("blank", [" ", "\xa0", "\u200b"])
def test_blank_text_is_no_reason(session: Session, user: User, blank: str) -> None:
    user.email = "b"
    with extra_change_info(why=blank), pytest.raises(MissingChangeInfoError):
        session.commit()
    session.rollback()
    assert changes(history_rows(session, "appuser_history")) == CREATED


def test_delete_without_a_reason_is_refused_before_anything_is_written(
    session: Session, user: User, statements: Statements
) -> None:
    session.delete(user)
    session.add(Country(code="FR"))
    statements.clear()
    with pytest.raises(MissingChangeInfoError, match="delete of User without a reason") as error:
        session.commit()
    assert statements.matching("INSERT") == statements.matching("DELETE") == []
    assert error.value.operation == "delete"
    session.rollback()
    assert len(live_rows(session, "appuser")) == 1
    assert changes(history_rows(session, "appuser_history")) == CREATED


def test_update_of_an_expired_object_without_a_reason_is_refused(session: Session, user: User) -> None:
    session.expire(user)
    user.email = "b"
    with pytest.raises(MissingChangeInfoError):
        session.commit()
    session.rollback()
    assert live_rows(session, "appuser")[0]["email"] == "a"


def test_hidden_change_needs_a_reason_too(session: Session, user: User) -> None:
    user.token = "x"
    with pytest.raises(MissingChangeInfoError):
        session.commit()
    session.rollback()
    assert live_rows(session, "appuser")[0]["token"] is None


def test_key_taken_over_in_one_flush_needs_a_reason(session: Session, user: User) -> None:
    with rationale("set up"):
        session.add(Country(code="FR", name="a"))
        session.commit()
    session.delete(session.get_one(Country, "FR"))
    session.add(Country(code="FR", name="b"))
    with pytest.raises(MissingChangeInfoError):
        session.commit()
    session.rollback()
    assert live_rows(session, "country")[0]["name"] == "a"


@pytest.mark.parametrize("operation", ["update", "delete"])
def test_any_reason_will_do(session: Session, user: User, operation: str) -> None:
    if operation == "update":
        user.email = "b"
    else:
        session.delete(user)
    with extra_change_info(ticket="T-1"):
        session.commit()
    assert changes(history_rows(session, "appuser_history")) == [*CREATED, (0, operation)]


def test_mark_on_the_object_is_a_reason_for_it_and_for_no_other(session: Session, user: User) -> None:
    other = User(id=2, email="x")
    session.add(other)
    session.commit()
    append_change_info(user, why="because")
    user.email = "b"
    session.commit()
    append_change_info(user, why="because")
    user.email, other.email = "c", "y"
    with pytest.raises(MissingChangeInfoError):
        session.commit()
    session.rollback()
    assert changes(history_rows(session, "appuser_history", id=1)) == CHANGED
    assert changes(history_rows(session, "appuser_history", id=2)) == CREATED


def test_session_goes_on_after_the_refusal(session: Session, user: User) -> None:
    user.email = "b"
    with pytest.raises(MissingChangeInfoError):
        session.commit()
    session.rollback()
    with rationale("asked"):
        user.email = "c"
        session.commit()
    assert changes(history_rows(session, "appuser_history")) == CHANGED


def test_what_leaves_no_history_needs_no_reason(session: Session, user: User) -> None:
    user.clicks += 1
    user.active = True
    session.commit()
    with suppress_versioning():
        user.email = "b"
        session.commit()
    assert changes(history_rows(session, "appuser_history")) == CREATED


def test_collection_of_a_versioned_object_that_changes_is_no_change_of_it(session: Session, user: User) -> None:
    shelf = Shelf(id=1)
    session.add(shelf)
    session.commit()
    shelf.books.clear()
    session.commit()
    assert changes(history_rows(session, "shelf_history")) == CREATED


def test_reason_that_a_models_own_document_gives_is_one(open_database: Callable[..., Session]) -> None:
    class Reasoned(Versioned):
        """Gives each change a reason of its own."""

        @classmethod
        def _capture_change_info(cls) -> dict[str, Any]:
            return {**super()._capture_change_info(), "extra": {"why": "always"}}

    db = VersionedSQLAlchemy()
    model = define(db, "Page", Reasoned, id=sa.Column(sa.Integer, primary_key=True), text=sa.Column(sa.String))
    session = open_database(db, CHRONONAUT_REQUIRE_EXTRA_CHANGE_INFO=True)
    page = model(id=1, text="a")
    session.add(page)
    session.commit()
    session.refresh(page)
    page.text = "b"
    session.commit()
    assert changes(history_rows(session, "page_history")) == CHANGED


def test_empty_block_is_no_reason(session: Session, user: User) -> None:
    user.email = "b"
    with pytest.raises(MissingChangeInfoError), extra_change_info():
        session.commit()
    session.rollback()

"""The change info document: who, from where, and what else, by four methods that a model may override."""

from collections.abc import Callable
from typing import Any

import flask_login
import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from chrononaut import ChangeInfoError, Versioned, VersionedSQLAlchemy, extra_change_info
from tests.library.models import User, define
from tests.library.rows import history_rows

Open = Callable[..., Session]


class Person(flask_login.UserMixin):  # type: ignore[misc]
    """A user with an e-mail address."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.email = f"{number}@example.com"


class Nameless(flask_login.UserMixin):  # type: ignore[misc]
    """A user without."""

    def __init__(self, number: int) -> None:
        self.id = number


@pytest.fixture
def login(app: Flask) -> flask_login.LoginManager:
    manager = flask_login.LoginManager(app)
    manager.user_loader(lambda number: Person(int(number)))
    return manager


def _recorded(session: Session) -> dict[str, Any]:
    """The change info of a change that is made now."""
    session.add(User(email=f"{len(history_rows(session, 'appuser_history'))}"))
    session.commit()
    info: dict[str, Any] = history_rows(session, "appuser_history")[-1]["change_info"]
    return info


def test_outside_a_request_nobody_is_named(session: Session, login: object) -> None:
    assert _recorded(session) == {"user_id": None, "remote_addr": None}


@pytest.mark.parametrize(("user", "user_id"), [(Person(7), "7@example.com"), (Nameless(7), "7")])
def test_current_user_is_named_by_email_or_else_by_id(
    app: Flask, session: Session, login: object, user: flask_login.UserMixin, user_id: str
) -> None:
    with app.test_request_context(environ_base={"REMOTE_ADDR": "192.0.2.1"}):
        flask_login.login_user(user)
        assert _recorded(session) == {"user_id": user_id, "remote_addr": "192.0.2.1"}


def test_user_whose_email_is_empty_is_named_by_id(app: Flask, session: Session, login: object) -> None:
    person = Person(7)
    person.email = ""
    with app.test_request_context():
        flask_login.login_user(person)
        assert _recorded(session)["user_id"] == "7"


def test_anonymous_user_is_nobody(app: Flask, session: Session, login: object) -> None:
    with app.test_request_context(environ_base={"REMOTE_ADDR": "192.0.2.1"}):
        assert _recorded(session) == {"user_id": None, "remote_addr": "192.0.2.1"}


def test_application_without_flask_login_names_nobody(app: Flask, session: Session) -> None:
    with app.test_request_context(environ_base={"REMOTE_ADDR": "2001:db8::1"}):
        assert _recorded(session) == {"user_id": None, "remote_addr": "2001:db8::1"}


def test_configured_function_adds_keys(app: Flask, session: Session) -> None:
    app.config["CHRONONAUT_EXTRA_CHANGE_INFO_FUNC"] = lambda: {"host": "worker-1", "job": 17}
    assert _recorded(session) == {"user_id": None, "remote_addr": None, "host": "worker-1", "job": 17}


@pytest.mark.parametrize("key", ["user_id", "remote_addr", "extra", "hidden_cols_changed", "erased", "purged"])
def test_configured_function_cannot_take_our_keys(app: Flask, session: Session, key: str) -> None:
    app.config["CHRONONAUT_EXTRA_CHANGE_INFO_FUNC"] = lambda: {key: "forged"}
    with pytest.raises(ChangeInfoError, match=f"must not set {key}"):
        _recorded(session)
    session.rollback()
    assert history_rows(session, "appuser_history") == []


def test_configured_function_that_raises_writes_nothing(app: Flask, session: Session) -> None:
    app.config["CHRONONAUT_EXTRA_CHANGE_INFO_FUNC"] = lambda: {"x": 1 // 0}
    with pytest.raises(ZeroDivisionError):
        _recorded(session)
    session.rollback()
    del app.config["CHRONONAUT_EXTRA_CHANGE_INFO_FUNC"]
    assert _recorded(session) == {"user_id": None, "remote_addr": None}
    assert len(history_rows(session, "appuser_history")) == 1


class Overriding(Versioned):
    """A mixin with three of the four methods of its own."""

    @classmethod
    def _fetch_current_user_id(cls) -> str:
        return "someone"

    @classmethod
    def _fetch_remote_addr(cls) -> str:
        return "somewhere"

    @classmethod
    def _get_custom_change_info(cls) -> dict[str, Any]:
        return {"model": cls.__name__}


class OverridingAll(Versioned):
    """A mixin with a document of its own."""

    @classmethod
    def _capture_change_info(cls) -> dict[str, Any]:
        return {**super()._capture_change_info(), "signed": "yes"}


@pytest.fixture
def overriding(open_database: Open) -> tuple[Session, Any, Any]:
    database = VersionedSQLAlchemy()
    one, two = (
        define(database, name, mixin, id=sa.Column(sa.Integer, primary_key=True), x=sa.Column(sa.String))
        for name, mixin in (("One", Overriding), ("Two", OverridingAll))
    )
    return open_database(database), one, two


def test_subclass_of_versioned_is_used_as_the_mixin(overriding: tuple[Session, Any, Any]) -> None:
    session, one, two = overriding
    objects = [one(id=1, x="a"), two(id=1, x="a")]
    session.add_all(objects)
    session.commit()
    for obj in objects:
        obj.x = "b"
    session.commit()
    session.delete(objects[0])
    session.commit()
    of_one, of_two = history_rows(session, "one_history"), history_rows(session, "two_history")
    assert [row["operation"] for row in of_one] == ["insert", "update", "delete"]
    for row in of_one:
        assert row["change_info"] == {"user_id": "someone", "remote_addr": "somewhere", "model": "One"}
    assert [row["operation"] for row in of_two] == ["insert", "update"]
    for row in of_two:
        assert row["change_info"] == {"user_id": None, "remote_addr": None, "signed": "yes"}


def test_own_methods_and_extra_go_together(overriding: tuple[Session, Any, Any]) -> None:
    session, one, _ = overriding
    with extra_change_info(why="because"):
        session.add(one(id=1))
        session.commit()
    (row,) = history_rows(session, "one_history")
    assert row["change_info"]["extra"] == {"why": "because"}
    assert row["change_info"]["user_id"] == "someone"


def test_method_of_the_model_itself_is_called(open_database: Open) -> None:
    database = VersionedSQLAlchemy()
    model = define(
        database,
        "One",
        id=sa.Column(sa.Integer, primary_key=True),
        _fetch_current_user_id=classmethod(lambda cls: f"owner of {cls.__name__}"),
    )
    session = open_database(database)
    session.add(model(id=1))
    session.commit()
    assert history_rows(session, "one_history")[0]["change_info"]["user_id"] == "owner of One"

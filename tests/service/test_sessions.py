"""A browser's login: who may, what its cookie is worth, and what it may not do without the CSRF token."""

import json
from typing import Any, Literal

import argon2
import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.auth import logins
from app.auth.grants import Grants
from app.auth.tables import logins as table
from app.db import db
from tests.service.api import Api, assert_problem
from tests.service.conftest import SECRET_KEY

_PASSWORD = "correct horse battery staple"
_CREDENTIALS = {"email": "ada@example.com", "password": _PASSWORD}


def _run(app: Flask, *arguments: str, password: str | None = None) -> Any:
    return app.test_cli_runner().invoke(args=["logins", *arguments], input=password and f"{password}\n")


@pytest.fixture
def ada(app: Flask) -> Any:
    """A browser in which somebody may log in who may write users and read releases."""
    with app.app_context():
        logins.create_login(db, "Ada@example.com", _PASSWORD, Grants.parse(["user:write", "release:read"]))
    return app.test_client()


def _log_in(browser: FlaskClient, **headers: str) -> Any:
    response: Any = browser.post("/session", json=_CREDENTIALS, headers=headers)
    assert response.status_code == 201, response.text
    return response


def test_session_tells_who_one_is_and_writes_are_theirs(ada: Any) -> None:
    session = _log_in(ada).json
    assert session == {
        "user": "ada@example.com",
        "grants": ["release:read", "user:write"],
        "csrf_token": session["csrf_token"],
    }
    told_again = ada.get("/session").json
    assert told_again | {"csrf_token": session["csrf_token"]} == session
    # It is signed anew with each second, and either is good.
    assert told_again["csrf_token"].partition(".")[0] == session["csrf_token"].partition(".")[0]
    headers = {"X-CSRF-Token": told_again["csrf_token"], "X-Change-User-Id": "eve@example.com"}
    assert ada.post("/records/user", json={"email": "a@example.com"}, headers=headers).status_code == 201
    headers["X-CSRF-Token"] = session["csrf_token"]
    (change,) = ada.get("/history/user").json["changes"]
    assert change["change_info"]["user_id"] == "ada@example.com"
    assert_problem(ada.post("/records/release", json={}, headers=headers), 403, "forbidden")


def test_cookie_is_kept_from_scripts_and_other_sites(app: Flask, ada: Any) -> None:
    cookie = _log_in(ada).headers["Set-Cookie"]
    assert cookie.startswith("chrononaut_session=")
    assert {"HttpOnly", "Secure", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert "Set-Cookie" not in ada.get("/history").headers
    assert app.permanent_session_lifetime.total_seconds() == 12 * 60 * 60


def test_cookie_can_be_let_go_without_https() -> None:
    settings = {"SECRET_KEY": SECRET_KEY, "DATABASE_URL": "sqlite://", "CHRONONAUT_SECURE_COOKIES": "false"}
    assert create_app(settings).config["SESSION_COOKIE_SECURE"] is False


def test_unsafe_request_of_a_session_needs_the_csrf_token(app: Flask, ada: Any) -> None:
    _log_in(ada)
    other = _log_in(app.test_client()).json["csrf_token"]
    for headers in ({}, {"X-CSRF-Token": "wrong"}, {"X-CSRF-Token": other}):
        response = ada.post("/records/user", json={"email": "a@example.com"}, headers=headers)
        assert_problem(response, 403, "csrf-failed")
        assert_problem(ada.delete("/session", headers=headers), 403, "csrf-failed")
    assert ada.get("/records/user").json["records"] == []


def test_token_goes_before_the_session(ada: Any, write_token: str, read_token: str) -> None:
    csrf = {"X-CSRF-Token": _log_in(ada).json["csrf_token"]}
    ada.set_cookie("remember_token", "anything")
    with_token = Api(ada, write_token)
    assert with_token.get("/session") == {"user": "writer@example.com", "grants": ["write"], "csrf_token": None}
    with_token.post("/records/user", {"email": "a@example.com"})  # without the CSRF token
    reader = {"Authorization": f"Bearer {read_token}"} | csrf
    assert_problem(ada.post("/records/user", json={}, headers=reader), 403, "forbidden")
    for wrong in ("Bearer wrong", "Bearer", "Basic YTpi", ""):
        assert_problem(ada.get("/session", headers={"Authorization": wrong} | csrf), 401, "unauthenticated")
    assert ada.get("/session").json["user"] == "ada@example.com"


@pytest.mark.parametrize("command", [["disable"], ["delete"], ["set-password", "--password-stdin"]])
def test_session_ends_with_the_login_or_its_password(app: Flask, ada: Any, command: list[str]) -> None:
    _log_in(ada)
    result = _run(app, command[0], "ada@example.com", *command[1:], password="another password")
    assert result.exit_code == 0, result.output
    assert_problem(ada.get("/session"), 401, "unauthenticated")
    assert_problem(ada.post("/session", json=_CREDENTIALS), 401, "login-failed")


def test_logging_out_ends_the_session_also_for_a_copy_of_its_cookie(app: Flask, ada: Any) -> None:
    token = _log_in(ada).json["csrf_token"]
    cookie = ada.get_cookie("chrononaut_session")
    assert cookie is not None
    ended = ada.delete("/session", headers={"X-CSRF-Token": token})
    assert (ended.status_code, ended.data) == (204, b"")
    assert "Content-Type" not in ended.headers
    assert ada.get_cookie("chrononaut_session") is None
    thief = app.test_client()
    thief.set_cookie("chrononaut_session", cookie.value)
    assert_problem(thief.get("/session"), 401, "unauthenticated")


def test_session_ends_in_another_browser(app: Flask, ada: Any) -> None:
    _log_in(ada, **{"User-Agent": "A"})
    assert ada.get("/session", headers={"User-Agent": "A"}).status_code == 200
    assert_problem(ada.get("/session", headers={"User-Agent": "B"}), 401, "unauthenticated")


def test_nobody_logs_in_with_what_is_wrong(ada: Any) -> None:
    answers = [
        assert_problem(ada.post("/session", json=_CREDENTIALS | changed), 401, "login-failed")
        for changed in ({"password": "wrong"}, {"email": "eve@example.com"})
    ]
    assert answers[0] == answers[1]
    assert "Set-Cookie" not in ada.post("/session", json=_CREDENTIALS | {"password": "wrong"}).headers
    assert_problem(ada.post("/session", json=_CREDENTIALS | {"password": "a" * 1025}), 422, "invalid")
    assert_problem(ada.post("/session", data=_CREDENTIALS), 415, "unsupported-media-type")
    assert_problem(
        ada.post("/session", data=json.dumps(_CREDENTIALS), content_type="text/plain"), 415, "unsupported-media-type"
    )


def test_unknown_person_costs_the_same_work(app: Flask, ada: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class Counting(argon2.PasswordHasher):
        def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
            done.append("hash")
            return super().hash(password, salt=salt)

        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002  as there
            done.append("hash")
            return super().verify(hash, password)

    monkeypatch.setattr(logins, "_hasher", Counting())
    with app.app_context():
        for email in ("ada@example.com", "eve@example.com"):
            assert logins.authenticate(db, email, "wrong") is None
            assert done == ["hash"]
            done.clear()


def test_password_is_hashed_anew_when_the_parameters_have_changed(app: Flask, ada: Any) -> None:
    with app.app_context(), db.engine.begin() as connection:
        old = argon2.PasswordHasher(time_cost=1).hash(_PASSWORD)
        connection.execute(sa.update(table).values(password_hash=old))
    _log_in(ada)
    with app.app_context(), db.engine.connect() as connection:
        new = connection.scalar(sa.select(table.c.password_hash))
    assert new is not None
    assert new.startswith("$argon2id$")
    assert new != old
    assert not argon2.PasswordHasher().check_needs_rehash(new)
    _log_in(ada)


def test_as_many_are_hashed_at_once_as_there_is_memory_for(ada: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "_LONGEST_WAIT", 0.01)
    with logins._memory_to_hash(), logins._memory_to_hash():
        response = ada.post("/session", json=_CREDENTIALS)
        assert_problem(response, 503, "unavailable")
        assert response.headers["Retry-After"] == "1"
    assert {ada.post("/session", json=_CREDENTIALS | {"password": "wrong"}).status_code for _ in range(3)} == {401}
    _log_in(ada)


def test_csrf_token_is_neither_stored_nor_compressed(app: Flask) -> None:
    with app.app_context():
        grants = Grants.parse([f"model_{number}:read" for number in range(200)])
        logins.create_login(db, "ada@example.com", _PASSWORD, grants)
    browser = app.test_client()
    for response in (
        _log_in(browser, **{"Accept-Encoding": "gzip"}),
        browser.get("/session", headers={"Accept-Encoding": "gzip"}),
    ):
        assert response.headers["Cache-Control"] == "no-store"
        assert "Content-Encoding" not in response.headers
        assert len(response.data) > 2000


def test_login_is_made_and_listed_without_the_password(app: Flask) -> None:
    made = _run(app, "create", "Ada@example.com", "--scope", "release:write", password=f"{_PASSWORD}\n{_PASSWORD}")
    assert made.exit_code == 0, made.output
    assert _PASSWORD not in made.output
    (row,) = json.loads(_run(app, "list", "--json").stdout)
    assert (row["email"], row["grants"], row["disabled"]) == ("ada@example.com", "release:write", None)
    _run(app, "disable", "ada@example.com")
    assert json.loads(_run(app, "list", "--json").stdout)[0]["disabled"]
    assert "argon2" not in _run(app, "list").stdout


@pytest.mark.parametrize(
    ("arguments", "password", "message"),
    [
        (["create", "bob@example.com", "--password-stdin"], "short", "12 to 1024 characters; this one has 5"),
        (["create", "bob", "--password-stdin"], _PASSWORD, "'bob' is no e-mail address"),
        (["create", "bob@example.com", "--scope", "x:read"], _PASSWORD, "there is no model x"),
        (["create", "ADA@example.com", "--password-stdin"], _PASSWORD, "has a login already"),
        (["set-password", "bob@example.com", "--password-stdin"], _PASSWORD, "nobody logs in as bob@example.com"),
        (["disable", "bob@example.com"], None, "nobody logs in as bob@example.com"),
        (["delete", "bob@example.com"], None, "nobody logs in as bob@example.com"),
    ],
)
def test_login_that_makes_no_sense_is_an_error(
    app: Flask, ada: Any, arguments: list[str], password: str | None, message: str
) -> None:
    result = _run(app, *arguments, password=password)
    assert result.exit_code in {1, 2}
    assert message in " ".join(result.stderr.split())
    with app.app_context():
        assert [login.email for login in logins.list_logins(db)] == ["ada@example.com"]

"""``POST /history/{model}/{key}/erase``: who may, what goes, and what caches learn of it."""

from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from app.auth.grants import Grants
from app.auth.tokens import create_token
from app.db import db
from chrononaut import Retention
from tests.service.api import Api, all_rows, assert_problem

_WHY = "She asked us to"


@pytest.fixture
def history(api: Api) -> str:
    """The path of the history of a user at version 2."""
    created = api.post("/records/user", {"email": "ada@example.com", "name": "Ada"}, why="Ada signed up")
    api.patch(created["links"]["record"], {"name": "Ada King"}, why="Ada married")
    api.patch(created["links"]["record"], {"name": None}, why="Ada left")
    path: str = created["links"]["history"]
    return path


def erase(admin: Api, history: str, **body: Any) -> Any:
    return admin.post(f"{history}/erase", body, why=_WHY)


def test_values_and_reasons_go_and_who_and_why_stays(api: Api, admin: Api, history: str) -> None:
    done = erase(admin, history)
    mark = {
        "at": done["erased"]["at"],
        "user_id": "admin@example.com",
        "columns": ["email", "name", "active"],
        "reasons": True,
        "extra": {"change_rationale": _WHY},
    }
    assert [done[name] for name in ("versions", "changes", "users", "rows")] == [2, 3, 0, 3]
    assert done["erased"] == mark
    assert (done["key"], done["links"]["history"], done["still_live"]) == (
        history.rpartition("/")[2],
        history,
        ["email", "active"],
    )
    page = api.get(history)
    assert page["current"]["state"]["email"] == "ada@example.com"
    for version in page["versions"]:
        assert version["erased"] == ["email", "name", "active"]
        assert {name: value for name, value in version["state"].items() if name != "id"} == {
            "email": None,
            "name": None,
            "active": None,
        }
        assert version["change_info"]["erased"] == [mark]
        assert version["change_info"]["user_id"] == "writer@example.com"
        assert "extra" not in version["change_info"]


def test_chosen_columns_go_and_reasons_may_stay(api: Api, admin: Api, history: str) -> None:
    done = erase(admin, history, columns=["name"], reasons=False)
    assert (done["erased"]["columns"], done["erased"]["reasons"]) == (["name"], False)
    first = api.get(f"{history}/versions/0")
    assert (first["state"]["name"], first["state"]["email"], first["erased"]) == (None, "ada@example.com", ["name"])
    assert first["change_info"]["extra"] == {"change_rationale": "Ada married"}


def test_what_was_erased_is_told_wherever_the_state_is(api: Api, admin: Api, history: str) -> None:
    record = history.replace("/history", "/records")
    at = api.get(f"{history}/versions/0")["valid_from"]
    erase(admin, history, columns=["name"])
    assert api.get(f"{history}/version_at?at={at}")["erased"] == ["name"]
    assert api.get(f"{record}?as_of={at}")["erased"] == ["name"]
    assert api.get(f"/records/user?as_of={at}")["records"][0]["erased"] == ["name"]
    assert "erased" not in api.get(record)
    diff = api.get(f"{history}/diff?from=0&to=2")
    assert (diff["changes"], diff["from"]["erased"]) == ({}, ["name"])
    assert "erased" not in diff["to"]
    for path in (f"{history}/changes", "/history/user"):
        for change in api.get(path)["changes"]:
            assert change["erased"] == ["name"]
            assert "name" not in change["differences"]
    columns = api.get(f"{history}/blame")["columns"]
    assert columns["name"] is None
    assert columns["email"]["operation"] == "insert"


def test_caches_ask_again_and_learn_of_it(api: Api, admin: Api, history: str) -> None:
    record = history.replace("/history", "/records")
    at = api.get(f"{history}/versions/0")["valid_from"]
    transaction = api.get(f"{history}/versions/0")["transaction_id"]
    paths = [
        f"{history}/versions/0",
        f"{history}/diff?from=0&to=1",
        f"{history}/diff?from=0",
        f"{record}?as_of={at}",
        f"/transactions/{transaction}",
    ]

    kept: dict[str, list[str]] = {path: [] for path in paths}
    for columns in ([], ["email"], ["name"]):
        if columns:
            erase(admin, history, columns=columns)
        for path, tags in kept.items():
            response = api.call("GET", path, headers={"If-None-Match": ", ".join(tags)} if tags else {})
            assert (response.status_code, response.headers["Cache-Control"]) == (200, "private, no-cache"), path
            tags.append(response.headers["ETag"])
            assert api.call("GET", path, headers={"If-None-Match": tags[-1]}).status_code == 304
    live = api.call("GET", record).headers["ETag"]
    erase(admin, history)
    assert api.call("GET", record, headers={"If-None-Match": live}).status_code == 304


def test_restoring_takes_what_was_erased(api: Api, admin: Api, history: str) -> None:
    record = history.replace("/history", "/records")
    erase(admin, history, columns=["name"])
    response = api.call("POST", f"{record}/restore", {"version": 0})
    problem = assert_problem(response, 422, "invalid")
    assert problem["errors"] == {"json": {"values": {"name": ["must be given, as history has no value of it"]}}}
    assert api.post(f"{record}/restore", {"version": 0, "values": {"name": "A"}})["state"]["name"] == "A"


def test_deleted_record_and_composite_key(api: Api, admin: Api) -> None:
    created = api.post("/records/release", {"product": "a/b", "cycle": "1,2", "label": "secret"})
    api.delete(created["links"]["record"])
    done = erase(admin, created["links"]["history"])
    assert (done["versions"], done["rows"], done["still_live"]) == (1, 2, [])
    assert api.get(created["links"]["history"])["versions"][0]["state"]["label"] is None


@pytest.mark.parametrize("grants", [["write"], ["release:admin"], ["user:write", "read"]])
def test_only_admins_of_the_model_may(app: Flask, client: FlaskClient, history: str, grants: list[str]) -> None:
    with app.app_context():
        before = all_rows()
        token = create_token(db, "writer2@example.com", Grants.parse(grants))
    response = Api(client, token).call("POST", f"{history}/erase", {}, why=_WHY)
    problem = assert_problem(response, 403, "forbidden")
    assert "admin or user:admin" in problem["detail"]
    assert_problem(client.post(f"{history}/erase", json={}), 401, "unauthenticated")
    with app.app_context():
        assert all_rows()["appuser_history"] == before["appuser_history"]


def test_admin_of_the_model_may(app: Flask, client: FlaskClient, history: str) -> None:
    with app.app_context():
        token = create_token(db, "admin@example.com", Grants.parse(["user:admin"]))
    assert erase(Api(client, token), history)["versions"] == 2


@pytest.mark.parametrize(
    ("body", "headers", "status", "kind", "said"),
    [
        ({}, {}, 400, "change-info-required", "X-Change-Rationale"),
        ({}, {"X-Change-Rationale": " "}, 400, "change-info-required", "X-Change-Rationale"),
        ({}, {"X-Change-Ticket": "1"}, 400, "change-info-required", "X-Change-Rationale"),
        ({"columns": ["id"]}, None, 422, "invalid", "columns"),
        ({"columns": ["password_hash"]}, None, 422, "invalid", "columns"),
        ({"columns": ["colour"]}, None, 422, "invalid", "columns"),
        ({"columns": [], "reasons": False}, None, 422, "invalid", "nothing is to be erased"),
        ({"reasons": "no"}, None, 422, "invalid", "must be true or false"),
        ({"reasons": 0}, None, 422, "invalid", "must be true or false"),
        ({"why": "so"}, None, 422, "invalid", "why"),
        ({}, {"X-Change-Rationale": _WHY, "If-Match": '"v2"'}, 412, "precondition-failed", "has no ETag"),
        (
            {},
            {"X-Change-Rationale": _WHY, "If-Match": '"v2"'},
            412,
            "precondition-failed",
            "precondition does not hold",
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_goes(
    app: Flask, admin: Api, history: str, body: Any, headers: dict[str, str] | None, status: int, kind: str, said: str
) -> None:
    with app.app_context():
        before = all_rows()
    headers = {"X-Change-Rationale": _WHY} if headers is None else headers
    response = admin.call("POST", f"{history}/erase", body, headers=headers)
    assert_problem(response, status, kind)
    assert said in response.text
    with app.app_context():
        assert all_rows() == before


def test_column_that_holds_records_stays(
    app: Flask, api: Api, admin: Api, history: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "CHRONONAUT_RETENTION", {"User": Retention(versions=1, held="name")})
    assert_problem(admin.call("POST", f"{history}/erase", {"columns": ["name"]}, why=_WHY), 422, "invalid")
    assert erase(admin, history)["erased"]["columns"] == ["email", "active"]
    assert api.get(f"{history}/versions/0")["state"]["name"] == "Ada"


def test_unknown_record_is_told(admin: Api) -> None:
    for key in ("7", "x"):
        response = admin.call("POST", f"/history/user/{key}/erase", {}, why=_WHY)
        assert_problem(response, 404, "unknown-record")


def test_nothing_of_the_values_is_left_in_our_tables(app: Flask, api: Api, admin: Api, history: str) -> None:
    record = history.replace("/history", "/records")
    api.patch(record, {"email": "gone@example.com"})
    erase(admin, history)
    with app.app_context(), db.engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT * FROM appuser_history")).all()
    assert not any(text in repr(rows) for text in ("ada@", "Ada", "gone@"))

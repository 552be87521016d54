"""Every documented error is a problem, and leaves the database as it was."""

from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from marshmallow import ValidationError, fields

from app.auth.grants import Grants
from app.auth.tokens import create_token
from app.columns import Strict
from app.db import db
from tests.service.api import Api, all_rows, assert_problem

_JSON = {"Content-Type": "application/json"}


@pytest.fixture
def user(api: Api) -> str:
    """The path of a record with two versions, and of its history with ``/records`` replaced."""
    created = api.post("/records/user", {"email": "ada@example.com"}, why="Signed up")
    api.patch(created["links"]["record"], {"name": "Ada"}, why="Told us her name")
    path: str = created["links"]["record"]
    return path


_REQUESTS: dict[str, tuple[str, str, dict[str, Any], int, str]] = {
    "unknown model": ("GET", "/records/nothing/1", {}, 404, "unknown-model"),
    "unknown model of a history": ("GET", "/history/nothing/1", {}, 404, "unknown-model"),
    "unknown address": ("GET", "/nothing", {}, 404, "not-found"),
    "unknown key": ("GET", "/records/user/2147483647", {}, 404, "unknown-record"),
    "unknown key of a history": ("GET", "/history/user/2147483647", {}, 404, "unknown-record"),
    "a key that is no number": ("GET", "/history/user/ada", {}, 404, "unknown-record"),
    "a key beyond the column's range": ("GET", "/records/user/2147483648", {}, 404, "unknown-record"),
    "a key far beyond any integer": ("PATCH", f"/records/user/{'9' * 40}", {"json": {}}, 404, "unknown-record"),
    "another text of the same key": ("GET", "/records/user/01", {}, 404, "unknown-record"),
    "too few parts of a key": ("GET", "/history/release/python", {}, 404, "unknown-record"),
    "an unknown escape in a key": ("GET", "/history/release/a~9,b", {}, 404, "unknown-record"),
    "no UTF-8 in a parameter": ("GET", "{history}?cursor=%FF", {}, 400, "malformed-request"),
    "NUL in a key": ("GET", "/history/release/a%00,b", {}, 404, "unknown-record"),
    "unknown version": ("GET", "{history}/versions/7", {}, 404, "unknown-version"),
    "a version beyond any": ("GET", "{history}/versions/99999999999999999999", {}, 404, "not-found"),
    "before the record was": ("GET", "{history}/version_at?at=2001-01-01T00:00:00Z", {}, 404, "unknown-version"),
    "diff from an unknown version": ("GET", "{history}/diff?from=9", {}, 404, "unknown-version"),
    "diff backwards": ("GET", "{history}/diff?from=1&to=0", {}, 422, "invalid"),
    "diff from nothing": ("GET", "{history}/diff", {}, 422, "invalid"),
    "diff from neither": ("GET", "{history}/diff?from=first", {}, 422, "invalid"),
    "malformed JSON": ("PATCH", "{record}", {"data": b'{"name": ', "headers": _JSON}, 400, "malformed-request"),
    "no UTF-8": ("PATCH", "{record}", {"data": b'{"name": "\xff"}', "headers": _JSON}, 400, "malformed-request"),
    "NaN": ("PATCH", "{record}", {"data": b'{"name": NaN}', "headers": _JSON}, 400, "malformed-request"),
    "too deep": ("PATCH", "{record}", {"data": b"[" * 100_000, "headers": _JSON}, 400, "malformed-request"),
    "no JSON": ("PATCH", "{record}", {"data": b"name=Ada"}, 415, "unsupported-media-type"),
    "a form": ("POST", "/records/user", {"data": {"email": "a@b.org"}}, 415, "unsupported-media-type"),
    "no object": ("PATCH", "{record}", {"json": ["name"]}, 422, "invalid"),
    "wrong type": ("PATCH", "{record}", {"json": {"name": 7}}, 422, "invalid"),
    "text for a flag": ("PATCH", "{record}", {"json": {"active": "yes"}}, 422, "invalid"),
    "null for a required column": ("PATCH", "{record}", {"json": {"email": None}}, 422, "invalid"),
    "too long": ("PATCH", "{record}", {"json": {"name": "a" * 201}}, 422, "invalid"),
    "NUL in a text": ("PATCH", "{record}", {"json": {"name": "a\0b"}}, 422, "invalid"),
    "a lone surrogate": ("PATCH", "{record}", {"data": rb'{"name": "\ud800"}', "headers": _JSON}, 422, "invalid"),
    "a lone surrogate in a name": ("PATCH", "{record}", {"data": rb'{"\ud800": ""}', "headers": _JSON}, 422, "invalid"),
    "instant without offset in a body": (
        "PATCH",
        "{record}",
        {"json": {"last_seen_at": "2026-01-01T00:00:00"}},
        422,
        "invalid",
    ),
    "unknown field": ("PATCH", "{record}", {"json": {"nickname": "A"}}, 422, "invalid"),
    "the version as a field": ("PATCH", "{record}", {"json": {"version": 9}}, 422, "invalid"),
    "another key": ("PATCH", "{record}", {"json": {"id": 9}}, 422, "invalid"),
    "a required field left out": ("POST", "/records/user", {"json": {"name": "A"}}, 422, "invalid"),
    "an empty part of a key": ("POST", "/records/release", {"json": {"product": "", "cycle": "1"}}, 422, "invalid"),
    "unknown parameter": ("GET", "{history}?colour=red", {}, 422, "invalid"),
    "unknown parameter of a write": ("DELETE", "{record}?force=1", {}, 422, "invalid"),
    "instant without offset": ("GET", "{history}/version_at?at=2026-01-01T00:00:00", {}, 422, "invalid"),
    "no instant": ("GET", "{history}/has_changed_since?since=yesterday", {}, 422, "invalid"),
    "an instant that is not": ("GET", "{history}?before=2026-02-30T00:00:00Z", {}, 422, "invalid"),
    "an instant before all years": ("GET", "{history}?after=0001-01-01T00:00:00%2B14:00", {}, 422, "invalid"),
    "limit of none": ("GET", "{history}?limit=0", {}, 422, "invalid"),
    "limit too high": ("GET", "{history}?limit=501", {}, 422, "invalid"),
    "unknown order": ("GET", "{history}?order=random", {}, 422, "invalid"),
    "a forged cursor": ("GET", "{history}?cursor=WzBd.forged", {}, 422, "invalid"),
    "a parameter given twice": ("GET", "{history}?limit=1&limit=2", {}, 422, "invalid"),
    "a limit that is no plain number": ("GET", "{history}?limit=1_0", {}, 422, "invalid"),
    "If-Match of a read": ("GET", "{record}", {"headers": {"If-Match": '"v0"'}}, 412, "precondition-failed"),
    "If-None-Match of a write": (
        "PUT",
        "{record}",
        {"json": {"email": "b@example.com"}, "headers": {"If-None-Match": "*"}},
        412,
        "precondition-failed",
    ),
    "a compressed body": (
        "PATCH",
        "{record}",
        {"data": b"{}", "headers": _JSON | {"Content-Encoding": "gzip"}},
        415,
        "unsupported-media-type",
    ),
    "method not allowed": ("DELETE", "{history}", {}, 405, "method-not-allowed"),
    "stale If-Match": (
        "PATCH",
        "{record}",
        {"json": {"name": "B"}, "headers": {"If-Match": '"v0"'}},
        412,
        "precondition-failed",
    ),
    "weak If-Match": ("DELETE", "{record}", {"headers": {"If-Match": 'W/"v1"'}}, 412, "precondition-failed"),
    "empty If-Match": (
        "PUT",
        "{record}",
        {"json": {"email": "a@b.c"}, "headers": {"If-Match": ""}},
        412,
        "precondition-failed",
    ),
    "change headers too long": (
        "DELETE",
        "{record}",
        {"headers": {"X-Change-Rationale": "a" * 8192}},
        400,
        "change-header-invalid",
    ),
    "too many change headers": (
        "DELETE",
        "{record}",
        {"headers": {f"X-Change-{n}": "a" for n in range(17)}},
        400,
        "change-header-invalid",
    ),
    "change header without name": ("DELETE", "{record}", {"headers": {"X-Change-": "a"}}, 400, "change-header-invalid"),
    "control character": (
        "DELETE",
        "{record}",
        {"headers": {"X-Change-Rationale": "a\tb"}},
        400,
        "change-header-invalid",
    ),
    "encoded control character": (
        "DELETE",
        "{record}",
        {"headers": {"X-Change-Rationale": "UTF-8''a%0Db"}},
        400,
        "change-header-invalid",
    ),
    "cut ext-value": (
        "DELETE",
        "{record}",
        {"headers": {"X-Change-Rationale": "UTF-8''a%F"}},
        400,
        "change-header-invalid",
    ),
    "change header that is no UTF-8": (
        "DELETE",
        "{record}",
        {"headers": {"X-Change-Rationale": "\xff"}},
        400,
        "change-header-invalid",
    ),
    "body too large": (
        "PATCH",
        "{record}",
        {"data": b" " * (1024 * 1024 + 1), "headers": _JSON},
        413,
        "content-too-large",
    ),
    "value that must be unique": ("POST", "/records/user", {"json": {"email": "ada@example.com"}}, 409, "conflict"),
    "unknown kind of problem": ("GET", "/problems/nothing", {}, 404, "not-found"),
}


@pytest.mark.parametrize("name", _REQUESTS)
def test_error_is_a_problem_and_changes_nothing(name: str, app: Flask, api: Api, user: str) -> None:
    method, path, sent, status, kind = _REQUESTS[name]
    with app.app_context():
        before = all_rows()
    headers = api.headers | sent.get("headers", {})
    url = path.format(record=user, history=user.replace("/records", "/history"))

    response = api.client.open(url, method=method, **sent | {"headers": headers})

    assert_problem(response, status, kind)
    with app.app_context():
        assert all_rows() == before


@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE"])
def test_write_without_token_is_unauthenticated(method: str, app: Flask, api: Api, user: str) -> None:
    with app.app_context():
        before = all_rows()
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer \xff"},
        {"Authorization": "Basic YTpi"},
    ):
        response = api.client.open(user, method=method, json={"email": "b@example.com"}, headers=headers)
        assert_problem(response, 401, "unauthenticated")
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    with app.app_context():
        assert all_rows() == before


def test_nothing_of_a_write_is_read_before_it_is_known_who_sends_it(api: Api, user: str) -> None:
    for body in ({"nickname": "A"}, {"data": b"{"}):
        sent = body if "data" in body else {"json": body}
        assert_problem(api.client.patch(user, **sent), 401, "unauthenticated")


def test_log_of_an_unexpected_database_error_holds_no_value(
    app: Flask, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    with app.app_context(), db.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE appuser RENAME COLUMN name TO former_name")
    try:
        body = {"email": "a@example.com", "password_hash": "c0ffee-secret"}
        response = api.call("POST", "/records/user", body)
        assert_problem(response, 500, "internal-error")
        assert "c0ffee" not in caplog.text + response.text
        assert caplog.text
    finally:
        with app.app_context(), db.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE appuser RENAME COLUMN former_name TO name")


def test_reading_without_token_is_unauthenticated(api: Api, user: str) -> None:
    for path in (user, "/records/user", "/history", user.replace("/records", "/history")):
        assert_problem(api.client.get(path), 401, "unauthenticated")


def test_reading_without_token_can_be_opened(app: Flask, api: Api, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.config, "OPEN_READING", True)
    assert api.client.get(user).status_code == 200
    assert_problem(api.client.delete(user), 401, "unauthenticated")


def test_write_with_a_token_for_reading_is_forbidden(app: Flask, api: Api, user: str, read_token: str) -> None:
    reader = Api(api.client, read_token)
    assert reader.get(user)["state"]["name"] == "Ada"
    with app.app_context():
        before = all_rows()
    assert_problem(reader.call("PATCH", user, {"name": "B"}), 403, "forbidden")
    assert_problem(reader.call("DELETE", user), 403, "forbidden")
    assert_problem(reader.call("POST", "/records/user", {"email": "b@example.com"}), 403, "forbidden")
    with app.app_context():
        assert all_rows() == before


def test_expired_token_is_unauthenticated(app: Flask, api: Api, user: str) -> None:
    with app.app_context():
        token = create_token(db, "late@example.com", Grants.parse(["write"]), timedelta(seconds=-1))
    assert_problem(Api(api.client, token).call("DELETE", user), 401, "unauthenticated")


def test_deleted_record_is_gone_and_its_history_is_named(api: Api, user: str) -> None:
    api.delete(user)
    for method, body in (("GET", None), ("PATCH", {}), ("DELETE", None), ("PUT", {"email": "a@b.c"})):
        problem = assert_problem(api.call(method, user, body), 410, "deleted")
        assert user.replace("/records", "/history") in problem["detail"]


def test_release_that_exists_is_a_conflict(api: Api) -> None:
    api.post("/records/release", {"product": "python", "cycle": "3.13"})
    response = api.call("POST", "/records/release", {"product": "python", "cycle": "3.13"})
    assert_problem(response, 409, "record-exists")


def test_method_not_allowed_names_what_is(api: Api, user: str) -> None:
    response = api.call("POST", user, {})
    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"
    assert response.headers["Allow"] == api.call("OPTIONS", user).headers["Allow"]
    assert response.json["detail"] == "this address takes DELETE, GET, HEAD, OPTIONS, PATCH, PUT, not 'POST'"


_COLUMNS = "there is no such field; there are email, name, active, password_hash, last_seen_at"


@pytest.mark.parametrize(
    ("body", "detail", "errors"),
    [
        ({"nickname": "A"}, "nickname in the body", {"nickname": [_COLUMNS]}),
        ({"id": 9}, "id in the body", {"id": [_COLUMNS]}),
        ({"name": 7}, "name in the body", {"name": ["must be a text"]}),
        ({"active": "yes"}, "active in the body", {"active": ["must be true or false"]}),
        ({"email": None}, "email in the body", {"email": ["must not be null"]}),
        (["name"], "the body", {"_schema": ["must be an object"]}),
    ],
)
def test_errors_say_what_would_be_right(api: Api, user: str, body: Any, detail: str, errors: Any) -> None:
    problem = assert_problem(api.call("PATCH", user, body), 422, "invalid")
    assert problem["detail"] == f"not as it must be: {detail}; errors say what is wrong with each"
    assert problem["errors"] == {"json": errors}


def test_errors_of_what_is_missing_or_unknown_elsewhere_say_what_would_be_right(api: Api, user: str) -> None:
    problem = assert_problem(api.call("POST", "/records/user", {"name": "A"}), 422, "invalid")
    assert problem["errors"] == {"json": {"email": ["is missing, and must be given"]}}
    problem = assert_problem(api.call("GET", f"{user}?colour=red"), 422, "invalid")
    assert problem["errors"] == {"query": {"colour": ["there is no such parameter; there are as_of"]}}
    problem = assert_problem(api.call("DELETE", f"{user}?force=1"), 422, "invalid")
    assert problem["errors"] == {"query": {"force": ["there is no such parameter; there is none here"]}}
    problem = assert_problem(api.call("POST", f"{user}/restore", {"version": "0", "values": {"a": 1}}), 422, "invalid")
    assert problem["errors"] == {
        "json": {"version": ["must be a number without a fraction"], "values": {"a": [_COLUMNS]}}
    }


def test_fields_keep_messages_of_their_own() -> None:
    class Query(Strict):
        codes = fields.List(fields.Integer(error_messages={"invalid": "must be a code, as 17"}))
        ids = fields.List(fields.UUID())

    with pytest.raises(ValidationError) as raised:
        Query().load({"codes": ["a"], "ids": ["a"]})
    assert raised.value.messages == {
        "codes": {0: ["must be a code, as 17"]},
        "ids": {0: ["must be a UUID, as 01990e5c-7d2a-7a31-9c1f-0d6a54b1f0aa"]},
    }


def test_invalid_fields_are_named(api: Api, user: str) -> None:
    problem = assert_problem(api.call("PATCH", user, {"nickname": "A", "name": 7}), 422, "invalid")
    assert problem["errors"]["json"].keys() == {"nickname", "name"}


def test_unknown_name_is_told_only_where_a_field_could_have_it(api: Api, user: str) -> None:
    body = {"emial": "A", "it is a secret": 1, "x" * 65: 1}
    problem = assert_problem(api.call("PATCH", user, body), 422, "invalid")
    assert problem["errors"]["json"].keys() == {"emial", "…"}
    assert "emial in the body" in problem["detail"]
    assert "secret" not in str(problem)


def test_change_info_can_be_required(app: Flask, api: Api, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.config, "CHRONONAUT_REQUIRE_EXTRA_CHANGE_INFO", True)
    with app.app_context():
        before = all_rows()
    assert_problem(api.call("PATCH", user, {"name": "B"}), 400, "change-info-required")
    assert_problem(api.call("DELETE", user), 400, "change-info-required")
    with app.app_context():
        assert all_rows() == before
    api.patch(user, {"name": "B"}, why="Asked for it")


def test_unexpected_error_is_logged_and_tells_nothing(
    app: Flask, api: Api, user: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the secret plan")

    monkeypatch.setattr("app.records.routes.find", fail)
    response = api.call("GET", user)
    problem = assert_problem(response, 500, "internal-error")
    assert "secret" not in str(problem)
    assert "the secret plan" in caplog.text

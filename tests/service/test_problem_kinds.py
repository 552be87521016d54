"""The examples of problems in the OpenAPI document are what the service really answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from app.auth.grants import Grants
from app.auth.logins import create_login
from app.db import db
from app.models import User
from app.problems import KINDS
from tests.service.api import Api, assert_problem
from tests.service.contract import PROBLEM
from tests.service.serving import running

_PASSWORD = "correct horse battery staple"
_JSON = {"Content-Type": "application/json"}
_RELEASE = {"product": "python", "cycle": "3.13"}


def _examples(document: Any) -> dict[str, Any]:
    """Kind → its example; each has one, wherever it stands."""
    examples: dict[str, Any] = {}
    for response in document["components"]["responses"].values():
        for kind, example in response["content"][PROBLEM]["examples"].items():
            assert example["description"] == KINDS[kind].description
            assert examples.setdefault(kind, example["value"]) == example["value"]
    return examples


@pytest.fixture
def example_of(apps: dict[str, Flask]) -> Callable[[str], Any]:
    return _examples(apps["sqlite"].test_client().get("/openapi.json").json).__getitem__


_REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "malformed-request": ("PATCH", "/records/user/42", {"data": b'{"name": ', "headers": _JSON}),
    "change-header-invalid": ("DELETE", "/records/user/42", {"headers": {"X-Change-Rationale": "a\tb"}}),
    "unauthenticated": ("GET", "/records/user", {"headers": {"Authorization": "Bearer wrong"}}),
    "login-failed": ("POST", "/session", {"json": {"email": "ada@example.com", "password": "wrong"}}),
    "not-found": ("GET", "/record/user/42", {}),
    "unknown-model": ("GET", "/records/users/42", {}),
    "unknown-record": ("GET", "/records/user/42", {}),
    "unknown-version": ("GET", "/history/release/python,3.13/versions/7", {}),
    "unknown-transaction": ("GET", "/transactions/01990e5c-7d2a-7a31-9c1f-0d6a54b1f0aa", {}),
    "method-not-allowed": ("DELETE", "/history/user/42", {}),
    "not-acceptable": ("GET", "/records/user", {"headers": {"Accept": "text/html"}}),
    "record-exists": ("POST", "/records/release", {"json": _RELEASE}),
    "conflict": ("POST", "/records/user", {"json": {"email": "grace@example.com"}}),
    "bulk-failed": (
        "POST",
        "/bulk/release",
        {
            "json": {
                "items": [
                    {"operation": "create", "record": {"product": "python", "cycle": "3.14"}},
                    {"operation": "create", "record": _RELEASE},
                ]
            }
        },
    ),
    "bulk-invalid": (
        "POST",
        "/bulk/release",
        {
            "json": {
                "items": [
                    {"operation": "create", "record": {"product": "python"}},
                    {"operation": "create", "record": _RELEASE},
                ]
            }
        },
    ),
    "deleted": ("GET", "/records/release/python,3.12", {}),
    "precondition-failed": ("DELETE", "/records/release/python,3.13", {"headers": {"If-Match": '"v0"'}}),
    "content-too-large": ("PATCH", "/records/user/42", {"data": b" " * (1024 * 1024 + 1), "headers": _JSON}),
    "uri-too-long": ("GET", f"/records/user?cursor={'a' * 7993}", {}),
    "unsupported-media-type": ("PATCH", "/records/user/42", {"data": b"A", "headers": {"Content-Type": "text/plain"}}),
    "invalid": ("GET", "/records/user?limit=0", {}),
}
_OF_THE_SERVER: dict[str, bytes] = {
    "request-timeout": b"Content-Length: 9\r\nContent-Type: application/json",
    "headers-too-large": b"X-Long: " + b"a" * 17_000,
    "expectation-failed": b"Expect: the unexpected",
    "not-implemented": b"Transfer-Encoding: xchunked",
    "http-version-not-supported": b"",
}
"""What gunicorn answers: kind → headers that it does so for, of a request without a body."""
_OTHERS = {
    *("change-info-required", "forbidden", "csrf-failed", "concurrent-change", "too-many-requests"),
    *("internal-error", "unavailable", "outcome-unknown", "purged"),
}
"""Those that take more than a request; each has a test of its own."""


def test_every_kind_has_an_example_and_a_test(api: Api) -> None:
    assert _examples(api.get("/openapi.json")).keys() == KINDS.keys()
    assert _REQUESTS.keys() | _OF_THE_SERVER.keys() | _OTHERS == KINDS.keys()


@pytest.mark.parametrize("kind", _REQUESTS)
def test_example_is_what_is_answered(kind: str, app: Flask, api: Api, example_of: Callable[[str], Any]) -> None:
    with app.app_context():
        # With a key of its own: the next that the database gives could be 42, which examples ask for.
        db.session.add(User(id=1, email="grace@example.com"))
        db.session.commit()
    api.patch(api.post("/records/release", _RELEASE)["links"]["record"], {"latest": "3.13.1"})
    api.delete(api.post("/records/release", {"product": "python", "cycle": "3.12"})["links"]["record"])
    method, path, sent = _REQUESTS[kind]

    response = api.client.open(path, method=method, **sent | {"headers": api.headers | sent.get("headers", {})})

    assert assert_problem(response, KINDS[kind].status, kind) == example_of(kind)


def test_example_of_a_reason_that_is_missing(own_api: Api, example_of: Callable[[str], Any]) -> None:
    response = own_api.call("POST", "/records/invoice", {"amount": 1}, why="Ordered")
    assert assert_problem(response, 400, "change-info-required") == example_of("change-info-required")


def test_example_of_too_few_grants(api: Api, read_token: str, example_of: Callable[[str], Any]) -> None:
    response = Api(api.client, read_token).call("DELETE", "/records/user/42")
    assert assert_problem(response, 403, "forbidden") == example_of("forbidden")


def test_example_of_a_missing_csrf_token(app: Flask, example_of: Callable[[str], Any]) -> None:
    with app.app_context():
        create_login(db, "ada@example.com", _PASSWORD, Grants.parse(["write"]))
    browser = app.test_client()
    assert browser.post("/session", json={"email": "ada@example.com", "password": _PASSWORD}).status_code == 201
    assert assert_problem(browser.delete("/session"), 403, "csrf-failed") == example_of("csrf-failed")


def test_example_of_a_change_by_another_request(api: Api, example_of: Callable[[str], Any]) -> None:
    path = api.post("/records/release", _RELEASE)["links"]["record"]

    def change_meanwhile(session: Session, *_: object) -> None:
        session.connection().exec_driver_sql("UPDATE release SET version = version + 1")

    sa.event.listen(db.session, "before_flush", change_meanwhile)
    try:
        response = api.call("PATCH", path, {"latest": "3.13.2"})
    finally:
        sa.event.remove(db.session, "before_flush", change_meanwhile)
    assert assert_problem(response, 409, "concurrent-change") == example_of("concurrent-change")


def test_example_of_a_limit(app_with: Callable[..., Flask], write_token: str, example_of: Callable[[str], Any]) -> None:
    limited = Api(app_with(CHRONONAUT_RATE_LIMITS="1 per hour").test_client(), write_token)
    limited.get("/records/user")
    response = limited.call("GET", "/records/user")
    assert assert_problem(response, 429, "too-many-requests") == example_of("too-many-requests")


def test_example_of_a_defect(api: Api, example_of: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the secret plan")

    monkeypatch.setattr("app.records.routes.find", fail)
    response = api.call("GET", "/records/user/42")
    assert assert_problem(response, 500, "internal-error") == example_of("internal-error")


def test_example_of_a_database_that_does_not_answer(
    app_with: Callable[..., Flask], write_token: str, example_of: Callable[[str], Any]
) -> None:
    app = app_with(DATABASE_URL="sqlite:////nowhere/at/all.db")
    response = Api(app.test_client(), write_token).call("GET", "/records/user")
    assert assert_problem(response, 503, "unavailable") == example_of("unavailable")


def test_examples_of_what_the_server_answers(
    app: Flask, write_token: str, database_url: str, tmp_path: Path, example_of: Callable[[str], Any]
) -> None:
    with running(database_url, write_token, tmp_path / "gunicorn.log", options=["--timeout", "2"]) as server:
        for kind, headers in _OF_THE_SERVER.items():
            version = b"3.0" if kind == "http-version-not-supported" else b"1.1"
            authorization = b"Authorization: Bearer " + write_token.encode()
            lines = [b"POST /records/user HTTP/" + version, b"Host: localhost", authorization, headers]
            answer = server.raw(b"\r\n".join(filter(None, lines)))
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % KINDS[kind].status), kind
            assert app.json.loads(body) == example_of(kind)


def test_kinds_are_told_of_to_everyone(api: Api) -> None:
    for kind, what in KINDS.items():
        response = api.client.get(f"/problems/{kind}")
        assert response.status_code == 200
        assert response.json == {
            "type": f"/problems/{kind}",
            "title": what.title,
            "status": what.status,
            "description": what.description,
        }
    assert_problem(api.client.get("/problems/nothing"), 404, "not-found")

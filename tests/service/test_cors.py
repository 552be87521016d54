"""Cross-origin requests: which pages may use the service, and what they can read."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.db import db
from tests.service.api import Api, assert_problem
from tests.service.conftest import SECRET_KEY
from tests.service.serving import running

_ORIGIN, _OTHER, _FOREIGN = "https://app.example.com", "http://[::1]:3000", "https://evil.example.com"
_LISTED = f"{_ORIGIN},{_OTHER}"
_PREFLIGHT = {"Origin": _ORIGIN, "Access-Control-Request-Method": "PATCH"}


@pytest.fixture
def client_with(app: Flask, database_url: str) -> Iterator[Callable[[str], FlaskClient]]:
    """Makes clients of the service with some origins allowed."""
    made: list[Flask] = []

    def make(origins: str) -> FlaskClient:
        settings = {"SECRET_KEY": SECRET_KEY, "DATABASE_URL": database_url, "CHRONONAUT_CORS_ORIGINS": origins}
        made.append(create_app(settings))
        return made[-1].test_client()

    yield make
    for one in made:
        with one.app_context():
            db.engine.dispose()


def _cors(response: Any) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("Access-Control-")}


def _names(header: str) -> set[str]:
    return {name.lower() for name in header.split(", ")}


def test_service_without_origins_says_nothing_of_cors(api: Api) -> None:
    for method, path in (("OPTIONS", "/records/user/1"), ("GET", "/records/user"), ("GET", "/nothing")):
        response = api.call(method, path, headers=_PREFLIGHT)
        assert _cors(response) == {}
        assert "Origin" not in response.vary


def test_preflight_of_a_listed_origin_allows_our_headers_and_any_reason(
    client_with: Callable[[str], FlaskClient],
) -> None:
    asked = (
        "authorization,content-type,if-match,if-none-match,accept-datetime,x-request-id,x-csrf-token,"
        "x-change-rationale,X-Change-Ticket-No,x-forwarded-for,cookie,x-change-,x-change-a:b,xx-change-a"
    )
    sent = _PREFLIGHT | {"Access-Control-Request-Headers": asked}
    response = client_with(_LISTED).options("/records/user/1", headers=sent)
    assert response.status_code == 204
    cors = _cors(response)
    assert cors["Access-Control-Allow-Origin"] == _ORIGIN
    assert cors["Access-Control-Allow-Credentials"] == "true"
    assert _names(cors["Access-Control-Allow-Headers"]) == {
        "authorization",
        "content-type",
        "if-match",
        "if-none-match",
        "accept-datetime",
        "x-request-id",
        "x-csrf-token",
        "x-change-rationale",
        "x-change-ticket-no",
    }
    assert {"get", "head", "post", "put", "patch", "delete"} <= _names(cors["Access-Control-Allow-Methods"])
    assert cors["Access-Control-Max-Age"] == "7200"
    assert "Origin" in response.vary


@pytest.mark.parametrize("origin", [_ORIGIN, _OTHER])
def test_listed_origin_reads_our_headers_of_every_answer(
    client_with: Callable[[str], FlaskClient], write_token: str, origin: str
) -> None:
    api = Api(client_with(_LISTED), write_token)
    record = api.post("/records/user", {"email": "a@example.com"})["links"]["record"]
    for path, headers, status in (
        (record, {}, 200),
        (record, {"If-None-Match": "*"}, 304),
        (record, {"Authorization": "Bearer wrong"}, 401),
        ("/nothing", {}, 404),
        (record, {"Accept": "text/html"}, 406),
    ):
        response = api.call("GET", path, headers=headers | {"Origin": origin})
        assert response.status_code == status
        cors = _cors(response)
        assert cors["Access-Control-Allow-Origin"] == origin
        assert cors["Access-Control-Allow-Credentials"] == "true"
        exposed = _names(cors["Access-Control-Expose-Headers"])
        assert {name.lower() for name in ("ETag", "Link", "Location", "Memento-Datetime", "Retry-After")} <= exposed
        assert {"x-request-id", "www-authenticate", "allow", "accept", "accept-encoding", "accept-patch"} <= exposed
        # No answer has them.
        assert exposed.isdisjoint({"ratelimit", "ratelimit-policy"})
        assert "Origin" in response.vary


@pytest.mark.parametrize(
    "origin", [_FOREIGN, "null", f"{_ORIGIN}.evil.com", f"{_ORIGIN}:8443", "http://app.example.com", None]
)
def test_other_origin_gets_no_header_of_cors(client_with: Callable[[str], FlaskClient], origin: str | None) -> None:
    client = client_with(_LISTED)
    for method, path in (("OPTIONS", "/records/user/1"), ("GET", "/openapi.json"), ("GET", "/nothing")):
        sent = _PREFLIGHT | {"Origin": origin} if origin else {}
        response = client.open(path, method=method, headers=sent)
        assert _cors(response) == {}
        # A cache would give this answer to a page that may read it.
        assert "Origin" in response.vary


def test_every_origin_may_be_allowed_without_cookies(client_with: Callable[[str], FlaskClient]) -> None:
    client = client_with("*")
    for sent in ({"Origin": _FOREIGN}, {"Origin": "null"}, {}):
        response = client.get("/openapi.json", headers=sent)
        cors = _cors(response)
        assert cors["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in cors
        # It is the same for all.
        assert "Origin" not in response.vary
    preflight = client.options("/records/user/1", headers=_PREFLIGHT | {"Access-Control-Request-Headers": "x-change-a"})
    assert _cors(preflight)["Access-Control-Allow-Headers"] == "x-change-a"
    assert "Access-Control-Allow-Credentials" not in _cors(preflight)


def test_preflight_of_what_is_not_there_is_a_problem(client_with: Callable[[str], FlaskClient]) -> None:
    assert_problem(client_with(_LISTED).options("/nothing", headers=_PREFLIGHT), 404, "not-found")


def test_page_of_a_listed_origin_uses_the_running_service(
    app: Flask, write_token: str, database_url: str, tmp_path: Path
) -> None:
    settings = {"CHRONONAUT_CORS_ORIGINS": _LISTED}
    with running(database_url, write_token, tmp_path / "gunicorn.log", settings=settings) as server:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-change-a"}
        preflight = server.pool.request("OPTIONS", "/records/user", headers={"Origin": _ORIGIN} | asked)
        assert preflight.status == 204
        assert preflight.headers["Access-Control-Allow-Headers"] == "authorization, x-change-a"
        assert preflight.headers["Access-Control-Allow-Origin"] == _ORIGIN
        sent = {"Origin": _ORIGIN, "Authorization": f"Bearer {write_token}", "X-Change-A": "b"}
        answer = server.pool.request("POST", "/records/user", json={"email": "a@example.com"}, headers=sent)
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (201, _ORIGIN)
        foreign = server.pool.request("OPTIONS", "/records/user", headers={"Origin": _FOREIGN} | asked)
        assert "Access-Control-Allow-Origin" not in foreign.headers

"""Who asks too often is told to wait; who asks for others, or from elsewhere, is not."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from limits.storage import MemoryStorage

from app import create_app
from app.auth.access import Principal
from app.auth.grants import Grants
from app.auth.tokens import create_token
from app.db import db
from app.limits import limit_failed_logins
from app.problems import Problem
from app.settings import SettingError
from tests.service.api import Api, assert_problem
from tests.service.conftest import SECRET_KEY

_THREE = {"CHRONONAUT_RATE_LIMITS": "3 per hour", "CHRONONAUT_TRUSTED_PROXIES": "127.0.0.1"}


def _ask(app: Flask, address: str, token: str | None = None, path: str = "/records/user") -> Any:
    return Api(app.test_client(), token).call("GET", path, headers={"X-Forwarded-For": address})


def test_user_is_limited_over_all_operations_and_addresses(
    app_with: Callable[..., Flask], read_token: str, write_token: str
) -> None:
    app = app_with(**_THREE)
    for left, path in ((2, "/records/user"), (1, "/history"), (0, "/history/user")):
        response = _ask(app, f"198.51.100.{left}", read_token, path)
        assert response.status_code == 200
        assert response.headers["X-RateLimit-Limit"] == "3"
        assert response.headers["X-RateLimit-Remaining"] == str(left)
        assert "Retry-After" not in response.headers
    response = _ask(app, "198.51.100.7", read_token)
    problem = assert_problem(response, 429, "too-many-requests")
    assert "Retry-After" in problem["detail"]
    assert 0 < int(response.headers["Retry-After"]) <= 3600
    assert response.headers["X-RateLimit-Remaining"] == "0"
    assert int(response.headers["X-RateLimit-Reset"]) > 1_700_000_000
    assert _ask(app, "198.51.100.7", write_token).status_code == 200


def test_another_token_of_a_user_does_not_help(app: Flask, app_with: Callable[..., Flask], read_token: str) -> None:
    with app.app_context():
        another = create_token(db, "reader@example.com", Grants.parse(["read"]))
    limited = app_with(**_THREE)
    statuses = [_ask(limited, "198.51.100.7", token).status_code for token in (read_token, another) * 2]
    assert statuses == [200, 200, 200, 429]


def test_address_is_limited_where_nobody_is_known(app_with: Callable[..., Flask], read_token: str) -> None:
    app = app_with(**_THREE)
    tokens = (None, "wrong", None, "another wrong")
    statuses = [_ask(app, "198.51.100.7", token).status_code for token in tokens]
    assert statuses == [401, 401, 401, 429]
    assert _ask(app, "198.51.100.8").status_code == 401
    assert _ask(app, "198.51.100.7", read_token).status_code == 200


def test_what_is_not_there_is_limited_too(app_with: Callable[..., Flask]) -> None:
    app = app_with(**_THREE)
    assert [_ask(app, "198.51.100.7", path="/nothing").status_code for _ in range(4)] == [404, 404, 404, 429]


def test_preflights_are_not_limited(app_with: Callable[..., Flask]) -> None:
    client = app_with(**_THREE, CHRONONAUT_CORS_ORIGINS="https://example.com").test_client()
    preflight = {"Origin": "https://example.com", "Access-Control-Request-Method": "GET"}
    assert {client.options("/records/user", headers=preflight).status_code for _ in range(9)} == {204}
    assert client.get("/records/user").headers["X-RateLimit-Remaining"] == "2"


def test_addresses_of_an_ipv6_client_count_as_one(app_with: Callable[..., Flask]) -> None:
    app = app_with(**_THREE)
    assert [_ask(app, f"2001:db8::{n}").status_code for n in range(4)] == [401, 401, 401, 429]
    assert _ask(app, "2001:db8:0:1::1").status_code == 401


def test_made_up_address_does_not_help(app_with: Callable[..., Flask]) -> None:
    client = app_with(CHRONONAUT_RATE_LIMITS="3 per hour").test_client()
    peer = {"REMOTE_ADDR": "203.0.113.9"}
    made_up = [{"X-Forwarded-For": f"198.51.100.{number}"} for number in range(4)]
    responses = [client.get("/records/user", headers=headers, environ_base=peer) for headers in made_up]
    assert [response.status_code for response in responses] == [401, 401, 401, 429]


def test_nobody_is_limited_by_default(app: Flask) -> None:
    responses = [_ask(app, "198.51.100.7") for _ in range(100)]
    assert {response.status_code for response in responses} == {401}
    assert "X-RateLimit-Limit" not in responses[-1].headers


class _Unreachable(MemoryStorage):
    """A storage that does not answer."""

    STORAGE_SCHEME = ["unreachable"]  # noqa: RUF012  as limits wants it

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        raise ConnectionError("nobody listens")

    def check(self) -> bool:
        return False


def test_storage_that_does_not_answer_is_replaced_by_memory(
    app_with: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    app = app_with(**_THREE, CHRONONAUT_RATE_LIMIT_STORAGE="unreachable://")
    assert [_ask(app, "198.51.100.7").status_code for _ in range(4)] == [401, 401, 401, 429]
    assert "falling back to in-memory storage" in caplog.text


@pytest.mark.parametrize(
    ("storage", "reason"),
    [
        ("nothing://user:hidden@host", "there is no such storage"),
        ("memory", "there is no such storage"),
        ("async+memory://", "there is no such storage"),
        ("redis://[user:hidden", "there is no such storage"),
    ],
)
def test_storage_that_is_not_stops_the_start(storage: str, reason: str) -> None:
    settings = {"SECRET_KEY": SECRET_KEY, "DATABASE_URL": "sqlite://", "CHRONONAUT_RATE_LIMIT_STORAGE": storage}
    with pytest.raises(SettingError, match=f"CHRONONAUT_RATE_LIMIT_STORAGE must be memory:// .*{reason}") as refused:
        create_app(settings)
    assert "hidden" not in str(refused.value)


def _authenticate(email: str, password: str) -> Principal:
    if password != "right":
        raise Problem("unauthenticated", "the e-mail or the password is wrong")
    return Principal(email, Grants())


@pytest.fixture
def log_in(app_with: Callable[..., Flask]) -> Callable[..., Any]:
    """Logs in at an address, where a login is a view of `_authenticate`."""
    app = app_with(CHRONONAUT_TRUSTED_PROXIES="127.0.0.1")
    (limiter,) = app.extensions["limiter"]
    authenticate = limit_failed_logins(limiter, _authenticate)
    app.add_url_rule(
        "/log-in/<email>/<password>", "log_in", lambda email, password: authenticate(email, password).email
    )

    def log_in(email: str, password: str, address: str) -> Any:
        return app.test_client().get(f"/log-in/{email}/{password}", headers={"X-Forwarded-For": address})

    return log_in


def test_failed_logins_of_an_address_are_limited(log_in: Callable[..., Any]) -> None:
    statuses = [log_in(f"{n}@example.com", "wrong", "198.51.100.7").status_code for n in range(21)]
    assert statuses == [401] * 20 + [429]
    response = log_in("ada@example.com", "right", "198.51.100.7")
    assert_problem(response, 429, "too-many-requests")
    assert 0 < int(response.headers["Retry-After"]) <= 60
    assert log_in("ada@example.com", "right", "198.51.100.8").status_code == 200


def test_failed_logins_of_an_email_are_limited_where_they_come_from(log_in: Callable[..., Any]) -> None:
    statuses = [log_in("Ada@example.com", "wrong", "198.51.100.7").status_code for _ in range(11)]
    assert statuses == [401] * 10 + [429]
    assert log_in("ada@example.com", "right", "198.51.100.7").status_code == 429
    assert log_in("eve@example.com", "right", "198.51.100.7").status_code == 200


def test_nobody_is_locked_out_by_who_guesses_elsewhere(log_in: Callable[..., Any]) -> None:
    for address in range(30):
        for _ in range(11):
            log_in("ada@example.com", "wrong", f"198.51.100.{address}")
    assert log_in("ada@example.com", "right", "203.0.113.1").status_code == 200


def test_logins_that_succeed_are_not_counted(log_in: Callable[..., Any]) -> None:
    assert {log_in("ada@example.com", "right", "198.51.100.7").status_code for _ in range(30)} == {200}


def test_answer_of_too_many_requests_is_documented_everywhere(api: Api) -> None:
    document = api.get("/openapi.json")
    operations = [item[method] for item in document["paths"].values() for method in item.keys() - {"parameters"}]
    assert operations
    for operation in operations:
        assert operation["responses"]["429"] == {"$ref": "#/components/responses/TooManyRequests"}
    assert document["components"]["responses"]["TooManyRequests"]["headers"].keys() >= {
        "Retry-After",
        "X-RateLimit-Limit",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
    }

"""``Allow``, ``OPTIONS``, ``HEAD``, and methods that nobody has (RFC 9110, section 9)."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.service.api import Api, assert_problem
from tests.service.serving import running

_MERGE_PATCH = "application/merge-patch+json, application/json"
_IN_RULE = re.compile(r"<(?:[^:>]+:)?(\w+)>")
_PARTS = {
    "key": "1",
    "number": "0",
    "kind": "invalid",
    "path": "index.css",
    "transaction_id": "019ff871-32e0-7000-94a9-1dd0c289ae4a",
}


def _methods_by_address(app: Flask) -> dict[str, set[str]]:
    """Every resource of the URL map, with the methods that its rules take together."""
    methods: dict[str, set[str]] = {}
    for rule in app.url_map.iter_rules():
        address = _IN_RULE.sub(lambda part: _PARTS.get(part[1], "1"), rule.rule)
        methods.setdefault(address, {"OPTIONS"}).update(rule.methods or ())
    return methods


def _names(header: str) -> set[str]:
    return set(header.split(", "))


def test_options_of_every_resource_tells_its_methods_to_everyone(app: Flask, client: FlaskClient) -> None:
    methods = _methods_by_address(app)
    assert len(methods) > 20
    for address, taken in methods.items():
        response = client.options(address)
        assert (response.status_code, response.data) == (204, b""), address
        assert _names(response.headers["Allow"]) == taken, address
        assert response.headers.get("Accept-Patch") == (_MERGE_PATCH if "PATCH" in taken else None), address
        assert "Content-Type" not in response.headers


def test_options_tells_the_same_whether_a_record_exists_or_not(api: Api, client: FlaskClient) -> None:
    record = api.post("/records/user", {"email": "a@example.com"})["links"]["record"]
    sent = {"X-Request-ID": "1"}
    answers = [client.options(path, headers=sent) for path in (record, "/records/user/2147483647")]
    assert answers[0].headers.to_wsgi_list() == answers[1].headers.to_wsgi_list()
    assert_problem(client.options("/nothing"), 404, "not-found")
    assert_problem(client.options("/records/nothing/1"), 404, "unknown-model")


def test_method_that_a_resource_does_not_have_is_405_with_those_it_has(app: Flask, api: Api) -> None:
    for address, taken in _methods_by_address(app).items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT"} - taken:
            response = api.call(method, address)
            assert_problem(response, 405, "method-not-allowed")
            assert _names(response.headers["Allow"]) == taken, address


@pytest.mark.parametrize("method", ["BREW", "PROPFIND", "QUERY"])
def test_method_that_nobody_knows_is_not_allowed(api: Api, method: str) -> None:
    response = api.call(method, "/records/user/1")
    assert_problem(response, 405, "method-not-allowed")
    assert "PATCH" in _names(response.headers["Allow"])
    assert_problem(api.call(method, "/nothing"), 404, "not-found")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("{record}", {}),
        ("{record}", {"If-None-Match": '"v1"'}),
        ("{record}", {"If-Match": '"v9"'}),
        ("{record}", {"Accept-Datetime": "Sun, 01 Mar 2026 09:00:00 GMT"}),
        ("{record}", {"Accept": "text/html"}),
        ("{history}", {}),
        ("{history}", {"Accept-Encoding": "gzip"}),
        ("{history}/versions/0", {}),
        ("{history}/versions/9", {}),
        ("{history}/timemap", {}),
        ("/records/user?limit=1", {}),
        ("/records/user", {"Authorization": "Bearer wrong"}),
        ("/openapi.json", {}),
        ("/problems/invalid", {}),
        ("/health/ready", {}),
        ("/docs/", {}),
        ("/nothing", {}),
    ],
)
def test_head_is_get_without_a_body(api: Api, path: str, headers: dict[str, str]) -> None:
    links = api.post("/records/user", {"email": "a@example.com"})["links"]
    api.post("/records/user", {"email": "b@example.com"})
    api.patch(links["record"], {"name": "A"}, why="x" * 2000)
    path = path.format(**links)
    get = api.call("GET", path, headers={"X-Request-ID": "1"} | headers)
    head = api.call("HEAD", path, headers={"X-Request-ID": "1"} | headers)
    assert head.status_code == get.status_code
    assert head.data == b""
    assert sorted(head.headers.to_wsgi_list()) == sorted(get.headers.to_wsgi_list())
    if get.data:
        assert int(head.headers["Content-Length"]) == len(get.data)


@pytest.mark.parametrize(
    "path",
    ["/history/", "/records/user/", "/records//user", "/history/user//versions", "/records/user/1/", "/openapi.json/"],
)
def test_a_resource_has_one_address(api: Api, path: str) -> None:
    for method in ("GET", "OPTIONS", "DELETE"):
        response = api.call(method, path)
        assert response.status_code == 404, f"{method} {path}"
        assert response.mimetype == "application/problem+json"


def test_raw_requests_are_answered_as_the_methods_want_it(
    app: Flask, read_token: str, database_url: str, tmp_path: Path
) -> None:
    def ask(line: bytes) -> tuple[int, dict[str, str]]:
        head = server.raw(line + b" HTTP/1.1\r\nHost: localhost").partition(b"\r\n\r\n")[0].decode().split("\r\n")
        headers: Any = dict(field.split(": ", 1) for field in head[1:])
        return int(head[0].split()[1]), headers

    with running(database_url, read_token, tmp_path / "gunicorn.log") as server:
        _check_raw(ask)


def _check_raw(ask: Callable[[bytes], tuple[int, dict[str, str]]]) -> None:
    status, headers = ask(b"OPTIONS *")
    assert (status, _names(headers["Allow"])) == (204, {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
    status, headers = ask(b"TRACE /records/user/1")
    assert (status, headers["Content-Type"]) == (405, "application/problem+json")
    assert "GET" in _names(headers["Allow"])
    assert ask(b"BREW /records/user/1")[0] == 405
    assert ask(b"CONNECT localhost:80")[0] == 404
    assert ask(b"HEAD /openapi.json")[1]["Content-Length"] == ask(b"GET /openapi.json")[1]["Content-Length"]

"""``X-Request-ID``: the answer, the log and the changes of a request are found by one name."""

import logging
import re
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.logging import default_handler

from app.db import db
from app.models import User
from tests.service.api import Api, assert_problem
from tests.service.contract import resolve
from tests.service.serving import running

_SANE = ["1", "a" * 128, "01990e5c-7d2a-7a31-9c1f-0d6a54b1f0aa", '!"#~']


@pytest.fixture
def record(api: Api) -> str:
    path: str = api.post("/records/user", {"email": "ada@example.com"})["links"]["record"]
    return path


@pytest.mark.parametrize("name", _SANE)
def test_request_keeps_the_name_that_the_client_gave_it(api: Api, record: str, name: str) -> None:
    assert api.call("GET", record, headers={"X-Request-ID": name}).headers.getlist("X-Request-ID") == [name]


@pytest.mark.parametrize("name", [None, "", "a" * 129, "a b", "a\tb", "ä", "\x7f", "a\x01"])
def test_request_without_a_sane_name_gets_one(api: Api, record: str, name: str | None) -> None:
    sent = {} if name is None else {"X-Request-ID": name}
    names = [api.call("GET", record, headers=sent).headers["X-Request-ID"] for _ in range(2)]
    assert [UUID(made).version for made in names] == [7, 7]
    assert names[0] != names[1]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("HEAD", "{record}", {}, 200),
        ("GET", "{record}", {"If-None-Match": "*"}, 304),
        ("GET", "{record}", {"Accept-Datetime": "Sun, 01 Mar 2026 09:00:00 GMT"}, 302),
        ("GET", "/docs", {}, 308),
        ("GET", "/docs/", {}, 200),
        ("GET", "/openapi.json", {}, 200),
        ("OPTIONS", "{record}", {}, 204),
        ("DELETE", "{record}", {}, 204),
        ("GET", "/records/user?colour=%FF", {}, 400),
        ("GET", "{record}", {"Authorization": "Bearer wrong"}, 401),
        ("GET", "/nothing", {}, 404),
        ("POST", "{record}", {}, 405),
        ("GET", "{record}", {"Accept": "text/html"}, 406),
        ("BREW", "{record}", {}, 405),
    ],
)
def test_every_answer_says_the_name_once(
    api: Api, record: str, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    response = api.call(method, path.format(record=record), headers=headers | {"X-Request-ID": "r-1"})
    assert response.status_code == status
    assert response.headers.getlist("X-Request-ID") == ["r-1"]


def test_unexpected_error_is_answered_and_logged_with_the_name(
    app: Flask, api: Api, record: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the secret plan")

    monkeypatch.setattr("app.records.routes.find", fail)
    log = StringIO()
    app.logger.addHandler(default_handler)  # which Flask adds where nobody else logs, as pytest does
    try:
        sent = api.headers | {"X-Request-ID": "r-500"}
        response = api.client.get(record, headers=sent, errors_stream=log)
    finally:
        app.logger.removeHandler(default_handler)
    assert_problem(response, 500, "internal-error")
    assert response.headers["X-Request-ID"] == "r-500"
    (line,) = [line for line in log.getvalue().splitlines() if "unexpected error" in line]
    assert "[ERROR] [r-500] unexpected error" in line


def test_record_outside_of_a_request_has_no_name(app: Flask) -> None:
    record = logging.LogRecord("app", logging.INFO, __file__, 1, "started", None, None)
    assert default_handler.filter(record)
    assert "[INFO] [-] started" in default_handler.format(record)


def test_every_change_of_a_request_has_its_name(api: Api, record: str) -> None:
    history = record.replace("/records", "/history")
    for number, (method, path, body) in enumerate(
        [
            ("PATCH", record, {"name": "A"}),
            ("PUT", record, {"email": "b@example.com"}),
            ("DELETE", record, None),
            ("POST", f"{record}/restore", {"values": {"password_hash": "x"}}),
        ]
    ):
        response = api.call(method, path, body, headers={"X-Request-ID": f"r-{number}"})
        assert response.status_code < 300, response.text
    created = api.call("POST", "/records/user", {"email": "c@example.com"}, headers={"X-Request-ID": "r-new"})
    changes = api.get(f"{history}/changes")["changes"][1:]
    assert [change["change_info"]["request_id"] for change in changes] == [f"r-{number}" for number in range(4)]
    (change,) = api.get(f"{created.json['links']['history']}/changes")["changes"]
    assert change["change_info"]["request_id"] == created.headers["X-Request-ID"] == "r-new"


def test_made_name_is_the_one_of_the_change(api: Api, record: str) -> None:
    response = api.call("PATCH", record, {"name": "A"})
    (version,) = api.get(record.replace("/records", "/history"))["versions"]
    assert version["change_info"]["request_id"] == response.headers["X-Request-ID"]


def test_change_outside_of_a_request_has_no_name(app: Flask) -> None:
    with app.app_context():
        user = User(email="a@example.com")
        db.session.add(user)
        db.session.commit()
        (change,) = user.changes()
        assert change.info.keys() == {"user_id", "remote_addr"}


def test_change_header_never_sets_the_name(api: Api) -> None:
    sent = {"X-Change-Request-Id": "mallory", "X-Request-ID": "r-1"}
    created = api.call("POST", "/records/user", {"email": "a@example.com"}, headers=sent)
    (change,) = api.get(f"{created.json['links']['history']}/changes")["changes"]
    assert change["change_info"]["request_id"] == "r-1"


def test_header_is_documented_on_every_operation(api: Api) -> None:
    document = api.get("/openapi.json")
    for item in document["paths"].values():
        for method in item.keys() & {"get", "post", "put", "patch", "delete"}:
            parameters: list[Any] = item[method]["parameters"]
            assert "X-Request-ID" in {resolve(document, parameter)["name"] for parameter in parameters}
            for status, response in item[method]["responses"].items():
                assert status == "default" or "X-Request-ID" in resolve(document, response)["headers"]


def test_server_answers_and_logs_with_the_name(app: Flask, write_token: str, database_url: str, tmp_path: Path) -> None:
    log = tmp_path / "gunicorn.log"
    with running(database_url, write_token, log, settings={"CHRONONAUT_LOG_FORMAT": "text"}) as server:
        sane = server.pool.request("GET", "/history/user/7?a=secret", headers={"X-Request-ID": "r-access"})
        server.pool.request("GET", "/nothing/secret", headers={"X-Request-ID": "r-nothing"})
        server.pool.request("SECRET", "/records/user", headers={"X-Request-ID": "r-method"})
        by_basic = {"Authorization": "Basic c2VjcmV0Ong=", "User-Agent": "secret", "Referer": "https://a.org/?b=secret"}
        server.pool.request("GET", "/health/live", headers={**by_basic, "X-Request-ID": "r-basic"})
        absolute = b"GET http://secret@localhost/health/live HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: r-absolute"
        assert b" 200 " in server.raw(absolute)
        assert sane.headers["X-Request-ID"] == "r-access"
        answer = server.raw(b"GET / HTTP/1.1\r\nX-Request-ID: r-bad\r\nAccept: \x01").decode()
        head, _, body = answer.partition("\r\n\r\n")
        assert "/problems/malformed-request" in body
        (name,) = [line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("X-Request-ID: ")]
        assert UUID(name).version == 7
    text = log.read_text()
    answered = re.findall(r'^127\.0\.0\.1 \[[^\]]+\] "([^"]*)" \d{3} \d+ (r-\w+)$', text, re.MULTILINE)
    assert {name: line for line, name in answered} == {
        "r-access": "GET /history/user/7 HTTP/1.1",
        "r-nothing": "GET - HTTP/1.1",
        "r-method": "other - HTTP/1.1",
        "r-basic": "GET /health/live HTTP/1.1",
        "r-absolute": "GET /health/live HTTP/1.1",
    }
    assert f"[WARNING] [{name}] no request from 127.0.0.1" in text
    assert "[INFO] [-] Starting gunicorn" in text
    assert "secret" not in text

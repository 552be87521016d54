"""The server's log: each line of JSON has its fields, and none of either form a value, whatever is sent."""

import json
import logging
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app.db import db
from app.logs import TEXT, Json, Withholding, add_facts
from app.request_id import request_named
from tests.service.serving import Server, running

_SECRET = "Wq7Zk3Vx9"
_ALWAYS = {"time", "level", "logger", "process", "message"}
_KNOWN = {*_ALWAYS, "request_id", "user", "model", "key", "method", "route", "status", "duration", "address", "problem"}


def _send_everything(server: Server) -> list[str]:
    """Ask for what succeeds and for what does not, with the secret in values, queries and headers.

    :return: the names of the requests
    """
    names: list[str] = []

    def send(method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        names.append(f"r-{len(names)}")
        return server.call(method, path, body, **{"X-Request-ID": names[-1], **headers})

    secret = {"email": f"{_SECRET}@example.com", "name": _SECRET, "password_hash": _SECRET}
    record = send("POST", "/records/user", secret)[1]["links"]["record"]
    assert send("POST", "/records/user", secret)[0] == 409
    assert send("PATCH", record, {"password_hash": [_SECRET]})[0] == 422
    assert send("PATCH", record, {_SECRET: _SECRET})[0] == 422
    assert send("PATCH", record, {"password_hash": f"{_SECRET}\0"})[0] in {200, 422}
    assert send("PATCH", record, {"password_hash": _SECRET * 2}, **{"If-Match": '"v99"'})[0] == 412
    assert send("PATCH", record, {"password_hash": _SECRET * 2}, **{"X-Change-Rationale": _SECRET})[0] == 200
    items = [{"operation": "create", "record": secret}]
    assert send("POST", "/bulk/user", {"items": items})[0] == 409
    assert send("GET", f"/records/user?name={_SECRET}")[0] == 422
    assert send("GET", "/records/user", Referer=f"https://example.com/?a={_SECRET}", Cookie=f"a={_SECRET}")[0] == 200
    assert send("GET", "/records/user", Authorization=f"Bearer {_SECRET}")[0] == 401
    assert send("GET", f"/nothing/{_SECRET}?a={_SECRET}")[0] == 404
    head = f"PATCH {record} HTTP/1.1\r\nX-Change-Rationale: {_SECRET}\x01\r\nAuthorization: Bearer {server.token}"
    assert b"400" in server.raw(head.encode())
    broken = f'{{"name": "{_SECRET}'.encode()
    head = f"PATCH {record} HTTP/1.1\r\nAuthorization: Bearer {server.token}\r\nContent-Type: application/json\r\n"
    assert b"400" in server.raw(f"{head}Content-Length: {len(broken)}".encode(), broken)
    # A defect: a trigger whose message holds a hidden value.
    assert send("PATCH", record, {"name": "fails"})[0] in {409, 422, 500}
    return names


@pytest.fixture
def failing(app: Flask, database_kind: str) -> Iterator[None]:
    """A database that tells values in what it says of a refused change."""
    with app.app_context():
        statements, undo = _TRIGGERS[database_kind]
        with db.engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
        yield
        with db.engine.begin() as connection:
            for statement in undo:
                connection.exec_driver_sql(statement)


_TRIGGERS = {
    "sqlite": (
        [
            """CREATE TRIGGER tell BEFORE UPDATE ON appuser WHEN NEW.name = 'fails'
            BEGIN SELECT json_extract(OLD.password_hash, '$'); END"""
        ],
        ["DROP TRIGGER tell"],
    ),
    "postgresql": (
        [
            """CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.name = 'fails' THEN RAISE EXCEPTION 'no %%', OLD.password_hash USING ERRCODE = 'XX000'; END IF;
            RETURN NEW; END $$""",
            "CREATE TRIGGER tell BEFORE UPDATE ON appuser FOR EACH ROW EXECUTE FUNCTION tell()",
        ],
        ["DROP TRIGGER tell ON appuser", "DROP FUNCTION tell()"],
    ),
}


def test_every_line_of_the_server_has_its_fields_and_no_value(
    app: Flask, failing: None, write_token: str, database_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    began = datetime.now(UTC)
    options = ["--log-level", "debug"]
    with running(database_url, write_token, log, options=options, ends_clean=False) as server:
        names = _send_everything(server)
        token = server.token
    text = log.read_text()
    assert _SECRET.lower() not in text.lower()
    assert token not in text
    records = [json.loads(line) for line in text.splitlines()]
    for record in records:
        assert record.keys() >= _ALWAYS
        assert record.keys() <= _KNOWN | {"exception"}
        assert began - timedelta(seconds=1) <= datetime.fromisoformat(record["time"]) <= datetime.now(UTC)
        assert record["time"].endswith("+00:00")
        assert record["level"] in {"INFO", "WARNING", "ERROR"}
    answered = {record["request_id"]: record for record in records if record["logger"] == "gunicorn.access"}
    assert answered.keys() >= {*names}
    for name in names:
        assert answered[name].keys() >= _ALWAYS | {"method", "status", "duration", "address"}
        assert 0 < answered[name]["duration"] < 60
    (key,) = {record["key"] for record in answered.values() if "key" in record}
    created, taken = answered["r-0"], answered["r-1"]
    assert (created["method"], created["route"], created["status"]) == ("POST", "/records/user", 201)
    assert (created["model"], created["user"]) == ("user", "writer@example.com")
    assert (taken["status"], taken["problem"]) == (409, "conflict")
    changed = answered["r-6"]
    assert (changed["route"], changed["key"], changed["status"]) == ("/records/user/<key>", key, 200)
    assert "route" not in answered["r-11"]
    (failed,) = [record for record in records if record["message"].startswith("unexpected error")]
    assert (failed["level"], failed["logger"], failed["key"], failed["request_id"]) == ("ERROR", "app", key, names[-1])
    assert "Traceback" in failed["message"]


@pytest.mark.parametrize(("level", "lines"), [("info", True), ("warning", False)])
def test_setting_says_the_least_that_is_logged(
    app: Flask, write_token: str, database_url: str, tmp_path: Path, level: str, lines: bool
) -> None:
    log = tmp_path / "log"
    with running(database_url, write_token, log, settings={"CHRONONAUT_LOG_LEVEL": level}):
        pass
    assert ("Listening at" in log.read_text()) == lines


def _record(**extra: Any) -> logging.LogRecord:
    record = logging.LogRecord("app", logging.ERROR, __file__, 1, "no %s", ("room",), sys.exc_info())
    vars(record).update(extra)
    assert add_facts(record)
    return record


def _formatted(**extra: Any) -> dict[str, Any]:
    formatted: dict[str, Any] = json.loads(Withholding(Json()).format(_record(**extra)))
    return formatted


def _fail() -> None:
    try:
        int(_SECRET)
    except ValueError as error:
        raise RuntimeError(_SECRET) from error


@pytest.mark.parametrize("form", [logging.Formatter(TEXT), Json()], ids=["text", "json"])
def test_exception_in_a_request_does_not_say_what_it_says(form: logging.Formatter) -> None:
    try:
        _fail()
    except RuntimeError:
        with request_named("r-1"):
            record = _record()
            logging.Formatter().format(record)  # as another handler would, which keeps the text in the record
            inside = Withholding(form).format(record)
        outside = Withholding(form).format(_record())
    assert _SECRET not in inside
    assert "RuntimeError from ValueError" in inside
    assert "in _fail" in inside
    assert "r-1" in inside
    # What does not start is mended by what the exception says.
    assert f"RuntimeError: {_SECRET}" in outside


def test_exception_is_a_field_of_its_own() -> None:
    try:
        _fail()
    except RuntimeError:
        formatted = _formatted()
    assert formatted["exception"].endswith(f"RuntimeError: {_SECRET}")
    assert "request_id" not in formatted


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_form_says_what_an_exception_in_a_request_says(tmp_path: Path, form: str) -> None:
    log, settings = tmp_path / "log", {"CHRONONAUT_LOG_FORMAT": form}
    application = "tests.service.probed:probed()"
    with running(
        "sqlite://", "", log, settings=settings, application=application, first="/probe", ends_clean=False
    ) as server:
        server.pool.request("GET", f"/logged/{_SECRET}", headers={"X-Request-ID": "r-1"})
    text = log.read_text()
    logged = [line for line in text.splitlines() if "caught by" in line]
    assert len(logged) == text.count("ValueError") == 3
    assert all("r-1" in line for line in logged)
    # It stands in the line of the answer, as what is asked for.
    assert text.count(_SECRET) == (form == "text")


def test_what_others_add_to_a_record_is_left_out() -> None:
    formatted = _formatted(password=_SECRET, args=None, msg={"password": _SECRET})
    assert _SECRET not in json.dumps(formatted)


def test_record_within_a_request_says_in_which(app: Flask) -> None:
    with app.test_request_context("/records/user/1,2?a=b", method="PATCH"):
        formatted = _formatted()
    told = {name: formatted[name] for name in ("model", "key", "method", "route")}
    assert told == {"model": "user", "key": "1,2", "method": "PATCH", "route": "/records/user/<key>"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", formatted["time"])

"""The service as it is run: real gunicorn workers, real sockets, several writers at once."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app.bounds import LONGEST_ADDRESS
from app.db import db
from app.pages import LONGEST_CURSOR
from app.server import limit_request_fields
from tests.service.api import all_rows
from tests.service.conftest import SECRET_KEY
from tests.service.serving import Server, running

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(app: Flask, write_token: str, database_url: str, tmp_path: Path) -> Iterator[Server]:
    """The service under gunicorn with two workers, on a free port of loopback."""
    with running(database_url, write_token, tmp_path / "gunicorn.log") as server:
        yield server


def test_writers_of_several_workers_lose_and_double_nothing(app: Flask, server: Server) -> None:
    paths = [
        server.call("POST", "/records/user", {"email": f"{name}@example.com"})[1]["links"]["record"] for name in "abc"
    ]

    def write(number: int) -> tuple[int, Any]:
        rationale = {"X-Change-Rationale": f"reason {number}"}
        return server.call("PATCH", paths[number % 3], {"name": f"name {number}"}, **rationale)

    with ThreadPoolExecutor(8) as threads:
        statuses = Counter(status for status, _ in threads.map(write, range(240)))
    assert statuses == {200: 240}
    for which, path in enumerate(paths):
        history = path.replace("/records", "/history")
        page = server.call("GET", f"{history}?limit=500")[1]
        assert [row["version"] for row in page["versions"]] == list(range(80))
        assert page["current"]["version"] == 80
        names = [row["state"]["name"] for row in (*page["versions"], page["current"])]
        assert sorted(names[1:]) == sorted(f"name {number}" for number in range(which, 240, 3))
        for row, name in zip(page["versions"], names[1:], strict=True):
            # The reason is that of the write which set the next state.
            assert row["change_info"]["extra"]["change_rationale"] == name.replace("name", "reason")


def test_one_of_several_writers_with_the_same_if_match_wins(server: Server) -> None:
    record = server.call("POST", "/records/release", {"product": "p", "cycle": "c"})[1]["links"]["record"]

    def write(number: int) -> int:
        return server.call("PATCH", record, {"latest": str(number)}, **{"If-Match": '"v0"'})[0]

    with ThreadPoolExecutor(8) as threads:
        assert Counter(threads.map(write, range(8))) == {200: 1, 412: 7}


def test_one_of_several_writers_of_a_new_key_wins(server: Server) -> None:
    def write(number: int) -> int:
        return server.call("POST", "/records/release", {"product": "p", "cycle": "c", "latest": str(number)})[0]

    with ThreadPoolExecutor(8) as threads:
        assert Counter(threads.map(write, range(8))) == {201: 1, 409: 7}
    assert len(server.call("GET", "/history/release/p,c/changes")[1]["changes"]) == 1


_DELETE = b"DELETE /records/user/1 HTTP/1.1\r\n"
_NO_HTTP = [
    (_DELETE + b"X-Change-Rationale: a\x01b", 400, "change-header-invalid"),
    (_DELETE + b"X-Change-Rationale: a\x00b", 400, "change-header-invalid"),
    (_DELETE + b"X-Change-Rationale: " + b"a" * 9000, 400, "change-header-invalid"),
    (_DELETE + b"X-Change-Rationale: " + b"a" * 17000, 431, "headers-too-large"),
    (_DELETE + b"X-Change-Ticket_Id: 7", 400, "change-header-invalid"),
    (_DELETE + b"Accept: \x01", 400, "malformed-request"),
    (b"GET /" + b"a" * 9000 + b" HTTP/1.1", 414, "uri-too-long"),
    (b"GET /history/release/a%FF,b HTTP/1.1", 400, "malformed-request"),
    (b"GET /records/user HTTP/1.1\r\nSCRIPT_NAME: /records", 400, "malformed-request"),
    (b"no HTTP at all", 400, "malformed-request"),
]


def test_what_is_no_http_is_a_problem_and_changes_nothing(app: Flask, server: Server) -> None:
    server.call("POST", "/records/user", {"email": "a@example.com"})
    with app.app_context():
        before = all_rows()
    authorization = f"\r\nHost: localhost\r\nAuthorization: Bearer {server.token}".encode()
    for head, status, kind in _NO_HTTP:
        answer, _, body = server.raw(head + authorization).partition(b"\r\n\r\n")
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), head
        assert b"Content-Type: application/problem+json" in answer
        problem = json.loads(body)
        assert (problem["type"], problem["status"]) == (f"/problems/{kind}", status)
    patch = b"PATCH /records/user/1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json"
    too_long = b'{"name": "cut"}' + b" " * 1024 * 1024 + b"no JSON"
    for chunks, status in ((b"zz\r\n", 400), (b"%x\r\n%s\r\n0\r\n\r\n" % (len(too_long), too_long), 413)):
        assert server.raw(patch + authorization, chunks).startswith(f"HTTP/1.1 {status} ".encode()), chunks[:20]
    with app.app_context():
        assert all_rows() == before


def _replay(server: Server, database_url: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.replay", "app/data/releases.ndjson", f"http://127.0.0.1:{server.port}"]
    environment = {"SECRET_KEY": SECRET_KEY, "DATABASE_URL": database_url, "REPLAY_TOKEN": server.token}
    return subprocess.run(
        [*command, "--import", *options], cwd=_ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_history_that_was_imported_is_served_as_of_each_year(app: Flask, server: Server, database_url: str) -> None:
    imported = _replay(server, database_url, "--verify")
    assert imported.returncode == 0, imported.stdout + imported.stderr
    compared = re.findall(
        r"as of (\d{4})-01-01 (over HTTP|by the library): (\d+) records compared, 0 differences", imported.stdout
    )
    assert [year for year, *_ in compared] == [str(year) for year in range(2022, 2027) for _ in range(2)]
    assert all(int(records) for *_, records in compared)
    with app.app_context(), db.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE release_history SET latest = 'damaged' WHERE cycle = '3.12' AND version = 3")
    damaged = _replay(server, database_url, "--verify-only")
    assert damaged.returncode == 1
    assert "python,3.12" in damaged.stdout + damaged.stderr or "damaged" in damaged.stdout + damaged.stderr


def test_longest_address_and_longest_headers_arrive(server: Server) -> None:
    def status(path: str, *headers: str) -> bytes:
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {server.token}", *headers]
        return server.raw("\r\n".join(lines).encode()).split()[1]

    path = "/records/release"
    assert status(f"{path}/{'a' * (LONGEST_ADDRESS - len(path) - 1)}") == b"404"
    assert status(f"{path}?cursor={'a' * LONGEST_CURSOR}", f"X-A: {'a' * 16_000}") == b"422"
    assert status(path, *(f"X-{number}: a" for number in range(limit_request_fields - 3))) == b"200"
    assert status(path, *(f"X-{number}: a" for number in range(limit_request_fields - 2))) == b"431"

"""Hostile input to the service as it is run: a problem or a closed connection, and nothing else happens."""

import gzip
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import urllib3

from app.pages import make_cursor
from tests.service import own_models
from tests.service.api import Api
from tests.service.conftest import SECRET_KEY

_ROOT = Path(__file__).parents[2]
_TIMEOUT = 10  # seconds that a request has to arrive
_HANGS = 120  # seconds after which a test gives up
_KEY = "00000000-0000-4000-8000-000000000001,2026-03-01,ab"
_RECORD, _HISTORY = f"/records/parcel/{_KEY}".encode(), f"/history/parcel/{_KEY}".encode()
_PARCEL = {
    "code": "00000000-0000-4000-8000-000000000001",
    "day": "2026-03-01",
    "initials": "ab",
    "size": "SMALL",
    "speed": "fast",
    "count": 1,
    "weight": 1.5,
    "price": "2.50",
    "fragile": True,
    "arrived_at": "2026-03-01T09:00:00Z",
    "opens_at": "09:00:00",
    "travelled": 60,
    "content": {"a": 1},
    "note": "as it was",
}
_MOST_GROWTH = 128 * 1024  # KiB of memory that a worker may take on the way


class Service:
    """A running service, seen from outside."""

    def __init__(self, port: int, master: int, log: Path) -> None:
        self.port, self.master, self.log = port, master, log
        self.authorization = b""

    def send(self, request: bytes, *, ends: bool = False) -> bytes:
        """Send bytes as they are, and read until the service closes the connection.

        :param ends: tell the service that nothing more will come
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=_HANGS) as connection:
            try:
                connection.sendall(request)
                if ends:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it answers and closes before it has read all
            return _read(connection)

    def ask(self, target: bytes, *headers: bytes, method: bytes = b"GET", version: bytes = b"HTTP/1.1") -> bytes:
        lines = (b"Host: localhost", b"Connection: close", *headers)
        head = b"%s %s %s\r\n%s" % (method, target, version, self.authorization)
        return self.send(head + b"".join(line + b"\r\n" for line in lines) + b"\r\n")

    def write(self, body: bytes, *headers: bytes, method: bytes = b"PATCH", target: bytes = _RECORD) -> bytes:
        return self.send(self.head(b"Content-Length: %d" % len(body), *headers, method=method, target=target) + body)

    def head(self, *headers: bytes, method: bytes = b"PATCH", target: bytes = _RECORD, close: bool = True) -> bytes:
        """The head of a write, without the length of its body."""
        given = {header.partition(b":")[0].lower() for header in headers}
        usual = (
            b"Host: localhost",
            b"Content-Type: application/json",
            b"Connection: close" if close else b"Connection: keep-alive",
        )
        lines = (*(line for line in usual if line.partition(b":")[0].lower() not in given), *headers)
        head = b"%s %s HTTP/1.1\r\n%s" % (method, target, self.authorization)
        return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n"

    def workers(self) -> dict[int, int]:
        """The workers' process ids, and how many KiB of memory each holds."""
        children = Path(f"/proc/{self.master}/task/{self.master}/children").read_text().split()
        held = {int(pid): Path(f"/proc/{pid}/status").read_text() for pid in children}
        return {pid: int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) for pid, status in held.items()}


def _read(connection: socket.socket) -> bytes:
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        pass  # it closed while we were still sending
    return received


def _statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def _assert_problem(answer: bytes, status: int, kind: str) -> None:
    assert _problem(answer) == (status, kind), answer[:2000]


def _problem(answer: bytes) -> tuple[int, str]:
    """The status and the kind of a problem, of which nothing was injected and nothing is too long."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = _statuses(head)
    if len(status) != 1 or b"content-type: application/problem+json" not in head.lower() or b"X-Injected" in head:
        return 0, repr(answer[:500])
    assert len(answer) < 20_000, answer[:2000]
    return status[0], json.loads(body)["type"].removeprefix("/problems/")


def _short(request: bytes) -> str:
    return f"{request[:70]!r} ({len(request)} bytes)"


def _rows() -> dict[str, list[Any]]:
    with own_models.db.engine.connect() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(sa.select(table))), key=repr)
            for table in own_models.db.metadata.sorted_tables
        }


@contextmanager
def _running(environment: dict[str, str], log: Path) -> Iterator[Service]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    options = ["-c", "python:app.server", "-w", "2", "-b", f"127.0.0.1:{port}", "-t", str(_TIMEOUT)]
    command = [sys.executable, "-m", "gunicorn", *options, "app:create_app()"]
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=stream, stderr=stream)
    try:
        with urllib3.HTTPConnectionPool("127.0.0.1", port) as pool:
            retries = urllib3.Retry(1200, backoff_factor=0.05, backoff_max=0.05)
            assert pool.request("GET", "/openapi.json", retries=retries).status == 200
        yield Service(port, process.pid, log)
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def services(
    service_database_urls: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Service]]:
    """The service of `own_models` on a kind of database; starting it takes longer than all that is sent to it."""
    with ExitStack() as stack:

        @cache
        def start(kind: str) -> Service:
            environment = {
                "SECRET_KEY": SECRET_KEY,
                "DATABASE_URL": service_database_urls[kind],
                "CHRONONAUT_MODELS": own_models.__name__,
                "CHRONONAUT_DB": f"{own_models.__name__}:db",
                "PATH": os.environ["PATH"],
            }
            return stack.enter_context(_running(environment, tmp_path_factory.mktemp(kind) / "gunicorn.log"))

        yield start


@pytest.fixture
def service(own_api: Api, database_kind: str, services: Callable[[str], Service]) -> Iterator[Service]:
    """The service with one record; afterwards it is as it was, and nobody noticed anything."""
    own_api.post("/records/parcel", _PARCEL)
    service = services(database_kind)
    token = own_api.headers["Authorization"]
    service.authorization = f"Authorization: {token}\r\n".encode()
    for _ in range(8):
        assert _statuses(service.ask(_RECORD)) == [200]
    before, workers = _rows(), service.workers()
    yield service
    for _ in range(8):
        assert _statuses(service.ask(_RECORD)) == [200]
    assert _rows() == before
    after = service.workers()
    assert len(workers) == 2
    assert after.keys() == workers.keys()
    assert max(after[pid] - workers[pid] for pid in workers) < _MOST_GROWTH
    log = service.log.read_text(errors="backslashreplace")
    assert "Traceback" not in log
    assert token not in log


_MALFORMED = (400, "malformed-request")
_NOT_TAKEN = (400, "change-header-invalid")
_INVALID = (422, "invalid")
_UNKNOWN = (404, "unknown-record")
_TOO_LONG = (414, "uri-too-long")
_TOO_LARGE = (431, "headers-too-large")
_LONE = b"%ED%A0%80"  # a surrogate as UTF-8 would have it

_TARGETS: list[tuple[bytes, int, str]] = [
    (b"/records/parcel/" + b"k" * 2**20, *_TOO_LONG),
    (_HISTORY + b"?cursor=" + b"c" * 2**20, *_TOO_LONG),
    (_HISTORY + b"?" + b"&".join(b"p%d=" % number for number in range(10_000)), *_TOO_LONG),
    (_HISTORY + b"?" + b"&".join([b"limit=1"] * 10_000), *_TOO_LONG),
    (_HISTORY + b"?" + b"&".join(b"p%d" % number for number in range(500)), *_INVALID),
    (_HISTORY + b"?" + b"&".join([b"limit=1"] * 400), *_INVALID),
    (b"/history/parcel?" + b"extra.a=b&" * 300, *_INVALID),
    (_HISTORY + b"?limit=1%0D%0AX-Injected:%201", *_INVALID),
    (_HISTORY + b"?limit=" + b"9" * 3000, *_INVALID),
    (_HISTORY + b"?limit=%D9%A3", *_INVALID),
    (_HISTORY + b"?limit=1e3", *_INVALID),
    (_HISTORY + b"?%00=1", *_INVALID),
    (_HISTORY + b"?cursor=%00", *_INVALID),
    (_HISTORY + b"?cursor=%FF", *_MALFORMED),
    (_HISTORY + b"?%FF=1", *_MALFORMED),
    (_HISTORY + b"?cursor=" + _LONE, *_MALFORMED),
    (_HISTORY + b"?cursor=%C0%AF", *_MALFORMED),
    (_HISTORY + b"?cursor=\xff", *_MALFORMED),
    (_HISTORY + b"?cursor=\0", *_MALFORMED),
    (_HISTORY + b"/versions/" + b"9" * 3000, 404, "not-found"),
    (_HISTORY + b"/versions/%D9%A3", 404, "not-found"),
    (_HISTORY + b"/version_at?at=0000-01-01T00:00:00Z", *_INVALID),
    (_HISTORY + b"/version_at?at=9999-12-31T23:59:59-23:59", *_INVALID),
    (_HISTORY + b"/version_at?at=0001-01-01T00:00:00%2B23:59", *_INVALID),
    (_HISTORY + b"/version_at?at=2016-12-31T23:59:60Z", *_INVALID),
    (_HISTORY + b"/version_at?at=2026-01-01T00:00:00." + b"9" * 3000 + b"X", *_INVALID),
    (_HISTORY + b"/version_at?at=%D9%A2026-01-01T00:00:00Z", *_INVALID),
    (_HISTORY + b"/version_at?at=%D9%A2%D9%A0%D9%A2%D9%A6-01-01T00:00:00Z", *_INVALID),
    (_HISTORY + b"/diff?from=" + b"1" * 3000, *_INVALID),
    (b"/transactions/" + b"0" * 3000, 404, "unknown-transaction"),
    (b"/records/parcel/%00", *_UNKNOWN),
    (b"/records/parcel/%FF", *_MALFORMED),
    (b"/records/parcel/%C0%AF", *_MALFORMED),
    (b"/records/parcel/" + _LONE, *_MALFORMED),
    (b"/records/parcel/a%0D%0AX-Injected:%201", *_UNKNOWN),
    (b"/records/parcel/\xc3\xa9", *_MALFORMED),
    (b"/records/parcel/..%2f..%2fetc%2fpasswd", 404, "not-found"),
    (b"/records/parcel/../../etc/passwd", 404, "not-found"),
    (b"/docs/..%2f..%2f__init__.py", 404, "not-found"),
    (b"/docs/%00", 404, "not-found"),
    (b"/problems/%0D%0AX-Injected:%201", 404, "not-found"),
    (b"records", *_MALFORMED),
    (b"*", *_MALFORMED),
    (b"http://[", *_MALFORMED),
    (b"", *_MALFORMED),
]


def test_hostile_address_is_a_problem(service: Service) -> None:
    answers = [(request, _problem(service.ask(request)), (status, kind)) for request, status, kind in _TARGETS]
    wrong = [f"{_short(request)}: {answer}, not {right}" for request, answer, right in answers if answer != right]
    assert not wrong, "\n".join(wrong)


def test_forged_cursor_is_a_problem(service: Service, own_api: Api) -> None:
    with own_api.client.application.test_request_context():
        good = make_cursor(f"versions parcel {_KEY} asc", [0])
        others = [make_cursor(what, [0]) for what in ("versions account 1 asc", f"changes parcel {_KEY} asc", "")]
    assert _statuses(service.ask(_HISTORY + b"?cursor=" + good.encode())) == [200]
    payload, _, signature = good.rpartition(".")
    forged = [
        *others,
        payload,
        good[:-1],
        good[1:],
        f"{payload}.{signature[::-1]}",
        f"{payload}x.{signature}",
        f".{good}",
        f"{good}.{signature}",
        "",
        ".",
        "%2e",
        "e" * 3000,
    ]
    for cursor in forged:
        _assert_problem(service.ask(_HISTORY + b"?cursor=" + cursor.encode()), 422, "invalid")


_HEADERS: list[tuple[bytes, int, str]] = [
    (b"X-Change-Rationale: a\r\n b", *_NOT_TAKEN),
    (b"X-Change-Rationale: a\rX-Injected: b", *_NOT_TAKEN),
    (b"X-Change-Rationale: a\nX-Injected: b", *_NOT_TAKEN),
    (b"X-Change-Rationale: a\0b", *_NOT_TAKEN),
    (b"X-Change-Rationale: UTF-8''a%0D%0AX-Injected:%20b", *_NOT_TAKEN),
    (b"X-Change-Rationale: UTF-8''a%00", *_NOT_TAKEN),
    (b"X-Change-Rationale: \xff", *_NOT_TAKEN),
    (b"X-Change-Rationale: \xc0\xaf", *_NOT_TAKEN),
    (b"X-Change-Rationale: \xed\xa0\x80", *_NOT_TAKEN),
    (b"X-Change-Rationale: " + b"a" * 64 * 1024, *_TOO_LARGE),
    (b"X-Change-\xc3\xa9: a", *_NOT_TAKEN),
    (b"X-Change Rationale: a", *_MALFORMED),
    (b": a", *_MALFORMED),
    (b"no colon", *_MALFORMED),
    (b"\r\n".join(b"X-%d: a" % number for number in range(100)), *_TOO_LARGE),
    (b"\r\n".join(b"X-Change-%d: a" % number for number in range(17)), *_NOT_TAKEN),
    (b"Host: localhost\r\nHost: other", *_MALFORMED),
    (b"Expect: the unexpected", 417, "expectation-failed"),
    (b"Transfer-Encoding: chunked", *_MALFORMED),
    (b"Transfer-Encoding: xchunked", 501, "not-implemented"),
    (b"Content-Length: 2", *_MALFORMED),
    (b"Content-Type: application/json; charset=utf-16", 415, "unsupported-media-type"),
    (b"Content-Encoding: gzip", 415, "unsupported-media-type"),
    (b'If-Match: \xff"', 412, "precondition-failed"),
    (b"If-Match: " + b'"a",' * 3000, 412, "precondition-failed"),
]


def test_hostile_header_is_a_problem(service: Service) -> None:
    answers = [
        (request, _problem(service.write(b'{"note": "changed"}', request)), (status, kind))
        for request, status, kind in _HEADERS
    ]
    wrong = [f"{_short(request)}: {answer}, not {right}" for request, answer, right in answers if answer != right]
    assert not wrong, "\n".join(wrong)
    for header in (
        b"Authorization: Bearer \xff",
        b"Accept-Datetime: Sun, 01 Mar 0000 09:00:00 GMT",
        b"Range: bytes=0-",
    ):
        assert _statuses(service.ask(_RECORD, header))[0] in {200, 400, 401}


_DEEP = b'{"content": {"a": %s%s}}'
_BODIES: list[tuple[bytes, int, str]] = [
    (b"[" * 100_000 + b"]" * 100_000, *_MALFORMED),
    (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, *_MALFORMED),
    *((_DEEP % (b"[" * depth, b"]" * depth), *_MALFORMED) for depth in (100, 300, 500, 900, 1000, 100_000)),
    (b'{"weight": 1e999999}', *_MALFORMED),
    (b'{"content": {"a": 1e400}}', *_MALFORMED),
    (b'{"count": ' + b"9" * 100_000 + b"}", *_MALFORMED),
    (b'{"count": ' + b"9" * 4000 + b"}", *_INVALID),
    (b'{"weight": ' + b"9" * 4000 + b"}", *_INVALID),
    (b'{"price": 1' + b"0" * 4000 + b"}", *_INVALID),
    (b'{"price": "1e999999"}', *_INVALID),
    (b'{"price": "NaN"}', *_INVALID),
    (b'{"travelled": 1e300}', *_INVALID),
    (b'{"travelled": ' + b"9" * 4000 + b"}", *_INVALID),
    (b'{"note": "one", "note": "two"}', *_MALFORMED),
    (b'{"content": {"a": 1, "a": 2}}', *_MALFORMED),
    (b'{"note": "\0"}', *_MALFORMED),
    (rb'{"note": "\u0000"}', *_INVALID),
    (rb'{"content": {"a": ["\u0000"]}}', *_INVALID),
    (rb'{"content": {"\ud800": 1}}', *_INVALID),
    (b'{"note": "\xff"}', *_MALFORMED),
    (b'{"note": "\xc0\xaf"}', *_MALFORMED),
    (b'{"note": "\xed\xa0\x80"}', *_MALFORMED),
    (b'\xef\xbb\xbf{"note": "x"}', *_MALFORMED),
    ('{"note": "x"}'.encode("utf-16"), *_MALFORMED),
    (b'{"arrived_at": "0000-01-01T00:00:00Z"}', *_INVALID),
    (b'{"arrived_at": "9999-12-31T23:59:59-23:59"}', *_INVALID),
    (b'{"arrived_at": "2016-12-31T23:59:60Z"}', *_INVALID),
    (b'{"opens_at": "23:59:60"}', *_INVALID),
    (b"{" + b",".join(b'"p%d": 1' % number for number in range(50_000)) + b"}", *_INVALID),
    (b'{"' + b"n" * 1_000_000 + b'": 1}', *_INVALID),
    (b'{"note": 7, "content": "' + b"n" * 1_000_000 + b'"}', *_INVALID),
    (b"", *_MALFORMED),
    (b"0" * 2**21, 413, "content-too-large"),
]


def test_hostile_body_is_a_problem(service: Service) -> None:
    answers = [(request, _problem(service.write(request)), (status, kind)) for request, status, kind in _BODIES]
    wrong = [f"{_short(request)}: {answer}, not {right}" for request, answer, right in answers if answer != right]
    assert not wrong, "\n".join(wrong)
    bomb = gzip.compress(b"0" * 2**26)
    _assert_problem(service.write(bomb, b"Content-Encoding: gzip"), 415, "unsupported-media-type")
    _assert_problem(service.write(bomb), 400, "malformed-request")


_CHUNKED = b"Transfer-Encoding: chunked"
_CHANGE = b'{"note": "changed"}'
_WHOLE = b"13\r\n%s\r\n" % _CHANGE
_CHUNKS: list[tuple[bytes, int, str]] = [
    (b"zz\r\n", *_MALFORMED),
    (b"-1\r\n", *_MALFORMED),
    (b"\r\n", *_MALFORMED),
    (b"0x13\r\n" + _CHANGE + b"\r\n0\r\n\r\n", *_MALFORMED),
    (b"f" * 20_000, *_MALFORMED),
    (b"F" * 16 + b"\r\n" + _CHANGE, *_MALFORMED),
    (b"12\r\n" + _CHANGE + b"\r\n0\r\n\r\n", *_MALFORMED),
    (_WHOLE + b"0\r\nno trailer\r\n\r\n", *_MALFORMED),
    (_WHOLE + b"0\r\nContent-Length: 0\r\n\r\n", *_MALFORMED),
    (_WHOLE + b"0\r\nHost: other\r\n\r\n", *_MALFORMED),
    (_WHOLE + b"0\r\n" + b"X-A: a\r\n" * 1000 + b"\r\n", *_MALFORMED),
    (_WHOLE, *_MALFORMED),
    (b"13;a=\x00\r\n" + _CHANGE + b"\r\n0\r\n\r\n", *_MALFORMED),
]


def test_body_that_is_not_as_it_says_is_a_problem(service: Service) -> None:
    for chunks, status, kind in _CHUNKS:
        _assert_problem(service.send(service.head(_CHUNKED) + chunks, ends=True), status, kind)
    # Shorter than it says: whole JSON, and yet no whole request.
    short = service.head(b"Content-Length: %d" % (len(_CHANGE) + 1)) + _CHANGE
    _assert_problem(service.send(short, ends=True), 400, "malformed-request")
    # Two lengths: whoever is before us might have gone by the other one.
    for lengths in (
        (_CHUNKED, b"Content-Length: 19"),
        (b"Content-Length: 19", b"Content-Length: 20"),
        (b"Content-Length: 19, 20",),
        (b"Content-Length: +19",),
        (b"Content-Length: -1",),
        (b"Content-Length: 1_9",),
        (b"Content-Length: \xb2",),
        (b"Content-Length: " + b"9" * 5000,),
        (b"Transfer-Encoding: chunked, chunked",),
        (b"Transfer-Encoding: chunked, identity",),
        (b"Transfer-Encoding: identity",),
        (b"Transfer-Encoding:\x0bchunked",),
        (b"Transfer-Encoding : chunked",),
    ):
        answer = service.send(service.head(*lengths, close=False) + _WHOLE + b"0\r\n\r\n", ends=True)
        _assert_problem(answer, 400, "malformed-request")


def test_what_follows_a_body_is_no_part_of_it_and_is_not_logged(service: Service) -> None:
    rest = b'"pin": "4711-0815"}\r\n\r\n'
    request = service.head(b"Content-Length: 2", close=False) + b"{}" + rest
    answer = service.send(request, ends=True)
    # An equal state is no change.
    assert _statuses(answer) == [200, 400]
    assert b"4711-0815" not in answer
    assert "4711-0815" not in service.log.read_text()
    refused = service.send(service.head(_CHUNKED) + b'"pin": "4711-0815"\r\n')
    assert _statuses(refused) == [400]
    assert b"4711-0815" not in refused + service.log.read_bytes()


def test_request_of_another_protocol_is_a_problem(service: Service) -> None:
    requests: list[tuple[bytes, int, str]] = [
        (b"GET /history\r\n\r\n", *_MALFORMED),
        (b"GET /history HTTP/0.9\r\n\r\n", 505, "http-version-not-supported"),
        (b"GET /history HTTP/3.0\r\n\r\n", 505, "http-version-not-supported"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", *_MALFORMED),
        (b"GET /history HTTP/1.1\r\nConnection: close\r\n\r\n", *_MALFORMED),
        (b"GET /history HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", *_MALFORMED),
        (b"GET /history HTTP/1.1\nHost: localhost\n\n", *_MALFORMED),
        (b"get /history HTTP/1.1\r\nHost: localhost\r\n\r\n", *_MALFORMED),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", *_MALFORMED),
        (b"\0" * 9000, *_TOO_LONG),
    ]
    for request, status, kind in requests:
        _assert_problem(service.send(request, ends=True), status, kind)
    for method in (b"TRACE", b"CONNECT", b"PURGE"):
        answer = service.ask(_RECORD if method != b"CONNECT" else b"localhost:1", method=method)
        assert _statuses(answer)[0] in {400, 404, 405, 501}, answer
        assert service.authorization.strip() not in answer
    # Asking a proxy, as RFC 9112 wants to be understood; and an interim answer before the final one.
    assert _statuses(service.ask(b"http://elsewhere" + _RECORD)) == [200]
    assert _statuses(service.write(b"{}", b"Expect: 100-continue")) == [100, 200]
    # Nobody who has said nothing whole is answered.
    for cut in (b"", b"GET /hist", b"GET /history HTTP/1.1\r\nHost: local"):
        assert service.send(cut, ends=True) == b""


_LOGIN = b"POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
_UNKNOWN_LENGTH = b"POST /records/parcel HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n"
_UNCLOSED = b"GET /problems/invalid HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def test_slow_request_ends_with_a_problem_while_others_are_answered(service: Service) -> None:
    head = service.head(b"Content-Length: 100000")
    chunked = service.head(_CHUNKED) + b"ffff\r\n"

    def drip(begin: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", service.port), timeout=_HANGS) as connection:
            connection.sendall(begin)
            connection.settimeout(0.2)
            ends = time.monotonic() + _HANGS
            while time.monotonic() < ends:
                try:
                    return connection.recv(1) + _read_all(connection)
                except TimeoutError:
                    connection.sendall(b" ")
        return b"it waits for ever"

    with ThreadPoolExecutor(3) as threads, ExitStack() as held:
        slow = [threads.submit(drip, begin) for begin in (head, chunked, head[:-4])]
        stalled = [
            held.enter_context(_sent(service, begin))
            for begin in (b"", b"GET / HT", _LOGIN, head[:40])
            for _ in range(60)
        ]
        # Answered without being read, and then not closed by who sent it.
        for begin in (_UNKNOWN_LENGTH, _UNCLOSED):
            for _ in range(60):
                held.enter_context(_sent(service, begin))
        for _ in range(20):
            assert _statuses(service.ask(_RECORD)) == [200]
            assert _statuses(service.write(b"{}" + b" " * 100_000)) == [200]
        # Nobody had to wait until they were sent away.
        assert select.select(stalled, [], [], 0)[0] == []
        assert not any(one.done() for one in slow)
        for one in slow:
            _assert_problem(one.result(), 408, "request-timeout")
        for connection in stalled:
            answer = _read_all(connection)
            assert _statuses(answer) in ([], [408])


@contextmanager
def _sent(service: Service, begin: bytes) -> Iterator[socket.socket]:
    """A connection on which something was sent, and nothing will be any more."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=_HANGS) as connection:
        connection.sendall(begin)
        yield connection


def _read_all(connection: socket.socket) -> bytes:
    connection.settimeout(_HANGS)
    return _read(connection)

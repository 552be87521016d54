"""Large answers are compressed for who asks for it, and have an entity tag of their own."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response

from tests.service.api import Api, assert_problem
from tests.service.serving import running

_GZIP = {"Accept-Encoding": "gzip"}


@pytest.fixture
def record(api: Api) -> str:
    """The path of a record whose answers are large."""
    body = {"product": "p" * 80, "cycle": "c" * 120, "link": "a" * 400}
    path: str = api.post("/records/release", body)["links"]["record"]
    api.patch(path, {"link": "b" * 400}, why="Because. " * 200)
    return path


def _plain(response: Any) -> bytes:
    if "Content-Encoding" not in response.headers:
        data: bytes = response.data
        return data
    assert response.headers["Content-Encoding"] == "gzip"
    assert int(response.headers["Content-Length"]) == len(response.data)
    return gzip.decompress(response.data)


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("{record}", "*/*"),
        ("{history}", "*/*"),
        ("{history}/diff?from=0&to=1", "*/*"),
        ("{history}/timemap", "application/link-format"),
        ("/openapi.json", "*/*"),
    ],
)
def test_large_answer_is_compressed_for_who_asks(api: Api, record: str, path: str, accept: str) -> None:
    path = path.format(record=record, history=record.replace("/records", "/history"))
    plain = api.call("GET", path, headers={"Accept": accept})
    coded = api.call("GET", path, headers={"Accept": accept} | _GZIP)
    assert (plain.status_code, coded.status_code) == (200, 200)
    assert "Content-Encoding" not in plain.headers
    assert coded.headers["Content-Encoding"] == "gzip"
    assert len(coded.data) < len(plain.data)
    assert _plain(coded) == plain.data
    assert coded.headers["Content-Type"] == plain.headers["Content-Type"]
    for response in (plain, coded):
        assert "Accept-Encoding" in response.vary


def test_answer_to_a_write_is_compressed_too(api: Api, record: str) -> None:
    response = api.call("PATCH", record, {"label": "N"}, headers=_GZIP)
    assert json.loads(_plain(response))["state"]["label"] == "N"
    assert response.headers["ETag"] == '"v2:gzip"'


def test_small_answer_is_sent_as_it_is(api: Api) -> None:
    response = api.call("GET", "/problems/invalid", headers=_GZIP)
    assert "Content-Encoding" not in response.headers
    assert "Accept-Encoding" in response.vary


def test_large_problem_is_compressed(api: Api) -> None:
    query = "&".join(f"unknown-parameter-{number}=1" for number in range(50))
    response = api.call("GET", f"/records/user?{query}", headers=_GZIP)
    assert (response.status_code, response.headers["Content-Type"]) == (422, "application/problem+json")
    assert json.loads(_plain(response))["type"] == "/problems/invalid"


@pytest.mark.parametrize(
    ("accepted", "coded"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("br, gzip;q=0.5", True),
        ("*", True),
        ("identity;q=0, gzip;q=1", True),
        ("", False),
        ("br, zstd, deflate", False),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=0.000", False),
        ("*;q=0", False),
        ("gzip;q=0.2, identity;q=0.8", False),
        # Nothing is acceptable: it is answered as it is (RFC 9110, section 12.5.3).
        ("identity;q=0, gzip;q=0", False),
    ],
)
def test_coding_is_the_one_that_is_accepted(api: Api, record: str, accepted: str, *, coded: bool) -> None:
    response = api.call("GET", record, headers={"Accept-Encoding": accepted})
    assert response.status_code == 200
    assert ("Content-Encoding" in response.headers) is coded
    assert json.loads(_plain(response))["version"] == 1


def test_each_coding_has_its_tag_and_either_is_known(api: Api, record: str) -> None:
    plain, coded = api.call("GET", record), api.call("GET", record, headers=_GZIP)
    assert (plain.headers["ETag"], coded.headers["ETag"]) == ('"v1"', '"v1:gzip"')
    for accepted in ({}, _GZIP):
        for response in (plain, coded):
            etag = response.headers["ETag"]
            for known in (etag, f"W/{etag}", f'"v0", {etag}'):
                again = api.call("GET", record, headers=accepted | {"If-None-Match": known})
                assert (again.status_code, again.data) == (304, b"")
                # A cache looks by it for what it has (RFC 9111, section 4.3.4).
                assert again.headers["ETag"] == etag
                assert "Accept-Encoding" in again.vary
                assert "Content-Encoding" not in again.headers
        changed = api.call("GET", record, headers=accepted | {"If-None-Match": '"v0:gzip"'})
        assert changed.status_code == 200


def test_tag_of_a_compressed_read_is_good_for_a_write(api: Api, record: str) -> None:
    for number in range(1, 3):
        etag = api.call("GET", record, headers=_GZIP).headers["ETag"]
        assert etag == f'"v{number}:gzip"'
        assert api.call("PATCH", record, {"label": str(number)}, headers={"If-Match": etag}).status_code == 200
        stale = api.call("PATCH", record, {"label": "no"}, headers={"If-Match": etag})
        assert_problem(stale, 412, "precondition-failed")
    kept = api.call("PUT", record, {}, headers={"If-None-Match": '"v3:gzip"'})
    assert_problem(kept, 412, "precondition-failed")


def test_head_is_as_the_compressed_get(api: Api, record: str) -> None:
    sent = _GZIP | {"X-Request-ID": "1"}
    get, head = (api.call(method, record, headers=sent) for method in ("GET", "HEAD"))
    assert head.data == b""
    assert sorted(head.headers.to_wsgi_list()) == sorted(get.headers.to_wsgi_list())
    assert head.headers["Content-Encoding"] == "gzip"


def test_same_representation_has_the_same_bytes_at_any_time(
    api: Api, record: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []
    for second in (1_700_000_000, 1_800_000_000):
        monkeypatch.setattr("gzip.time.time", lambda second=second: second)
        answers.append(api.call("GET", record, headers=_GZIP))
    assert answers[0].headers["ETag"] == answers[1].headers["ETag"]
    assert answers[0].data == answers[1].data


def test_answer_with_a_secret_is_not_compressed(app: Flask) -> None:
    with app.test_request_context("/", headers=_GZIP):
        text = json.dumps({"secret": "s" * 5000})
        assert "Content-Encoding" in app.process_response(Response(text, mimetype="application/json")).headers
        secret = Response(text, mimetype="application/json", headers={"Cache-Control": "no-store"})
        assert "Content-Encoding" not in app.process_response(secret).headers


def test_streamed_answer_is_sent_as_it_is(app: Flask) -> None:
    with app.test_request_context("/", headers={"Accept-Encoding": "*"}):
        streamed = Response((b"[" + b" " * 5000 + b"]" for _ in range(1)), mimetype="application/json")
        response = app.process_response(streamed)
        assert response.is_streamed
        assert "Content-Encoding" not in response.headers


def test_running_service_compresses(app: Flask, read_token: str, database_url: str, tmp_path: Path) -> None:
    with running(database_url, read_token, tmp_path / "gunicorn.log") as server:
        answer = server.raw(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nContent-Encoding: gzip" in head
    assert json.loads(gzip.decompress(body))["openapi"] == "3.1.0"

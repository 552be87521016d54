"""Conditional requests (RFC 9110, section 13): what is compared how, and what goes first."""

import pytest
from flask import Flask

from tests.service.api import Api, all_rows, assert_problem


@pytest.fixture
def record(api: Api) -> str:
    """The path of a record at version 1."""
    path: str = api.post("/records/user", {"email": "ada@example.com"})["links"]["record"]
    api.patch(path, {"name": "A"})
    return path


def _etag(api: Api, path: str) -> str:
    etag: str = api.call("GET", path).headers["ETag"]
    return etag


@pytest.mark.parametrize("known", ["{etag}", "W/{etag}", "*", '"v0", {etag}', '{etag} , "v9"', '"a,b",W/{etag}'])
def test_read_of_what_the_client_has_is_304(api: Api, record: str, known: str) -> None:
    history = record.replace("/records", "/history")
    for path in (record, f"{history}/versions/0", f"{history}/versions/1", f"{history}/diff?from=0&to=1"):
        sent = {"If-None-Match": known.format(etag=_etag(api, path))}
        for method in ("GET", "HEAD"):
            response = api.call(method, path, headers=sent)
            assert (response.status_code, response.data) == (304, b""), path
            assert response.headers["ETag"] == _etag(api, path)
            assert response.headers["Cache-Control"]
            assert set(response.headers.keys()).isdisjoint({"Content-Type", "Content-Length", "Last-Modified"})


@pytest.mark.parametrize(
    "known", ['"v0"', '"other", W/"v"', "", '"', "{bare}", '{bare}, "v0"', "w/{etag}", '"v0" {etag}']
)
def test_read_of_what_the_client_does_not_have_is_answered(api: Api, record: str, known: str) -> None:
    etag = _etag(api, record)
    sent = {"If-None-Match": known.format(etag=etag, bare=etag.strip('"'))}
    assert api.call("GET", record, headers=sent).status_code == 200


@pytest.mark.parametrize("wanted", ["{etag}", "*", '"v0", {etag}', '"v1"', ',, "v1" ,', '"v1:gzip"', '"a,b","v1"'])
@pytest.mark.parametrize(("method", "body"), [("PUT", {"email": "b@example.com"}), ("PATCH", {}), ("DELETE", None)])
def test_write_is_done_if_the_record_is_as_the_client_wants_it(
    api: Api, record: str, method: str, body: object, wanted: str
) -> None:
    response = api.call(method, record, body, headers={"If-Match": wanted.format(etag=_etag(api, record))})
    assert response.status_code in {200, 204}, response.text


@pytest.mark.parametrize(
    "headers",
    [
        {"If-Match": '"v0"'},
        {"If-Match": "W/{etag}"},
        {"If-Match": ""},
        {"If-Match": "v1"},
        {"If-Match": 'v1, "v1"'},
        {"If-Match": "'v1'"},
        {"If-Match": '"v1" "v1"'},
        {"If-Match": '*, "v1"'},
        {"If-Match": '"v0", W/{etag}'},
        {"If-None-Match": "*"},
        {"If-None-Match": "{etag}"},
        {"If-None-Match": "W/{etag}"},
        {"If-None-Match": '"v0", "v1"'},
        {"If-Match": "{etag}", "If-None-Match": "*"},
        {"If-Match": '"v0"', "If-None-Match": '"v0"'},
    ],
)
def test_write_is_not_done_if_a_condition_does_not_hold(
    app: Flask, api: Api, record: str, headers: dict[str, str]
) -> None:
    etag = _etag(api, record)
    sent = {name: value.format(etag=etag) for name, value in headers.items()}
    with app.app_context():
        before = all_rows()
    for method, path, body in (
        ("PUT", record, {"email": "b@example.com"}),
        ("PATCH", record, {"name": "B"}),
        ("DELETE", record, None),
        ("POST", f"{record}/restore", {"version": 0}),
    ):
        assert_problem(api.call(method, path, body, headers=sent), 412, "precondition-failed")
    with app.app_context():
        assert all_rows() == before


def test_deleted_record_has_nothing_to_match(api: Api, record: str) -> None:
    api.delete(record)
    sent = {"If-Match": "*"}
    body = {"values": {"password_hash": "x"}}
    assert_problem(api.call("POST", f"{record}/restore", body, headers=sent), 412, "precondition-failed")
    again = api.call("POST", f"{record}/restore", body, headers={"If-None-Match": "*"})
    assert again.status_code == 200, again.text


def test_other_refusals_go_before_conditions(api: Api, record: str) -> None:
    sent = {"If-Match": '"v9"', "If-None-Match": "*"}
    assert_problem(api.call("PATCH", f"{record}999", {}, headers=sent), 404, "unknown-record")
    assert_problem(api.call("PATCH", record, {}, headers=sent | {"Accept": "text/html"}), 406, "not-acceptable")
    assert_problem(api.call("GET", f"{record}?colour=red", headers=sent), 422, "invalid")


def test_if_match_of_a_read_goes_before_if_none_match(api: Api, record: str) -> None:
    history = record.replace("/records", "/history")
    for path in (record, f"{history}/versions/0", f"{history}/diff?from=0&to=1"):
        etag = _etag(api, path)
        stale = api.call("GET", path, headers={"If-Match": '"v9"', "If-None-Match": etag})
        assert_problem(stale, 412, "precondition-failed")
        assert api.call("GET", path, headers={"If-Match": etag, "If-None-Match": etag}).status_code == 304
        assert api.call("GET", path, headers={"If-Match": etag}).status_code == 200


@pytest.mark.parametrize("headers", [{"If-Match": '"v0"'}, {"If-Match": ""}, {"If-None-Match": "*"}])
def test_making_a_record_is_conditional_on_the_list(app: Flask, api: Api, headers: dict[str, str]) -> None:
    with app.app_context():
        before = all_rows()
    response = api.call("POST", "/records/user", {"email": "a@example.com"}, headers=headers)
    assert_problem(response, 412, "precondition-failed")
    with app.app_context():
        assert all_rows() == before


@pytest.mark.parametrize("headers", [{}, {"If-Match": "*"}, {"If-None-Match": '"v0"'}])
def test_record_is_made_if_the_list_is_there(api: Api, headers: dict[str, str]) -> None:
    assert api.call("POST", "/records/user", {"email": "a@example.com"}, headers=headers).status_code == 201


_PAST, _FUTURE = "Sat, 01 Jan 2000 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"


@pytest.mark.parametrize(
    "headers",
    [
        {"If-Modified-Since": _FUTURE},
        {"If-Unmodified-Since": _PAST},
        {"Range": "bytes=0-9"},
        {"Range": "bytes=0-9", "If-Range": '"v1"'},
    ],
)
def test_dates_and_ranges_are_passed_over(api: Api, record: str, headers: dict[str, str]) -> None:
    for path in (record, "/records/user", f"{record.replace('/records', '/history')}/versions/0"):
        plain, response = api.call("GET", path), api.call("GET", path, headers=headers)
        assert (response.status_code, response.data) == (200, plain.data)
        assert set(response.headers.keys()).isdisjoint({"Last-Modified", "Content-Range", "Accept-Ranges"})
    assert api.call("PATCH", record, {"name": "B"}, headers=headers).status_code == 200

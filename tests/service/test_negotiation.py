"""``Accept`` and ``Content-Type`` of every operation (RFC 9110, sections 12.5.1 and 15.5.16)."""

from typing import Any

import pytest
from flask import Flask

from tests.service.api import Api, all_rows, assert_problem

_OPERATIONS = ("get", "post", "put", "patch", "delete")


@pytest.fixture
def record(api: Api) -> str:
    path: str = api.post("/records/user", {"email": "ada@example.com"})["links"]["record"]
    return path


def _every_operation(api: Api, record: str) -> list[tuple[str, str, Any]]:
    """Method, path and description of each."""
    parts = {
        "key": record.rpartition("/")[2],
        "number": 0,
        "transaction_id": "019ff871-32e0-7000-94a9-1dd0c289ae4a",
        "kind": "deleted",
    }
    return [
        (method.upper(), path.format(**parts), item[method])
        for path, item in api.get("/openapi.json")["paths"].items()
        for method in _OPERATIONS
        if method in item
    ]


def test_every_operation_refuses_what_it_cannot_answer_with_before_it_does_anything(
    app: Flask, admin: Api, record: str
) -> None:
    with app.app_context():
        before = all_rows()
    operations = [
        operation
        for operation in _every_operation(admin, record)
        if operation[2]["responses"].keys().isdisjoint({"204"})
    ]
    assert len(operations) > 20
    for method, path, told in operations:
        # Also with a body that would be refused, if it were looked at.
        response = admin.call(method, path, {"email": "b@example.com"}, headers={"Accept": "text/html, image/*"})
        assert "application/json" in assert_problem(response, 406, "not-acceptable")["detail"]
        assert "Accept" in response.vary
        assert "406" in told["responses"], f"{method} {path}"
        if not told["security"]:
            continue
        unknown = admin.call(method, path, {}, headers={"Accept": "text/html", "Authorization": "Bearer wrong"})
        assert_problem(unknown, 401, "unauthenticated")
    with app.app_context():
        assert all_rows() == before


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "application/*",
        "application/json",
        "APPLICATION/JSON",
        "application/json;charset=utf-8",
        "text/html, application/json;q=0.1",
        "application/*;q=0, application/json;q=0.001",
        "text/html,application/xhtml+xml,*/*;q=0.8",
        "",
        "*",
        ";;,",
        "json",
        "a/b/c",
        "application/json;q=high",
    ],
)
def test_json_is_answered_to_who_takes_it_and_to_who_says_nothing_readable(api: Api, record: str, accept: str) -> None:
    for method, body in (("GET", None), ("PATCH", {"name": "B"})):
        response = api.call(method, record, body, headers={"Accept": accept})
        assert (response.status_code, response.mimetype) == (200, "application/json"), response.text


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "application/json;q=0",
        "*/*;q=0",
        "*/*, application/json;q=0",
        "application/json;q=0.0, application/*",
        "application/merge-patch+json",
        "application/problem+json",
        "*/json",
    ],
)
def test_json_is_not_answered_to_who_does_not_take_it(app: Flask, api: Api, record: str, accept: str) -> None:
    with app.app_context():
        before = all_rows()
    for method, body in (("GET", None), ("PATCH", {"name": "B"})):
        assert_problem(api.call(method, record, body, headers={"Accept": accept}), 406, "not-acceptable")
    with app.app_context():
        assert all_rows() == before


def test_delete_has_nothing_to_be_acceptable(api: Api, record: str) -> None:
    assert api.call("DELETE", record, headers={"Accept": "text/html"}).status_code == 204


def test_problem_is_answered_whatever_is_accepted(api: Api, record: str) -> None:
    assert_problem(api.call("GET", "/nothing", headers={"Accept": "text/html"}), 404, "not-found")
    assert_problem(api.call("GET", f"{record}9", headers={"Accept": "application/json"}), 404, "unknown-record")


_TAKEN = [
    ("PATCH", "{record}", "application/json"),
    ("PATCH", "{record}", "application/merge-patch+json"),
    ("PATCH", "{record}", "Application/Merge-Patch+JSON; charset=UTF-8"),
    ("PUT", "{record}", "application/json"),
    ("PUT", "{record}", 'application/json;charset="utf-8"'),
    ("POST", "/records/user", "application/json"),
]
_REFUSED = [
    *(
        (method, path, content_type)
        for method, path in (("PATCH", "{record}"), ("PUT", "{record}"), ("POST", "/records/user"))
        for content_type in (
            "text/plain",
            "text/json",
            "application/vnd.api+json",
            "application/json-patch+json",
            "application/problem+json",
            "application/x-www-form-urlencoded",
            "application/json;charset=latin-1",
            "application/json;charset=utf-16",
            "json",
            "",
        )
    ),
    ("PUT", "{record}", "application/merge-patch+json"),
    ("POST", "/records/user", "application/merge-patch+json"),
    ("POST", "{record}/restore", "application/merge-patch+json"),
    ("PATCH", "{record}", "application/merge-patch+json;charset=latin-1"),
]
_BODY = b'{"email": "b@example.com"}'


@pytest.mark.parametrize(("method", "path", "content_type"), _TAKEN)
def test_body_of_a_documented_type_is_taken(api: Api, record: str, method: str, path: str, content_type: str) -> None:
    sent = api.headers | {"Content-Type": content_type}
    response = api.client.open(path.format(record=record), method=method, data=_BODY, headers=sent)
    assert response.status_code in {200, 201}, response.text


@pytest.mark.parametrize(("method", "path", "content_type"), _REFUSED)
def test_body_of_another_type_is_refused_with_what_would_be_right(
    app: Flask, api: Api, record: str, method: str, path: str, content_type: str
) -> None:
    with app.app_context():
        before = all_rows()
    sent = api.headers | {"Content-Type": content_type}
    response = api.client.open(path.format(record=record), method=method, data=_BODY, headers=sent)
    assert_problem(response, 415, "unsupported-media-type")
    types = "application/merge-patch+json, application/json" if method == "PATCH" else "application/json"
    assert response.headers["Accept"] == types
    assert response.headers.get("Accept-Patch") == (types if method == "PATCH" else None)
    with app.app_context():
        assert all_rows() == before


def test_types_of_bodies_are_documented(api: Api, record: str) -> None:
    for method, path, told in _every_operation(api, record):
        assert ("requestBody" in told) is (method in {"POST", "PUT", "PATCH"}), f"{method} {path}"
        if "requestBody" in told:
            patch = {"application/merge-patch+json"} if method == "PATCH" else set()
            assert told["requestBody"]["content"].keys() == {"application/json", *patch}


def test_coded_body_is_refused_with_the_coding_that_would_be_right(api: Api, record: str) -> None:
    sent = api.headers | {"Content-Type": "application/json"}
    response = api.client.patch(record, data=_BODY, headers=sent | {"Content-Encoding": "gzip"})
    assert_problem(response, 415, "unsupported-media-type")
    assert response.headers["Accept-Encoding"] == "identity"
    assert api.client.patch(record, data=_BODY, headers=sent | {"Content-Encoding": "Identity"}).status_code == 200


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_body_is_utf_8(api: Api, record: str, encoding: str) -> None:
    sent = api.headers | {"Content-Type": "application/json"}
    response = api.client.patch(record, data='{"name": "Ä"}'.encode(encoding), headers=sent)
    assert_problem(response, 400, "malformed-request")


def test_body_that_a_method_has_no_use_for_is_ignored(api: Api, record: str) -> None:
    sent = api.headers | {"Content-Type": "text/plain"}
    assert api.client.get(record, data=b"no JSON", headers=sent).status_code == 200
    assert api.client.delete(record, data=b"no JSON", headers=sent).status_code == 204

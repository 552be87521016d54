"""Records as they were at an instant, by HTTP."""

from datetime import timedelta
from typing import Any

import pytest

from app.instants import instant_text, parse_instant
from tests.service.api import Api, assert_problem


def shifted(at: str, microseconds: int) -> str:
    return instant_text(parse_instant(at) + timedelta(microseconds=microseconds))


@pytest.fixture
def instants(api: Api) -> list[str]:
    """When each of several changes to three users was made; the second user is deleted in the end."""
    paths = [
        api.post("/records/user", {"email": f"{name}@example.com", "password_hash": "a secret"})["links"]["record"]
        for name in ("a", "b", "c")
    ]
    api.patch(paths[0], {"name": "A"})
    api.patch(paths[1], {"name": "B", "last_seen_at": "2026-03-01T09:00:00Z"})
    api.delete(paths[1])
    api.patch(paths[2], {"password_hash": "another secret"})
    return [change["changed"] for change in reversed(api.get("/history/user")["changes"])]


def listed(api: Api, at: str, limit: int = 50) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    path: str | None = f"/records/user?as_of={at}&limit={limit}"
    while path is not None:
        response = api.call("GET", path)
        assert response.status_code == 200, response.text
        assert len(response.json["records"]) <= limit
        records += response.json["records"]
        link = response.headers.get("Link")
        assert (link is None) == (response.json["next"] is None)
        path = link and link.partition(">")[0].removeprefix("<")
    return records


@pytest.mark.parametrize("limit", [1, 2, 50])
def test_table_as_of_an_instant_is_each_record_as_of_it(api: Api, instants: list[str], limit: int) -> None:
    keys = sorted({change["key"] for change in api.get("/history/user")["changes"]}, key=int)
    for at in instants:
        for shift in (-1, 0, 1):
            instant = shifted(at, shift)
            each = []
            for key in keys:
                response = api.call("GET", f"/records/user/{key}?as_of={instant}")
                version = api.call("GET", f"/history/user/{key}/version_at?at={instant}")
                assert response.status_code == version.status_code
                if response.status_code == 404:
                    assert_problem(response, 404, "unknown-version")
                    continue
                each.append(response.json)
                for name in ("key", "version", "valid_from", "state"):
                    assert response.json[name] == version.json[name]
            assert listed(api, instant, limit) == each


def test_deleted_record_is_listed_as_of_when_it_lived(api: Api, instants: list[str]) -> None:
    before = listed(api, shifted(instants[-2], -1))
    assert [record["state"]["name"] for record in before] == ["A", "B", None]
    assert [record["state"]["name"] for record in listed(api, instants[-2])] == ["A", None]
    assert [record["state"]["name"] for record in listed(api, "2999-01-01T00:00:00Z")] == ["A", None]
    assert listed(api, "1999-01-01T00:00:00Z") == []


def test_hidden_and_untracked_columns_are_not_of_the_past(api: Api, instants: list[str]) -> None:
    record = listed(api, instants[-1])[0]
    assert set(record["state"]) == {"id", "email", "name", "active"}
    assert set(api.get(f"{record['links']['record']}?as_of={instants[-1]}")["state"]) == set(record["state"])
    assert "last_seen_at" in api.get(record["links"]["record"])["state"]


def test_state_of_an_instant_has_an_etag(api: Api, instants: list[str]) -> None:
    path = f"{listed(api, instants[-1])[0]['links']['record']}?as_of={instants[-1]}"
    response = api.call("GET", path)
    again = api.call("GET", path, headers={"If-None-Match": response.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_cursor_is_good_for_the_same_instant_only(api: Api, instants: list[str]) -> None:
    cursor = api.get(f"/records/user?as_of={instants[-1]}&limit=1")["next"]
    assert_problem(api.call("GET", f"/records/user?as_of={instants[0]}&cursor={cursor}"), 422, "invalid")
    assert_problem(api.call("GET", f"/records/user?cursor={cursor}"), 422, "invalid")


@pytest.mark.parametrize("at", ["yesterday", "2026-03-01", "2026-03-01T09:00:00", ""])
def test_wrong_instant_is_named(api: Api, at: str) -> None:
    for path in ("/records/user", "/records/user/1"):
        problem = assert_problem(api.call("GET", f"{path}?as_of={at}"), 422, "invalid")
        assert "as_of" in problem["errors"]["query"]


def test_record_that_never_was_is_unknown_as_of_any_instant(api: Api) -> None:
    assert_problem(api.call("GET", "/records/user/2147483647?as_of=2026-03-01T09:00:00Z"), 404, "unknown-record")

"""What may be kept, what is asked for again, and how one page leads to the next."""

from typing import Any

import pytest
from flask import Flask

from tests.service.api import Api
from tests.service.links import links_by_relation

_ASKED_AGAIN = "private, no-cache"
_PATCH = {"Accept": "application/json-patch+json"}


@pytest.fixture
def history(api: Api) -> str:
    """The path of a user's history of three versions."""
    created = api.post("/records/user", {"email": "a@example.com", "name": "A"})
    for name in "BC":
        api.patch(created["links"]["record"], {"name": name})
    path: str = created["links"]["history"]
    return path


def _kept(response: Any) -> dict[str, str]:
    """The headers that a 304 answer must have as the 200 answer has them (RFC 9110, section 15.4.5), and links."""
    names = ("ETag", "Cache-Control", "Vary", "Link", "Memento-Datetime")
    return {name: response.headers[name] for name in names if name in response.headers}


_CACHED = ["/versions/0", "/versions/2", "/diff?from=0&to=1", "/diff?from=0", "record"]


def _path(history: str, what: str) -> str:
    return history.replace("/history", "/records") if what == "record" else f"{history}{what}"


@pytest.mark.parametrize("what", _CACHED)
def test_what_the_client_has_is_not_sent_again(api: Api, history: str, what: str) -> None:
    path = _path(history, what)
    whole = api.call("GET", path)
    etag = whole.headers["ETag"]
    for given in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        for method in ("GET", "HEAD"):
            response = api.call(method, path, headers={"If-None-Match": given})
            assert (response.status_code, response.data) == (304, b"")
            assert "Content-Type" not in response.headers
            assert _kept(response) == _kept(whole)
    assert api.call("GET", path, headers={"If-None-Match": '"other"'}).json == whole.json


@pytest.mark.parametrize("what", [*_CACHED, "", "/changes", "/timemap", "/version_at?at=2101-01-01T00:00:00Z"])
def test_head_is_get_without_the_body(api: Api, history: str, what: str) -> None:
    path = _path(history, what)
    whole, head = (api.call(method, path, headers={"X-Request-ID": "1"}) for method in ("GET", "HEAD"))
    assert (head.status_code, head.data) == (200, b"")
    assert dict(head.headers) == dict(whole.headers)


@pytest.mark.parametrize(
    "what",
    [
        *_CACHED,
        "/versions/1",
        "/diff?from=0&to=2",
        "/diff?from={at}&to=1",
        "/diff?from=0&to={at}",
        "",
        "/changes",
        "/blame",
        "/version_at?at={at}",
        "/has_changed_since?since={at}",
    ],
)
def test_nothing_is_kept_without_asking(api: Api, history: str, what: str) -> None:
    """Not even a prior version: its values may have been erased."""
    at = api.get(history)["versions"][0]["valid_from"]
    for headers in ({}, _PATCH if "/diff" in what else {}):
        response = api.call("GET", _path(history, what.format(at=at)), headers=headers)
        assert response.status_code == 200
        assert response.headers["Cache-Control"] == _ASKED_AGAIN


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/history", {}, 200),
        ("GET", "/history/user", {}, 200),
        ("GET", "{history}/timemap", {}, 200),
        ("GET", "/records/user", {}, 200),
        ("GET", "/records/user?as_of=2026-03-01T09:00:00Z", {}, 200),
        ("GET", "{record}?as_of=2101-01-01T00:00:00Z", {}, 200),
        ("GET", "{record}", {"Accept-Datetime": "Sun, 01 Mar 2026 09:00:00 GMT"}, 302),
        ("GET", "/history/user/2147483647", {}, 404),
        ("GET", "/nothing", {}, 404),
        ("GET", "/history/user?cursor=%FF", {}, 400),
        ("GET", "/history/user?colour=red", {}, 422),
        ("GET", "/records/user", {"Authorization": "Bearer wrong"}, 401),
        ("PUT", "{history}", {}, 405),
        ("DELETE", "{record}", {}, 204),
    ],
)
def test_every_other_answer_is_asked_for_again(
    api: Api, history: str, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    path = path.format(history=history, record=_path(history, "record"))
    response = api.call(method, path, headers=headers)
    assert response.status_code == status, response.text
    assert response.headers["Cache-Control"] == _ASKED_AGAIN


@pytest.mark.parametrize(
    ("path", "varying"),
    [("{history}/timemap", {"Accept"}), ("{history}/diff", {"Accept"}), ("{record}", {"Accept-Datetime"})],
)
@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [("?colour=red", {}, 422), ("?colour=%FF", {}, 400), ("", {"Authorization": "Bearer wrong"}, 401)],
)
def test_every_answer_says_which_headers_it_depends_on(
    api: Api, history: str, path: str, varying: set[str], query: str, headers: dict[str, str], status: int
) -> None:
    path = path.format(history=history, record=_path(history, "record"))
    response = api.call("GET", f"{path}{query}", headers=headers)
    assert response.status_code == status, response.text
    assert set(response.vary) >= varying


def test_open_reading_is_kept_by_the_client_alone_as_well(
    app: Flask, api: Api, history: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "OPEN_READING", True)
    assert api.client.get(f"{history}/versions/0").headers["Cache-Control"] == _ASKED_AGAIN


def test_version_has_another_tag_once_it_is_a_prior_one(api: Api, history: str) -> None:
    record, path = history.replace("/history", "/records"), f"{history}/versions/2"
    live = api.call("GET", path)
    api.patch(record, {"name": "D"})
    prior = api.call("GET", path, headers={"If-None-Match": live.headers["ETag"]})
    assert (prior.status_code, prior.headers["Cache-Control"]) == (200, _ASKED_AGAIN)
    assert prior.json["changed"] is not None
    api.delete(record)
    # What never changes is the same whatever happens to the record.
    assert api.call("GET", path).json == prior.json
    assert api.call("GET", path).headers["ETag"] == prior.headers["ETag"]


def test_diff_has_another_tag_once_its_end_is_a_prior_version(api: Api, history: str) -> None:
    live = api.call("GET", f"{history}/diff?from=1&to=2")
    api.patch(history.replace("/history", "/records"), {"name": "D"})
    prior = api.call("GET", f"{history}/diff?from=1&to=2", headers={"If-None-Match": live.headers["ETag"]})
    assert (prior.status_code, prior.headers["Cache-Control"]) == (200, _ASKED_AGAIN)
    assert prior.json["to"]["changed"] is not None


def test_each_representation_of_a_diff_has_its_tag(api: Api, history: str) -> None:
    path = f"{history}/diff?from=0&to=1"
    etag = api.call("GET", path).headers["ETag"]
    response = api.call("GET", path, headers=_PATCH | {"If-None-Match": etag})
    assert (response.status_code, response.mimetype) == (200, _PATCH["Accept"])
    assert api.call("GET", path, headers=_PATCH | {"If-None-Match": response.headers["ETag"]}).status_code == 304


@pytest.mark.parametrize(
    ("path", "entries"),
    [
        ("{history}?order=desc&after=2001-01-01T00:00:00%2B01:00", "versions"),
        ("{history}?order=asc", "versions"),
        ("{history}/changes", "changes"),
        ("{history}/timemap", "mementos"),
        ("/records/release", "records"),
    ],
)
def test_link_to_the_next_page_is_its_whole_address(api: Api, path: str, entries: str) -> None:
    """Also where a key holds what an address writes otherwise."""
    for number in range(5):
        links = api.post("/records/release", {"product": f"ä, {number}?", "cycle": "1/~ &"})["links"]
    for number in range(5):
        api.patch(links["record"], {"label": str(number)})
    path = path.format(history=links["history"])
    json = {"Accept": "application/json"}
    whole = api.call("GET", path, headers=json).json[entries]
    assert len(whole) >= 5
    following: str | None = f"{path}{'&' if '?' in path else '?'}limit=2"
    paged: list[Any] = []
    while following:
        response = api.call("GET", following, headers=json)
        assert response.status_code == 200, response.text
        assert len(response.json[entries]) <= 2
        paged += response.json[entries]
        assert ("Link" in response.headers) is (response.json["next"] is not None)
        following = links_by_relation(response)["next"] if "Link" in response.headers else None
    assert paged == whole

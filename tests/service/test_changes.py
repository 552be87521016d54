"""What the routes tell of changes: the feed of a model, a record's blame, one transaction."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask

from app.db import db
from app.models import Release, User
from chrononaut import ImportedChange, import_changes, rationale
from tests.service.api import Api, assert_problem


@pytest.fixture
def records(api: Api) -> dict[str, str]:
    """Paths of the histories of two users and a release, which changed by turns."""
    ada = api.post("/records/user", {"email": "ada@exmaple.com", "name": "Ada"}, why="Signed up")
    bob = api.post("/records/user", {"email": "bob@example.com"}, why="Signed up")
    release = api.post("/records/release", {"product": "a/b", "cycle": "1, 2", "latest": "1"}, why="Out now")
    api.patch(ada["links"]["record"], {"email": "ada@example.com"}, why="Typing error")
    api.patch(bob["links"]["record"], {"password_hash": "a secret", "active": False}, why="UTF-8''Gr%C3%BC%C3%9Fe")
    api.patch(ada["links"]["record"], {"name": None}, why="Typing error")
    api.delete(bob["links"]["record"], why="Left us")
    links = {"ada": ada, "bob": bob, "release": release}
    return {name: record["links"]["history"] for name, record in links.items()}


def pages(api: Api, path: str, **query: Any) -> Iterator[list[dict[str, Any]]]:
    """All pages, each by the link to it that the page before has."""
    response: Any = api.client.get(path, query_string=query, headers=api.headers)
    while True:
        assert response.status_code == 200, response.text
        yield response.json["changes"]
        if response.json["next"] is None:
            assert "next" not in response.headers.get("Link", "")
            return
        target = response.headers["Link"].partition(">")[0].removeprefix("<")
        response = api.client.get(target, headers=api.headers)


def test_feed_tells_of_all_records_newest_first(api: Api, records: dict[str, str]) -> None:
    changes = api.get("/history/user")["changes"]
    assert [(change["links"]["history"], change["version"], change["operation"]) for change in changes] == [
        (records["bob"], 1, "delete"),
        (records["ada"], 1, "update"),
        (records["bob"], 0, "update"),
        (records["ada"], 0, "update"),
        (records["bob"], -1, "insert"),
        (records["ada"], -1, "insert"),
    ]
    update = changes[3]
    assert update["differences"] == {"email": {"from": "ada@exmaple.com", "to": "ada@example.com"}}
    assert update["change_info"]["extra"] == {"change_rationale": "Typing error"}
    assert (update["model"], update["hidden_changed"]) == ("user", [])
    assert changes[2]["hidden_changed"] == ["password_hash"]
    of_record = api.get(f"{records['ada']}/changes")["changes"]
    assert [{name: change[name] for name in of_record[0]} for change in changes if change["key"] == update["key"]] == [
        *reversed(of_record)
    ]


@pytest.mark.parametrize("limit", [1, 2, 5, 6])
def test_feed_is_paged(api: Api, records: dict[str, str], limit: int) -> None:
    listed = [*pages(api, "/history/user", limit=limit)]
    assert [change for page in listed for change in page] == api.get("/history/user")["changes"]
    assert [len(page) for page in listed[:-1]] == [limit] * (len(listed) - 1)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"operation": "insert"}, [("bob", -1), ("ada", -1)]),
        ({"attribute": "email", "operation": "update"}, [("ada", 0)]),
        ({"attribute": "password_hash"}, [("bob", 1), ("bob", 0)]),
        ({"user_id": "writer@example.com", "attribute": "active", "operation": "update"}, [("bob", 0)]),
        ({"user_id": "nobody@example.com"}, []),
        ({"extra.change_rationale": "Grüße"}, [("bob", 0)]),
        ({"extra.change_rationale": "Typing error"}, [("ada", 1), ("ada", 0)]),
        ({"extra.change_rationale": "Typing error", "extra.change_ticket": "1"}, []),
        ({"extra.": ""}, 422),
    ],
)
def test_feed_is_filtered(api: Api, records: dict[str, str], query: dict[str, str], expected: Any) -> None:
    if expected == 422:
        response = api.client.get("/history/user", query_string=query, headers=api.headers)
        assert_problem(response, 422, "invalid")
        return
    for limit in (1, 50):
        listed = [change for page in pages(api, "/history/user", limit=limit, **query) for change in page]
        assert [(change["links"]["history"], change["version"]) for change in listed] == [
            (records[name], version) for name, version in expected
        ]


def test_since_and_until_split_the_feed(api: Api, records: dict[str, str]) -> None:
    everything = api.get("/history/user")["changes"]
    for change in everything:
        later = api.get(f"/history/user?since={change['changed']}")["changes"]
        earlier = api.get(f"/history/user?until={change['changed']}")["changes"]
        assert later + earlier == everything
        assert earlier[0] == change


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("attribute=id", "attribute"),
        ("attribute=last_seen_at", "attribute"),
        ("operation=upsert", "operation"),
        ("transaction_id=7", "transaction_id"),
        ("since=yesterday", "since"),
        ("user_id=%00", "user_id"),
        ("extra.a=%00", "extra.a"),
        ("extra.a=b&extra.%00=a", "…"),
        ("extra.change_rationale=%00", "extra.change_rationale"),
        ("limit=0", "limit"),
        ("extra=x", "extra"),
        ("cursor=x", "cursor"),
        ("nothing=x", "nothing"),
    ],
)
def test_wrong_parameter_is_named(api: Api, query: str, place: str) -> None:
    problem = assert_problem(api.call("GET", f"/history/user?{query}"), 422, "invalid")
    assert place in problem["errors"]["query"]


def test_cursor_is_good_for_the_same_question_only(api: Api, records: dict[str, str]) -> None:
    cursor = api.get("/history/user?limit=1")["next"]
    assert_problem(api.call("GET", f"/history/user?operation=insert&cursor={cursor}"), 422, "invalid")
    assert_problem(api.call("GET", f"/history/release?cursor={cursor}"), 422, "invalid")
    assert api.get(f"/history/user?limit=3&cursor={cursor}")["changes"][0]["links"]["history"] == records["ada"]


def test_feed_stays_whole_while_records_change(api: Api, records: dict[str, str]) -> None:
    before = [(change["key"], change["version"]) for change in api.get("/history/user")["changes"]]
    seen = []
    for number, page in enumerate(pages(api, "/history/user", limit=1)):
        seen += [(change["key"], change["version"]) for change in page]
        api.patch(records["ada"].replace("/history", "/records"), {"name": f"Name {number}"})
    assert seen == before


def test_blame_tells_who_set_each_column(api: Api, records: dict[str, str]) -> None:
    columns = api.get(f"{records['ada']}/blame")["columns"]
    assert {name: column["version"] for name, column in columns.items()} == {
        "email": 0,
        "name": 1,
        "active": -1,
        "password_hash": -1,
    }
    assert (columns["email"]["from"], columns["email"]["to"]) == ("ada@exmaple.com", "ada@example.com")
    assert (columns["name"]["from"], columns["name"]["to"]) == ("Ada", None)
    assert columns["email"]["change_info"]["extra"] == {"change_rationale": "Typing error"}
    assert (columns["active"]["from"], columns["active"]["to"]) == (None, True)


def test_blame_of_a_deleted_record_names_hidden_columns_without_values(api: Api, records: dict[str, str]) -> None:
    columns = api.get(f"{records['bob']}/blame")["columns"]
    assert columns["password_hash"]["version"] == 0
    assert (columns["password_hash"]["from"], columns["password_hash"]["to"]) == (None, None)
    assert_problem(api.call("GET", "/history/user/2147483647/blame"), 404, "unknown-record")


def test_transaction_tells_of_all_models(app: Flask, api: Api) -> None:
    with app.test_request_context(), rationale("Import"):
        db.session.add_all([Release(product="p", cycle=cycle) for cycle in ("1", "2", "a,b/c~d")])
        db.session.add_all([User(email="a"), User(email="b")])
        db.session.commit()
    transaction_id = api.get("/history/user?limit=1")["changes"][0]["transaction_id"]
    path = f"/transactions/{transaction_id}"
    document = api.get(path)
    assert document["transaction_id"] == transaction_id
    assert [(change["model"], change["operation"]) for change in document["changes"]] == [
        *[("release", "insert")] * 3,
        *[("user", "insert")] * 2,
    ]
    for limit in range(1, 7):
        assert [change for page in pages(api, path, limit=limit) for change in page] == document["changes"]
    for change in document["changes"]:
        assert api.get(change["links"]["history"])["current"]["version"] == 0


def test_transaction_has_another_tag_once_it_is_another_answer(app: Flask, api: Api) -> None:
    """A later import can add to a transaction, and `delete_with_history` takes from it."""
    at = datetime(2026, 3, 1, tzinfo=UTC)

    def write(cycle: str) -> None:
        created = ImportedChange("insert", ("p", cycle), at, {"label": cycle}, transaction="one import")
        with app.app_context():
            import_changes(db.session(), Release, [created])
            db.session.commit()

    def kept(response: Any) -> tuple[str, str]:
        assert response.status_code == 200, response.text
        return response.headers["Cache-Control"], response.headers["ETag"]

    write("1")
    path = f"/transactions/{api.get('/history/release?limit=1')['changes'][0]['transaction_id']}"
    first = api.call("GET", path)
    assert kept(first)[0] == "private, no-cache"
    asked_again = {"If-None-Match": first.headers["ETag"]}
    same = api.call("GET", path, headers=asked_again)
    assert (same.status_code, same.data) == (304, b"")

    write("2")
    second = api.call("GET", path, headers=asked_again)
    assert [change["key"] for change in second.json["changes"]] == ["p,1", "p,2"]
    with app.app_context():
        db.session.get_one(Release, ("p", "1")).delete_with_history()
        db.session.commit()
    third = api.call("GET", path, headers={"If-None-Match": second.headers["ETag"]})
    assert [change["key"] for change in third.json["changes"]] == ["p,2"]
    assert len({kept(response) for response in (first, second, third)}) == 3


def test_transaction_that_never_was_is_unknown(api: Api) -> None:
    assert_problem(api.call("GET", f"/transactions/{uuid4()}"), 404, "unknown-transaction")
    problem = assert_problem(api.call("GET", "/transactions/7"), 404, "unknown-transaction")
    assert "UUID" in problem["detail"]

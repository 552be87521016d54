"""``POST /bulk/{model}``: many records in one transaction, all or none."""

import json
from collections.abc import Iterator
from threading import Barrier, Thread
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from app.db import db
from tests.library.conftest import Statements, recorded
from tests.service.api import Api, all_rows, assert_problem

Item = dict[str, Any]


def create(**record: Any) -> Item:
    return {"operation": "create", "record": record}


def change(key: str, if_match: str | None = None, **changes: Any) -> Item:
    return _existing("change", key, if_match) | {"changes": changes}


def replace(key: str, if_match: str | None = None, **record: Any) -> Item:
    return _existing("replace", key, if_match) | {"record": record}


def delete(key: str, if_match: str | None = None) -> Item:
    return _existing("delete", key, if_match)


def _existing(operation: str, key: str, if_match: str | None) -> Item:
    return {"operation": operation, "key": key} | ({} if if_match is None else {"if_match": if_match})


@pytest.fixture
def keys(api: Api) -> list[str]:
    """The keys of three users, a, b and c."""
    return [api.post("/records/user", {"email": email, "name": email})["key"] for email in "abc"]


@pytest.fixture
def statements(app: Flask) -> Iterator[Statements]:
    with app.app_context(), recorded(db.engine) as statements:
        yield statements


def _emails(api: Api) -> list[str]:
    return [record["state"]["email"] for record in api.get("/records/user?limit=500")["records"]]


def _failing(api: Api, items: list[Any], status: int, kind: str, model: str = "user") -> dict[int, tuple[int, str]]:
    """Send items that fail.

    :return: place of each item that fails → status and kind of its problem
    """
    with api.client.application.app_context():
        before = all_rows()
    problem = assert_problem(api.call("POST", f"/bulk/{model}", {"items": items}), status, kind)
    with api.client.application.app_context():
        assert _without_last_use(all_rows()) == _without_last_use(before)
    assert "so none was" in problem["detail"]
    indices = [item["index"] for item in problem["items"]]
    assert indices == sorted(set(indices))
    for item in problem["items"]:
        assert item["problem"]["detail"]
        assert item["problem"]["title"]
    return {
        item["index"]: (item["problem"]["status"], item["problem"]["type"].removeprefix("/problems/"))
        for item in problem["items"]
    }


def _without_last_use(rows: dict[str, Any]) -> dict[str, Any]:
    return {table: found for table, found in rows.items() if "token" not in table}


def test_items_are_written_and_answered_in_the_order_sent(api: Api, keys: list[str]) -> None:
    a, b, c = keys
    sent = [delete(c), create(email="x"), change(a, '"v0"', name="A"), replace(b, email="B"), create(email="y")]
    answer = api.post("/bulk/user", {"items": sent}, why="spring cleaning")
    assert answer["model"] == "user"
    told = [(item["operation"], item["version"]) for item in answer["items"]]
    assert told == [("delete", None), ("create", 0), ("change", 1), ("replace", 1), ("create", 0)]
    assert [item["key"] for item in answer["items"]][2:4] == [a, b]
    for item in answer["items"][1:]:
        record = api.call("GET", item["links"]["record"])
        assert (record.json["key"], record.json["version"]) == (item["key"], item["version"])
        assert record.headers["ETag"] == item["etag"]
    assert api.call("GET", answer["items"][0]["links"]["record"]).status_code == 410
    assert answer["items"][0]["etag"] is None
    states = [api.get(item["links"]["record"])["state"] for item in answer["items"][1:]]
    assert [(state["email"], state["name"]) for state in states] == [("x", None), ("a", "A"), ("B", None), ("y", None)]


def test_all_changes_share_one_transaction_one_instant_and_the_reasons(api: Api, keys: list[str]) -> None:
    a, _, c = keys
    api.post("/bulk/user", {"items": [delete(c), create(email="x"), change(a, name="A")]}, why="spring cleaning")
    changes = api.get("/history/user?limit=3")["changes"]
    assert sorted(one["operation"] for one in changes) == ["delete", "insert", "update"]
    assert len({(one["transaction_id"], one["changed"]) for one in changes}) == 1
    for one in changes:
        assert one["change_info"]["extra"] == {"change_rationale": "spring cleaning"}
        assert one["change_info"]["user_id"] == "writer@example.com"
    rows = {one["key"]: one for one in changes}
    assert rows[c]["version"] == 0
    assert api.get(f"/history/user/{a}")["versions"][0]["state"]["name"] == "a"


def test_each_failing_item_is_named_with_its_problem_and_nothing_is_written(api: Api, keys: list[str]) -> None:
    a, b, c = keys
    api.delete(f"/records/user/{c}")
    items = [
        change(a, name="fine"),
        change("999999", name="x"),
        delete(c),
        change(b, '"v7"', name="x"),
        create(email="new"),
        change(a, name="twice"),
        change("no-number", name="x"),
    ]
    assert _failing(api, items, 409, "bulk-failed") == {
        1: (404, "unknown-record"),
        2: (410, "deleted"),
        3: (412, "precondition-failed"),
        5: (409, "conflict"),
        6: (404, "unknown-record"),
    }


def test_items_that_do_not_fit_are_all_named_beside_those_that_cannot_be_written(api: Api, keys: list[str]) -> None:
    items: list[Any] = [
        create(email=7),
        change(keys[0], unknown=1),
        {"operation": "upsert"},
        "no object",
        {"operation": ["create"]},
        {"operation": "delete"},
        create(email="a\0"),
        delete(keys[0]) | {"record": {}},
        change("999999", name="x"),
        create(email="a"),
        create(email="fine"),
    ]
    failing = _failing(api, items, 422, "bulk-invalid")
    assert failing == dict.fromkeys(range(8), (422, "invalid")) | {
        8: (404, "unknown-record"),
        9: (409, "conflict"),
    }


def test_what_does_not_fit_is_told_as_for_one_record(api: Api, keys: list[str]) -> None:
    problem = api.call("POST", "/bulk/user", {"items": [create(name="x", emial="y")]}).json["items"][0]["problem"]
    assert problem["errors"]["json"]["record"].keys() == {"email", "emial"}


def test_unique_conflicts_are_found_for_each_item(api: Api, keys: list[str]) -> None:
    items = [
        create(email="x"),
        create(email="a"),
        change(keys[0], email="b"),
        create(email="x"),
        change(keys[2], name="C"),
    ]
    assert _failing(api, items, 409, "bulk-failed") == dict.fromkeys((1, 2, 3), (409, "conflict"))


def test_conflict_that_the_order_sent_solves_is_none(api: Api, keys: list[str]) -> None:
    a, b, _ = keys
    sent = [delete(a), create(email="a"), change(b, email="z"), create(email="b")]
    answer = api.post("/bulk/user", {"items": sent})
    assert _emails(api) == ["z", "c", "a", "b"]
    assert [item["version"] for item in answer["items"]] == [None, 0, 1, 0]
    (changes,) = {one["transaction_id"]: one for one in api.get("/history/user?limit=4")["changes"]}
    assert changes
    versions = api.get(f"/history/user/{b}")["versions"]
    assert [(one["version"], one["state"]["email"]) for one in versions] == [(0, "b")]


def test_few_conflicts_among_many_records_are_found_by_few_statements(api: Api, statements: Statements) -> None:
    made = api.post("/bulk/user", {"items": [create(email=f"{number}") for number in range(128)]})["items"]
    items = [
        *(change(item["key"], name="x") for item in made),
        *(create(email=f"{number}") for number in range(128, 256)),
    ]
    items[200] = create(email="7")
    statements.clear()
    assert _failing(api, items, 409, "bulk-failed") == {200: (409, "conflict")}
    assert len(statements.matching("SAVEPOINT")) < 60
    assert len([one for one, _ in statements.executed if one.startswith("SELECT appuser.")]) < 30


def test_existing_and_repeated_keys_of_new_records_are_refused(api: Api) -> None:
    api.post("/records/release", {"product": "p", "cycle": "1"})
    items = [create(product="p", cycle="1"), create(product="p", cycle="2"), create(product="p", cycle="2")]
    assert _failing(api, items, 409, "bulk-failed", "release") == {0: (409, "record-exists"), 2: (409, "conflict")}


def test_keys_of_several_parts_and_odd_letters_are_found(api: Api) -> None:
    made = api.post(
        "/bulk/release", {"items": [create(product="a/b", cycle="1,~2"), create(product="bulk", cycle="x")]}
    )
    keys = [item["key"] for item in made["items"]]
    assert keys == ["a~1b,1~2~02", "bulk,x"]
    answer = api.post("/bulk/release", {"items": [change(keys[0], label="l"), delete(keys[1])]})
    assert api.get(answer["items"][0]["links"]["record"])["state"]["label"] == "l"


def test_key_that_is_used_again_goes_on_with_its_numbers(api: Api) -> None:
    api.post("/bulk/release", {"items": [create(product="p", cycle="1")]})
    api.post("/bulk/release", {"items": [delete("p,1")]})
    answer = api.post("/bulk/release", {"items": [create(product="p", cycle="1")]})
    assert (answer["items"][0]["version"], answer["items"][0]["etag"]) == (2, '"v2"')


def test_item_that_changes_nothing_makes_no_version(api: Api, keys: list[str]) -> None:
    answer = api.post("/bulk/user", {"items": [change(keys[0], name="a"), change(keys[1])]})
    assert [item["version"] for item in answer["items"]] == [0, 0]
    assert api.get(f"/history/user/{keys[0]}")["versions"] == []


def test_objects_in_json_columns_are_merged(own_api: Api) -> None:
    own_api.headers |= {"X-Change-Ticket": "OPS-1", "X-Change-Rationale": "why"}
    made = own_api.post("/bulk/invoice", {"items": [create(amount=1, details={"a": {"b": 1, "c": 2}})]})["items"][0]
    own_api.post("/bulk/invoice", {"items": [change(made["key"], details={"a": {"b": None}})]})
    assert own_api.get(made["links"]["record"])["state"]["details"] == {"a": {"c": 2}}


def test_required_reasons_are_asked_for_first(own_api: Api) -> None:
    assert_problem(own_api.call("POST", "/bulk/invoice", {"items": [7]}), 400, "change-info-required")


@pytest.mark.parametrize(
    "body", [{}, {"items": []}, {"items": {}}, {"items": [create(email="x")], "more": 1}, {"items": None}, []]
)
def test_body_that_is_no_list_of_items_is_refused(api: Api, body: Any) -> None:
    assert_problem(api.call("POST", "/bulk/user", body), 422, "invalid")


def test_more_than_1000_items_are_refused(api: Api) -> None:
    items = [create(email=f"{number}@example.com") for number in range(1001)]
    problem = assert_problem(api.call("POST", "/bulk/user", {"items": items}), 422, "invalid")
    assert "1000" in str(problem["errors"])
    assert _emails(api) == []


def test_1000_records_take_few_statements(api: Api, statements: Statements) -> None:
    items = [create(product=f"p{number}", cycle="1", label="a") for number in range(1000)]
    api.post("/bulk/release", {"items": items})
    created = len(statements.executed)
    statements.clear()
    items = [
        change(f"p{number},1", '"v0"', label="b") if number % 2 else delete(f"p{number},1") for number in range(1000)
    ]
    api.post("/bulk/release", {"items": items})
    changed = len(statements.executed)
    assert max(created, changed) < 16, [one for one, _ in statements.executed]
    (loading,) = [one for one, _ in statements.executed if one.startswith("SELECT release.")]
    # Whoever locks them in one order waits for nobody who waits for him.
    assert "ORDER BY release.product, release.cycle" in loading
    with db.engine.connect() as connection:
        history = db.metadata.tables["release_history"]
        count = sa.select(history.c.operation, history.c.version, sa.func.count()).group_by(
            history.c.operation, history.c.version
        )
        assert sorted(map(tuple, connection.execute(count))) == [
            ("delete", 0, 500),
            ("insert", -1, 1000),
            ("update", 0, 500),
        ]


def test_numbered_records_with_untracked_columns_take_few_statements(api: Api, statements: Statements) -> None:
    answer = api.post("/bulk/user", {"items": [create(email=f"{number}@example.com") for number in range(200)]})
    # SQLite returns the key of one row at a time.
    assert len([one for one, _ in statements.executed if one.startswith("SELECT")]) < 8
    first = api.call("GET", answer["items"][0]["links"]["record"])
    assert first.json["state"]["email"] == "0@example.com"
    assert first.headers["ETag"] == answer["items"][0]["etag"]


def test_body_may_be_larger_than_that_of_one_record(api: Api) -> None:
    long = "x" * 400
    items = [create(product=f"p{number}", cycle="1", link=long, label="y" * 100) for number in range(1000)]
    body = {"items": items}
    response = api.client.post(
        "/bulk/release", data=_padded(body, 2 * 1024 * 1024), content_type="application/json", headers=api.headers
    )
    assert response.status_code == 200, response.text
    response = api.client.post(
        "/bulk/release", data=_padded(body, 8 * 1024 * 1024 + 1), content_type="application/json", headers=api.headers
    )
    assert_problem(response, 413, "content-too-large")


def _padded(body: Any, size: int) -> bytes:
    return json.dumps(body).encode().ljust(size)


def test_as_many_refusals_are_looked_for_as_are_told_of(api: Api, statements: Statements) -> None:
    made = api.post("/bulk/user", {"items": [create(email=f"{number}") for number in range(400)]})["items"]
    items = [change(item["key"], email="0") for item in made[1:]]
    before = all_rows()
    statements.clear()
    problem = assert_problem(api.call("POST", "/bulk/user", {"items": items}), 409, "bulk-failed")
    assert problem["detail"].startswith("at least 100 of 399 items cannot be written")
    assert [item["index"] for item in problem["items"]] == [*range(100)]
    assert _without_last_use(all_rows()) == _without_last_use(before)
    # A tree of 100 leaves, and the way to it.
    assert len(statements.matching("SAVEPOINT")) < 2 * (2 * 100 + 10)
    assert len([one for one, _ in statements.executed if one.startswith("SELECT appuser.")]) < 130
    assert (
        len([one for one, _ in statements.executed if "FOR NO KEY UPDATE" in one and "appuser_history" not in one]) <= 2
    )


def test_refusals_that_are_all_told_of_are_counted_exactly(api: Api) -> None:
    api.post("/records/user", {"email": "a"})
    problem = api.call("POST", "/bulk/user", {"items": [create(email="a")] * 100}).json
    assert problem["detail"].startswith("100 of 100 items")


@pytest.mark.parametrize("if_match", ["*", '"v0"', '"v7", "v0"', '"v0:gzip"', "{etag}"])
def test_item_is_conditional_as_the_header_is(api: Api, keys: list[str], if_match: str) -> None:
    etag = api.call("GET", f"/records/user/{keys[0]}").headers["ETag"]
    (written,) = api.post("/bulk/user", {"items": [change(keys[0], if_match.format(etag=etag), name="A")]})["items"]
    assert written["version"] == 1


@pytest.mark.parametrize("if_match", ["v0", 'W/"v0"', "", '"v1"', 'v0, "v0"'])
def test_item_whose_condition_does_not_hold_is_not_written(api: Api, keys: list[str], if_match: str) -> None:
    failing = _failing(api, [change(keys[0], if_match, name="A")], 409, "bulk-failed")
    assert failing == {0: (412, "precondition-failed")}


def test_condition_and_key_of_an_item_are_bounded(api: Api, keys: list[str]) -> None:
    longest = '"v0"'.rjust(1000, ",")
    api.post("/bulk/user", {"items": [change(keys[0], longest, name="A")]})
    items = [change(keys[1], f",{longest}", name="B"), change("1" * 21, name="B")]
    assert _failing(api, items, 422, "bulk-invalid") == dict.fromkeys((0, 1), (422, "invalid"))


def test_key_that_is_called_bulk_is_a_record_like_any_other(api: Api) -> None:
    made = api.post("/records/release", {"product": "bulk", "cycle": "bulk"})
    assert api.get(made["links"]["record"])["key"] == "bulk,bulk"


def test_unknown_model_is_told(api: Api) -> None:
    assert_problem(api.call("POST", "/bulk/planet", {"items": []}), 404, "unknown-model")


def test_overlapping_requests_end_one_after_the_other(app: Flask, write_token: str, api: Api) -> None:
    keys = [
        item["key"]
        for item in api.post("/bulk/user", {"items": [create(email=f"{number}") for number in range(40)]})["items"]
    ]
    rounds, together = 5, Barrier(2)
    answers: list[int] = []

    def write(name: str, order: list[str]) -> None:
        mine = Api(app.test_client(), write_token)
        for number in range(rounds):
            together.wait()
            sent = [change(key, name=f"{name}{number}") for key in order]
            answers.append(mine.call("POST", "/bulk/user", {"items": sent}).status_code)

    threads = [Thread(target=write, args=("x", keys)), Thread(target=write, args=("y", keys[::-1]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 2 * rounds
    for key in keys:
        page = api.get(f"/history/user/{key}?limit=100")
        assert page["current"]["version"] == 2 * rounds
        assert [version["version"] for version in page["versions"]] == [*range(2 * rounds)]
    whole = {tuple(sorted({one["state"]["name"]})) for one in api.get("/records/user?limit=100")["records"]}
    assert len(whole) == 1


def test_two_requests_that_make_the_same_records_conflict(app: Flask, write_token: str, api: Api) -> None:
    together, answers = Barrier(2), []

    def write(cycles: list[int]) -> None:
        mine = Api(app.test_client(), write_token)
        together.wait()
        items = [create(product="p", cycle=f"{cycle}") for cycle in cycles]
        answers.append(mine.call("POST", "/bulk/release", {"items": items}))

    threads = [Thread(target=write, args=(cycles,)) for cycles in ([*range(30)], [*range(29, -1, -1)])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers.sort(key=lambda answer: answer.status_code)
    assert answers[0].status_code == 200
    problem = assert_problem(answers[1], 409, "bulk-failed")
    assert {item["problem"]["type"] for item in problem["items"]} == {"/problems/record-exists"}
    assert len(problem["items"]) == 30
    assert len(api.get("/records/release?limit=100")["records"]) == 30

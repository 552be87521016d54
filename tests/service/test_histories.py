"""What the routes of ``/history`` answer."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa
from flask import Flask

from app.db import db
from app.instants import instant_text, parse_instant
from tests.service.api import Api, all_rows, assert_problem


def _text(at: str, microseconds: int = 0) -> str:
    return instant_text(parse_instant(at) + timedelta(microseconds=microseconds))


@pytest.fixture
def history(api: Api) -> str:
    """The path of a user's history of three versions."""
    created = api.post("/records/user", {"email": "ada@exmaple.com", "name": "Ada"}, why="Signed up")
    api.patch(created["links"]["record"], {"email": "ada@example.com"}, why="Typing error")
    api.patch(created["links"]["record"], {"name": "Ada King", "active": False}, why="Married")
    path: str = created["links"]["history"]
    return path


def test_history_shows_current_state_prior_versions_and_reasons(api: Api, history: str) -> None:
    page = api.get(history)
    key = page["key"]
    assert page["model"] == "user"
    assert page["links"] == {"record": f"/records/user/{key}", "history": f"/history/user/{key}"}
    assert page["next"] is None
    state = {"id": int(key), "email": "ada@example.com", "name": "Ada King", "active": False}
    first, second = page["versions"]
    assert page["current"] == {"version": 2, "valid_from": second["changed"], "state": state}
    assert [first["version"], second["version"]] == [0, 1]
    assert first["state"] == state | {"email": "ada@exmaple.com", "name": "Ada", "active": True}
    assert second["state"] == state | {"name": "Ada", "active": True}
    assert first["changed"] == second["valid_from"]
    assert first["operation"] == second["operation"] == "update"
    assert UUID(second["change_info"].pop("request_id")).version == 7
    assert second["change_info"] == {
        "user_id": "writer@example.com",
        "remote_addr": "127.0.0.1",
        "extra": {"change_rationale": "Married"},
    }
    assert first["transaction_id"] != second["transaction_id"]


def test_history_of_a_deleted_record_stays_readable(api: Api, history: str) -> None:
    api.delete(history.replace("/history", "/records"), why="Left us")
    page = api.get(history)
    assert page["current"] is None
    assert [(row["version"], row["operation"]) for row in page["versions"]] == [
        (0, "update"),
        (1, "update"),
        (2, "delete"),
    ]
    assert page["versions"][2]["change_info"]["extra"] == {"change_rationale": "Left us"}
    assert api.get(f"{history}/versions/2")["state"]["name"] == "Ada King"


def test_before_and_after_split_the_history(api: Api, history: str) -> None:
    changed = [row["changed"] for row in api.get(history)["versions"]]
    for at in changed:
        for shift in (-1, 0, 1):
            instant = _text(at, shift)
            before = [row["version"] for row in api.get(f"{history}?before={instant}")["versions"]]
            after = [row["version"] for row in api.get(f"{history}?after={instant}")["versions"]]
            assert before + after == [0, 1]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("what", ["versions", "changes"])
def test_pages_hold_each_entry_once_in_order(api: Api, history: str, what: str, order: str) -> None:
    record = history.replace("/history", "/records")
    for number in range(6):
        api.patch(record, {"name": f"Name {number}"})
    path = history if what == "versions" else f"{history}/changes"
    whole = api.get(f"{path}?order={order}")[what]
    paged, cursor = [], ""
    while cursor is not None:
        page = api.get(f"{path}?order={order}&limit=3{cursor and f'&cursor={cursor}'}")
        assert len(page[what]) <= 3
        paged += page[what]
        cursor = page["next"]
        api.patch(record, {"name": f"Name after {len(paged)}"})  # new versions move no page
        if len(paged) >= len(whole):
            break
    assert paged[: len(whole)] == whole if order == "asc" else paged == whole


def test_cursor_of_another_list_is_refused(api: Api, history: str) -> None:
    cursor = api.get(f"{history}?limit=1")["next"]
    assert_problem(api.call("GET", f"{history}?order=desc&cursor={cursor}"), 422, "invalid")
    assert_problem(api.call("GET", f"{history}/changes?cursor={cursor}"), 422, "invalid")


def test_prior_version_can_be_kept_and_is_asked_for_again(api: Api, history: str) -> None:
    response = api.call("GET", f"{history}/versions/0")
    assert response.json["state"]["email"] == "ada@exmaple.com"
    assert response.headers["ETag"] == '"v0"'
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert api.call("GET", f"{history}/versions/0", headers={"If-None-Match": '"v0"'}).status_code == 304


def test_current_version_is_a_version_that_may_still_end(api: Api, history: str) -> None:
    response = api.call("GET", f"{history}/versions/2")
    assert response.json["state"]["name"] == "Ada King"
    assert response.json["changed"] is None
    assert response.headers["Cache-Control"] == "private, no-cache"


def test_version_at_is_half_open(api: Api, history: str) -> None:
    page = api.get(history)
    begun = page["versions"][0]["valid_from"]
    first, second = (row["changed"] for row in page["versions"])
    expected = [(begun, 0, 0), (first, -1, 0), (first, 0, 1), (second, -1, 1), (second, 0, 2), (second, 10**9, 2)]
    for at, shift, version in expected:
        assert api.get(f"{history}/version_at?at={_text(at, shift)}")["version"] == version
    assert_problem(api.call("GET", f"{history}/version_at?at={_text(begun, -1)}"), 404, "unknown-version")


def test_an_offset_may_come_with_a_plus_that_was_not_encoded(api: Api, history: str) -> None:
    at = parse_instant(api.get(history)["versions"][0]["valid_from"]) + timedelta(hours=2)
    text = at.replace(tzinfo=None).isoformat() + "+02:00"
    assert api.get(f"{history}/version_at?at={text}")["version"] == 0


def test_has_changed_since(api: Api, history: str) -> None:
    last = api.get(history)["versions"][-1]["changed"]
    answer = api.get(f"{history}/has_changed_since?since={_text(last, -1)}")
    assert answer["has_changed"] is True
    assert answer["last_changed"] == last
    answer = api.get(f"{history}/has_changed_since?since={last}")
    assert (answer["has_changed"], answer["since"]) == (False, last)


def test_record_that_was_only_created_has_not_changed(api: Api) -> None:
    history = api.post("/records/user", {"email": "new@example.com"})["links"]["history"]
    answer = api.get(f"{history}/has_changed_since?since=2001-01-01T00:00:00Z")
    assert (answer["has_changed"], answer["last_changed"]) == (False, None)
    assert api.get(history)["versions"] == []


def test_diff_of_versions_and_instants(api: Api, history: str) -> None:
    email = {"from": "ada@exmaple.com", "to": "ada@example.com"}
    rest = {"name": {"from": "Ada", "to": "Ada King"}, "active": {"from": True, "to": False}}
    diff = api.get(f"{history}/diff?from=0&to=1")
    assert diff["changes"] == {"email": email}
    assert (diff["from"]["version"], diff["to"]["version"]) == (0, 1)
    assert api.get(f"{history}/diff?from=0")["changes"] == {"email": email, **rest}
    assert api.get(f"{history}/diff?from=1&to=2")["changes"] == rest
    changed = api.get(history)["versions"][0]["changed"]
    assert api.get(f"{history}/diff?from={changed}&to=2")["changes"] == rest
    assert api.get(f"{history}/diff?from=2")["changes"] == {}


def test_hidden_change_is_named_and_its_value_never_shown(api: Api, history: str) -> None:
    secret = "c0ffee-secret-of-ada"
    api.patch(history.replace("/history", "/records"), {"password_hash": secret}, why="New password")
    texts = [
        api.call("GET", path).text
        for path in (
            history,
            history.replace("/history", "/records"),
            f"{history}/changes",
            f"{history}/versions/2",
            f"{history}/versions/3",
            f"{history}/diff?from=2&include_hidden=true",
        )
    ]
    assert not any(secret in text for text in texts)
    assert api.get(f"{history}/diff?from=2&include_hidden=true")["hidden_changed"] == ["password_hash"]
    assert api.get(f"{history}/diff?from=2")["hidden_changed"] == []
    assert api.get(f"{history}/versions/2")["change_info"]["hidden_cols_changed"] == ["password_hash"]


def test_no_history_table_holds_a_hidden_value(app: Flask, api: Api, history: str) -> None:
    secret = "c0ffee-secret-of-ada"
    record = history.replace("/history", "/records")
    api.patch(record, {"password_hash": secret})
    api.patch(record, {"password_hash": secret + "2", "name": "Ada"})
    api.delete(record)
    with app.app_context():
        assert secret not in str({name: rows for name, rows in all_rows().items() if name.endswith("_history")})


def test_untracked_change_makes_no_version(api: Api, history: str) -> None:
    record = history.replace("/history", "/records")
    changed = api.patch(record, {"last_seen_at": "2026-03-01T09:00:00.5+01:00"})
    assert changed["version"] == 2
    assert changed["state"]["last_seen_at"] == "2026-03-01T08:00:00.500000Z"


def test_changes_tell_creation_updates_and_deletion(api: Api, history: str) -> None:
    api.delete(history.replace("/history", "/records"), why="Left us")
    created, corrected, married, deleted = api.get(f"{history}/changes")["changes"]
    assert [row["operation"] for row in (created, corrected, married, deleted)] == [
        "insert",
        "update",
        "update",
        "delete",
    ]
    assert [row["version"] for row in (created, corrected, married, deleted)] == [-1, 0, 1, 2]
    assert created["change_info"]["extra"] == {"change_rationale": "Signed up"}
    assert created["differences"]["name"] == {"from": None, "to": "Ada"}
    assert corrected["differences"] == {"email": {"from": "ada@exmaple.com", "to": "ada@example.com"}}
    assert married["differences"].keys() == {"name", "active"}
    assert deleted["differences"]["name"] == {"from": "Ada King", "to": None}


def test_list_of_models(api: Api) -> None:
    models = {model["name"]: model for model in api.get("/history")["models"]}
    assert models.keys() == {"release", "user"}
    assert models["release"]["key"] == ["product", "cycle"]
    assert models["user"]["hidden"] == ["password_hash"]
    assert models["user"]["untracked"] == ["last_seen_at"]
    assert "password_hash" not in models["user"]["tracked"]
    created = api.post("/records/user", {"email": "ada@example.com"})
    links = {name: path.format(key=created["key"]) for name, path in models["user"]["links"].items()}
    assert {name: links[name] for name in created["links"]} == created["links"]
    assert api.get(links["records"])["records"] == [created]
    assert [change["links"] for change in api.get(links["changes"])["changes"]] == [created["links"]]


def test_instants_are_utc_with_microseconds(api: Api, history: str) -> None:
    text = api.get(history)["current"]["valid_from"]
    assert datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ")  # noqa: DTZ007  Z is UTC


@pytest.mark.parametrize("what", ["", "/changes", "/diff?from=0", "/version_at?at=2101-01-01T00:00:00Z"])
def test_answer_is_of_one_snapshot(app: Flask, api: Api, history: str, what: str, write_token: str) -> None:
    """A write that is committed between two statements of a read is not seen by its later ones."""
    before = api.get(f"{history}{what}")
    writer = Api(app.test_client(), write_token)
    statements = 0

    def write_after_the_second(connection: object, cursor: object, statement: str, *_: object) -> None:
        nonlocal statements
        statements += statement.startswith("SELECT")
        if statements == 2:  # the first asks for the token
            with ThreadPoolExecutor(1) as thread:
                thread.submit(writer.patch, history.replace("/history", "/records"), {"name": "meanwhile"}).result(60)

    with app.app_context():
        engine = db.engine
    sa.event.listen(engine, "after_cursor_execute", write_after_the_second)
    try:
        assert api.get(f"{history}{what}") == before
    finally:
        sa.event.remove(engine, "after_cursor_execute", write_after_the_second)
    assert statements > 2
    assert api.get(f"{history}{what}") != before

"""``POST …/restore``: an old state once more, by HTTP."""

from typing import Any

import pytest
from flask import Flask

from app.db import db
from app.models import User
from tests.service import own_models
from tests.service.api import Api, all_rows, assert_problem


@pytest.fixture
def record(api: Api) -> str:
    """The path of a user at version 2, with a hidden and an untracked value."""
    created = api.post(
        "/records/user", {"email": "ada@exmaple.com", "name": "Ada", "password_hash": "one"}, why="Signed up"
    )
    path: str = created["links"]["record"]
    api.patch(path, {"email": "ada@example.com", "last_seen_at": "2026-03-01T09:00:00Z"})
    api.patch(path, {"name": "Ada King", "active": False})
    return path


def password_hash(app: Flask) -> str | None:
    with app.app_context():
        stored: str | None = db.session.scalars(db.select(User.password_hash)).one()
        return stored


def test_live_record_gets_an_old_state_as_a_new_version(app: Flask, api: Api, record: str) -> None:
    restored = api.post(f"{record}/restore", {"version": 0}, why="Vandalism")
    assert restored["version"] == 3
    assert restored["state"]["email"] == "ada@exmaple.com"
    assert restored["state"]["last_seen_at"] == "2026-03-01T09:00:00.000000Z"
    assert restored == api.get(record)
    change = api.get(f"{record.replace('/records', '/history')}/changes?order=desc&limit=1")["changes"][0]
    assert (change["operation"], change["change_info"]["extra"]) == ("update", {"change_rationale": "Vandalism"})
    assert change["change_info"]["user_id"] == "writer@example.com"
    assert password_hash(app) == "one"


@pytest.mark.parametrize(
    ("body", "name", "kept"),
    [({}, "Ada King", None), ({"version": 0}, "Ada", None), ({"values": {"password_hash": "two"}}, "Ada King", "two")],
)
def test_deleted_record_is_made_again(
    app: Flask, api: Api, record: str, body: dict[str, Any], name: str, kept: str | None
) -> None:
    api.delete(record, why="Left us")
    restored = api.post(f"{record}/restore", body, why="A mistake")
    assert (restored["version"], restored["state"]["name"]) == (4, name)
    assert api.get(record) == restored
    assert password_hash(app) == kept
    changes = api.get(f"{record.replace('/records', '/history')}/changes?order=desc&limit=2")["changes"]
    assert [change["operation"] for change in changes] == ["insert", "delete"]


@pytest.mark.parametrize(
    ("body", "status", "kind", "detail"),
    [
        ({}, 422, "invalid", "say which version"),
        ({"version": 7}, 404, "unknown-version", "the record has no version 7"),
        ({"version": -1}, 422, "invalid", "version in the body"),
        ({"version": "0"}, 422, "invalid", "version in the body"),
        ({"version": 0, "values": {"email": None}}, 422, "invalid", "values in the body"),
        ({"version": 0, "values": {"id": 3}}, 422, "invalid", "values in the body"),
        ({"version": 0, "set": {}}, 422, "invalid", "set in the body"),
        ([], 422, "invalid", "the body"),
    ],
)
def test_what_cannot_be_restored_is_told(
    app: Flask, api: Api, record: str, body: Any, status: int, kind: str, detail: str
) -> None:
    for delete in (False, True):
        if delete:
            if not body:
                break
            api.delete(record)
        with app.app_context():
            before = all_rows()
        problem = assert_problem(api.call("POST", f"{record}/restore", body), status, kind)
        assert detail in problem["detail"]
        with app.app_context():
            assert all_rows() == before


def test_missing_hidden_value_is_asked_for_as_http_gives_it(own_api: Api) -> None:
    record = own_api.post("/records/account", {"pin": "one", "pass_phrase": "two"})["links"]["record"]
    own_api.delete(record)

    for values, missing in (({}, {"pin", "pass_phrase"}), ({"pin": "three"}, {"pass_phrase"})):
        problem = assert_problem(own_api.call("POST", f"{record}/restore", {"values": values}), 422, "invalid")
        assert problem["errors"]["json"]["values"].keys() == missing
        assert "give it in values" in problem["detail"]
        assert "Account" not in problem["detail"]
    restored = own_api.post(f"{record}/restore", {"values": {"pin": "three", "pass_phrase": "four"}})
    assert restored["version"] == 2
    assert own_models.db.session.get_one(own_models.Account, restored["state"]["id"]).pin == "three"


def test_record_that_never_was_cannot_be_restored(api: Api) -> None:
    assert_problem(api.call("POST", "/records/user/2147483647/restore", {}), 404, "unknown-record")


def test_restoring_is_conditional(api: Api, record: str) -> None:
    stale = {"If-Match": '"v1"'}
    assert_problem(api.call("POST", f"{record}/restore", {"version": 0}, headers=stale), 412, "precondition-failed")
    current = {"If-Match": '"v2"'}
    assert api.call("POST", f"{record}/restore", {"version": 0}, headers=current).status_code == 200
    api.delete(record)
    problem = assert_problem(api.call("POST", f"{record}/restore", {}, headers=current), 412, "precondition-failed")
    assert "deleted" in problem["detail"]


def test_value_that_is_taken_meanwhile_is_a_conflict(api: Api, record: str) -> None:
    # The key is not given to another record meanwhile, as SQLite would do with the highest one.
    other = api.post("/records/user", {"email": "other@example.com"})
    api.delete(record)
    api.patch(other["links"]["record"], {"email": "ada@example.com"})
    assert_problem(api.call("POST", f"{record}/restore", {}), 409, "conflict")


def test_reading_does_not_restore(app: Flask, client: Any, record: str, read_token: str) -> None:
    reader = Api(client, read_token)
    assert_problem(reader.call("POST", f"{record}/restore", {"version": 0}), 403, "forbidden")

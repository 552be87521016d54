"""What the routes of ``/records`` answer."""

from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.db import db
from app.models import Release
from app.registry import Resource
from chrononaut.history import versioning_of
from tests.library.conftest import recorded
from tests.service.api import Api, assert_problem

_RELEASE_DEFAULTS = dict.fromkeys(
    (
        "released_on", "end_of_life", "active_support", "extended_support", "lts", "latest", "latest_released_on",
        "codename", "label", "link", "discontinued",
    )
)  # fmt: skip


def test_created_record_is_where_location_says(api: Api) -> None:
    response = api.call("POST", "/records/user", {"email": "ada@example.com", "password_hash": "x"}, why="Signed up")
    assert response.status_code == 201
    assert response.json["version"] == 0
    assert response.json["state"].keys() == {"id", "email", "name", "active", "last_seen_at"}
    assert api.get(response.headers["Location"]) == response.json


def test_put_replaces_all_but_hidden_columns_that_are_left_out(api: Api) -> None:
    created = api.post("/records/user", {"email": "a@example.com", "name": "A", "active": False, "password_hash": "x"})
    record, history = created["links"]["record"], created["links"]["history"]
    replaced = api.put(record, {"email": "b@example.com"})
    assert replaced["state"] == created["state"] | {"email": "b@example.com", "name": None, "active": True}
    assert "hidden_cols_changed" not in api.get(history)["versions"][0]["change_info"]
    api.put(record, {"email": "b@example.com", "password_hash": "y"})
    assert api.get(history)["versions"][1]["change_info"]["hidden_cols_changed"] == ["password_hash"]


def test_patch_clears_with_null_and_leaves_the_rest(api: Api) -> None:
    created = api.post("/records/user", {"email": "a@example.com", "name": "A"})
    changed = api.patch(created["links"]["record"], {"name": None})
    assert changed["state"] == created["state"] | {"name": None}


def test_patch_takes_the_media_type_of_merge_patches(api: Api) -> None:
    record = api.post("/records/user", {"email": "a@example.com"})["links"]["record"]
    response = api.client.patch(
        record, data=b'{"name": "A"}', headers=api.headers | {"Content-Type": "application/merge-patch+json"}
    )
    assert response.status_code == 200


def test_patch_with_equal_values_makes_no_version(api: Api) -> None:
    created = api.post("/records/user", {"email": "a@example.com", "name": "A"})
    assert api.patch(created["links"]["record"], {"name": "A", "active": True})["version"] == 0
    assert api.patch(created["links"]["record"], {})["version"] == 0


@pytest.mark.parametrize("etag", ['"v1"', "*", '"v0", "v1"', "full"])
def test_write_with_the_current_version_in_if_match_succeeds(api: Api, etag: str) -> None:
    record = api.post("/records/user", {"email": "a@example.com"})["links"]["record"]
    changed = api.call("PATCH", record, {"name": "A"}, headers={"If-Match": '"v0"'})
    etag = changed.headers["ETag"] if etag == "full" else etag
    assert api.call("PATCH", record, {"name": "B"}, headers={"If-Match": etag}).status_code == 200
    assert_problem(api.call("PATCH", record, {"name": "C"}, headers={"If-Match": '"v1"'}), 412, "precondition-failed")
    deleted = api.call("DELETE", record, headers={"If-Match": '"v2"'})
    assert (deleted.status_code, deleted.data) == (204, b"")
    assert "Content-Type" not in deleted.headers


def test_read_with_the_current_etag_is_not_modified(api: Api) -> None:
    record = api.post("/records/user", {"email": "a@example.com"})["links"]["record"]
    etag = api.call("GET", record).headers["ETag"]
    response = api.call("GET", record, headers={"If-None-Match": etag})
    assert (response.status_code, response.data, response.headers["ETag"]) == (304, b"", etag)
    api.patch(record, {"last_seen_at": "2026-01-01T00:00:00Z"})  # shown, so another representation
    assert api.call("GET", record, headers={"If-None-Match": etag}).status_code == 200


def test_etag_of_a_model_without_untracked_columns_is_its_version(api: Api) -> None:
    created = api.call("POST", "/records/release", {"product": "python", "cycle": "3.13"})
    assert created.headers["ETag"] == '"v0"'


def test_key_that_is_used_again_goes_on_in_its_numbering(api: Api) -> None:
    body = {"product": "python", "cycle": "3.13"}
    record = api.post("/records/release", body, why="first")["links"]["record"]
    api.delete(record, why="gone")
    again = api.post("/records/release", body | {"latest": "3.13.1"}, why="back")
    assert again["version"] == 2
    changes = api.get(f"{again['links']['history']}/changes")["changes"]
    assert [(row["version"], row["operation"], row["change_info"]["extra"]["change_rationale"]) for row in changes] == [
        (-1, "insert", "first"),
        (0, "delete", "gone"),
        (1, "insert", "back"),
    ]


def test_records_are_listed_in_pages_in_the_order_of_their_keys(api: Api) -> None:
    keys = [("b", "1"), ("a", "2"), ("a", "10"), ("a,b", "/"), ("ä", "~")]
    for product, cycle in keys:
        api.post("/records/release", {"product": product, "cycle": cycle})
    listed: list[tuple[str, str]] = []
    path = "/records/release?limit=2"
    while path:
        page = api.get(path)
        assert len(page["records"]) <= 2
        listed += [(record["state"]["product"], record["state"]["cycle"]) for record in page["records"]]
        path = page["next"] and f"/records/release?limit=2&cursor={page['next']}"
    assert len(listed) == len(keys)
    assert set(listed) == set(keys)


_KEY_PART = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(product=_KEY_PART, cycle=_KEY_PART | st.sampled_from(["/", ",", "~", "~1", "..", "%2F", '"', "a b", "ü", "#?"]))
def test_every_key_can_be_written_and_read_by_its_links(api: Api, product: str, cycle: str) -> None:
    created = api.call("POST", "/records/release", {"product": product, "cycle": cycle})
    assert created.status_code == 201, created.text
    links: dict[str, str] = created.json["links"]
    assert created.json["key"].count(",") == 1
    assert api.get(links["record"])["state"]["cycle"] == cycle
    assert api.get(links["history"])["current"]["state"]["product"] == product
    assert api.get(f"/records/release/{quote(created.json['key'], safe='')}")["state"]["cycle"] == cycle
    api.delete(links["record"])


@given(parts=st.tuples(st.text(max_size=20), st.text(max_size=20)))
def test_key_text_is_read_back_as_the_same_key(parts: tuple[str, str]) -> None:
    release = Resource("release", versioning_of(Release))
    if "\0" not in "".join(parts):
        assert release.parse_key(release.key_text(parts)) == parts


@pytest.mark.parametrize("value", ["2027-04-01", True, False, None, "August 2, 2018"])
def test_text_or_flag_keeps_its_type(api: Api, value: Any) -> None:
    created = api.post("/records/release", {"product": "p", "cycle": "c", "end_of_life": value})
    assert created["state"] == _RELEASE_DEFAULTS | {"product": "p", "cycle": "c", "end_of_life": value}
    api.patch(created["links"]["record"], {"latest": "1"})
    prior = api.get(created["links"]["history"])["versions"][0]
    assert prior["state"]["end_of_life"] == value
    assert type(prior["state"]["end_of_life"]) is type(value)


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
def test_write_asks_the_database_nothing_after_its_commit(app: Flask, api: Api, method: str) -> None:
    record = api.post("/records/user", {"email": "a@example.com"})["links"]["record"]
    path = "/records/user" if method == "POST" else record
    happened: list[str] = []
    with app.app_context():
        engine = db.engine

    def execute(connection: object, cursor: object, statement: str, *_: object) -> None:
        happened.append(statement)

    def commit(connection: object) -> None:
        happened.append("COMMIT")

    sa.event.listen(engine, "before_cursor_execute", execute)
    sa.event.listen(engine, "commit", commit)
    try:
        body = None if method == "DELETE" else {"email": "b@example.com"}
        assert api.call(method, path, body).status_code < 300
    finally:
        sa.event.remove(engine, "before_cursor_execute", execute)
        sa.event.remove(engine, "commit", commit)
    assert happened[-1] == "COMMIT"
    assert any(statement.startswith(("INSERT", "WITH")) for statement in happened)


def test_new_record_s_key_is_looked_for_once(app: Flask, api: Api) -> None:
    with app.app_context():
        engine = db.engine
    with recorded(engine) as statements:
        api.post("/records/release", {"product": "p", "cycle": "1", "latest": "1"})
    assert len([one for one, _ in statements.executed if one.startswith("SELECT release.")]) == 1

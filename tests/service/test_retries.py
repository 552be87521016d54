"""A request whose transaction another one was in the way of is made anew, a few times, and leaves one change."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy import event
from sqlalchemy.orm import Session

from app import retries
from app.db import db
from app.models import User
from tests.service.api import Api, all_rows, assert_problem

_POSTGRESQL = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_PAUSE", 0.001)


class InTheWay(sa.exc.DBAPIError):
    """What the driver says of a transaction that was undone."""

    def __init__(self, kind: str) -> None:
        orig = Exception("in the way")
        vars(orig).update({"postgresql": {"sqlstate": "40001"}, "sqlite": {"sqlite_errorname": "SQLITE_BUSY"}}[kind])
        super().__init__(None, None, orig)


@contextmanager
def _before_commits(do: Callable[[Session, int], None]) -> Iterator[list[int]]:
    """Let something be done before each of the request's commits.

    :return: how often that was
    """
    times: list[int] = []

    def before_commit(session: Session) -> None:
        times.append(len(times) + 1)
        do(session, times[-1])

    event.listen(db.session, "before_commit", before_commit)
    try:
        yield times
    finally:
        event.remove(db.session, "before_commit", before_commit)


def test_write_that_is_undone_is_made_anew_and_leaves_one_change(app: Flask, api: Api, database_kind: str) -> None:
    record = api.post("/records/user", {"email": "a@example.com"})["links"]["record"]

    def undo(session: Session, time: int) -> None:
        if time < retries.ATTEMPTS:
            raise InTheWay(database_kind)

    writes: list[tuple[str, str, Any]] = [
        ("PATCH", record, {"name": "b"}),
        ("POST", "/records/user", {"email": "b@example.com"}),
        ("POST", "/bulk/user", {"items": [{"operation": "create", "record": {"email": "c@example.com"}}]}),
        ("DELETE", record, None),
        ("POST", f"{record}/restore", {}),
    ]
    for method, path, body in writes:
        with _before_commits(undo) as times:
            response = api.call(method, path, body, why="Once")
        assert response.status_code in {200, 201, 204}, response.text
        assert len(times) == retries.ATTEMPTS
    changes = api.get("/history/user?limit=50")["changes"]
    assert [change["operation"] for change in changes] == ["insert", "delete", "insert", "insert", "update", "insert"]
    assert all(change["change_info"]["extra"] == {"change_rationale": "Once"} for change in changes[:-1])


def test_write_that_is_undone_again_and_again_is_told_so(app: Flask, api: Api, database_kind: str) -> None:
    def undo(session: Session, time: int) -> None:
        raise InTheWay(database_kind)

    with app.app_context():
        before = all_rows()
    with _before_commits(undo) as times:
        response = api.call("POST", "/records/user", {"email": "b@example.com"})
    if database_kind == "postgresql":
        assert_problem(response, 409, "concurrent-change")
    else:
        assert_problem(response, 503, "unavailable")
    assert len(times) == retries.ATTEMPTS
    with app.app_context():
        assert all_rows() == before


def test_write_that_has_waited_long_is_not_made_anew(
    app: Flask, api: Api, database_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_LATEST", -1.0)

    def undo(session: Session, time: int) -> None:
        raise InTheWay(database_kind)

    with _before_commits(undo) as times:
        assert api.call("POST", "/records/user", {"email": "b@example.com"}).status_code in {409, 503}
    assert times == [1]


def test_request_that_is_in_its_own_way_is_not_made_anew(api: Api) -> None:
    """It would be so each time."""
    record = api.post("/records/user", {"email": "a@example.com"})["links"]["record"]
    flushes: list[Session] = []

    def delete_behind(session: Session, *_: object) -> None:
        flushes.append(session)
        session.execute(sa.delete(User), execution_options={"synchronize_session": False})

    event.listen(db.session, "before_flush", delete_behind)
    try:
        response = api.call("PATCH", record, {"name": "b"})
    finally:
        event.remove(db.session, "before_flush", delete_behind)
    assert_problem(response, 409, "concurrent-change")
    assert len(flushes) == 1


@pytest.mark.parametrize("if_match", [True, False])
def test_write_that_is_made_anew_is_one_of_what_is_there_then(
    app: Flask, api: Api, database_kind: str, if_match: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge patch keeps what another request has set meanwhile; with If-Match it is refused."""
    record = api.post("/records/user", {"email": "a@example.com"})["links"]["record"]

    def undo(session: Session, time: int) -> None:
        if time == 1:
            raise InTheWay(database_kind)

    def write_meanwhile(pause: float) -> None:
        with app.app_context():
            api.patch(record, {"email": "new@example.com"})

    monkeypatch.setattr(time, "sleep", write_meanwhile)
    with _before_commits(undo):
        response = api.call("PATCH", record, {"name": "b"}, headers={"If-Match": '"v0"'} if if_match else {})
    if if_match:
        assert_problem(response, 412, "precondition-failed")
    else:
        assert response.json["version"] == 2
    state = api.get(record)["state"]
    assert (state["email"], state["name"]) == ("new@example.com", None if if_match else "b")


@_POSTGRESQL
def test_writers_in_serializable_transactions_all_succeed_and_lose_nothing(
    app_with: Callable[..., Flask], database_url: str, write_token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database finds that they cannot be serialized, as each reads what the others write."""
    monkeypatch.setattr(retries, "ATTEMPTS", 50)
    url = sa.make_url(database_url).update_query_dict({"options": "-c default_transaction_isolation=serializable"})
    app = app_with(DATABASE_URL=url.render_as_string(hide_password=False))
    undone: list[float] = []
    # Each attempt but the first is made after a pause.
    monkeypatch.setattr(time, "sleep", undone.append)
    record = Api(app.test_client(), write_token).post("/records/user", {"email": "a@example.com"})["links"]["record"]

    def write(number: int) -> int:
        name = f"name {number}"
        status: int = Api(app.test_client(), write_token).call("PATCH", record, {"name": name}, why=name).status_code
        return status

    with ThreadPoolExecutor(6) as threads:
        assert Counter(threads.map(write, range(60))) == {200: 60}
    history = Api(app.test_client(), write_token).get(f"{record.replace('records', 'history')}?limit=100")
    assert [row["version"] for row in history["versions"]] == list(range(60))
    reasons = [row["change_info"]["extra"]["change_rationale"] for row in history["versions"]]
    assert sorted(reasons) == sorted(f"name {number}" for number in range(60))
    assert undone

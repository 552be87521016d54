"""A database that does not answer is 503 with Retry-After, no request waits for it for ever, and nothing is lost."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy import event
from sqlalchemy.engine import Connection

from app import connections, create_app
from app.db import db
from tests.service.api import Api, assert_problem
from tests.service.conftest import SECRET_KEY
from tests.service.proxying import Proxy, proxied

pytestmark = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)

_PROMPT = {"CHRONONAUT_CONNECT_TIMEOUT": "2", "CHRONONAUT_POOL_TIMEOUT": "1"}
_HURRIED = _PROMPT | {"CHRONONAUT_STATEMENT_TIMEOUT": "1"}
_PUBLIC = ("/problems/", "/session", "/health/live")


@pytest.fixture
def proxy_and_url(database_url: str) -> Iterator[tuple[Proxy, str]]:
    with proxied(database_url) as found:
        yield found


@pytest.fixture
def proxy(proxy_and_url: tuple[Proxy, str]) -> Proxy:
    return proxy_and_url[0]


@pytest.fixture
def api_with(app_with: Callable[..., Flask], proxy_and_url: tuple[Proxy, str], write_token: str) -> Callable[..., Api]:
    """The API whose database is behind the proxy, with some settings."""
    _, url = proxy_and_url
    return lambda **settings: Api(app_with(DATABASE_URL=url, **settings).test_client(), write_token)


def _engine(api: Api) -> sa.Engine:
    with api.client.application.app_context():
        return db.engine


def _taken(api: Api) -> int:
    """Connections of the pool that a request has."""
    pool = _engine(api).pool
    assert isinstance(pool, sa.QueuePool)
    return pool.checkedout()


def _assert_unavailable(response: Any) -> str:
    assert response.headers["Retry-After"] == "1"
    detail: str = assert_problem(response, 503, "unavailable")["detail"]
    return detail


def _operations(api: Api) -> Iterator[tuple[str, str]]:
    document: Any = api.client.get("/openapi.json").json
    for path, operations in document["paths"].items():
        for method in operations:
            if method != "parameters" and not path.startswith(_PUBLIC):
                parts = path.replace("{number}", "0").replace("{key}", "1")
                yield method.upper(), parts.replace("{transaction_id}", "01990e5c-7d2a-7a31-9c1f-0d6a54b1f0aa")


def test_every_operation_is_unavailable_while_connections_are_refused_and_there_at_once_after(
    api_with: Callable[..., Api], proxy: Proxy
) -> None:
    api = api_with()
    record = api.post("/records/user", {"email": "a@example.com"})["links"]["record"]
    proxy.refuse()
    operations = [*_operations(api)]
    assert len(operations) > 30
    for method, path in operations:
        _assert_unavailable(api.call(method, path, {}))
    _assert_unavailable(api.client.post("/session", json={"email": "a@example.com", "password": "wrong"}))
    proxy.restore()
    assert api.patch(record, {"name": "a"})["version"] == 1


def test_connections_that_were_cut_while_idle_are_not_noticed(api_with: Callable[..., Api], proxy: Proxy) -> None:
    api = api_with()
    record = api.post("/records/user", {"email": "a@example.com"})["links"]["record"]
    proxy.cut()
    assert api.patch(record, {"name": "a"})["version"] == 1


def test_server_that_takes_connections_and_says_nothing_is_given_up(api_with: Callable[..., Api], proxy: Proxy) -> None:
    api = api_with(**_PROMPT)
    record = api.post("/records/user", {"email": "a@example.com"})["links"]["record"]
    proxy.silent = True
    # First the connection that is there, then a new one.
    _assert_unavailable(api.call("GET", record))
    assert _taken(api) == 0
    proxy.restore()
    api.get(record)


def test_server_that_says_nothing_to_a_statement_is_given_up(
    api_with: Callable[..., Api], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_GRACE", 0.2)
    api = api_with(**_HURRIED)
    record = api.post("/records/user", {"email": "a@example.com"})["links"]["record"]

    def silence(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            proxy.silent = True

    with _at_begin(api, silence):
        _assert_unavailable(api.call("PATCH", record, {"name": "a"}))
    proxy.restore()
    assert api.patch(record, {"name": "b"})["version"] == 1


@contextmanager
def _at_begin(api: Api, do: Callable[[Connection], None]) -> Iterator[None]:
    engine = _engine(api)
    event.listen(engine, "begin", do)
    try:
        yield
    finally:
        event.remove(engine, "begin", do)


def test_statement_that_takes_too_long_is_ended(api_with: Callable[..., Api]) -> None:
    api = api_with(**_HURRIED)

    def sleep(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT pg_sleep(30)")

    with _at_begin(api, sleep):
        detail = _assert_unavailable(api.call("GET", "/records/user"))
    assert "longer than it may" in detail
    api.get("/records/user")


@pytest.mark.parametrize("pooling", ["false", "true"])
def test_lock_that_others_hold_is_not_waited_for_for_ever(
    app: Flask, api_with: Callable[..., Api], pooling: str
) -> None:
    api = api_with(CHRONONAUT_LOCK_TIMEOUT="1", CHRONONAUT_TRANSACTION_POOLING=pooling)
    record = api.post("/records/user", {"email": "a@example.com"})["links"]["record"]
    with app.app_context(), db.engine.connect() as blocking:
        blocking.exec_driver_sql("SELECT * FROM appuser FOR UPDATE")
        detail = _assert_unavailable(api.call("PATCH", record, {"name": "a"}))
    assert "too long" in detail
    assert api.patch(record, {"name": "b"})["version"] == 1


def test_lock_of_a_worker_that_says_nothing_more_ends(
    api_with: Callable[..., Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_IDLE", 1)
    api = api_with()
    record = api.post("/records/user", {"email": "a@example.com"})["links"]["record"]
    with _engine(api).connect() as held:
        held.exec_driver_sql("SELECT * FROM appuser FOR UPDATE")
        assert api.patch(record, {"name": "a"})["version"] == 1


def test_server_without_a_free_connection_is_unavailable(
    app: Flask, api_with: Callable[..., Api], proxy_and_url: tuple[Proxy, str], write_token: str
) -> None:
    url = sa.make_url(proxy_and_url[1]).set(username="guest").render_as_string(hide_password=False)
    with app.app_context(), db.engine.begin() as connection:
        connection.exec_driver_sql("CREATE ROLE guest LOGIN CONNECTION LIMIT 0")
        connection.exec_driver_sql("GRANT pg_read_all_data, pg_write_all_data TO guest")
    other = create_app({"SECRET_KEY": SECRET_KEY, "DATABASE_URL": url})
    api = Api(other.test_client(), write_token)
    try:
        _assert_unavailable(api.call("GET", "/records/user"))
        with app.app_context(), db.engine.begin() as connection:
            connection.exec_driver_sql("ALTER ROLE guest CONNECTION LIMIT -1")
        api.get("/records/user")
    finally:
        with other.app_context():
            db.engine.dispose()
        with app.app_context(), db.engine.begin() as connection:
            connection.exec_driver_sql("DROP ROLE guest")


def test_commit_whose_answer_is_lost_is_told_of_and_not_repeated(api_with: Callable[..., Api], proxy: Proxy) -> None:
    api = api_with()
    record = api.post("/records/user", {"email": "a@example.com"})["links"]["record"]
    proxy.cut_at = b"COMMIT\0"  # not of BEGIN ISOLATION LEVEL READ COMMITTED
    response = api.call("PATCH", record, {"name": "a"}, why="Once")
    problem = assert_problem(response, 503, "outcome-unknown")
    assert "read what is there" in problem["detail"]
    assert response.headers["Retry-After"] == "1"
    changes = api.get(f"{record.replace('records', 'history')}/changes")["changes"]
    assert [change["change_info"]["extra"] for change in changes if change["operation"] == "update"] == [
        {"change_rationale": "Once"}
    ]


@pytest.mark.parametrize("lost", [b"INSERT INTO appuser_history", b"UPDATE appuser SET"])
def test_connection_that_is_lost_before_the_commit_leaves_nothing(
    api_with: Callable[..., Api], proxy: Proxy, lost: bytes
) -> None:
    api = api_with()
    record = api.post("/records/user", {"email": "a@example.com"})["links"]["record"]
    proxy.cut_at = lost
    _assert_unavailable(api.call("PATCH", record, {"name": "a"}))
    assert proxy.cut_at is None
    assert api.get(record)["version"] == 0


@pytest.mark.parametrize("path", ["/records/user/{id}", "/history/user/{id}", "/records/user"])
def test_connection_that_is_lost_after_all_was_read_is_not_noticed(
    api_with: Callable[..., Api], proxy: Proxy, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By a session as well as by a connection alone."""
    api = api_with()
    path = path.format(id=api.post("/records/user", {"email": "a@example.com"})["state"]["id"])
    proxy.cut_at = b"ROLLBACK\0"
    api.get(path)
    assert proxy.cut_at is None
    assert caplog.text == ""
    assert _taken(api) == 0
    api.get(path)


def test_commands_may_take_as_long_as_they_take(app_with: Callable[..., Flask]) -> None:
    def limit(app: Flask) -> Any:
        with app.app_context(), db.engine.connect() as connection:
            return connection.exec_driver_sql("SHOW statement_timeout").scalar()

    assert limit(app_with()) == "30s"
    with click.Context(click.Command("verify")):
        app = app_with()
    assert limit(app) == "0"


def test_what_the_url_says_of_the_connection_goes_before_the_settings(
    app_with: Callable[..., Flask], database_url: str
) -> None:
    url = sa.make_url(database_url).update_query_dict(
        {"options": "-c statement_timeout=7s -c search_path=elsewhere", "connect_timeout": "9"}
    )
    app = app_with(DATABASE_URL=url.render_as_string(hide_password=False))
    with app.app_context(), db.engine.connect() as connection:
        shown = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in ("statement_timeout", "search_path")]
        assert [*shown, connection.exec_driver_sql("SHOW lock_timeout").scalar()] == ["7s", "elsewhere", "10s"]
        driver: Any = connection.connection.dbapi_connection
        assert driver.info.get_parameters()["connect_timeout"] == "9"


def test_request_does_not_wait_longer_than_it_is_told_to(api_with: Callable[..., Api], proxy: Proxy) -> None:
    """The one test that looks at the clock, as there is no other sign of a wait that does not end; it is generous."""
    api = api_with(**_PROMPT)
    proxy.silent = True
    began = time.monotonic()
    _assert_unavailable(api.call("GET", "/records/user"))
    assert time.monotonic() - began < 20

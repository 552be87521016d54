"""``/metrics``: what was asked, what was written, what was refused; over all workers of a server."""

import logging
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.parser import text_string_to_metric_families
from urllib3 import HTTPConnectionPool

from app.auth.grants import GrantError, Grants
from app.auth.tokens import create_token
from app.db import db
from app.metrics import bury
from app.pool import Pool
from tests.service.api import Api, assert_problem
from tests.service.serving import Server, running

Numbers = dict[tuple[str, tuple[str, ...]], float]
_TIMES = "chrononaut_request_seconds_count"
_ROUTE = "/records/user/<key>"
_CHECKING = ("GET", "/openapi.json", "200")
"""By what the answers of a test are checked, the first of them."""


def _numbers(text: str) -> Numbers:
    """The samples by their names and the values of their labels, in the order of their names; without buckets."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_created"))
    }


@pytest.fixture
def scraper_token(app: Flask) -> str:
    with app.app_context():
        return create_token(db, "scraper@example.com", Grants.parse(["metrics"]))


@pytest.fixture
def grown(client: FlaskClient, scraper_token: str) -> Callable[[], Numbers]:
    """By how much each number has grown since the beginning of the test."""

    def read() -> Numbers:
        response = client.get("/metrics", headers={"Authorization": f"Bearer {scraper_token}"})
        assert response.status_code == 200
        return _numbers(response.text)

    before = read()
    return lambda: {key: number - before.get(key, 0) for key, number in read().items() if number - before.get(key, 0)}


def test_requests_are_counted_by_method_route_and_status(api: Api, grown: Callable[[], Numbers]) -> None:
    record = api.post("/records/user", {"email": "ada@example.com"})["links"]["record"]
    for _ in range(3):
        api.get(record)
    api.call("GET", "/records/user/2147483647")
    api.call("GET", "/no/such/address?a=b")
    api.call("BREW", record)
    requests = {key[1]: number for key, number in grown().items() if key[0] == _TIMES}
    assert requests.pop(("GET", "/metrics", "200")) == 1
    requests.pop(_CHECKING, None)
    assert requests == {
        ("POST", "/records/user", "201"): 1,
        ("GET", _ROUTE, "200"): 3,
        ("GET", _ROUTE, "404"): 1,
        ("GET", "", "404"): 1,
        ("other", "", "405"): 1,
    }


def test_versions_are_counted_when_they_are_committed(api: Api, grown: Callable[[], Numbers]) -> None:
    record = api.post("/records/user", {"email": "ada@example.com"})["links"]["record"]
    api.patch(record, {"name": "Ada"})
    api.patch(record, {"name": "Ada"})  # no change
    api.call("PATCH", record, {"name": "Eve"}, headers={"If-Match": '"v0"'})
    items = [{"operation": "create", "record": {"email": f"{name}@example.com"}} for name in "abc"]
    bulk = api.call("POST", "/bulk/user", {"items": items})
    taken = api.call("POST", "/bulk/user", {"items": [*items, items[0]]})
    assert (bulk.status_code, taken.status_code) == (200, 409), (bulk.text, taken.text)
    api.call("DELETE", record)
    grown_by = grown()
    versions = {key[1]: number for key, number in grown_by.items() if key[0] == "chrononaut_versions_total"}
    assert versions == {("user", "insert"): 4, ("user", "update"): 1, ("user", "delete"): 1}
    refused = {key[1]: number for key, number in grown_by.items() if key[0] == "chrononaut_refused_writes_total"}
    assert refused == {("precondition-failed", "user"): 1, ("bulk-failed", "user"): 1}


def test_versions_of_every_model_are_told_before_there_is_one(app_with: Callable[..., Flask]) -> None:
    numbers = _numbers(app_with(CHRONONAUT_OPEN_METRICS="true").test_client().get("/metrics").text)
    versions = {key[1] for key in numbers if key[0] == "chrononaut_versions_total"}
    assert versions == {(model, what) for model in ("user", "release") for what in ("insert", "update", "delete")}


def test_labels_are_few_whatever_is_asked(api: Api, grown: Callable[[], Numbers]) -> None:
    for number in range(30):
        api.call("GET", f"/records/user/{number}")
        api.call("GET", f"/{number}")
        api.call(f"M{number}", "/records/user")
    told = {key[1] for key in grown() if key[0] == _TIMES} - {_CHECKING}
    assert told == {("GET", _ROUTE, "404"), ("GET", "", "404"), ("other", "", "405"), ("GET", "/metrics", "200")}


@pytest.mark.parametrize(
    ("grant", "status"), [(None, 401), ("read", 403), ("write", 403), ("metrics", 200), ("admin", 200)]
)
def test_metrics_take_a_grant_of_their_own(app: Flask, client: FlaskClient, grant: str | None, status: int) -> None:
    headers = {}
    if grant is not None:
        with app.app_context():
            headers = {"Authorization": f"Bearer {create_token(db, 'a@example.com', Grants.parse([grant]))}"}
    response = client.get("/metrics", headers=headers)
    assert response.status_code == status
    if status != 200:
        assert_problem(response, status, "forbidden" if status == 403 else "unauthenticated")


def test_grant_to_read_metrics_is_one_for_nothing_else(client: FlaskClient, scraper_token: str) -> None:
    known = {"Authorization": f"Bearer {scraper_token}"}
    assert client.get("/records/user", headers=known).status_code == 403
    assert client.post("/records/user", headers=known, json={"email": "a@example.com"}).status_code == 403
    with pytest.raises(GrantError, match="user:metrics"):
        Grants.parse(["user:metrics"])


def test_setting_opens_metrics(app_with: Callable[..., Flask]) -> None:
    response = app_with(CHRONONAUT_OPEN_METRICS="true").test_client().get("/metrics")
    assert response.status_code == 200
    assert response.content_type.startswith("text/plain; version=0.0.4")


def test_openmetrics_is_told_to_who_accepts_it(app_with: Callable[..., Flask]) -> None:
    client = app_with(CHRONONAUT_OPEN_METRICS="true").test_client()
    response = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert response.text.endswith("# EOF\n")


def test_pool_is_told_of(app_with: Callable[..., Flask]) -> None:
    app = app_with(CHRONONAUT_OPEN_METRICS="true")
    client = app.test_client()

    def numbers() -> list[float]:
        told = _numbers(client.get("/metrics").text)
        names = ("size", "in_use", "waits_total", "timeouts_total")
        return [told[f"chrononaut_pool_{name}", ("default",)] for name in names]

    with app.app_context(), ExitStack() as held:
        pool = db.engine.pool
        assert isinstance(pool, Pool)
        pool._timeout = 0.01
        assert numbers() == [pool.most, 0, 0, 0]
        held.enter_context(db.engine.connect())
        assert numbers() == [pool.most, 1, 0, 0]
        for _ in range(pool.most - 1):
            held.enter_context(db.engine.connect())
        for _ in range(2):
            with pytest.raises(sa.exc.TimeoutError):
                db.engine.connect()
        assert numbers() == [pool.most, pool.most, 2, 2]
        held.close()
        assert numbers() == [pool.most, 0, 2, 2]


@pytest.fixture
def server(app: Flask, write_token: str, database_url: str, tmp_path: Path) -> Iterator[Server]:
    settings = {"CHRONONAUT_OPEN_METRICS": "true", "TMPDIR": str(tmp_path)}
    with running(database_url, write_token, tmp_path / "log", settings=settings, options=["-w", "3"]) as server:
        yield server


def _told(server: Server) -> Numbers:
    # By a connection of its own: those to a worker that is killed are gone.
    with HTTPConnectionPool("127.0.0.1", server.port) as pool:
        return _numbers(pool.request("GET", "/metrics", retries=5).data.decode())


def _workers(server: Server) -> set[int]:
    return {int(labels[1]) for name, labels in _told(server) if name == "chrononaut_pool_size"}


def _has_gone(server: Server, worker: int) -> bool:
    return worker not in _workers(server)


def _eventually(holds: Callable[[], Any]) -> Any:
    until = time.monotonic() + 30
    while not (found := holds()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def test_numbers_of_several_workers_are_exact_and_outlive_them(server: Server, tmp_path: Path) -> None:
    def write(number: int) -> int:
        if number % 3:
            return server.call("GET", "/records/user")[0]
        return server.call("POST", "/records/user", {"email": f"{number}@example.com"})[0]

    def check(told: Numbers, rounds: int) -> None:
        assert told["chrononaut_versions_total", ("user", "insert")] == 40 * rounds
        assert told[_TIMES, ("POST", "/records/user", "201")] == 40 * rounds
        assert told[_TIMES, ("GET", "/records/user", "200")] == 80 * rounds

    for rounds in (1, 2, 3):
        with ThreadPoolExecutor(8) as threads:
            numbers = range(120 * (rounds - 1), 120 * rounds)
            assert Counter(threads.map(write, numbers)) == {201: 40, 200: 80}
        check(_told(server), rounds)
        killed = min(_eventually(lambda: workers if len(workers := _workers(server)) == 3 else None))
        os.kill(killed, signal.SIGKILL)
        server.pool.close()
        server.pool = HTTPConnectionPool("127.0.0.1", server.port, maxsize=8)
        check(_told(server), rounds)
        _eventually(partial(_has_gone, server, killed))
        check(_told(server), rounds)
    (folder,) = tmp_path.glob("chrononaut-*")
    ended = {file.name for file in folder.glob("*_0.db")}
    assert ended == {"counter_0.db", "histogram_0.db"}
    assert len({re.sub(r"\D", "", file.name) for file in folder.iterdir()} - {"0"}) <= 3


def _write_numbers(file: Path, number: float) -> None:
    written: Any = MmapedDict(str(file))  # type: ignore[no-untyped-call]
    for method in ("GET", "POST"):
        key = mmap_key("a", "a_total", ["method"], [method], "")
        written.write_value(key, number, 0.0)
    written.close()


_DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[:60],
    "truncated in a number": lambda data: data[: int.from_bytes(data[:4], "little") - 9],
    "without its text": lambda data: data[:12] + bytes(len(data) - 12),
    "no text": lambda data: data[:12] + b"\xff" * 8 + data[20:],
}


@pytest.mark.parametrize("damage", _DAMAGED.values(), ids=_DAMAGED)
@pytest.mark.parametrize(("damaged", "left"), [("counter_7.db", 2.0), ("counter_0.db", 3.0)])
def test_numbers_that_cannot_be_read_are_dropped_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes], damaged: str, left: float
) -> None:
    for name, number in (("counter_0.db", 2.0), ("counter_7.db", 3.0), ("histogram_7.db", 5.0)):
        _write_numbers(tmp_path / name, number)
    (tmp_path / damaged).write_bytes(damage((tmp_path / damaged).read_bytes()))
    bury(str(tmp_path), 7, logging.getLogger("app"))
    (record,) = caplog.records
    assert record.message.startswith(f"the numbers of metrics in {damaged} cannot be read, and are dropped: ")
    read = MmapedDict.read_all_values_from_file
    kept = {file.name: [number for _, number, *_ in read(file)] for file in tmp_path.iterdir()}  # type: ignore[no-untyped-call]
    assert kept == {"counter_0.db": [left, left], "histogram_0.db": [5.0, 5.0]}

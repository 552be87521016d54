"""Gunicorn by settings: what is set holds, what is wrong is told once, and workers share no connection."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
import urllib3

from tests.service.conftest import SECRET_KEY
from tests.service.serving import Server, free_port, running

_ROOT = Path(__file__).parents[2]
_PROBED = "tests.service.probed:probed()"


def _probe(server: Server) -> dict[str, Any]:
    answer = server.pool.request("GET", "/probe", headers={"Connection": "close"}, retries=5)
    assert answer.status == 200
    told: dict[str, Any] = answer.json()
    return told


def _probe_all(server: Server, workers: int) -> dict[int, list[dict[str, Any]]]:
    """What each of so many workers says, by its process."""
    told: dict[int, list[dict[str, Any]]] = {}
    with ThreadPoolExecutor(8) as threads:
        _eventually(lambda: told.update(_by_process(threads.map(_probe, [server] * 16))) or len(told) == workers)
    return told


def _by_process(answers: Iterator[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    told: dict[int, list[dict[str, Any]]] = {}
    for answer in answers:
        told.setdefault(answer["process"], []).append(answer)
    return told


def _eventually(holds: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_preloaded_application_shares_no_connection_and_counts_and_logs_for_each_worker(
    database_url: str, write_token: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    settings = {"CHRONONAUT_PRELOAD": "true", "CHRONONAUT_OPEN_METRICS": "true", "TMPDIR": str(tmp_path)}
    with running(database_url, write_token, log, settings=settings, application=_PROBED) as server:
        told = _probe_all(server, workers=2)
        backends = []
        for process, answers in told.items():
            assert {answer["loaded_by"] for answer in answers} == {server.pid}
            assert {answer["connected_by"] for answer in answers} == {process}
            backends.append({answer.get("backend") for answer in answers})
        if database_url.startswith("postgresql"):
            assert not backends[0] & backends[1]
        gunicorn = psutil.Process(server.pid)
        assert len(gunicorn.net_connections("all")) == 1  # where it listens
        database = sa.make_url(database_url).database
        assert not [file for file in gunicorn.open_files() if file.path.startswith(f"{database}")]

        with ThreadPoolExecutor(8) as threads:
            bodies = [{"email": f"{number}@example.com"} for number in range(40)]
            written = [*threads.map(lambda body: server.call("POST", "/records/user", body), bodies)]
        assert Counter(status for status, _ in written) == {201: 40}
        metrics = server.pool.request("GET", "/metrics").data.decode()
    assert 'chrononaut_versions_total{model="user",operation="insert"} 40.0' in metrics
    assert {int(pid) for pid in re.findall(r'chrononaut_pool_size{.*pid="(\d+)"', metrics)} == set(told)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    answered = [record for record in records if record["logger"] == "gunicorn.access"]
    assert {record["process"] for record in answered} == set(told)
    names = Counter(record["request_id"] for record in answered)
    assert max(names.values()) == 1


def _ended(settings: Mapping[str, str]) -> tuple[int, str, str]:
    """How a start ends: the status, and what is written to the standard output and error."""
    environment = {
        "SECRET_KEY": SECRET_KEY,
        "DATABASE_URL": "sqlite://",
        "CHRONONAUT_BIND": f"127.0.0.1:{free_port()}",
        "CHRONONAUT_WORKERS": "3",
        "CHRONONAUT_LOG_LEVEL": "error",
        **settings,
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "python:app.server", "app:create_app()"]
    ended = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    return ended.returncode, ended.stdout, ended.stderr


def test_wrong_setting_of_the_server_ends_the_start_and_all_that_is_wrong_is_told() -> None:
    wrong = {
        "SECRET_KEY": "short",
        "CHRONONAUT_ZZZ": "1",
        "CHRONONAUT_BIND": "8000",
        "CHRONONAUT_WORKERS": "0",
        "CHRONONAUT_LOG_FORMAT": "xml",
    }
    status, output, error = _ended(wrong)
    assert (status, output) == (1, "")
    assert [line.split()[0] for line in error.splitlines()] == [
        "CHRONONAUT_ZZZ",
        "SECRET_KEY",
        "CHRONONAUT_BIND",
        "CHRONONAUT_WORKERS",
        "CHRONONAUT_LOG_FORMAT",
    ]


@pytest.mark.parametrize("preload", ["true", "false"])
def test_wrong_setting_of_the_application_ends_the_start_before_it_listens(preload: str) -> None:
    wrong = {"SECRET_KEY": "", "DATABASE_URL": "", "CHRONONAUT_WROKERS": "4", "CHRONONAUT_PRELOAD": preload}
    status, output, error = _ended({**wrong, "CHRONONAUT_LOG_LEVEL": "info"})
    assert (status, output) == (1, "")
    starting, *told = error.splitlines()
    assert "Starting gunicorn" in starting
    assert [line.split()[0] for line in told] == ["CHRONONAUT_WROKERS", "SECRET_KEY", "DATABASE_URL"]


@pytest.mark.parametrize("preload", ["true", "false"])
def test_setting_that_names_nothing_ends_the_start_and_is_told_once(preload: str) -> None:
    status, output, error = _ended({"CHRONONAUT_MODELS": "nowhere", "CHRONONAUT_PRELOAD": preload})
    assert status != 0
    assert output == ""
    told = [line for line in error.splitlines() if not line.startswith("{")]
    assert told == ["CHRONONAUT_MODELS names nowhere, but there is no module nowhere"]


@contextmanager
def _waiting(tmp_path: Path, **settings: str) -> Iterator[tuple[Server, Any]]:
    """A service that has been told to end while it answers a request, and the future answer."""
    settings["TMPDIR"] = str(tmp_path)
    with (
        running("sqlite://", "", tmp_path / "log", settings=settings, application=_PROBED, first="/probe") as server,
        ThreadPoolExecutor() as threads,
    ):
        answer = threads.submit(server.pool.request, "GET", "/wait", retries=False)
        _eventually((tmp_path / "waiting").exists)
        os.kill(server.pid, signal.SIGTERM)
        yield server, answer


def test_what_has_begun_is_answered_before_the_server_ends(tmp_path: Path) -> None:
    with _waiting(tmp_path) as (server, answer):
        _eventually(lambda: _refuses(server))
        assert not answer.done()
        (tmp_path / "go").touch()
        assert answer.result().data == b"done"


def test_worker_is_live_while_all_its_threads_wait(tmp_path: Path) -> None:
    settings = {"CHRONONAUT_WORKERS": "1", "CHRONONAUT_THREADS": "1", "TMPDIR": str(tmp_path)}
    log = tmp_path / "log"
    with (
        running("sqlite://", "", log, settings=settings, application=_PROBED, first="/probe") as server,
        ThreadPoolExecutor() as threads,
    ):
        answers = [threads.submit(server.pool.request, "GET", "/wait", retries=False) for _ in range(3)]
        _eventually((tmp_path / "waiting").exists)
        for _ in range(3):
            answer = server.raw(b"GET /health/live HTTP/1.1\r\nHost: localhost")
            assert b'{"status":"live"}' in answer
        assert not any(answer.done() for answer in answers)
        (tmp_path / "go").touch()
        assert {answer.result().data for answer in answers} == {b"done"}


def _refuses(server: Server) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", server.port)) == errno.ECONNREFUSED


def test_server_waits_no_longer_than_it_is_set(tmp_path: Path) -> None:
    with (
        _waiting(tmp_path, CHRONONAUT_GRACEFUL_TIMEOUT="1") as (_, answer),
        pytest.raises(urllib3.exceptions.HTTPError),
    ):
        answer.result()


def test_worker_is_replaced_after_so_many_requests(tmp_path: Path) -> None:
    settings = {"CHRONONAUT_MAX_REQUESTS": "10", "CHRONONAUT_WORKERS": "1"}
    log = tmp_path / "log"
    with running("sqlite://", "", log, settings=settings, application=_PROBED, first="/probe") as server:
        answers = [_probe(server)["process"] for _ in range(14)]
    assert len(set(answers)) == 2
    assert all(count <= 11 for count in Counter(answers).values())

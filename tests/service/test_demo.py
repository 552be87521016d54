"""What `make run` does once everything is installed."""

import json
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import urllib3

_ROOT = Path(__file__).parents[2]
_PATIENTLY = urllib3.Retry(1200, backoff_factor=0.05, backoff_max=0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _demo(folder: Path, port: int) -> Iterator[str]:
    """A running demo; gives what it printed once it listens."""
    command = [sys.executable, "-m", "app.demo", "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=folder, env={"PYTHONPATH": str(_ROOT), "PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        printed = ""
        for line in process.stdout:
            printed += line
            if "Ctrl-C" in line:
                break
        yield printed
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def test_demo_shows_history_takes_a_change_and_keeps_it(tmp_path: Path) -> None:
    port = _free_port()
    with _demo(tmp_path, port) as printed, urllib3.PoolManager(retries=_PATIENTLY) as http:
        assert printed.count("curl") == 2
        history, record, docs = re.findall(r"http://\S+", printed)
        versions = json.loads(http.request("GET", history).data)["versions"]
        assert [row["version"] for row in versions] == [0, 1, 2, 3]
        assert http.request("GET", docs).status == 200
        (token,) = re.findall(r"Bearer (\S+?)'", printed)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "X-Change-Rationale": "Why"}
        assert http.request("PATCH", record, headers=headers, body=b'{"name": "Ada King"}').status == 200
        releases = json.loads(http.request("GET", f"http://127.0.0.1:{port}/records/release").data)["records"]
        assert len(releases) == 13
    # As an older checkout made it.
    with closing(sqlite3.connect(tmp_path / "instance" / "demo.db")) as connection:
        connection.execute("DROP TABLE chrononaut_login")
    with _demo(tmp_path, port) as again, urllib3.PoolManager(retries=_PATIENTLY) as http:
        assert again == printed
        page = json.loads(http.request("GET", history).data)
        assert page["current"]["state"]["name"] == "Ada King"
        assert page["versions"][-1]["change_info"]["extra"] == {"change_rationale": "Why"}
        body = b'{"email": "a@example.com", "password": "wrong"}'
        login = http.request(
            "POST", f"http://127.0.0.1:{port}/session", headers={"Content-Type": "application/json"}, body=body
        )
        assert login.status == 401


def test_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "app.demo", "--port", str(port)]
        environment = {"PYTHONPATH": str(_ROOT)}
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert f"port {port} is taken" in line


def test_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "instance").write_text("no folder")
    command = [sys.executable, "-m", "app.demo", "--port", str(_free_port())]
    environment = {"PYTHONPATH": str(_ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "cannot write into instance/" in line

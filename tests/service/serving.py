"""The service as it is run: gunicorn on a free port of loopback."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3

from tests.service.conftest import SECRET_KEY

_ROOT = Path(__file__).parents[2]


class Server:
    """A running service.

    :ivar pid: of gunicorn, whose children are the workers
    """

    def __init__(self, port: int, token: str, pid: int) -> None:
        self.port, self.token, self.pid = port, token, pid
        self.pool = urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=8, timeout=60)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        sent = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"} | headers
        answer = self.pool.request(method, path, body=json.dumps(body), headers=sent, retries=False)
        return answer.status, json.loads(answer.data) if answer.data else None

    def raw(self, head: bytes, body: bytes = b"") -> bytes:
        """Send a request as it is, and read until the service closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)
            return b"".join(iter(lambda: connection.recv(65536), b""))


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running(
    database_url: str,
    token: str,
    log: Path,
    *,
    settings: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    application: str = "app:create_app()",
    first: str = "/openapi.json",
    port: int | None = None,
    ends_clean: bool = True,
) -> Iterator[Server]:
    """The service with two workers, until the end of the block, which begins when it has answered.

    :param log: the file that gunicorn's log goes to
    :param settings: of the service, besides those that it needs
    :param options: of gunicorn
    :param application: as gunicorn is told of it
    :param ends_clean: may no traceback be in the log at the end?
    :param first: the path that it is asked for, with the token, until it answers
    :param port: a free one by default
    """
    port = port or free_port()
    command = [sys.executable, "-m", "gunicorn", "-c", "python:app.server"]
    environment = {
        "SECRET_KEY": SECRET_KEY,
        "DATABASE_URL": database_url,
        "PATH": "/usr/bin:/bin",
        "CHRONONAUT_BIND": f"127.0.0.1:{port}",
        "CHRONONAUT_WORKERS": "2",
        **(settings or {}),
    }
    with log.open("w+") as written:
        process = subprocess.Popen(
            [*command, *options, application], cwd=_ROOT, env=environment, stdout=written, stderr=written
        )
        server = Server(port, token, process.pid)
        try:
            retries = urllib3.Retry(1200, backoff_factor=0.05, backoff_max=0.05)
            known = {"Authorization": f"Bearer {token}"}
            assert server.pool.request("GET", first, headers=known, retries=retries).status == 200
            yield server
        finally:
            server.pool.close()
            process.terminate()
            process.wait(60)  # longer than gunicorn waits for a worker that was told while it started
        written.seek(0)
        assert not ends_clean or "Traceback" not in written.read()

"""The service as it is run, for tools that see it from outside."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import urllib3

from app import create_app
from app.auth.grants import Grants
from app.auth.tokens import create_token
from app.cli import create_tables
from app.db import db
from app.demo import fill

ROOT = Path(__file__).parents[2]
TOOLS = Path(os.environ.get("CONTRACT_TOOLS", ROOT / ".venv-contract" / "bin"))


class PrerequisiteError(Exception):
    """What is missing on this machine, and where it comes from."""


@dataclass(frozen=True, slots=True)
class Service:
    """A running service with the demo's records.

    :ivar token: one that may write
    """

    url: str
    token: str
    environment: Mapping[str, str]
    log: Path

    def flask(self, *command: str) -> str:
        """Run one of the service's commands, and return what it prints.

        :raises subprocess.CalledProcessError: it failed
        """
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "app", *command],
            cwd=ROOT,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def complaints(self) -> list[str]:
        """The lines of its log that tell of a failure of its own."""
        wrong = re.compile(r"Traceback|\[(ERROR|CRITICAL)\]|\" 5\d\d ")
        return [line for line in self.log.read_text().splitlines() if wrong.search(line)]


@contextmanager
def running_service(database_url: str, folder: Path) -> Iterator[Service]:
    """The service under gunicorn with two workers, on a free port of loopback; it ends with the block.

    :param folder: where its log is written
    """
    environment = {"SECRET_KEY": "a key for tests only", "DATABASE_URL": database_url, "PATH": "/usr/bin:/bin"}
    app = create_app(environment)
    with app.app_context():
        create_tables(db)
        fill(db.session())
        token = create_token(db, "client@example.com", Grants.parse(["write"]))
        db.session.remove()
        db.engine.dispose()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "gunicorn", "-c", "python:app.server", "-w", "2", "-b", address]
    path = folder / "gunicorn.log"
    with path.open("w") as log:
        process = subprocess.Popen(
            [*command, "--access-logfile", "-", "app:create_app()"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
        service = Service(f"http://{address}", token, environment, path)
        try:
            with urllib3.PoolManager() as pool:
                retries = urllib3.Retry(1200, backoff_factor=0.05, backoff_max=0.05)
                pool.request("GET", f"{service.url}/openapi.json", retries=retries)
            yield service
        finally:
            process.terminate()
            process.wait(60)


def tool(name: str) -> Path:
    """A program of the tools' own environment, which conflicts with the service's.

    :raises PrerequisiteError: it was not made
    """
    path = TOOLS / name
    if not path.exists():
        raise PrerequisiteError(f"there is no {path}; `make test-clients` installs it")
    return path


def require(program: str, whence: str) -> None:
    """Make sure that the machine has a program.

    :raises PrerequisiteError: it has none
    """
    if shutil.which(program) is None:
        raise PrerequisiteError(f"there is no {program} on PATH; install {whence}")

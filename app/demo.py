"""The demo: a database with records that have a history, and the service on loopback."""

import argparse
import json
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from sqlalchemy.orm import Session

from app import create_app, server
from app.auth.grants import Grants
from app.auth.tokens import create_token, find_principal
from app.cli import create_tables
from app.db import db
from app.models import Release, User
from chrononaut import ImportedChange, import_changes
from chrononaut.history import Operation

_FOLDER = Path("instance")
_HOST = "127.0.0.1"
_USER = "demo@example.com"
_SECRETS_ARE_THE_OWNERS = 0o600

_WELCOME = """
Chrononaut is running. Three things to try, in another terminal:

  curl -s {url}/history/user/42

  curl -s -X PATCH {url}/records/user/42 -H 'Authorization: Bearer {token}' \\
       -H 'Content-Type: application/json' -H 'X-Change-Rationale: User request' -d '{{"name": "Ada King"}}'

  open {url}/docs/ in a browser

Ctrl-C ends it; the data stays in {folder}/.
"""


class DemoError(Exception):
    """Why the demo cannot run, in one line."""


def main() -> None:
    """Create the demo database where there is none, and serve it until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make run", description=main.__doc__)
    parser.add_argument(
        "--port", type=int, choices=range(1, 65536), metavar="1-65535", default=8000, help="on loopback"
    )
    port = parser.parse_args().port
    # Here the application is made before gunicorn would tell it where its workers count together.
    for variable in server.raw_env:
        name, _, value = variable.partition("=")
        os.environ[name] = value
    try:
        folder = _writable_folder(_FOLDER)
        _refuse_taken_port(port)
        database = folder / "demo.db"
        if not database.exists():
            _make_database(folder, database)
        app = create_app(_environment(folder, database))
        with app.app_context():
            create_tables(db)  # it may have been made before there were some of them
            token = _token(folder / "demo-token")
            db.engine.dispose()  # no connection may be shared with the workers
    except DemoError as error:
        sys.exit(f"make run: {error}")
    welcome = _WELCOME.format(url=f"http://{_HOST}:{port}", token=token, folder=folder)
    _Gunicorn(app, port, welcome).run()


def _writable_folder(folder: Path) -> Path:
    try:
        folder.mkdir(exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise DemoError(f"cannot write into {folder}/ ({error.strerror}); run it where you may write") from error
    return folder


def _refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        # As the server will: a port whose last connections are only fading is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise DemoError(
                f"port {port} is taken by another program; end it, or choose another port: make run PORT={port + 1}"
            ) from error


def _environment(folder: Path, database: Path) -> dict[str, str]:
    return {
        "SECRET_KEY": _kept(folder / "demo-secret", lambda: secrets.token_urlsafe(32)),
        "DATABASE_URL": f"sqlite:///{database.resolve()}",
        "CHRONONAUT_OPEN_READING": "true",
        "CHRONONAUT_SECURE_COOKIES": "false",
    }


def _make_database(folder: Path, database: Path) -> None:
    """Make the database under another name first, so that an interrupted start leaves no half of it."""
    unfinished = database.with_suffix(".unfinished")
    for leftover in folder.glob(f"{unfinished.name}*"):
        leftover.unlink()
    app = create_app(_environment(folder, unfinished))
    with app.app_context():
        create_tables(db)
        fill(db.session())
        db.engine.dispose()
    unfinished.rename(database)


def _kept(file: Path, make: Callable[[], str]) -> str:
    """The text in a file that only its owner may read; it is made where there is none."""
    if not file.exists():
        file.touch(mode=_SECRETS_ARE_THE_OWNERS)
        file.write_text(make())
    return file.read_text()


def _token(file: Path) -> str:
    token = _kept(file, lambda: create_token(db, _USER, Grants.parse(["write"])))
    if find_principal(db, token) is None:
        # The database was made anew, and the file was left over.
        file.unlink()
        token = _kept(file, lambda: create_token(db, _USER, Grants.parse(["write"])))
    return token


def fill(session: Session) -> None:
    """Write the demo records with their histories, each change as of when people made it."""
    import_changes(session, User, _ADA)
    import_changes(session, Release, _releases())
    session.commit()


def _change(at: str, user_id: str, rationale: str, operation: Operation = "update", **values: Any) -> ImportedChange:
    return ImportedChange(operation, _ADAS_KEY, datetime.fromisoformat(at), values, _info(user_id, rationale))


def _info(user_id: str, rationale: str) -> dict[str, Any]:
    return {"user_id": user_id, "remote_addr": _HOST, "extra": {"change_rationale": rationale}}


_ADAS_KEY = 42
_FIRST_HASH, _SECOND_HASH = "$argon2id$example$1", "$argon2id$example$2"
_ADA = [
    _change(
        "2025-03-01T09:00:00Z",
        "signup@example.com",
        "Signed up",
        "insert",
        email="ada@exmaple.com",
        name="Ada Byron",
        password_hash=_FIRST_HASH,
    ),
    _change(
        "2025-03-02T10:00:00Z",
        "support@example.com",
        "Typing error in the address, ticket SUP-1815",
        email="ada@example.com",
    ),
    _change("2025-07-08T16:30:00Z", "ada@example.com", "Changed her password", password_hash=_SECOND_HASH),
    _change("2026-04-01T03:00:00Z", "admin@example.com", "No sign-in for a year", active=False),
    _change("2026-05-04T08:15:00Z", "admin@example.com", "She is back, ticket SUP-1843", active=True),
]


def _releases() -> Iterator[ImportedChange]:
    for line in resources.files("app").joinpath("data/releases.ndjson").read_text().splitlines():
        change = json.loads(line)
        yield ImportedChange(
            operation=change["op"],
            key=(change["product"], change["cycle"]),
            at=datetime.fromisoformat(change["at"]),
            values=change.get("set", {}),
            info=_info("releases@example.com", change["rationale"]),
            transaction=change["ref"],
        )


class _Gunicorn(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """Gunicorn in this process, which says hello when it listens."""

    def __init__(self, app: Flask, port: int, welcome: str) -> None:
        self._app, self._port, self._welcome = app, port, welcome
        super().__init__()

    def load_config(self) -> None:
        options = {name: value for name, value in vars(server).items() if name in self.cfg.settings} | {
            "bind": f"{_HOST}:{self._port}",
            "workers": 2,
            "loglevel": "warning",
            "logger_class": server.Logger,
            "accesslog": None,
            # It asks the environment for settings, where the demo has none.
            "on_starting": lambda _: None,
            # A worker that is told to end while it starts does not hear it; nobody waits half a minute for a demo.
            "graceful_timeout": 5,
            "when_ready": lambda _: sys.stdout.write(self._welcome) and sys.stdout.flush(),
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return self._app


if __name__ == "__main__":
    main()

"""The service, with ways to see what it is run by; it connects to its database while it is loaded."""

import logging
import os
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from flask import Flask, current_app, jsonify
from flask.typing import ResponseReturnValue

from app import create_app
from app.db import db

LONGEST_WAIT = 20.0
"""Seconds after which `wait` is over in any case."""


def probed() -> Flask:
    """The service as a WSGI application."""
    app = create_app()
    app.config["LOADED_BY"] = os.getpid()
    with app.app_context():
        sa.event.listen(db.engine, "connect", _remember)
        with db.engine.connect():
            pass
    app.add_url_rule("/probe", view_func=probe)
    app.add_url_rule("/wait", view_func=wait)
    app.add_url_rule("/logged/<value>", view_func=log)
    return app


def _remember(connection: object, record: Any) -> None:
    record.info["process"] = os.getpid()


def probe() -> ResponseReturnValue:
    """Which process answers, which one has loaded the application, and which one has opened the connection."""
    with db.engine.connect() as connection:
        answer = {
            "process": os.getpid(),
            "loaded_by": current_app.config["LOADED_BY"],
            "connected_by": connection.connection.info["process"],
        }
        if connection.dialect.name == "postgresql":
            answer["backend"] = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
    time.sleep(0.05)  # so that one worker does not answer all
    return jsonify(answer)


def wait() -> ResponseReturnValue:
    """Answer as soon as there is a file ``go`` in `TMPDIR`; that it waits is told by a file ``waiting``."""
    folder = Path(os.environ["TMPDIR"])
    (folder / "waiting").touch()
    until = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < until and not (folder / "go").exists():
        time.sleep(0.01)
    return "done"


def log(value: str) -> ResponseReturnValue:
    """Log the exception of a value that is no number: as the application, as a package, and as the server."""
    try:
        int(value)
    except ValueError:
        for name in ("app", "package", "gunicorn.error"):
            logging.getLogger(name).exception("caught by %s", name)
    return "logged"

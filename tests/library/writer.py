"""What a process does that changes shared records until it is killed, and tells what it has committed.

It appends to its log, a line of JSON each:

- ``["began", token]``: a transaction, whose token stands in the change info of all that it changes
- ``["committing", token, steps]``: everything is flushed, and the commit is about to be sent
- ``["committed", token]``: the commit has returned
"""

import json
import os
import random
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from flask import Flask
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from chrononaut import ConcurrentChangeError, extra_change_info
from tests.library.conftest import prepare_sqlite
from tests.library.models import Country, Release, User, db

VALUES = {Country: "name", Release: "label", User: "email"}
_KEYS: dict[type, list[tuple[Any, ...]]] = {
    Country: [(f"C{number}",) for number in range(8)],
    Release: [(product, cycle) for product in ("p", "q") for cycle in "1234"],
    User: [(number,) for number in range(1, 9)],
}
_RECORDS = [(model, key) for model, keys in _KEYS.items() for key in keys]
_SOON = 0.05  # seconds until the server is asked again


class Step(NamedTuple):
    """One change of a record.

    :ivar version: of the history row
    :ivar value: that the record has afterwards; ``None`` if it was deleted
    """

    table: str
    key: list[Any]
    version: int
    operation: Literal["insert", "update", "delete"]
    value: str | None


def configure(app: Flask, url: str) -> None:
    """Bind an application to a database that several processes write to."""
    options: dict[str, Any] = {}
    if url.startswith("postgresql"):
        options = {"connect_args": {"options": "-c deadlock_timeout=50ms"}}
    app.config.update(SQLALCHEMY_DATABASE_URI=url, SQLALCHEMY_ENGINE_OPTIONS=options)
    db.init_app(app)


def _change(session: Session, model: Any, key: tuple[Any, ...], value: str) -> Callable[[], Step]:
    """Change a record, and return how to tell what was done to it when it is flushed."""
    obj = session.get(model, key)
    table, attribute = model.__table__.name, VALUES[model]
    if obj is None:
        names = [column.key for column in model.__table__.primary_key]
        obj = model(**dict(zip(names, key, strict=True)), **{attribute: value})
        session.add(obj)
        return lambda: Step(table, list(key), obj.version - 1, "insert", value)
    if random.random() < 0.3:
        step = Step(table, list(key), obj.version, "delete", None)
        session.delete(obj)
        return lambda: step
    setattr(obj, attribute, value)
    return lambda: Step(table, list(key), obj.version - 1, "update", value)


def _flush_some(session: Session, token: str) -> list[Step]:
    """Several flushes, each with several records."""
    steps: list[Step] = []
    for flush in range(random.randint(1, 3)):
        records = random.sample(_RECORDS, random.randint(1, 3))
        told = [
            _change(session, model, key, f"{token} {flush} {number}") for number, (model, key) in enumerate(records)
        ]
        session.flush()
        steps += [tell() for tell in told]
    return steps


def write(url: str, log: Path, errors: Path) -> None:
    """Write until killed, or until the test that has started this process ends.

    :param errors: where to write why it has ended by itself
    """
    try:
        _write(url, log)
    except BaseException:
        errors.write_text(traceback.format_exc())
        raise


def _write(url: str, path: Path) -> None:
    parent = os.getppid()
    app = Flask("writer")
    configure(app, url)
    number = 0
    with app.app_context(), path.open("ab", buffering=0) as log:
        prepare_sqlite(db.engine)
        while os.getppid() == parent:
            number += 1
            token = f"{path.stem}-{number}"
            log.write(_line("began", token))
            try:
                with extra_change_info(token=token):
                    steps = _flush_some(db.session(), token)
                log.write(_line("committing", token, steps))
                db.session.commit()
                log.write(_line("committed", token))
            except (ConcurrentChangeError, IntegrityError):
                # Another has changed, or inserted, the same record.
                db.session.rollback()
            except OperationalError:
                # A deadlock, SQLite's lock, or a server that is gone for a while.
                db.session.rollback()
                time.sleep(random.uniform(0, _SOON))


def _line(*parts: Any) -> bytes:
    return json.dumps(parts).encode() + b"\n"

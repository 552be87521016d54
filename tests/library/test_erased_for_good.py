"""What was erased is nowhere in the tables: the database's own file, or what it dumps, is searched for it."""

import base64
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut import VersionedSQLAlchemy, extra_change_info
from tests.library.models import define

_SECRET = "Zürich-4711-geheim"


def _forms(text: str) -> dict[str, bytes]:
    """How a text may stand in a file."""
    raw = text.encode()
    return {
        "UTF-8": raw,
        "UTF-16": text.encode("utf-16-le"),
        "JSON": json.dumps(text)[1:-1].encode(),
        "hexadecimal": raw.hex().encode(),
        "base64": base64.b64encode(raw).rstrip(b"=")[:-1],
    }


def _found(content: bytes) -> set[str]:
    return {form for form, raw in _forms(_SECRET).items() if raw in content or raw.upper() in content}


def _content(engine: sa.Engine) -> bytes:
    """All that the database holds: SQLite's file, its free pages too, or what PostgreSQL copies out of its tables."""
    if engine.dialect.name == "sqlite":
        return Path(str(engine.url.database)).read_bytes()
    copied: list[bytes] = []
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        for table in sa.inspect(connection).get_table_names():
            with driver.cursor().copy(f"COPY {table} TO STDOUT") as copy:
                copied += map(bytes, copy)
    return b"".join(copied).replace(rb"\\", b"\\")


def test_erased_values_are_nowhere(open_database: Callable[..., Session]) -> None:
    database: Any = VersionedSQLAlchemy()
    kind = sa.Column("kind", sa.String)
    person = define(
        database,
        "Person",
        __mapper_args__={"polymorphic_on": kind, "polymorphic_identity": "person"},
        id=sa.Column(sa.Integer, primary_key=True),
        kind=kind,
        text=sa.Column(sa.Text),
        document=sa.Column(sa.JSON),
        raw=sa.Column(sa.LargeBinary),
    )
    pilot: Any = type(
        "Pilot",
        (person,),
        {
            "__tablename__": "pilot",
            "__mapper_args__": {"polymorphic_identity": "pilot"},
            "id": sa.Column(sa.ForeignKey("person.id"), primary_key=True),
            "licence": sa.Column(sa.String),
        },
    )
    session = open_database(database)
    is_sqlite = database.engine.dialect.name == "sqlite"
    if is_sqlite:
        # Some builds have it on by default.
        session.connection().exec_driver_sql("PRAGMA secure_delete = OFF")
    values = {"text": _SECRET, "document": {"deep": [_SECRET]}, "raw": _SECRET.encode(), "licence": _SECRET}
    with extra_change_info(rationale=f"{_SECRET} signed up", **{_SECRET: "a key"}):
        one = pilot(id=1, **values)
        session.add(one)
        session.commit()
        for number in range(20):
            one.document = {"deep": [_SECRET, number]}
            session.commit()
        for name in values:
            setattr(one, name, None)
        session.commit()
    assert {"UTF-8", "JSON"} <= _found(_content(database.engine))
    with extra_change_info(rationale="Request 1"):
        one.erase()
    session.commit()
    session.close()
    database.engine.dispose()
    if is_sqlite:
        # What a row no longer holds stays in the file until its page is written anew.
        assert _found(_content(database.engine))
        with sqlite3.connect(str(database.engine.url.database)) as connection:
            connection.execute("VACUUM")
        connection.close()
    content = _content(database.engine)
    assert b"Request 1" in content
    assert _found(content) == set()


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_secure_delete_leaves_nothing_in_free_pages(open_database: Callable[..., Session]) -> None:
    database: Any = VersionedSQLAlchemy()
    note = define(database, "Note", id=sa.Column(sa.Integer, primary_key=True), text=sa.Column(sa.Text))
    session = open_database(database)
    session.connection().exec_driver_sql("PRAGMA secure_delete = ON")
    one = note(id=1, text=_SECRET * 1000)
    session.add(one)
    session.commit()
    one.text = None
    session.commit()
    assert _found(_content(database.engine))
    one.erase()
    session.commit()
    assert _found(_content(database.engine)) == set()

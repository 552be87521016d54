"""The records that are read and written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa

from app.auth.grants import Grants
from app.auth.tokens import create_token
from app.cli import create_tables
from app.db import db
from app.models import User
from benchmarks.serving.floors import twin
from chrononaut.importing import ImportedChange, import_changes

READ: Final = 42
"""The key of the user whose history is read."""
VERSIONS: Final = 20
"""How many prior versions that user has."""
MADE_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""When that user was made; each day after, a version replaced another."""
FIRST_WRITTEN: Final = 1000
"""The least of the keys of the users who are written, which follow each other."""
WRITTEN: Final = 1000
"""How many users are written: so many that requests at once hardly ever wait for the same row."""


def fill() -> str:
    """Make the tables and the records, inside an application's context.

    :return: a token that may read and write
    """
    create_tables(db)
    twin.create(db.engine)
    written = [
        {"id": key, "email": f"user{key}@example.com", "name": f"User {key}", "active": True}
        for key in range(FIRST_WRITTEN, FIRST_WRITTEN + WRITTEN)
    ]
    session = db.session()
    import_changes(session, User, _changes())
    session.add_all([User(**values) for values in written])
    session.execute(sa.insert(twin), written)
    session.commit()
    session.close()
    return create_token(db, "benchmark@example.com", Grants.parse(["write"]))


def _changes() -> Iterator[ImportedChange]:
    made = {"email": "ada0@example.com", "name": "Ada Byron", "password_hash": "$argon2id$example$0"}
    yield ImportedChange("insert", READ, MADE_AT, made, _info("Signed up"))
    for number in range(1, VERSIONS + 1):
        values = {"email": f"ada{number}@example.com", "active": number % 2 == 0}
        at = MADE_AT + timedelta(days=number)
        yield ImportedChange("update", READ, at, values, _info(f"A new address, ticket SUP-{1815 + number}"))


def _info(why: str) -> dict[str, object]:
    return {"user_id": "support@example.com", "remote_addr": "127.0.0.1", "extra": {"change_rationale": why}}

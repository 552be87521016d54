"""What the tables themselves hold, read by plain SQL: nothing of the library stands between."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session, scoped_session

AnySession = Session | scoped_session[Any]
Row = dict[str, Any]

OWN_COLUMNS = ("version", "operation", "changed", "change_info", "transaction_id")


def history_rows(session: AnySession, table: str, bind: sa.Engine | None = None, **key: Any) -> list[Row]:
    """The history rows of a table or of one record, by version, with our own columns as Python has them.

    :param bind: the engine, where it is not that of the session's default bind
    :param key: column → value
    """
    where = " AND ".join(f"{column} = :{column}" for column in key) or "1 = 1"
    statement = sa.text(f"SELECT * FROM {table} WHERE {where} ORDER BY version")
    options = {"bind_arguments": {"bind": bind}} if bind is not None else {}
    connection = session.connection(**options)
    return [_read(dict(row)) for row in connection.execute(statement, key).mappings()]


def live_rows(session: AnySession, table: str, *order: str) -> list[Row]:
    """The rows of a live table."""
    by = ", ".join(order) or "1"
    return [
        dict(row) for row in session.connection().execute(sa.text(f"SELECT * FROM {table} ORDER BY {by}")).mappings()
    ]


def changes(rows: list[Row]) -> list[tuple[int, str]]:
    """Version and operation of each row."""
    return [(row["version"], row["operation"]) for row in rows]


def state(row: Row) -> Row:
    """A history row without our own columns."""
    return {name: value for name, value in row.items() if name not in OWN_COLUMNS}


def _read(row: Row) -> Row:
    if isinstance(row.get("change_info"), str):
        row["change_info"] = json.loads(row["change_info"])
    if isinstance(row.get("changed"), str):
        row["changed"] = datetime.fromisoformat(row["changed"]).replace(tzinfo=UTC)
    if isinstance(row.get("transaction_id"), str):
        row["transaction_id"] = UUID(row["transaction_id"])
    return row

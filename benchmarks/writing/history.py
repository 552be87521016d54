"""A history table as Chrononaut's, for those that write one by hand: the same columns, key and indexes."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from benchmarks.writing.models import TABLE
from chrononaut.types import Instant, JSONDocument

HISTORY: Final = f"{TABLE}_history"
VERSION: Final = "version"


def history_table(live: sa.Table) -> sa.Table:
    """The table of the states that the rows of another had, in the same metadata.

    :param live: has a column `VERSION`, which history rows carry in their key
    """
    key = [_copy(column) for column in live.primary_key]
    state = [_copy(column) for column in live.c if not column.primary_key and column.name != VERSION]
    return sa.Table(
        HISTORY,
        live.metadata,
        *key,
        sa.Column(VERSION, sa.Integer, primary_key=True, autoincrement=False),
        *state,
        sa.Column("operation", sa.String(6), nullable=False),
        sa.Column("changed", Instant, nullable=False),
        sa.Column("change_info", JSONDocument, nullable=False),
        sa.Column("transaction_id", sa.Uuid(), nullable=False),
        sa.Index(f"ix_{HISTORY}_changed", *(column.name for column in key), "changed", VERSION),
        sa.Index(f"ix_{HISTORY}_feed", "changed", *(column.name for column in key), VERSION),
        sa.Index(f"ix_{HISTORY}_transaction", "transaction_id"),
    )


def _copy(column: sa.Column[object]) -> sa.Column[object]:
    own = column.primary_key
    return sa.Column(column.name, column.type, primary_key=own, nullable=not own, autoincrement=False)

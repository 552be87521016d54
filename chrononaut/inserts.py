"""`insert()` executed by the session: the database returns the keys of what it has inserted, so that it is recorded."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import CursorResult

from chrononaut.exceptions import UncapturedWriteError
from chrononaut.history import NEVER, Key, Versioning
from chrononaut.statements import Parameters, refuse_joined
from chrononaut.suppression import is_suppressed


def numbered(statement: sa.Insert, parameters: Parameters, versioning: Versioning) -> sa.Insert:
    """An INSERT that leaves the version to be counted.

    :raises UncapturedWriteError: what it inserts or replaces cannot be known
    """
    refuse_joined(versioning, statement)
    table, version = versioning.table, versioning.version.key
    upsert = statement._post_values_clause
    if upsert is not None and upsert.__visit_name__ != "on_conflict_do_nothing":
        raise UncapturedWriteError(
            table.name, "an INSERT that updates", "insert with on_conflict_do_nothing(), then update() what was there"
        )
    if any("replace" in str(prefix).lower() for prefix, _ in statement._prefixes):
        raise UncapturedWriteError(table.name, "INSERT OR REPLACE", "delete() first, then insert()")
    if statement.table != table:
        raise UncapturedWriteError(
            table.name, "this INSERT into another description of the table", f"use {versioning.name}.__table__"
        )
    if version not in {*(parameters[0] if parameters else ()), *_names(statement)}:
        return statement
    if _names_several_rows(statement):
        raise UncapturedWriteError(table.name, f"setting {version}", "leave it out: it is counted")
    # No parameter: what the caller gives would take its place.
    return statement.values({versioning.version: sa.literal_column(str(NEVER + 1))})


def is_numbered(statement: Any, versioning: Versioning) -> bool:
    """Can an INSERT that leaves no history at least go on with the numbering of keys that were used before?"""
    return (
        statement._post_values_clause is None
        and not statement._prefixes
        and statement.table == versioning.table
        and all(len(one.tables) == 1 for one in versioning.hierarchy)
    )


def returning_keys(statement: sa.Insert, parameters: Parameters, versioning: Versioning) -> sa.Insert:
    """An INSERT whose result tells the keys of what it has inserted, by `inserted_keys`."""
    keys = versioning.key_columns
    special = statement._post_values_clause is not None or statement._prefixes or statement._inline
    if special or _names_several_rows(statement):
        return statement.returning(*keys)
    if statement._return_defaults:
        return statement
    if {*keys} != {*versioning.table.primary_key}:
        # What is known of an inserted row is the table's primary key; the mapper has another.
        return statement.returning(*keys)
    if len(parameters) > 1 and all(row.get(column.key) is not None for row in parameters for column in keys):
        return statement
    return statement.return_defaults(*keys)


def _names_several_rows(statement: Any) -> bool:
    return bool(statement._multi_values or statement._select_names)


def _names(statement: Any) -> set[str]:
    """The columns that an INSERT names in its VALUES or as those of its SELECT."""
    rows = [row for group in statement._multi_values for row in group] or [statement._values or ()]
    named = [*(name for row in rows if isinstance(row, Mapping) for name in row), *(statement._select_names or ())]
    return {name if isinstance(name, str) else name.key for name in named}


def inserted_keys(result: CursorResult[Any], versioning: Versioning) -> list[Key]:
    """The keys of what an INSERT has inserted that was made by `returning_keys`.

    :raises UncapturedWriteError: they are not known; nothing may be committed then
    """
    statement: Any = result.context.invoked_statement
    if statement._returning:
        # The ORM may have it return further columns.
        return [tuple(row) for row in result.columns(*versioning.key_columns)]
    names = [column.key for column in versioning.table.primary_key]
    inserted: list[Any] = result.inserted_primary_key_rows
    rows = [dict(zip(names, row, strict=True)) for row in inserted]
    keys = [tuple(row.get(column.key) for column in versioning.key_columns) for row in rows]
    known = [key for key in keys if None not in key]
    if len(known) < len(keys) and not is_suppressed():
        raise UncapturedWriteError(
            versioning.table.name,
            "an INSERT whose keys are not returned",
            "give the keys, or add objects to the session",
        )
    return known

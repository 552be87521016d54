"""What a compiled statement writes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase

from chrononaut.history import Versioning


def writes(compiled: SQLCompiler) -> Iterator[UpdateBase]:
    """The INSERT, UPDATE and DELETE of a statement: the statement itself, and those in its WITH clause."""
    for statement in (compiled.statement, *(cte.element for cte in compiled.ctes or ())):
        written = getattr(statement, "element", statement)
        if isinstance(written, UpdateBase):
            yield written


def target(write: UpdateBase) -> sa.FromClause:
    """The table that is written, also where it is written under an alias."""
    table: Any = write.table
    while not isinstance(table, sa.TableClause):
        table = table.element
    return table


def leaves_version(versioning: Versioning, write: UpdateBase, parameters: Sequence[Mapping[str, Any]]) -> bool:
    """Does an UPDATE of a flush set what is versioned, and not the version?

    Such is the work of a listener that changed an object after ours had seen it, and of ``post_update``.
    """
    if not isinstance(write, sa.Update):
        return False
    expressions = getattr(write, "_values", None) or {}
    written = {*(parameters[0] if parameters else ()), *(column.key for column in expressions)}
    versioned = {column.key for column in (*versioning.tracked.values(), *versioning.hidden.values())}
    return bool(written & versioned) and versioning.version.key not in written

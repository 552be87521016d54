"""What a statement writes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase

from chrononaut.exceptions import UncapturedWriteError
from chrononaut.history import Versioning, full_name

Parameters = Sequence[Mapping[str, Any]]
"""The sets of parameters that a statement is executed with; none where it has none."""


def writes(compiled: SQLCompiler) -> Iterator[tuple[UpdateBase, str | None]]:
    """The INSERT, UPDATE and DELETE of a statement: the statement itself, and those in its WITH clause.

    :return: each of them, and its name in the WITH clause
    """
    # Of a lambda_stmt(), the compiled statement is the lambda, and that of its compilation what it returned.
    own: Any = compiled.statement
    if not isinstance(getattr(own, "element", own), UpdateBase):
        own = getattr(compiled.compile_state, "statement", own)
    for statement, name in ((own, None), *((cte.element, cte.name) for cte in compiled.ctes or ())):
        written = getattr(statement, "element", statement)
        if isinstance(written, UpdateBase):
            yield written, name


def target(write: UpdateBase) -> sa.FromClause:
    """The table that is written, also where it is written under an alias."""
    table: Any = write.table
    while not isinstance(table, sa.TableClause):
        table = table.element
    return table


def written_columns(write: UpdateBase, parameters: Parameters) -> set[str]:
    """The keys of the columns that an UPDATE of a flush sets, among the names of its other parameters."""
    expressions = getattr(write, "_values", None) or {}
    return {*(parameters[0] if parameters else ()), *(column.key for column in expressions)}


def models_of(write: UpdateBase, versioning: Versioning) -> Sequence[Versioning]:
    """The models whose records a statement may write: that of the entity which it names, or else of the table, and
    those that inherit from it.

    :param versioning: that of the table
    """
    entity = write._propagate_attrs.get("plugin_subject")
    named: Versioning = versioning if entity is None else getattr(entity.class_, "__chrononaut__", versioning)
    return named.hierarchy


def refuse_joined(versioning: Versioning, statement: UpdateBase) -> None:
    """:raises UncapturedWriteError: the records of the model have rows in several tables, or may have"""
    if any(len(one.tables) > 1 for one in versioning.hierarchy):
        raise UncapturedWriteError(
            full_name(target(statement)), f"this {statement.__visit_name__.upper()} of a model with joined inheritance"
        )

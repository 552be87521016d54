"""What migrations of versioned tables need: autogenerate drops no history, and a column is renamed in both tables.

With Flask-Migrate ``Migrate(app, db, **autogenerate_options(db.metadata))``; in an ``env.py`` of your own
``context.configure(…, **autogenerate_options(target_metadata))``.
"""

from typing import Any, Literal

import sqlalchemy as sa

from chrononaut.history import full_name, versioning_of_table
from chrononaut.options import Names
from chrononaut.types import Instant, JSONDocument

_SERVICE = "chrononaut_"
"""What the names of the service's own tables begin with, which it migrates itself."""


def autogenerate_options(*metadatas: sa.MetaData) -> dict[str, Any]:
    """What Alembic's ``context.configure`` is told, so that what autogenerate writes loses no history, and runs.

    A column that a model no longer has stays in its history table, and so does the history table of a model that is no
    more. The tables of the service, which are named ``chrononaut_…``, are left to it.

    :param metadatas: those that the models' tables belong to
    """

    def include_object(thing: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:
        if not reflected or compare_to is not None:
            return True
        # It is in the database and in no model: autogenerate would drop it.
        if kind == "table":
            return not ((name or "").startswith(_SERVICE) or _HISTORY.issubset(column.name for column in thing.columns))
        return kind != "column" or not _is_history(thing.table, metadatas)

    return {"include_object": include_object, "render_item": _render_item}


def _render_item(kind: str, thing: Any, context: Any) -> str | Literal[False]:
    """Our own types as those of SQLAlchemy that they are in the database."""
    if kind == "type" and isinstance(thing, Instant):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and thing is JSONDocument:
        context.imports.add("from sqlalchemy.dialects import postgresql")
        return 'sa.JSON().with_variant(postgresql.JSONB(), "postgresql")'
    return False


_HISTORY = {getattr(Names(), own) for own in ("operation", "changed", "change_info", "transaction_id")}


def _is_history(table: sa.Table, metadatas: tuple[sa.MetaData, ...]) -> bool:
    for metadata in metadatas:
        known = metadata.tables.get(full_name(table))
        versioning = None if known is None else versioning_of_table(known)
        if known is not None and versioning is not None and versioning.is_history(known):
            return True
    return False


def rename_column(
    operations: Any, table: str, old: str, new: str, *, history: str | None = None, schema: str | None = None
) -> None:
    """Rename a column in a versioned table and in its history, so that old versions have its values under the new name.

    :param operations: ``op`` of Alembic
    :param history: the name of the history table; by default that of the table with ``_history``
    """
    for each in (history or f"{table}_history", table):
        operations.alter_column(each, old, new_column_name=new, schema=schema)

"""What migrations of versioned tables need: autogenerate drops no history, and columns change in both tables.

With Flask-Migrate ``Migrate(app, db, **autogenerate_options(db.metadata))``; in an ``env.py`` of your own
``context.configure(…, **autogenerate_options(target_metadata))``.
"""

from typing import Any, Literal

import sqlalchemy as sa
import uuid_utils.compat

from chrononaut.history import full_name, versioning_of_table
from chrononaut.options import Names
from chrononaut.types import Instant, JSONDocument, now

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

    return {"include_object": include_object, "render_item": _Renderer(metadatas).render}


class _Renderer:
    """Writes types as a migration needs them: our own as those of SQLAlchemy that they are in the database.

    An enumerated type is made with the live table, and must not be made again with that of history.
    """

    def __init__(self, metadatas: tuple[sa.MetaData, ...]) -> None:
        self._metadatas, self._is_of_history = metadatas, False

    def render(self, kind: str, thing: Any, context: Any) -> str | Literal[False]:
        """What Alembic's ``render_item`` is: the text, or False for what it would write itself."""
        if kind == "column":
            # Its type comes next, by itself.
            self._is_of_history = thing.table is not None and _is_history(thing.table, self._metadatas)
        if kind != "type":
            return False
        if isinstance(thing, Instant):
            return "sa.DateTime(timezone=True)"
        if thing is JSONDocument:
            context.imports.add("from sqlalchemy.dialects import postgresql")
            return 'sa.JSON().with_variant(postgresql.JSONB(), "postgresql")'
        if self._is_of_history and isinstance(thing, sa.Enum) and thing.native_enum and thing.name:
            context.imports.add("from sqlalchemy.dialects import postgresql")
            schema = f", schema={thing.schema!r}" if thing.schema else ""
            named = f"{', '.join(map(repr, thing.enums))}, name={str(thing.name)!r}{schema}"
            return f'sa.Enum({named}).with_variant(postgresql.ENUM({named}, create_type=False), "postgresql")'
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


def archive_column(
    operations: Any,
    table: str,
    column: str,
    *,
    history: str | None = None,
    schema: str | None = None,
    rationale: str | None = None,
) -> None:
    """Keep in history what a column holds, before the migration drops it from a versioned table.

    The state of each record that has a value there becomes a prior version: the drop is a change of it, like any other,
    by nobody. The table is locked against writers until the migration's transaction ends. Our own columns must have
    their usual names.

    :param operations: ``op`` of Alembic
    :param table: the table that has the column and ``version``
    :param history: the name of the history table; by default that of the table with ``_history``
    :param rationale: why, as `chrononaut.rationale` notes it; by default that the column is dropped
    :raises ValueError: the table has no version, as that of a model that inherits by joined tables; or its history does
        not keep the column, as it is hidden or untracked
    """
    connection, names = operations.get_bind(), Names()
    live, kept = (
        sa.Table(name, sa.MetaData(), schema=schema, autoload_with=connection)
        for name in (table, history or f"{table}_history")
    )
    if names.version not in live.columns:
        raise ValueError(f"{table} has no column {names.version}; its records are versioned in another table")
    if column == names.version or column not in kept.columns:
        raise ValueError(f"{kept.name} keeps no values of {column}: there is nothing to archive, and it can be dropped")
    if connection.dialect.name == "postgresql":
        connection.execute(
            sa.text(
                f"LOCK TABLE {connection.dialect.identifier_preparer.format_table(live)} IN SHARE ROW EXCLUSIVE MODE"
            )
        )
        at = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    else:
        at = now()
    has_value = live.c[column].is_not(None)
    info = {"user_id": None, "remote_addr": None, "extra": {"rationale": rationale or f"{column} is dropped"}}
    own = {
        names.operation: sa.literal("update"),
        names.changed: sa.literal(at, Instant),
        names.change_info: sa.literal(info, JSONDocument),
        names.transaction_id: sa.literal(uuid_utils.compat.uuid7(), sa.Uuid),
    }
    state = [each for each in live.columns if each.name in kept.columns and each.name not in own]
    connection.execute(
        kept.insert().from_select(
            [*(each.name for each in state), *own], sa.select(*state, *own.values()).where(has_value)
        )
    )
    connection.execute(live.update().values({names.version: live.c[names.version] + 1}).where(has_value))

"""The migrations of what the service brings: the tables of who may use it, and those of the bundled models.

The tables of an operator's models are migrated by their own migrations. Each part has a table that notes its revision,
so that no part of them is in the way of another: ``alembic_version`` is the operator's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.engine import Connection

from app.auth import tables
from app.registry import Registry
from chrononaut.migrations import autogenerate_options

BUNDLED = "app.models"
"""The module of the bundled models."""

_PARTS = "chrononaut_parts"


@dataclass(frozen=True, slots=True)
class Part:
    """Tables that are migrated together.

    :ivar name: what the functions of a revision end with that migrate it: ``_upgrade_service``
    """

    name: str
    metadata: sa.MetaData
    tables: frozenset[str]

    @property
    def version_table(self) -> str:
        """The table that notes the revision."""
        return f"chrononaut_{self.name}_version"


def init_migrations(app: Flask, db: SQLAlchemy, registry: Registry) -> None:
    """Add the commands of Flask-Migrate, ``flask db upgrade`` above all. The service itself migrates nothing."""
    bundled = [
        table
        for resource in registry.values()
        if resource.model.__module__ == BUNDLED
        for one in resource.versioning.tables
        for table in (one.live.name, one.history.name)
    ]
    parts = [Part("service", tables.metadata, frozenset(tables.metadata.tables))]
    if bundled:
        parts.append(Part("models", db.metadata, frozenset(bundled)))
    app.extensions[_PARTS] = tuple(parts)
    folder = str(Path(__file__).parent)
    Migrate(app, db, directory=folder, **autogenerate_options(db.metadata))


def parts_of(app: Flask) -> Sequence[Part]:
    """The parts that an application's database has."""
    parts: Sequence[Part] = app.extensions[_PARTS]
    return parts


def note_latest(connection: Connection, part: Part) -> None:
    """Note that the tables of a part are as the latest revision makes them."""
    _context(connection, part).stamp(_script(), "head")


def is_behind(connection: Connection, part: Part) -> bool:
    """Is there a revision of a part that the database still lacks?

    A database that a newer release has migrated already is not behind: its revision is none that this one knows.
    """
    script = _script()
    latest = script.get_current_head()
    current = _context(connection, part).get_current_revision()
    return current is None or current in {each.revision for each in script.walk_revisions() if each.revision != latest}


def _script() -> ScriptDirectory:
    return ScriptDirectory(str(Path(__file__).parent))


def _context(connection: Connection, part: Part) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"version_table": part.version_table})

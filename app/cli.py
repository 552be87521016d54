"""Commands of the service."""

import sqlalchemy as sa
from flask import Flask, current_app
from flask_sqlalchemy import SQLAlchemy

from app.auth import commands
from app.auth.tables import metadata
from app.migrations import note_latest, parts_of


def register_commands(app: Flask, db: SQLAlchemy) -> None:
    """Add the commands ``create-tables``, ``tokens`` and ``logins``."""

    @app.cli.command("create-tables")
    def create_tables_command() -> None:
        """Create the tables that are missing in the database."""
        with commands.database_errors():
            create_tables(db)

    commands.register_commands(app, db)


def create_tables(db: SQLAlchemy) -> None:
    """Create the tables that are missing: the models', their histories', and those of who may use the service.

    The revision is noted of those that were all missing, so that migrations can go on from there.
    """
    before = set(sa.inspect(db.engine).get_table_names())
    db.create_all()
    metadata.create_all(db.engine)
    with db.engine.begin() as connection:
        for part in parts_of(current_app):
            if not part.tables & before:
                note_latest(connection, part)

"""Commands of the service."""

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from app.auth import commands
from app.auth.tables import metadata


def register_commands(app: Flask, db: SQLAlchemy) -> None:
    """Add the commands ``create-tables``, ``tokens`` and ``logins``."""

    @app.cli.command("create-tables")
    def create_tables_command() -> None:
        """Create the tables that are missing in the database."""
        create_tables(db)

    commands.register_commands(app, db)


def create_tables(db: SQLAlchemy) -> None:
    """Create the tables that are missing: the models', their histories', and those of who may use the service."""
    db.create_all()
    metadata.create_all(db.engine)

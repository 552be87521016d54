"""Commands of the service."""

from datetime import timedelta

import click
from flask import Flask
from flask.cli import AppGroup
from flask_sqlalchemy import SQLAlchemy

from app.auth import tokens as access_tokens
from app.auth.grants import GrantError, Grants


def register_commands(app: Flask, db: SQLAlchemy) -> None:
    """Add the commands ``create-tables`` and ``tokens``."""
    tokens = AppGroup("tokens", help="Tokens that let programs use the service.")

    @app.cli.command("create-tables")
    def create_tables_command() -> None:
        """Create the tables that are missing in the database."""
        create_tables(db)

    @tokens.command("create")
    @click.argument("user")
    @click.option("--scope", "scopes", multiple=True, default=["read"], show_default=True)
    @click.option("--days", type=click.IntRange(1), help="After this many days it is refused; never by default.")
    def create(user: str, scopes: tuple[str, ...], days: int | None) -> None:
        """Make a token whose writes are recorded as USER's, and print it. It cannot be read again."""
        try:
            grants = Grants.parse(scopes)
        except GrantError as error:
            raise click.BadParameter(str(error)) from error
        click.echo(access_tokens.create_token(db, user, grants, None if days is None else timedelta(days=days)))

    app.cli.add_command(tokens)


def create_tables(db: SQLAlchemy) -> None:
    """Create the tables that are missing: the models', their histories', and the tokens'."""
    db.create_all()
    access_tokens.metadata.create_all(db.engine)

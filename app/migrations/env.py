"""Alembic runs this for each of its commands."""

import sys
from typing import Any

import click
import sqlalchemy as sa
from alembic import context
from flask import current_app
from sqlalchemy.engine import Connection

from app.database_errors import reason_of
from app.migrations import Part, parts_of

_LOCK = 0x6368726F6E6F  # one migration at a time; the number means nothing elsewhere
_LOCK_TIMEOUT = "500ms"
"""How long a statement waits for a lock: whoever asks for the same table later waits behind it. It is less than
PostgreSQL's ``deadlock_timeout``, so that of a migration and a writer who wait for each other the migration gives way.
"""


def run() -> None:
    """Run the migrations of each part, all in one transaction, or print their statements."""
    db = current_app.extensions["migrate"].db
    parts = parts_of(current_app)
    if context.is_offline_mode():
        for part in parts:
            _configure(part, url=db.engine.url, literal_binds=True, output_buffer=sys.stdout)
            with context.begin_transaction():
                context.run_migrations(part=part.name)
        return
    try:
        with db.engine.connect() as connection:
            _prepare(connection)
            with connection.begin():
                _lock(connection)
                for part in parts:
                    _configure(part, connection=connection, **_options())
                    with context.begin_transaction():
                        context.run_migrations(part=part.name)
    except sa.exc.DBAPIError as error:
        raise click.ClickException(f"nothing was migrated: {reason_of(error)}") from error


def _prepare(connection: Connection) -> None:
    """Let SQLite copy tables that others refer to, as it must to alter them. The connection is not used again."""
    if connection.dialect.name == "sqlite":
        driver: Any = connection.connection.driver_connection
        driver.execute("PRAGMA foreign_keys = OFF")
        connection.detach()


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        # Another migration is waited for however long it takes, and so is the work itself.
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")


def _options() -> dict[str, Any]:
    options: dict[str, Any] = current_app.extensions["migrate"].configure_args
    return options


def _configure(part: Part, **options: Any) -> None:
    kept = _options()["include_object"]

    def is_of_part(thing: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:
        is_other = kind == "table" and name not in part.tables
        return not is_other and bool(kept(thing, name, kind, reflected, compare_to))

    def tell(*, step: Any, **_: Any) -> None:
        what = "goes to" if step.is_upgrade else "leaves"
        click.echo(f"{part.name} {what} {step.up_revision_id}: {step.up_revision.doc}", err=True)

    context.configure(
        **options
        | {
            "target_metadata": part.metadata,
            "compare_server_default": True,
            "version_table": part.version_table,
            "include_object": is_of_part,
            "on_version_apply": tell,
            "upgrade_token": f"{part.name}_upgrades",
            "downgrade_token": f"{part.name}_downgrades",
        }
    )


run()

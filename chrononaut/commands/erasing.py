"""``flask history erase``: values of one record leave its history."""

import click
from flask import current_app
from flask.cli import with_appcontext
from flask_sqlalchemy import SQLAlchemy

from chrononaut.change_info import rationale
from chrononaut.commands.common import NotDoneError, chosen_models, count, database_errors
from chrononaut.doctor import undeclared
from chrononaut.erasing import Erasure
from chrononaut.exceptions import ChrononautException
from chrononaut.history import Versioning
from chrononaut.key_text import KeyTextError, parse_key
from chrononaut.timeline import Timeline


@click.command("erase")
@click.argument("model")
@click.argument("key")
@click.option("--column", "columns", metavar="NAME", multiple=True, help="A column to erase; all by default.")
@click.option("--keep-reasons", is_flag=True, help="Leave the reasons of the changes.")
@click.option(
    "--rationale",
    "why",
    metavar="WHY",
    required=True,
    help="Why it is erased. It stays, so do not repeat the values in it.",
)
@click.option("--user", "user_id", metavar="NAME", help="Who erases it, as change info names users.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_appcontext
def erase(
    model: str,
    key: str,
    columns: tuple[str, ...],
    keep_reasons: bool,
    why: str,
    user_id: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Erase values of one record from all its history.

    KEY is as in addresses of the service: 42, or python,3.13 where it has two parts; in a part ~ is ~0, / is ~1 and ,
    is ~2. The reasons of the record's changes go too. That something was erased stays, with when and why. The live
    record is left alone. Exit status: 0 it is done, 1 it was not wanted, 2 it could not be done.
    """
    db: SQLAlchemy = current_app.extensions["sqlalchemy"]
    (versioning,) = chosen_models(db, [model])
    try:
        parts = parse_key(versioning.key_columns, key)
    except KeyTextError as error:
        raise NotDoneError(f"{key!r} is no key of {model}: {error}") from error

    def attempt(is_meant: bool) -> tuple[Erasure, list[str]]:
        with database_errors(f"{model} {key}", "erased"):
            try:
                with rationale(why):
                    timeline = Timeline(db.session(), versioning.model, parts)
                    erased = timeline.erase(columns or None, reasons=not keep_reasons, user_id=user_id)
                    held = timeline.held(erased.columns)
                    if is_meant:
                        db.session.commit()
                    return erased, held
            except ChrononautException as error:
                raise NotDoneError(str(error)) from error
            finally:
                db.session.rollback()

    # What would go is found out by doing it, and undone before anybody is asked.
    erased, held = attempt(is_meant=False)
    _tell(db, versioning, key, erased, held)
    if dry_run:
        return
    if not yes:
        click.confirm("Erase this? It cannot be undone", abort=True, err=True)
    erased, _ = attempt(is_meant=True)
    click.echo(f"{model} {key}: erased from {count(erased.versions, 'version')}, {count(erased.changes, 'change')}")


def _tell(db: SQLAlchemy, versioning: Versioning, key: str, erased: Erasure, held: list[str]) -> None:
    """Say what goes, and what stays that a reader of it might take for gone."""
    reasons = f", and the reasons of {count(erased.changes, 'change')}" if erased.reasons else ""
    click.echo(f"{versioning.name} {key}: {', '.join(erased.columns)} of {count(erased.versions, 'version')}{reasons}")
    if held:
        click.echo(
            f"the live record still has {', '.join(held)}: change it too, or its next change archives them again",
            err=True,
        )
    with db.session().get_bind(versioning.mapper).engine.connect() as connection:
        for column in undeclared(connection, versioning.root.hierarchy):
            click.echo(
                f"{column} is of no model and keeps its values; name it in __chrononaut_dropped__ to erase it", err=True
            )

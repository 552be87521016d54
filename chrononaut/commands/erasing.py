"""``flask history erase``: values of one record leave its history."""

from collections.abc import Mapping

import click
from flask import current_app
from flask.cli import with_appcontext
from flask_sqlalchemy import SQLAlchemy

from chrononaut.change_info import extra_change_info
from chrononaut.commands.common import (
    NotDoneError,
    chosen_models,
    count,
    database_errors,
    read_extra,
    read_reason,
)
from chrononaut.erasing import Erasure, holding
from chrononaut.exceptions import ChrononautException, RequiredChangeInfoError
from chrononaut.history import Versioning
from chrononaut.key_text import KeyTextError, parse_key
from chrononaut.policies import SETTING
from chrononaut.timeline import Timeline


@click.command("erase")
@click.argument("model")
@click.argument("key")
@click.option("--column", "columns", metavar="NAME", multiple=True, help="A column to erase; all by default.")
@click.option("--keep-reasons", is_flag=True, help="Leave the reasons of the changes.")
@click.option(
    "--rationale",
    metavar="WHY",
    required=True,
    callback=read_reason,
    help="Why it is erased. It stays, so do not repeat the values in it.",
)
@click.option(
    "--extra",
    metavar="KEY=VALUE",
    multiple=True,
    callback=read_extra,
    help="A further reason, as the model may require.",
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
    rationale: str,
    extra: Mapping[str, str],
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

    try:
        held_by = holding(versioning, current_app.config.get(SETTING))
    except ValueError as error:
        raise NotDoneError(f"{SETTING} {error}") from None

    def attempt(is_meant: bool) -> tuple[Erasure, list[str]]:
        with database_errors(f"{model} {key}", "erased"):
            try:
                with extra_change_info(**{**extra, "rationale": rationale}):
                    timeline = Timeline(db.session(), versioning.model, parts)
                    erased = timeline.erase(columns or None, reasons=not keep_reasons, user_id=user_id, held_by=held_by)
                    held = timeline.held(erased.columns)
                    if is_meant:
                        db.session.commit()
                    return erased, held
            except RequiredChangeInfoError as error:
                wrong = {**error.missing, **error.unfit}.items()
                needed = ", ".join(f"--extra {name}=…, which must match {pattern}" for name, pattern in wrong)
                raise NotDoneError(f"{model} requires further reasons: {needed}") from error
            except ChrononautException as error:
                raise NotDoneError(str(error)) from error
            finally:
                db.session.rollback()

    # Unless it is wanted anyway, what would go is found out by doing it, and undone before anybody is asked.
    is_wanted = yes and not dry_run
    erased, held = attempt(is_meant=is_wanted)
    _tell(versioning, key, erased, held)
    if dry_run:
        return
    if not is_wanted:
        click.confirm("Erase this? It cannot be undone", abort=True, err=True)
        erased, _ = attempt(is_meant=True)
    click.echo(f"{model} {key}: erased; {count(erased.rows, 'history row')} {'says' if erased.rows == 1 else 'say'} so")


def _tell(versioning: Versioning, key: str, erased: Erasure, held: list[str]) -> None:
    """Say what goes, and what stays that a reader of it might take for gone."""
    what = [f"{', '.join(erased.columns)} of {count(erased.versions, 'version')}"] if erased.columns else []
    if erased.reasons:
        what.append(f"the reasons of {count(erased.changes, 'change')}")
    if erased.users:
        what.append(f"the user of {count(erased.users, 'change')}, named by one of the values")
    click.echo(f"{versioning.name} {key}: {'; '.join(what)}")
    if held:
        click.echo(
            f"the live record still has {', '.join(held)}: change it too, or its next change archives them again",
            err=True,
        )

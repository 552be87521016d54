"""``flask history verify`` and ``flask history doctor``: do tables and rows agree with what is said of them?"""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import click
import sqlalchemy as sa
from flask import current_app
from flask.cli import with_appcontext
from flask_sqlalchemy import SQLAlchemy

from chrononaut.commands.common import chosen_models, count, database_errors, progress
from chrononaut.doctor import examine, undeclared
from chrononaut.history import Versioning
from chrononaut.transactions import snapshot
from chrononaut.verify import Checked, Finding, check, total_rows


@dataclass(slots=True)
class _Tally:
    """What was checked of one model or of all.

    :ivar shown: the first differences
    """

    records: int = 0
    history_rows: int = 0
    differences: int = 0
    shown: list[Finding] = field(default_factory=list)

    def add(self, part: "Checked | _Tally", differences: int) -> None:
        self.records += part.records
        self.history_rows += part.history_rows
        self.differences += differences

    def __str__(self) -> str:
        counted = f"{count(self.records, 'record')}, {count(self.history_rows, 'history row')}"
        return f"{counted}: {count(self.differences, 'difference') if self.differences else 'no differences'}"


@click.command("verify")
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--limit",
    metavar="DIFFERENCES",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="How many differences of a model are shown at the most; the rest is counted.",
)
@with_appcontext
def verify(names: tuple[str, ...], limit: int) -> None:
    """Check that live rows and history agree.

    Checks all versioned models, or those that are named. Exit status: 0 they agree, 1 there are differences, 2 it could
    not be checked. The application may go on meanwhile.
    """
    db: SQLAlchemy = current_app.extensions["sqlalchemy"]
    all_models = _Tally()
    versionings = chosen_models(db, names)
    for versioning in versionings:
        with database_errors(versioning.name, "checked"):
            of_model = _check(db, versioning, limit)
        for finding in of_model.shown:
            click.echo(finding)
        if more := of_model.differences - len(of_model.shown):
            click.echo(f"{versioning.name}: {count(more, 'more difference')}, not shown")
        all_models.add(of_model, of_model.differences)
    click.echo(f"{count(len(versionings), 'model')}, {all_models}")
    if all_models.differences:
        raise click.exceptions.Exit(1)


@click.command("doctor")
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@with_appcontext
def doctor(names: tuple[str, ...]) -> None:
    """Check that tables are as models and histories need them.

    Prints the SQL that mends what is wrong, with what is wrong as comments: read it before you execute it. Checks all
    versioned models, or those that are named. Exit status: 0 nothing is wrong, 1 something is, 2 it could not be
    checked. Nothing is changed.
    """
    db: SQLAlchemy = current_app.extensions["sqlalchemy"]
    versionings = chosen_models(db, names)
    found = 0
    for engine, models in _by_engine(db, versionings).items():
        with database_errors(", ".join(one.name for one in models), "checked"), engine.connect() as connection:
            findings, columns = examine(connection, models), undeclared(connection, models)
        if engine is not db.engine and findings:
            click.echo(f"-- in the database {engine.url.database}:")
        for finding in findings:
            click.echo(finding)
        for column in columns:
            click.echo(f"{column} is of no model; __chrononaut_dropped__ makes it readable in old versions", err=True)
        found += len(findings)
    click.echo(f"{count(len(versionings), 'model')}: {count(found, 'problem') if found else 'no problems'}", err=True)
    if found:
        raise click.exceptions.Exit(1)


def _by_engine(db: SQLAlchemy, versionings: Sequence[Versioning]) -> Mapping[sa.Engine, Sequence[Versioning]]:
    session, engines = db.session(), defaultdict[sa.Engine, list[Versioning]](list)
    for versioning in versionings:
        engines[session.get_bind(versioning.mapper).engine].append(versioning)
    return engines


def _check(db: SQLAlchemy, versioning: Versioning, limit: int) -> _Tally:
    """Check one model, and show how far it is."""
    tally = _Tally()
    with (
        snapshot(db.session().get_bind(versioning.mapper).engine) as connection,
        progress(versioning.name, lambda: total_rows(connection, versioning.model)) as advance,
    ):
        for part in check(connection, versioning.model):
            tally.add(part, len(part.findings))
            tally.shown.extend(part.findings[: limit - len(tally.shown)])
            advance(part.rows)
    if not sys.stderr.isatty():
        click.echo(f"{versioning.name}: {tally}", err=True)
    return tally

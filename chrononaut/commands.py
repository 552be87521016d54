"""The commands that every application with versioned models has: ``flask history verify`` and ``doctor``."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import click
import sqlalchemy as sa
from flask import Flask, current_app
from flask.cli import AppGroup, with_appcontext
from flask_sqlalchemy import SQLAlchemy

from chrononaut.doctor import examine, undeclared
from chrononaut.history import Versioning, versioning_of_table
from chrononaut.verify import Checked, Finding, check, snapshot, total_rows


def register_commands(app: Flask) -> None:
    """Add the group ``history``. What the application has under its names already stays as it is."""
    group: Any = app.cli.commands.get("history")
    if group is None:
        group = AppGroup("history", help="The history of versioned models.")
        app.cli.add_command(group)
    for command in (verify, doctor):
        if isinstance(group, click.Group) and command.name not in group.commands:
            group.add_command(command)


class _NotCheckedError(click.ClickException):
    exit_code = 2


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
        counted = f"{_count(self.records, 'record')}, {_count(self.history_rows, 'history row')}"
        return f"{counted}: {_count(self.differences, 'difference') if self.differences else 'no differences'}"


@click.command("verify")
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--limit",
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
    versionings = _chosen(_versionings(db.metadatas.values()), names)
    for versioning in versionings:
        with _database_errors(versioning.name):
            of_model = _check(db, versioning, limit)
        for finding in of_model.shown:
            click.echo(finding)
        if more := of_model.differences - len(of_model.shown):
            click.echo(f"{versioning.name}: {_count(more, 'more difference')}, not shown")
        all_models.add(of_model, of_model.differences)
    click.echo(f"{_count(len(versionings), 'model')}, {all_models}")
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
    versionings = _chosen(_versionings(db.metadatas.values()), names)
    found = 0
    for engine, models in _by_engine(db, versionings).items():
        with _database_errors(", ".join(one.name for one in models)), engine.connect() as connection:
            findings, columns = examine(connection, models), undeclared(connection, models)
        if engine is not db.engine and findings:
            click.echo(f"-- in the database {engine.url.database}:")
        for finding in findings:
            click.echo(finding)
        for column in columns:
            click.echo(f"{column} is of no model; __chrononaut_dropped__ makes it readable in old versions", err=True)
        found += len(findings)
    click.echo(f"{_count(len(versionings), 'model')}: {_count(found, 'problem') if found else 'no problems'}", err=True)
    if found:
        raise click.exceptions.Exit(1)


def _by_engine(db: SQLAlchemy, versionings: Sequence[Versioning]) -> Mapping[sa.Engine, Sequence[Versioning]]:
    session, engines = db.session(), defaultdict[sa.Engine, list[Versioning]](list)
    for versioning in versionings:
        engines[session.get_bind(versioning.mapper).engine].append(versioning)
    return engines


def _check(db: SQLAlchemy, versioning: Versioning, limit: int) -> _Tally:
    """Check one model, and show on the terminal how far it is; elsewhere say when it is done."""
    tally = _Tally()
    with snapshot(db.session().get_bind(versioning.mapper).engine) as connection:
        is_terminal = sys.stderr.isatty()
        bar: Any = nullcontext()
        if is_terminal:
            bar = click.progressbar(
                length=total_rows(connection, versioning.model), label=versioning.name, file=sys.stderr
            )
        with bar as shown:
            for part in check(connection, versioning.model):
                tally.add(part, len(part.findings))
                tally.shown.extend(part.findings[: limit - len(tally.shown)])
                if is_terminal:
                    shown.update(part.rows)
    if not is_terminal:
        click.echo(f"{versioning.name}: {tally}", err=True)
    return tally


def _versionings(metadatas: Iterable[sa.MetaData]) -> list[Versioning]:
    """What is known of the models whose tables belong to one of these, by the model's name."""
    found = {
        versioning: versioning.name
        for metadata in metadatas
        for table in metadata.tables.values()
        if (versioning := versioning_of_table(table)) is not None
    }
    return sorted(found, key=lambda versioning: versioning.name)


def _chosen(versionings: Sequence[Versioning], names: Sequence[str]) -> Sequence[Versioning]:
    if not versionings:
        raise click.UsageError("there are no versioned models; is the module that defines them imported?")
    known = {versioning.name for versioning in versionings}
    if unknown := [name for name in names if name not in known]:
        raise click.UsageError(f"no such model: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return [versioning for versioning in versionings if not names or versioning.name in names]


@contextmanager
def _database_errors(name: str) -> Iterator[None]:
    """One line for what keeps the database from being read."""
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise _NotCheckedError(f"{name} could not be checked: {reason}") from error


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

"""``flask history purge``: take out of history what the policies do not keep."""

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from types import FrameType
from typing import Any

import click
from flask import current_app
from flask.cli import with_appcontext
from flask_sqlalchemy import SQLAlchemy

from chrononaut.commands.common import (
    NotDoneError,
    chosen_models,
    count,
    database_errors,
    progress,
    read_extra,
    read_reason,
    versioned_models,
)
from chrononaut.exceptions import ChangeInfoError, OptionError
from chrononaut.history import Key, Versioning
from chrononaut.key_text import key_text
from chrononaut.policies import SETTING, policies
from chrononaut.purging import BATCH, SMALLEST_BATCH, Doomed, Purge, total_rows
from chrononaut.retention import Retention, read_setting
from chrononaut.transactions import snapshot
from chrononaut.types import now


@dataclass(slots=True)
class _Tally:
    """What went of a model, or would go.

    :ivar shown: the first records, with all that goes of each in one
    """

    limit: int
    versions: int = 0
    records: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None
    shown: list[Doomed] = field(default_factory=list)
    _last: Key | None = None

    def add(self, doomed: Sequence[Doomed]) -> None:
        for one in doomed:
            self.versions += one.versions
            self.oldest = min(self.oldest or one.oldest, one.oldest)
            self.newest = max(self.newest or one.newest, one.newest)
            if one.key == self._last:
                if self.records <= self.limit and self.shown:
                    self.shown[-1] = _together(self.shown[-1], one)
                continue
            self._last = one.key
            self.records += 1
            if self.records <= self.limit:
                self.shown.append(one)

    def __str__(self) -> str:
        told = f"{count(self.versions, 'version')} of {count(self.records, 'record')}"
        if self.oldest is None or self.newest is None:
            return told
        return f"{told}, which ended {self.oldest:%Y-%m-%dT%H:%M:%SZ} to {self.newest:%Y-%m-%dT%H:%M:%SZ}"


def _together(one: Doomed, more: Doomed) -> Doomed:
    return one._replace(
        versions=one.versions + more.versions,
        last=more.last,
        oldest=min(one.oldest, more.oldest),
        newest=max(one.newest, more.newest),
    )


@click.command("purge")
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option(
    "--batch",
    metavar="ROWS",
    type=click.IntRange(SMALLEST_BATCH),
    default=BATCH,
    show_default=True,
    help="History rows in one transaction.",
)
@click.option("--rationale", metavar="WHY", callback=read_reason, help="Why; it stays in history where versions went.")
@click.option("--extra", metavar="KEY=VALUE", multiple=True, callback=read_extra, help="A further reason, likewise.")
@click.option("--user", "user_id", metavar="NAME", help="Who purges, as change info names users.")
@click.option(
    "--limit",
    metavar="RECORDS",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="Records of each model that a dry run shows.",
)
@with_appcontext
def purge(
    names: tuple[str, ...],
    dry_run: bool,
    batch: int,
    rationale: str | None,
    extra: Mapping[str, str],
    user_id: str | None,
    limit: int,
) -> None:
    """Take out of history what the policies do not keep.

    Of all models that have one, or of those that are named; CHRONONAUT_RETENTION goes before __chrononaut_retention__.
    What was ended goes on when it is done again. Exit status: 0 all has gone that was to go, 1 it was ended before, by
    Ctrl-C or SIGTERM, 2 it could not be done, or not of all models. The application may go on meanwhile.
    """
    db: SQLAlchemy = current_app.extensions["sqlalchemy"]
    at, failed = now(), False
    reasons = dict(extra) if rationale is None else {**extra, "rationale": rationale}
    chosen = _chosen_policies(db, names)
    with _ended_between_parts() as ended:
        for versioning, retention in chosen.items():
            of_model = _Tally(limit)
            try:
                plan = Purge(versioning.model, retention, at, user_id, reasons, batch)
            except ChangeInfoError as error:
                raise NotDoneError(str(error)) from None
            try:
                with database_errors(versioning.name, "purged"):
                    _purge(db, plan, versioning, of_model, dry_run, ended)
            except NotDoneError as error:
                # What was committed is told all the same, and the models that follow are purged.
                click.echo(f"Error: {error.message}; the same command goes on with what is left", err=True)
                failed = True
            click.echo(f"{versioning.name}: {of_model} {'would go' if dry_run else 'purged'}")
            for one in of_model.shown if dry_run else ():
                click.echo(f"  {_told(one)}")
            if dry_run and (more := of_model.records - len(of_model.shown)) and limit:
                click.echo(f"  and {count(more, 'more record')}")
            if ended:
                click.echo("ended before all was done; the same command goes on", err=True)
                raise click.exceptions.Exit(1)
    if failed:
        raise click.exceptions.Exit(NotDoneError.exit_code)


def _chosen_policies(db: SQLAlchemy, names: Sequence[str]) -> Mapping[Versioning, Retention]:
    """The models to purge, each with what is kept of it.

    :raises NotDoneError: no policy is declared, or a setting is wrong
    """
    chosen = chosen_models(db, names)
    try:
        found = policies(versioned_models(db), read_setting(current_app.config.get(SETTING) or {}))
    except OptionError as error:
        raise NotDoneError(str(error)) from None
    except ValueError as error:
        raise NotDoneError(f"{SETTING} {error}") from None
    for one in chosen:
        if names and one.root is not one:
            raise NotDoneError(f"{one.name} is purged with {one.root.name}, which it inherits from")
    if unkept := [name for name in names if name not in {one.name for one in found}]:
        raise NotDoneError(f"{', '.join(unkept)} has no policy; declare __chrononaut_retention__, or set {SETTING}")
    if not found:
        raise NotDoneError(f"no model has a policy; declare __chrononaut_retention__, or set {SETTING}")
    return {one: found[one] for one in chosen if one in found}


def _purge(
    db: SQLAlchemy, plan: Purge, versioning: Versioning, tally: _Tally, dry_run: bool, ended: Sequence[int]
) -> None:
    """Purge one model, and show how far it is."""
    engine = db.session().get_bind(versioning.mapper).engine

    def total() -> int:
        with snapshot(engine) as connection:
            return total_rows(connection, versioning.model)

    with progress(versioning.name, total) as advance:
        for part in plan.dry_run(engine) if dry_run else plan.run(engine):
            tally.add(part.doomed)
            advance(part.rows)
            if ended:
                return


def _told(doomed: Doomed) -> str:
    between = f"{doomed.first}" if doomed.first == doomed.last else f"{doomed.first} to {doomed.last}"
    return f"{key_text(doomed.key)}: {count(doomed.versions, 'version')}, {between}"


@contextmanager
def _ended_between_parts() -> Iterator[Sequence[int]]:
    """Take SIGINT and SIGTERM as the wish to end behind the part that is being purged.

    :return: the signals that have come; whoever is asked twice ends at once
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> Any:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt
        click.echo("ending behind this part", err=True)

    if threading.current_thread() is not threading.main_thread():
        # No signal comes to another.
        yield came
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""What the commands of ``flask history`` have in common: the models named, progress, one line for what went wrong."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import click
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy

from chrononaut.change_info import says_something
from chrononaut.history import Versioning, versioning_of_table

_SECONDS_BETWEEN_LINES = 10


class NotDoneError(click.ClickException):
    """What was asked for could not be done."""

    exit_code = 2


def versioned_models(db: SQLAlchemy) -> list[Versioning]:
    """What is known of the models whose tables belong to a `SQLAlchemy`, by the model's name."""
    found = {
        versioning: versioning.name
        for metadata in db.metadatas.values()
        for table in metadata.tables.values()
        if (versioning := versioning_of_table(table)) is not None
    }
    return sorted(found, key=lambda versioning: versioning.name)


def chosen_models(db: SQLAlchemy, names: Sequence[str]) -> Sequence[Versioning]:
    """The models that are named, or all.

    :raises click.UsageError: there are none, or none of a name
    """
    versionings = versioned_models(db)
    if not versionings:
        raise click.UsageError("there are no versioned models; is the module that defines them imported?")
    known = {versioning.name for versioning in versionings}
    if unknown := [name for name in names if name not in known]:
        raise click.UsageError(f"no such model: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return [versioning for versioning in versionings if not names or versioning.name in names]


@contextmanager
def database_errors(name: str, done: str) -> Iterator[None]:
    """One line for what the database refuses.

    :param done: what could not be done to what is named
    :raises NotDoneError: the database refused
    """
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise NotDoneError(f"{name} could not be {done}: {reason}") from error


@contextmanager
def progress(label: str, total: Callable[[], int]) -> Iterator[Callable[[int], None]]:
    """Show on standard error how far long work is: a bar on a terminal, elsewhere a line now and then.

    :param total: how many steps there are; asked once, and only when it is shown
    :return: what is told of steps that are done
    """
    if sys.stderr.isatty():
        with click.progressbar(length=total(), label=label, file=sys.stderr) as bar:
            yield bar.update
        return
    done, length, told = 0, -1, time.monotonic()

    def advance(steps: int) -> None:
        nonlocal done, length, told
        done += steps
        if time.monotonic() - told >= _SECONDS_BETWEEN_LINES:
            length = total() if length < 0 else length
            click.echo(f"{label}: {done:,} of {length:,}", err=True)
            told = time.monotonic()

    yield advance


def read_reason(context: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
    """The callback of an option that takes a reason.

    :raises click.BadParameter: it says nothing
    """
    if given is not None and not says_something(given):
        raise click.BadParameter("is blank; say why")
    return given


def read_extra(context: click.Context, parameter: click.Parameter, given: Sequence[str]) -> Mapping[str, str]:
    """The callback of an option that takes reasons as ``KEY=VALUE``, once or more.

    :raises click.BadParameter: one of them has no key, or says nothing
    """
    extra = dict[str, str]()
    for text in given:
        name, _, value = text.partition("=")
        if not name or not says_something(value):
            raise click.BadParameter(f"{text!r} is no KEY=VALUE")
        extra[name] = value
    return extra


def count(number: int, noun: str) -> str:
    """``1 record``, ``1,000 records``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

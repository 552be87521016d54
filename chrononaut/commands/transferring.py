"""``flask history export`` and ``flask history import``: a model's history to a file, and from one."""

import gzip
import os
import signal
import sys
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast

import click
import sqlalchemy as sa
from flask import current_app
from flask.cli import with_appcontext
from flask_sqlalchemy import SQLAlchemy

from chrononaut.commands.common import NotDoneError, chosen_models, count, database_errors, progress
from chrononaut.exceptions import ChrononautException, HistoryFileError
from chrononaut.history import Versioning
from chrononaut.key_text import KeyTextError, key_parts
from chrononaut.transfer.changes import ChangeFile, import_change_file
from chrononaut.transfer.exporting import export_history, total_lines
from chrononaut.transfer.files import Format, Part, is_history
from chrononaut.transfer.importing import BATCH, Imported, import_history
from chrononaut.transfer.layout import layout_of
from chrononaut.transfer.values import from_text
from chrononaut.types import utc

_FORMATS = click.Choice(["ndjson", "csv"])


class _AtParam(click.ParamType[datetime]):
    """An instant."""

    name = "at"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return utc(datetime.fromisoformat(value))
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no instant; write it as 2026-03-01T09:00:00Z", param, ctx)


class _PairParam(click.ParamType[tuple[str, str]]):
    """``NAME=TEXT``."""

    name = "pair"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, sign, text = value.partition("=")
        if not (name and sign):
            self.fail(f"{value!r} has no NAME= at its beginning", param, ctx)
        return name, text


@click.command("export")
@click.argument("name", metavar="MODEL")
@click.option("--key", metavar="KEY", help="Of one record.")
@click.option("--since", metavar="AT", type=_AtParam(), help="Changes after this instant, and what they led to.")
@click.option("--until", metavar="AT", type=_AtParam(), help="Changes up to this instant, and no live rows.")
@click.option(
    "--format", "format_", metavar="[ndjson|csv]", type=_FORMATS, help="By default that of the file's name, or ndjson."
)
@click.option(
    "-o", "--output", metavar="FILE", help="Where to; compressed if it ends in .gz. By default standard output."
)
@with_appcontext
def export(
    name: str,
    key: str | None,
    since: datetime | None,
    until: datetime | None,
    format_: Format | None,
    output: str | None,
) -> None:
    """Write the history of a model to a file, with its live rows.

    All that history keeps is in it; hidden and untracked columns are not. A KEY is as in addresses of the service: 42,
    or python,3.13 where it has two parts; in a part ~ is ~0, / is ~1 and , is ~2. A FILE comes to be when it is
    complete. The application may go on meanwhile; only on SQLite without WAL its commits wait. Exit status: 0 it is
    written, 2 it could not be.
    """
    db: SQLAlchemy = current_app.extensions["sqlalchemy"]
    (versioning,) = chosen_models(db, [name])
    engine = db.session().get_bind(versioning.mapper).engine
    format_ = format_ or _format_of(output)
    with _refusals(name, "exported"):
        part = Part(None if key is None else _key(versioning, engine, key), since, until)
        lines = export_history(engine, versioning.model, key=part.key, since=since, until=until, format=format_)
        with _written(output) as file, progress(name, lambda: total_lines(engine, versioning.model, part)) as advance:
            written = -1  # but for the last line
            for line in lines:
                file.write(line.encode())
                written += 1
                advance(1)
    click.echo(f"{name}: {count(written - (2 if format_ == 'csv' else 1), 'row')} written", err=True)


def _key(versioning: Versioning, engine: sa.Engine, text: str) -> tuple[Any, ...]:
    """A key as a file has it.

    :raises NotDoneError: it is none of the model's
    """
    try:
        parts = key_parts(versioning.key_columns, text)
    except KeyTextError as error:
        raise NotDoneError(f"{text!r} is no key of {versioning.name}: {error}") from error
    kinds = (one.codec.kind for one in layout_of(versioning.model, engine.dialect).key)
    return tuple(map(from_text, parts, kinds))


@click.command("import")
@click.argument("name", metavar="MODEL")
@click.argument("path", metavar="FILE")
@click.option(
    "--format", "format_", metavar="[ndjson|csv]", type=_FORMATS, help="By default that of the file's name, or ndjson."
)
@click.option(
    "--column",
    "columns",
    metavar="NAME=SOURCE",
    type=_PairParam(),
    multiple=True,
    help="Of changes from another system: what a field is called there.",
)
@click.option(
    "--set",
    "values",
    metavar="NAME=VALUE",
    type=_PairParam(),
    multiple=True,
    help=r"Of an export: what live rows get in a hidden or untracked column; \N is NULL.",
)
@click.option(
    "--batch",
    metavar="ROWS",
    type=click.IntRange(1, 100_000),
    default=BATCH,
    show_default=True,
    help="Rows that go together.",
)
@with_appcontext
def import_(
    name: str,
    path: str,
    format_: Format | None,
    columns: tuple[tuple[str, str], ...],
    values: tuple[tuple[str, str], ...],
    batch: int,
) -> None:
    """Read the history of a model from a file.

    FILE is one that export has written, or has changes that another system made, one a line: what their fields are
    called there is told by --column. It may be compressed (.gz); - is standard input. Each batch is written as a whole
    or not at all. What is there already is skipped: an import that was interrupted is run again. Exit status: 0 all of
    it is there, 1 the file is wrong, and what is wrong is told with its lines, 2 it could not be read or written.
    """
    db: SQLAlchemy = current_app.extensions["sqlalchemy"]
    (versioning,) = chosen_models(db, [name])
    session = db.session()
    engine = session.get_bind(versioning.mapper).engine
    format_ = format_ or _format_of(path)
    with (
        _refusals(name, "imported"),
        progress(name, lambda: _lines_of(path)) as advance,
        _opened(path) as file,
    ):
        first = next(iter(file), b"")
        lines = _chained(first, file)
        if is_history(first):
            if columns:
                raise click.UsageError("--column is for changes from another system, and this is an export")
            imported = import_history(
                engine, versioning.model, lines, format=format_, batch=batch, values=dict(values), advance=advance
            )
        else:
            if values:
                raise click.UsageError("--set is for exports; changes from another system have values themselves")
            changes = ChangeFile(versioning.model, dict(columns), format_)
            imported = import_change_file(session, changes, lines, batch=batch, advance=advance)
    click.echo(f"{name}: {_told(imported)}", err=True)


def _told(imported: Imported) -> str:
    skipped = f", {imported.skipped:,} skipped that were there already" if imported.skipped else ""
    return f"{count(imported.rows, 'row')} written{skipped}"


@contextmanager
def _refusals(name: str, done: str) -> Iterator[None]:
    try:
        with database_errors(name, done):
            yield
    except HistoryFileError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        click.echo(f"{name}: the batch of line {error.line} was not written, nor what comes after it", err=True)
        raise click.exceptions.Exit(1) from error
    except (ChrononautException, ValueError) as error:
        raise NotDoneError(str(error)) from error
    except (OSError, EOFError, zlib.error) as error:
        raise NotDoneError(f"{name} could not be {done}: {error}") from error


def _format_of(path: str | None) -> Format:
    return "csv" if path is not None and path.removesuffix(".gz").endswith(".csv") else "ndjson"


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if path == "-":
        yield sys.stdin.buffer
        return
    with gzip.open(path) if path.endswith(".gz") else Path(path).open("rb") as file:
        yield cast(IO[bytes], file)


def _lines_of(path: str) -> int:
    """How many lines a file has, as far as that can be known before it is read."""
    if path == "-":
        return 0
    with _opened(path) as lines:
        return sum(1 for _ in lines)


def _chained(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


@contextmanager
def _written(path: str | None) -> Iterator[IO[bytes]]:
    """A file that comes to be, or takes the place of another, when it is complete."""
    if path is None or path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if Path(path).exists() and not Path(path).is_file():
        # A pipe or a device has no place to be taken, nor has a directory.
        with Path(path).open("wb") as device, _compressed(path, device) as file:
            yield file
        return
    place = Path(path).resolve()
    unfinished = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        with _stopped_by_exception(), _created(unfinished, path) as raw:
            with _compressed(path, raw) as file:
                yield file
            raw.flush()
            os.fsync(raw.fileno())
        unfinished.replace(place)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()


def _created(unfinished: Path, path: str) -> IO[bytes]:
    try:
        return unfinished.open("xb")
    except OSError as error:
        # The name that was asked for.
        raise OSError(error.errno, error.strerror, path) from error


@contextmanager
def _compressed(path: str, raw: IO[bytes]) -> Iterator[IO[bytes]]:
    if not path.endswith(".gz"):
        yield raw
        return
    # Without a name and a time, the same history is the same file.
    with gzip.GzipFile("", "wb", fileobj=raw, mtime=0, compresslevel=6) as compressed:
        yield cast(IO[bytes], compressed)


@contextmanager
def _stopped_by_exception() -> Iterator[None]:
    """Let the signal that asks a process to end do so by an exception, so that what is unfinished is removed."""
    if threading.current_thread() is not threading.main_thread():
        # Only that one gets signals.
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

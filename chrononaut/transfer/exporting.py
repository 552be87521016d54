"""A model's history as the lines of a file, read as one state of the database and streamed."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from chrononaut.transactions import snapshot
from chrononaut.transfer.files import Format, Part, file_lines
from chrononaut.transfer.layout import FileRow, Layout, layout_of
from chrononaut.types import instant_text, utc

_BATCH = 1000  # rows that are held at once


def export_history(
    engine: Engine,
    model: type,
    *,
    key: tuple[Any, ...] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    format: Format = "ndjson",  # noqa: A002  as the command's option
) -> Iterator[str]:
    """The history of a model, of one record or of a period, as the lines of a file that `import_history` takes.

    The lines are read while they are taken, from one state of the database; an application may go on meanwhile. All
    history rows are in it, what history keeps of dropped columns too, and the live rows, but for what is hidden or
    untracked.

    :param engine: of the model's database
    :param model: a versioned model
    :param key: of the one record, in mapping order: each part an integer or a text, as the file has it
    :param since: changes after this instant, and the live rows of what they changed; a naive one is read as UTC
    :param until: changes up to this instant, and no live rows
    :param format: ``ndjson`` or ``csv``
    :return: lines, each with its line break; a row of CSV may have several
    :raises UnsupportedMappingError: the model's rows are in the table of another, which has to be named
    :raises ValueError: the key does not fit the model, or the period has no length
    :raises TypeError: the model is not versioned
    """
    part = Part(key, since, until)
    if since is not None and until is not None and utc(since) >= utc(until):
        raise ValueError(
            f"a period must end after it begins, and {instant_text(until)} is not after {instant_text(since)}"
        )
    layout = layout_of(model, engine.dialect)
    statements = _statements(layout, part)
    return _lines(engine, layout, part, statements, format)


def total_lines(engine: Engine, model: type, part: Part) -> int:
    """How many rows an export has."""
    layout = layout_of(model, engine.dialect)
    counts = (
        sa.select(sa.func.count()).select_from(statement.order_by(None).subquery()).scalar_subquery()
        for statement in _statements(layout, part)
    )
    with engine.connect() as connection:
        return sum(connection.execute(sa.select(*counts)).one())


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection that reads all from one state of the database."""
    with snapshot(engine) as connection:
        let_values_be_exact(connection)
        yield connection


def let_values_be_exact(connection: Connection) -> None:
    """Have PostgreSQL write dates, times and spans in one form, until the end of the transaction."""
    if connection.dialect.name == "postgresql":
        told = {"timezone": "UTC", "datestyle": "ISO", "intervalstyle": "iso_8601"}
        connection.execute(sa.select(*(sa.func.set_config(name, value, True) for name, value in told.items())))


def _lines(
    engine: Engine, layout: Layout, part: Part, statements: list[sa.Select[Any]], format_: Format
) -> Iterator[str]:
    with reading(engine) as connection:
        yield from file_lines(layout, part, _rows(connection, layout, statements), format_)


def _rows(connection: Connection, layout: Layout, statements: list[sa.Select[Any]]) -> Iterator[FileRow]:
    options = {"yield_per": _BATCH}
    with connection.execute(layout.in_order(*statements), execution_options=options) as result:
        for row in result:
            yield layout.file_row(row)


def _statements(layout: Layout, part: Part) -> list[sa.Select[Any]]:
    """What selects the history rows of a part, and the live rows."""
    history, live = layout.history_rows(), layout.live_rows()
    if part.key is not None:
        for attribute, value in zip(layout.key, _key_values(layout, part.key), strict=True):
            assert attribute.history is not None
            assert attribute.live is not None
            history = history.where(attribute.history == layout.value(attribute, attribute.history, value))
            live = live.where(attribute.live == layout.value(attribute, attribute.live, value))
    changed = layout.versioning.column("changed")
    if part.since is not None:
        later = layout.versioning.history_table.alias()
        same = [later.c[one.history.key] == one.live for one in layout.key if one.history is not None]
        live = live.where(sa.exists().where(*same, later.c[changed.key] > part.since).correlate(layout.tables[0].live))
        history = history.where(changed > part.since)
    if part.until is not None:
        return [history.where(changed <= part.until)]
    return [history, live]


def _key_values(layout: Layout, key: tuple[Any, ...]) -> list[Any]:
    names = ", ".join(one.name for one in layout.key)
    if len(key) != len(layout.key):
        raise ValueError(f"the key must have a value for {names}, in this order")
    try:
        return [one.codec.read(value) for one, value in zip(layout.key, key, strict=True)]
    except ValueError as error:
        raise ValueError(f"the key ({names}) does not fit: {error}") from None

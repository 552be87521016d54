"""History that is carried from one database to another, and what the tables hold before and after."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from chrononaut import Imported, export_history, import_history
from chrononaut.history import versioning_of
from chrononaut.transactions import snapshot
from chrononaut.verify import verify
from tests.library.conftest import opened

Rows = list[dict[str, Any]]


@contextmanager
def bound(database: Any, url: str) -> Iterator[sa.Engine]:
    """The engine of a database with the tables of some models."""
    with opened(database, url):
        yield database.engine


def exported(engine: sa.Engine, model: type, **options: Any) -> bytes:
    """A file, as bytes."""
    return "".join(export_history(engine, model, **options)).encode()


def lines_of(file: bytes) -> list[bytes]:
    """The lines as an open file gives them."""
    return list(io.BytesIO(file))


def imported(engine: sa.Engine, model: type, file: bytes, **options: Any) -> Imported:
    return import_history(engine, model, lines_of(file), **options)


def documents(file: bytes) -> list[Any]:
    """The lines of a file of NDJSON."""
    return [json.loads(line) for line in file.decode().split("\n")[:-1]]


def file_of(lines: Iterable[Any]) -> bytes:
    """A file of NDJSON, whose last line counts the rows."""
    header, *rows = lines
    told = [header, *rows, {"rows": len(rows)}]
    return "".join(json.dumps(one) + "\n" for one in told).encode()


def tables(engine: sa.Engine, *models: type) -> Mapping[str, Rows]:
    """All rows of the live and history tables of some models, as the driver has them; JSON of ours as documents."""
    found: dict[str, Rows] = {}
    with engine.connect() as connection:
        for model in models:
            for one in versioning_of(model).hierarchy:
                for table in one.tables[-1].live, one.tables[-1].history:
                    statement = sa.text(f'SELECT * FROM "{table.name}"')
                    rows = [dict(row) for row in connection.execute(statement).mappings()]
                    found[table.name] = sorted(map(_comparable, rows), key=repr)
    return found


def differences(engine: sa.Engine, *models: type) -> list[str]:
    """What `verify` finds."""
    with snapshot(engine) as connection:
        return [str(finding) for model in models for finding in verify(connection, model)]


def _comparable(row: dict[str, Any]) -> dict[str, Any]:
    documents = {name: row[name] for name in ("change_info", "why") if isinstance(row.get(name), str)}
    return {name: _plain(value) for name, value in row.items()} | {
        name: json.loads(document) for name, document in documents.items()
    }


def _plain(value: Any) -> Any:
    # nan is no equal of itself.
    return repr(value) if isinstance(value, float | datetime) else value

"""A file of changes that another system has made → `import_changes`, batch by batch.

A line of NDJSON, or a row of CSV below one of names, is one change. What its fields are called there can be told.
"""

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Session

from chrononaut.exceptions import FileProblem, HistoryFileError, HistoryImportError
from chrononaut.history import Versioning, versioning_of
from chrononaut.importing import ImportedChange, import_changes
from chrononaut.transfer import values as reading
from chrononaut.transfer.files import Format, decoded
from chrononaut.transfer.importing import BATCH, LONGEST, TOLD, Imported
from chrononaut.transfer.repeating import Repeated, WrongChangeError
from chrononaut.transfer.values import NULL
from chrononaut.types import Instant, utc

OWN = ("operation", "at", "values", "user_id", "remote_addr", "transaction")
"""The fields of a change besides the key, the attributes and the reasons (``extra.…``)."""

_EXTRA = "extra."
_NO_INSTANT = datetime.min.replace(tzinfo=UTC)


class Given(NamedTuple):
    """A change of a file.

    :ivar line: where it begins, from 1
    """

    line: int
    change: ImportedChange


@dataclass(frozen=True, slots=True)
class ChangeFile:
    """How the changes of a file are read.

    :ivar columns: our name for a field → what the file calls it
    """

    model: type
    columns: Mapping[str, str]
    format: Format

    @property
    def versioning(self) -> Versioning:
        return versioning_of(self.model).whole()

    def fields(self) -> Mapping[str, str]:
        """What the file calls a field → our name.

        :raises ValueError: a name is none of ours, or two take one field
        """
        known = [*OWN, *self.versioning.columns]
        if unknown := [name for name in self.columns if name not in known and not name.startswith(_EXTRA)]:
            raise ValueError(f"there is no field {', '.join(unknown)}; there are {', '.join(known)} and {_EXTRA}…")
        fields = {source: name for name, source in self.columns.items()}
        if len(fields) < len(self.columns):
            raise ValueError("two fields cannot be one of the file's")
        return {name: name for name in known if name not in self.columns and name not in fields} | fields

    def read(self, lines: Iterable[bytes], dialect: Dialect) -> Iterator[Given | FileProblem]:
        """The changes, and what is wrong with those that are none."""
        fields = self.fields()
        takers = {name: _taker(column.type, self.format, dialect) for name, column in self.versioning.columns.items()}
        documents = _csv_documents(lines) if self.format == "csv" else _ndjson_documents(lines)
        for line, text, document in documents:
            if isinstance(document, FileProblem):
                yield document
                continue
            problems: list[FileProblem] = []
            change = self._change(line, text, document, fields, takers, problems)
            yield from problems
            if not problems:
                yield Given(line, change)

    def _change(
        self,
        line: int,
        text: str,
        document: Mapping[str, Any],
        fields: Mapping[str, str],
        takers: Mapping[str, Callable[[Any], Any]],
        problems: list[FileProblem],
    ) -> ImportedChange:
        named: dict[str, Any] = {}
        for source, value in document.items():
            name = fields.get(source) or (source if source.startswith(_EXTRA) else None)
            if source == "extra" and name is None:
                problems.append(FileProblem(line, source, "is no field; give each of its reasons as extra.NAME"))
            elif name is None:
                problems.append(FileProblem(line, source, "is no field; --column NAME=SOURCE says which one it is"))
            else:
                named[name] = value
        own = {name: value for name, value in named.items() if name in OWN}
        extra = {
            name.removeprefix(_EXTRA): value
            for name, value in named.items()
            if name.startswith(_EXTRA) and value is not None
        }
        attributes = {name: value for name, value in named.items() if name not in OWN and not name.startswith(_EXTRA)}
        inner = self._inner(line, own.get("values"), problems)
        problems += [
            FileProblem(line, name, "stands among the values and beside them") for name in inner if name in attributes
        ]
        taken: dict[str, Any] = {}
        for name, value in {**attributes, **inner}.items():
            if name not in takers:
                problems.append(FileProblem(line, name, "the model has no such attribute"))
                continue
            try:
                taken[name] = None if value is None else takers[name](value)
            except (ValueError, ArithmeticError) as error:
                problems.append(FileProblem(line, name, str(error)))
        key = tuple(taken.pop(name, None) for name in self.versioning.key)
        operation = own.get("operation")
        info: dict[str, Any] = {name: own[name] for name in ("user_id", "remote_addr") if own.get(name) is not None}
        if extra:
            info["extra"] = extra
        transaction = own.get("transaction")
        return ImportedChange(
            operation=operation,  # type: ignore[arg-type]  # `import_changes` checks it
            key=key,
            at=self._at(line, own.get("at"), problems),
            # A row of CSV has all columns, a delete's too.
            values={} if operation == "delete" and self.format == "csv" else taken,
            info=info,
            # Without a name of its own, the same in each import of this file: so it is known again.
            transaction=f"{line}:{text}" if transaction is None else str(transaction),
        )

    def _inner(self, line: int, values: Any, problems: list[FileProblem]) -> Mapping[str, Any]:
        """The values that a change has in one object."""
        if isinstance(values, str) and self.format == "csv":
            try:
                values = json.loads(values)
            except (ValueError, RecursionError):
                values = False
        if isinstance(values, dict):
            return values
        if values is not None:
            problems.append(FileProblem(line, "values", "must be a JSON object"))
        return {}

    def _at(self, line: int, value: Any, problems: list[FileProblem]) -> datetime:
        try:
            return utc(datetime.fromisoformat(value))
        except (ValueError, TypeError, OverflowError):
            problems.append(FileProblem(line, "at", "must be an instant, as 2026-03-01T09:00:00Z"))
            return _NO_INSTANT


def import_change_file(
    session: Session,
    file: ChangeFile,
    lines: Iterable[bytes],
    *,
    batch: int = BATCH,
    advance: Callable[[int], None] = lambda _: None,
) -> Imported:
    """Write the changes of a file, each batch in a transaction of its own, which is committed.

    What is there already and says the same is skipped, so that an import that was interrupted is run again.

    :param session: one of the `VersionedSQLAlchemy` that the model belongs to
    :param lines: of the file, as bytes
    :param batch: changes that are written together, and a few more of one instant
    :param advance: is told of the changes that are done
    :raises HistoryFileError: the file is wrong, or says something else than what is there; all batches before the one
        that is wrong are written, and no other
    :raises ValueError: a column of `ChangeFile.columns` is none
    """
    imported = Imported()
    is_empty = True
    dialect = session.get_bind(file.versioning.mapper).dialect
    for changes, problems in _batches(file.read(lines, dialect), batch):
        is_empty = False
        if problems:
            raise HistoryFileError(problems[:TOLD])
        written, skipped = _write(session, file, changes)
        imported = Imported(imported.rows + written, imported.skipped + skipped)
        advance(len(changes))
    if is_empty:
        raise HistoryFileError([FileProblem(1, None, "the file has no changes")])
    return imported


def _write(session: Session, file: ChangeFile, changes: Sequence[Given]) -> tuple[int, int]:
    """:return: how many were written, and how many were there"""
    try:
        missing = Repeated(session, file.versioning).missing([given.change for given in changes])
        rest = [changes[place] for place in missing]
        written = import_changes(session, file.model, [given.change for given in rest]) if rest else 0
        session.commit()
    except WrongChangeError as error:
        raise HistoryFileError([FileProblem(changes[error.position].line, None, str(error))]) from error
    except HistoryImportError as error:
        raise HistoryFileError([FileProblem(rest[error.position].line, None, error.problem)]) from error
    finally:
        session.rollback()
    return written, len(changes) - len(rest)


def _batches(given: Iterable[Given | FileProblem], size: int) -> Iterator[tuple[list[Given], list[FileProblem]]]:
    """Changes that are written together: whole instants, if they are not very many."""
    changes: list[Given] = []
    problems: list[FileProblem] = []
    for one in given:
        if isinstance(one, FileProblem):
            problems.append(one)
            if len(problems) >= TOLD:
                break
            continue
        is_same = bool(changes) and one.change.at == changes[-1].change.at
        if len(changes) >= (size * LONGEST if is_same else size):
            yield changes, problems
            changes, problems = [], []
        changes.append(one)
    if changes or problems:
        yield changes, problems


def _ndjson_documents(lines: Iterable[bytes]) -> Iterator[tuple[int, str, Any]]:
    for number, line in enumerate(decoded(lines), start=1):
        if isinstance(line, FileProblem):
            yield number, "", line
            continue
        text = line.removeprefix("\ufeff").strip() if number == 1 else line.strip()
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "a number is too long"
            document = FileProblem(number, None, f"is no JSON: {reason}")
        if not isinstance(document, dict | FileProblem):
            document = FileProblem(number, None, "is no change: that is a JSON object")
        yield number, text, document


def _csv_documents(lines: Iterable[bytes]) -> Iterator[tuple[int, str, Any]]:
    csv.field_size_limit(sys.maxsize)
    wrong: list[FileProblem] = []
    last = 0

    def texts() -> Iterator[str]:
        nonlocal last
        for last, line in enumerate(decoded(lines), start=1):
            if isinstance(line, FileProblem):
                wrong.append(line)
            else:
                yield line.removeprefix("\ufeff") if last == 1 else line

    reader, names = csv.reader(texts(), strict=True), None
    while True:
        start = last + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield start, "", FileProblem(start, None, f"is no CSV: {error}")
            continue
        for problem in wrong:
            yield problem.line, "", problem
        wrong.clear()
        if cells is None:
            return
        if names is None:
            names = cells
            for name in sorted(name for name, times in Counter(cells).items() if times > 1):
                yield start, "", FileProblem(start, name, "is the name of several columns")
        elif len(cells) != len(names):
            problem = FileProblem(start, None, f"has {len(cells)} cells; there are {len(names)} columns")
            yield start, "", problem
        else:
            document = {name: None if cell in ("", NULL) else cell for name, cell in zip(names, cells, strict=True)}
            yield start, "\0".join(cells), document


def _taker(type_: Any, format_: Format, dialect: Dialect) -> Callable[[Any], Any]:
    """What makes of a JSON value, or of a cell, what the model has."""
    if isinstance(type_, Instant):
        return _aware
    if isinstance(type_, sa.types.TypeDecorator) and not isinstance(type_, sa.Interval):
        # Its own Python may be anything, and takes what is given.
        return lambda value: value
    if isinstance(type_, sa.Enum):
        return _enum_taker(type_)
    kind = reading.kind_of(type_)
    take = _plain_taker(kind, type_, dialect)
    if format_ == "csv" and kind in ("boolean", "integer", "float"):
        return lambda cell: take(reading.from_text(cell, kind))
    return _json if format_ == "csv" and kind == "json" else take


def _plain_taker(kind: str | None, type_: Any, dialect: Dialect) -> Callable[[Any], Any]:
    if kind == "text":
        return reading.texts(type_, dialect)
    if kind == "integer":
        return reading.integers(type_, dialect)
    if kind == "decimal":
        read = reading.decimals(type_, dialect)
        return read if type_.asdecimal else lambda value: float(read(value))
    if kind == "uuid":
        return reading.read_uuid if type_.as_uuid else lambda value: str(reading.read_uuid(value))
    takers: Mapping[str | None, Callable[[Any], Any]] = {
        "boolean": reading.read_boolean,
        "float": reading.read_float,
        "bytes": reading.read_bytes,
        "interval": reading.read_span,
        "instant": _aware,
        "datetime": reading.read_datetime,
        "date": reading.read_date,
        "time": reading.read_time,
    }
    return takers.get(kind, lambda value: value)


def _json(cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        raise reading.WrongValueError("must be the text of a JSON document") from None


def _aware(value: Any) -> datetime:
    return reading.read_instant(value).replace(tzinfo=UTC)


def _enum_taker(type_: sa.Enum) -> Callable[[Any], Any]:
    """By the texts that the database holds: names, or values where the type says so."""
    members = type_.enum_class
    if members is None:
        return reading.read_text
    texts: dict[Any, Any] = dict(zip(type_.enums, members, strict=False))

    def take(value: Any) -> Any:
        if reading.read_text(value) not in texts:
            raise ValueError(f"must be one of {', '.join(map(str, texts))}")
        return texts[value]

    return take

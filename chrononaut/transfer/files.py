"""The lines of a file of history, as NDJSON or CSV: made from rows, and read with what is wrong in each.

A file begins with a line that tells what is in it, and ends with one that counts its rows, so that no part of one is
taken for the whole. In CSV both are a ``#`` and the same JSON.
"""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, get_args
from uuid import UUID

from chrononaut.change_info import damage, unstorable
from chrononaut.exceptions import FileProblem, HistoryFileError
from chrononaut.history import ERASED, NEVER, Operation
from chrononaut.transfer.layout import Attribute, FileRow, Layout
from chrononaut.transfer.values import NULL, from_cell, from_text, to_cell
from chrononaut.types import JSONObject, instant_text, now

Format = Literal["ndjson", "csv"]
VERSION = 1
"""Of the form of the files."""

_OWN = ("version", "operation", "changed", "change_info", "transaction_id")
_LIVE_COLUMNS = {"key", "version", "operation", "tables", "state"}
_COLUMNS = _LIVE_COLUMNS | {"changed", "change_info", "transaction_id"}
_OPERATIONS: tuple[str, ...] = get_args(Operation)
_HIGHEST = 2**31


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a model's history a file has; all of it by default.

    :ivar key: of the one record, as the values stand in the file
    :ivar since: changes after this instant
    :ivar until: changes up to this instant, and no live rows
    """

    key: tuple[Any, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None

    def document(self) -> JSONObject:
        told = {
            "key": None if self.key is None else list(self.key),
            "since": None if self.since is None else instant_text(self.since),
            "until": None if self.until is None else instant_text(self.until),
        }
        return {name: value for name, value in told.items() if value is not None}


class GivenRow(NamedTuple):
    """A row of a file, and its values as parameters of statements.

    :ivar state: attribute name → parameter; empty where all are NULL
    """

    row: FileRow
    key: tuple[Any, ...]
    state: Mapping[str, Any]


def file_lines(layout: Layout, part: Part, rows: Iterable[FileRow], format_: Format) -> Iterator[str]:
    """A file, line by line; a row of CSV may have line breaks."""
    header = json.dumps(_header(layout, part), ensure_ascii=False)
    count = 0
    if format_ == "csv":
        yield f"#{header}\n"
        yield _csv_line(_csv_names(layout))
        for count, row in enumerate(rows, start=1):  # noqa: B007  how many there were
            yield _csv_line(_cells(layout, row))
        yield f"#{json.dumps({'rows': count})}\n"
        return
    yield f"{header}\n"
    line = _json_writer(layout)
    for count, row in enumerate(rows, start=1):  # noqa: B007  how many there were
        yield line(row)
    yield f"{json.dumps({'rows': count})}\n"


def _header(layout: Layout, part: Part) -> JSONObject:
    header: JSONObject = {
        "chrononaut": "history",
        "format": VERSION,
        "model": layout.versioning.name,
        "key": {one.name: one.codec.kind for one in layout.key},
        "state": {one.name: one.codec.kind for one in layout.state},
    }
    if layout.kept:
        header["kept"] = {one.name: one.codec.kind for one in layout.kept}
    if layout.further:
        header["tables"] = list(layout.further)
    if told := part.document():
        header["part"] = told
    return header


def _json_writer(layout: Layout) -> Callable[[FileRow], str]:
    """What makes a line of a row. What all lines share is made once: there are millions."""
    key_names = [one.name for one in layout.key]
    state_names = [one.name for one in layout.state]
    live_names = [one.name if one.live is not None else None for one in (*layout.state, *layout.kept)]

    def line(row: FileRow) -> str:
        parts = [
            f'{{"key": {_dumped(dict(zip(key_names, row.key, strict=True)))}, "version": {row.version}, "operation": ',
            f'"{row.operation}"' if row.operation is not None else "null",
        ]
        if row.changed is not None:
            parts.append(
                f', "changed": "{instant_text(row.changed)}", "change_info": {_dumped_in_order(row.change_info)}, '
                f'"transaction_id": "{row.transaction_id}"'
            )
        if row.tables:
            parts.append(f', "tables": {_dumped(list(row.tables))}')
        state: Mapping[str, Any] | None = None
        if row.state is not None and row.is_live:
            state = {name: value for name, value in zip(live_names, row.state, strict=True) if name is not None}
        elif row.state is not None:
            state = dict(zip(state_names, row.state, strict=True))
        parts.append(f', "state": {_dumped(state)}}}\n')
        return "".join(parts)

    return line


# The document of a change in one order, whatever the database makes of it.
_dumped_in_order = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode
_dumped = json.JSONEncoder(ensure_ascii=False).encode


def _csv_names(layout: Layout) -> list[str]:
    tables = ["tables"] if layout.further else []
    attributes = [one.name for one in (*layout.state, *layout.kept)]
    return [*(one.name for one in layout.key), *_OWN, *tables, *attributes]


def _cells(layout: Layout, row: FileRow) -> list[str]:
    own = [NULL] * (len(_OWN) - 1)
    if not row.is_live:
        assert row.operation is not None
        assert row.changed is not None
        info = _dumped_in_order(row.change_info)
        own = [row.operation, instant_text(row.changed), info, str(row.transaction_id)]
    tables = [",".join(row.tables)] if layout.further else []
    size = len(layout.state) + len(layout.kept)
    state = [to_cell(value) for value in row.state or ()]
    return [*map(to_cell, row.key), str(row.version), *own, *tables, *state, *[NULL] * (size - len(state))]


def _csv_line(cells: Sequence[str]) -> str:
    buffer = io.StringIO()
    # A carriage return needs quotes whatever ends the line, and gets them where it is one of that.
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n") + "\n"


@dataclass(slots=True)
class Reader:
    """Reads the rows of a file that `file_lines` has made.

    :ivar layout: of the model that they are read for
    :ivar part: which part of a history it has
    :ivar key: the attributes of the key, and of state and `kept` those that the file has, in its order
    """

    layout: Layout
    part: JSONObject
    key: Sequence[Attribute]
    state: Sequence[Attribute]
    kept: Sequence[Attribute]
    rows: Iterator[GivenRow | FileProblem]

    @classmethod
    def opened(cls, layout: Layout, lines: Iterable[bytes], format_: Format) -> "Reader":
        """Read the first line.

        :raises HistoryFileError: it is no such file, or one of another model
        """
        numbered = iter(enumerate(decoded(lines), start=1))
        _, first = next(numbered, (1, None))
        if first is None:
            raise HistoryFileError([FileProblem(1, None, "the file is empty")])
        if isinstance(first, FileProblem):
            raise HistoryFileError([first])
        if format_ == "csv" and first.endswith("\r\n"):
            raise HistoryFileError(
                [
                    FileProblem(
                        1, None, "ends with CR and LF: something has changed the line breaks, also those in values"
                    )
                ]
            )
        header = _parsed_header(layout, first.removeprefix("\ufeff"), format_)
        state = [one for one in layout.state if one.name in header["state"]]
        kept = [one for one in layout.kept if one.name in header.get("kept", {})]
        reader = cls(layout, header.get("part") or {}, layout.key, state, kept, iter(()))
        order = [*header["state"], *header.get("kept", {})]
        reader.rows = reader._csv_rows(numbered, order) if format_ == "csv" else reader._ndjson_rows(numbered)
        return reader

    def _ndjson_rows(self, numbered: Iterator[tuple[int, Any]]) -> Iterator[GivenRow | FileProblem]:
        count: int | None = 0
        number = 1
        for number, line in numbered:
            if isinstance(line, FileProblem):
                count = None
                yield line
                continue
            try:
                document = json.loads(line)
            except (ValueError, RecursionError) as error:
                count = None
                yield FileProblem(number, None, f"is no JSON: {_reason(error)}")
                continue
            if isinstance(document, dict) and document.keys() == {"rows"}:
                yield from _end(number, document["rows"], count, numbered)
                return
            count = None if count is None else count + 1
            yield from self._given(number, document)
        yield _cut_off(number)

    def _csv_rows(self, numbered: Iterator[tuple[int, Any]], order: Sequence[str]) -> Iterator[GivenRow | FileProblem]:
        # The default would refuse values that the databases hold.
        csv.field_size_limit(sys.maxsize)
        last = 1
        footer: list[str] = []
        wrong: list[FileProblem] = []

        def lines() -> Iterator[str]:
            nonlocal last
            for number, line in numbered:
                last = number
                if isinstance(line, FileProblem):
                    wrong.append(line)
                    continue
                yield line

        names = [*(one.name for one in self.key), *_OWN, *(["tables"] if self.layout.further else []), *order]
        reader, count, start, is_readable = csv.reader(lines(), strict=True), -1, 2, True
        while True:
            start = last + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                is_readable = False
                yield FileProblem(start, None, f"is no CSV: {error}")
                continue
            is_readable = is_readable and not wrong
            yield from wrong
            wrong.clear()
            if cells is None:
                yield _cut_off(last)
                return
            if len(cells) == 1 and cells[0].startswith("#"):
                footer = cells
                break
            count += 1
            if count == 0:
                if cells != names:
                    yield FileProblem(start, None, f"must name the columns that line 1 tells of: {','.join(names)}")
                    return
            elif len(cells) != len(names):
                yield FileProblem(start, None, f"has {len(cells)} cells; there are {len(names)} columns")
            else:
                yield from self._given(start, self._csv_document(cells, order))
        try:
            rows = json.loads(footer[0][1:])["rows"]
        except (ValueError, KeyError, TypeError):
            yield FileProblem(last, None, "is neither a row nor the last line of a file")
            return
        yield from _end(last, rows, count if is_readable else None, numbered)

    def _csv_document(self, cells: Sequence[str], order: Sequence[str]) -> JSONObject:
        size = len(self.key)
        kinds = {one.name: one.codec.kind for one in (*self.key, *self.state, *self.kept)}
        key = {one.name: from_cell(cell, kinds[one.name]) for one, cell in zip(self.key, cells, strict=False)}
        own_cells = cells[size : size + len(_OWN)]
        version, operation, changed, info, transaction_id = (None if cell == NULL else cell for cell in own_cells)
        document: JSONObject = {
            "key": key,
            "version": from_text(version or "", "integer"),
            "operation": operation,
        }
        if operation is not None:
            document |= {"changed": changed, "change_info": info, "transaction_id": transaction_id}
            try:
                document["change_info"] = json.loads(info or "")
            except (ValueError, RecursionError):
                document["change_info"] = None
        own = size + len(_OWN)
        if self.layout.further:
            document["tables"] = [name for name in cells[own].split(",") if name]
            own += 1
        expected = {one.name for one in self._attributes(is_live=operation is None)}
        state = {name: from_cell(cell, kinds[name]) for name, cell in zip(order, cells[own:], strict=True)}
        document["state"] = {name: value for name, value in state.items() if name in expected or value is not None}
        return document

    def _attributes(self, *, is_live: bool) -> Sequence[Attribute]:
        if is_live:
            return [one for one in (*self.state, *self.kept) if one.live is not None]
        return self.state

    def _given(self, line: int, document: Any) -> Iterator[GivenRow | FileProblem]:
        problems: list[FileProblem] = []

        def wrong(column: str | None, reason: str) -> None:
            problems.append(FileProblem(line, column, reason))

        given = self._checked(line, document, wrong)
        if problems or given is None:
            yield from problems
        else:
            yield given

    def _checked(self, line: int, document: Any, wrong: Callable[[str | None, str], None]) -> GivenRow | None:
        """A row, if nothing is wrong with it by itself."""
        if not isinstance(document, dict):
            wrong(None, "is no row of a history: that is a JSON object")
            return None
        operation = document.get("operation")
        is_live = operation is None
        known = _LIVE_COLUMNS if is_live else _COLUMNS
        for name in sorted(document.keys() - known):
            wrong(name, "there is no such column")
        if "operation" not in document:
            wrong("operation", "is missing")
        if not is_live and operation not in _OPERATIONS:
            wrong("operation", f"must be one of {', '.join(_OPERATIONS)}, or null of a live row")
        version = document.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or not NEVER <= version < _HIGHEST:
            wrong("version", f"must be an integer from {NEVER} to {_HIGHEST - 1}")
        changed = transaction_id = None
        if not is_live:
            changed = _instant(document.get("changed"), wrong)
            transaction_id = _uuid(document.get("transaction_id"), wrong)
            _check_info(document.get("change_info"), document.get("state"), wrong)
        key = document.get("key")
        key_parameters = self._read(key, self.key, wrong)
        attributes = self._attributes(is_live=is_live)
        state: Any = document.get("state")
        parameters: dict[str, Any] = {}
        if state is not None:
            parameters = self._read(state, attributes, wrong)
        tables = document.get("tables", [])
        if not isinstance(tables, list) or not all(name in self.layout.further for name in tables):
            wrong("tables", f"must be a list of some of {', '.join(self.layout.further) or 'none'}")
            tables = []
        if not isinstance(key, dict) or key_parameters.keys() != {one.name for one in self.key}:
            return None
        values = None if not isinstance(state, dict) else self._values(state, is_live=is_live)
        row = FileRow(
            line,
            tuple(key[one.name] for one in self.key),
            version if isinstance(version, int) else 0,
            operation,
            changed,
            document.get("change_info"),
            transaction_id,
            values,
            tuple(name for name in self.layout.further if name in tables),
        )
        return GivenRow(row, tuple(key_parameters[one.name] for one in self.key), parameters)

    def _values(self, state: Mapping[str, Any], *, is_live: bool) -> Sequence[Any] | None:
        attributes = (*self.layout.state, *(self.layout.kept if is_live else ()))
        values = [state.get(one.name) for one in attributes]
        return values if any(value is not None for value in values) else None

    def _read(
        self, given: Any, attributes: Sequence[Attribute], wrong: Callable[[str | None, str], None]
    ) -> dict[str, Any]:
        """Attribute name → parameter."""
        if not isinstance(given, dict):
            wrong("key" if attributes is self.key else "state", "must be a JSON object")
            return {}
        parameters: dict[str, Any] = {}
        for one in attributes:
            try:
                value = given[one.name]
                if value is None and attributes is self.key:
                    wrong(one.name, "is part of the key and must have a value")
                parameters[one.name] = None if value is None else one.codec.read(value)
            except KeyError:
                wrong(one.name, "is missing")
            except (ValueError, ArithmeticError) as error:
                wrong(one.name, str(error))
        if len(given) != len(parameters):
            for name in sorted(given.keys() - {one.name for one in attributes}):
                wrong(name, "there is no such column in this row")
        return parameters


def is_history(first: bytes) -> bool:
    """Is a line the first of a file that `file_lines` has made, whatever follows?"""
    text = first.decode(errors="replace").removeprefix("\ufeff").removeprefix("#")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict) and "chrononaut" in header


def decoded(lines: Iterable[bytes]) -> Iterator[str | FileProblem]:
    """The lines as text; in the place of one that is none, what is wrong with it."""
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            yield FileProblem(number, None, f"is not UTF-8 (byte {error.start + 1})")


def _parsed_header(layout: Layout, line: str, format_: Format) -> JSONObject:
    problem = None
    header: Any
    try:
        header = json.loads(line.removeprefix("#") if format_ == "csv" else line)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("chrononaut") != "history":
        problem = f"does not begin a history: is it one, as {format_}?"
    elif header.get("format") != VERSION:
        problem = f"is of format {header.get('format')!r}; this release reads format {VERSION}"
    elif header.get("model") != layout.versioning.name:
        problem = f"is the history of {header.get('model')!r}, and not of {layout.versioning.name}"
    elif header.get("key") != {one.name: one.codec.kind for one in layout.key}:
        expected = ", ".join(f"{one.name} ({one.codec.kind})" for one in layout.key)
        problem = f"has another key than the model, which has {expected}"
    elif header.get("tables", []) != list(layout.further):
        problem = f"has rows of other tables than the model's, which are {', '.join(layout.further) or 'one'}"
    if problem is not None:
        raise HistoryFileError([FileProblem(1, None, problem)])
    assert isinstance(header, dict)
    problems = [
        *_unlike(header.get("state"), layout.state),
        *_unlike(header.get("kept", {}), layout.kept),
    ]
    if problems:
        raise HistoryFileError(problems)
    return header


def _unlike(told: Any, attributes: Sequence[Attribute]) -> Iterator[FileProblem]:
    if not isinstance(told, dict):
        yield FileProblem(1, None, "does not tell of the columns")
        return
    kinds = {one.name: one.codec.kind for one in attributes}
    for name, kind in told.items():
        if name not in kinds:
            yield FileProblem(1, name, "the model has no such column; __chrononaut_dropped__ can say that it had")
        elif kind != kinds[name]:
            yield FileProblem(1, name, f"is {kind!r}; the model has {kinds[name]!r}")


def _end(number: int, rows: object, count: int | None, rest: Iterator[tuple[int, Any]]) -> Iterator[FileProblem]:
    """What is wrong with the end of a file.

    :param rows: how many the last line says that there are
    :param count: how many there were; ``None`` where some could not be read
    """
    if count is not None and rows != count:
        yield FileProblem(number, None, f"the file says that it has {rows} rows; {count} were read")
    for behind, _ in rest:
        yield FileProblem(behind, None, "stands behind the file's last line")
        return


def _cut_off(number: int) -> FileProblem:
    return FileProblem(number, None, "the file ends here without its last line, which counts the rows: it was cut off")


def _instant(value: object, wrong: Callable[[str | None, str], None]) -> datetime | None:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
        at = None if at is None or at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        at = None
    if at is not None and at > now():
        wrong("changed", f"{at.isoformat()} is yet to come; history tells what has happened")
    if at is not None:
        return at
    wrong("changed", "must be an instant with an offset, as 2026-03-01T09:00:00.000000Z")
    return None


def _uuid(value: object, wrong: Callable[[str | None, str], None]) -> UUID | None:
    try:
        return UUID(value if isinstance(value, str) else "")
    except ValueError:
        wrong("transaction_id", "must be a UUID")
        return None


def _check_info(value: Any, state: object, wrong: Callable[[str | None, str], None]) -> None:
    if problem := damage(value) or unstorable(value):
        wrong("change_info", problem)
        return
    marks = value.get(ERASED, [])
    values = state if isinstance(state, dict) else {}
    for name in dict.fromkeys(name for mark in marks for name in mark["columns"]):
        if values.get(name) is not None:
            wrong(name, "has a value, which was erased as the row's change_info says")
    if "extra" in value and any(mark["reasons"] for mark in marks):
        wrong("change_info", "has reasons (extra), which were erased as it says")


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, at character {error.pos + 1}"
    return "a number is too long, or it is nested too deep"

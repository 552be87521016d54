"""A file of history into the tables: checked, and written batch by batch, each in a transaction of its own.

What is there already and says the same is skipped, so that an import that was interrupted is simply run again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from chrononaut.cuts import PURGED, damage
from chrononaut.exceptions import FileProblem, HistoryFileError
from chrononaut.history import NEVER, marks_of
from chrononaut.locking import locking
from chrononaut.transactions import in_one
from chrononaut.transfer.exporting import let_values_be_exact
from chrononaut.transfer.files import Format, GivenRow, Reader
from chrononaut.transfer.layout import Attribute, FileRow, Layout, layout_of
from chrononaut.transfer.values import codec_of, from_cell
from chrononaut.transfer.writing import Key, Writer
from chrononaut.types import JSONObject
from chrononaut.verify import Link, problems

BATCH = 1000
"""Rows that are checked and written together, and a few more where the last record has them."""

LONGEST = 10
"""Batches that the rows of one record, or the changes of one instant, may fill before they are split."""

TOLD = 20
"""Problems of a batch that are told at the most."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import has done.

    :ivar rows: how many rows of the file were written, history rows and live rows
    :ivar skipped: how many were there already
    """

    rows: int = 0
    skipped: int = 0


@dataclass(slots=True)
class _Batch:
    """Rows of a file that are written together.

    :ivar is_split: do its last rows belong to a record that goes on after it?
    """

    rows: list[GivenRow] = field(default_factory=list)
    problems: list[FileProblem] = field(default_factory=list)
    is_split: bool = False

    @property
    def size(self) -> int:
        return len(self.rows) + len(self.problems)


@dataclass(slots=True)
class _Record:
    """The rows of one record in a batch.

    :ivar is_entire: are its last rows in the batch?
    """

    key: Key
    history: list[GivenRow] = field(default_factory=list)
    live: GivenRow | None = None
    is_entire: bool = True

    @property
    def rows(self) -> list[GivenRow]:
        return self.history if self.live is None else [*self.history, self.live]


@dataclass(slots=True)
class _Plan:
    """What is to be done with the rows of some records."""

    history: list[GivenRow] = field(default_factory=list)
    live: list[GivenRow] = field(default_factory=list)
    later: list[tuple[GivenRow, int]] = field(default_factory=list)
    deleted: list[tuple[Key, FileRow]] = field(default_factory=list)
    skipped: int = 0

    @property
    def rows(self) -> int:
        return len(self.history) + len(self.live) + len(self.later)


def import_history(
    engine: Engine,
    model: type,
    lines: Iterable[bytes],
    *,
    format: Format = "ndjson",  # noqa: A002  as the command's option
    batch: int = BATCH,
    values: Mapping[str, str] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Imported:
    """Write the history that a file of `export_history` has, and the live rows that it leads to.

    Each batch is a transaction of its own, and whole records go together. What is there already and says the same is
    skipped; what says otherwise is refused, as is what cannot be: a gap, a row twice, a wrong type. So an import that
    was interrupted is run again. A record may have history already, which the file then continues.

    No session has a part in it: nothing is captured, and objects are not expired.

    :param engine: of the model's database
    :param model: a versioned model
    :param lines: of the file, as bytes; an open file will do
    :param format: ``ndjson`` or ``csv``
    :param batch: rows that are written together
    :param values: what new live rows get that no export has, as it is hidden or untracked: attribute name → a cell of
        CSV
    :param advance: is told of the rows that are done, batch by batch
    :raises HistoryFileError: the file is wrong; all batches before the one that is wrong are written, and no other
    :raises ConcurrentChangeError: a record of the file was changed meanwhile; run it again
    :raises UnsupportedMappingError: the model's rows are in the table of another, which has to be named
    :raises ValueError: one of the values does not fit
    :raises TypeError: the model is not versioned
    """
    layout = layout_of(model, engine.dialect)
    reader = Reader.opened(layout, lines, format)
    given = _set_values(layout, values or {})
    imported = Imported()
    for one in _batches(reader.rows, batch):
        if one.problems:
            raise HistoryFileError(one.problems[:TOLD])
        done = _Importer(engine, layout, given, reader.part).take(one)
        imported = Imported(imported.rows + done.rows, imported.skipped + done.skipped)
        advance(one.size)
    return imported


def _set_values(layout: Layout, values: Mapping[str, str]) -> dict[Attribute, Any]:
    """:raises ValueError: there is no such attribute, or the value does not fit"""
    versioning = layout.versioning
    known = {**versioning.hidden, **versioning.untracked}
    given: dict[Attribute, Any] = {}
    for name, cell in values.items():
        if name not in known:
            raise ValueError(f"{name} is neither hidden nor untracked; there are {', '.join(known) or 'none'}")
        column = known[name]
        codec = codec_of(column.type, layout.dialect)
        place = next(number for number, one in enumerate(layout.tables) if one.live is column.table)
        try:
            value = from_cell(cell, codec.kind)
            given[Attribute(name, codec, place, None, column)] = None if value is None else codec.read(value)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
    return given


def _batches(rows: Iterator[GivenRow | FileProblem], size: int) -> Iterator[_Batch]:
    """Whole records, as many as fit; a record with a very long history by itself, in several."""
    batch, last = _Batch(), None
    for row in rows:
        if isinstance(row, FileProblem):
            batch.problems.append(row)
            # What follows from it would be told too, and is not.
            if batch.size >= size * LONGEST or len(batch.problems) >= TOLD:
                yield batch
                batch = _Batch()
            continue
        if batch.size >= size and (row.key != last or batch.size >= size * LONGEST):
            yield replace(batch, is_split=row.key == last)
            batch = _Batch()
        batch.rows.append(row)
        last = row.key
    if batch.size:
        yield batch


class _Importer:
    """Writes one batch."""

    def __init__(self, engine: Engine, layout: Layout, given: Mapping[Attribute, Any], part: JSONObject) -> None:
        self.engine = engine
        self.layout = layout
        self.given = given
        self.has_beginning = "since" not in part
        self.has_end = "until" not in part

    def take(self, batch: _Batch) -> Imported:
        """:raises HistoryFileError: something is wrong with it"""
        records, found = _records(batch)
        if found:
            raise HistoryFileError(found[:TOLD])
        try:
            plan = self._committed(records)
        except (sa.exc.DataError, sa.exc.IntegrityError) as error:
            raise HistoryFileError([self._refused(records, error)]) from error
        return Imported(plan.rows, plan.skipped)

    def _committed(self, records: Sequence[_Record]) -> _Plan:
        for _ in range(2):
            try:
                with self._transaction() as writer:
                    return self._write(writer, records)
            except sa.exc.IntegrityError as error:
                # Another import of the same file may have been faster, and its rows are there now.
                refused = error
        raise refused

    @contextmanager
    def _transaction(self) -> Iterator[Writer]:
        with locking(self.layout.versioning, ()), in_one(self.engine) as connection:
            let_values_be_exact(connection)
            yield Writer(connection, self.layout, self.given)

    def _write(self, writer: Writer, records: Sequence[_Record]) -> _Plan:
        plan = self._planned(writer, records)
        writer.insert_history(plan.history)
        writer.insert_live(plan.live)
        writer.update_live(plan.later)
        writer.delete_live(plan.deleted)
        return plan

    def _refused(self, records: Sequence[_Record], error: sa.exc.DBAPIError) -> FileProblem:
        """Find the first record that the database refuses, by writing ever fewer of them, and leaving nothing."""
        sound, wrong = 0, len(records)
        while wrong - sound > 1:
            tried = (sound + wrong) // 2
            try:
                with self._transaction() as writer:
                    self._write(writer, records[:tried])
                    writer.connection.rollback()
            except (sa.exc.DataError, sa.exc.IntegrityError) as one:
                wrong, error = tried, one
            else:
                sound = tried
        first = records[sound].rows[0].row.line
        return FileProblem(first, None, f"the database refuses the record that begins here ({_name_of(error)})")

    def _planned(self, writer: Writer, records: Sequence[_Record]) -> _Plan:
        """:raises HistoryFileError: rows do not follow from one another, or from what is there"""
        live = writer.live_there(record.key for record in records)
        wanted = [(record.key, given.row.version) for record in records for given in record.rows]
        wanted += [(record.key, record.rows[0].row.version - 1) for record in records]
        wanted += [(key, row.version - 1) for key, row in live.items()]
        history = writer.history_there(wanted)
        covered = {record.key: record.rows[0].row for record in records}
        is_part = not self.has_beginning
        covering = {key: row.version for key, row in covered.items() if is_part and _first(row) < row.version}
        before = writer.rows_before(covering)
        history |= {(key, row.version): row for key, row in before.items()}
        cuts = writer.cuts_there(record.key for record in records if _has_new(record, history, live.get(record.key)))
        plan, found = _Plan(), list[FileProblem]()
        for record in records:
            problem = _purged(record, history, cuts.get(record.key, ()))
            if problem is not None:
                found.append(problem)
            else:
                there = live.get(record.key)
                found += self._plan(plan, _continuing(record, before.get(record.key)), history, there)
            if len(found) >= TOLD:
                break
        if plan.live:
            found += [
                FileProblem(plan.live[0].row.line, name, "must have a value, which no export has: --set gives one")
                for name in self._required()
            ]
        if found:
            raise HistoryFileError(found[:TOLD])
        return plan

    def _required(self) -> Iterator[str]:
        """The attributes that a new live row must have, and that neither a file nor a default gives."""
        given = {one.live for one in (*self.layout.kept, *self.given)}
        for name, column in {**self.layout.versioning.hidden, **self.layout.versioning.untracked}.items():
            has_default = column.default is not None or column.server_default is not None
            if not (column.nullable or has_default or column in given):
                yield name

    def _plan(
        self, plan: _Plan, record: _Record, there: Mapping[tuple[Key, int], FileRow], live: FileRow | None
    ) -> Iterator[FileProblem]:
        key, rows = record.key, record.rows
        before = there.get((key, _first(rows[0].row) - 1)) or there.get((key, rows[0].row.version - 1))
        new: list[GivenRow] = []
        if not self.has_beginning and before is None and live is None and _first(rows[0].row) > NEVER:
            yield FileProblem(rows[0].row.line, None, "the record's history before is not there; import that first")
        for given in record.history:
            row, same = given.row, there.get((key, given.row.version))
            yield from self._problems(row, before, record)
            before = row
            if same is None:
                new.append(given)
                continue
            plan.skipped += 1
            if (difference := self._difference(row, same)) is not None:
                yield FileProblem(row.line, difference, "is otherwise in the row of this version that is there already")
        plan.history += new
        if record.live is not None:
            yield from self._plan_live(plan, record, record.live, there, live, before)
        elif live is not None and record.is_entire and new:
            yield from self._plan_end(plan, record, new, live)

    def _problems(self, row: FileRow, before: FileRow | None, record: _Record) -> Iterator[FileProblem]:
        """What is wrong with a history row and its place; as `verify` would tell."""
        assert row.operation is not None
        assert row.changed is not None
        is_last = record.is_entire and row.version == record.history[-1].row.version
        has_live = record.live is not None
        link = Link(
            version=row.version,
            operation=row.operation,
            change_info=row.change_info,
            version_before=None if before is None else before.version,
            operation_before=None if before is None else _replaced_by(before),
            is_earlier=None if before is None or before.changed is None else row.changed < before.changed,
            has_state=self._has_state(row),
            is_last=is_last and (self.has_end or has_live),
            live_version=record.live.row.version if record.live is not None else None,
        )
        for _, problem in problems(link):
            yield FileProblem(row.line, None, problem)

    def _has_state(self, row: FileRow) -> bool:
        kind = self.layout.versioning.mapper.polymorphic_on
        pairs = zip(self.layout.state, row.state or (), strict=False)
        is_cut = row.operation == "purge"
        return any(value is not None for one, value in pairs if not (is_cut and one.live is kind))

    def _plan_live(
        self,
        plan: _Plan,
        record: _Record,
        given: GivenRow,
        there: Mapping[tuple[Key, int], FileRow],
        live: FileRow | None,
        before: FileRow | None,
    ) -> Iterator[FileProblem]:
        row = given.row
        replaced = there.get((record.key, row.version))
        if live is not None and live.version == row.version:
            plan.skipped += 1
            if (difference := self._difference(row, live)) is not None:
                yield FileProblem(row.line, difference, "is otherwise in the live row that is there already")
        elif replaced is not None:
            # The record has gone on since the file was made.
            plan.skipped += 1
            if replaced.operation != "purge" and not self._is_same_state(row, replaced):
                yield FileProblem(row.line, None, "was another state in the history that is there already")
        elif before is None and row.version != 0:
            yield FileProblem(row.line, "version", "must be 0 of a live row that has no history")
        elif live is None:
            plan.live.append(given)
        elif (problem := self._going_on(record, live, row.tables)) is None:
            plan.later.append((given, live.version))
        else:
            yield FileProblem(row.line, None, problem)

    def _plan_end(self, plan: _Plan, record: _Record, new: Sequence[GivenRow], live: FileRow) -> Iterator[FileProblem]:
        """The file has the record deleted, or ends before it does; and there is a live row."""
        line = new[-1].row.line
        if _replaced_by(new[-1].row) != "delete":
            yield FileProblem(
                line, None, "there is a live row, and the file, which ends at an instant, has no later one"
            )
        elif (problem := self._going_on(record, live, live.tables)) is None:
            plan.deleted.append((record.key, live))
        else:
            yield FileProblem(line, None, problem)

    def _going_on(self, record: _Record, live: FileRow, tables: Sequence[str]) -> str | None:
        """Why a live row that is there cannot go on as a file says; ``None`` if it can."""
        covering = (one.row for one in record.history if _first(one.row) <= live.version <= one.row.version)
        replaced = next(covering, None)
        if replaced is None or not (replaced.operation == "purge" or self._is_same_state(live, replaced)):
            return f"there is a live row of version {live.version}, which the file does not go on from"
        if tuple(tables) != live.tables:
            return "there is a live row that is of another model"
        return None

    def _difference(self, row: FileRow, same: FileRow) -> str | None:
        """In which column a row and the one that is there differ."""
        for name in ("operation", "changed", "change_info", "transaction_id", "tables"):
            if getattr(row, name) != getattr(same, name):
                return name
        attributes = (*self.layout.state, *(self.layout.kept if row.is_live else ()))
        return next(self._different(attributes, row, same), None)

    def _is_same_state(self, one: FileRow, other: FileRow) -> bool:
        """Do a live row and the history row that replaced it hold the same state, but for what was erased from that?"""
        gone = {attribute.name for attribute in self.layout.state if attribute.live is None}
        gone |= {name for mark in marks_of(other.change_info) for name in mark["columns"]}
        return set(self._different(self.layout.state, one, other)) <= gone

    def _different(self, attributes: Sequence[Attribute], row: FileRow, same: FileRow) -> Iterator[str]:
        empty = [None] * len(attributes)
        for one, mine, theirs in zip(attributes, row.state or empty, same.state or empty, strict=False):
            if mine is None or theirs is None:
                if mine is not theirs:
                    yield one.name
            elif not one.codec.is_same(mine, theirs):
                yield one.name


def _records(batch: _Batch) -> tuple[list[_Record], list[FileProblem]]:
    """The records of a batch, and what is wrong with the order of its rows."""
    records: dict[Key, _Record] = {}
    found: list[FileProblem] = []
    last: _Record | None = None
    for given in batch.rows:
        row, record = given.row, records.get(given.key)
        if record is None:
            last = records[given.key] = record = _Record(given.key)
        elif record is not last:
            found.append(
                FileProblem(row.line, None, "the rows of this record must stand together, and others are between")
            )
            continue
        before = record.rows[-1].row if record.rows else None
        if before is None or (row.version > before.version and not before.is_live):
            if row.is_live:
                record.live = given
            else:
                record.history.append(given)
        elif before.is_live:
            found.append(FileProblem(row.line, None, "stands behind the record's live row, which must be its last"))
        elif row.version == before.version:
            found.append(FileProblem(row.line, "version", "is that of the row before it: a row stands here twice"))
        else:
            found.append(FileProblem(row.line, "version", "is lower than that of the row before it"))
    if batch.is_split and last is not None:
        last.is_entire = False
    return [*records.values()], found


def _has_new(record: _Record, there: Mapping[tuple[Key, int], FileRow], live: FileRow | None) -> bool:
    """Has the file rows of a record that are not there?"""
    missing = (given.row for given in record.rows if (record.key, given.row.version) not in there)
    return any(not row.is_live or live is None or row.version != live.version for row in missing)


def _purged(record: _Record, there: Mapping[tuple[Key, int], FileRow], cuts: Sequence[FileRow]) -> FileProblem | None:
    """The first row of a file that was there, and was purged."""
    for given in record.rows:
        row = given.row
        if (record.key, row.version) not in there and any(_first(cut) <= row.version <= cut.version for cut in cuts):
            return FileProblem(
                row.line, "version", f"{row.version} was purged from the history that is there, and does not come back"
            )
    return None


def _continuing(record: _Record, before: FileRow | None) -> _Record:
    """A record whose first row is a cut that covers what is there: of it there is only what comes after that."""
    given = record.rows[0]
    row = given.row
    if before is None or before.version < _first(row):
        return record
    info = row.change_info or {}
    shorter = row._replace(change_info={**info, PURGED: {**info[PURGED], "first": before.version + 1}})
    return replace(record, history=[given._replace(row=shorter), *record.history[1:]])


def _first(row: FileRow) -> int:
    """The lowest number that a row stands for: its own, or that of the first which a cut stands for."""
    if row.operation != "purge" or damage(row.version, row.change_info) is not None:
        return row.version
    assert row.change_info is not None
    first: int = row.change_info[PURGED]["first"]
    return first


def _replaced_by(row: FileRow) -> str | None:
    """What replaced the state of a history row; of a cut, that of the last row that was purged."""
    if row.operation != "purge" or damage(row.version, row.change_info) is not None:
        return row.operation
    assert row.change_info is not None
    operation: str = row.change_info[PURGED]["operation"]
    return operation


def _name_of(error: sa.exc.DBAPIError) -> str:
    return type(error if error.orig is None else error.orig).__name__

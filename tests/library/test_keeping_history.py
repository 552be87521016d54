"""Ordinary changes, purges, erasures, exports and imports in random order, held against a history in plain Python."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from sqlalchemy.orm import Mapped, Session, mapped_column

from chrononaut import (
    History,
    HistoryFileError,
    ImportedChange,
    PurgedError,
    Retention,
    Versioned,
    VersionedSQLAlchemy,
    import_changes,
    rationale,
)
from chrononaut.history import versioning_of
from chrononaut.purging import Purge
from chrononaut.transfer.exporting import export_history
from chrononaut.transfer.importing import import_history
from chrononaut.verify import verify
from tests.library.conftest import opened

SOAK = int(os.environ.get("CHRONONAUT_SOAK_SEQUENCES", "2000"))
"""Sequences of the long form, on each database."""

db = VersionedSQLAlchemy()

Key = tuple[str, int]
State = Mapping[str, Any]


class Note(db.Model, Versioned):  # type: ignore[name-defined,misc]
    """A record of two key columns, one that holds it, and a hidden one."""

    __chrononaut_hidden__ = ("secret",)

    shelf: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str | None]
    body: Mapped[bytes | None]
    pinned: Mapped[bool]
    secret: Mapped[str | None]


NOTES = versioning_of(Note)
KEYS: list[Key] = [("a", 1), ("a", 2), ("ä,/", 1)]
TRACKED = ("title", "body", "pinned")
ERASABLE = ("title", "body", "pinned")
# A midnight, so that some changes are made at one.
BEGINNING = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=400)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Row:
    """A history row as it is to be.

    :ivar state: ``None`` of a creation and of a cut
    :ivar purged: of a cut: the first number, the operation of the last row, when and why
    """

    version: int
    operation: str
    changed: datetime
    transaction: UUID
    state: State | None
    extra: Mapping[str, str] | None
    hidden: bool = False
    marks: tuple[Mapping[str, Any], ...] = ()
    purged: Mapping[str, Any] | None = None

    @property
    def first(self) -> int:
        return int(self.purged["first"]) if self.purged else self.version

    @property
    def ending(self) -> str:
        return str(self.purged["operation"]) if self.purged else self.operation

    @property
    def info(self) -> dict[str, Any]:
        info: dict[str, Any] = {"user_id": None, "remote_addr": None}
        if self.extra:
            info["extra"] = dict(self.extra)
        if self.hidden:
            info["hidden_cols_changed"] = ["secret"]
        if self.marks:
            info["erased"] = [dict(mark) for mark in self.marks]
        if self.purged:
            info["purged"] = dict(self.purged)
        return info


@dataclass
class Record:
    """What a record is, and was.

    :ivar live: the tracked values and the hidden one; ``None`` if there is no live row
    """

    live: dict[str, Any] | None = None
    rows: list[Row] = field(default_factory=list)

    @property
    def version(self) -> int:
        return self.rows[-1].version + 1 if self.rows else 0

    def note(self, told: Any, operation: str, hidden: bool, extra: Mapping[str, str]) -> None:
        """The row that a change leaves. When it was made, and in which transaction, is for the database to say.

        :param told: the last row of the record in the database
        """
        state = None if operation == "insert" or self.live is None else {name: self.live[name] for name in TRACKED}
        number = self.rows[-1].version + 1 if self.rows else (-1 if operation == "insert" else 0)
        assert not self.rows or told.changed >= self.rows[-1].changed
        self.rows.append(Row(number, operation, told.changed, told.transaction_id, state, extra, hidden))

    def began(self, row: Row) -> datetime | None:
        return next((before.changed for before in self.rows if before.version == row.version - 1), None)

    def kept(self, policy: Retention, at: datetime) -> set[int]:
        """The numbers of the versions that a policy keeps."""
        priors = [row for row in self.rows if row.state is not None]
        last = self.live or (self.rows[-1].state if self.rows and self.rows[-1].operation == "delete" else None)
        if policy.held and last is not None and last["pinned"]:
            return {row.version for row in priors}
        newest = {row.version for row in priors[max(len(priors) - (policy.versions or 0), 0) :]}
        return newest | {row.version for row in priors if self._is_young(row, policy, at)}

    def _is_young(self, row: Row, policy: Retention, at: datetime) -> bool:
        if policy.days is None and policy.daily_after is None:
            return False
        if policy.days is not None and row.changed <= at - policy.days * DAY:
            return False
        if policy.daily_after is None or row.changed > at - policy.daily_after * DAY:
            return True
        # The last midnight before it ended; was it valid then?
        midnight = (row.changed - timedelta(microseconds=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        began = self.began(row)
        return began is None or began <= midnight

    def purge(self, policy: Retention, at: datetime, extra: Mapping[str, str]) -> None:
        kept = self.kept(policy, at)
        goes = {row.version: row.state is not None and row.version not in kept for row in self.rows}
        for row in self.rows:
            if row.operation == "insert":
                goes[row.version] = goes.get(row.version + 1, False)
        left: list[Row] = []
        run: list[Row] = []
        for row in self.rows:
            is_own = row.purged is not None and row.purged.get("extra", {}) == extra
            if goes[row.version] or is_own:
                run.append(row)
                continue
            left += _cut(run, at, extra)
            run = []
            left.append(row)
        self.rows = left + _cut(run, at, extra)

    def erase(self, columns: tuple[str, ...], mark: Mapping[str, Any]) -> None:
        self.rows = [self._erased(row, columns, mark) for row in self.rows]

    def _erased(self, row: Row, columns: tuple[str, ...], mark: Mapping[str, Any]) -> Row:
        state = row.state and {name: None if name in columns else value for name, value in row.state.items()}
        return replace(row, state=state, marks=(*row.marks, mark), extra=None if mark["reasons"] else row.extra)

    def valid_at(self, at: datetime) -> Row | str | None:
        """The row of the state that was valid at an instant, ``"live"`` or ``"purged"``; ``None`` if there was none."""
        row = next((row for row in self.rows if row.changed > at), None)
        if row is None:
            return "live" if self.live is not None else None
        if row.purged:
            return "purged"
        return row if row.state is not None else None


def _cut(run: list[Row], at: datetime, extra: Mapping[str, str]) -> list[Row]:
    if not run or (len(run) == 1 and run[0].purged):
        return run
    last = run[-1]
    purged: dict[str, Any] = {"first": run[0].first, "operation": last.ending, "at": _text(at), "user_id": None}
    if extra:
        purged["extra"] = dict(extra)
    marks = run[0].marks  # what was erased from the oldest row was erased from all that were there then
    return [Row(last.version, "purge", last.changed, last.transaction, None, None, marks=marks, purged=purged)]


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Years(RuleBasedStateMachine):
    """Years of a model's history. Imported changes have instants of the past, those of the session the present."""

    def __init__(self) -> None:
        super().__init__()
        _empty()
        self.records = {key: Record() for key in KEYS}
        self.clock = BEGINNING
        self.at = datetime.now(UTC)
        self.older: list[bytes] = []

    @rule(
        key=st.sampled_from(KEYS),
        title=st.sampled_from(["one", "two", None]),
        pinned=st.booleans(),
        secret=st.sampled_from(["s", None]),
        later=st.sampled_from([timedelta(0), timedelta(hours=1), timedelta(hours=9), DAY, 30 * DAY, 90 * DAY]),
        why=st.sampled_from([{}, {"rationale": "because"}]),
    )
    def change(
        self, key: Key, title: str | None, pinned: bool, secret: str | None, later: timedelta, why: dict[str, str]
    ) -> None:
        """Make a record, or change it."""
        given = {"title": title, "body": title and title.encode(), "pinned": pinned, "secret": secret}
        self.make(key, given, later, why)

    @rule(key=st.sampled_from(KEYS), times=st.integers(2, 6), later=st.sampled_from([timedelta(hours=5), 20 * DAY]))
    def change_often(self, key: Key, times: int, later: timedelta) -> None:
        for number in range(times):
            self.make(key, {"title": str(number), "body": b"\0", "pinned": False, "secret": "s"}, later, {})

    @rule(key=st.sampled_from(KEYS), later=st.sampled_from([timedelta(hours=1), 30 * DAY]))
    def delete(self, key: Key, later: timedelta) -> None:
        if self.records[key].live is not None:
            self.make(key, None, later, {})

    @rule(
        versions=st.none() | st.integers(0, 3),
        days=st.none() | st.sampled_from([0, 10, 100, 380]),
        daily_after=st.none() | st.sampled_from([0, 5, 60]),
        held=st.sampled_from([None, "pinned"]),
        batch=st.sampled_from([3, 4, 7, 2000]),
        later=st.sampled_from([timedelta(0), DAY, 50 * DAY]),
        why=st.sampled_from([{}, {"rationale": "policy"}, {"rationale": "policy", "case": "ä"}]),
    )
    def purge(
        self,
        versions: int | None,
        days: int | None,
        daily_after: int | None,
        held: str | None,
        batch: int,
        later: timedelta,
        why: dict[str, str],
    ) -> None:
        if days is not None and daily_after is not None and daily_after >= days:
            daily_after = None
        if versions is None and days is None and daily_after is None:
            return
        policy = Retention(versions, days, daily_after, held)
        # Each purge has an instant of its own, as each has where the present one is taken.
        self.at = max(self.at, datetime.now(UTC)) + later + timedelta(microseconds=1)
        purge = Purge(Note, policy, self.at, extra=why, batch=batch)
        would_go = {(one.key, one.versions) for part in purge.dry_run(db.engine) for one in part.doomed}
        went = {(one.key, one.versions) for part in purge.run(db.engine) for one in part.doomed}
        assert would_go == went
        for record in self.records.values():
            record.purge(policy, self.at, why)
        self.check()

    @rule(key=st.sampled_from(KEYS), columns=st.none() | st.sets(st.sampled_from(ERASABLE)), reasons=st.booleans())
    def erase(self, key: Key, columns: set[str] | None, reasons: bool) -> None:
        record = self.records[key]
        names = ERASABLE if columns is None else tuple(name for name in ERASABLE if name in columns)
        if not (record.live or record.rows) or not (names or reasons):
            return
        session = db.session()
        with rationale("asked"):
            erased = Note.timeline(key).erase(columns, reasons=reasons)
        session.commit()
        mark = {
            "at": _text(erased.at),
            "user_id": None,
            "columns": list(names),
            "reasons": reasons,
            "extra": {"rationale": "asked"},
        }
        record.erase(names, mark)
        self.check()

    @rule(format_=st.sampled_from(["ndjson", "csv"]), batch=st.sampled_from([1, 3, 1000]))
    def move(self, format_: Any, batch: int) -> None:
        """Export it all, and import it where nothing is."""
        lines = list(export_history(db.engine, Note, format=format_))
        _empty()
        encoded = [line.encode() for line in lines]
        imported = import_history(db.engine, Note, encoded, format=format_, batch=batch)
        again = import_history(db.engine, Note, encoded, format=format_, batch=batch)
        rows = sum(len(record.rows) + (record.live is not None) for record in self.records.values())
        assert (imported.rows, again.rows, again.skipped) == (rows, 0, rows)
        assert list(export_history(db.engine, Note, format=format_)) == lines
        for record in self.records.values():
            if record.live is not None:
                record.live["secret"] = None
        self.check()

    @precondition(lambda self: any(record.rows for record in self.records.values()))
    @rule(key=st.sampled_from(KEYS))
    def ask(self, key: Key) -> None:
        """Ask for every version, and at every instant at which something changed, and just before."""
        record = self.records[key]
        session = db.session()
        timeline = Note.timeline(key)
        priors = [row for row in record.rows if row.state is not None]
        assert [_read(version) for version in timeline.versions()] == [(row.version, row.state) for row in priors]
        assert [(cut.first, cut.last) for cut in timeline.cuts()] == [
            (row.first, row.version) for row in record.rows if row.purged
        ]
        assert [change.version for change in timeline.changes()] == [row.version for row in record.rows]
        for row in record.rows:
            for at in (row.changed, row.changed - timedelta(microseconds=1)):
                self.ask_at(record, timeline, at)
            if row.purged:
                with pytest.raises(PurgedError):
                    timeline.version(max(row.first, 0))
        session.rollback()

    def ask_at(self, record: Record, timeline: Any, at: datetime) -> None:
        expected = record.valid_at(at)
        if expected == "purged":
            with pytest.raises(PurgedError):
                timeline.version_at(at)
            return
        found = timeline.version_at(at)
        if isinstance(expected, Row):
            assert isinstance(found, History)
            assert _read(found) == (expected.version, expected.state)
        else:
            assert found is (timeline.live if expected == "live" else None)

    def make(self, key: Key, given: dict[str, Any] | None, later: timedelta, why: dict[str, str]) -> None:
        """Make a change of a record; ``None`` deletes it."""
        record = self.records[key]
        operation = "delete" if given is None else "insert" if record.live is None else "update"
        hidden = operation != "insert" and (record.live or {})["secret"] is not None
        if operation == "update":
            hidden = given is not None and given["secret"] != (record.live or {})["secret"]
        elif operation == "insert":
            hidden = given is not None and given["secret"] is not None
        if operation == "update" and given == record.live:
            return
        self.clock += later
        session = db.session()
        if self.clock < datetime.now(UTC) and (not record.rows or record.rows[-1].changed <= self.clock):
            changed = dict(given or {})
            import_changes(
                session,
                Note,
                [ImportedChange(operation, key, self.clock, changed, {"extra": why})],  # type: ignore[arg-type]
            )
        else:
            with rationale("because") if why else nullcontext():
                _write(session, key, operation, given)
                session.flush()
        session.commit()
        record.note(_told(key), operation, hidden, why)
        record.live = given
        self.check()

    def check(self) -> None:
        """The tables hold what the oracle says, and `verify` agrees."""
        history = NOTES.history_table
        with db.engine.connect() as connection:
            rows = connection.execute(sa.select(history).order_by(history.c.shelf, history.c.number, history.c.version))
            found: dict[Key, list[Any]] = {key: [] for key in KEYS}
            for row in rows:
                found[row.shelf, row.number].append(row)
            live = {(row.shelf, row.number): row for row in connection.execute(sa.select(Note.__table__))}
            assert list(verify(connection, Note)) == []
        for key, record in self.records.items():
            assert [_stored(row) for row in found[key]] == [
                (
                    row.version,
                    row.operation,
                    row.changed,
                    row.transaction,
                    row.info,
                    dict(row.state or dict.fromkeys(TRACKED)),
                )
                for row in record.rows
            ]
            assert (key in live) == (record.live is not None)
            if record.live is not None:
                assert {name: getattr(live[key], name) for name in (*TRACKED, "secret")} == record.live
                assert live[key].version == record.version
            for before, after in pairwise(record.rows):
                assert after.first == before.version + 1

    @rule(batch=st.sampled_from([1, 1000]))
    def import_older(self, batch: int) -> None:
        """An export of the last time brings nothing, and above all nothing back: it is skipped, or refused."""
        older, self.older = self.older, [line.encode() for line in export_history(db.engine, Note)]
        if older:
            with suppress(HistoryFileError):
                assert import_history(db.engine, Note, older, batch=batch).rows == 0
        self.check()


def _stored(row: Any) -> tuple[Any, ...]:
    state = {name: getattr(row, name) for name in TRACKED}
    return row.version, row.operation, row.changed, row.transaction_id, row.change_info, state


def _read(version: Any) -> tuple[int, State]:
    return version.version, {name: getattr(version, name) for name in TRACKED}


def _told(key: Key) -> Any:
    history = NOTES.history_table
    last = (
        sa.select(history)
        .where(history.c.shelf == key[0], history.c.number == key[1])
        .order_by(history.c.version.desc())
        .limit(1)
    )
    with db.engine.connect() as connection:
        return connection.execute(last).one()


def _write(session: Session, key: Key, operation: str, given: dict[str, Any] | None) -> None:
    if operation == "insert":
        session.add(Note(shelf=key[0], number=key[1], **(given or {})))
        return
    note = session.get(Note, key)
    if given is None:
        session.delete(note)
        return
    for name, value in given.items():
        setattr(note, name, value)


def _empty() -> None:
    with db.engine.begin() as connection:
        for table in reversed(db.metadata.sorted_tables):
            connection.execute(sa.delete(table))
    db.session.remove()


@pytest.fixture
def tables(database_url: str) -> Iterator[None]:
    with opened(db, database_url):
        yield


def run(machine: Callable[[], RuleBasedStateMachine], **options: Any) -> None:
    run_state_machine_as_test(
        machine,  # type: ignore[arg-type]
        settings=settings(deadline=None, suppress_health_check=list(HealthCheck), **options),
    )


@pytest.mark.usefixtures("tables")
def test_what_is_left_of_history_is_what_the_oracle_says() -> None:
    run(Years, max_examples=25, stateful_step_count=15, derandomize=True)


@pytest.mark.soak
@pytest.mark.usefixtures("tables")
def test_what_is_left_of_history_is_what_the_oracle_says_for_long(database_kind: str) -> None:
    sequences, began = 0, time.monotonic()

    def machine() -> Years:
        nonlocal sequences
        sequences += 1
        if sequences % 100 == 0:
            rate = sequences / (time.monotonic() - began)
            print(f"{database_kind}: {sequences} sequences, {rate:.1f} a second", flush=True)  # noqa: T201
        return Years()

    run(machine, max_examples=SOAK, stateful_step_count=25, print_blob=True)

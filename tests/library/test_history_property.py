"""Random sequences of what an application does, held against a history that is kept in plain Python."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import combinations_with_replacement
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from chrononaut import Timeline, Versioned, VersionedSQLAlchemy
from tests.library.models import define
from tests.library.rows import history_rows, live_rows

TICK = timedelta(microseconds=1)
KEYS = "ab"
VALUES = st.sampled_from([None, "x", "y"])


@dataclass
class Record:
    """What the oracle knows of a live record: its columns and its version."""

    name: str | None
    secret: str | None
    seen: str | None
    version: int


@dataclass
class Row:
    """A history row that must be there; of an insert without state."""

    key: str
    version: int
    operation: str
    name: str | None
    hidden: bool
    transaction: int


@dataclass
class World:
    """All that a database must hold, and the transaction that is open."""

    live: dict[str, Record] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    transaction: int = 0

    def last(self, key: str) -> int:
        return max((row.version for row in self.rows if row.key == key), default=-2)

    def insert(self, key: str, record: Record) -> None:
        number = self.last(key) + 1
        self.rows.append(Row(key, number, "insert", None, record.secret is not None, self.transaction))
        self.live[key] = Record(record.name, record.secret, record.seen, number + 1)

    def update(self, key: str, after: Record) -> None:
        before = self.live[key]
        tracked, hidden = before.name != after.name, before.secret != after.secret
        version = before.version
        if tracked or hidden:
            self.rows.append(Row(key, version, "update", before.name, hidden, self.transaction))
            version += 1
        self.live[key] = Record(after.name, after.secret, after.seen, version)

    def delete(self, key: str) -> None:
        before = self.live.pop(key)
        self.rows.append(Row(key, before.version, "delete", before.name, before.secret is not None, self.transaction))


class Player:
    """Does to a session what it tells the oracle, and compares the two."""

    def __init__(self, session: Session, model: Any) -> None:
        self.session, self.model = session, model
        self.world = World()
        self.committed = World()
        self.replaced = 0
        self.savepoint: tuple[Any, World] | None = None

    def add(self, key: str, value: str | None) -> None:
        if key not in self.world.live:
            record = Record(value, value, None, 0)
            self.session.add(self.model(code=key, name=record.name, secret=record.secret, seen=record.seen))
            self.session.flush()
            self.world.insert(key, record)

    def change(self, sets: list[tuple[str, str, str | None]], expire: bool) -> None:
        """Set attributes of records and flush them at once; a value may be the one that the column has."""
        after = deepcopy(self.world.live)
        # Loaded before the first is set, as a load flushes; held, as the session does not.
        objects = {key: self.session.get_one(self.model, key) for key in after}
        if expire:
            self.session.expire_all()
        for key, name, value in sets:
            if key in after:
                setattr(objects[key], name, value)
                setattr(after[key], name, value)
        self.session.flush()
        for key, record in after.items():
            self.world.update(key, record)

    def delete(self, key: str, dirty: bool) -> None:
        """Delete a record, which may have a change that was not flushed before."""
        if key in self.world.live:
            obj = self.session.get_one(self.model, key)
            if dirty:
                obj.name = "never written"
            self.session.delete(obj)
            self.session.flush()
            self.world.delete(key)

    def replace(self, key: str) -> None:
        """Delete a record and add another of its key in one flush."""
        if key in self.world.live:
            self.replaced += 1
            record = Record(f"{self.replaced}", f"{self.replaced}", None, 0)
            self.session.delete(self.session.get_one(self.model, key))
            self.session.add(self.model(code=key, name=record.name, secret=record.secret, seen=record.seen))
            self.session.flush()
            self.world.update(key, record)

    def end_savepoint(self, keep: bool) -> None:
        if self.savepoint is not None:
            (transaction, world), self.savepoint = self.savepoint, None
            if keep:
                transaction.commit()
            else:
                transaction.rollback()
                self.world = world

    def begin_savepoint(self) -> None:
        self.end_savepoint(keep=True)
        self.savepoint = self.session.begin_nested(), deepcopy(self.world)

    def commit(self) -> None:
        self.end_savepoint(keep=True)
        self.session.commit()
        self.world.transaction += 1
        self.committed = deepcopy(self.world)

    def rollback(self) -> None:
        self.savepoint = None
        self.session.rollback()
        self.world = deepcopy(self.committed)
        self.world.transaction += 1

    def check(self) -> None:
        self._check_tables()
        for key in KEYS:
            if any(row.key == key for row in self.world.rows):
                self._check_questions(key)

    def _check_tables(self) -> None:
        live = {row["code"]: (row["name"], row["secret"], row["version"]) for row in live_rows(self.session, "thing")}
        assert live == {key: (record.name, record.secret, record.version) for key, record in self.world.live.items()}
        rows = history_rows(self.session, "thing_history")
        found = {
            (row["code"], row["version"]): (row["operation"], row["name"], "hidden_cols_changed" in row["change_info"])
            for row in rows
        }
        expected = {(row.key, row.version): (row.operation, row.name, row.hidden) for row in self.world.rows}
        assert found == expected
        assert len(rows) == len(found)
        numbers = {(row.key, row.version): row.transaction for row in self.world.rows}
        transactions: dict[int, set[Any]] = {}
        for row in rows:
            number = numbers[row["code"], row["version"]]
            transactions.setdefault(number, set()).add((row["transaction_id"], row["changed"]))
        # One id and one instant for each transaction, and later ones for a later transaction.
        assert all(len(shared) == 1 for shared in transactions.values())
        ids_and_instants = [shared.pop() for _, shared in sorted(transactions.items())]
        for in_order in zip(*ids_and_instants, strict=True):
            assert list(in_order) == sorted(set(in_order))

    def _check_questions(self, key: str) -> None:
        rows = [row for row in self.world.rows if row.key == key]
        record = self.world.live.get(key)
        instants = {row["version"]: row["changed"] for row in history_rows(self.session, "thing_history", code=key)}
        timeline = Timeline(self.session, self.model, (key,))
        versions = timeline.versions()
        prior = [row for row in rows if row.operation != "insert"]
        assert [(version.version, version.name) for version in versions] == [(row.version, row.name) for row in prior]
        assert [version.valid_from for version in versions] == [instants.get(row.version - 1) for row in prior]
        for at in {instant + step for instant in instants.values() for step in (-TICK, 0 * TICK, TICK)}:
            # The first row that ends later tells the state; none, and it is the live one.
            row = next((row for row in rows if instants[row.version] > at), None)
            answer = timeline.version_at(at)
            if row is None:
                assert (answer is None) == (record is None)
                assert record is None or (answer.version, answer.name) == (record.version, record.name)
            elif row.operation == "insert":
                assert answer is None
            else:
                assert (answer.version, answer.name) == (row.version, row.name)
            if record is not None:
                expected = any(instants[row.version] > at for row in prior)
                assert timeline.live.has_changed_since(at) == expected
        self._check_differences(rows, timeline, versions, record)

    def _check_differences(
        self, rows: list[Row], timeline: Timeline, versions: list[Any], record: Record | None
    ) -> None:
        states = [*versions, *([timeline.live] if record is not None else [])]
        for one, other in combinations_with_replacement(states, 2):
            if one is timeline.live:
                continue
            expected: dict[str, Any] = {} if one.name == other.name else {"name": (one.name, other.name)}
            assert timeline.diff(one, other) == expected
            if any(row.hidden for row in rows if one.version <= row.version < other.version):
                expected["secret"] = (None, record.secret if record and other is timeline.live else None)
            assert timeline.diff(one, other, include_hidden=True) == expected


_keys = st.sampled_from(KEYS)
_sets = st.lists(st.tuples(_keys, st.sampled_from(["name", "secret", "seen"]), VALUES), min_size=1, max_size=4)
STEPS: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    st.tuples(st.just("add"), _keys, VALUES),
    st.tuples(st.just("change"), _sets, st.booleans()),
    st.tuples(st.just("delete"), _keys, st.booleans()),
    st.tuples(st.just("replace"), _keys),
    st.tuples(st.sampled_from(["commit", "rollback", "begin_savepoint"])),
    st.tuples(st.just("end_savepoint"), st.booleans()),
)
"""The name of a method of `Player`, and its arguments."""


@pytest.fixture
def thing(open_database: Callable[..., Session]) -> tuple[Session, Any]:
    database = VersionedSQLAlchemy()
    model = define(
        database,
        "Thing",
        Versioned,
        __tablename__="thing",
        __chrononaut_hidden__=["secret"],
        __chrononaut_untracked__=["seen"],
        code=sa.Column(sa.String, primary_key=True),
        name=sa.Column(sa.String),
        secret=sa.Column(sa.String),
        seen=sa.Column(sa.String),
    )
    return open_database(database), model


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=8, max_size=30))
def test_history_is_what_a_plain_record_of_events_says(
    thing: tuple[Session, Any], steps: list[tuple[Any, ...]]
) -> None:
    session, model = thing
    session.rollback()
    session.expunge_all()
    for table in ("thing", "thing_history"):
        session.connection().exec_driver_sql(f"DELETE FROM {table}")
    session.commit()
    player = Player(session, model)
    for name, *arguments in steps:
        getattr(player, name)(*arguments)
    player.check()
    player.rollback()
    player.check()

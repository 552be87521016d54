"""A session that does what it is told, and tells the oracle; it knows beforehand what will be refused."""

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, SessionTransaction

from chrononaut import append_change_info
from tests.library.comparing import check_tables
from tests.library.oracle import Ident, Values, View
from tests.library.pending import UNKNOWN, Known, Pending, Plus, Set, Target, evaluated, lock
from tests.library.shapes import FAMILY, FIXED, HIERARCHIES, KEYS, MODELS, NAMES, SHAPES, kind


class Savepoint(NamedTuple):
    """A savepoint, and what its rollback leaves."""

    transaction: SessionTransaction
    locked: set[Any]
    marks: dict[Ident, dict[str, str]]
    marked: dict[Ident, Any]


class Player:
    """One session.

    :ivar fresh: values that were never there
    :ivar pending: what is not flushed
    :ivar known: the records whose version the session has loaded; they may have changed since
    :ivar marks: what `append_change_info` has put on objects
    :ivar locked: what the transaction has locked
    :ivar vague: of which memory may hold other values than the row, and no version, since a bulk statement
    :ivar bulk_written: was there a bulk statement in this transaction?
    """

    def __init__(self, session: Session, view: View, extra: Callable[[], dict[str, str]], fresh: Iterator[int]) -> None:
        self.session, self.view, self.extra, self.fresh = session, view, extra, fresh
        self.session.autoflush = False
        self.other: Player = self
        self.held: dict[Ident, Any] = {}  # the session itself holds them weakly
        self.pending: dict[Ident, Pending] = {}
        self.known: dict[Ident, Known] = {}
        self.marks: dict[Ident, dict[str, str]] = {}
        self.marked: dict[Ident, Any] = {}
        self.locked: set[Any] = set()
        self.vague: set[Ident] = set()
        self.bulk_written = False
        self.savepoints: list[Savepoint] = []

    # What there is

    def ident(self, obj: Any) -> Ident:
        return Ident(NAMES[type(obj)], tuple(sa.inspect(obj).identity or ()))

    def persistent(self) -> dict[Ident, Any]:
        return {self.ident(obj): obj for obj in self.session.identity_map.values() if type(obj) in NAMES}

    def resolve(self, target: Target, dead: bool = False) -> Ident | None:
        """The record at a place.

        :param dead: of those that were deleted
        """
        if target.shape in KEYS:
            return Ident(target.shape, KEYS[target.shape][target.slot % len(KEYS[target.shape])])
        live = {ident for ident, _ in self.view.live(target.shape)}
        if dead:
            idents = {ident for ident in self.view.records() if ident.shape == target.shape} - live
        else:
            idents = live | {ident for ident in self.persistent() if ident.shape == target.shape}
        return sorted(idents)[target.slot % len(idents)] if idents else None

    def find(self, ident: Ident) -> Any:
        """The object of a record, as it is loaded or loaded anew; ``None`` where there is none."""
        pending = self.pending.get(ident)
        if pending is not None:
            return None if pending.kind == "delete" else pending.obj
        obj = self.persistent().get(ident)
        if obj is None and self.view.record(ident).values is not None:
            obj = self.session.get_one(MODELS[ident.shape], ident.key)
        if obj is not None:
            self.held[ident] = obj
            self.sync()
        return obj

    def sync(self) -> None:
        """Note what was loaded, and what has expired."""
        persistent = self.persistent()
        self.vague = {ident for ident in self.vague if ident in persistent and len(persistent[ident].__dict__) > 1}
        # A mark is on the object: one whose row is gone, and is there again, is another.
        for ident in [*self.marks]:
            replaced = ident in persistent and ident not in self.pending
            if replaced and persistent[ident] is not self.marked[ident]:
                del self.marks[ident]
        for ident, known in self.known.items():
            known.stale = known.version != self.view.record(ident).version
        for ident in [*self.known]:
            if ident not in persistent or "version" not in persistent[ident].__dict__:
                del self.known[ident]
        for ident, obj in persistent.items():
            if ident not in self.known and "version" in obj.__dict__:
                record = self.view.record(ident)
                self.known[ident] = Known(record.version, deepcopy(record.values or {}))

    # What is to be written

    def add(self, target: Target, choice: str, hidden: str) -> None:
        ident = self.resolve(target) if target.shape in KEYS else self.resolve(target, dead=True)
        shape = SHAPES[target.shape]
        values = self.values(target.shape, choice, hidden)
        if ident is None:
            obj = MODELS[target.shape](**values)
            self.session.add(obj)
            if not self.flush():
                return
            ident = self.ident(obj)
            self.view.insert(ident, values, self.extra())
            self.held[ident] = obj
            self.locked.add(lock(ident))
            self.known.pop(ident, None)
            self.sync()
            return
        pending = self.pending.get(ident)
        key = dict(zip(shape.key, ident.key, strict=True))
        if pending is None:
            if self.view.record(ident).values is not None or ident in self.persistent():
                return
            self.pending[ident] = Pending("add", MODELS[target.shape](**key, **values), values)
        elif pending.kind == "delete":
            # The flush cannot tell whether a hidden attribute gets the value that it had.
            values |= {name: self.value(target.shape, name, "fresh", None) for name in shape.hidden}
            self.pending[ident] = Pending("replace", MODELS[target.shape](**key, **values), values)
        else:
            return
        self.marks.pop(ident, None)
        self.session.add(self.pending[ident].obj)

    def values(self, shape: str, choice: str, hidden: str) -> Values:
        """What all attributes of a new record are set to."""
        names = SHAPES[shape]
        chosen = {name: hidden if name in names.hidden else choice for name in names.attributes if name not in FIXED}
        given: Values = {"type": shape} if shape in HIERARCHIES else {}
        return (
            dict.fromkeys(names.attributes)
            | given
            | {name: self.value(shape, name, chosen[name], None) for name in chosen}
        )

    def value(self, shape: str, name: str, choice: str, current: Any) -> Any:
        """What an attribute is set to.

        :param choice: none, one, two, or fresh: another than ever before
        """
        python_type = kind(shape, name)
        if choice == "fresh" or name in SHAPES[shape].untracked:
            number = next(self.fresh)
            return {"n": number} if python_type is dict else python_type(number)
        if choice == "same":
            return deepcopy(current)
        if choice == "plus" and python_type in (int, float):
            return Plus(1)
        number = {"none": 0, "one": 1, "two": 2}.get(choice, 2)
        if number == 0:
            return None
        return {"n": number} if python_type is dict else python_type(number)

    def change(self, sets: Iterable[Set]) -> None:
        for target, name, choice in sets:
            ident = self.resolve(target)
            if ident is not None and name not in SHAPES[ident.shape].key:
                self.set(ident, name, choice)

    def set(self, ident: Ident, name: str, choice: str) -> None:
        obj = self.find(ident)
        if obj is None:
            return
        pending = self.pending.setdefault(ident, Pending("change", obj))
        if pending.kind == "replace" and name in SHAPES[ident.shape].hidden:
            choice = "fresh"
        if ident in self.vague and choice != "plus":
            choice = "fresh"
        if choice == "grow" and kind(ident.shape, name) is dict:
            self._grow(ident, pending, name)
            return
        current = self.known[ident].values if ident in self.known else self.view.record(ident).values
        value = self.value(ident.shape, name, choice, pending.values.get(name, (current or {}).get(name)))
        if isinstance(value, Plus) and pending.kind != "change":
            value = None
        if name not in pending.before:
            loaded = ident in self.known and name in obj.__dict__
            pending.before[name] = self.known[ident].values[name] if loaded else UNKNOWN
        pending.values[name] = value
        expression = isinstance(value, Plus)
        setattr(obj, name, getattr(type(obj), name) + value.number if expression else deepcopy(value))

    def _grow(self, ident: Ident, pending: Pending, name: str) -> None:
        """Change a document in place."""
        obj = pending.obj
        if name not in obj.__dict__ and (pending.kind != "change" or self.view.record(ident).values is None):
            return
        document = getattr(obj, name)
        self.sync()
        if document is None:
            self.set(ident, name, "one")
            return
        pending.before.setdefault(name, UNKNOWN)
        document["n"] += 1
        pending.values[name] = dict(document)

    def delete(self, target: Target) -> None:
        ident = self.resolve(target)
        if ident is None or target.shape == "owner":
            return
        obj = self.find(ident)
        pending = self.pending.get(ident)
        if obj is not None and (pending is None or pending.kind == "change"):
            self.session.delete(obj)
            self.pending[ident] = Pending("delete", obj)

    def merge(self, target: Target, choices: dict[str, str]) -> None:
        """Merge an object that was made outside the session, with some attributes."""
        ident = self.resolve(target)
        if ident is None or ident in self.pending or ident in self.vague:
            return
        key = dict(zip(SHAPES[ident.shape].key, ident.key, strict=True))
        live = self.view.record(ident).values
        if live is None and ident in self.persistent():
            return
        if live is None:
            if ident.shape in FAMILY:
                return
            values = {name: self.value(ident.shape, name, choice, None) for name, choice in choices.items()}
            values = {name: None if isinstance(value, Plus) else value for name, value in values.items()}
            values |= {"type": ident.shape} if ident.shape in HIERARCHIES else {}
            self.pending[ident] = Pending("add", self.session.merge(MODELS[ident.shape](**key, **values)), values)
            self.marks.pop(ident, None)
            return
        obj = self.find(ident)
        pending = Pending("change", obj)
        for name, choice in choices.items():
            current = self.known[ident].values if ident in self.known else live
            value = self.value(ident.shape, name, choice, current[name])
            pending.values[name] = None if isinstance(value, Plus) else value
        unloaded = ident not in self.known
        merged = self.session.merge(MODELS[ident.shape](**key, **deepcopy(pending.values)))
        assert merged is obj
        self.sync()
        # An object that had expired is loaded by the merge.
        for name in pending.values:
            loaded = ident in self.known and (unloaded or self._was_loaded(obj, name))
            pending.before[name] = self.known[ident].values[name] if loaded else UNKNOWN
        self.pending[ident] = pending

    @staticmethod
    def _was_loaded(obj: Any, name: str) -> bool:
        state = sa.inspect(obj)
        before = state.committed_state.get(name, UNKNOWN)
        return name not in state.committed_state or before is not sa.orm.base.NO_VALUE

    def detach_and_merge(self, target: Target, name: str, choice: str) -> None:
        """Take an object out of the session, change it, and merge it into the session again."""
        ident = self.resolve(target)
        known = None if ident is None else self.known.get(ident)
        if ident is None or known is None or ident.shape in FAMILY or {ident} & (self.pending.keys() | self.vague):
            return
        if ident not in self.persistent():
            # The session holds its objects weakly.
            return
        detached = self.persistent()[ident]
        names = [name for name in SHAPES[ident.shape].attributes if name in detached.__dict__]
        live = self.view.record(ident).values
        if name not in names or live is None or known.version != self.view.record(ident).version:
            return
        memory = {name: deepcopy(detached.__dict__[name]) for name in names}
        value = self.value(ident.shape, name, choice, memory[name])
        memory[name] = None if isinstance(value, Plus) else value
        self.session.expunge(detached)
        self.known.pop(ident)
        self.marks.pop(ident, None)
        setattr(detached, name, deepcopy(memory[name]))
        merged = self.held[ident] = self.session.merge(detached)
        self.sync()
        before = dict(self.known[ident].values)
        self.pending[ident] = Pending("change", merged, memory, {name: before[name] for name in memory})

    def mark(self, target: Target, values: dict[str, str]) -> None:
        ident = self.resolve(target)
        obj = None if ident is None else self.find(ident)
        if ident is not None and obj is not None:
            append_change_info(obj, **values)
            self.marks[ident] = self.marks.get(ident, {}) | values
            self.marked[ident] = obj

    def expire(self, target: Target | None) -> None:
        """Expire one object or all. What was not flushed of them is forgotten."""
        ident = None if target is None else self.resolve(target)
        if target is None:
            self.session.expire_all()
        elif ident is None or self.persistent().get(ident) is None:
            return
        else:
            self.session.expire(self.persistent()[ident])
        for expired in [*self.pending] if ident is None else [ident]:
            if expired in self.pending and self.pending[expired].kind == "change":
                del self.pending[expired]
        self.sync()

    # Writing

    def flush(self, how: str = "flush") -> bool:
        """Write what is pending.

        :param how: flush, or query: a query that flushes by itself
        :return: was it written, and not refused?
        """
        return self.write(self.session.flush if how == "flush" else self._query)

    def _query(self) -> None:
        self.session.autoflush = True
        try:
            self.session.scalar(sa.select(MODELS["gauge"].code).limit(1))
        finally:
            self.session.autoflush = False

    def write(self, action: Callable[[], object]) -> bool:
        """Do what flushes.

        :return: was it written, and not refused?
        """
        self.make_way(map(lock, self.pending))
        refusals, effects = set[type[Exception]](), list[Callable[[], bool]]()
        for ident, pending in self.pending.items():
            refusal = pending.refusal(self.view.record(ident), self.known.get(ident), SHAPES[ident.shape])
            if refusal is not None:
                refusals.add(refusal)
            else:
                effects.append(self._effect(ident, pending))
        if refusals:
            with pytest.raises(tuple(refusals)):
                action()
            self._recover(flushed=action != self.session.commit)
            return False
        written = [*self.pending]
        action()
        self.locked.update(map(lock, written))
        self.pending.clear()
        for ident, effect in zip(written, effects, strict=True):
            if effect():
                self.known.pop(ident, None)
        self.sync()
        return True

    def _effect(self, ident: Ident, pending: Pending) -> Callable[[], bool]:
        """What the oracle is to be told when an object was flushed. It returns whether there is a new version."""
        extra = self.reasons(ident)
        current = self.view.record(ident).values
        written = {
            name: evaluated(value, current, name) for name, value in pending.values.items() if pending.sets(name)
        }

        def tell() -> bool:
            if pending.kind == "change" and current is None:
                # It is gone, and nothing was set to another value than memory holds.
                return False
            if pending.kind == "delete":
                self.view.delete(ident, extra)
            elif pending.kind == "add":
                self.view.insert(ident, pending.values, extra)
                self.held[ident] = pending.obj
            elif not self.view.update(ident, written, extra, always=pending.kind == "replace"):
                return False
            self.marks.pop(ident, None)
            if pending.kind == "replace":
                self.held[ident] = pending.obj
            return True

        return tell

    def reasons(self, ident: Ident) -> dict[str, str]:
        """Why the record's next version is written."""
        return self.extra() | self.marks.get(ident, {})

    def tell_update(self, ident: Ident, values: Values) -> None:
        """Tell the oracle of a statement that has set attributes."""
        if self.view.update(ident, values, self.reasons(ident)):
            self.marks.pop(ident, None)

    def make_way(self, locks: Iterable[Any]) -> None:
        """Let the other session end its transaction if it has locked what is needed here."""
        if self.other.locked & {*locks}:
            self.other.finish()

    def finish(self) -> None:
        """End the transaction, without waiting for the other session."""
        if {*map(lock, self.pending)} & self.other.locked:
            self.rollback()
        else:
            self.commit(expire=False)

    def check(self) -> None:
        """Hold the tables as this session sees them against the oracle."""
        shapes = {ident.shape for ident in self.view.records()}
        check_tables(self.session, self.view.records(), shapes)

    # Transactions

    def commit(self, expire: bool = True) -> bool:
        """Commit what there is.

        :return: was it committed, and not refused?
        """
        self.session.expire_on_commit = expire
        if not self.write(self.session.commit):
            return False
        self.view.commit()
        self._end()
        return True

    def rollback(self) -> None:
        if self.session.in_transaction():
            self.marks.clear()
        self.session.rollback()
        self.view.rollback()
        self._end()

    def _end(self) -> None:
        self.bulk_written = False
        self.pending.clear()
        self.savepoints.clear()
        self.locked.clear()
        self.sync()

    def begin_savepoint(self) -> None:
        if self.flush():
            savepoint = self.session.begin_nested()
            self.savepoints.append(Savepoint(savepoint, {*self.locked}, {**self.marks}, {**self.marked}))
            self.view.begin_savepoint()

    def release_savepoint(self) -> None:
        if self.savepoints and self.flush() and self.savepoints:
            self.savepoints.pop().transaction.commit()
            self.view.release_savepoint()

    def roll_savepoint_back(self) -> None:
        if not self.savepoints:
            return
        savepoint, self.locked, self.marks, self.marked = self.savepoints.pop()
        savepoint.rollback()
        self.view.roll_savepoint_back()
        if self.bulk_written:
            # The session does not know what a statement in the savepoint has written.
            self.session.expire_all()
        self.pending.clear()
        self.sync()

    def _recover(self, flushed: bool) -> None:
        """Go on after a refusal: from the savepoint, or from the start."""
        if flushed and self.savepoints and self.view.transaction is not None:
            self.roll_savepoint_back()
        else:
            self.rollback()

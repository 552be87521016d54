"""The states of records as plain values, read by statements that are made once for each model.

They can neither be changed nor flushed: for that there are the objects of a `Timeline`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut import queries
from chrononaut.cuts import Cut
from chrononaut.exceptions import PurgedError
from chrononaut.history import ERASED, Key, Operation, versioning_of
from chrononaut.types import Instant, JSONObject, utc


@dataclass(frozen=True, slots=True)
class Span:
    """When a version was valid: [``valid_from``, ``changed``), in UTC.

    :ivar valid_from: ``None`` if the version was there before the record was versioned
    :ivar changed: ``None`` of the live state
    """

    version: int
    valid_from: datetime | None
    changed: datetime | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a version stands among the others of its record.

    :ivar this: ``None`` if there is no such version
    :ivar before: ``None`` if it is the first, and ``after`` if it is the last
    :ivar first: ``None`` if the record has no version at all, and ``last`` likewise
    """

    this: Span | None
    before: Span | None
    after: Span | None
    first: Span | None
    last: Span | None

    @classmethod
    def among(cls, prior: Iterable[Span], live: Span | None, number: int) -> "Place":
        """The place of a version among all those that are next to it, the first and the last.

        :param prior: those that have ended, in any order; one may come several times
        """
        spans = sorted({*prior}, key=lambda span: span.version)
        if live is not None:
            spans.append(live)
        return cls(
            this=next((span for span in spans if span.version == number), None),
            before=next((span for span in reversed(spans) if span.version < number), None),
            after=next((span for span in spans if span.version > number), None),
            first=next(iter(spans), None),
            last=next(reversed(spans), None),
        )


class State(NamedTuple):
    """A state that a record has or had, and what replaced it.

    :ivar valid_from: when it began, in UTC; ``None`` if it was there before the record was versioned
    :ivar changed: when it ended, in UTC; ``None`` of the live state, as is all else that tells of its end
    :ivar values: the tracked attributes
    :ivar dropped: those that the model no longer has, where they have a value
    :ivar erased: the attributes whose values were erased: they are ``None``
    """

    version: int
    valid_from: datetime | None
    changed: datetime | None
    operation: Operation | None
    change_info: JSONObject | None
    transaction_id: UUID | None
    values: Mapping[str, Any]
    dropped: Mapping[str, Any] = MappingProxyType({})
    erased: tuple[str, ...] = ()

    @property
    def is_live(self) -> bool:
        return self.operation is None

    @property
    def known(self) -> Mapping[str, Any]:
        """The tracked attributes whose values were not erased."""
        if not self.erased:
            return self.values
        return {name: value for name, value in self.values.items() if name not in self.erased}

    @property
    def span(self) -> Span:
        """When it was valid."""
        return Span(self.version, self.valid_from, self.changed)


class States:
    """What the states of a model's records are read by.

    ::

        states = States(User)  # once
        state = states.of(session, (42,)).version_at(at)

    Its attributes are statements with parameters, by which `RecordStates <chrononaut.states.RecordStates>` asks.
    """

    def __init__(self, model: type) -> None:
        """:param model: a versioned model"""
        versioning = versioning_of(model)
        self.name = versioning.name
        self.names, self.hidden = tuple(versioning.tracked), tuple(versioning.hidden)
        self.dropped, self.erased_by = tuple(versioning.dropped), versioning.erased_by
        self._bind = {"mapper": versioning.mapper}
        self._key_names = [f"key_{place}" for place in range(len(versioning.key))]
        key = tuple(
            sa.bindparam(name, type_=column.type)
            for name, column in zip(self._key_names, versioning.key_columns, strict=True)
        )
        number, at = sa.bindparam("number", type_=sa.Integer), sa.bindparam("at", type_=Instant)
        version, changed = versioning.column("version"), versioning.column("changed")
        columns = queries.as_columns(model)
        prior = queries.versions(model, key, select=columns)
        self.live = queries.live_state(model, key)
        self.version = prior.where(version == number)
        self.version_at = queries.version_at(model, key, at, columns)
        self.row_from = queries.row_from(model, key, number, columns)
        self.exists = queries.exists(model, key)
        self.last_changed = queries.last_changed(model, key)
        self.spans_around = queries.spans_around(model, key, number)
        self.change_infos = queries.change_infos(model, key, number, sa.bindparam("stop", type_=sa.Integer))
        limit = sa.bindparam("limit", type_=sa.Integer)

        def in_order(select: Any) -> Mapping[str, sa.Select[Any]]:
            limited = select.limit(limit)
            return {"asc": limited, "desc": limited.order_by(None).order_by(version.desc())}

        self.versions = in_order(prior)
        self.versions_and_cuts = in_order(queries.versions_and_cuts(model, key, columns))
        self.cuts = queries.cuts(model, key, number, sa.bindparam("until", type_=sa.Integer), columns)
        self.bounds: Mapping[str, sa.ColumnElement[bool]] = {
            "before": changed <= sa.bindparam("before", type_=Instant),
            "after": changed > sa.bindparam("after", type_=Instant),
            "above": version > sa.bindparam("above", type_=sa.Integer),
            "below": version < sa.bindparam("below", type_=sa.Integer),
        }

    def of(self, source: Session | sa.Connection, key: Key) -> "RecordStates":
        """The states of one record.

        :param source: what is read by. A session flushes first what it has pending.
        :param key: primary key values, in mapping order
        """
        execute: Callable[..., Any] = source.execute
        if isinstance(source, Session):
            # SQLAlchemy 2.0 does so before statements on mapped classes alone; these are on tables.
            if source.autoflush:
                source.flush()
            execute = partial(execute, bind_arguments=self._bind)
        return RecordStates(self, execute, dict(zip(self._key_names, key, strict=True)))


class RecordStates:
    """The states of one record. `chrononaut.States.of` makes it."""

    def __init__(self, states: States, execute: Callable[..., Any], key: Mapping[str, Any]) -> None:
        self._states, self._run, self._key = states, execute, key

    @cached_property
    def live(self) -> State | None:
        """The live state; ``None`` if the record was deleted or never was. It is read once."""
        row = self._execute(self._states.live).one_or_none()
        if row is None:
            return None
        version, valid_from, *values = row
        return State(version, valid_from, None, None, None, None, dict(zip(self._states.names, values, strict=True)))

    def exists(self) -> bool:
        """Is there such a record, or was there ever one?"""
        return self.live is not None or bool(self._execute(self._states.exists).scalar_one())

    def version(self, number: int) -> State | None:
        """The state of a version, a prior one or the live one.

        :raises PurgedError: it was purged
        """
        found = self._find(self._states.version, lambda live: live.version == number, number=number)
        if found is None:
            for state in self._prior(self._states.row_from, number=number):
                cut = _cut(state)
                if cut and cut.first <= number:
                    raise self._error(cut)
        return found

    def version_at(self, at: datetime) -> State | None:
        """The state that was valid at an instant; ``None`` before the record's creation or while it was deleted.

        :param at: an instant; a naive one is read as UTC. Resolution 1 µs.
        :raises PurgedError: it was purged
        """
        since = utc(at)
        state = self._find(
            self._states.version_at, lambda live: live.valid_from is None or live.valid_from <= since, at=since
        )
        cut = state and _cut(state)
        if cut:
            raise self._error(cut)
        return None if state is None or state.operation == "insert" else state

    def versions(self, order: Literal["asc", "desc"], limit: int, **bounds: Any) -> list[State]:
        """Prior versions, by their numbers.

        :param limit: how many at the most
        :param bounds: ``before`` and ``after`` as `chrononaut.Timeline.versions` has them; ``above`` and ``below``
            a number
        """
        return self._bounded(self._states.versions[order], limit=limit, **bounds)

    def versions_and_cuts(self, order: Literal["asc", "desc"], limit: int, **bounds: Any) -> "list[State | Cut]":
        """Prior versions, by their numbers, and what was purged among them.

        :param limit: how many of both at the most
        :param bounds: as `versions` has them, of a cut by its last version
        """
        found = self._bounded(self._states.versions_and_cuts[order], limit=limit, **bounds)
        return [_cut(state) or state for state in found]

    def last_changed(self) -> datetime | None:
        """When the record was last updated or deleted, in UTC; ``None`` if never."""
        last: datetime | None = self._execute(self._states.last_changed).scalar_one_or_none()
        return last

    def place(self, number: int) -> Place:
        """Where a version stands among the others.

        :param number: the number of a version, whether there is one or not
        """
        # The live state first, as in a timeline: if it is replaced in between, it is among the prior ones.
        live = self.live and self.live.span
        prior = [Span(*row) for row in self._execute(self._states.spans_around, number=number)]
        return Place.among(prior, live, number)

    def cuts(self, from_: int, to: int) -> list[Cut]:
        """What was purged between two versions, oldest first."""
        return [cut for state in self._prior(self._states.cuts, number=from_, until=to) if (cut := _cut(state))]

    def hidden_changes(self, from_: int, to: int) -> list[str]:
        """The hidden attributes that changed between two versions, in mapping order."""
        infos = self._execute(self._states.change_infos, number=from_, stop=to).scalars()
        changed = {name for info in infos for name in info.get("hidden_cols_changed", ())}
        return [name for name in self._states.hidden if name in changed]

    def _error(self, cut: Cut) -> PurgedError:
        return cut.error(self._states.name, tuple(self._key.values()))

    def _bounded(self, select: sa.Select[Any], limit: int, **bounds: Any) -> list[State]:
        criteria = [self._states.bounds[name] for name in bounds]
        return self._prior(select.where(*criteria) if criteria else select, limit=limit, **bounds)

    def _find(self, select: sa.Select[Any], is_it: Callable[[State], bool], **parameters: Any) -> State | None:
        """A prior state, or else the live one if that is it."""
        prior = self._prior(select, **parameters)
        if not prior and self.live is not None and is_it(self.live):
            return self.live
        # Where the transaction has no snapshot, it may have been replaced after it was looked for.
        return next(iter(prior or self._prior(select, **parameters)), None)

    def _prior(self, select: sa.Select[Any], **parameters: Any) -> list[State]:
        names, dropped = self._states.names, self._states.dropped
        states = []
        rows = self._execute(select, **parameters).all()
        for version, valid_from, changed, operation, info, transaction_id, *values in rows:
            # The names of what was dropped come last.
            state = State(version, valid_from, changed, operation, info, transaction_id, dict(zip(names, values)))  # noqa: B905
            if dropped:
                lost = zip(dropped, values[len(names) :], strict=True)
                state = state._replace(dropped={name: value for name, value in lost if value is not None})
            if ERASED in info:
                state = state._replace(erased=self._states.erased_by(info))
            states.append(state)
        return states

    def _execute(self, statement: Any, **parameters: Any) -> Any:
        return self._run(statement, {**self._key, **parameters})


def _cut(state: State) -> Cut | None:
    """The cut that a row of history is, read as a state."""
    if state.operation != "purge":
        return None
    assert state.changed is not None
    assert state.change_info is not None
    return Cut.read(state.version, state.changed, state.change_info)

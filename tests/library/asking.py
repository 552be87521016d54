"""Ask the library of whole tables and of transactions, and hold the answers against the oracle."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

import chrononaut
from chrononaut import ChangeFilter
from chrononaut.feed import FeedPage, Position, feed, transaction
from chrononaut.history import versioning_of
from tests.library import oracle
from tests.library.comparing import TICK, expected, history_of, told
from tests.library.oracle import Change, Ends, Ident, Record, State
from tests.library.rows import Row
from tests.library.shapes import BELOW, MODELS, SHAPES, db


class Which(NamedTuple):
    """Which changes are asked for.

    :ivar what: an attribute, an operation, a key of the extra change info, since or until an instant; else all
    :ivar number: which attribute, operation, key or instant, of those that there are
    """

    what: str
    number: int


WHAT = ("all", "attribute", "operation", "extra", "since", "until")


@dataclass(frozen=True)
class Asking:
    """What a session can ask of all that it sees.

    :ivar histories: the history rows of each record, by version
    """

    session: Session
    records: Mapping[Ident, Record]
    histories: Mapping[Ident, list[Row]]

    @classmethod
    def of(cls, session: Session, records: Mapping[Ident, Record]) -> "Asking":
        return cls(session, records, {ident: history_of(session, ident) for ident in records})

    @property
    def ends(self) -> Ends:
        return {ident: [row["changed"] for row in rows] for ident, rows in self.histories.items()}

    def check_feed(self, shape: str, which: Which, limit: int) -> None:
        """Read the feed of a model, page by page."""
        changes = oracle.feed(SHAPES[shape], self._records(shape), self.ends)
        filter_, keeps = _filter(shape, which, changes)
        found = _read(limit, partial(feed, self.session, MODELS[shape], filter_, limit))
        wanted = [expected(change, shape) for change in changes if keeps(change)]
        assert [told(change) for change in found] == wanted, f"the feed of {shape}, {filter_}"

    def check_as_of(self, shape: str) -> None:
        """Select the table of a model as of each instant of its history."""
        records, ends, names = self._records(shape), self.ends, SHAPES[shape].tracked
        model, key = MODELS[shape], SHAPES[shape].key
        instants = {end for ident in records for end in ends[ident]}
        # What holds at an instant holds until just before the next one: what is just after it needs no asking.
        for at in sorted(instants | {end - TICK for end in instants}):
            states = self.session.scalars(model.as_of(at)).all()
            found = {
                tuple(getattr(state, name) for name in key): State(
                    state.version, {name: getattr(state, name) for name in names}, state.valid_from, state.changed
                )
                for state in states
            }
            assert len(found) == len(states), f"{shape} as of {at} has a record twice"
            assert found == oracle.as_of(SHAPES[shape], records, ends, at), f"{shape} as of {at}"

    def check_transactions(self) -> None:
        """Ask for all that each transaction has changed, page by page; and for the last one's at once."""
        ids = {
            row.transaction: found["transaction_id"]
            for ident, record in self.records.items()
            for row, found in zip(record.rows, self.histories[ident], strict=True)
        }
        shapes = {ident.shape for ident in self.records}
        models = [versioning_of(MODELS[shape]) for shape in {*shapes, *BELOW}]
        for number, id_ in ids.items():
            wanted = [expected(change) for change in oracle.transaction(SHAPES, self.records, self.ends, number)]
            changes = _read(2, partial(transaction, self.session, models, id_, 2))
            assert {change.transaction_id for change in changes} == {id_}
            assert [told(change) for change in changes] == wanted
        if ids:
            # All models are asked here.
            assert [told(change) for change in db.transaction(id_)] == wanted

    def _records(self, shape: str) -> dict[Ident, Record]:
        """The records of a model, those of the models below it included."""
        shapes = (shape, *BELOW.get(shape, ()))
        return {ident: record for ident, record in self.records.items() if ident.shape in shapes}


def _read(limit: int, page_at: Callable[[Position | None], FeedPage]) -> list[chrononaut.Change]:
    """All changes of pages that follow each other."""
    page = page_at(None)
    found = page.changes
    while page.next is not None:
        assert len(page.changes) == limit, "each page but the last is full"
        page = page_at(page.next)
        found += page.changes
        assert page.changes, "no page is empty but the only one"
    assert len(page.changes) <= limit
    return found


def _filter(shape: str, which: Which, changes: list[Change]) -> tuple[ChangeFilter, Callable[[Change], bool]]:
    def of(choices: list[Any]) -> Any:
        return choices[which.number % len(choices)]

    instants = sorted({change.at for change in changes})
    if which.what == "attribute":
        name = of([*SHAPES[shape].tracked, *SHAPES[shape].hidden])
        return ChangeFilter(attribute=name), lambda change: name in change.names
    if which.what == "operation":
        operation = of(["insert", "update", "delete"])
        return ChangeFilter(operation=operation), lambda change: change.row.operation == operation
    if which.what == "extra":
        extra = of([{"who": "a"}, {"why": "b"}, {"rationale": "a"}, {"who": "b", "why": "b"}])
        return ChangeFilter(extra=extra), lambda change: extra.items() <= change.row.extra.items()
    if which.what == "since" and instants:
        since = of(instants)
        return ChangeFilter(since=since), lambda change: change.at > since
    if which.what == "until" and instants:
        until = of(instants)
        return ChangeFilter(until=until), lambda change: change.at <= until
    return ChangeFilter(), lambda change: True

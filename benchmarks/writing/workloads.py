"""What is done with the records, in sessions as applications have them. What prepares it is outside of the meter."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from benchmarks.changes import Change, Operation, read
from benchmarks.writing.contestants import CHRONONAUT, CONTINUUM, FLOOR, HISTORY_OBJECT, NAMES, TRIGGER, Contestant
from benchmarks.writing.meters import Meter
from benchmarks.writing.models import change, values
from chrononaut import rationale

CHANGES: Final = Path(__file__).parents[3] / "shared" / "data" / "releases.ndjson.gz"
"""The real changes."""

Work = Callable[[Contestant, Meter, int], None]
"""Does something with so many records inside a meter, in an application's context."""

_LISTED: Final = 20
"""How often the versions are listed in a round."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Something to do with records.

    :ivar key: its name on the command line
    :ivar name: what is done, with a place for the number of records
    :ivar size: of how many records, or of how many transactions of real changes
    :ivar contestants: those that do it; the first is what the others are compared with
    :ivar unable: those that would leave no history of it
    :ivar is_filled: are the records there before?
    :ivar quick: the size for a quick run
    :ivar counts: does it leave one row of history for each record that it is of?
    :ivar writes_apart: does Chrononaut write the history of the records by statements of their own?
    """

    key: str
    name: str
    work: Work
    size: int
    quick: int
    contestants: Sequence[str] = NAMES
    unable: Sequence[str] = ()
    is_filled: bool = True
    counts: bool = True
    writes_apart: bool = True

    @property
    def title(self) -> str:
        """What is done, for a person."""
        return self.name.format(self.size)

    @property
    def filled(self) -> int:
        """How many records are there before."""
        return self.size if self.is_filled else 0

    def of(self, size: int) -> Workload:
        """The same with so many records."""
        return replace(self, size=size)

    def quickly(self) -> Workload:
        """The same with less records."""
        return self.of(self.quick)


def insert(contestant: Contestant, meter: Meter, size: int) -> None:
    """Insert records in one flush."""
    session = contestant.db.session()
    records = [contestant.model(**values(number)) for number in range(1, size + 1)]
    gc.collect()
    with meter:
        session.add_all(records)
        session.commit()


def update(contestant: Contestant, meter: Meter, size: int) -> None:
    """Update records in one flush."""
    session = contestant.db.session()
    records = _loaded(contestant)
    gc.collect()
    with meter:
        for record in records:
            change(record)
        session.commit()


def delete(contestant: Contestant, meter: Meter, size: int) -> None:
    """Delete records in one flush."""
    session = contestant.db.session()
    records = _loaded(contestant)
    gc.collect()
    with meter:
        for record in records:
            session.delete(record)
        session.commit()


def transactions(contestant: Contestant, meter: Meter, size: int) -> None:
    """Update each record in a transaction of its own, in a session of its own, as requests do."""
    gc.collect()
    for key in range(1, size + 1):
        session = contestant.db.session()
        record = session.get_one(contestant.model, key)
        with meter:
            change(record)
            session.commit()
        contestant.db.session.remove()


def bulk(contestant: Contestant, meter: Meter, size: int) -> None:
    """Update all records by one statement."""
    session, model = contestant.db.session(), contestant.model
    statement = sa.update(model).values(quantity=model.quantity + 1, paid=~model.paid, note="Changed at once.")
    gc.collect()
    with meter:
        session.execute(statement)
        session.commit()


def listing(contestant: Contestant, meter: Meter, size: int) -> None:
    """List the versions of one record as objects, or as many records where there is no history."""
    if contestant.history is not None:
        session = contestant.db.session()
        record = session.get_one(contestant.model, 1)
        for _ in range(size):
            change(record)
            session.flush()
        session.commit()
    for _ in range(_LISTED):
        contestant.db.session.remove()
        session = contestant.db.session()
        record = session.get_one(contestant.model, 1)
        with meter:
            listed = record.versions() if contestant.history is not None else _loaded(contestant)
        assert len(listed) == size


def replay(contestant: Contestant, meter: Meter, size: int) -> None:
    """Make real changes again, one transaction for those that were made together, each in a session of its own."""
    model = contestant.release
    together = [list(group) for _, group in groupby(real_changes(), key=lambda one: one.ref)][:size]
    gc.collect()
    for group in together:
        session = contestant.db.session()
        records = {one.key: session.get(model, one.key) for one in group}
        with meter, nullcontext() if contestant.history is None else rationale(group[0].rationale):
            for one in group:
                if one.operation is Operation.INSERT:
                    session.add(model(**one.key._asdict(), **_texts(one)))
                elif one.operation is Operation.DELETE:
                    session.delete(records[one.key])
                else:
                    for name, value in _texts(one).items():
                        setattr(records[one.key], name, value)
            session.commit()
        contestant.db.session.remove()


@cache
def real_changes() -> Sequence[Change]:
    """All of them, from the file `CHANGES`."""
    return read(CHANGES)


def _texts(one: Change) -> Mapping[str, str | None]:
    """The values of a change; true and false as text."""
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in one.values.items()}


def _loaded(contestant: Contestant) -> Sequence[Any]:
    model = contestant.model
    return contestant.db.session.scalars(sa.select(model).order_by(model.id)).all()


INSERT: Final = Workload("insert", "insert {:,} in one flush", insert, 10_000, 1_000, is_filled=False)
UPDATE: Final = Workload("update", "update {:,} in one flush", update, 10_000, 1_000)
TRANSACTIONS: Final = Workload("transactions", "{:,} transactions of one row", transactions, 2_000, 200)
DELETE: Final = Workload("delete", "delete {:,} in one flush", delete, 2_000, 500)
BULK: Final = Workload(
    "bulk",
    "update {:,} by one statement",
    bulk,
    100_000,
    10_000,
    contestants=(FLOOR, CHRONONAUT, TRIGGER),
    unable=(HISTORY_OBJECT, CONTINUUM),
    writes_apart=False,
)
LISTING: Final = Workload(
    "listing", "list {:,} versions", listing, 1_000, 200, contestants=(FLOOR, CHRONONAUT), writes_apart=False
)
REPLAY: Final = Workload(
    "replay",
    "{:,} transactions of real changes",
    replay,
    500,
    50,
    contestants=(FLOOR, CHRONONAUT),
    is_filled=False,
    counts=False,
    writes_apart=False,
)

WORKLOADS: Final = (INSERT, UPDATE, TRANSACTIONS, DELETE, BULK, LISTING, REPLAY)

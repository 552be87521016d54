"""How long `version_at` takes in histories of some lengths."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median, quantiles
from typing import Final

from flask import Flask

from benchmarks.reading.databases import database
from benchmarks.reading.filling import Rows, fill
from benchmarks.reading.models import Document, db
from benchmarks.writing.measuring import Ratio
from chrononaut import queries

LENGTHS: Final = (1_000, 10_000, 100_000, 1_000_000)
QUICK_LENGTHS: Final = LENGTHS[:2]
_ASKED: Final = 200
_WARM_UP: Final = 10


class WrongVersionError(Exception):
    """Another version than the right one was found, so that nothing was measured."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """How long the state in the middle of a history took to find, in seconds, time by time.

    :ivar versions: how many prior versions the record has
    """

    versions: int
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return median(self.seconds)

    def ratio(self, other: Lookup) -> Ratio:
        """How many times as long as in another history, asked in turn."""
        ratios = [one / another for one, another in zip(self.seconds, other.seconds, strict=True)]
        first, middle, third = quantiles(ratios, method="inclusive")
        return Ratio(middle, first, third)


def look_up(kind: str, lengths: Sequence[int]) -> Iterator[list[Lookup]]:
    """Write a history of each length, and ask them in turn.

    :param kind: the kind of the database
    :return: what was measured so far, again and again
    :raises WrongVersionError: a wrong version was found
    """
    lookups = [Lookup(length) for length in lengths]
    with database(kind) as app:
        now = datetime.now(UTC)
        for key, length in enumerate(lengths, start=1):
            for _ in fill(db.engine, Rows(Document, key, 1, length + 1), now):
                yield lookups
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE" if kind == "postgresql" else "ANALYZE")
        instants = [_middle(key, length) for key, length in enumerate(lengths, start=1)]
        for number in range(_WARM_UP + _ASKED):
            for key, (lookup, at) in enumerate(zip(lookups, instants, strict=True), start=1):
                seconds = _ask(app, key, at, lookup.versions // 2 + 1)
                if number >= _WARM_UP:
                    lookup.seconds.append(seconds)
        yield lookups


def _middle(key: int, versions: int) -> datetime:
    """When the middle version of a document ended."""
    select = queries.version(Document, (key,), versions // 2)
    ended: datetime = db.session.scalars(select).one().changed
    db.session.remove()
    return ended


def _ask(app: Flask, key: int, at: datetime, version: int) -> float:
    # The context's session is a new one.
    with app.app_context():
        began = time.perf_counter()
        found = Document.timeline(key).version_at(at)
        took = time.perf_counter() - began
        if found is None or found.version != version:
            raise WrongVersionError(f"version_at found {found!r}, and should have found version {version:,}")
    return took

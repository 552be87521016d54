"""What the library may cost at the most, and what it does cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from benchmarks.writing.contestants import CHRONONAUT, FLOOR, TRIGGER
from benchmarks.writing.lookups import Lookup
from benchmarks.writing.measuring import Measured
from benchmarks.writing.working import Sizes
from benchmarks.writing.workloads import BULK, DELETE, INSERT, LISTING, TRANSACTIONS, UPDATE


@dataclass(frozen=True, slots=True)
class Results:
    """What was measured on one database.

    :ivar release: the name and the version of the database
    :ivar memory: contestant → the most bytes that it held in the flush of updates
    :ivar sizes: contestant → how large its rows are; empty where that was not measured
    """

    release: str
    measured: list[Measured] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, Sizes] = field(default_factory=dict)
    lookups: list[Lookup] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the library costs, held against what it may.

    :ivar name: what was measured
    :ivar figure: what was found, for a person
    :ivar limit: what is allowed, for a person
    """

    name: str
    figure: str
    limit: str
    is_met: bool


LIMITS: Final = {
    INSERT.key: (FLOOR, 1.15),
    UPDATE.key: (FLOOR, 1.10),
    TRANSACTIONS.key: (FLOOR, 1.20),
    DELETE.key: (FLOOR, 1.15),
    BULK.key: (TRIGGER, 1.0),
    LISTING.key: (FLOOR, 1.1),
}
"""Workload → what it is compared with, and how many times as long it may take."""
MEMORY: Final = 1.1
"""How many times as much memory as without history."""
BYTES: Final = 160
"""By how much a version may be larger than the live row."""


def verdicts(results: Results) -> Iterator[Verdict]:
    """Hold what was measured against the targets; nothing of what was not."""
    for measured in results.measured:
        if measured.workload.key in LIMITS:
            base, limit = LIMITS[measured.workload.key]
            ratio = measured.ratio(CHRONONAUT, base)
            yield Verdict(measured.workload.title, str(ratio), f"{limit:g} times the {base}", ratio.median <= limit)
    if results.memory:
        times = results.memory[CHRONONAUT] / results.memory[FLOOR]
        yield Verdict(
            "peak memory of the update in one flush", f"{times:.2f}", f"{MEMORY:g} times the {FLOOR}", times <= MEMORY
        )
    if results.sizes:
        more = (results.sizes[CHRONONAUT].kept or 0) - results.sizes[FLOOR].live
        yield Verdict("bytes of a version", f"live row + {more:.0f}", f"live row + {BYTES}", more <= BYTES)


def failures(results: list[Results]) -> Iterator[str]:
    """The targets that are missed, a sentence each."""
    for one in results:
        for verdict in verdicts(one):
            if not verdict.is_met:
                yield f"{one.release}: {verdict.name}: {verdict.figure}; at most {verdict.limit} is allowed"

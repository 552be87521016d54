"""Read every history back and hold it against the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from benchmarks.changes import History, Operation
from benchmarks.replay.comparing import Answers, Difference, compare
from benchmarks.replay.errors import RecordError
from benchmarks.replay.service import Service
from benchmarks.replay.wire import key_text
from benchmarks.replay.workers import work

SHOWN: Final = 20
"""How many differences are told in full."""


@dataclass(slots=True)
class Findings:
    """What reading back found.

    :ivar keys: how many records were compared
    :ivar versions: how many states of them, prior and live
    :ivar changes: how many changes of them
    :ivar differences: how many differences
    :ivar first: the first differences, by the order of the records in the file
    :ivar errors: what could not be read, one line each
    """

    keys: int = 0
    versions: int = 0
    changes: int = 0
    differences: int = 0
    first: list[Difference] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Word it for a person."""
        return (
            f"verified: {self.keys:,} keys, {self.versions:,} versions compared, {self.differences:,} differences"
            f" ({self.changes:,} changes, {len(self.errors):,} errors)"
        )


class Verifier:
    """Reads the histories of some records and compares them, one after the other."""

    def __init__(self, service: Service, histories: Sequence[History], *, dated: bool) -> None:
        self.done = 0
        self.findings = Findings()
        self._service = service
        self._histories = histories
        self._dated = dated

    def run(self) -> None:
        """Compare them all, or until the run is over."""
        for history in self._histories:
            if self._service.stop.is_set():
                return
            try:
                self._compare(history)
            except RecordError as error:
                self.findings.errors.append(f"{key_text(history.key)}: {error}")
            self.done += 1

    def _compare(self, history: History) -> None:
        differences = compare(history, self._read(history), dated=self._dated)
        operations = Counter(change.operation for change in history.changes)
        found = self.findings
        found.keys += 1
        # Every insert and every update makes one state.
        found.versions += operations[Operation.INSERT] + operations[Operation.UPDATE]
        found.changes += operations.total()
        told = list(islice(differences, SHOWN - len(found.first)))
        found.first += told
        found.differences += len(told) + sum(1 for _ in differences)

    def _read(self, history: History) -> Answers | None:
        versions = self._service.history(history.key)
        if versions is None:
            return None
        changes = self._service.changes(history.key)
        if changes is None:
            raise RecordError("has a history and no changes")
        page, rows = versions
        if "current" not in page:
            raise RecordError("answered a history without current")
        return Answers(page["current"], rows, changes[1])


def verify(service: Service, histories: Sequence[History], *, dated: bool = False) -> Findings:
    """Read histories back, over all connections at once, and compare them.

    :param histories: what the service must hold, in the order of the file
    :param dated: whether each change must have the instant that the file gives
    :raises ReplayError: the run cannot go on
    """
    verifiers = [
        Verifier(service, histories[start :: service.connections], dated=dated) for start in range(service.connections)
    ]
    work(verifiers, stop=service.stop, total=len(histories), label="verifying", unit="record")
    total = Findings()
    for verifier in verifiers:
        found = verifier.findings
        total.keys += found.keys
        total.versions += found.versions
        total.changes += found.changes
        total.differences += found.differences
        total.first += found.first
        total.errors += found.errors
    place = {history.key: index for index, history in enumerate(histories)}
    total.first = sorted(total.first, key=lambda difference: place[difference.key])[:SHOWN]
    return total

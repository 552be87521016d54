"""Ask the service, before anything is sent, how far each record has come already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from benchmarks.changes import Key
from benchmarks.replay.errors import RecordError
from benchmarks.replay.service import Service
from benchmarks.replay.workers import work

Standing: TypeAlias = int | RecordError
"""How many changes a record has gone through, or why that cannot be told."""


class Inquirer:
    """Asks for some records, one after the other.

    :ivar standings: what the service answered
    """

    def __init__(self, service: Service, keys: Sequence[Key]) -> None:
        self.done = 0
        self.standings: dict[Key, Standing] = {}
        self._service = service
        self._keys = keys

    def run(self) -> None:
        """Ask for them all, or until the run is over."""
        for key in self._keys:
            if self._service.stop.is_set():
                return
            try:
                self.standings[key] = self._service.change_count(key)
            except RecordError as error:
                self.standings[key] = error
            self.done += 1


def ask(service: Service, keys: Sequence[Key]) -> dict[Key, Standing]:
    """Ask for records, over all connections at once.

    :return: an answer for each key
    :raises ReplayError: the run cannot go on
    """
    inquirers = [Inquirer(service, keys[start :: service.connections]) for start in range(service.connections)]
    work(inquirers, stop=service.stop, total=len(keys), label="asking", unit="record")
    return {key: standing for inquirer in inquirers for key, standing in inquirer.standings.items()}

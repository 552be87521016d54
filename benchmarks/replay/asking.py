"""Ask the service, before anything is sent, how far each record has come already."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event
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

    def __init__(self, service: Service, keys: Sequence[Key], *, stop: Event) -> None:
        self.done = 0
        self.standings: dict[Key, Standing] = {}
        self._service = service
        self._keys = keys
        self._stop = stop

    def run(self) -> None:
        """Ask for them all, or until the run is over."""
        for key in self._keys:
            if self._stop.is_set():
                return
            try:
                self.standings[key] = self._service.change_count(key)
            except RecordError as error:
                self.standings[key] = error
            self.done += 1


def ask(service: Service, keys: Sequence[Key], *, connections: int, stop: Event) -> dict[Key, Standing]:
    """Ask for records.

    :param connections: how many threads ask, each over a connection of its own
    :return: an answer for each key
    :raises ReplayError: the run cannot go on
    """
    inquirers = [Inquirer(service, keys[start::connections], stop=stop) for start in range(connections)]
    work(inquirers, stop=stop, total=len(keys), label="asking", unit="record")
    return {key: standing for inquirer in inquirers for key, standing in inquirer.standings.items()}

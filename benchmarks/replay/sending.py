"""Send each change as one request, over several connections, each record's changes in the order of the file."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from math import ceil
from typing import Final

from benchmarks.changes import Change, History, Key, Operation
from benchmarks.replay.asking import Standing
from benchmarks.replay.errors import GaveUpError, NoAnswerError, RecordError, UnusableError
from benchmarks.replay.service import COME_AGAIN, PAUSES, Answer, Service
from benchmarks.replay.wire import RECORDS, entity_tag, header_value, key_text, record_path
from benchmarks.replay.workers import shard, work

SUCCESS: Final = {
    Operation.INSERT: HTTPStatus.CREATED,
    Operation.UPDATE: HTTPStatus.OK,
    Operation.DELETE: HTTPStatus.NO_CONTENT,
}
"""The one answer that says that a change was made."""

_PERCENTILES: Final = (50, 95, 99)
_MERGE_PATCH: Final = "application/merge-patch+json"
_OUT_OF_STEP: Final = frozenset(
    {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE, HTTPStatus.PRECONDITION_FAILED}
)
"""Answers that a repeated write gets when the first one had been carried out after all."""


@dataclass(slots=True)
class Tally:
    """What became of the changes.

    :ivar sent: how many of each kind were made by this run
    :ivar found: how many of these got no answer, or an unclear one, and were then found in the history
    :ivar already: how many an earlier run had made
    :ivar unsent: how many were left out because one before them, of the same record, was refused
    :ivar errors: what was refused, one line each
    :ivar latencies: seconds from each request to its answer, for the requests that made a change
    """

    sent: Counter[Operation] = field(default_factory=Counter)
    found: int = 0
    already: int = 0
    unsent: int = 0
    errors: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    @classmethod
    def sum(cls, tallies: Iterable[Tally]) -> Tally:
        """Add up what several workers did."""
        total = cls()
        for tally in tallies:
            total.sent += tally.sent
            total.found += tally.found
            total.already += tally.already
            total.unsent += tally.unsent
            total.errors += tally.errors
            total.latencies += tally.latencies
        return total

    def summary(self, seconds: float) -> str:
        """Word it for a person.

        :param seconds: how long the run took
        """
        count = self.sent.total()
        lines = [("changes sent", f"{count:,}")]
        lines += [(f"  {operation}s", f"{self.sent[operation]:,}") for operation in Operation]
        lines += [
            ("already there", f"{self.already:,}"),
            ("unclear, then found", f"{self.found:,}"),
            ("errors", f"{len(self.errors):,}"),
            ("left out after errors", f"{self.unsent:,}"),
            ("seconds", f"{seconds:,.1f}"),
            ("writes per second", f"{count / seconds:,.1f}" if count else "-"),
        ]
        ordered = sorted(self.latencies)
        lines += [(f"latency p{rank}, ms", milliseconds(ordered, rank)) for rank in _PERCENTILES]
        return "\n".join(f"{name:<22}{value:>12}" for name, value in lines)


def milliseconds(ordered: Sequence[float], rank: int) -> str:
    """Word a percentile, by nearest rank.

    :param ordered: seconds, ascending
    :param rank: 1 to 100
    """
    if not ordered:
        return "-"
    return f"{ordered[ceil(len(ordered) * rank / 100) - 1] * 1000:,.1f}"


class Sender:
    """Sends the changes of some records, one after the other.

    :param changes: theirs, in the order of the file
    :param starts: for each of their records how many of them to pass over, or why to leave it alone
    :param resume: whether an earlier run has made those
    """

    def __init__(
        self, service: Service, changes: Sequence[Change], starts: Mapping[Key, Standing], *, resume: bool
    ) -> None:
        self.done = 0
        self.tally = Tally()
        self._service = service
        self._changes = changes
        self._starts = starts
        self._resume = resume
        self._position: Counter[Key] = Counter()
        self._refused: set[Key] = set()

    def run(self) -> None:
        """Send them all, or until the run is over."""
        for change in self._changes:
            if self._service.stop.is_set():
                return
            self._take(change)
            self.done += 1

    def _take(self, change: Change) -> None:
        key = change.key
        if key in self._refused:
            self.tally.unsent += 1
            return
        position = self._position[key]
        self._position[key] += 1
        try:
            start = self._starts[key]
            if isinstance(start, RecordError):
                raise start
            if position < start:
                self.tally.already += 1
            else:
                self._send(change, position, uncertain=self._resume and position == start)
        except RecordError as error:
            self._refused.add(key)
            self.tally.errors.append(f"{key_text(key)}, change {position + 1} ({change.operation}): {error}")

    def _send(self, change: Change, position: int, *, uncertain: bool) -> None:
        """Make one change, exactly once.

        :param position: how many changes of the record come before it
        :param uncertain: it may have been sent before, by a run that was killed, and be still on its way
        :raises RecordError: the service refuses it
        :raises GaveUpError: there was no answer, after all tries
        """
        for pause in (*PAUSES, None):
            wait = 0.0
            started = time.perf_counter()
            try:
                answer = self._request(change, position)
            except NoAnswerError as error:
                failure = str(error)
            else:
                if answer.status == SUCCESS[change.operation]:
                    self.tally.latencies.append(time.perf_counter() - started)
                    self.tally.sent[change.operation] += 1
                    return
                if answer.status not in COME_AGAIN:
                    self._examine_refusal(change, position, answer, uncertain=uncertain)
                    return
                failure, wait = str(answer), answer.retry_after
            uncertain = True
            if pause is not None:
                self._service.wait(max(pause, wait))
            if self._is_made(change, position):
                self._found(change)
                return
        raise GaveUpError(f"gave up on {self._service.url} after {len(PAUSES) + 1} tries: {failure}")

    def _request(self, change: Change, position: int) -> Answer:
        headers = {"X-Change-Rationale": header_value(change.rationale)}
        if change.operation is Operation.INSERT:
            body = {**change.key._asdict(), **change.values}
            return self._service.request("POST", RECORDS, body=body, headers=headers)
        path = record_path(change.key)
        # A write without an answer may be carried out late, after it was sent again: of two with one tag, one succeeds.
        headers["If-Match"] = entity_tag(position - 1)
        if change.operation is Operation.DELETE:
            return self._service.request("DELETE", path, headers=headers)
        headers["Content-Type"] = _MERGE_PATCH
        return self._service.request("PATCH", path, body=dict(change.values), headers=headers)

    def _examine_refusal(self, change: Change, position: int, answer: Answer, *, uncertain: bool) -> None:
        if change.operation is Operation.INSERT and answer.status == HTTPStatus.NOT_FOUND:
            raise UnusableError(f"{self._service.url} does not serve {RECORDS}: it answered {answer}")
        if uncertain and answer.status in _OUT_OF_STEP and self._is_made(change, position):
            self._found(change)
            return
        raise RecordError(f"answered {answer}")

    def _is_made(self, change: Change, position: int) -> bool:
        count = self._service.change_count(change.key)
        if count not in (position, position + 1):
            raise RecordError(
                f"the service has {count} changes of it where {position} were made: another client writes it"
            )
        return count > position

    def _found(self, change: Change) -> None:
        self.tally.found += 1
        self.tally.sent[change.operation] += 1


def starting_points(
    histories: Mapping[Key, History], standings: Mapping[Key, Standing], *, resume: bool
) -> dict[Key, Standing]:
    """Say where to begin with each record.

    :param standings: what the service has of each
    :param resume: go on from there, instead of refusing records that it has
    :return: how many of the changes to pass over, or why to leave the record alone
    """
    starts: dict[Key, Standing] = {}
    for key, history in histories.items():
        standing = starts[key] = standings[key]
        if isinstance(standing, RecordError):
            continue
        # Also of a deleted record, where the insert would be let in and begin a second life.
        if standing and not resume:
            starts[key] = RecordError(
                f"it is already there, with {standing} changes; use --resume to go on where an earlier run ended"
            )
        elif standing > len(history.changes):
            starts[key] = RecordError(
                f"the service has {standing} changes of it, more than the {len(history.changes)} to send"
            )
    return starts


def send(
    service: Service, changes: Sequence[Change], starts: Mapping[Key, Standing], *, resume: bool
) -> tuple[Tally, float]:
    """Send changes to the service, over all connections at once.

    :param changes: in the order of the file
    :param starts: for each record how many of its changes to pass over, or why to leave it alone
    :param resume: whether an earlier run has made those
    :return: what became of them, and how many seconds it took
    :raises ReplayError: the run cannot go on
    """
    shares: list[list[Change]] = [[] for _ in range(service.connections)]
    for change in changes:
        shares[shard(change.key, service.connections)].append(change)
    senders = [Sender(service, share, starts, resume=resume) for share in shares]
    seconds = work(senders, stop=service.stop, total=len(changes), label="sending", unit="change")
    return Tally.sum(sender.tally for sender in senders), seconds

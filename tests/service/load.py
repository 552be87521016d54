"""Clients that read and write without a pause, and know by themselves what they were told of each write."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from threading import Lock, Thread
from typing import Any

import urllib3

RECORDS = 20
_PAUSE = 0.02  # seconds after what was not answered


@dataclass
class Load:
    """What some clients do, and what they are answered. Each write has a reason that no other has.

    :ivar statuses: of all answers
    :ivar acknowledged: reasons of the writes that are made, as their answers say
    :ivar refused: of those that are not
    :ivar unknown: of those that were not answered, or whose answer is that nobody knows
    :ivar dropped: when connections ended without an answer, or were refused, on the monotonic clock
    :ivar succeeded: when the latest success was answered, on the monotonic clock
    :ivar wrong: answers that are none that there may be
    """

    port: int
    token: str
    statuses: Counter[int] = field(default_factory=Counter)
    acknowledged: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    dropped: list[float] = field(default_factory=list)
    succeeded: float = 0.0
    wrong: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _lock: Lock = field(default_factory=Lock)
    _ended: threading.Event = field(default_factory=threading.Event)

    def requests(self) -> int:
        return self.statuses.total()

    @contextmanager
    def running(self, clients: int) -> Iterator[None]:
        """Let the clients ask until the end of the block."""
        threads = [Thread(target=self._ask, daemon=True) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join(60)
            assert not any(thread.is_alive() for thread in threads), "a request has not been answered"

    def _ask(self) -> None:
        pool = urllib3.HTTPConnectionPool("127.0.0.1", self.port, maxsize=1, timeout=60)
        while not self._ended.is_set():
            self._request(pool, *self._choose())
        pool.close()

    def _choose(self) -> tuple[str, str, Any]:
        number, draw = random.randint(1, RECORDS), random.random()
        if draw < 0.5:
            return "PATCH", f"/records/user/{number}", {"name": f"name {random.random()}"}
        if draw < 0.55:
            return "POST", "/records/user", {"email": f"{random.random()}@example.com"}
        paths = (
            f"/records/user/{number}",
            f"/history/user/{number}?limit=20&order=desc",
            "/history/user?limit=20",
            f"/history/user/{number}/blame",
            "/records/user?limit=20",
        )
        return "GET", random.choice(paths), None

    def _request(self, pool: urllib3.HTTPConnectionPool, method: str, path: str, body: Any) -> None:
        reason = None if method == "GET" else str(next(self._numbers))
        headers = {"Authorization": f"Bearer {self.token}"} | ({"X-Change-Rationale": reason} if reason else {})
        try:
            answer = pool.request(method, path, json=body, headers=headers, retries=False)
            problem = answer.json()
        except (urllib3.exceptions.HTTPError, ValueError):
            with self._lock:
                self.dropped.append(time.monotonic())
                self._note(self.unknown, reason)
            time.sleep(_PAUSE)
            return
        with self._lock:
            self.statuses[answer.status] += 1
            if answer.status in {200, 201}:
                self.succeeded = time.monotonic()
                self._note(self.acknowledged, reason)
            else:
                self._refused(answer, problem, reason)
        if answer.status not in {200, 201}:
            time.sleep(_PAUSE)

    def _refused(self, answer: urllib3.BaseHTTPResponse, problem: Mapping[str, Any], reason: str | None) -> None:
        kind = problem.get("type")
        self._note(self.unknown if kind == "/problems/outcome-unknown" else self.refused, reason)
        if answer.status != 503 or "Retry-After" not in answer.headers or not str(kind).startswith("/problems/"):
            self.wrong.append(f"{answer.status} {problem}")

    def _note(self, which: set[str], reason: str | None) -> None:
        if reason is not None:
            which.add(reason)

"""Metrics for Prometheus, at ``/metrics``: of all workers together, also of those that have ended.

`app.server` gives a folder in which each worker keeps its numbers in files of its own; without one they are those of
this process. Labels are names out of lists that the service has, as routes, models and kinds: no address, key or value.
"""

import fcntl
import json
import os
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging import Logger
from pathlib import Path
from threading import Lock
from typing import Any, Final
from uuid import UUID
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from flask import Flask, Response, current_app, request
from flask_sqlalchemy import SQLAlchemy
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, mmap_dict, multiprocess
from prometheus_client.exposition import choose_encoder

from app.api import WRITING
from app.auth.access import requires
from app.facts import facts_of
from app.pool import Pool
from app.registry import Registry
from chrononaut import versions_committed
from chrononaut.history import Operation

FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that names the folder where the workers of one server keep their numbers."""

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_OPERATIONS: tuple[Operation, ...] = ("insert", "update", "delete")
_BEGAN: Final = "chrononaut.began"
_ENDED: Final = 0
"""What stands in the place of the process's number in the files of workers that have ended."""


class Metrics:
    """The numbers of one application.

    They are of one worker, or in the folder of a server.
    """

    def __init__(self, registry: Registry, engines: Mapping[str, sa.Engine]) -> None:
        """:param engines: by the names of their databases"""
        folder = os.environ.get(FOLDER)
        if folder:
            Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._models = {resource.model: resource.name for resource in registry.values()}
        self._engines = engines
        self._sampling = Lock()
        self._known: WeakKeyDictionary[sa.Pool, tuple[int, int]] = WeakKeyDictionary()
        self._collected = collected = CollectorRegistry()
        self._requests = Histogram(
            "chrononaut_request_seconds",
            "Requests that were answered, and the time until then",
            ["method", "route", "status"],
            buckets=_BUCKETS,
            registry=collected,
        )
        self._refused = Counter(
            "chrononaut_refused_writes",
            "Requests to change something that were answered with a problem, by its kind",
            ["model", "kind"],
            registry=collected,
        )
        self._versions = Counter(
            "chrononaut_versions",
            "Versions that were written, and committed",
            ["model", "operation"],
            registry=collected,
        )
        self._size, self._in_use = (
            Gauge(name, told, ["database"], registry=collected, multiprocess_mode="liveall")
            for name, told in (
                ("chrononaut_pool_size", "Connections to the database that a worker can have at once"),
                ("chrononaut_pool_in_use", "Those that a worker uses at the moment"),
            )
        )
        self._waits, self._timeouts = (
            Counter(name, told, ["database"], registry=collected)
            for name, told in (
                ("chrononaut_pool_waits", "Times that no connection was free"),
                ("chrononaut_pool_timeouts", "Times that none became free in time"),
            )
        )
        # They are there from the start, so that the first version is an increase.
        for name in self._models.values():
            for operation in _OPERATIONS:
                self._versions.labels(name, operation)

    def request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(method, route or "", status).observe(seconds)

    def refused(self, model: str | None, kind: str) -> None:
        """Count a request to change something that was answered with a problem."""
        self._refused.labels(model or "", kind).inc()

    def versions(self, model: type, operation: Operation, count: int) -> None:
        """Count versions that were committed."""
        self._versions.labels(self._models.get(model, model.__name__), operation).inc(count)

    def sample(self) -> None:
        """Take the numbers of the pools as they are at the moment."""
        with self._sampling:
            for name, engine in self._engines.items():
                if isinstance(engine.pool, Pool):
                    self._sample(name, engine.pool)

    def _sample(self, name: str, pool: Pool) -> None:
        self._size.labels(name).set(pool.most)
        self._in_use.labels(name).set(pool.checkedout())
        numbers, known = (pool.waits, pool.timeouts), self._known.get(pool, (0, 0))
        self._known[pool] = numbers
        for counter, number, before in zip((self._waits, self._timeouts), numbers, known, strict=True):
            counter.labels(name).inc(number - before)

    def told(self, accept: str) -> tuple[bytes, str]:
        """All numbers as text, and its media type.

        :param accept: the header of this name: with ``application/openmetrics-text`` it is that, else Prometheus's own
        """
        self.sample()
        encode, media_type = choose_encoder(accept)
        if self._folder is None:
            return encode(self._collected), media_type
        collected = CollectorRegistry()
        multiprocess.MultiProcessCollector(collected, self._folder)  # type: ignore[no-untyped-call]
        with _locked(self._folder, fcntl.LOCK_SH):
            return encode(collected), media_type


def init_metrics(app: Flask, db: SQLAlchemy, *, are_open: bool) -> None:
    """Count what the application does, and serve ``/metrics``.

    :param are_open: to everyone? Else it takes the grant ``metrics``.
    """
    registry: Registry = app.extensions["chrononaut"]

    with app.app_context():
        engines = {name or "default": engine for name, engine in db.engines.items()}
    metrics = app.extensions["metrics"] = Metrics(registry, engines)
    versions_committed.connect(_count_versions, db)

    @app.before_request
    def begin() -> None:
        request.environ[_BEGAN] = time.perf_counter()

    @app.after_request
    def count(response: Response) -> Response:
        facts, began = facts_of(request.environ), request.environ.get(_BEGAN)
        # Flask processes answers also of requests that nobody has begun to answer.
        if facts is None or began is None:
            return response
        seconds = time.perf_counter() - began
        metrics.request(facts.method, facts.route, response.status_code, seconds)
        if facts.problem is not None and facts.method in WRITING:
            metrics.refused(facts.model, facts.problem)
        return response

    def tell() -> Response:
        text, media_type = metrics.told(request.headers.get("Accept", ""))
        return Response(text, content_type=media_type)

    app.add_url_rule("/metrics", "metrics", tell if are_open else requires("metrics")(tell))


def _count_versions(
    sender: object, transaction_id: UUID, versions: Mapping[tuple[type, Operation], int], **_: object
) -> None:
    metrics: Metrics | None = current_app.extensions.get("metrics")
    if metrics is not None:
        for (model, operation), count in versions.items():
            metrics.versions(model, operation, count)


def bury(folder: str, process: int, log: Logger) -> None:
    """Keep what a worker that has ended had counted: in one file for all such workers, however many there will be.

    What cannot be read is dropped: a worker that is killed can leave a file in any state.

    :param folder: as `FOLDER` names it
    :param process: the number of its process
    :param log: is told what was dropped
    """
    with _locked(folder, fcntl.LOCK_EX):
        multiprocess.mark_process_dead(process, folder)  # type: ignore[no-untyped-call]
        for ended in Path(folder).glob(f"*_{process}.db"):
            kept = ended.with_name(f"{ended.name.rpartition('_')[0]}_{_ENDED}.db")
            before, numbers = _numbers(kept, log), _numbers(ended, log)
            file: Any = mmap_dict.MmapedDict(str(kept))  # type: ignore[no-untyped-call]
            for key, number in numbers.items():
                file.write_value(key, before.get(key, 0.0) + number, 0.0)
            file.close()
            ended.unlink(missing_ok=True)


def _numbers(file: Path, log: Logger) -> Mapping[str, float]:
    """What a file has, by the keys that it has them under; it is removed where it cannot be read."""
    if not file.exists():
        return {}
    try:
        read = mmap_dict.MmapedDict.read_all_values_from_file(file)  # type: ignore[no-untyped-call]
        numbers = {key: number for key, number, _timestamp, _position in read}
        for key in numbers:
            json.loads(key)  # as whoever asks for metrics will do
    except (OSError, RuntimeError, ValueError, struct.error) as error:
        log.warning("the numbers of metrics in %s cannot be read, and are dropped: %s", file.name, type(error).__name__)
        file.unlink()
        return {}
    return numbers


@contextmanager
def _locked(folder: str, how: int) -> Iterator[None]:
    """Nobody reads the numbers while they are moved: they would be seen twice, or not at all."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)

"""Threads with one progress bar, that end together."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import Final, Protocol
from zlib import crc32

from tqdm import tqdm

from benchmarks.changes import Key
from benchmarks.replay.errors import ReplayError, StoppedError
from benchmarks.replay.wire import key_text

_LOOK: Final = 0.05
"""Seconds between two looks at the workers."""
_GRACE: Final = 3.0
"""Seconds that a worker has to finish its request when the run is over."""


class Worker(Protocol):
    """What one thread does.

    :ivar done: how much of it is done, in the unit of the bar
    """

    done: int

    def run(self) -> None:
        """Do it all, or until the run is over."""


def shard(key: Key, count: int) -> int:
    """Say which of a number of workers has a record: the same one in every run, so that its changes stay in order."""
    # Not hash(): that is another one in every process.
    return crc32(key_text(key).encode()) % count


def work(workers: Sequence[Worker], *, stop: Event, total: int, label: str, unit: str) -> float:
    """Run each worker in a thread of its own until all have done.

    The first failure, or a keyboard interrupt, ends the others after the request that they are at, and is raised.

    :param stop: set when the run is over
    :param total: how much there is to do, in the unit of the bar
    :return: seconds that it took
    :raises ReplayError: a worker said that the run cannot go on
    :raises RuntimeError: a worker broke
    """
    failures: list[ReplayError] = []
    # Daemons: a worker whose request hangs must not keep the command from ending.
    threads = [Thread(target=_guarded, args=(worker.run, failures, stop), daemon=True) for worker in workers]
    started = time.perf_counter()
    # Only this thread touches the bar: its counter is not safe from several.
    with tqdm(total=total, desc=label, unit=unit, file=sys.stderr, disable=None) as bar:
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                time.sleep(_LOOK)
                bar.update(sum(worker.done for worker in workers) - bar.n)
        except BaseException:
            stop.set()
            deadline = time.monotonic() + _GRACE
            for thread in threads:
                if thread.ident is not None:
                    thread.join(max(0.0, deadline - time.monotonic()))
            raise
        bar.update(sum(worker.done for worker in workers) - bar.n)
    if failures:
        raise failures[0]
    if stop.is_set():
        # Its traceback is out already, printed by its thread.
        raise RuntimeError("a worker broke")
    return time.perf_counter() - started


def _guarded(run: Callable[[], None], failures: list[ReplayError], stop: Event) -> None:
    completed = False
    try:
        run()
        completed = True
    except StoppedError:
        pass
    except ReplayError as error:
        failures.append(error)
    finally:
        if not completed:
            stop.set()

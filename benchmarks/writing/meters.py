"""What is measured of the work inside a ``with`` block: time, statements, or memory. A block may be entered again."""

from __future__ import annotations

import time
import tracemalloc
from contextlib import AbstractContextManager
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy import event


class Meter(AbstractContextManager["Meter"], Protocol):
    """A meter of the work inside its blocks.

    :ivar figure: what all blocks so far have come to
    """

    figure: float


class Clock(Meter):
    """Seconds."""

    def __init__(self) -> None:
        self.figure = 0.0

    def __enter__(self) -> Clock:
        self._began = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.figure += time.perf_counter() - self._began


class Statements(Meter):
    """Statements that are sent to the database; one with many rows of parameters is one."""

    def __init__(self, engine: sa.Engine) -> None:
        self.figure = 0.0
        self._engine = engine

    def __enter__(self) -> Statements:
        event.listen(self._engine, "before_cursor_execute", self._count)
        return self

    def __exit__(self, *exception: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._count)

    def _count(self, *statement: Any) -> None:
        self.figure += 1


class Writing(Clock):
    """Seconds, and how much of them passed while statements were executed that write a history table.

    :ivar figure: seconds in all
    :ivar writing: seconds in those statements
    """

    def __init__(self, engine: sa.Engine, history: sa.Table) -> None:
        super().__init__()
        self.writing = 0.0
        self._engine, self._writes = engine, f"INSERT INTO {history.name} "

    def __enter__(self) -> Writing:
        event.listen(self._engine, "before_cursor_execute", self._begin)
        event.listen(self._engine, "after_cursor_execute", self._end)
        super().__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        event.remove(self._engine, "before_cursor_execute", self._begin)
        event.remove(self._engine, "after_cursor_execute", self._end)

    def _begin(self, connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        if self._writes in statement:
            self._writing_began = time.perf_counter()

    def _end(self, connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        if self._writes in statement:
            self.writing += time.perf_counter() - self._writing_began


class Memory(Meter):
    """The most bytes that Python held at once beyond those that it held at the start.

    They are counted one by one, so that two runs say the same: what the process takes from the system depends on what
    was left free in it before. What libraries in C take for themselves (a driver's buffers, SQLite's pages) is not
    in it.
    """

    def __init__(self) -> None:
        self.figure = 0.0

    def __enter__(self) -> Memory:
        tracemalloc.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.figure = max(self.figure, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

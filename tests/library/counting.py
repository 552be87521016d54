"""One of many processes that count up the same records: run by `test_many_writers`, a process each.

It says that it is ready by a line, waits for one, counts, and ends with a line of JSON: why it had to try again, and
how often.
"""

import json
import sys
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from chrononaut import ConcurrentChangeError, Versioned, VersionedSQLAlchemy, rationale
from tests.library.conftest import prepare_sqlite

By = Literal["object", "statement"]
RECORDS = 3
# What a database says of transactions that cannot both go through, and that it has itself given one of them up.
_GIVEN_UP = {"40001": "serialization failure", "40P01": "deadlock"}
_LOCKED = "database is locked"

db = VersionedSQLAlchemy()

if TYPE_CHECKING:

    class Model(DeclarativeBase):
        """What ``db.Model`` is to a type checker."""
else:
    Model = db.Model


class Counter(Model, Versioned):
    """A number, and who counted last: a text that is the change's rationale as well."""

    __tablename__ = "counter"

    id: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=0)
    last: Mapped[str | None]


@dataclass(frozen=True, slots=True)
class Database:
    """How the counters are reached.

    :ivar isolation: the engine's isolation level; the default one if ``None``
    :ivar journal: SQLite's journal mode
    :ivar begins: SQLite only: does each transaction begin with its first statement? The driver begins it with the first
        write.
    """

    isolation: str | None = None
    journal: str = "DELETE"
    begins: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """What one process does.

    :ivar by: change loaded objects, or execute an UPDATE
    :ivar at_once: how many records one transaction counts up: each object in a flush and with a reason of its own, or
        all by one statement and with the reason of the first
    """

    url: str
    database: Database
    process: int
    steps: int
    by: By = "object"
    at_once: int = 1

    def transactions(self) -> list[range]:
        """The steps of each transaction."""
        return [range(first, min(first + self.at_once, self.steps)) for first in range(0, self.steps, self.at_once)]

    def reasons(self) -> Tally[str]:
        """The rationale of each change, and how many changes have it."""
        return Tally(
            text(self.process, step if self.by == "object" else steps[0])
            for steps in self.transactions()
            for step in steps
        )


@contextmanager
def connected(url: str, database: Database) -> Iterator[Flask]:
    """An application with the counters, inside its context."""
    app = Flask("counting")
    options: dict[str, Any] = {} if database.isolation is None else {"isolation_level": database.isolation}
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": 60}
    else:
        # A deadlock need not last the second that it does by default.
        options["connect_args"] = {"options": "-c deadlock_timeout=10ms"}
    app.config.update(SQLALCHEMY_DATABASE_URI=url, SQLALCHEMY_ENGINE_OPTIONS=options)
    db.init_app(app)
    with app.app_context():
        if url.startswith("sqlite"):
            _prepare(db.engine, database)
        try:
            yield app
        finally:
            db.session.remove()
            db.engine.dispose()


def _prepare(engine: sa.Engine, database: Database) -> None:
    if database.begins:
        prepare_sqlite(engine)

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _: object) -> None:
        connection.execute(f"PRAGMA journal_mode = {database.journal}").close()
        connection.execute("PRAGMA synchronous = OFF")


def text(process: int, step: int) -> str:
    return f"process {process}, step {step}"


def _count(session: Session, task: Task, steps: Sequence[int]) -> None:
    """One transaction."""
    # Of each two processes that take several at once, one takes them the other way round.
    keys = [1 + (step * (1 + task.process // 2 % 2) + task.process) % RECORDS for step in steps]
    if task.by == "object":
        for key, step in zip(keys, steps, strict=True):
            _count_object(session, key, text(task.process, step))
    else:
        why = text(task.process, steps[0])
        counted = sa.update(Counter).where(Counter.id.in_(keys)).values({"count": Counter.count + 1, "last": why})
        with rationale(why):
            session.execute(counted)
    session.commit()


def _count_object(session: Session, key: int, why: str) -> None:
    with rationale(why):
        counter = session.get_one(Counter, key)
        counter.count += 1
        counter.last = why
        session.flush()


def _reason_to_repeat(error: Exception) -> str:
    """Why another try is due.

    :raises Exception: it is not
    """
    if isinstance(error, ConcurrentChangeError):
        return type(error).__name__
    if isinstance(error, sa.exc.DBAPIError):
        if (reason := _GIVEN_UP.get(getattr(error.orig, "sqlstate", None) or "")) is not None:
            return reason
        if _LOCKED in str(error.orig):
            return _LOCKED
    raise error


def run(task: Task) -> Tally[str]:
    """Count until each step has gone through.

    :return: why a transaction had to be repeated → how often
    """
    repeated: Tally[str] = Tally()
    with connected(task.url, task.database):
        session: Session = db.session()
        session.get_one(Counter, 1)
        session.rollback()
        _say("ready")
        sys.stdin.readline()
        for steps in task.transactions():
            while True:
                try:
                    _count(session, task, steps)
                except (ConcurrentChangeError, sa.exc.DBAPIError) as error:
                    session.rollback()
                    repeated[_reason_to_repeat(error)] += 1
                else:
                    break
    return repeated


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def command(task: Task) -> list[str]:
    """The command that runs a task in a process of its own."""
    return [sys.executable, "-W", "error", "-m", __name__, json.dumps(asdict(task))]


if __name__ == "__main__":
    _given = json.loads(sys.argv[1])
    _say(json.dumps(run(Task(**_given | {"database": Database(**_given["database"])}))))

"""A process that writes for days keeps nothing of it: memory is flat, and what is registered goes with its owner."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression
from typing import Any
from weakref import ref

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy.session import Session as FlaskSession
from sqlalchemy.orm import Session

from chrononaut import VersionedSQLAlchemy, append_change_info, history_model, rationale, suppress_versioning
from chrononaut.session import _capturing, capture_by
from tests.library.conftest import opened
from tests.library.models import Author, Book, Country, User, db, define

FLUSHES_OF_A_REQUEST = 7
PAGE = os.sysconf("SC_PAGE_SIZE")


class BoundSession(FlaskSession):
    """A session on a connection of the caller's own."""

    def get_bind(self, *args: Any, **options: Any) -> Any:
        return self.bind


def request(app: Flask, number: int) -> None:
    """What an application does in one request: all kinds of changes, in a session of its own."""
    with app.app_context(), rationale(f"request {number}"):
        session: Session = db.session()
        user = User(id=number, email=f"{number}", settings={}, password_hash="x")
        user_of_before = session.get(User, number - 1)
        session.add(user)
        session.flush()
        user.name, user.settings, user.password_hash = "b", {"a": number}, "y"
        append_change_info(user, request="b")
        session.flush()
        session.expire(user)
        user.name = "c"
        author = Author(id=number, books=[Book(id=number, title="a")])
        session.add(author)
        session.flush()
        with session.begin_nested() as savepoint:
            user.name = "d"
            append_change_info(user, request="d")
            append_change_info(author.books[0], request="is never written")
            session.flush()
            savepoint.rollback()
        if user_of_before is not None:
            session.delete(user_of_before)
        session.flush()
        session.execute(sa.update(Book).where(Book.id == number).values(title="b"))
        session.commit()
        user.name = "e"
        append_change_info(user, request="is rolled back")
        session.flush()
        session.rollback()
        session.add_all([Country(code="FR", name=f"{number}"), Country(code="FR", name="twice")])
        with pytest.raises(sa.exc.IntegrityError):
            session.flush()
        session.rollback()
        user.name = "f"  # is never flushed


def forget(app: Flask) -> None:
    """Take out what the requests have written, so that the database is as small as before."""
    with app.app_context(), suppress_versioning(allow_deleting_history=True):
        for history in (history_model(Book), history_model(User)):
            db.session.execute(sa.delete(history))
        db.session.execute(sa.delete(Book))
        db.session.execute(sa.delete(Author))
        db.session.commit()


@dataclass
class Measured:
    """What a process holds, at several numbers of flushes.

    :ivar blocks: of memory, as Python's allocator counts them
    :ivar objects: that the garbage collector knows
    :ivar resident: bytes of memory
    """

    flushes: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    def measure(self, flushes: int) -> None:
        gc.collect()
        self.flushes.append(flushes)
        self.objects.append(len(gc.get_objects()))
        self.resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE)
        self.blocks.append(sys.getallocatedblocks())

    def growth(self, of: list[int], since: int = 0) -> float:
        """How much one flush adds.

        :param since: how many measurements to leave out, while pools and caches still fill
        """
        return linear_regression(self.flushes[since:], of[since:]).slope


def measured(app: Flask, warm_up: int, checkpoints: int, requests: int) -> Measured:
    """Serve so many requests before each of the checkpoints."""
    numbers = iter(range(1, sys.maxsize))

    def serve(requests: int) -> None:
        for _ in range(requests):
            request(app, next(numbers))
        forget(app)

    serve(warm_up)
    found = Measured()
    for checkpoint in range(checkpoints):
        found.measure(checkpoint * requests * FLUSHES_OF_A_REQUEST)
        serve(requests)
    found.measure(checkpoints * requests * FLUSHES_OF_A_REQUEST)
    return found


@contextmanager
def without_context(url: str) -> Iterator[Flask]:
    """An application whose requests have a context each, and so a session."""
    with opened(db, url) as app:
        pass
    try:
        yield app
    finally:
        with app.app_context():
            db.engine.dispose()


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    """An application with the shared models, outside its context."""
    with without_context(database_url) as app:
        yield app


# PostgreSQL's process keeps what it keeps by itself; ours is the same one, and takes longer with it.
@pytest.mark.parametrize("database_kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)], indirect=True)
def test_two_thousand_flushes_leave_no_object(app: Flask) -> None:
    found = measured(app, warm_up=30, checkpoints=4, requests=72)
    assert found.growth(found.objects) < 0.1, found
    assert found.growth(found.blocks) < 0.3, found


@pytest.mark.soak
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_hundred_thousand_flushes_leave_memory_flat(app: Flask) -> None:
    with app.app_context():
        # SQLite's own pages fill up to 2 MB only slowly, and are resident too.
        db.engine.dispose()
        sa.event.listen(db.engine, "connect", lambda connection, record: connection.execute("PRAGMA cache_size = -64"))
    found = measured(app, warm_up=500, checkpoints=10, requests=100_000 // FLUSHES_OF_A_REQUEST // 10)
    sys.stdout.write(f"{found}\n")
    assert found.growth(found.objects) < 0.002, found
    assert found.growth(found.blocks) < 0.02, found
    # One pointer for each flush would be more.
    assert found.growth(found.resident, since=3) < 8, found


def test_request_leaves_no_object(app: Flask) -> None:
    seen: list[ref[object]] = []
    with app.app_context():
        session: Session = db.session()
        user = User(id=1, email="a")
        session.add(user)
        session.commit()
        append_change_info(user, is_never="written")
        user.name = "b"
        seen += [ref(session), ref(user), ref(session.connection())]
    del session, user
    gc.collect()
    assert [seen_one() for seen_one in seen] == [None] * 3


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
def test_flush_leaves_nothing_with_the_session(app: Flask, fails: bool) -> None:
    with app.app_context():
        session: Session = db.session()
        session.add_all([Country(code="FR", name="a"), Country(code="FR" if fails else "DE", name="b")])
        with pytest.raises(sa.exc.IntegrityError) if fails else nullcontext():
            session.flush()
        if fails:
            session.rollback()
        assert "chrononaut_flush" not in session.info
        capture = capture_by(session)
        assert capture is None or not capture.flushing


def test_connection_knows_no_session_that_has_ended(app: Flask) -> None:
    for number in range(1, 10):
        request(app, number)
    gc.collect()
    assert [captures for captures in _capturing.values() if captures] == []
    assert not [connection for connection in _capturing if connection.closed and _capturing[connection]]


def test_session_on_a_connection_of_the_callers_leaves_nothing_on_it(app: Flask) -> None:
    with app.app_context(), db.engine.connect() as connection:
        sessions = db._make_scoped_session({"class_": BoundSession, "bind": connection}).session_factory
        for number in range(1, 20):
            with sessions() as session:
                session.add(User(id=number, email=f"{number}"))
                session.commit()
        gc.collect()
        assert len(_capturing.get(connection, ())) == 0
        with sessions() as session:
            session.add(User(id=99, email="99"))
            session.flush()
            assert len(_capturing[connection]) == 1
        assert connection not in _capturing


def test_session_that_nobody_closed_leaves_nothing(app: Flask) -> None:
    with app.app_context():
        factory = db._make_scoped_session({}).session_factory
        session: Session = factory()
        session.add(User(id=1, email="a"))
        session.flush()
        abandoned = ref(session)
        session.rollback()
        session.add(User(id=2, email="a"))
        del session
        gc.collect()
        assert abandoned() is None
        assert [captures for captures in _capturing.values() if captures] == []


def test_engines_that_are_disposed_of_go_and_what_listens_on_them_with_them() -> None:
    database = VersionedSQLAlchemy()
    model = define(
        database,
        "Thing",
        __tablename__="thing",
        id=sa.Column(sa.Integer, primary_key=True),
        value=sa.Column(sa.Integer),
    )

    def write_and_dispose() -> list[ref[Any]]:
        with opened(database, "sqlite://") as app:
            thing = model(value=1)
            database.session.add(thing)
            database.session.commit()
            thing.value = 2
            database.session.commit()
            return [ref(app), ref(database.engine), ref(database.session()), ref(database.session.connection())]

    gc.collect()
    before = len(_capturing)
    gone = [seen for _ in range(10) for seen in write_and_dispose()]
    gc.collect()
    assert [seen for seen in gone if seen() is not None] == []
    assert len(_capturing) == before
    # SQLAlchemy keeps the dialects of its last hundred statements of a mapper, and what listens to them for errors.
    listening = []
    for _ in range(3):
        for _ in range(80):
            write_and_dispose()
        gc.collect()
        listening.append(len(sa.event.registry._key_to_collection))
    assert listening[-1] - listening[0] < 40, listening

"""The signal that tells of what was written, once it is committed: it says what the history tables hold."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from chrononaut import Versioned, VersionedSQLAlchemy, suppress_versioning, versions_committed
from tests.library.conftest import Statements
from tests.library.models import Country, Release, User, db, define
from tests.library.rows import history_rows
from tests.library.test_versioned_sqlalchemy import BoundSession

TABLES: dict[type, str] = {User: "appuser_history", Country: "country_history", Release: "release_history"}


@dataclass
class Told:
    """What a receiver was told, by transaction."""

    versions: dict[UUID, dict[tuple[type, str], int]] = field(default_factory=dict)

    def receive(self, sender: object, transaction_id: UUID, versions: dict[tuple[type, str], int]) -> None:
        assert transaction_id not in self.versions
        self.versions[transaction_id] = versions

    @property
    def all(self) -> Counter[tuple[type, str]]:
        return sum((Counter(versions) for versions in self.versions.values()), Counter())


@contextmanager
def receiving(sender: object) -> Iterator[Told]:
    told = Told()
    with versions_committed.connected_to(told.receive, sender):
        yield told


@pytest.fixture
def told(session: Session) -> Iterator[Told]:
    with receiving(db) as told:
        yield told


def _in_history(session: Session) -> dict[UUID, dict[tuple[type, str], int]]:
    found: dict[UUID, Counter[tuple[type, str]]] = {}
    for model, table in TABLES.items():
        for row in history_rows(session, table):
            found.setdefault(row["transaction_id"], Counter())[model, row["operation"]] += 1
    return {id_: dict(counts) for id_, counts in found.items()}


def _user(number: int) -> User:
    return User(id=number, email=f"{number}@example.com")


def test_commit_tells_how_many_versions_of_each_model_and_operation_it_wrote(session: Session, told: Told) -> None:
    users = [_user(number) for number in range(3)]
    session.add_all([*users, Country(code="FR")])
    session.flush()
    assert not told.versions
    session.commit()
    assert told.all == {(User, "insert"): 3, (Country, "insert"): 1}
    users[0].name = "a"
    session.flush()
    users[0].name, users[1].name = "b", "b"
    session.delete(users[2])
    session.commit()
    session.commit()
    assert told.all == {(User, "insert"): 3, (Country, "insert"): 1, (User, "update"): 3, (User, "delete"): 1}
    assert told.versions == _in_history(session)


def test_nothing_is_told_of_what_is_rolled_back(session: Session, told: Told) -> None:
    session.add(_user(1))
    session.flush()
    session.execute(sa.insert(User), [{"id": 2, "email": "b"}])
    session.rollback()
    session.add(_user(1))
    session.commit()
    session.execute(sa.update(User).values(name="x"))
    session.rollback()
    session.add(_user(1))
    with pytest.raises(IntegrityError):
        session.commit()
    session.rollback()
    session.commit()
    assert told.all == {(User, "insert"): 1}


def test_commit_that_the_database_refuses_tells_nothing(session: Session, told: Told, database_kind: str) -> None:
    initially = "DEFERRABLE INITIALLY DEFERRED"
    session.execute(
        sa.text(f"CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES child (id) {initially})")
    )
    session.commit()
    if database_kind == "sqlite":
        session.connection().exec_driver_sql("COMMIT")
        session.connection().exec_driver_sql("PRAGMA foreign_keys = ON")
        session.connection().exec_driver_sql("BEGIN")
    session.execute(sa.text("INSERT INTO child VALUES (1, 2)"))
    session.add(_user(1))
    with pytest.raises(IntegrityError):
        session.commit()
    session.rollback()
    assert not told.versions
    assert history_rows(session, "appuser_history") == []
    session.execute(sa.text("DROP TABLE child"))
    session.commit()


@pytest.mark.parametrize("statement", [False, True], ids=["flush", "statement"])
@pytest.mark.parametrize("of_connection", [False, True], ids=["session", "connection"])
def test_savepoint_that_is_rolled_back_does_not_count(
    session: Session, told: Told, statement: bool, of_connection: bool
) -> None:
    def write(number: int) -> None:
        if statement:
            session.execute(sa.insert(User), [{"id": number, "email": f"{number}"}])
            session.execute(sa.update(User).where(User.id == number).values(name="x"))
        else:
            session.add(_user(number))
            session.flush()

    begin_nested = session.connection().begin_nested if of_connection else session.begin_nested
    write(1)
    with begin_nested():
        write(2)
        inner = begin_nested()
        write(3)
        inner.rollback()
        with begin_nested():
            write(4)
    outer = begin_nested()
    with begin_nested():
        write(5)
    outer.rollback()
    session.expire_all()
    session.commit()
    assert told.versions == _in_history(session)
    assert told.all[User, "insert"] == 3


def test_statements_count_what_they_really_change(session: Session, told: Told) -> None:
    session.execute(sa.insert(User), [{"id": number, "email": f"{number}"} for number in range(5)])
    session.get_one(User, 0).name = "x"
    session.flush()
    session.execute(sa.update(User).values(name="x"))  # one of the five is so already
    session.execute(sa.update(User).values(clicks=User.clicks + 1))
    session.execute(sa.update(User), [{"id": 1, "name": "y"}, {"id": 2, "name": "y"}])
    session.bulk_update_mappings(sa.inspect(User), [{"id": 3, "name": "z"}])
    session.execute(sa.delete(User).where(User.id > 2))
    session.bulk_save_objects([Country(code="FR"), Country(code="DE")])
    session.commit()
    assert told.versions == _in_history(session)
    inserts = {(User, "insert"): 5, (Country, "insert"): 2}
    assert told.all == {**inserts, (User, "update"): 8, (User, "delete"): 2}


def test_statement_by_a_flush_of_the_commit_is_counted_too(session: Session, told: Told) -> None:
    session.add(_user(1))
    session.commit()

    def write(session: Session, context: object) -> None:
        if not session.info.pop("written", False):
            session.info["written"] = True
            session.execute(sa.update(User).where(User.id == 1).values(name="by a listener"))

    sa.event.listen(session, "after_flush_postexec", write)
    try:
        session.add(_user(2))
        session.commit()
    finally:
        sa.event.remove(session, "after_flush_postexec", write)
        session.info.pop("written", None)
    assert told.versions == _in_history(session)
    assert told.all == {(User, "insert"): 2, (User, "update"): 1}


STEPS: dict[str, Callable[[Session, Random], Any]] = {
    "add": lambda session, random: session.merge(_user(random.randrange(9))),
    "change": lambda session, random: _change(session, random),  # noqa: PLW0108  it is defined below
    "delete": lambda session, random: session.delete(found) if (found := _any(session, random)) else None,
    "update": lambda session, random: session.execute(
        sa.update(User).where(User.id > random.randrange(9)).values(logins=random.randrange(2))
    ),
    "remove": lambda session, random: session.execute(sa.delete(User).where(User.id == random.randrange(9))),
    "country": lambda session, random: session.merge(Country(code="FR", name=f"{random.random()}")),
    "flush": lambda session, random: session.flush(),
    "savepoint": lambda session, random: session.begin_nested(),
}


def _any(session: Session, random: Random) -> User | None:
    return session.scalar(sa.select(User).where(User.id >= random.randrange(9)).order_by(User.id).limit(1))


def _change(session: Session, random: Random) -> None:
    if user := _any(session, random):
        user.logins = random.randrange(3)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_told_is_what_history_holds(session: Session, told: Told, seed: int) -> None:
    random = Random(seed)
    for _ in range(15):
        for step in random.choices([*STEPS, "release", "roll back"], k=12):
            nested = session.get_nested_transaction()
            if step in STEPS:
                STEPS[step](session, random)
            elif nested is not None:
                (nested.commit if step == "release" else nested.rollback)()
        while (nested := session.get_nested_transaction()) is not None:
            nested.commit()
        (session.rollback if random.random() < 0.2 else session.commit)()
    assert told.versions == _in_history(session)
    assert sum(told.all.values()) > 20


def test_suppressed_writes_do_not_count(session: Session, told: Told) -> None:
    with suppress_versioning():
        session.add(_user(1))
        session.execute(sa.insert(User), [{"id": 2, "email": "b"}])
        session.execute(sa.update(User).values(name="x"))
        session.commit()
    assert not told.versions


def test_models_of_one_table(open_database: Callable[..., Session]) -> None:
    database = VersionedSQLAlchemy()
    columns = {
        "id": sa.Column(sa.Integer, primary_key=True),
        "kind": sa.Column(sa.String),
        "name": sa.Column(sa.String),
    }
    inherited: Any = {"__mapper_args__": {"polymorphic_on": "kind", "polymorphic_identity": "animal"}}
    animal = define(database, "Animal", Versioned, **columns, **inherited)
    dog: Any = type("Dog", (animal,), {"__mapper_args__": {"polymorphic_identity": "dog"}})
    session = open_database(database)
    with receiving(database) as told:
        session.add_all([animal(id=1), dog(id=2)])
        session.commit()
        session.get_one(dog, 2).name = "a"
        session.flush()
        session.execute(sa.update(animal).values(name="b"))
        session.commit()
    # What a statement changes of it counts for the model of the table.
    assert told.all == {(animal, "insert"): 1, (dog, "insert"): 1, (dog, "update"): 1, (animal, "update"): 2}


def test_transaction_over_several_databases_counts_for_both(
    open_database: Callable[..., Session], other_database_url: str
) -> None:
    database = VersionedSQLAlchemy()
    columns: Any = {"id": sa.Column(sa.Integer, primary_key=True), "name": sa.Column(sa.String)}
    here = define(database, "Here", Versioned, **columns)
    columns = {"id": sa.Column(sa.Integer, primary_key=True), "name": sa.Column(sa.String)}
    there = define(database, "There", Versioned, __bind_key__="other", **columns)
    session = open_database(database, {"other": other_database_url})
    with receiving(database) as told:
        session.add(here(id=1))
        savepoint = session.begin_nested()
        session.add(there(id=1))
        session.flush()
        session.add(here(id=2))
        session.flush()
        savepoint.rollback()
        session.execute(sa.insert(there), [{"id": 2}])
        session.execute(sa.update(there).values(name="x"))
        session.commit()
    assert told.all == {(here, "insert"): 1, (there, "insert"): 1, (there, "update"): 1}


@pytest.mark.parametrize("mode", ["create_savepoint", "rollback_only"])
def test_session_that_does_not_commit_the_callers_transaction_tells_nothing(
    session: Session, told: Told, mode: str
) -> None:
    with db.engine.connect() as connection:
        outer = connection.begin()
        own = db._make_scoped_session({"class_": BoundSession, "bind": connection, "join_transaction_mode": mode})
        own.add(_user(1))
        own.commit()
        own.remove()
        outer.rollback()
    assert not told.versions


def test_without_a_receiver_no_question_is_asked(session: Session, statements: Statements) -> None:
    def write() -> list[tuple[str, int]]:
        session.execute(sa.update(User).values(logins=User.logins + 1))
        statements.clear()
        session.commit()
        return [*statements.executed]

    session.add(_user(1))
    session.commit()
    assert write() == []
    other = VersionedSQLAlchemy()
    with receiving(db) as told, receiving(other):
        assert len(write()) == 1
    assert told.all == {(User, "update"): 1}
    with receiving(other):
        assert write() == []


def test_another_objects_commits_are_not_told(session: Session) -> None:
    with receiving(VersionedSQLAlchemy()) as told:
        session.add(_user(1))
        session.commit()
    assert not told.versions


def test_what_a_receiver_raises_is_logged_and_the_commit_is_done(
    session: Session, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(sender: object, **told: object) -> None:
        raise RuntimeError("no room")

    with versions_committed.connected_to(fail, db):
        session.add(_user(1))
        session.commit()
    assert [record.getMessage() for record in caplog.records] == ["a receiver of versions_committed failed"]
    assert told.all == {(User, "insert"): 1}
    session.add(_user(2))
    session.commit()
    assert len(history_rows(session, "appuser_history")) == 2

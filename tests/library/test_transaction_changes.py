"""``transaction``: everything that one transaction changed, over all models."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut import Timeline, VersionedSQLAlchemy, rationale
from chrononaut.feed import transaction
from chrononaut.history import versioned_models
from tests.library.models import Book, Country, Model, Shelf, User, db, define
from tests.library.staff import Staff


def test_changes_of_all_models_are_told(session: Session) -> None:
    session.add(Country(code="AA", name="a"))
    session.commit()
    with rationale("opening"):
        shelf = Shelf(room="x", books=[Book(title="b")])
        session.add(shelf)
        session.flush()
        shelf.room = "y"
        session.get_one(Country, "AA").name = "c"
        session.execute(sa.update(Book).values(title="d"))
        session.commit()
    (insert, update) = shelf.changes()
    changes = db.transaction(update.transaction_id)
    assert insert in changes
    assert sorted((change.model.__name__, change.version, change.operation) for change in changes) == [
        ("Book", -1, "insert"),
        ("Book", 0, "update"),
        ("Country", 0, "update"),
        ("Shelf", -1, "insert"),
        ("Shelf", 0, "update"),
    ]
    assert {change.info["extra"]["rationale"] for change in changes} == {"opening"}
    assert changes == sorted(changes, key=lambda change: (change.model.__name__, change.key, change.version))


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_of_a_transaction_hold_each_change_once(session: Session, limit: int) -> None:
    session.add_all([Country(code=code, name="a") for code in ("AA", "BB", "CC")])
    session.add_all([Shelf(room="x"), User(email="a")])
    session.flush()
    session.execute(sa.update(Country).values(name="b"))
    session.commit()
    transaction_id = Country.feed(limit=1).changes[0].transaction_id
    expected = db.transaction(transaction_id)
    assert len(expected) == 8
    listed, cursor = [], None
    while True:
        page = transaction(session, versioned_models(Model.registry), transaction_id, limit, cursor)
        assert len(page.changes) <= limit
        listed += page.changes
        cursor = page.next
        if cursor is None:
            break
    assert listed == expected


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_models_of_one_name_are_told_apart(open_database: Callable[..., Session], limit: int) -> None:
    database: Any = VersionedSQLAlchemy()
    one, other = (
        define(database, "Item", __module__=table, __tablename__=table, id=sa.Column(sa.Integer, primary_key=True))
        for table in ("b_item", "a_item")
    )
    session = open_database(database)
    session.add_all([one(id=1), one(id=2), one(id=7), other(id=5), other(id=6)])
    session.commit()
    transaction_id = one.feed(limit=1).changes[0].transaction_id
    listed, cursor = [], None
    while True:
        page = transaction(session, versioned_models(database.Model.registry), transaction_id, limit, cursor)
        listed += [(change.model, *change.key) for change in page.changes]
        cursor = page.next
        if cursor is None:
            break
    assert listed == [(other, 5), (other, 6), (one, 1), (one, 2), (one, 7)]


def test_transaction_id_that_is_none_is_refused(session: Session) -> None:
    with pytest.raises(TypeError, match="a transaction id must be a UUID, not str"):
        db.transaction(str(uuid4()))  # type: ignore[arg-type]


def test_transaction_that_never_was_changed_nothing(session: Session) -> None:
    session.add(User(email="a"))
    session.commit()
    assert db.transaction(uuid4()) == []


def test_record_of_a_hierarchy_is_told_once_by_its_own_model(open_database: Callable[..., Session]) -> None:
    staff = Staff()
    session = open_database(staff.db)
    people = [
        staff.employee(id=1, name="a"),
        staff.clerk(id=2, desk="b"),
        staff.manager(id=3, budget=1),
        staff.director(id=4, car="c"),
    ]
    session.add_all(people)
    session.flush()
    people[1].desk, people[2].budget, people[3].car = "d", 2, "e"
    session.flush()
    for person in people:
        session.delete(person)
    session.commit()
    (change, *_) = Timeline(session, staff.employee, (1,)).changes()
    changes = staff.db.transaction(change.transaction_id)
    told = {(change.key[0], change.version): (change.model, change.operation) for change in changes}
    models = {1: staff.employee, 2: staff.clerk, 3: staff.manager, 4: staff.director}
    assert told == {
        (number, version): (model, operation)
        for number, model in models.items()
        for version, operation in (
            [(-1, "insert"), (0, "delete")] if number == 1 else [(-1, "insert"), (0, "update"), (1, "delete")]
        )
    }
    assert len(changes) == len(told)
    assert {change.key[0]: change.differences for change in changes if change.operation == "update"} == {
        2: {"desk": ("b", "d")},
        3: {"budget": (1, 2)},
        4: {"car": ("c", "e")},
    }


@pytest.mark.parametrize("kind", ["joined", "concrete"])
def test_hierarchy_whose_rows_do_not_say_their_class_is_told_once(
    open_database: Callable[..., Session], kind: str
) -> None:
    database: Any = VersionedSQLAlchemy()
    parent = define(database, "Vehicle", id=sa.Column(sa.Integer, primary_key=True), name=sa.Column(sa.String))
    key = (
        {"id": sa.Column(sa.ForeignKey("vehicle.id"), primary_key=True)}
        if kind == "joined"
        else {
            "id": sa.Column(sa.Integer, primary_key=True),
            "name": sa.Column(sa.String),
            "__mapper_args__": {"concrete": True},
        }
    )
    child: Any = type("Truck", (parent,), {"__tablename__": "truck", "load": sa.Column(sa.Integer), **key})
    session = open_database(database)
    session.add_all([parent(id=1), child(id=2, load=1)])
    session.commit()
    (change, *_) = Timeline(session, parent, (1,)).changes()
    changes = database.transaction(change.transaction_id)
    assert [(change.model, change.key) for change in changes] == [(child, (2,)), (parent, (1,))]


def test_feed_of_a_model_in_its_parents_table_has_its_own_records_only(open_database: Callable[..., Session]) -> None:
    staff = Staff()
    session = open_database(staff.db)
    session.add_all([staff.employee(id=1), staff.clerk(id=2, desk="a"), staff.director(id=3, car="c")])
    session.commit()
    session.get_one(staff.clerk, 2).desk = "b"
    session.commit()
    session.delete(session.get_one(staff.clerk, 2))
    session.commit()
    listed = {
        model: [(change.key[0], change.version) for change in model.feed().changes]
        for model in (staff.employee, staff.clerk, staff.manager, staff.director)
    }
    assert listed == {
        staff.employee: [(2, 1), (2, 0), (3, -1), (2, -1), (1, -1)],
        staff.clerk: [(2, 1), (2, 0), (2, -1)],
        staff.manager: [(3, -1)],
        staff.director: [(3, -1)],
    }

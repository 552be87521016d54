"""Models that inherit from mapped models: one record, one row of versions, whichever tables its rows are in."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut import (
    OptionError,
    Timeline,
    UncapturedWriteError,
    UnsupportedMappingError,
    Versioned,
    VersionedSQLAlchemy,
)
from chrononaut.transactions import snapshot
from chrononaut.verify import check, total_rows, verify
from tests.library.models import define
from tests.library.rows import changes, history_rows, live_rows, state
from tests.library.staff import Staff

LIFE = [(-1, "insert"), (0, "update"), (1, "update"), (2, "delete")]


@pytest.fixture
def staff() -> Staff:
    return Staff()


@pytest.fixture
def session(staff: Staff, open_database: Callable[..., Session]) -> Session:
    return open_database(staff.db)


def test_tables_have_the_version_and_our_columns_once(staff: Staff) -> None:
    tables = staff.db.metadata.tables
    assert {"employee_history", "manager_history", "director_history"} < set(tables)
    assert "version" not in tables["manager"].c
    assert list(tables["manager_history"].c.keys()) == ["id", "version", "budget"]
    assert list(tables["director_history"].c.keys()) == ["number", "version", "car"]
    assert {"name", "kind", "desk"} < set(tables["employee_history"].c.keys())
    assert not {"pin", "seen"} & set(tables["employee_history"].c.keys())


def test_history_of_a_joined_model_shows_the_columns_of_all_its_tables(staff: Staff, session: Session) -> None:
    director = staff.director(id=7, name="a", budget=1, car="x")
    session.add(director)
    session.commit()
    director.budget = 2
    session.commit()
    director.name, director.car = "b", "y"
    session.commit()
    assert [(version.name, version.budget, version.car) for version in director.versions()] == [
        ("a", 1, "x"),
        ("a", 2, "x"),
    ]
    first = director.versions()[0]
    assert director.diff(first) == {"name": ("a", "b"), "budget": (1, 2), "car": ("x", "y")}
    session.delete(director)
    session.commit()
    assert changes(history_rows(session, "employee_history")) == LIFE
    assert [row["budget"] for row in history_rows(session, "manager_history")] == [None, 1, 2, 2]
    assert [(row["number"], row["version"], row["car"]) for row in history_rows(session, "director_history")] == [
        (7, -1, None),
        (7, 0, "x"),
        (7, 1, "x"),
        (7, 2, "y"),
    ]
    timeline = Timeline(session, staff.director, (7,))
    assert [(version.name, version.car) for version in timeline.versions()] == [("a", "x"), ("a", "x"), ("b", "y")]
    assert [change.operation for change in timeline.changes()] == ["insert", "update", "update", "delete"]
    assert [version.name for version in Timeline(session, staff.employee, (7,)).versions()] == ["a", "a", "b"]


def test_models_of_one_table_share_its_history(staff: Staff, session: Session) -> None:
    clerk, employee = staff.clerk(id=1, name="a", desk="left"), staff.employee(id=2, name="e")
    session.add_all([clerk, employee])
    session.commit()
    clerk.desk, employee.name = "right", "f"
    clerk.seen = "never mind"
    session.commit()
    clerk.seen = "nor now"
    session.commit()
    rows = history_rows(session, "employee_history", id=1)
    assert changes(rows) == LIFE[:2]
    assert state(rows[1]) == {"id": 1, "kind": "clerk", "name": "a", "desk": "left"}
    assert [version.desk for version in clerk.versions()] == ["left"]
    assert state(history_rows(session, "employee_history", id=2)[1]) == {
        "id": 2,
        "kind": "employee",
        "name": "e",
        "desk": None,
    }


def test_hidden_columns_of_every_table_are_named_and_never_kept(staff: Staff, session: Session) -> None:
    manager = staff.manager(id=1, pin="p", bonus=1)
    session.add(manager)
    session.commit()
    manager.bonus = 2
    session.commit()
    manager.pin = None
    session.commit()
    session.delete(manager)
    session.commit()
    rows = history_rows(session, "employee_history")
    assert [row["change_info"].get("hidden_cols_changed") for row in rows] == [
        ["pin", "bonus"],
        ["bonus"],
        ["pin"],
        ["bonus"],
    ]


def test_change_of_untracked_columns_of_a_joined_model_is_no_version(open_database: Callable[..., Session]) -> None:
    db = VersionedSQLAlchemy()
    vehicle, _ = _vehicles(db)
    attributes = {
        "__tablename__": "bus",
        "__mapper_args__": {"polymorphic_identity": "bus"},
        "__chrononaut_untracked__": ["seats"],
        "id": sa.Column(sa.ForeignKey("vehicle.id"), primary_key=True),
        "seats": sa.Column(sa.Integer),
    }
    bus: Any = type("Bus", (vehicle,), attributes)
    session = open_database(db)
    one = bus(id=1, seats=1)
    session.add(one)
    session.commit()
    one.seats = 2
    session.commit()
    assert changes(history_rows(session, "vehicle_history")) == LIFE[:1]
    assert live_rows(session, "bus") == [{"id": 1, "seats": 2}]


@pytest.mark.parametrize("expire", [False, True])
def test_objects_are_compared_in_all_their_tables(staff: Staff, session: Session, expire: bool) -> None:
    manager = staff.manager(id=1, name="a", budget=1)
    session.add(manager)
    session.commit()
    if not expire:
        session.refresh(manager)
    manager.budget = 1
    manager.name = "a"
    session.commit()
    assert changes(history_rows(session, "employee_history")) == LIFE[:1]
    manager.budget = 2
    session.commit()
    assert changes(history_rows(session, "employee_history")) == LIFE[:2]


def test_key_that_is_used_again_goes_on_in_all_tables(staff: Staff, session: Session) -> None:
    for budget in (1, 2):
        manager = staff.manager(id=1, budget=budget)
        session.add(manager)
        session.commit()
        session.delete(manager)
        session.commit()
    assert changes(history_rows(session, "employee_history")) == [
        (-1, "insert"),
        (0, "delete"),
        (1, "insert"),
        (2, "delete"),
    ]
    assert [(row["version"], row["budget"]) for row in history_rows(session, "manager_history")] == [
        (-1, None),
        (0, 1),
        (1, None),
        (2, 2),
    ]


def test_many_records_of_several_models_in_one_flush(staff: Staff, session: Session) -> None:
    kinds = [staff.employee, staff.clerk, staff.manager, staff.director]
    people = [kinds[number % 4](id=number + 1, name="a") for number in range(40)]
    session.add_all(people)
    session.commit()
    for person in session.scalars(sa.select(staff.employee)):
        person.name = "b"
    session.commit()
    for person in people[:20]:
        session.delete(person)
    session.commit()
    assert len(history_rows(session, "employee_history")) == 40 + 40 + 20
    assert len(history_rows(session, "manager_history")) == 20 + 20 + 10
    assert len(history_rows(session, "director_history")) == 10 + 10 + 5
    assert {row["version"] for row in live_rows(session, "employee")} == {1}


@pytest.mark.parametrize("write", ["update", "delete", "insert", "table"])
def test_bulk_statements_on_joined_models_are_refused(staff: Staff, session: Session, write: str) -> None:
    session.add(staff.manager(id=1, name="a"))
    session.commit()
    statement: Any = {
        "update": sa.update(staff.employee).values(name="b"),
        "delete": sa.delete(staff.manager),
        "insert": sa.insert(staff.manager).values(id=2),
        "table": staff.manager.__table__.update().values(budget=2),
    }[write]
    with pytest.raises(UncapturedWriteError, match="joined inheritance"):
        session.execute(statement)
    session.rollback()
    assert changes(history_rows(session, "employee_history")) == LIFE[:1]


def _vehicles(db: Any) -> tuple[Any, Any]:
    """Two models in one table, and in no other."""
    vehicle = define(
        db,
        "Vehicle",
        __tablename__="vehicle",
        __mapper_args__={"polymorphic_on": "kind", "polymorphic_identity": "vehicle"},
        id=sa.Column(sa.Integer, primary_key=True),
        kind=sa.Column(sa.String),
        name=sa.Column(sa.String),
    )
    attributes = {
        "__mapper_args__": {"polymorphic_identity": "truck"},
        "__chrononaut_hidden__": ["plate"],
        "load": sa.Column(sa.Integer),
        "plate": sa.Column(sa.String),
    }
    return vehicle, type("Truck", (vehicle,), attributes)


def test_bulk_statements_on_models_of_one_table_are_captured(open_database: Callable[..., Session]) -> None:
    db = VersionedSQLAlchemy()
    vehicle, truck = _vehicles(db)
    session = open_database(db)
    session.execute(sa.insert(truck), [{"id": 1, "load": 1, "plate": "p"}, {"id": 2, "load": 2}])
    session.execute(sa.insert(vehicle).values(id=3, kind="vehicle"))
    session.execute(sa.update(truck).values(load=2, plate="q"))
    session.execute(sa.update(vehicle).values(name="all"))
    session.execute(sa.delete(truck).where(truck.id == 1))
    session.commit()
    rows = history_rows(session, "vehicle_history", id=1)
    assert changes(rows) == LIFE
    assert [row["load"] for row in rows] == [None, 1, 2, 2]
    assert [row["name"] for row in rows] == [None, None, None, "all"]
    hidden = [row["change_info"].get("hidden_cols_changed") for row in rows]
    assert hidden == [["plate"], ["plate"], None, ["plate"]]
    rows = history_rows(session, "vehicle_history", id=2)
    assert [row["change_info"].get("hidden_cols_changed") for row in rows] == [None, ["plate"], None]
    assert changes(history_rows(session, "vehicle_history", id=3)) == LIFE[:2]


def test_concrete_models_have_histories_of_their_own(open_database: Callable[..., Session]) -> None:
    db = VersionedSQLAlchemy()
    animal = define(
        db, "Animal", __tablename__="animal", id=sa.Column(sa.Integer, primary_key=True), name=sa.Column(sa.String)
    )
    attributes = {
        "__tablename__": "dog",
        "__mapper_args__": {"concrete": True},
        "id": sa.Column(sa.Integer, primary_key=True),
        "name": sa.Column(sa.String),
        "breed": sa.Column(sa.String),
    }
    dog: Any = type("Dog", (animal,), attributes)
    session = open_database(db)
    one, other = animal(id=1, name="a"), dog(id=1, name="d", breed="x")
    session.add_all([one, other])
    session.commit()
    one.name, other.breed = "b", "y"
    session.commit()
    assert [version.name for version in one.versions()] == ["a"]
    assert [(version.name, version.breed) for version in other.versions()] == [("d", "x")]
    assert changes(history_rows(session, "animal_history")) == changes(history_rows(session, "dog_history")) == LIFE[:2]
    assert (one.version, other.version) == (1, 1)


def test_single_table_model_below_a_concrete_one_is_of_its_table(open_database: Callable[..., Session]) -> None:
    db = VersionedSQLAlchemy()
    animal = define(
        db, "Animal", __tablename__="animal", id=sa.Column(sa.Integer, primary_key=True), name=sa.Column(sa.String)
    )
    dog: Any = type(
        "Dog",
        (animal,),
        {
            "__tablename__": "dog",
            "__mapper_args__": {"concrete": True, "polymorphic_on": "kind", "polymorphic_identity": "dog"},
            "id": sa.Column(sa.Integer, primary_key=True),
            "name": sa.Column(sa.String),
            "kind": sa.Column(sa.String),
        },
    )
    attributes = {
        "__chrononaut_hidden__": ["chip"],
        "__mapper_args__": {"polymorphic_identity": "puppy"},
        "weeks": sa.Column(sa.Integer),
        "chip": sa.Column(sa.Integer),
    }
    puppy: Any = type("Puppy", (dog,), attributes)
    session = open_database(db)
    session.add_all([dog(id=1, name="d"), puppy(id=2, name="p", weeks=7)])
    session.execute(sa.insert(animal).values(id=1, name="a"))
    session.commit()
    for model in (animal, dog):
        session.execute(sa.update(model).values(name="all"))
        session.commit()
        session.execute(sa.delete(model))
        session.commit()
    assert changes(history_rows(session, "animal_history")) == [(-1, "insert"), (0, "update"), (1, "delete")]
    rows = history_rows(session, "dog_history", id=2)
    assert [(row["version"], row["operation"]) for row in rows] == [(-1, "insert"), (0, "update"), (1, "delete")]
    assert [(row["name"], row["weeks"]) for row in rows] == [(None, None), ("p", 7), ("all", 7)]


def test_concrete_model_that_has_a_version_of_its_own_is_refused() -> None:
    db = VersionedSQLAlchemy()
    animal = define(db, "Animal", __tablename__="animal", id=sa.Column(sa.Integer, primary_key=True))
    attributes = {
        "__tablename__": "dog",
        "__mapper_args__": {"concrete": True},
        "id": sa.Column(sa.Integer, primary_key=True),
        "version": sa.Column(sa.Integer),
    }
    with pytest.raises(OptionError, match=r"Dog\.version: the model has this attribute already"):
        type("Dog", (animal,), attributes)


def test_model_below_one_that_is_not_versioned_is_refused() -> None:
    db: Any = VersionedSQLAlchemy()
    person: Any = type("Person", (db.Model,), {"id": sa.Column(sa.Integer, primary_key=True)})
    attributes = {"__tablename__": "student", "id": sa.Column(sa.ForeignKey("person.id"), primary_key=True)}
    with pytest.raises(UnsupportedMappingError, match="it inherits from Person, whose changes would not be captured"):
        type("Student", (person, Versioned), attributes)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"__chrononaut_hidden__": ["name"]}, r"Clerk\.__chrononaut_hidden__: no such columns: name"),
        ({"__chrononaut_rename__": {"version": "revision"}}, "named by the model it inherits from"),
        ({"changed": sa.Column(sa.Integer)}, r"Clerk\.changed: the history needs this name"),
        ({"diff": sa.Column(sa.Integer)}, "would hide a method"),
    ],
)
def test_options_of_a_model_concern_its_own_columns(attributes: dict[str, Any], message: str) -> None:
    db = VersionedSQLAlchemy()
    vehicle, _ = _vehicles(db)
    with pytest.raises(OptionError, match=message):
        type("Clerk", (vehicle,), {"__mapper_args__": {"polymorphic_identity": "clerk"}, **attributes})


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("DELETE FROM manager_history WHERE version = 0", "version 0: manager_history has no row of it"),
        ("DELETE FROM manager_history WHERE version = 1", "version 1: manager_history has no row of it, unlike"),
        ("UPDATE manager_history SET version = 9 WHERE version = 1", "version 9: manager_history has a row of it, and"),
        ("UPDATE employee_history SET desk = 'x' WHERE version = -1", "version -1: the row of an insert holds a state"),
    ],
)
def test_damage_to_one_of_the_histories_is_found(staff: Staff, session: Session, damage: str, found: str) -> None:
    people = [staff.manager(id=1, budget=1), staff.director(id=2, car="x"), staff.clerk(id=3), staff.manager(id=4)]
    session.add_all(people)
    session.commit()
    for name in ("a", "b"):
        for person in people:
            person.name = name
        session.commit()
    session.delete(people[3])
    session.commit()
    models = (staff.employee, staff.manager, staff.director)
    with snapshot(staff.db.engine) as connection:
        assert [finding for model in models for finding in verify(connection, model)] == []
    session.execute(sa.text(damage))
    session.commit()
    with snapshot(staff.db.engine) as connection:
        findings = [str(finding) for model in models for finding in verify(connection, model)]
        assert total_rows(connection, staff.manager) == sum(part.rows for part in check(connection, staff.manager))
    assert any(found in finding for finding in findings)


def _sibling(vehicle: Any, name: str, **attributes: Any) -> Any:
    return type(name, (vehicle,), {"__mapper_args__": {"polymorphic_identity": name.lower()}, **attributes})


def test_siblings_with_attributes_of_one_name_are_captured_each(open_database: Callable[..., Session]) -> None:
    db = VersionedSQLAlchemy()
    vehicle, _ = _vehicles(db)
    bus = _sibling(vehicle, "Bus", info=sa.Column("bus_info", sa.String))
    van = _sibling(vehicle, "Van", info=sa.Column("van_info", sa.String))
    session = open_database(db)
    session.add_all([bus(id=1, info="1"), van(id=2, info="2")])
    session.commit()
    session.execute(sa.update(bus).values(info="3"))
    session.execute(sa.delete(vehicle))
    session.commit()
    rows = history_rows(session, "vehicle_history", id=1)
    assert [(row["operation"], row["bus_info"]) for row in rows] == [("insert", None), ("update", "1"), ("delete", "3")]
    assert history_rows(session, "vehicle_history", id=2)[-1]["van_info"] == "2"


def test_column_that_only_one_of_two_models_hides_is_refused() -> None:
    db = VersionedSQLAlchemy()
    vehicle, truck = _vehicles(db)
    with pytest.raises(OptionError, match=r"Van\.plate: Truck has the same column"):
        _sibling(vehicle, "Van", plate=truck.__table__.c.plate)


def test_object_that_takes_over_the_row_of_another_class_archives_all_of_it(
    open_database: Callable[..., Session],
) -> None:
    db = VersionedSQLAlchemy()
    vehicle, truck = _vehicles(db)
    session = open_database(db)
    session.add(truck(id=1, load=5))
    session.commit()
    session.delete(session.get_one(truck, 1))
    session.add(vehicle(id=1, name="x"))
    session.commit()
    assert history_rows(session, "vehicle_history")[-1]["load"] == 5


def test_object_that_takes_over_the_row_of_a_class_with_another_table_is_refused(
    staff: Staff, session: Session
) -> None:
    session.add(staff.manager(id=1))
    session.commit()
    session.delete(session.get_one(staff.manager, 1))
    session.add(staff.clerk(id=1))
    with pytest.raises(UncapturedWriteError, match=r"replacing a Manager by a Clerk.*flush the delete"):
        session.flush()

"""``as_of`` of models of every shape: all states at an instant are those of each record, values and types alike."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import Session, column_property, relationship, synonym

from chrononaut import Timeline, VersionedSQLAlchemy, history_model
from chrononaut.history import versioning_of
from tests.library import shapes
from tests.library.models import User, define
from tests.library.rows import history_rows
from tests.library.shapes import KEYS, Animal, Dog, Gauge, Price, Truck
from tests.library.staff import Staff

TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)
LONG_AGO = datetime(1900, 1, 1, tzinfo=UTC)


def _changed(session: Session, table: str = "country_history") -> list[datetime]:
    return sorted(row["changed"] for row in history_rows(session, table))


def _as_of_all(session: Session, model: Any, at: datetime) -> dict[Any, tuple[int, dict[str, Any]]]:
    """Key → version and state."""
    versioning = versioning_of(model)
    states = session.scalars(model.as_of(at)).all()
    found = {versioning.key_of(state): _told(model, state) for state in states}
    assert len(found) == len(states)
    return found


def _told(model: Any, state: Any) -> tuple[int, dict[str, Any]]:
    versioning = versioning_of(model)
    return getattr(state, versioning.options.names.version), {name: getattr(state, name) for name in versioning.tracked}


def _at_all_instants(session: Session, model: Any, keys: list[Any]) -> None:
    """Hold all states at every instant of history, just before and just after it, against those of each record."""
    versioning = versioning_of(model)
    instants = session.scalars(sa.select(versioning.column("changed")).distinct()).all()
    for at in sorted({LONG_AGO, *(instant + step for instant in instants for step in (-TICK, 0 * TICK, TICK))}):
        each = {key: Timeline(session, model, key).version_at(at) for key in keys}
        expected = {
            key: _told(model, state) for key, state in each.items() if isinstance(state, (model, versioning.history))
        }
        assert _as_of_all(session, model, at) == expected, at


_WRITTEN = {Gauge: "count", Price: "amount", Truck: "load", Dog: "tricks"}
_steps = st.lists(
    st.tuples(st.sampled_from(["write", "write", "delete", "commit"]), st.integers(0, 1), st.integers(0, 3)),
    min_size=3,
    max_size=12,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(model=st.sampled_from([*_WRITTEN]), steps=_steps)
def test_all_states_at_an_instant_are_those_of_each_record(
    of_shapes: Session, model: Any, steps: list[tuple[str, int, int]]
) -> None:
    session, versioning = of_shapes, versioning_of(model)
    for table in versioning.tables[::-1]:
        session.connection().execute(sa.text(f"DELETE FROM {table.history.name}"))
        session.connection().execute(sa.text(f"DELETE FROM {table.live.name}"))
    session.commit()
    keys: list[Any] = KEYS[shapes.NAMES[model]]
    for what, place, number in steps:
        key = keys[place % len(keys)]
        if what == "write":
            session.merge(model(**dict(zip(versioning.key, key, strict=True)), **{_WRITTEN[model]: number}))
        elif what == "delete" and (found := session.get(model, key)):
            session.delete(found)
        elif what == "commit":
            session.commit()
        session.flush()
    session.commit()
    for asked in {model, sa.inspect(model).base_mapper.class_}:
        _at_all_instants(session, asked, keys)


@pytest.fixture
def of_shapes(open_database: Callable[..., Session]) -> Session:
    return open_database(shapes.db)


def _past_equals_then(session: Session, model: Any) -> None:
    """Hold the states at an instant, read after everything has changed, against the live objects of that time."""
    versioning = versioning_of(model)
    of_model = {"bind_arguments": {"mapper": versioning.mapper}}
    at = max(session.scalars(sa.select(versioning.column("changed")), **of_model))
    then = {versioning.key_of(obj): _told(model, obj) for obj in session.scalars(sa.select(model))}
    types = {key: [type(value) for value in state.values()] for key, (_, state) in then.items()}
    assert then
    session.rollback()
    assert _as_of_all(session, model, at) == then, "while it holds"
    for obj in session.scalars(sa.select(model)).all():
        session.delete(obj)
    session.commit()
    past = _as_of_all(session, model, at)
    assert past == then, "when it holds no more"
    assert {key: [type(value) for value in state.values()] for key, (_, state) in past.items()} == types


def test_values_of_all_types_are_those_of_the_live_object(session: Session) -> None:
    born = datetime(2000, 2, 3, 4, 5, 6, tzinfo=UTC)
    user = User(email="é@x", name="a", active=False, logins=3, born=born, settings={"a": [1]}, biography="long")
    session.add_all([user, User(email="b")])
    session.commit()
    session.refresh(user)
    past = session.scalars(User.as_of(_changed(session, "appuser_history")[-1]).where(User.name == "a")).one()
    assert type(past.settings) is MutableDict
    _past_equals_then(session, User)


@pytest.mark.parametrize("name", ["employee", "clerk", "manager", "director"])
def test_models_that_inherit(open_database: Callable[..., Session], name: str) -> None:
    staff = Staff()
    session = open_database(staff.db)
    people: dict[str, Any] = {
        "employee": {},
        "clerk": {"desk": "d"},
        "manager": {"budget": 3},
        "director": {"budget": 4, "car": "c"},
    }
    for number, (kind, values) in enumerate(people.items()):
        session.add(getattr(staff, kind)(id=number, name=kind, **values))
    session.commit()
    for obj in session.scalars(sa.select(staff.employee)):
        obj.name = f"{obj.name}!"
    session.commit()
    _past_equals_then(session, getattr(staff, name))


def test_concrete_models(open_database: Callable[..., Session]) -> None:
    database: Any = VersionedSQLAlchemy()
    animal = define(database, "Animal", id=sa.Column(sa.Integer, primary_key=True), name=sa.Column(sa.String))
    dog: Any = type(
        "Dog",
        (animal,),
        {
            "__tablename__": "dog",
            "__mapper_args__": {"concrete": True},
            "id": sa.Column(sa.Integer, primary_key=True),
            "name": sa.Column(sa.String),
            "breed": sa.Column(sa.String),
        },
    )
    session = open_database(database)
    session.add_all([animal(id=1, name="a"), dog(id=1, name="d", breed="b")])
    session.commit()
    _past_equals_then(session, animal)
    _past_equals_then(session, dog)


def test_our_columns_that_are_renamed(open_database: Callable[..., Session]) -> None:
    database: Any = VersionedSQLAlchemy()
    names = {
        "version": "row_version",
        "changed": "ended",
        "operation": "op",
        "change_info": "why",
        "valid_from": "since",
    }
    page = define(
        database,
        "Page",
        __chrononaut_rename__=names,
        id=sa.Column(sa.Integer, primary_key=True),
        version=sa.Column(sa.String),
        changed=sa.Column(sa.String),
        valid_from=sa.Column(sa.String),
    )
    session = open_database(database)
    obj = page(id=1, version="draft", changed="a", valid_from="b")
    session.add(obj)
    session.commit()
    created = history_rows(session, "page_history")
    obj.version = "final"
    session.commit()
    (past,) = session.scalars(page.as_of(obj.versions()[0].since).where(page.version == "draft", page.row_version == 0))
    assert (past.row_version, past.version, past.changed, past.valid_from, past.op) == (0, "draft", "a", "b", "update")
    assert past.since < past.ended
    assert past.why == created[0]["why"] or past.why
    _past_equals_then(session, page)


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_table_in_a_schema(open_database: Callable[..., Session]) -> None:
    database: Any = VersionedSQLAlchemy()
    page = define(
        database,
        "Page",
        __table_args__={"schema": "public"},
        id=sa.Column(sa.Integer, primary_key=True),
        title=sa.Column(sa.String),
    )
    session = open_database(database)
    session.add(page(id=1, title="a"))
    session.commit()
    _past_equals_then(session, page)


def test_model_of_another_bind(open_database: Callable[..., Session], other_database_url: str) -> None:
    database: Any = VersionedSQLAlchemy()
    page = define(
        database, "Page", __bind_key__="other", id=sa.Column(sa.Integer, primary_key=True), title=sa.Column(sa.String)
    )
    session = open_database(database, {"other": other_database_url})
    session.add(page(id=1, title="a"))
    session.commit()
    at = datetime.now(UTC) + DAY
    assert session.scalar(page.as_of(at).with_only_columns(sa.func.count(), maintain_column_froms=True)) == 1
    assert session.execute(page.as_of(at).with_only_columns(page.title)).all() == [("a",)]
    _past_equals_then(session, page)


def test_attributes_that_are_made_of_others(open_database: Callable[..., Session]) -> None:
    database: Any = VersionedSQLAlchemy()
    line: Any = define(
        database,
        "Line",
        id=sa.Column(sa.Integer, primary_key=True),
        amount=sa.Column(sa.Integer),
        order_id=sa.Column(sa.ForeignKey("order.id")),
    )
    order: Any = define(
        database,
        "Order",
        id=sa.Column(sa.Integer, primary_key=True),
        title=sa.Column(sa.String),
        lines=relationship(line, lazy="joined"),
        heading=synonym("title"),
        loud=hybrid_property(lambda self: self.title + "!"),
        count=column_property(sa.select(sa.func.count(line.id)).scalar_subquery()),
    )
    order.total = column_property(
        sa.select(sa.func.sum(line.amount)).where(line.order_id == order.id).correlate_except(line).scalar_subquery()
    )
    session = open_database(database)
    session.add(order(id=1, title="a", lines=[line(id=1, amount=2), line(id=2, amount=3)]))
    session.commit()
    at = max(row["changed"] for row in history_rows(session, "line_history"))
    for obj in session.scalars(sa.select(line)):
        obj.amount = 100
    session.get_one(order, 1).title = "z"
    session.commit()
    past = order.as_of(at)
    for criterion in (order.heading == "a", order.loud == "a!", order.total == 5, order.count == 2):
        assert len(session.scalars(past.where(criterion)).all()) == 1, criterion
    assert session.execute(past.with_only_columns(order.total, order.loud)).all() == [(5, "a!")]
    within = sa.select(order).subquery()
    joined = past.join(within, within.c.id == order.id).with_only_columns(within.c.title)
    assert session.execute(joined).all() == [("a",)]


def test_two_models_of_one_table_are_not_mixed_up(of_shapes: Session) -> None:
    session = of_shapes
    session.add_all([Animal(code="a", name="x"), Dog(code="d", name="y", tricks=1)])
    session.commit()
    at = max(_changed(session, "animal_history"))
    for model, codes in ((Animal, ["a", "d"]), (Dog, ["d"]), (Animal, ["a", "d"])):
        states = session.scalars(model.as_of(at).order_by(model.code)).all()
        assert [state.code for state in states] == codes
        assert {type(state) for state in states} == {history_model(model)}

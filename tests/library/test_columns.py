"""Columns of every shape: made by the database, oddly named, or behind attributes that stand for them."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Session, column_property, composite, deferred, synonym

from chrononaut import VersionedSQLAlchemy
from tests.library.models import define
from tests.library.rows import changes, history_rows

Open = Callable[..., Session]
CREATED, UPDATED = (-1, "insert"), (0, "update")
LIFE = [CREATED, UPDATED, (1, "update"), (2, "delete")]

on_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
# Whether memory or the database says if a value is another one.
loaded_or_expired = pytest.mark.parametrize("expired", [False, True], ids=["loaded", "expired"])
warnings_of_sqlalchemy = pytest.mark.filterwarnings(
    "ignore:Dialect sqlite.* does .not. support Decimal:sqlalchemy.exc.SAWarning"
)


class Colour(enum.Enum):
    """Has values that are not its names."""

    RED = "rouge"
    BLUE = "bleu"


@warnings_of_sqlalchemy
def test_defaults_and_computed_values_of_the_database_are_kept(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    model = define(
        db,
        "Order",
        __tablename__="order",
        id=sa.Column(sa.Integer, primary_key=True),
        price=sa.Column(sa.Numeric(10, 2), server_default="1.50", nullable=False),
        pieces=sa.Column(sa.Integer, default=lambda: 2),
        placed=sa.Column(sa.Date, server_default=sa.func.current_date()),
        colour=sa.Column(sa.Enum(Colour), server_default="RED"),
        double=sa.Column(sa.Integer, sa.Computed("pieces * 2", persisted=True)),
        _seen=sa.Column("seen", sa.Integer, server_onupdate=sa.FetchedValue(), server_default="0"),
    )
    session = open_database(db)
    order = model(id=1)
    session.add(order)
    session.commit()
    first = (order.price, order.pieces, order.placed, order.colour, order.double)
    assert first == (Decimal("1.50"), 2, order.placed, Colour.RED, 4)
    order.pieces, order.colour = 3, Colour.BLUE
    session.commit()
    (version,) = order.versions()
    assert (version.price, version.pieces, version.placed, version.colour, version.double) == first
    assert order.diff(version) == {"pieces": (2, 3), "colour": (Colour.RED, Colour.BLUE), "double": (4, 6)}
    session.delete(order)
    session.commit()
    assert changes(history_rows(session, '"order_history"')) == [CREATED, UPDATED, (1, "delete")]


@on_postgresql
@pytest.mark.parametrize("always", [True, False], ids=["always", "by-default"])
def test_identity_columns_are_kept(open_database: Open, always: bool) -> None:
    db = VersionedSQLAlchemy()
    model = define(
        db,
        "Ticket",
        __tablename__="ticket",
        id=sa.Column(sa.Integer, sa.Identity(always=always, start=7), primary_key=True),
        number=sa.Column(sa.BigInteger, sa.Identity(always=always, start=100, increment=10)),
        text=sa.Column(sa.String),
    )
    session = open_database(db)
    tickets = [model(text="a"), model(text="a")]
    session.add_all(tickets)
    session.commit()
    for ticket in tickets:
        ticket.text = "b"
    session.commit()
    for ticket in tickets:
        session.delete(ticket)
    session.commit()
    for key, number in ((7, 100), (8, 110)):
        rows = history_rows(session, "ticket_history", id=key)
        assert changes(rows) == [CREATED, UPDATED, (1, "delete")]
        assert [(row["number"], row["text"]) for row in rows] == [(None, None), (number, "a"), (number, "b")]


@pytest.mark.xfail(
    sa.__version__.startswith("2.0"),
    reason="SQLAlchemy 2.0 does not make virtual columns on PostgreSQL",
    raises=sa.exc.CompileError,
)
@on_postgresql
def test_virtual_computed_column_is_kept(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    model = define(
        db,
        "Square",
        __tablename__="square",
        id=sa.Column(sa.Integer, primary_key=True),
        side=sa.Column(sa.Integer),
        area=sa.Column(sa.Integer, sa.Computed("side * side", persisted=False)),
    )
    session = open_database(db)
    square = model(id=1, side=2)
    session.add(square)
    session.commit()
    square.side = 3
    session.commit()
    assert square.diff(square.versions()[0]) == {"side": (2, 3), "area": (4, 9)}


ODD_NAMES = [
    "select",
    "Order",
    "a b",
    "%(x)s",
    "a:b",
    "x)",
    "100%",
    "'",
    '"',
    "?",
    "user",
    "known_version",
    "new_info",
    "key_key",
    "instant",
    "ü",
]


@pytest.mark.parametrize("as_key", [False, True], ids=["value", "key"])
@pytest.mark.parametrize("odd", ODD_NAMES)
@loaded_or_expired
def test_column_of_an_odd_name_is_kept(open_database: Open, odd: str, as_key: bool, expired: bool) -> None:
    db = VersionedSQLAlchemy()
    key_name, value_name = (odd, "plain") if as_key else ("plain", odd)
    model = define(
        db,
        "Thing",
        __tablename__="thing",
        key=sa.Column(key_name, sa.String(10), primary_key=True),
        value=sa.Column(value_name, sa.String(10)),
    )
    session = open_database(db)
    thing = model(key="k", value="a")
    session.add(thing)
    session.commit()
    for value in ("b", None):
        session.expire(thing)
        if not expired:
            thing.value  # noqa: B018  loads it
        thing.value = value
        session.commit()
    assert thing.diff(thing.versions()[0]) == {"value": ("a", None)}
    session.delete(thing)
    session.commit()
    session.add(model(key="k", value="c"))
    session.commit()
    rows = history_rows(session, "thing_history")
    assert changes(rows) == [*LIFE, (3, "insert")]
    assert [row[value_name] for row in rows] == [None, "a", "b", None, None]
    assert {row[key_name] for row in rows} == {"k"}


@on_postgresql
def test_change_info_is_ours_whatever_the_columns_are_called(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    model = define(
        db,
        "Page",
        __tablename__="page",
        id=sa.Column(sa.Integer, primary_key=True),
        new_info=sa.Column(postgresql.JSONB),
    )
    session = open_database(db)
    page = model(id=1, new_info={"mine": 1})
    session.add(page)
    session.commit()
    page.new_info = {"mine": 2}
    session.commit()
    assert history_rows(session, "page_history")[-1]["change_info"] == {"user_id": None, "remote_addr": None}


@pytest.mark.parametrize("odd", ['a "b" %(c)s: d', "given", "locked", "moment", "before", "last", "archived", "order"])
def test_table_of_an_odd_name_is_kept(open_database: Open, odd: str) -> None:
    db = VersionedSQLAlchemy()
    model = define(
        db,
        "Thing",
        __tablename__=odd,
        id=sa.Column(sa.Integer, primary_key=True),
        value=sa.Column(sa.Integer),
    )
    session = open_database(db)
    thing = model(id=1, value=1)
    session.add(thing)
    session.commit()
    thing.value = 2
    session.commit()
    assert [(version.version, version.value) for version in thing.versions()] == [(0, 1)]


@loaded_or_expired
def test_our_names_can_be_the_models_when_ours_are_renamed(open_database: Open, expired: bool) -> None:
    db = VersionedSQLAlchemy()
    ours = ("version", "operation", "changed", "change_info", "transaction_id", "valid_from")
    model = define(
        db,
        "Song",
        __tablename__="song",
        __chrononaut_rename__={name: f"row_{name}" for name in ours},
        id=sa.Column(sa.Integer, primary_key=True),
        version=sa.Column(sa.String),
        operation=sa.Column(sa.LargeBinary),
        changed=sa.Column(sa.Boolean),
        change_info=sa.Column(sa.JSON),
        transaction_id=sa.Column(sa.Uuid),
        valid_from=sa.Column(sa.Date),
    )
    session = open_database(db)
    before = {
        "version": "a",
        "operation": b"\x00",
        "changed": True,
        "change_info": {"a": 1},
        "transaction_id": UUID(int=1),
        "valid_from": date(2026, 1, 1),
    }
    after = {
        "version": "b",
        "operation": b"\x01",
        "changed": False,
        "change_info": {"a": 2},
        "transaction_id": UUID(int=2),
        "valid_from": date(2026, 1, 2),
    }
    song = model(id=1, **before)
    session.add(song)
    session.commit()
    if not expired:
        assert song.version == "a"
    for name, value in after.items():
        setattr(song, name, value)
    session.commit()
    (version,) = song.versions()
    assert {name: getattr(version, name) for name in before} == before
    assert song.diff(version) == {name: (before[name], after[name]) for name in before}
    assert (version.row_version, version.row_operation, song.row_version) == (0, "update", 1)
    session.expire(song)
    for name, value in after.items():
        setattr(song, name, value)
    session.commit()
    assert song.row_version == 1


@dataclass
class Position:
    """Two columns as one value."""

    x: int | None
    y: int | None


@loaded_or_expired
def test_attributes_that_stand_for_columns_change_them(open_database: Open, expired: bool) -> None:
    db = VersionedSQLAlchemy()
    first = sa.Column("first", sa.String)
    model = define(
        db,
        "Person",
        __tablename__="person",
        id=sa.Column(sa.Integer, primary_key=True),
        first=first,
        given=synonym("first"),
        x=sa.Column(sa.Integer),
        y=sa.Column(sa.Integer),
        position=composite(Position, "x", "y"),
        biography=deferred(sa.Column(sa.Text)),
        greeting=column_property("Hello " + first),
        shouted=hybrid_property(lambda self: self.first.upper()).setter(
            lambda self, value: setattr(self, "first", value.lower())
        ),
    )
    session = open_database(db)
    person = model(id=1, given="ada", position=Position(1, 2), biography="long")
    session.add(person)
    session.commit()

    def forget() -> None:
        session.expire(person)
        if not expired:
            assert (person.first, person.position, person.biography) is not None

    forget()
    person.given, person.position, person.biography = "ada", Position(1, 2), "long"
    session.commit()
    assert changes(history_rows(session, "person_history")) == [CREATED]
    forget()
    person.shouted, person.position, person.biography = "GRACE", Position(1, 3), "longer"
    session.commit()
    forget()
    person.given = "joan"
    person.position = None
    session.commit()
    first_version, second_version = person.versions()
    assert (first_version.first, first_version.x, first_version.y, first_version.biography) == ("ada", 1, 2, "long")
    assert person.diff(first_version, second_version) == {
        "first": ("ada", "grace"),
        "y": (2, 3),
        "biography": ("long", "longer"),
    }
    assert person.diff(second_version) == {"first": ("grace", "joan"), "x": (1, None), "y": (3, None)}
    assert set(history_rows(session, "person_history")[0]) >= {"first", "x", "y", "biography"}

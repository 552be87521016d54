"""Values of every type: history gives back what the live object had, and a value set to what it was is no change."""

import enum
import ipaddress
import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import Range
from sqlalchemy.ext.mutable import MutableDict, MutableList
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeDecorator, TypeEngine

from chrononaut import Timeline, VersionedSQLAlchemy
from tests.library.conftest import prepare_sqlite
from tests.library.models import define
from tests.library.rows import changes, history_rows, live_rows

Open = Callable[..., Session]
CREATED, UPDATED = (-1, "insert"), (0, "update")
LIFE = [CREATED, UPDATED, (1, "update"), (2, "delete")]

on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
# Whether memory or the database says if a value is another one.
loaded_or_expired = pytest.mark.parametrize("expired", [False, True], ids=["loaded", "expired"])
# What SQLAlchemy says of two types of its own.
warnings_of_sqlalchemy = pytest.mark.filterwarnings(
    "ignore:Dialect sqlite.* does .not. support Decimal:sqlalchemy.exc.SAWarning",
    "ignore:Type object .*(MONEY|DOMAIN).* does not refer to an OperatorClass:sqlalchemy.exc.SADeprecationWarning",
)


class Colour(enum.Enum):
    """Has values that are not its names."""

    RED = "rouge"
    BLUE = "bleu"


class Size(enum.IntEnum):
    """Equals its numbers."""

    SMALL = 1
    LARGE = 2


def _values(members: Any) -> list[str]:
    return [str(member.value) for member in members]


class CommaSeparated(TypeDecorator[list[str]]):
    """A list that the database holds as one text."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: list[str] | None, dialect: object) -> str | None:
        return None if value is None else ",".join(value)

    def process_result_value(self, value: str | None, dialect: object) -> list[str] | None:
        return None if value is None else [part for part in value.split(",") if part]


class Shouted(TypeDecorator[str]):
    """Text that the database itself turns into upper case on its way in, and into lower case on its way out."""

    impl = sa.String
    cache_ok = True

    def bind_expression(self, bindparam: Any) -> Any:
        return sa.func.upper(bindparam, type_=sa.String())

    def column_expression(self, column: Any) -> Any:
        return sa.func.lower(column, type_=self)


class Document(TypeDecorator[dict[str, Any]]):
    """JSON, wrapped."""

    impl = sa.JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: object) -> Any:
        return None if value is None else {"wrapped": value}

    def process_result_value(self, value: Any, dialect: object) -> Any:
        return None if value is None else value["wrapped"]


class Cents(TypeDecorator[Decimal]):
    """An amount that the database holds as a whole number. Its result is of another type than its parameter may be."""

    impl = sa.Integer
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: object) -> int | None:
        return None if value is None else int(Decimal(value) * 100)

    def process_result_value(self, value: int | None, dialect: object) -> Decimal | None:
        return None if value is None else Decimal(value) / 100


@dataclass(frozen=True)
class Kind:
    """A type, two values of it, and values that are the first one in other clothes.

    :ivar column: makes the type, anew for each table
    """

    column: Callable[[], TypeEngine[Any] | type[TypeEngine[Any]]]
    first: Any
    second: Any
    same: Sequence[Any] = ()


AWARE = datetime(2026, 3, 1, 12, 30, 15, 123456, UTC)
NAIVE = AWARE.replace(tzinfo=None)
ELSEWHERE = timezone(timedelta(hours=5, minutes=30))
WIDE = "\U0001f600 naïve \u202e \U00020000 'quoted' \"twice\" \\ % :x %(x)s ?"

KINDS = {
    "integer": Kind(lambda: sa.Integer, 1, 2, same=[True]),
    "smallinteger": Kind(lambda: sa.SmallInteger, -(2**15), 2**15 - 1),
    "biginteger": Kind(lambda: sa.BigInteger, -(2**63), 2**63 - 1),
    "boolean": Kind(lambda: sa.Boolean, True, False, same=[1]),
    "boolean-checked": Kind(lambda: sa.Boolean(create_constraint=True, name="checked"), False, True, same=[0]),
    "string": Kind(lambda: sa.String(200), WIDE, ""),
    "text": Kind(lambda: sa.Text, "x" * 100_000, WIDE),
    "unicode": Kind(lambda: sa.Unicode(200), "é", "e\u0301"),
    "unicodetext": Kind(lambda: sa.UnicodeText, " ", "  "),
    "enum": Kind(lambda: sa.Enum(Colour), Colour.RED, Colour.BLUE),
    "enum-values": Kind(lambda: sa.Enum(Colour, values_callable=_values, name="couleur"), Colour.RED, Colour.BLUE),
    "enum-text": Kind(lambda: sa.Enum(Colour, native_enum=False, length=20), Colour.RED, Colour.BLUE),
    "enum-text-values": Kind(
        lambda: sa.Enum(Colour, native_enum=False, create_constraint=True, values_callable=_values),
        Colour.RED,
        Colour.BLUE,
    ),
    "enum-strings": Kind(lambda: sa.Enum("a", "b c", "ü", name="letters"), "a", "ü"),
    "enum-integers": Kind(lambda: sa.Enum(Size), Size.SMALL, Size.LARGE),
    "numeric": Kind(lambda: sa.Numeric(20, 4), Decimal("1.5000"), Decimal("-0.0001"), same=[Decimal("1.5"), 1.5]),
    "numeric-whole": Kind(lambda: sa.Numeric(10, 0), Decimal(7), Decimal(0), same=[7, Decimal("7.00")]),
    "numeric-float": Kind(lambda: sa.Numeric(10, 2, asdecimal=False), 1.25, -2.5, same=[Decimal("1.25")]),
    "float": Kind(lambda: sa.Float, 0.1, -1e300),
    "float-decimal": Kind(lambda: sa.Float(asdecimal=True), Decimal("0.25"), Decimal("2.5"), same=[Decimal("0.2500")]),
    "double": Kind(lambda: sa.Double, 2.0**-1074, 1.7976931348623157e308),
    "infinity": Kind(lambda: sa.Double, math.inf, -math.inf),
    "largebinary": Kind(lambda: sa.LargeBinary, b"\x00\xff\x80", b""),
    "date": Kind(lambda: sa.Date, date.min, date(9999, 12, 31)),
    "time": Kind(lambda: sa.Time, time(0, 0), time(23, 59, 59, 999999)),
    "datetime": Kind(lambda: sa.DateTime, NAIVE, NAIVE.replace(year=9999)),
    "interval": Kind(lambda: sa.Interval, timedelta(days=1, microseconds=1), timedelta(seconds=-1)),
    "uuid": Kind(lambda: sa.Uuid, UUID(int=5), UUID(int=2**128 - 1)),
    "uuid-text": Kind(lambda: sa.Uuid(as_uuid=False), str(UUID(int=5)), str(UUID(int=2**128 - 1))),
    "json-object": Kind(
        lambda: sa.JSON,
        {"a": 1, "b": [None, {"c": "\U0001f600"}]},
        {},
        same=[{"b": [None, {"c": "\U0001f600"}], "a": 1}],
    ),
    "json-list": Kind(lambda: sa.JSON, [1, 2.5, "x", None, True], []),
    "json-scalar": Kind(lambda: sa.JSON, "x", 5),
    "json-false": Kind(lambda: sa.JSON, False, ""),
    "json-sql-null": Kind(lambda: sa.JSON(none_as_null=True), {"a": None}, []),
    "json-mutable": Kind(lambda: MutableDict.as_mutable(sa.JSON()), {"a": [1]}, {"a": [2]}),
    "pickle": Kind(lambda: sa.PickleType, {"a": (1, {2})}, Decimal(1)),
    "decorated-list": Kind(lambda: CommaSeparated, ["a", "b"], []),
    "decorated-list-mutable": Kind(lambda: MutableList.as_mutable(CommaSeparated()), ["a", "b"], ["c"]),
    "decorated-in-database": Kind(lambda: Shouted, "a", "b"),
    "decorated-json": Kind(lambda: Document, {"a": 1, "b": 2}, {"a": [2]}, same=[{"b": 2, "a": 1}]),
    "decorated-amount": Kind(lambda: Cents, Decimal("1.5"), Decimal("-0.01"), same=[Decimal("1.50"), 1.5]),
    "variant": Kind(lambda: sa.String(5).with_variant(sa.Text(), "postgresql"), "x", "y"),
}

POSTGRESQL_KINDS = {
    "integer-array": Kind(lambda: sa.ARRAY(sa.Integer), [1, None, 3], []),
    "nested-array": Kind(lambda: sa.ARRAY(sa.Integer, dimensions=2), [[1, 2], [3, 4]], [[5, 6]]),
    "text-array": Kind(lambda: postgresql.ARRAY(sa.Text), [WIDE, "", "NULL", "{}", ","], [None]),
    "tuple-array": Kind(lambda: postgresql.ARRAY(sa.Integer, as_tuple=True), (1, 2), ()),
    "mutable-array": Kind(lambda: MutableList.as_mutable(postgresql.ARRAY(sa.Integer)), [1], [2]),
    "enum-array": Kind(
        lambda: postgresql.ARRAY(sa.Enum(Colour, name="colours")), [Colour.RED, Colour.BLUE], [Colour.BLUE]
    ),
    "uuid-array": Kind(lambda: postgresql.ARRAY(sa.Uuid), [UUID(int=1)], [UUID(int=2), UUID(int=1)]),
    "numeric-array": Kind(
        lambda: postgresql.ARRAY(sa.Numeric(10, 2)), [Decimal("1.50")], [Decimal("2.50")], same=[[Decimal("1.5")]]
    ),
    "json-array": Kind(lambda: postgresql.ARRAY(postgresql.JSON), [{"a": 1}], [{"a": 2}, []]),
    "jsonb-array": Kind(lambda: postgresql.ARRAY(postgresql.JSONB), [{"a": 1}], [{"a": 2}, []]),
    "json": Kind(lambda: postgresql.JSON, {"b": 1, "a": [{"b": 1}]}, [], same=[{"a": [{"b": 1}], "b": 1}]),
    "jsonb": Kind(lambda: postgresql.JSONB, {"b": 1, "a": [{"b": 1}]}, [], same=[{"a": [{"b": 1}], "b": 1}]),
    "jsonb-scalar": Kind(lambda: postgresql.JSONB, 1, "1", same=[1.0]),
    "json-variant": Kind(
        lambda: sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), {"a": 1, "b": 2}, [], same=[{"b": 2, "a": 1}]
    ),
    "json-other-variant": Kind(
        lambda: sa.String().with_variant(postgresql.JSON(), "postgresql"), {"a": 1, "b": 2}, [], same=[{"b": 2, "a": 1}]
    ),
    "int4range": Kind(lambda: postgresql.INT4RANGE, Range(1, 6), Range(empty=True), same=[Range(1, 5, bounds="[]")]),
    "int8range": Kind(lambda: postgresql.INT8RANGE, Range(None, 2**40), Range(None, None)),
    "numrange": Kind(lambda: postgresql.NUMRANGE, Range(Decimal("1.5"), Decimal(2)), Range(None, Decimal(0))),
    "daterange": Kind(lambda: postgresql.DATERANGE, Range(date(2026, 1, 1), None), Range(empty=True)),
    "tsrange": Kind(lambda: postgresql.TSRANGE, Range(NAIVE, None), Range(None, NAIVE)),
    "tstzrange": Kind(
        lambda: postgresql.TSTZRANGE,
        Range(AWARE, AWARE + timedelta(hours=1)),
        Range(AWARE, AWARE, bounds="[]"),
        same=[Range(AWARE.astimezone(ELSEWHERE), AWARE + timedelta(hours=1))],
    ),
    "int4multirange": Kind(
        lambda: postgresql.INT4MULTIRANGE,
        postgresql.ranges.MultiRange([Range(1, 3), Range(5, 7)]),
        postgresql.ranges.MultiRange(),
    ),
    "tstzmultirange": Kind(
        lambda: postgresql.TSTZMULTIRANGE,
        postgresql.ranges.MultiRange([Range(AWARE, None)]),
        postgresql.ranges.MultiRange([Range(None, AWARE)]),
    ),
    "inet": Kind(lambda: postgresql.INET, ipaddress.ip_interface("192.168.0.1/24"), ipaddress.ip_address("::1")),
    "cidr": Kind(
        lambda: postgresql.CIDR, ipaddress.ip_network("192.168.0.0/24"), ipaddress.ip_network("2001:db8::/32")
    ),
    "macaddr": Kind(lambda: postgresql.MACADDR, "08:00:2b:01:02:03", "08:00:2b:01:02:04"),
    "tsvector": Kind(lambda: postgresql.TSVECTOR, "'cat':2 'fat':1", "'sat':3"),
    "tsquery": Kind(lambda: postgresql.TSQUERY, "'cat' & 'fat'", "'sat'"),
    "bit": Kind(lambda: postgresql.BIT(5), "10110", "00000"),
    "bit-varying": Kind(lambda: postgresql.BIT(5, varying=True), "1", "01010"),
    "money": Kind(lambda: postgresql.MONEY, "$1.50", "$1,000.00"),
    "timestamp-rounded": Kind(
        lambda: postgresql.TIMESTAMP(timezone=True, precision=0), AWARE.replace(microsecond=0), AWARE.replace(year=1)
    ),
    "aware-datetime": Kind(
        lambda: sa.DateTime(timezone=True), AWARE, datetime(1, 1, 2, tzinfo=UTC), same=[AWARE.astimezone(ELSEWHERE)]
    ),
    "aware-time": Kind(lambda: sa.Time(timezone=True), time(1, tzinfo=UTC), time(1, tzinfo=ELSEWHERE)),
    "interval-precise": Kind(
        lambda: postgresql.INTERVAL(precision=6), timedelta(hours=25), timedelta(0), same=[timedelta(days=1, hours=1)]
    ),
    "domain": Kind(lambda: postgresql.DOMAIN("even", sa.Integer(), check=sa.text("VALUE % 2 = 0")), 2, 4, same=[2.0]),
    "enum-own": Kind(lambda: postgresql.ENUM(Colour, name="own"), Colour.RED, Colour.BLUE),
    "char": Kind(lambda: sa.CHAR(5), "ab   ", "c    "),
    "numeric-unbounded": Kind(lambda: sa.Numeric, Decimal("1.0"), Decimal("1e-100"), same=[Decimal("1.00")]),
    "numeric-infinity": Kind(lambda: sa.Numeric, Decimal("Infinity"), Decimal("-Infinity")),
    "real": Kind(lambda: sa.REAL, 0.1, math.inf),
    "oid": Kind(lambda: postgresql.OID, 2**32 - 1, 0),
    "bytea": Kind(lambda: postgresql.BYTEA, b"\x00", b"\xff"),
}

each_kind = pytest.mark.parametrize(
    ("database_kind", "name"),
    [
        *(
            pytest.param(database, name, id=f"{database}-{name}")
            for database in ("sqlite", "postgresql")
            for name in KINDS
        ),
        *(pytest.param("postgresql", name, id=f"postgresql-{name}") for name in POSTGRESQL_KINDS),
    ],
    indirect=["database_kind"],
)


class Things:
    """A database that has a table for each kind, once a test asks for it. Each test takes another key."""

    def __init__(self, url: str) -> None:
        self.db = VersionedSQLAlchemy()
        self.app = Flask("types")
        self.app.config["SQLALCHEMY_DATABASE_URI"] = url
        self.db.init_app(self.app)
        self.models: dict[str, Any] = {}
        self.keys = count(1)
        with self.app.app_context():
            prepare_sqlite(self.db.engine)

    def model(self, name: str) -> Any:
        if name not in self.models:
            table = f"thing_{name}".replace("-", "_")
            columns = {
                "id": sa.Column(sa.Integer, primary_key=True),
                "value": sa.Column((KINDS | POSTGRESQL_KINDS)[name].column()),
                "other": sa.Column(sa.Integer),
            }
            self.models[name] = define(self.db, "".join(table.title().split("_")), __tablename__=table, **columns)
            self.db.create_all()
        return self.models[name]

    def close(self) -> None:
        with self.app.app_context():
            self.db.engine.dispose()


@pytest.fixture(scope="module")
def things_on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Things]:
    """The things on SQLite."""
    things = Things(f"sqlite:///{tmp_path_factory.mktemp('types') / 'types.db'}")
    yield things
    things.close()


@pytest.fixture(scope="module")
def things_on_postgresql(postgres_url: str) -> Iterator[Things]:
    """The things on PostgreSQL, in a database that no other test empties."""
    server = sa.create_engine(postgres_url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE types")
    things = Things(sa.make_url(postgres_url).set(database="types").render_as_string(hide_password=False))
    yield things
    things.close()
    with server.connect() as connection:
        connection.exec_driver_sql("DROP DATABASE types")


@dataclass(frozen=True)
class Thing:
    """A new record of one kind, its first value flushed and committed.

    :ivar kind: what its values are
    :ivar keys: further keys
    """

    kind: Kind
    session: Session
    model: Any
    key: int
    keys: Iterator[int]

    def add(self, value: Any) -> Any:
        obj = self.model(id=self.key, value=deepcopy(value), other=1)
        self.session.add(obj)
        self.session.commit()
        return obj

    def forget(self, obj: Any, expired: bool) -> None:
        """Let memory know the object's values, or not."""
        self.session.expire(obj)
        if not expired:
            assert obj.id == self.key

    def changes(self) -> list[tuple[int, str]]:
        return changes(history_rows(self.session, f"{self.model.__tablename__}_history", id=self.key))


@pytest.fixture
def thing(database_kind: str, name: str, request: pytest.FixtureRequest) -> Iterator[Thing]:
    """A record to be of the kind that the test asks for."""
    things: Things = request.getfixturevalue(f"things_on_{database_kind}")
    with things.app.app_context():
        model = things.model(name)
        try:
            yield Thing((KINDS | POSTGRESQL_KINDS)[name], things.db.session(), model, next(things.keys), things.keys)
        finally:
            things.db.session.remove()


def alike(one: Any, other: Any) -> bool:
    """Are two values equal and of one type, in their parts as well? Not a number is itself here."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(alike(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, float | Decimal) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)


@each_kind
@loaded_or_expired
@warnings_of_sqlalchemy
def test_history_gives_back_what_the_live_object_had(thing: Thing, expired: bool) -> None:
    obj = thing.add(thing.kind.first)
    had = [None, deepcopy(obj.value)]
    assert had[1] == thing.kind.first
    for value in (thing.kind.second, None):
        thing.forget(obj, expired)
        obj.value = deepcopy(value)
        thing.session.commit()
        had.append(deepcopy(obj.value))
    first, second = obj.versions()
    assert alike(first.value, had[1])
    assert alike(second.value, had[2])
    for differences, pair in (
        (obj.diff(first, second), had[1:3]),
        (obj.diff(second), had[2:4]),
        (obj.diff(first), had[1::2]),
    ):
        assert list(differences) == ["value"]
        assert alike(list(differences["value"]), pair)
    thing.session.delete(obj)
    thing.session.commit()
    assert thing.changes() == LIFE
    states = Timeline(thing.session, thing.model, (thing.key,)).versions()
    assert alike([state.value for state in states], had[1:])


@each_kind
@loaded_or_expired
@warnings_of_sqlalchemy
def test_equal_value_is_no_change(thing: Thing, expired: bool) -> None:
    obj = thing.add(thing.kind.first)
    for value in (deepcopy(obj.value), deepcopy(thing.kind.first), *thing.kind.same):
        thing.forget(obj, expired)
        obj.value = value
        thing.session.commit()
        assert thing.changes() == [CREATED], value
        assert obj.version == 0


@each_kind
@warnings_of_sqlalchemy
def test_value_that_stays_is_no_difference(thing: Thing) -> None:
    obj = thing.add(thing.kind.first)
    obj.other = 2
    thing.session.commit()
    (before,) = obj.versions()
    assert obj.diff(before) == {"other": (1, 2)}
    assert obj.changes()[1].differences == {"other": (1, 2)}


@each_kind
@loaded_or_expired
@warnings_of_sqlalchemy
def test_null_over_null_is_no_change(thing: Thing, expired: bool) -> None:
    obj = thing.add(None)
    thing.forget(obj, expired)
    obj.value = None
    thing.session.commit()
    assert thing.changes() == [CREATED]


# Values that equal no value, or more than themselves


@pytest.mark.parametrize(
    ("database_kind", "type_", "number"),
    [
        pytest.param("postgresql", sa.Double(), math.nan, id="float"),
        pytest.param("postgresql", sa.Numeric(), Decimal("NaN"), id="numeric"),
        pytest.param("postgresql", postgresql.ARRAY(sa.Double), [1.0, math.nan], id="array"),
    ],
    indirect=["database_kind"],
)
@loaded_or_expired
def test_not_a_number_is_kept_and_is_itself(open_database: Open, type_: Any, number: Any, expired: bool) -> None:
    db = VersionedSQLAlchemy()
    model = define(
        db,
        "Reading",
        __tablename__="reading",
        id=sa.Column(sa.Integer, primary_key=True),
        value=sa.Column(type_),
        other=sa.Column(sa.Integer),
    )
    session = open_database(db)
    reading = model(id=1, value=number, other=1)
    session.add(reading)
    session.commit()
    reading.other = 2
    session.commit()
    (version,) = reading.versions()
    assert alike(version.value, number)
    assert reading.diff(version) == {"other": (1, 2)}
    session.expire(reading)
    if not expired:
        assert alike(reading.value, number)
    reading.value = deepcopy(number)
    session.commit()
    # Where the value is loaded, SQLAlchemy compares by ==, and writes what is not equal to itself.
    again = [] if expired else [(1, "update")]
    assert changes(history_rows(session, "reading_history")) == [CREATED, UPDATED, *again]


@on_sqlite
@loaded_or_expired
def test_change_that_the_collation_does_not_see_is_made_and_kept(open_database: Open, expired: bool) -> None:
    db = VersionedSQLAlchemy()
    model = define(
        db,
        "Person",
        __tablename__="person",
        id=sa.Column(sa.Integer, primary_key=True),
        name=sa.Column(sa.String(collation="NOCASE")),
    )
    session = open_database(db)
    person = model(id=1, name="ada")
    session.add(person)
    session.commit()
    session.expire(person)
    if not expired:
        assert person.name == "ada"
    person.name = "Ada"
    session.commit()
    assert [row["name"] for row in live_rows(session, "person")] == ["Ada"]
    assert [row["name"] for row in history_rows(session, "person_history")] == [None, "ada"]


@on_postgresql
@loaded_or_expired
def test_change_of_a_type_without_equality_is_kept(open_database: Open, expired: bool) -> None:
    """PostgreSQL's points, for one, are compared by other operators."""

    class Point(sa.types.UserDefinedType[str]):
        cache_ok = True

        def get_col_spec(self, **_: Any) -> str:
            return "POINT"

    db = VersionedSQLAlchemy()
    model = define(db, "Place", __tablename__="place", id=sa.Column(sa.Integer, primary_key=True), at=sa.Column(Point))
    session = open_database(db)
    place = model(id=1, at="(1,2)")
    session.add(place)
    session.commit()
    session.expire(place)
    if not expired:
        assert place.at == "(1,2)"
    place.at = "(3,4)"
    session.commit()
    assert [row["at"] for row in history_rows(session, "place_history")] == [None, "(1,2)"]


# JSON


@loaded_or_expired
def test_json_null_and_sql_null_are_two_values(open_database: Open, database_kind: str, expired: bool) -> None:
    db = VersionedSQLAlchemy()
    model = define(
        db, "Page", __tablename__="page", id=sa.Column(sa.Integer, primary_key=True), value=sa.Column(sa.JSON)
    )
    session = open_database(db)
    page = model(id=1, value={"a": 1})
    session.add(page)
    session.commit()
    for value in (sa.JSON.NULL, sa.null(), sa.JSON.NULL, {"a": None}):
        session.expire(page)
        if not expired:
            page.value  # noqa: B018  loads it
        page.value = value
        session.commit()
    stored = sa.text("SELECT version, CAST(value AS text) FROM page_history ORDER BY version")
    assert [tuple(row) for row in session.connection().execute(stored)] == [
        (-1, None),
        (0, '{"a": 1}'),
        (1, "null"),
        (2, None),
        (3, "null"),
    ]
    assert [version.value for version in page.versions()] == [{"a": 1}, None, None, None]


def test_document_changed_in_place_is_kept_as_it_was(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    model = define(
        db,
        "Page",
        __tablename__="page",
        id=sa.Column(sa.Integer, primary_key=True),
        settings=sa.Column(MutableDict.as_mutable(sa.JSON())),
        tags=sa.Column(MutableList.as_mutable(sa.JSON())),
        names=sa.Column(MutableList.as_mutable(CommaSeparated())),
    )
    session = open_database(db)
    page = model(id=1, settings={"a": {"b": [1]}}, tags=["x"], names=["n"])
    session.add(page)
    session.commit()
    page.settings["a"] = {"b": [1, 2]}
    page.tags.append("y")
    page.names += ["m"]
    session.commit()
    page.settings["a"]["b"].append(3)
    page.settings.changed()
    page.tags[0] = {"z": None}
    del page.names[:]
    session.commit()
    kept = [(version.settings, version.tags, version.names) for version in page.versions()]
    assert kept == [({"a": {"b": [1]}}, ["x"], ["n"]), ({"a": {"b": [1, 2]}}, ["x", "y"], ["n", "m"])]
    assert page.diff(page.versions()[0]) == {
        "settings": ({"a": {"b": [1]}}, {"a": {"b": [1, 2, 3]}}),
        "tags": (["x"], [{"z": None}, "y"]),
        "names": (["n"], []),
    }


def test_document_marked_as_changed_that_is_as_it_was_has_one_version_at_the_most(open_database: Open) -> None:
    """A document does not know what it was, so that the ORM writes it anew."""
    db = VersionedSQLAlchemy()
    model = define(
        db,
        "Page",
        __tablename__="page",
        id=sa.Column(sa.Integer, primary_key=True),
        settings=sa.Column(MutableDict.as_mutable(sa.JSON())),
    )
    session = open_database(db)
    page = model(id=1, settings={"a": 1})
    session.add(page)
    session.commit()
    page.settings["a"] = 2
    page.settings["a"] = 1
    session.commit()
    assert changes(history_rows(session, "page_history")) == [CREATED]


@loaded_or_expired
@pytest.mark.parametrize("nested", [False, True], ids=["alone", "nested"])
def test_one_and_true_are_two_values_in_a_document(open_database: Open, expired: bool, nested: bool) -> None:
    db = VersionedSQLAlchemy()
    model = define(
        db, "Page", __tablename__="page", id=sa.Column(sa.Integer, primary_key=True), value=sa.Column(sa.JSON)
    )
    session = open_database(db)
    before, after = ({"a": 1}, {"a": True}) if nested else (1, True)
    page = model(id=1, value=before)
    session.add(page)
    session.commit()
    session.expire(page)
    if not expired:
        assert alike(page.value, before)
    page.value = after
    session.commit()
    rows = changes(history_rows(session, "page_history"))
    if not expired:
        # To SQLAlchemy the two are one: it writes nothing.
        assert alike(page.value, before)
        assert rows == [CREATED]
        return
    assert alike(page.value, after)
    assert rows == [CREATED, UPDATED]
    (version,) = page.versions()
    assert alike(page.diff(version), {"value": (before, after)})


# Documents, texts and numbers of any kind

_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
_documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _texts,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(_texts, parts, max_size=3),
    max_leaves=8,
)
_any_values = {
    "json-object": _documents,
    "text": _texts,
    "biginteger": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False, allow_subnormal=False),
    "largebinary": st.binary(max_size=20),
    "datetime": st.datetimes(),
    "interval": st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000)),
    "date": st.dates(),
    "pickle": st.frozensets(st.integers() | _texts, max_size=3)
    | st.tuples(_texts, st.complex_numbers(allow_nan=False)),
    "decorated-list": st.lists(st.text("abc é", min_size=1), max_size=3),
}


@pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("name", _any_values)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_after_any_other_is_kept_and_an_equal_one_is_not(
    thing: Thing, name: str, data: st.DataObject
) -> None:
    thing.session.rollback()
    values = _any_values[name]
    obj = thing.model(id=next(thing.keys), value=None)
    thing.session.add(obj)
    thing.session.commit()
    states: list[Any] = [None]
    for value in data.draw(st.lists(values, max_size=3)):
        for expired in (False, True):
            thing.session.expire(obj)
            if not expired:
                before = obj.value
                if before == value and not alike(before, value):
                    continue  # 1 and True, which a loaded object does not tell apart
            obj.value = value
            thing.session.commit()
            if not alike(states[-1], obj.value):
                states.append(obj.value)
            assert [version.value for version in obj.versions()] == states[:-1]

"""Models of every shape: names, keys, types, schemas and binds."""

import enum
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, column_property, mapped_column, validates
from sqlalchemy.types import TypeDecorator

from chrononaut import Versioned, VersionedSQLAlchemy, history_model
from tests.library.models import Country, Release, define
from tests.library.rows import changes, history_rows, live_rows

Open = Callable[..., Session]
CHANGED = [(-1, "insert"), (0, "update")]
LIFE = [*CHANGED, (1, "delete")]


class Colour(enum.Enum):
    """A key."""

    RED = 1
    BLUE = 2


class Shouted(TypeDecorator[str]):
    """Text that the database holds in upper case and Python in lower case."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:
        return None if value is None else value.upper()

    def process_result_value(self, value: str | None, dialect: object) -> str | None:
        return None if value is None else value.lower()


def test_attribute_names_unlike_column_names_are_kept_apart(session: Session) -> None:
    release = Release(product="p", cycle="1", label="Bookworm")
    session.add(release)
    session.commit()
    release.label = "Trixie"
    session.commit()
    row = history_rows(session, "release_history")[-1]
    assert (row["product"], row["cycle"], row["codename"]) == ("p", "1", "Bookworm")
    assert "label" not in row
    (version,) = release.versions()
    assert version.label == "Bookworm"
    assert release.diff(version) == {"label": ("Bookworm", "Trixie")}


def test_options_name_attributes_and_not_columns(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    model = define(
        db,
        "Person",
        __chrononaut_hidden__=["pin"],
        __chrononaut_untracked__=["seen"],
        id=sa.Column("person_id", sa.Integer, primary_key=True),
        pin=sa.Column("PIN code", sa.String),
        seen=sa.Column("last seen", sa.String),
        name=sa.Column("full name", sa.String),
    )
    session = open_database(db)
    person = model(id=1, pin="secret", seen="x", name="a")
    session.add(person)
    session.commit()
    person.pin, person.seen, person.name = "other", "y", "b"
    session.commit()
    row = history_rows(session, "person_history")[-1]
    assert row["full name"] == "a"
    assert row["change_info"]["hidden_cols_changed"] == ["pin"]
    assert not {"PIN code", "last seen"} & row.keys()
    assert person.versions()[0].name == "a"


def test_columns_with_keys_of_their_own_are_archived(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    table = sa.Table(
        "person",
        db.metadata,
        sa.Column("person_id", sa.Integer, key="number", primary_key=True),
        sa.Column("mail", sa.String, key="address"),
    )
    model = define(db, "Person", __table__=table, id=table.c.number, email=table.c.address)
    session = open_database(db)
    person = model(id=1, email="a")
    session.add(person)
    session.commit()
    person.email = "b"
    session.commit()
    row = history_rows(session, "person_history")[-1]
    assert (row["person_id"], row["mail"]) == (1, "a")
    assert person.diff(person.versions()[0]) == {"email": ("a", "b")}


def test_records_of_a_composite_key_do_not_mix(session: Session) -> None:
    keys = [("a", "b,c"), ("a,b", "c"), ("a/b", "~'\""), ("", "é\U0001f600")]
    for product, cycle in keys:
        session.add(Release(product=product, cycle=cycle, label="old"))
    session.commit()
    for product, cycle in keys:
        session.get_one(Release, (product, cycle)).label = f"new {product}"
    session.commit()
    for product, cycle in keys:
        rows = history_rows(session, "release_history", product=product, cycle=cycle)
        assert changes(rows) == CHANGED
        (version,) = session.get_one(Release, (product, cycle)).versions()
        assert (version.product, version.cycle, version.label) == (product, cycle, "old")


@pytest.mark.parametrize(
    ("type_", "key", "other"),
    [
        pytest.param(sa.Uuid(), UUID(int=1), UUID(int=2), id="uuid"),
        pytest.param(sa.Date(), date(2026, 3, 1), date(2026, 3, 2), id="date"),
        pytest.param(sa.DateTime(timezone=False), datetime(2026, 3, 1), datetime(2026, 3, 2), id="datetime"),  # noqa: DTZ001
        pytest.param(sa.Enum(Colour), Colour.RED, Colour.BLUE, id="enum"),
        pytest.param(sa.BigInteger(), 2**62, -1, id="bigint"),
        pytest.param(sa.Numeric(10, 2, asdecimal=True), Decimal("1.50"), Decimal("2.50"), id="numeric"),
        pytest.param(sa.LargeBinary(), b"\x00\xff", b"\x01", id="binary"),
        pytest.param(sa.Boolean(), True, False, id="boolean"),
        pytest.param(Shouted(), "a", "b", id="decorated"),
    ],
)
@pytest.mark.filterwarnings("ignore:Dialect sqlite.* does .not. support Decimal:sqlalchemy.exc.SAWarning")
def test_keys_of_any_type_are_archived_and_found(open_database: Open, type_: Any, key: object, other: object) -> None:
    db = VersionedSQLAlchemy()
    # SQLAlchemy 2.0 takes a lone NUMERIC key for one that the database numbers, and makes it a SERIAL: an integer.
    identifier = sa.Column(type_, primary_key=True, autoincrement=False)
    model = define(db, "Thing", __tablename__="thing", id=identifier, value=sa.Column(sa.Integer))
    session = open_database(db)
    things = [model(id=key, value=1), model(id=other, value=1)]
    session.add_all(things)
    session.commit()
    things[0].value = 2
    session.commit()
    assert [(version.id, version.value) for version in things[0].versions()] == [(key, 1)]
    session.delete(things[0])
    session.commit()
    again = model(id=key, value=3)
    session.add(again)
    session.commit()
    assert changes(history_rows(session, "thing_history"))[-2:] == [(1, "delete"), (2, "insert")]
    assert again.version == 3
    assert things[1].versions() == []


def test_foreign_key_that_takes_its_type_from_a_table_defined_later_is_archived(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    child = define(
        db, "Child", id=sa.Column(sa.Integer, primary_key=True), parent_code=sa.Column(sa.ForeignKey("parent.code"))
    )
    parent: Any = type("Parent", (db.Model,), {"code": sa.Column(sa.String(2), primary_key=True)})
    session = open_database(db)
    one = child(id=1)
    session.add_all([one, parent(code="A"), parent(code="B")])
    session.commit()
    for code in ("A", "B"):
        one.parent_code = code
        session.commit()
    assert [row["parent_code"] for row in history_rows(session, "child_history")] == [None, None, "A"]


def test_tables_of_long_and_similar_names_get_on(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    models = [
        define(
            db,
            f"Long{end}",
            __tablename__=f"{'t' * 53}{end}",
            id=sa.Column(sa.Integer, primary_key=True),
            x=sa.Column(sa.String),
        )
        for end in "12"
    ]
    session = open_database(db)
    for model in models:
        session.add(model(id=1, x="a"))
        session.commit()
        session.get_one(model, 1).x = "b"
        session.commit()
        assert changes(history_rows(session, history_model(model).__table__.name)) == CHANGED  # type: ignore[attr-defined]


def test_column_that_every_update_stamps_is_archived(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    stamps = iter(range(10, 20))
    model = define(
        db,
        "Page",
        __tablename__="page",
        __chrononaut_untracked__=["views"],
        id=sa.Column(sa.Integer, primary_key=True),
        text=sa.Column(sa.String),
        views=sa.Column(sa.Integer),
        revision=sa.Column(sa.Integer, default=0, onupdate=lambda: next(stamps)),
    )
    session = open_database(db)
    page = model(id=1, text="a", views=0)
    session.add(page)
    session.commit()
    page.text = "b"
    session.commit()
    assert page.views == 0
    page.views = 1
    session.commit()
    rows = history_rows(session, "page_history")
    assert [(row["version"], row["text"], row["revision"]) for row in rows[1:]] == [(0, "a", 0), (1, "b", 10)]
    assert live_rows(session, "page") == [{"id": 1, "text": "b", "views": 1, "revision": 11, "version": 2}]


def _create_schema(metadata: object, connection: sa.Connection, **_: object) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS staff")


def test_history_of_a_model_in_a_schema_is_in_that_schema(open_database: Open, database_kind: str) -> None:
    db = VersionedSQLAlchemy()
    schema = "main" if database_kind == "sqlite" else "staff"
    model = define(
        db,
        "Person",
        __tablename__="person",
        __table_args__={"schema": schema},
        id=sa.Column(sa.Integer, primary_key=True),
        boss_id=sa.Column(sa.ForeignKey(f"{schema}.person.id")),
        name=sa.Column(sa.String),
    )
    sa.event.listen(db.metadata, "before_create", _create_schema)
    session = open_database(db)
    person = model(id=1, name="a")
    session.add(person)
    session.commit()
    person.name = "b"
    session.commit()
    session.delete(person)
    session.commit()
    assert changes(history_rows(session, f"{schema}.person_history")) == LIFE


def test_default_schema_of_the_metadata_is_that_of_history(open_database: Open, database_kind: str) -> None:
    schema = "main" if database_kind == "sqlite" else "staff"
    db = VersionedSQLAlchemy(metadata=sa.MetaData(schema=schema))
    model = define(db, "Person", id=sa.Column(sa.Integer, primary_key=True), name=sa.Column(sa.String))
    sa.event.listen(db.metadata, "before_create", _create_schema)
    session = open_database(db)
    person = model(id=1, name="a")
    session.add(person)
    session.commit()
    person.name = "b"
    session.commit()
    assert changes(history_rows(session, f"{schema}.person_history")) == CHANGED


def test_history_of_a_model_with_a_bind_key_is_in_that_database(
    open_database: Open, other_database_url: str, database_kind: str
) -> None:
    db = VersionedSQLAlchemy()
    here = define(db, "Here", __tablename__="here", id=sa.Column(sa.Integer, primary_key=True), x=sa.Column(sa.String))
    there = define(
        db,
        "There",
        __tablename__="there",
        __bind_key__="other",
        id=sa.Column(sa.Integer, primary_key=True),
        x=sa.Column(sa.String),
    )
    session = open_database(db, {"other": other_database_url})
    assert history_model(there).__table__.metadata is db.metadatas["other"]  # type: ignore[attr-defined]
    objects = [here(id=1, x="a"), there(id=1, x="a"), there(id=2, x="a")]
    session.add_all(objects)
    session.commit()
    for obj in objects:
        obj.x = "b"
    session.commit()
    session.delete(objects[2])
    session.commit()
    other = db.engines["other"]
    assert "there_history" not in sa.inspect(db.engine).get_table_names()
    of_here = history_rows(session, "here_history")
    of_there = history_rows(session, "there_history", other, id=1)
    assert changes(of_here) == changes(of_there) == CHANGED
    assert changes(history_rows(session, "there_history", other, id=2)) == LIFE
    for one, two in zip(of_here, of_there, strict=True):
        assert (one["changed"], one["transaction_id"]) == (two["changed"], two["transaction_id"])
    assert [version.x for version in objects[1].versions()] == ["a"]


def test_history_table_can_have_another_name(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    model = define(
        db,
        "Person",
        __chrononaut_tablename__="people of the past",
        id=sa.Column(sa.Integer, primary_key=True),
        name=sa.Column(sa.String),
    )
    assert set(db.metadata.tables) == {"person", "people of the past"}
    session = open_database(db)
    person = model(id=1, name="a")
    session.add(person)
    session.commit()
    person.name = "b"
    session.commit()
    assert changes(history_rows(session, '"people of the past"')) == CHANGED


def test_our_columns_can_have_other_names(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    names = {
        "version": "row_version",
        "operation": "row_operation",
        "changed": "row_changed",
        "change_info": "row_info",
        "transaction_id": "row_transaction",
    }
    model = define(
        db,
        "Song",
        __tablename__="song",
        __chrononaut_rename__=names,
        id=sa.Column(sa.Integer, primary_key=True),
        **{own: sa.Column(sa.String) for own in names},
    )
    session = open_database(db)
    song = model(id=1, version="live", changed="never", operation="x")
    session.add(song)
    session.commit()
    assert song.row_version == 0
    song.version = "studio"
    session.commit()
    created, updated = (
        session.connection().execute(sa.text("SELECT * FROM song_history ORDER BY row_version")).mappings()
    )
    assert (created["row_version"], created["row_operation"], created["version"]) == (-1, "insert", None)
    assert (updated["row_version"], updated["row_operation"]) == (0, "update")
    assert (updated["version"], updated["changed"], updated["operation"]) == ("live", "never", "x")
    assert song.row_version == 1
    (version,) = song.versions()
    assert (version.version, version.row_version) == ("live", 0)
    assert version.valid_from < version.row_changed
    assert song.version_at(version.valid_from) is version
    assert song.version_at(version.row_changed) is song
    assert song.diff(version) == {"version": ("live", "studio")}
    assert not song.has_changed_since(version.row_changed)
    session.delete(song)
    session.commit()
    again = model(id=1)
    session.add(again)
    session.commit()
    assert again.row_version == 3


def test_history_table_is_there_as_soon_as_the_class_is() -> None:
    db = VersionedSQLAlchemy()
    define(db, "Person", id=sa.Column(sa.Integer, primary_key=True))
    assert set(db.metadata.tables) == {"person", "person_history"}


def test_abstract_base_can_carry_the_mixin(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    base: Any = type("Base", (db.Model, Versioned), {"__abstract__": True, "__chrononaut_untracked__": ["seen"]})
    one, two = (
        type(
            name,
            (base,),
            {"id": sa.Column(sa.Integer, primary_key=True), "x": sa.Column(sa.String), "seen": sa.Column(sa.String)},
        )
        for name in ("One", "Two")
    )
    session = open_database(db)
    first, second = one(id=1, x="a"), two(id=1, x="a")
    session.add_all([first, second])
    session.commit()
    first.x, second.x, second.seen = "b", "b", "now"
    session.commit()
    assert changes(history_rows(session, "one_history")) == CHANGED
    assert changes(history_rows(session, "two_history")) == CHANGED
    assert "seen" not in history_rows(session, "two_history")[0]


def test_declarative_base_of_the_callers_own_works(open_database: Open) -> None:
    class Base(DeclarativeBase):
        pass

    db = VersionedSQLAlchemy(model_class=Base)
    model = define(
        db,
        "Person",
        __annotations__={"id": Mapped[int], "name": Mapped[str | None]},
        __tablename__="person",
        id=mapped_column(primary_key=True),
        name=mapped_column(),
    )
    session = open_database(db)
    person = model(id=1, name="a")
    session.add(person)
    session.commit()
    person.name = "b"
    session.commit()
    assert changes(history_rows(session, "person_history")) == CHANGED


def test_properties_that_are_no_columns_of_the_table_are_left_alone(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    first, last = sa.Column("first", sa.String), sa.Column("last", sa.String)

    def upper(self: object, name: str, value: str) -> str:
        return value.upper()

    model = define(
        db,
        "Person",
        id=sa.Column(sa.Integer, primary_key=True),
        first=first,
        last=last,
        full=column_property(first + " " + last),
        _upper=validates("first")(upper),
    )
    session = open_database(db)
    person = model(id=1, first="ada", last="L")
    session.add(person)
    session.commit()
    person.first = "grace"
    session.commit()
    row = history_rows(session, "person_history")[-1]
    assert row["first"] == "ADA"
    assert "full" not in row
    assert person.diff(person.versions()[0]) == {"first": ("ADA", "GRACE")}


def test_times_are_archived_naive_and_aware(open_database: Open, database_kind: str) -> None:
    db = VersionedSQLAlchemy()
    model = define(
        db,
        "Meeting",
        __tablename__="meeting",
        id=sa.Column(sa.Integer, primary_key=True),
        local=sa.Column(sa.DateTime),
        at=sa.Column(sa.DateTime(timezone=True)),
    )
    session = open_database(db)
    local, at = datetime(2026, 3, 1, 9, 0, 0, 1), datetime(2026, 3, 1, 9, 0, 0, 1, UTC)  # noqa: DTZ001
    meeting = model(id=1, local=local, at=at)
    session.add(meeting)
    session.commit()
    meeting.local, meeting.at = local.replace(hour=10), at.replace(hour=10)
    session.commit()
    (version,) = meeting.versions()
    assert version.local == local
    # SQLite has no type that keeps an offset; only our own instants are aware there.
    assert version.at == (at.replace(tzinfo=None) if database_kind == "sqlite" else at)
    assert version.changed.tzinfo is UTC
    assert version.valid_from.tzinfo is UTC


def test_repr_of_a_history_object_names_record_and_version(session: Session) -> None:
    session.add(Country(code="FR", name="a"))
    session.commit()
    country = session.get_one(Country, "FR")
    country.name = "b"
    session.commit()
    assert repr(country.versions()[0]) == "<CountryHistory 'FR' version 0>"

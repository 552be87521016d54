"""History that is exported and imported into an empty database is the same there, row by row and column by column."""

from typing import Any

import pytest
import sqlalchemy as sa

from chrononaut import Imported, RecordChanges, Versioned, VersionedSQLAlchemy, rationale
from chrononaut.types import JSONDocument
from tests.library.models import Author, Book, Country, Release, User, db, define
from tests.library.staff import Staff
from tests.library.transferring import bound, differences, exported, imported, tables

PAIRS = [("sqlite", "sqlite"), ("postgresql", "postgresql"), ("sqlite", "postgresql")]


@pytest.fixture(params=PAIRS, ids=[" to ".join(pair) for pair in PAIRS])
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    """From which database to which."""
    kinds: tuple[str, str] = request.param
    return kinds


@pytest.fixture
def database_kind(pair: tuple[str, str]) -> str:
    """The database that is exported from."""
    return pair[0]


@pytest.fixture
def target_url(pair: tuple[str, str], request: pytest.FixtureRequest) -> str:
    """The URL of an empty database that is imported into."""
    if pair == ("sqlite", "postgresql"):
        # A fixture that makes one for PostgreSQL depends on the kind: here it is the other one.
        return str(request.getfixturevalue("empty_postgresql"))
    return str(request.getfixturevalue("other_database_url"))


@pytest.fixture
def empty_postgresql(postgres_url: str) -> str:
    """The URL of an empty database on PostgreSQL."""
    engine = sa.create_engine(postgres_url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("DROP SCHEMA IF EXISTS public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    return postgres_url


def is_carried(database: Any, pair: tuple[str, str], engine: sa.Engine, target_url: str, *models: type) -> None:
    """Carry all history of some models to an empty database, in both formats, and hold what is there against it."""
    files = {
        (model, format_): exported(engine, model, format=format_) for model in models for format_ in ("ndjson", "csv")
    }
    before = tables(engine, *models)
    assert differences(engine, *models) == []
    for format_ in ("ndjson", "csv"):
        with bound(database, target_url) as target:
            for model in models:
                rows = exported(target, model).count(b"\n") - 2
                assert rows == 0
                done = imported(target, model, files[model, format_], format=format_, batch=2)
                assert done.skipped == 0
                again = imported(target, model, files[model, format_], format=format_)
                assert (again.rows, again.skipped) == (0, done.rows)
            if pair[0] == pair[1]:
                assert tables(target, *models) == before
            assert differences(target, *models) == []
            for (model, other), file in files.items():
                assert exported(target, model, format=other) == file
            database.drop_all()


def live(session: Any) -> None:
    """Records that were changed, deleted, deleted and made again, never changed, and there before versioning."""
    session.execute(sa.text("INSERT INTO country (code, name) VALUES ('ES', 'from before'), ('PT', 'from before')"))
    countries = {code: Country(code=code, name="first") for code in ("FR", "DE", "IT", "AT")}
    author = Author(id=1)
    session.add_all([*countries.values(), author, Release(product="a,b", cycle='"1/ü"', label="")])
    session.add(User(id=7, email="a", settings={"b": [1.5, None], "a": "\\N"}, name="\\N"))
    session.commit()
    with rationale("Umbenannt 😀 \\u0000 \n\r,\"'"):
        countries["FR"].name = countries["DE"].name = 'second\n\r\n\\"'
        session.delete(countries["IT"])
        session.get(Country, "ES").name = None
        session.get(User, 7).name = "\\\\N"
        session.commit()
    session.delete(countries["DE"])
    session.add_all([Country(code="IT", name="second life"), Book(id=3, title="x", country_code="FR", author=author)])
    session.commit()
    session.get(Country, "IT").name = ""
    session.get(Release, ("a,b", '"1/ü"')).label = None
    session.get(User, 7).settings["c"] = False
    session.delete(session.get(Book, 3))
    session.commit()


def test_records_of_all_lives(pair: tuple[str, str], database_url: str, target_url: str) -> None:
    with bound(db, database_url) as engine:
        live(db.session)
        is_carried(db, pair, engine, target_url, Country, Release, User, Book)


def test_hierarchy_in_several_tables(pair: tuple[str, str], database_url: str, target_url: str) -> None:
    staff = Staff()
    with bound(staff.db, database_url) as engine:
        session = staff.db.session
        people = [
            staff.employee(id=1, name="a"),
            staff.clerk(id=2, name="b", desk="x"),
            staff.manager(id=3, name="c", budget=1),
            staff.director(id=4, name="d", budget=2, car="red"),
            staff.director(id=5, name="e", budget=3, car="blue"),
        ]
        session.add_all(people)
        session.commit()
        for person in people:
            person.name = "later"
        people[2].budget, people[3].car = 5, None
        session.commit()
        session.delete(people[4])
        session.delete(people[1])
        session.commit()
        session.add(staff.manager(id=5, name="another one", budget=9))
        session.commit()
        is_carried(staff.db, pair, engine, target_url, staff.employee)


def test_concrete_models_and_bookkeeping(pair: tuple[str, str], database_url: str, target_url: str) -> None:
    database = VersionedSQLAlchemy()
    base = define(
        database,
        "Place",
        Versioned,
        RecordChanges,
        __tablename__="place",
        __chrononaut_rename__={"changed": "replaced", "change_info": "why"},
        id=sa.Column(sa.Integer, primary_key=True),
        name=sa.Column(sa.String),
    )
    town = type(
        "Town",
        (base,),
        {
            "__tablename__": "town",
            "__mapper_args__": {"concrete": True},
            "id": sa.Column(sa.Integer, primary_key=True),
            "name": sa.Column(sa.String),
            "size": sa.Column(sa.Integer),
        },
    )
    with bound(database, database_url) as engine:
        session = database.session
        places: list[Any] = [base(id=1, name="a"), town(id=1, name="b", size=2)]
        session.add_all(places)
        session.commit()
        for place in places:
            place.name = "c"
        session.commit()
        is_carried(database, pair, engine, target_url, base, town)


def test_what_history_keeps_of_dropped_columns(pair: tuple[str, str], database_url: str, target_url: str) -> None:
    database = VersionedSQLAlchemy()
    thing = define(
        database,
        "Thing",
        __tablename__="thing",
        __chrononaut_dropped__={"nick": sa.Column("nickname", sa.String(5)), "weight": sa.Numeric(5, 2)},
        id=sa.Column(sa.Integer, primary_key=True),
        name=sa.Column(sa.String),
    )
    with bound(database, database_url) as engine:
        one = thing(id=1, name="a")
        database.session.add(one)
        database.session.commit()
        one.name = "b"
        database.session.commit()
        database.session.execute(sa.text("UPDATE thing_history SET nickname = 'ab', weight = 1.5 WHERE version = 0"))
        database.session.commit()
        assert b'"nick": "ab", "weight": "1.50"' in exported(engine, thing)
        is_carried(database, pair, engine, target_url, thing)


def test_cuts_and_marks_of_what_was_erased(pair: tuple[str, str], database_url: str, target_url: str) -> None:
    cut = {
        "first": -1,
        "at": "2026-03-01T09:00:00.000000Z",
        "user_id": None,
        "operation": "update",
        "extra": {"a": "b"},
    }
    erased = [{"at": "2026-03-01T09:00:00.000000Z", "user_id": "x", "columns": ["name"], "reasons": True}]
    with bound(db, database_url) as engine:
        live(db.session)
        connection = db.session.connection()
        info = {"user_id": None, "remote_addr": None}
        connection.execute(sa.text("DELETE FROM country_history WHERE code = 'FR' AND version < 0"))
        connection.execute(
            sa.text(
                "UPDATE country_history SET operation = 'purge', name = NULL, change_info = :info "
                "WHERE code = 'FR' AND version = 0"
            ).bindparams(sa.bindparam("info", info | {"purged": cut}, JSONDocument))
        )
        connection.execute(
            sa.text("UPDATE country_history SET name = NULL, change_info = :info WHERE code = 'DE'").bindparams(
                sa.bindparam("info", info | {"erased": erased}, JSONDocument)
            )
        )
        db.session.commit()
        is_carried(db, pair, engine, target_url, Country)


def test_live_rows_get_the_values_that_no_export_has(pair: tuple[str, str], database_url: str, target_url: str) -> None:
    with bound(db, database_url) as engine:
        db.session.add(User(id=1, email="a", password_hash="secret", token="secret", clicks=5))
        db.session.commit()
        file = exported(engine, User)
        assert b"secret" not in file
        assert b"clicks" not in file
    with bound(db, target_url) as target:
        assert imported(target, User, file, values={"token": "none yet"}) == Imported(2, 0)
        assert [(user.token, user.password_hash, user.clicks) for user in db.session.scalars(sa.select(User))] == [
            ("none yet", None, 0)
        ]


def test_export_of_one_record(pair: tuple[str, str], database_url: str, target_url: str) -> None:
    with bound(db, database_url) as engine:
        live(db.session)
        file = exported(engine, Release, key=("a,b", '"1/ü"'))
        assert file.count(b"\n") == 5
        country = exported(engine, Country, key=("IT",))
    with bound(db, target_url) as target:
        imported(target, Release, file)
        imported(target, Country, country)
        assert differences(target, Release, Country) == []
        assert exported(target, Country, key=("IT",)) == country

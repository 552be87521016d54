"""What the database refuses is a problem by its code; no text of the database is told, and none of its is logged."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Thread
from time import sleep
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy import event
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app import create_app
from app.auth.grants import Grants
from app.auth.tables import metadata as token_metadata
from app.auth.tokens import create_token
from app.cli import create_tables
from app.db import db as bundled
from chrononaut import Versioned, VersionedSQLAlchemy
from tests.service.api import Api, all_rows, assert_problem
from tests.service.conftest import SECRET_KEY

SECRET = "hunter2" * 3


class Base(DeclarativeBase):
    pass


db = VersionedSQLAlchemy(model_class=Base)

if TYPE_CHECKING:
    Model = Base
else:
    Model = db.Model


class Picky(sa.TypeDecorator[str]):
    """Takes no digits, and says which value it does not take."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        if value is not None and any(character.isdigit() for character in value):
            raise ValueError(f"bad value {value!r}")
        return value


class Shelf(Model, Versioned):
    """A shelf."""

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str | None] = mapped_column(sa.Text, unique=True)


class Book(Model, Versioned):
    """A book."""

    __chrononaut_hidden__ = ("pin", "picky")
    __table_args__ = (sa.CheckConstraint("pages > 0", name="has_pages"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[int | None] = mapped_column(sa.ForeignKey("shelf.id"))
    pages: Mapped[int] = mapped_column(default=1)
    leaves: Mapped[int | None] = mapped_column(sa.Integer, nullable=True)
    pin: Mapped[str | None]
    picky: Mapped[str | None] = mapped_column(Picky)


@pytest.fixture
def library(database_url: str) -> Iterator[Flask]:
    app = create_app(
        {
            "SECRET_KEY": SECRET_KEY,
            "DATABASE_URL": database_url,
            "CHRONONAUT_MODELS": __name__,
            "CHRONONAUT_DB": f"{__name__}:db",
        }
    )
    with app.app_context():
        create_tables(db)
        with db.engine.begin() as connection:
            for table in (*reversed(db.metadata.sorted_tables), *token_metadata.sorted_tables):
                connection.execute(sa.delete(table))
    yield app
    with app.app_context():
        # What a test has changed in its tables.
        db.session.remove()
        db.drop_all()
        db.engine.dispose()


@pytest.fixture
def writer(library: Flask) -> Api:
    with library.app_context():
        return Api(library.test_client(), create_token(db, "writer@example.com", Grants.parse(["write"])))


def _execute(app: Flask, *statements: str) -> None:
    with app.app_context(), db.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@contextmanager
def _beginning_with(engine: sa.Engine, statement: str) -> Iterator[None]:
    """Let each transaction begin with a statement."""

    def run(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

    event.listen(engine, "begin", run, insert=True)
    try:
        yield
    finally:
        event.remove(engine, "begin", run)


def _raising(kind: str, what: str) -> list[str]:
    """A trigger on books that raises, and tells the hidden value."""
    if kind == "sqlite":
        return [f"CREATE TRIGGER refusing BEFORE INSERT ON book BEGIN SELECT RAISE(ABORT, 'bad {SECRET}'); END"]
    return [
        f"CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {what}; END $$",
        "CREATE TRIGGER refusing BEFORE INSERT ON book FOR EACH ROW EXECUTE FUNCTION refuse()",
    ]


def test_value_that_is_taken_is_a_conflict(writer: Api) -> None:
    writer.post("/records/shelf", {"label": SECRET})
    problem = assert_problem(writer.call("POST", "/records/shelf", {"label": SECRET}), 409, "conflict")
    assert problem["detail"] == "a value that must be unique is taken"


def test_missing_record_that_is_referred_to_is_a_conflict(writer: Api) -> None:
    problem = assert_problem(writer.call("POST", "/records/book", {"shelf_id": 4711}), 409, "conflict")
    assert problem["detail"] == "a record that this one refers to is missing; make it first"


def test_deleting_what_others_refer_to_is_a_conflict(writer: Api) -> None:
    shelf = writer.post("/records/shelf", {})
    writer.post("/records/book", {"shelf_id": shelf["state"]["id"]})
    problem = assert_problem(writer.call("DELETE", shelf["links"]["record"]), 409, "conflict")
    assert problem["detail"] == "other records refer to this one; change or delete them first"


def test_value_that_a_check_refuses_is_invalid_and_the_check_is_named(writer: Api) -> None:
    problem = assert_problem(writer.call("POST", "/records/book", {"pages": 0, "pin": SECRET}), 422, "invalid")
    assert problem["detail"] == "a value is none that a check of the database allows: has_pages"


def test_check_that_no_model_has_is_not_named(library: Flask, writer: Api, database_kind: str) -> None:
    name = f"no_{SECRET}"
    if database_kind == "sqlite":
        _execute(library, "DROP TABLE book", f"CREATE TABLE book ({_BOOK}, CONSTRAINT {name} CHECK (pin IS NULL))")
    else:
        _execute(library, f"ALTER TABLE book ADD CONSTRAINT {name} CHECK (pin IS NULL)")
    response = writer.call("POST", "/records/book", {"pin": "a"})
    assert_problem(response, 422, "invalid")
    assert name not in response.text


_BOOK = "id INTEGER PRIMARY KEY, shelf_id INTEGER, pages INTEGER, leaves INTEGER, pin, picky, version INTEGER"


def test_value_that_the_database_misses_is_invalid_and_the_column_is_named(
    library: Flask, writer: Api, database_kind: str
) -> None:
    if database_kind == "sqlite":
        made = _BOOK.replace("leaves INTEGER", "leaves INTEGER NOT NULL")
        _execute(library, "DROP TABLE book", f"CREATE TABLE book ({made})")
    else:
        _execute(library, "ALTER TABLE book ALTER leaves SET NOT NULL")
    problem = assert_problem(writer.call("POST", "/records/book", {"pin": SECRET}), 422, "invalid")
    assert problem["detail"] == "a value is missing that the database wants: leaves"


def test_value_of_a_generated_column_is_invalid(library: Flask, writer: Api, database_kind: str) -> None:
    if database_kind == "sqlite":
        made = _BOOK.replace("leaves INTEGER", "leaves INTEGER AS (pages / 2)")
        _execute(library, "DROP TABLE book", f"CREATE TABLE book ({made})")
    else:
        stored = "leaves INTEGER GENERATED ALWAYS AS (pages / 2) STORED"
        _execute(library, "ALTER TABLE book DROP leaves", f"ALTER TABLE book ADD {stored}")
    problem = assert_problem(writer.call("POST", "/records/book", {"leaves": 1}), 422, "invalid")
    assert "leave it out" in problem["detail"]


def test_value_that_a_column_type_refuses_is_invalid(writer: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for response in (
        writer.call("POST", "/records/book", {"picky": SECRET}),
        writer.call("PATCH", writer.post("/records/book", {})["links"]["record"], {"picky": SECRET}),
    ):
        problem = assert_problem(response, 422, "invalid")
        assert problem["detail"] == "a value lies outside of what its column can hold"
        assert SECRET not in response.text + caplog.text


def test_refusal_of_a_trigger_is_invalid_and_its_text_is_nowhere(
    library: Flask, writer: Api, database_kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    _execute(library, *_raising(database_kind, "RAISE EXCEPTION 'bad %%', NEW.pin"))
    item = {"operation": "create", "record": {"pin": SECRET}}
    for path, body, kind in (
        ("/records/book", {"pin": SECRET}, "invalid"),
        ("/bulk/book", {"items": [item]}, "bulk-invalid"),
    ):
        response = writer.call("POST", path, body)
        assert_problem(response, 422, kind)
        assert SECRET not in response.text + caplog.text


def test_items_that_the_database_refuses_are_told_of(writer: Api) -> None:
    taken = writer.post("/records/shelf", {})["state"]["id"]
    records = [{"pages": 0}, {"shelf_id": taken}, {"shelf_id": 4711}, {"picky": SECRET}]
    items = [{"operation": "create", "record": record} for record in records]
    response = writer.call("POST", "/bulk/book", {"items": items})
    problem = assert_problem(response, 422, "bulk-invalid")
    told = {item["index"]: item["problem"]["type"].removeprefix("/problems/") for item in problem["items"]}
    assert told == {0: "invalid", 2: "conflict", 3: "invalid"}
    assert SECRET not in response.text


def test_error_that_cannot_pass_is_ours_and_not_to_be_repeated(
    library: Flask, writer: Api, caplog: pytest.LogCaptureFixture
) -> None:
    _execute(library, "ALTER TABLE book RENAME COLUMN leaves TO former_leaves")
    response = writer.call("POST", "/records/book", {"pin": SECRET})
    assert_problem(response, 500, "internal-error")
    assert "Retry-After" not in response.headers
    assert SECRET not in caplog.text
    # What is needed to find it.
    assert "routes.py" in caplog.text
    assert "create_record" in caplog.text
    assert "OperationalError SQLITE_ERROR" in caplog.text or "UndefinedColumn 42703" in caplog.text


_POSTGRESQL = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
_SQLITE = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)


@_POSTGRESQL
@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("08006", 503, "unavailable"),
        ("22001", 422, "invalid"),
        ("23001", 409, "conflict"),
        ("23502", 422, "invalid"),
        ("23514", 422, "invalid"),
        ("23P01", 409, "conflict"),
        ("40001", 409, "concurrent-change"),
        ("40P01", 409, "concurrent-change"),
        ("44000", 422, "invalid"),
        ("53300", 503, "unavailable"),
        ("54000", 422, "invalid"),
        ("55P03", 503, "unavailable"),
        ("57014", 503, "unavailable"),
        ("57P01", 503, "unavailable"),
        ("42501", 500, "internal-error"),
        ("P0004", 500, "internal-error"),
        ("XX000", 500, "internal-error"),
    ],
)
def test_code_of_the_database_says_which_problem_it_is(
    library: Flask, writer: Api, code: str, status: int, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    using = f"USING ERRCODE = '{code}', DETAIL = NEW.pin, COLUMN = NEW.pin, CONSTRAINT = NEW.pin"
    _execute(library, *_raising("postgresql", f"RAISE EXCEPTION 'bad %%', NEW.pin {using}"))
    response = writer.call("POST", "/records/book", {"pin": SECRET})
    assert_problem(response, status, kind)
    assert ("Retry-After" in response.headers) == (status == 503)
    assert SECRET not in response.text + caplog.text


@_POSTGRESQL
def test_error_that_an_error_of_the_database_leads_to_is_logged_without_message(
    library: Flask, writer: Api, caplog: pytest.LogCaptureFixture
) -> None:
    def replace(context: ExceptionContext) -> None:
        raise RuntimeError(f"it failed: {context.original_exception}")

    _execute(library, *_raising("postgresql", "RAISE EXCEPTION 'bad %%', NEW.pin"))
    with library.app_context():
        engine = db.engine
    event.listen(engine, "handle_error", replace)
    try:
        response = writer.call("POST", "/records/book", {"pin": SECRET})
    finally:
        event.remove(engine, "handle_error", replace)
    assert_problem(response, 500, "internal-error")
    assert SECRET not in response.text + caplog.text
    assert "RuntimeError from RaiseException P0001" in caplog.text


@_POSTGRESQL
def test_text_too_long_for_an_index_is_invalid(writer: Api) -> None:
    random = "".join(chr(0x4E00 + number * 7919 % 20000) for number in range(9000))
    assert_problem(writer.call("POST", "/records/shelf", {"label": random}), 422, "invalid")


@_POSTGRESQL
def test_lock_that_is_not_given_in_time_is_unavailable(library: Flask, writer: Api) -> None:
    record = writer.post("/records/shelf", {"label": "a"})["links"]["record"]
    with library.app_context():
        engine = db.engine
    with engine.connect() as blocking:
        blocking.execute(sa.select(Shelf).with_for_update())
        with _beginning_with(engine, "SET LOCAL lock_timeout = '20ms'"):
            response = writer.call("PATCH", record, {"label": "b"})
    assert_problem(response, 503, "unavailable")
    assert response.headers["Retry-After"] == "1"


@_POSTGRESQL
def test_connection_that_is_ended_is_unavailable_and_the_next_request_succeeds(library: Flask, writer: Api) -> None:
    record = writer.post("/records/shelf", {"label": "a"})["links"]["record"]

    def end(connection: Connection, clause: Any, *_: Any) -> None:
        if isinstance(clause, sa.Select) and "shelf" in str(clause):
            with sa.create_engine(connection.engine.url, poolclass=sa.NullPool).begin() as other:
                pid = connection.connection.dbapi_connection.info.backend_pid  # type: ignore[union-attr]  # psycopg's
                other.execute(sa.select(sa.func.pg_terminate_backend(pid, 5000)))

    with library.app_context():
        engine = db.engine
    event.listen(engine, "before_execute", end)
    try:
        assert_problem(writer.call("GET", record), 503, "unavailable")
    finally:
        event.remove(engine, "before_execute", end)
    writer.get(record)


@_POSTGRESQL
def test_database_that_is_not_there_is_unavailable(library: Flask) -> None:
    url = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
    _assert_unavailable(create_app({"SECRET_KEY": SECRET_KEY, "DATABASE_URL": url}))


@_SQLITE
def test_file_that_cannot_be_opened_is_unavailable(library: Flask) -> None:
    url = "sqlite:////nowhere/at/all.db"
    _assert_unavailable(create_app({"SECRET_KEY": SECRET_KEY, "DATABASE_URL": url}))


def _assert_unavailable(app: Flask) -> None:
    response = Api(app.test_client(), "chrononaut_0123456789_unknown").call("GET", "/records/user/1")
    assert_problem(response, 503, "unavailable")
    assert response.headers["Retry-After"] == "1"


@_SQLITE
def test_database_that_others_write_to_for_too_long_is_unavailable(
    library: Flask, writer: Api, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.db._BUSY_TIMEOUT", 1)
    with library.app_context():
        # What its connections were told stays with them.
        db.engine.dispose()
    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None)) as blocking:
        blocking.execute("BEGIN IMMEDIATE")
        response = writer.call("POST", "/records/shelf", {})
    assert_problem(response, 503, "unavailable")
    assert response.headers["Retry-After"] == "1"


@_POSTGRESQL
def test_request_that_loses_a_deadlock_is_made_anew(app: Flask, write_token: str) -> None:
    """Two transactions make records with the same unique values, whose keys the database makes, in opposite order."""
    insert = sa.text("INSERT INTO appuser (email, active, version) VALUES (:email, true, 0)")
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    answers = []

    def write() -> None:
        items = [{"operation": "create", "record": {"email": email}} for email in ("a", "b")]
        answers.append(Api(app.test_client(), write_token).call("POST", "/bulk/user", {"items": items}))

    with app.app_context():
        with bundled.engine.connect() as other, bundled.engine.connect() as watching:
            # It looks for deadlocks later than the request does, which is so the one to give up.
            other.exec_driver_sql("SET LOCAL deadlock_timeout = '20s'")
            other.execute(insert, {"email": "b"})
            request = Thread(target=write)
            request.start()
            while not watching.scalar(waiting):
                sleep(0.01)
            other.execute(insert, {"email": "a"})
            # It has given up, and waits for this one from the start.
            while not watching.scalar(waiting):
                sleep(0.01)
            other.rollback()
            request.join()
        assert answers[0].status_code == 200, answers[0].text
        assert [row[1] for row in all_rows()["appuser"]] == ["a", "b"]

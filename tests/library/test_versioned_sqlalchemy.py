"""``VersionedSQLAlchemy``: Flask-SQLAlchemy's ``SQLAlchemy``, in every way to set it up."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.query import Query
from flask_sqlalchemy.session import Session as FlaskSession
from sqlalchemy.orm import DeclarativeBase, Session, scoped_session

from chrononaut import UncapturedWriteError, VersionedSQLAlchemy, suppress_versioning
from tests.library.conftest import opened
from tests.library.models import User, db, define
from tests.library.rows import changes, history_rows, live_rows

Open = Callable[..., Session]
CHANGED = [(-1, "insert"), (0, "update")]


class BoundSession(FlaskSession):
    """A session on a connection of the caller's own."""

    def get_bind(self, *args: Any, **options: Any) -> Any:
        return self.bind


def _page(database: Any) -> Any:
    return define(database, "Page", id=sa.Column(sa.Integer, primary_key=True), text=sa.Column(sa.String))


def _write(session: Session | scoped_session[Any], model: Any, key: int = 1) -> None:
    page = model(id=key, text="a")
    session.add(page)
    session.commit()
    page.text = "b"
    session.commit()


def test_bound_at_once_it_captures(database_url: str) -> None:
    app = Flask("library")
    app.config["SQLALCHEMY_DATABASE_URI"] = database_url
    database = VersionedSQLAlchemy(app)
    model = _page(database)
    with app.app_context():
        database.create_all()
        _write(database.session, model)
        assert changes(history_rows(database.session, "page_history")) == CHANGED
        database.session.remove()
        database.engine.dispose()


def test_bound_later_it_captures(open_database: Open) -> None:
    database = VersionedSQLAlchemy()
    model = _page(database)
    session = open_database(database)
    _write(session, model)
    assert changes(history_rows(session, "page_history")) == CHANGED


def test_one_object_serves_several_applications(database_url: str, other_database_url: str) -> None:
    database = VersionedSQLAlchemy()
    model = _page(database)
    with opened(database, database_url) as first:
        _write(database.session, model)
        with opened(database, other_database_url):
            assert history_rows(database.session, "page_history") == []
            _write(database.session, model, key=2)
            assert {row["id"] for row in history_rows(database.session, "page_history")} == {2}
        with first.app_context():
            rows = history_rows(database.session, "page_history")
            assert changes(rows) == CHANGED
            assert {row["id"] for row in rows} == {1}
            database.session.remove()


def test_settings_of_each_application_are_its_own(database_url: str, other_database_url: str) -> None:
    database = VersionedSQLAlchemy()
    model = _page(database)
    for url, host in ((database_url, "one"), (other_database_url, "two")):
        with opened(database, url, CHRONONAUT_EXTRA_CHANGE_INFO_FUNC=lambda host=host: {"host": host}):
            _write(database.session, model)
            rows = history_rows(database.session, "page_history")
            assert {row["change_info"]["host"] for row in rows} == {host}


def test_use_native_unicode_is_taken_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="use_native_unicode has no effect") as caught:
        VersionedSQLAlchemy(use_native_unicode=True)
    assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name]
    with pytest.warns(DeprecationWarning, match="use_native_unicode has no effect"):
        VersionedSQLAlchemy(use_native_unicode=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VersionedSQLAlchemy()


def test_session_options_are_passed_on(open_database: Open) -> None:
    class OurSession(FlaskSession):
        """A session class of the application's own."""

    options = {"class_": OurSession, "expire_on_commit": False, "scopefunc": lambda: 1, "info": {"a": 1}}
    database = VersionedSQLAlchemy(session_options=options)
    model = _page(database)
    session = open_database(database)
    assert isinstance(session, OurSession)
    page = model(id=1, text="a")
    session.add(page)
    session.commit()
    assert sa.inspect(page).dict["text"] == "a"
    assert session.info["a"] == 1
    page.text = "b"
    session.commit()
    assert changes(history_rows(session, "page_history")) == CHANGED


def test_query_class_metadata_and_model_class_are_passed_on() -> None:
    class OurQuery(Query):
        """A query class of the application's own."""

    class Base(DeclarativeBase):
        """A declarative base of the application's own."""

        metadata = sa.MetaData(naming_convention={"pk": "pk_%(table_name)s"})
        flavour = "own"

    metadata = sa.MetaData()
    assert VersionedSQLAlchemy(metadata=metadata).metadata is metadata
    database = VersionedSQLAlchemy(query_class=OurQuery, model_class=Base)
    assert database.Query is OurQuery
    assert vars(database.Model)["flavour"] == "own"
    model = _page(database)
    assert model.query_class is OurQuery
    assert {"page", "page_history"} <= set(database.metadata.tables)
    assert database.metadatas[None] is Base.metadata


def test_engine_options_are_passed_on(open_database: Open) -> None:
    database = VersionedSQLAlchemy(engine_options={"echo": False, "pool_pre_ping": True})
    open_database(database)
    assert database.engine.pool._pre_ping is True


def test_sessions_of_a_plain_sqlalchemy_are_left_alone(session: Session, other_database_url: str) -> None:
    plain = SQLAlchemy()
    leaf: Any = type("Leaf", (plain.Model,), {"id": sa.Column(sa.Integer, primary_key=True)})
    with opened(plain, other_database_url):
        plain.session.add(leaf(id=1))
        plain.session.commit()
        plain.session.execute(sa.delete(leaf))
        plain.session.commit()
        assert live_rows(plain.session, "leaf") == []
    session.add(User(id=1, email="a"))
    session.commit()
    assert len(history_rows(session, "appuser_history")) == 1


def test_object_in_a_session_that_does_not_capture_is_refused(session: Session) -> None:
    session.add(User(id=1, email="a"))
    session.commit()
    with Session(db.engine) as plain:
        plain.get_one(User, 1).email = "b"
        with pytest.raises(UncapturedWriteError, match="a change by a session that does not capture"):
            plain.commit()
    with Session(db.engine) as plain, suppress_versioning():
        plain.get_one(User, 1).email = "c"
        plain.commit()
    with db.engine.begin() as connection:
        connection.execute(sa.update(User).values(name="core"))
    assert [(row["name"], row["email"]) for row in live_rows(session, "appuser")] == [("core", "c")]
    assert len(history_rows(session, "appuser_history")) == 1


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize("bulk", [False, True], ids=["flush", "bulk"])
def test_change_in_autocommit_is_refused(session: Session, bulk: bool) -> None:
    session.add(User(id=1, email="a"))
    session.commit()
    session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
    if bulk:
        with pytest.raises(UncapturedWriteError, match="AUTOCOMMIT"):
            session.execute(sa.update(User).values(name="x"))
    else:
        session.get_one(User, 1).name = "b"
        with pytest.raises(UncapturedWriteError, match="AUTOCOMMIT"):
            session.flush()
    session.rollback()
    session.close()
    assert live_rows(session, "appuser")[0]["name"] is None


def test_another_scoped_session_of_the_same_object_captures(session: Session) -> None:
    other = db._make_scoped_session({})
    other.add(User(id=1, email="a"))
    other.commit()
    other.get_one(User, 1).email = "b"
    other.commit()
    other.remove()
    assert changes(history_rows(session, "appuser_history")) == CHANGED


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]], ids=["plain_first", "plain_last"])
def test_engine_with_options_captures_beside_the_one_without(session: Session, order: list[int]) -> None:
    with_options = db.engine.execution_options(isolation_level="SERIALIZABLE")
    engines = [db.engine, with_options, with_options.execution_options(logging_token="further")]
    reflected = sa.Table("appuser", sa.MetaData(), autoload_with=session.connection())
    session.commit()
    for number in order:
        options = {"class_": BoundSession, "bind": engines[number]}
        with db._make_scoped_session(options).session_factory() as own:
            user = User(id=number, email=f"{number}")
            own.add(user)
            own.flush()
            user.name = "a"
            own.flush()
            own.execute(sa.update(User).where(User.id == number).values(name="b"))
            own.execute(sa.insert(User).values(id=number + 10, email=f"{number + 10}"))
            own.execute(sa.delete(User).where(User.id == number))
            own.commit()
            with pytest.raises(UncapturedWriteError):
                own.execute(reflected.update().values(name="c"))
        rows = history_rows(session, "appuser_history", id=number)
        assert changes(rows) == [*CHANGED, (1, "update"), (2, "delete")]
        assert changes(history_rows(session, "appuser_history", id=number + 10)) == [(-1, "insert")]
        session.commit()


def test_two_objects_in_one_process_keep_to_themselves(database_url: str, other_database_url: str) -> None:
    databases = [VersionedSQLAlchemy(), VersionedSQLAlchemy()]
    models = [_page(database) for database in databases]
    with opened(databases[0], database_url) as first, opened(databases[1], other_database_url) as second:
        for app, database, model in zip((first, second), databases, models, strict=True):
            with app.app_context():
                _write(database.session, model)
                assert changes(history_rows(database.session, "page_history")) == CHANGED
                database.session.remove()


@pytest.mark.parametrize("mode", ["create_savepoint", "rollback_only"])
def test_connection_of_the_callers_own_can_be_the_bind(session: Session, mode: str) -> None:
    with db.engine.connect() as connection:
        outer = connection.begin()
        own = db._make_scoped_session({"class_": BoundSession, "bind": connection, "join_transaction_mode": mode})
        user = User(id=1, email="a")
        own.add(user)
        own.commit()
        user.email = "b"
        own.commit()
        assert changes(history_rows(own, "appuser_history")) == CHANGED
        own.execute(sa.update(User).values(name="x"))
        own.commit()
        assert changes(history_rows(own, "appuser_history")) == [*CHANGED, (1, "update")]
        own.remove()
        outer.rollback()
    assert history_rows(session, "appuser_history") == live_rows(session, "appuser") == []


def test_what_the_callers_own_connection_executes_after_the_session_is_its_callers(session: Session) -> None:
    with db.engine.connect() as connection:
        own = db._make_scoped_session({"class_": BoundSession, "bind": connection})
        own.add(User(id=1, email="a"))
        own.commit()
        own.remove()
        connection.execute(sa.update(User).values(name="by the caller"))
        connection.commit()
    assert live_rows(session, "appuser")[0]["name"] == "by the caller"


def test_session_that_comes_and_goes_on_the_same_connection_does_not_end_anothers_capture(session: Session) -> None:
    with db.engine.connect() as connection:
        outer = connection.begin()
        options = {"class_": BoundSession, "bind": connection, "join_transaction_mode": "create_savepoint"}
        first, second = (db._make_scoped_session(options).session_factory() for _ in range(2))
        first.add(User(id=1, email="a"))
        first.commit()
        user = first.get_one(User, 1)
        assert second.scalars(sa.select(User.email)).all() == ["a"]
        second.close()
        user.email = "b"
        first.commit()
        assert live_rows(first, "appuser")[0]["version"] == 1
        assert changes(history_rows(first, "appuser_history")) == CHANGED
        first.close()
        outer.rollback()


def test_driver_that_begins_transactions_late_records_all_the_same(database_url: str) -> None:
    # Without the listeners that `opened` puts on SQLite's engine.
    app = Flask("library")
    app.config["SQLALCHEMY_DATABASE_URI"] = database_url
    database = VersionedSQLAlchemy(app)
    model = _page(database)
    with app.app_context():
        database.create_all()
        _write(database.session, model)
        page = database.session.get_one(model, 1)
        page.text = "undone"
        database.session.flush()
        database.session.rollback()
        database.session.delete(page)
        database.session.commit()
        rows = history_rows(database.session, "page_history")
        assert changes(rows) == [*CHANGED, (1, "delete")]
        assert [row["text"] for row in rows] == [None, "a", "b"]
        database.session.remove()
        database.engine.dispose()

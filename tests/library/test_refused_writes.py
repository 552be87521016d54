"""Writes that would leave no history are refused: nothing is written, and the session goes on after a rollback."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, relationship

from chrononaut import ChrononautException, UncapturedWriteError, VersionedSQLAlchemy
from tests.library.models import Note, Release, User, define
from tests.library.rows import changes, history_rows, live_rows

TABLE: Any = User.__table__
Write = Callable[[Session], object]


def _upsert(session: Session, target: type[User] | sa.Table) -> object:
    insert = postgresql.insert if session.connection().dialect.name == "postgresql" else sqlite.insert
    statement = insert(target).values(id=1, email="x")
    return session.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"email": "x"}))


def _replace(session: Session) -> object:
    return session.execute(TABLE.insert().prefix_with("OR REPLACE", dialect="sqlite").values(id=1, email="x"))


REFUSED: dict[str, Write] = {
    "orm_upsert": lambda s: _upsert(s, User),
    "core_upsert": lambda s: _upsert(s, TABLE),
    "insert_or_replace": _replace,
    "update_of_the_primary_key": lambda s: s.execute(sa.update(User).where(User.id == 1).values(id=2)),
    "update_of_the_table_by_another_description": lambda s: s.execute(
        sa.update(sa.table("appuser", sa.column("email"))).values(email="x")
    ),
    "update_of_a_reflected_table": lambda s: s.execute(
        sa.Table("appuser", sa.MetaData(), autoload_with=s.connection()).update().values(email="x")
    ),
    "insert_into_a_reflected_table": lambda s: s.execute(
        sa.Table("appuser", sa.MetaData(), autoload_with=s.connection()).insert().values(id=9, email="x")
    ),
    "insert_returning_through_the_connection": lambda s: s.connection().execute(
        TABLE.insert().values(id=9, email="x").returning(TABLE.c.email)
    ),
    "insert_from_select_that_sets_the_version": lambda s: s.execute(
        TABLE.insert().from_select(["id", "email", "version"], sa.select(sa.literal(9), sa.literal("x"), sa.literal(9)))
    ),
    "update_inside_a_select_of_entities": lambda s: s.scalars(
        sa.select(User).from_statement(sa.update(User).values(email="x").returning(User))
    ),
    "lambda_statement": lambda s: s.execute(sa.lambda_stmt(lambda: sa.update(User).values(email="x"))),
}


@pytest.fixture
def user(session: Session) -> User:
    user = User(id=1, email="a")
    session.add(user)
    session.commit()
    return user


def _check_unchanged(session: Session) -> None:
    session.rollback()
    (live,) = live_rows(session, "appuser")
    assert (live["email"], live["clicks"], live["version"]) == ("a", 0, 0)
    assert changes(history_rows(session, "appuser_history")) == [(-1, "insert")]
    session.get_one(User, 1).email = "goes on"
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == [(-1, "insert"), (0, "update")]


@pytest.mark.parametrize("write", REFUSED.values(), ids=REFUSED.keys())
def test_write_that_is_not_captured_is_refused(session: Session, user: User, write: Write) -> None:
    with pytest.raises(UncapturedWriteError, match="on the versioned table appuser is not captured") as error:
        write(session)
    assert error.value.table == "appuser"
    _check_unchanged(session)


@pytest.mark.parametrize("write", REFUSED.values(), ids=REFUSED.keys())
def test_write_that_is_not_captured_is_refused_after_a_flush_of_the_same_transaction(
    session: Session, user: User, write: Write
) -> None:
    user.name = "flushed before"
    session.flush()
    with pytest.raises(UncapturedWriteError):
        write(session)
    _check_unchanged(session)


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize("write", ["update", "delete", "insert"])
def test_write_inside_the_with_clause_of_a_select_is_refused(session: Session, user: User, write: str) -> None:
    """On PostgreSQL, which alone can."""
    statement = {
        "update": TABLE.update().values(email="x"),
        "delete": TABLE.delete(),
        "insert": TABLE.insert().values(id=9, email="x"),
    }[write]
    written = statement.returning(TABLE.c.id).cte("written")
    nested = sa.select(sa.select(written.c.id).cte("outer_one").c.id)
    for select in (sa.select(written.c.id), sa.select(sa.literal(1)).add_cte(written), nested):
        with pytest.raises(UncapturedWriteError):
            session.execute(select)
        session.rollback()
    _check_unchanged(session)


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_write_inside_the_with_clause_of_another_tables_write_is_refused(session: Session, user: User) -> None:
    """On PostgreSQL, which alone can."""
    written = TABLE.update().values(email="x").returning(TABLE.c.email).cte("written")
    note: sa.Table = Note.__table__  # type: ignore[assignment]
    with pytest.raises(UncapturedWriteError):
        session.execute(note.insert().from_select(["text"], sa.select(written.c.email)))
    _check_unchanged(session)


def test_core_write_in_a_listener_to_what_the_flush_does_not_write_is_captured(session: Session, user: User) -> None:
    def meddle(mapper: object, connection: sa.Connection, target: object) -> None:
        connection.execute(TABLE.update().values(email="x"))

    sa.event.listen(Release, "after_insert", meddle)
    try:
        session.add(Release(product="p", cycle="1"))
        session.commit()
    finally:
        sa.event.remove(Release, "after_insert", meddle)
    assert changes(history_rows(session, "appuser_history")) == [(-1, "insert"), (0, "update")]
    assert changes(history_rows(session, "release_history")) == [(-1, "insert")]


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("when", ["before_update", "after_update"])
def test_core_write_in_a_listener_of_the_models_own_is_refused(
    session: Session, user: User, when: str, cached: bool
) -> None:
    def meddle(mapper: object, connection: sa.Connection, target: object) -> None:
        connection.execute(TABLE.update().values(email="x"))

    if not cached:
        session.connection(execution_options={"compiled_cache": None})
    sa.event.listen(User, when, meddle)
    try:
        user.name = "changed"
        with pytest.raises(UncapturedWriteError, match=r"appuser .* what a listener changes, apart"):
            session.flush()
    finally:
        sa.event.remove(User, when, meddle)
    _check_unchanged(session)


def test_rows_between_two_others_that_their_collection_writes_are_captured(
    open_database: Callable[..., Session],
) -> None:
    db: Any = VersionedSQLAlchemy()
    right: Any = type("Right", (db.Model,), {"id": sa.Column(sa.Integer, primary_key=True)})
    link = define(
        db,
        "Link",
        left_id=sa.Column(sa.Integer, sa.ForeignKey("left.id"), primary_key=True),
        right_id=sa.Column(sa.Integer, sa.ForeignKey("right.id"), primary_key=True),
    )
    attributes = {
        "id": sa.Column(sa.Integer, primary_key=True),
        "rights": relationship(right, secondary=link.__table__),
    }
    left: Any = type("Left", (db.Model,), attributes)
    session = open_database(db)
    session.add(left(id=1, rights=[right(id=1)]))
    session.commit()
    assert changes(history_rows(session, "link_history")) == [(-1, "insert")]
    session.get_one(left, 1).rights = []
    session.commit()
    assert live_rows(session, "link") == []
    assert changes(history_rows(session, "link_history")) == [(-1, "insert"), (0, "delete")]


def test_bulk_writes_to_tables_without_versioning_go_through(session: Session) -> None:
    session.execute(sa.insert(Note), [{"id": 1, "text": "a"}, {"id": 2, "text": "b"}])
    session.execute(sa.update(Note).values(text="c"))
    session.bulk_insert_mappings(sa.inspect(Note), [{"id": 3, "text": "d"}])
    session.query(Note).filter_by(id=2).delete()
    session.commit()
    assert [row["text"] for row in live_rows(session, "note", "id")] == ["c", "d"]


def test_reads_go_through_also_those_that_lock(session: Session, user: User) -> None:
    cte = sa.select(User).cte("users")
    assert session.execute(sa.select(cte.c.email)).scalar() == "a"
    assert session.scalars(sa.select(User).with_for_update()).one() is user
    assert session.connection().execute(TABLE.select()).one().email == "a"


def test_refusal_is_a_chrononaut_exception() -> None:
    assert issubclass(UncapturedWriteError, ChrononautException)

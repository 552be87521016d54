"""Writes that would leave no history are refused: nothing is written, and the session goes on after a rollback."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, object_session, relationship

from chrononaut import ChrononautException, UncapturedWriteError, VersionedSQLAlchemy
from tests.library.models import Note, Release, User, define
from tests.library.rows import changes, history_rows, live_rows

TABLE: Any = User.__table__
Write = Callable[[Session], object]


def _upsert(session: Session, target: type[User] | sa.Table) -> object:
    insert = postgresql.insert if session.connection().dialect.name == "postgresql" else sqlite.insert
    statement = insert(target).values(id=1, email="x")
    return session.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"email": "x"}))


REFUSED: dict[str, Write] = {
    "orm_update": lambda s: s.execute(sa.update(User).values(email="x")),
    "orm_update_without_synchronizing": lambda s: s.execute(
        sa.update(User).values(email="x"), execution_options={"synchronize_session": False}
    ),
    "orm_update_by_primary_key": lambda s: s.execute(sa.update(User), [{"id": 1, "email": "x"}]),
    "orm_delete": lambda s: s.execute(sa.delete(User).where(User.id == 1)),
    "orm_insert": lambda s: s.execute(sa.insert(User).values(id=9, email="x")),
    "orm_bulk_insert": lambda s: s.execute(sa.insert(User), [{"id": 8, "email": "x"}, {"id": 9, "email": "y"}]),
    "orm_insert_returning": lambda s: s.scalars(sa.insert(User).values(id=9, email="x").returning(User)),
    "core_update": lambda s: s.execute(TABLE.update().values(email="x")),
    "core_update_of_an_untracked_column": lambda s: s.execute(TABLE.update().values(clicks=9)),
    "core_delete": lambda s: s.execute(TABLE.delete()),
    "core_insert": lambda s: s.execute(TABLE.insert().values(id=9, email="x")),
    "core_insert_from_select": lambda s: s.execute(
        TABLE.insert().from_select(["id", "email"], sa.select(sa.literal(9), sa.literal("x")))
    ),
    "query_update": lambda s: s.query(User).filter_by(id=1).update({"email": "x"}),
    "query_delete": lambda s: s.query(User).filter_by(id=1).delete(),
    "bulk_save_objects": lambda s: s.bulk_save_objects([User(id=9, email="x")]),
    "bulk_insert_mappings": lambda s: s.bulk_insert_mappings(sa.inspect(User), [{"id": 9, "email": "x"}]),
    "bulk_update_mappings": lambda s: s.bulk_update_mappings(sa.inspect(User), [{"id": 1, "email": "x"}]),
    "orm_upsert": lambda s: _upsert(s, User),
    "core_upsert": lambda s: _upsert(s, TABLE),
    "update_of_the_table_by_another_description": lambda s: s.execute(
        sa.update(sa.table("appuser", sa.column("email"))).values(email="x")
    ),
    "update_of_a_reflected_table": lambda s: s.execute(
        sa.Table("appuser", sa.MetaData(), autoload_with=s.connection()).update().values(email="x")
    ),
    "update_through_the_connection": lambda s: s.connection().execute(TABLE.update().values(email="x")),
    "update_through_an_alias": lambda s: s.execute(sa.update(TABLE.alias()).values(email="x")),
    "executemany_through_the_connection": lambda s: s.connection().execute(
        TABLE.insert(), [{"id": 8, "email": "x"}, {"id": 9, "email": "y"}]
    ),
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


def test_bulk_save_of_a_loaded_object_is_refused(session: Session, user: User) -> None:
    session.refresh(user)
    user.email = "x"
    with pytest.raises(UncapturedWriteError), session.no_autoflush:
        session.bulk_save_objects([user])
    session.expire(user)
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


def test_core_write_in_a_listener_during_the_flush_is_refused(session: Session, user: User) -> None:
    def meddle(mapper: object, connection: sa.Connection, target: object) -> None:
        connection.execute(TABLE.update().values(email="x"))

    sa.event.listen(Release, "after_insert", meddle)
    try:
        user.name = "in the same flush"
        session.add(Release(product="p", cycle="1"))
        with pytest.raises(UncapturedWriteError, match="appuser"):
            session.flush()
    finally:
        sa.event.remove(Release, "after_insert", meddle)
    _check_unchanged(session)
    assert live_rows(session, "release") == []


@pytest.mark.parametrize("when", ["before_update", "after_update"])
def test_core_write_in_a_listener_of_the_models_own_is_refused(session: Session, user: User, when: str) -> None:
    def meddle(mapper: object, connection: sa.Connection, target: object) -> None:
        connection.execute(TABLE.update().values(email="x"))

    sa.event.listen(User, when, meddle)
    try:
        user.name = "changed"
        with pytest.raises(UncapturedWriteError, match="appuser"):
            session.flush()
    finally:
        sa.event.remove(User, when, meddle)
    _check_unchanged(session)


@pytest.mark.parametrize(
    "write",
    [
        lambda own: own.bulk_insert_mappings(sa.inspect(User), [{"id": 9, "email": "x"}]),
        lambda own: own.execute(sa.update(User), [{"id": 1, "email": "x", "version": 9}]),
    ],
    ids=["insert", "update_that_sets_the_version"],
)
def test_bulk_write_in_a_listener_during_the_flush_is_refused(session: Session, user: User, write: Write) -> None:
    def meddle(mapper: object, connection: object, release: Release) -> None:
        own = object_session(release)
        assert own is not None
        write(own)

    sa.event.listen(Release, "after_insert", meddle)
    try:
        session.add(Release(product="p", cycle="1"))
        with pytest.raises(UncapturedWriteError, match="appuser"):
            session.flush()
    finally:
        sa.event.remove(Release, "after_insert", meddle)
    _check_unchanged(session)


def test_versioned_table_between_two_others_is_not_written_by_their_collection(
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
    with pytest.raises(UncapturedWriteError, match="versioned table link"):
        session.commit()
    session.rollback()
    assert live_rows(session, "link") == live_rows(session, '"left"') == []
    session.add_all([left(id=1), right(id=1)])
    session.flush()
    session.add(link(left_id=1, right_id=1))
    session.commit()
    assert changes(history_rows(session, "link_history")) == [(-1, "insert")]


@pytest.mark.parametrize("expired", [True, False])
def test_change_of_the_primary_key_is_refused(session: Session, user: User, expired: bool) -> None:
    if not expired:
        session.refresh(user)
    user.id = 2
    with pytest.raises(UncapturedWriteError, match=r"changing the primary key \(id\).*delete the record and add it"):
        session.commit()
    _check_unchanged(session)


def test_change_of_a_part_of_a_composite_key_is_refused(session: Session) -> None:
    release = Release(product="p", cycle="1", label="x")
    session.add(release)
    session.commit()
    release.cycle, release.label = "2", "y"
    with pytest.raises(UncapturedWriteError, match=r"changing the primary key \(cycle\)"):
        session.commit()
    session.rollback()
    assert live_rows(session, "release") == [{"product": "p", "cycle": "1", "codename": "x", "version": 0}]
    assert changes(history_rows(session, "release_history")) == [(-1, "insert")]


def test_primary_key_set_to_the_value_it_had_is_no_change(session: Session, user: User) -> None:
    user.id = 1
    user.email = "b"
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == [(-1, "insert"), (0, "update")]


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

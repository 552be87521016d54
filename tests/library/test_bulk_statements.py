"""Bulk statements through the session leave the history that single changes would leave."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, with_parent

from chrononaut import ConcurrentChangeError, extra_change_info
from tests.library.models import Author, Book, User, db
from tests.library.rows import changes, history_rows, live_rows

TABLE: Any = User.__table__
Write = Callable[[Session], object]

UPDATES: dict[str, Write] = {
    "orm": lambda s: s.execute(sa.update(User).where(User.id < 3).values(name="x")),
    "orm_evaluate": lambda s: s.execute(
        sa.update(User).where(User.id < 3).values(name="x"), execution_options={"synchronize_session": "evaluate"}
    ),
    "orm_fetch": lambda s: s.execute(
        sa.update(User).where(User.id < 3).values(name="x"), execution_options={"synchronize_session": "fetch"}
    ),
    "orm_unsynchronized": lambda s: s.execute(
        sa.update(User).where(User.id < 3).values(name="x"), execution_options={"synchronize_session": False}
    ),
    "orm_ordered": lambda s: s.execute(sa.update(User).where(User.id < 3).ordered_values((User.name, "x"))),
    "orm_expression": lambda s: s.execute(sa.update(User).where(User.id < 3).values(name=sa.func.lower("X"))),
    "orm_subquery": lambda s: s.execute(
        sa.update(User).where(User.id.in_(sa.select(User.id).where(User.id < 3))).values({User.name: "x"})
    ),
    "orm_returning": lambda s: s.scalars(sa.update(User).where(User.id < 3).values(name="x").returning(User)).all(),
    "by_primary_key": lambda s: s.execute(sa.update(User), [{"id": 1, "name": "x"}, {"id": 2, "name": "x"}]),
    "core": lambda s: s.execute(TABLE.update().where(TABLE.c.id < 3).values(name="x")),
    "core_given": lambda s: s.execute(TABLE.update().where(TABLE.c.id < 3), {"name": "x"}),
    "core_many": lambda s: s.execute(
        TABLE.update().where(TABLE.c.id == sa.bindparam("which")),
        [{"which": 1, "name": "x"}, {"which": 2, "name": "x"}],
    ),
    "core_many_named": lambda s: s.execute(
        TABLE.update().where(TABLE.c.id == sa.bindparam("which")).values(name=sa.bindparam("new")),
        [{"which": 1, "new": "x"}, {"which": 2, "new": "x"}],
    ),
    "alias": lambda s: s.execute(sa.update(a := TABLE.alias()).where(a.c.id < 3).values(name="x")),
    "connection": lambda s: s.connection().execute(TABLE.update().where(TABLE.c.id < 3).values(name="x")),
    "query": lambda s: s.query(User).filter(User.id < 3).update({"name": "x"}),
    "query_evaluate": lambda s: s.query(User).filter(User.id < 3).update({User.name: "x"}, "evaluate"),
    "bulk_update_mappings": lambda s: s.bulk_update_mappings(
        sa.inspect(User), [{"id": 1, "name": "x"}, {"id": 2, "name": "x"}]
    ),
}


@pytest.fixture
def users(session: Session) -> list[User]:
    users = [User(id=1, email="a", name="a"), User(id=2, email="b", name="x"), User(id=3, email="c", name="c")]
    session.add_all(users)
    session.commit()
    return users


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "unloaded"])
@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_update_archives_the_rows_that_it_changes(
    session: Session, users: list[User], update: Write, loaded: bool
) -> None:
    if loaded:
        assert [user.name for user in users] == ["a", "x", "c"]
    else:
        session.expunge_all()
    with extra_change_info(reason="bulk"):
        update(session)
    session.commit()
    assert [(row["name"], row["version"]) for row in live_rows(session, "appuser")] == [("x", 1), ("x", 0), ("c", 0)]
    assert changes(history_rows(session, "appuser_history", id=1)) == [(-1, "insert"), (0, "update")]
    assert changes(history_rows(session, "appuser_history", id=2)) == [(-1, "insert")]
    row = history_rows(session, "appuser_history", id=1)[-1]
    assert (row["name"], row["email"]) == ("a", "a")
    assert row["change_info"] == {"user_id": None, "remote_addr": None, "extra": {"reason": "bulk"}}
    user = session.get_one(User, 1)
    user.name = "y"
    session.commit()
    assert [(version.version, version.name) for version in user.versions()] == [(0, "a"), (1, "x")]


DELETES: dict[str, Write] = {
    "orm": lambda s: s.execute(sa.delete(User).where(User.id < 3)),
    "orm_evaluate": lambda s: s.execute(
        sa.delete(User).where(User.id < 3), execution_options={"synchronize_session": "evaluate"}
    ),
    "orm_fetch": lambda s: s.execute(
        sa.delete(User).where(User.id < 3), execution_options={"synchronize_session": "fetch"}
    ),
    "orm_returning": lambda s: s.execute(sa.delete(User).where(User.id < 3).returning(User.id)).all(),
    "core": lambda s: s.execute(TABLE.delete().where(TABLE.c.id < 3)),
    "core_many": lambda s: s.execute(
        TABLE.delete().where(TABLE.c.id == sa.bindparam("which")), [{"which": 1}, {"which": 2}]
    ),
    "query": lambda s: s.query(User).filter(User.id < 3).delete(),
}


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "unloaded"])
@pytest.mark.parametrize("delete", DELETES.values(), ids=DELETES)
def test_delete_archives_the_rows_that_it_deletes(
    session: Session, users: list[User], delete: Write, loaded: bool
) -> None:
    users[0].password_hash = "secret"
    session.commit()
    if loaded:
        assert [user.name for user in users] == ["a", "x", "c"]
    delete(session)
    session.commit()
    assert [row["id"] for row in live_rows(session, "appuser")] == [3]
    rows = history_rows(session, "appuser_history", id=1)
    assert changes(rows) == [(-1, "insert"), (0, "update"), (1, "delete")]
    assert (rows[-1]["name"], rows[-1]["change_info"]["hidden_cols_changed"]) == ("a", ["password_hash"])
    rows = history_rows(session, "appuser_history", id=2)
    assert changes(rows) == [(-1, "insert"), (0, "delete")]
    assert "hidden_cols_changed" not in rows[-1]["change_info"]


NEW = [{"email": "d", "name": "d"}, {"email": "e", "name": "e", "password_hash": "s"}]
KEYED = [{"id": 4 + number, **row} for number, row in enumerate(NEW)]
FULL = [{"password_hash": None, **row} for row in NEW]


def _from_select(session: Session) -> object:
    rows = [sa.select(*(sa.literal(value, sa.String).label(name) for name, value in row.items())) for row in FULL]
    source = sa.union_all(*rows).subquery()
    return session.execute(TABLE.insert().from_select(list(FULL[0]), sa.select(source)))


INSERTS: dict[str, Write] = {
    "orm_many": lambda s: s.execute(sa.insert(User), NEW),
    "orm_many_keyed": lambda s: s.execute(sa.insert(User), KEYED),
    "orm_values": lambda s: s.execute(sa.insert(User).values(FULL)),
    "orm_single": lambda s: [s.execute(sa.insert(User).values(**row)) for row in NEW],
    "orm_given": lambda s: [s.execute(sa.insert(User), row) for row in NEW],
    "orm_returning": lambda s: s.scalars(sa.insert(User).returning(User), NEW).all(),
    "orm_returning_columns": lambda s: s.execute(sa.insert(User).returning(User.name, User.id), FULL).all(),
    "orm_values_returning": lambda s: s.scalars(sa.insert(User).values(FULL).returning(User)).all(),
    "core_many": lambda s: s.execute(TABLE.insert(), FULL),
    "core_values": lambda s: s.execute(TABLE.insert().values(FULL)),
    "core_single": lambda s: [s.execute(TABLE.insert().values(**row)) for row in NEW],
    "core_returning": lambda s: s.execute(TABLE.insert().returning(TABLE.c.name), FULL).all(),
    "from_select": _from_select,
    "connection": lambda s: s.connection().execute(TABLE.insert(), FULL),
    "bulk_insert_mappings": lambda s: s.bulk_insert_mappings(sa.inspect(User), NEW),
    "bulk_insert_mappings_returning": lambda s: s.bulk_insert_mappings(
        sa.inspect(User), [dict(row) for row in NEW], return_defaults=True
    ),
    "bulk_save_objects": lambda s: s.bulk_save_objects([User(**row) for row in NEW]),
    "bulk_save_objects_returning": lambda s: s.bulk_save_objects([User(**row) for row in NEW], return_defaults=True),
}


@pytest.mark.parametrize("insert", INSERTS.values(), ids=INSERTS)
def test_insert_records_what_it_inserts(session: Session, users: list[User], insert: Write) -> None:
    if session.connection().dialect.name == "postgresql":
        session.execute(sa.text("SELECT setval('appuser_id_seq', 3)"))
    insert(session)
    session.commit()
    assert [(row["id"], row["name"], row["version"]) for row in live_rows(session, "appuser")][3:] == [
        (4, "d", 0),
        (5, "e", 0),
    ]
    (one,) = history_rows(session, "appuser_history", id=4)
    (other,) = history_rows(session, "appuser_history", id=5)
    assert (one["operation"], one["version"], one["name"], one["change_info"].get("hidden_cols_changed")) == (
        "insert",
        -1,
        None,
        None,
    )
    assert other["change_info"]["hidden_cols_changed"] == ["password_hash"]
    user = session.get_one(User, 5)
    user.name = "f"
    session.commit()
    assert [version.name for version in user.versions()] == ["e"]


@pytest.mark.parametrize("matched", [True, False], ids=["matched", "not_matched"])
def test_object_that_another_transaction_has_changed_stays_stale_after_a_bulk_statement(
    session: Session, users: list[User], matched: bool
) -> None:
    mine, other = db.session.session_factory(expire_on_commit=False), db.session.session_factory()
    user = mine.get_one(User, 1)
    mine.commit()
    other.get_one(User, 1).name = "by the other"
    other.commit()
    mine.execute(sa.update(User).where(User.id == (1 if matched else 3)).values(logins=5))
    user.name = "by me"
    with pytest.raises(ConcurrentChangeError):
        mine.commit()
    mine.close()
    other.close()
    assert changes(history_rows(session, "appuser_history", id=1)) == [(-1, "insert"), (0, "update")]


def test_object_can_be_changed_after_a_savepoint_with_a_bulk_statement_was_rolled_back(
    session: Session, users: list[User]
) -> None:
    assert users[0].name == "a"
    savepoint = session.begin_nested()
    session.execute(TABLE.update().where(TABLE.c.id == 1).values(logins=5))
    savepoint.rollback()
    users[0].name = "b"
    session.commit()
    assert changes(history_rows(session, "appuser_history", id=1)) == [(-1, "insert"), (0, "update")]


def test_update_of_an_object_after_two_statements_goes_on_counting(session: Session, users: list[User]) -> None:
    assert users[0].name == "a"
    for logins in (5, 6):
        session.execute(TABLE.update().values(logins=logins))
    assert users[0].version == 2
    users[0].name = "b"
    session.commit()
    assert changes(history_rows(session, "appuser_history", id=1))[-1] == (2, "update")


def test_update_of_what_belongs_to_an_object_makes_versions_only_of_what_changes(session: Session) -> None:
    author = Author(id=1)
    session.add_all([author, Book(id=1, title="a", author=author), Book(id=2, title="x", author=author), Book(id=3)])
    session.commit()
    for criterion in (Book.author == author, with_parent(author, Author.books)):
        result: Any = session.execute(sa.update(Book).where(criterion).values(title="x"))
        assert result.rowcount == 2
    session.commit()
    assert [row["version"] for row in live_rows(session, "book", "id")] == [1, 0, 0]
    assert [row["id"] for row in history_rows(session, "book_history") if row["operation"] == "update"] == [1]

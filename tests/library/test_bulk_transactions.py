"""Bulk statements share the transaction of flushes, its instant, its reasons, its rollbacks and its failures."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut import (
    MissingChangeInfoError,
    UncapturedWriteError,
    Versioned,
    VersionedSQLAlchemy,
    extra_change_info,
    rationale,
    suppress_versioning,
)
from tests.library.conftest import Statements
from tests.library.exact import exactly_captured
from tests.library.models import Country, User, define
from tests.library.rows import changes, history_rows, live_rows
from tests.library.twins import Kind

TABLE: Any = User.__table__
Write = Callable[[Session], Any]


@pytest.fixture
def users(session: Session) -> list[User]:
    users = [User(id=number, email=f"{number}") for number in (1, 2, 3)]
    session.add_all(users)
    session.commit()
    return users


def _flush(session: Session) -> None:
    session.get_one(User, 1).name = "flushed"
    session.flush()


def _insert(session: Session) -> None:
    session.execute(sa.insert(User), [{"id": 8, "email": "8"}, {"id": 9, "email": "9"}])


STEPS: dict[str, Write] = {
    "flush": _flush,
    "update": lambda s: s.execute(sa.update(User).where(User.id == 2).values(name="bulk")),
    "delete": lambda s: s.execute(sa.delete(User).where(User.id == 3)),
    "insert": _insert,
    "country": lambda s: s.execute(sa.insert(Country).values(code="FR")),
}


@pytest.mark.parametrize("first", ["flush", "update", "insert"])
def test_all_changes_of_a_transaction_share_its_id_and_instant(session: Session, users: list[User], first: str) -> None:
    known = history_rows(session, "appuser_history")
    for name in (first, *(other for other in STEPS if other != first)):
        STEPS[name](session)
    session.commit()
    rows = [row for row in history_rows(session, "appuser_history") if row not in known]
    rows += history_rows(session, "country_history")
    assert len(rows) == 6
    assert len({(row["transaction_id"], row["changed"]) for row in rows}) == 1
    assert rows[0]["changed"] > max(row["changed"] for row in known)


@pytest.mark.parametrize("nested", [True, False])
def test_rollback_leaves_nothing_of_a_statement(session: Session, users: list[User], nested: bool) -> None:
    before = live_rows(session, "appuser"), history_rows(session, "appuser_history")
    session.commit()
    savepoint = session.begin_nested() if nested else None
    for step in STEPS.values():
        step(session)
    (savepoint or session).rollback()
    assert (live_rows(session, "appuser"), history_rows(session, "appuser_history")) == before
    for step in STEPS.values():
        step(session)
    session.commit()
    assert changes(history_rows(session, "appuser_history", id=2)) == [(-1, "insert"), (0, "update")]
    assert [user.version for user in session.scalars(sa.select(User).order_by(User.id))] == [1, 1, 0, 0]


def _delete_that_overflows(session: Session) -> object:
    # The smallest number has no absolute value; PostgreSQL needs to be told that it is one.
    number = sa.cast(sa.case((User.id == 3, -(2**63)), else_=1), sa.BigInteger)
    return session.execute(sa.delete(User).where(sa.func.abs(number) > 0))


FAILING: dict[str, Write] = {
    "update": lambda s: s.execute(sa.update(User).where(User.id < 3).values(email="same", name="x")),
    "update_many": lambda s: s.execute(
        TABLE.update().where(TABLE.c.id == sa.bindparam("which")).values(email=sa.bindparam("to")),
        [{"which": 1, "to": "x"}, {"which": 2, "to": "x"}],
    ),
    "update_by_primary_key": lambda s: s.execute(sa.update(User), [{"id": 1, "email": "x"}, {"id": 2, "email": "x"}]),
    "insert": lambda s: s.execute(sa.insert(User), [{"id": 8, "email": "8"}, {"id": 9, "email": "1"}]),
    "insert_of_core": lambda s: s.execute(TABLE.insert(), [{"id": 8, "email": "8"}, {"id": 8, "email": "9"}]),
    "insert_returning": lambda s: s.execute(
        sa.insert(User).returning(User.id), [{"id": 8, "email": "8"}, {"id": 9, "email": "1"}]
    ),
    "insert_unkeyed": lambda s: s.execute(sa.insert(User), [{"email": "8"}, {"email": "1"}]),
    "delete": _delete_that_overflows,
    "wrong_value": lambda s: s.execute(sa.update(User).values(name="x", clicks=object())),
}


@pytest.mark.parametrize("healed", [True, False], ids=["savepoint", "no_savepoint"])
def test_statement_that_fails_leaves_neither_rows_nor_history(
    session: Session, users: list[User], healed: bool, subtests: pytest.Subtests
) -> None:
    before = live_rows(session, "appuser"), history_rows(session, "appuser_history")
    session.commit()
    for name, fail in FAILING.items():
        with subtests.test(name):
            savepoint = session.begin_nested() if healed else None
            with pytest.raises(sa.exc.StatementError):
                fail(session)
            if savepoint is not None:
                savepoint.rollback()
            try:
                session.commit()
            except (UncapturedWriteError, sa.exc.SQLAlchemyError):
                assert not healed
                session.rollback()
            assert (live_rows(session, "appuser"), history_rows(session, "appuser_history")) == before
            with exactly_captured(session, User) as happened:
                session.execute(sa.update(User).values(name="goes on"))
            assert happened.keys == [1, 2, 3]
        session.rollback()


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_value_that_its_type_refuses_leaves_no_history(open_database: Callable[..., Session]) -> None:
    """On SQLite, where history is written by a statement of its own."""
    thing = define(
        database := VersionedSQLAlchemy(),
        "Thing",
        Versioned,
        __chrononaut_untracked__=["kind"],
        id=sa.Column(sa.Integer, primary_key=True),
        name=sa.Column(sa.String),
        kind=sa.Column(sa.Enum(Kind, validate_strings=True)),
    )
    session = open_database(database)
    session.add(thing(id=1))
    session.commit()
    with pytest.raises(sa.exc.StatementError):
        session.execute(sa.update(thing).values(name="x", kind="nothing"))
    with pytest.raises(UncapturedWriteError):
        session.commit()


def test_document_of_a_statement_is_that_of_a_flush(session: Session, users: list[User]) -> None:
    with extra_change_info(ticket="1"), rationale("bulk"):
        session.execute(sa.update(User).where(User.id == 1).values(name="x", token="t"))
        session.execute(sa.delete(User).where(User.id == 2))
        session.execute(sa.insert(User).values(id=4, email="4", token="t"))
        session.execute(sa.insert(User).values(id=5, email="5").returning(User))
        session.get_one(User, 3).token = "t"
        session.commit()
    documents = [
        history_rows(session, "appuser_history", id=key)[-1]["change_info"] | {"hidden_cols_changed": []}
        for key in range(1, 6)
    ]
    assert documents == [documents[2]] * 5
    assert documents[0]["extra"] == {"ticket": "1", "rationale": "bulk"}


REQUIRED: dict[str, Write] = {name: STEPS[name] for name in ("update", "delete")} | {
    "untracked": lambda s: s.execute(sa.update(User).values(name=User.name, clicks=1)),
    "many": lambda s: s.execute(sa.update(User), [{"id": 1, "name": "x"}]),
    "query": lambda s: s.query(User).update({"name": "x"}),
    "mappings": lambda s: s.bulk_update_mappings(sa.inspect(User), [{"id": 1, "name": "x"}]),
}


def test_statement_without_a_required_reason_is_refused_before_it_writes(
    app: Any, session: Session, users: list[User], statements: Statements, subtests: pytest.Subtests
) -> None:
    app.config["CHRONONAUT_REQUIRE_EXTRA_CHANGE_INFO"] = True
    for name, write in REQUIRED.items():
        with subtests.test(name):
            statements.clear()
            with pytest.raises(MissingChangeInfoError):
                write(session)
            assert [statement for statement, _ in statements.executed if "SELECT" not in statement] in ([], ["BEGIN"])
            session.rollback()
            with rationale("why"), exactly_captured(session, User):
                write(session)
            session.execute(sa.insert(User).values(id=9, email="9"))
        session.rollback()


def test_suppressed_statements_leave_no_history(session: Session, users: list[User]) -> None:
    before = history_rows(session, "appuser_history")
    with suppress_versioning():
        session.execute(sa.update(User).values(name="x"))
        session.execute(sa.delete(User).where(User.id == 3))
        session.execute(sa.insert(User), [{"id": 8, "email": "8"}])
        session.execute(sa.insert(User).values(id=9, email="9").returning(User.id)).all()
    assert history_rows(session, "appuser_history") == before
    with exactly_captured(session, User) as happened:
        session.execute(sa.update(User).values(name="y"))
    assert happened.keys == [1, 2, 8, 9]


@pytest.mark.parametrize("operation", ["update", "delete"])
def test_ten_thousand_rows_take_the_statements_that_one_takes(
    session: Session, statements: Statements, database_kind: str, operation: str
) -> None:
    with suppress_versioning():
        session.execute(TABLE.insert(), [{"id": number, "email": f"{number}"} for number in range(10_000)])
    session.commit()
    write: Any = sa.update(User).values(name="x") if operation == "update" else sa.delete(User)
    session.connection()
    statements.clear()
    session.execute(write)
    executed = [statement for statement, _ in statements.executed]
    expected = (
        ["SELECT clock", "WITH"]
        if database_kind == "postgresql"
        else ["INSERT INTO appuser_history", operation.upper()]
    )
    assert [statement.startswith(start) for statement, start in zip(executed, expected, strict=True)] == [True] * 2
    statements.clear()
    session.execute(sa.update(User).values(name="y"))
    assert len(statements.executed) == (1 if database_kind == "postgresql" else 2)
    counted = session.connection().execute(sa.text("SELECT operation, count(*) FROM appuser_history GROUP BY 1"))
    assert sum(row[1] for row in counted) == (20_000 if operation == "update" else 10_000)

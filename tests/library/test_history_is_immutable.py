"""History rows are neither inserted, changed nor deleted through the session."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut import ChrononautException, HistoryImmutableError, history_model, suppress_versioning
from tests.library.models import User
from tests.library.rows import changes, history_rows

UserHistory: Any = history_model(User)
TABLE: sa.Table = UserHistory.__table__


@pytest.fixture
def user(session: Session) -> User:
    user = User(id=1, email="a")
    session.add(user)
    session.commit()
    user.email = "b"
    session.commit()
    return user


def _change(session: Session) -> None:
    rows = session.scalars(sa.select(UserHistory)).all()
    for row in rows:
        row.change_info = {"user_id": "forged"}
    session.flush()


def _delete(session: Session) -> None:
    rows = session.scalars(sa.select(UserHistory)).all()
    session.delete(rows[0])
    session.flush()


def _insert(session: Session) -> None:
    session.add(UserHistory(**VALUES))
    session.flush()


VALUES = {
    "id": 1,
    "version": 7,
    "operation": "update",
    "changed": datetime(2026, 3, 1, tzinfo=UTC),
    "change_info": {},
    "transaction_id": uuid4(),
}
INSERTS: dict[str, Callable[[Session], object]] = {
    "insert_an_object": _insert,
    "orm_insert": lambda s: s.execute(sa.insert(UserHistory), [VALUES]),
    "core_insert": lambda s: s.execute(TABLE.insert().values(VALUES)),
    "bulk_save_objects": lambda s: s.bulk_save_objects([UserHistory(**VALUES)]),
}
UPDATES: dict[str, Callable[[Session], object]] = {
    "change_objects": _change,
    "orm_update": lambda s: s.execute(sa.update(UserHistory).values(email="forged")),
    "core_update": lambda s: s.connection().execute(TABLE.update().values(email="forged")),
}
DELETES: dict[str, Callable[[Session], object]] = {
    "delete_an_object": _delete,
    "orm_delete": lambda s: s.execute(sa.delete(UserHistory)),
    "core_delete": lambda s: s.execute(TABLE.delete()),
    "query_delete": lambda s: s.query(UserHistory).delete(),
}
ALL = INSERTS | UPDATES | DELETES


def _check_unchanged(session: Session, user: User) -> None:
    session.rollback()
    rows = history_rows(session, "appuser_history")
    assert changes(rows) == [(-1, "insert"), (0, "update")]
    assert [row["email"] for row in rows] == [None, "a"]
    user.email = "goes on"
    session.commit()
    assert changes(history_rows(session, "appuser_history"))[-1] == (1, "update")


@pytest.mark.parametrize("write", ALL.values(), ids=ALL.keys())
def test_history_cannot_be_written(session: Session, user: User, write: Callable[[Session], object]) -> None:
    with pytest.raises(HistoryImmutableError, match="appuser_history can be neither") as error:
        write(session)
    assert error.value.table == "appuser_history"
    assert isinstance(error.value, ChrononautException)
    _check_unchanged(session, user)


@pytest.mark.parametrize("write", ALL.values(), ids=ALL.keys())
def test_suppressed_versioning_alone_does_not_open_history(
    session: Session, user: User, write: Callable[[Session], object]
) -> None:
    with suppress_versioning(), pytest.raises(HistoryImmutableError):
        write(session)
    _check_unchanged(session, user)


@pytest.mark.parametrize("write", (INSERTS | UPDATES).values(), ids=(INSERTS | UPDATES).keys())
def test_permission_to_delete_history_is_not_one_to_forge_it(
    session: Session, user: User, write: Callable[[Session], object]
) -> None:
    with suppress_versioning(allow_deleting_history=True), pytest.raises(HistoryImmutableError):
        write(session)
    _check_unchanged(session, user)


@pytest.mark.parametrize("write", DELETES.values(), ids=DELETES.keys())
def test_history_can_be_deleted_where_it_is_permitted(
    session: Session, user: User, write: Callable[[Session], object]
) -> None:
    with suppress_versioning(allow_deleting_history=True):
        write(session)
        session.commit()
    assert len(history_rows(session, "appuser_history")) < 2
    with pytest.raises(HistoryImmutableError):
        session.execute(TABLE.delete())
    session.rollback()


def test_change_and_a_forged_history_row_in_one_flush_leave_nothing(session: Session, user: User) -> None:
    user.email = "c"
    session.add(UserHistory(**VALUES))
    with pytest.raises(HistoryImmutableError):
        session.commit()
    _check_unchanged(session, user)

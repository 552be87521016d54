"""What a flush records of inserts, updates and deletes."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests.library.models import User
from tests.library.rows import changes, history_rows, live_rows, state

NO_STATE = {"email": None, "name": None, "active": None, "logins": None, "born": None, "settings": None}


@pytest.fixture
def user(session: Session) -> User:
    user = User(id=42, email="old@example.com", name="Ada", logins=3)
    session.add(user)
    session.commit()
    return user


def test_insert_row_has_the_key_and_no_state(session: Session, user: User) -> None:
    (row,) = history_rows(session, "appuser_history")
    assert state(row) == {"id": 42, "biography": None, **NO_STATE}
    assert (row["version"], row["operation"]) == (-1, "insert")
    assert row["change_info"] == {"user_id": None, "remote_addr": None}
    assert isinstance(row["transaction_id"], UUID)
    assert row["transaction_id"].version == 7
    assert live_rows(session, "appuser")[0]["version"] == 0
    assert user.version == 0


def test_instant_of_a_change_is_about_now(session: Session, user: User) -> None:
    (row,) = history_rows(session, "appuser_history")
    assert abs((datetime.now(UTC) - row["changed"]).total_seconds()) < 60


def test_update_row_has_the_state_that_was_replaced(session: Session, user: User) -> None:
    user.email = "new@example.com"
    user.active = False
    session.commit()
    row = history_rows(session, "appuser_history")[-1]
    assert state(row) == {
        "id": 42,
        "biography": None,
        **NO_STATE,
        "email": "old@example.com",
        "name": "Ada",
        "active": True,
        "logins": 3,
    }
    assert (row["version"], row["operation"]) == (0, "update")
    assert live_rows(session, "appuser")[0]["version"] == 1
    assert user.version == 1


def test_delete_row_has_the_last_state(session: Session, user: User) -> None:
    user.email = "new@example.com"
    session.commit()
    session.delete(user)
    session.commit()
    rows = history_rows(session, "appuser_history")
    assert changes(rows) == [(-1, "insert"), (0, "update"), (1, "delete")]
    assert rows[-1]["email"] == "new@example.com"
    assert live_rows(session, "appuser") == []


def test_each_change_counts_the_version_up_by_one(session: Session, user: User) -> None:
    for number in range(5):
        user.logins = 10 + number
        session.commit()
    rows = history_rows(session, "appuser_history")
    assert [row["version"] for row in rows] == [-1, 0, 1, 2, 3, 4]
    assert [row["logins"] for row in rows] == [None, 3, 10, 11, 12, 13]
    assert user.version == 5


def test_attribute_set_to_the_value_it_had_records_nothing(session: Session, user: User) -> None:
    assert user.email == "old@example.com"
    user.email = "old@example.com"
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == [(-1, "insert")]
    assert user.version == 0


def test_attribute_changed_and_changed_back_before_the_flush_records_nothing(session: Session, user: User) -> None:
    assert user.logins == 3
    user.logins = 4
    user.logins = 3
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == [(-1, "insert")]


def test_change_of_untracked_columns_records_nothing_and_is_written(session: Session, user: User) -> None:
    user.last_seen_at = datetime(2026, 3, 1, tzinfo=UTC)
    user.clicks = 7
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == [(-1, "insert")]
    (live,) = live_rows(session, "appuser")
    assert (live["clicks"], live["version"]) == (7, 0)


def test_untracked_columns_are_not_in_the_history_table(session: Session, user: User) -> None:
    columns = {column["name"] for column in sa.inspect(session.connection()).get_columns("appuser_history")}
    assert columns == {
        *("id", "version", "email", "name", "active", "logins", "born", "settings", "biography"),
        *("operation", "changed", "change_info", "transaction_id"),
    }


def test_state_columns_of_history_are_nullable_and_free_of_constraints(session: Session, user: User) -> None:
    inspector = sa.inspect(session.connection())
    nullable = {column["name"] for column in inspector.get_columns("appuser_history") if column["nullable"]}
    assert nullable == {"email", "name", "active", "logins", "born", "settings", "biography"}
    assert inspector.get_pk_constraint("appuser_history")["constrained_columns"] == ["id", "version"]
    assert inspector.get_unique_constraints("appuser_history") == []
    assert inspector.get_foreign_keys("book_history") == []
    assert sorted(index["column_names"] for index in inspector.get_indexes("appuser_history")) == [
        ["changed", "id", "version"],
        ["id", "changed", "version"],
        ["transaction_id"],
    ]
    defaults = [column["default"] for column in inspector.get_columns("appuser_history")]
    assert defaults == [None] * len(defaults)


def test_version_column_defaults_to_zero_for_other_programs(session: Session) -> None:
    (column,) = (c for c in sa.inspect(session.connection()).get_columns("appuser") if c["name"] == "version")
    assert column["nullable"] is False
    assert "0" in str(column["default"])


def test_version_given_by_the_caller_has_no_effect(session: Session) -> None:
    user = User(id=1, email="a", version=17)
    session.add(user)
    session.commit()
    assert live_rows(session, "appuser")[0]["version"] == 0
    assert user.version == 0
    user.version = 23
    user.email = "b"
    session.commit()
    assert live_rows(session, "appuser")[0]["version"] == 1
    assert changes(history_rows(session, "appuser_history")) == [(-1, "insert"), (0, "update")]


def test_version_alone_cannot_be_set_on_a_loaded_object(session: Session, user: User) -> None:
    assert user.version == 0
    user.version = 99
    session.commit()
    assert live_rows(session, "appuser")[0]["version"] == 0


def test_version_alone_cannot_be_set_on_an_expired_object(session: Session, user: User) -> None:
    user.version = 99
    session.commit()
    assert live_rows(session, "appuser")[0]["version"] == 0
    user.email = "new@example.com"
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == [(-1, "insert"), (0, "update")]


def test_merged_object_is_recorded_as_a_change_of_the_stored_one(session: Session, user: User) -> None:
    session.expunge_all()
    session.merge(User(id=42, email="merged@example.com"))
    session.commit()
    rows = history_rows(session, "appuser_history")
    assert changes(rows) == [(-1, "insert"), (0, "update")]
    assert rows[-1]["email"] == "old@example.com"


def test_value_of_any_length_and_alphabet_is_archived_as_it_was(session: Session, user: User) -> None:
    text = "naïve \U0001f600 \\ ' \" % :x \n\t" + "x" * 100_000
    user.name = text
    session.commit()
    user.name = None
    session.commit()
    assert history_rows(session, "appuser_history")[-1]["name"] == text


def test_insert_of_many_records_gives_each_its_own_row(session: Session) -> None:
    session.add_all(User(email=f"{number}@example.com") for number in range(25))
    session.commit()
    rows = history_rows(session, "appuser_history")
    assert changes(rows) == [(-1, "insert")] * 25
    assert {row["id"] for row in rows} == {row["id"] for row in live_rows(session, "appuser")}


def test_objects_of_models_without_versioning_are_left_alone(session: Session) -> None:
    session.execute(sa.text("INSERT INTO note (id, text) VALUES (1, 'a')"))
    session.commit()
    assert "note_history" not in sa.inspect(session.connection()).get_table_names()

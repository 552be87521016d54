"""Hidden columns: that they changed is noted, what they held is kept nowhere."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut import HiddenAttributeError, UntrackedAttributeError, VersionedSQLAlchemy, history_model
from tests.library.models import Country, User, define
from tests.library.rows import changes, history_rows


@pytest.fixture
def user(session: Session) -> User:
    user = User(id=1, email="a@example.com")
    session.add(user)
    session.commit()
    return user


def test_change_of_a_hidden_column_alone_gives_a_row_that_notes_it(session: Session, user: User) -> None:
    user.password_hash = "first-secret"
    session.commit()
    row = history_rows(session, "appuser_history")[-1]
    assert (row["version"], row["operation"]) == (0, "update")
    assert row["change_info"]["hidden_cols_changed"] == ["password_hash"]
    assert user.version == 1


def test_hidden_values_are_nowhere_in_history(session: Session, user: User) -> None:
    for secret in ("first-secret", "second-secret"):
        user.password_hash = secret
        user.token = secret
        session.commit()
    session.delete(user)
    session.commit()
    rows = history_rows(session, "appuser_history")
    assert changes(rows) == [(-1, "insert"), (0, "update"), (1, "update"), (2, "delete")]
    assert "secret" not in repr(rows)
    assert all("password_hash" not in row for row in rows)


def test_changed_hidden_columns_are_named_in_mapping_order(session: Session, user: User) -> None:
    user.token = "x"
    user.password_hash = "y"
    user.email = "b@example.com"
    session.commit()
    assert history_rows(session, "appuser_history")[-1]["change_info"]["hidden_cols_changed"] == [
        "password_hash",
        "token",
    ]


def test_hidden_column_set_to_the_value_it_had_records_nothing(session: Session, user: User) -> None:
    user.password_hash = "x"
    session.commit()
    assert user.password_hash == "x"
    user.password_hash = "x"
    session.commit()
    user.password_hash = "x"
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == [(-1, "insert"), (0, "update")]


def test_change_without_hidden_columns_does_not_mention_any(session: Session, user: User) -> None:
    user.email = "b@example.com"
    session.commit()
    assert "hidden_cols_changed" not in history_rows(session, "appuser_history")[-1]["change_info"]


def test_insert_notes_the_hidden_columns_that_it_sets(session: Session) -> None:
    session.add(User(id=1, email="a", password_hash="secret"))
    session.commit()
    (row,) = history_rows(session, "appuser_history")
    assert row["change_info"]["hidden_cols_changed"] == ["password_hash"]
    assert "secret" not in repr(row)


def test_delete_notes_the_hidden_columns_whose_values_it_takes_away(session: Session, user: User) -> None:
    user.token = "secret"
    session.commit()
    session.refresh(user)
    session.delete(user)
    session.commit()
    row = history_rows(session, "appuser_history")[-1]
    assert row["operation"] == "delete"
    assert row["change_info"]["hidden_cols_changed"] == ["token"]
    assert "secret" not in repr(row)


def test_hidden_and_untracked_attributes_cannot_be_read_from_history(session: Session, user: User) -> None:
    user.password_hash = "x"
    session.commit()
    (version,) = user.versions()
    with pytest.raises(HiddenAttributeError, match=r"User\.password_hash is hidden") as hidden:
        _ = version.password_hash
    assert (hidden.value.model, hidden.value.attribute) == ("User", "password_hash")
    assert not isinstance(hidden.value, UntrackedAttributeError)
    with pytest.raises(UntrackedAttributeError, match=r"User\.clicks is untracked"):
        _ = version.clicks
    with pytest.raises(AttributeError, match="nonsense"):
        _ = version.nonsense
    assert not hasattr(version, "password_hash")


def test_history_class_maps_neither_hidden_nor_untracked_columns(session: Session) -> None:
    mapped = {attribute for attribute in dir(history_model(User)) if not attribute.startswith("_")}
    assert mapped.isdisjoint({"password_hash", "token", "last_seen_at", "clicks"})
    assert mapped >= {"id", "email", "version", "operation", "changed", "valid_from", "change_info", "transaction_id"}


def test_hidden_column_that_every_update_sets_is_noted(open_database: Callable[..., Session]) -> None:
    database = VersionedSQLAlchemy()
    model = define(
        database,
        "Stamped",
        id=sa.Column(sa.Integer, primary_key=True),
        name=sa.Column(sa.String),
        seen=sa.Column(sa.String),
        stamp=sa.Column(sa.Integer, default=1, onupdate=2),
        __chrononaut_hidden__=["stamp"],
        __chrononaut_untracked__=["seen"],
    )
    session = open_database(database)
    record = model(id=1, name="a")
    session.add(record)
    session.commit()
    record.name = "b"
    session.commit()
    record.seen = "now"  # the stamp is set all the same
    session.commit()
    rows = history_rows(session, "stamped_history")
    assert changes(rows) == [(-1, "insert"), (0, "update"), (1, "update")]
    assert [row["change_info"]["hidden_cols_changed"] for row in rows] == [["stamp"]] * 3


def test_models_own_version_counter_is_a_column_that_every_update_sets(open_database: Callable[..., Session]) -> None:
    database = VersionedSQLAlchemy()
    counter = sa.Column(sa.Integer, nullable=False)
    model = define(
        database,
        "Counted",
        id=sa.Column(sa.Integer, primary_key=True),
        seen=sa.Column(sa.String),
        counter=counter,
        __mapper_args__={"version_id_col": counter},
        __chrononaut_untracked__=["seen"],
    )
    session = open_database(database)
    record = model(id=1)
    session.add(record)
    session.commit()
    record.seen = "now"
    session.commit()
    rows = history_rows(session, "counted_history")
    assert [(row["version"], row["counter"]) for row in rows] == [(-1, None), (0, 1)]


@pytest.mark.parametrize(("secret", "named"), [("s", None), ("t", ["secret"])])
def test_record_replaced_in_one_flush_names_the_hidden_columns_that_differ(
    session: Session, secret: str, named: list[str] | None
) -> None:
    session.add(Country(code="FR", name="a", secret="s"))
    session.commit()
    session.delete(session.get_one(Country, "FR"))
    session.add(Country(code="FR", name="b", secret=secret))
    session.commit()
    row = history_rows(session, "country_history")[-1]
    assert (row["operation"], row["change_info"].get("hidden_cols_changed")) == ("update", named)

"""Objects whose row is not in memory: expired, deferred, changed in place, changed by an expression."""

import json
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, load_only
from sqlalchemy.orm.attributes import flag_modified

from tests.library.conftest import Statements
from tests.library.models import Release, User
from tests.library.rows import changes, history_rows, live_rows

CREATED = [(-1, "insert")]
CHANGED = [(-1, "insert"), (0, "update")]


@pytest.fixture
def user(session: Session) -> User:
    user = User(id=1, email="a", name="Ada", logins=3, biography="long", settings={"theme": "dark", "size": 2})
    session.add(user)
    session.commit()
    assert not sa.inspect(user, raiseerr=True).dict.get("email"), "a commit expires"
    return user


def test_expired_attribute_set_to_another_value_is_recorded(session: Session, user: User) -> None:
    user.email = "b"
    session.commit()
    rows = history_rows(session, "appuser_history")
    assert changes(rows) == CHANGED
    assert (rows[-1]["email"], rows[-1]["name"], rows[-1]["biography"]) == ("a", "Ada", "long")


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("email", "a"), ("logins", 3), ("active", True), ("born", None), ("settings", {"theme": "dark", "size": 2})],
)
def test_expired_attribute_set_to_the_value_it_had_records_nothing(
    session: Session, user: User, attribute: str, value: object
) -> None:
    setattr(user, attribute, value)
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == CREATED
    assert (user.version, getattr(user, attribute)) == (0, value)


def test_expired_attributes_of_which_one_changes_give_one_row(session: Session, user: User) -> None:
    user.email = "a"
    user.name = None
    user.password_hash = None
    session.commit()
    rows = history_rows(session, "appuser_history")
    assert changes(rows) == CHANGED
    assert rows[-1]["name"] == "Ada"
    assert "hidden_cols_changed" not in rows[-1]["change_info"]
    assert live_rows(session, "appuser")[0]["name"] is None


def test_expired_attribute_set_from_null_and_to_null_is_recorded(session: Session, user: User) -> None:
    user.token = "x"
    session.commit()
    user.token = None
    session.commit()
    user.token = None
    session.commit()
    rows = history_rows(session, "appuser_history")
    assert changes(rows) == [*CHANGED, (1, "update")]
    assert [row["change_info"].get("hidden_cols_changed") for row in rows] == [None, ["token"], ["token"]]


def test_expired_attribute_of_a_composite_key_record_is_compared_in_its_own_row(session: Session) -> None:
    session.add_all([Release(product="p", cycle="1", label="x"), Release(product="p", cycle="2", label="y")])
    session.commit()
    first, second = session.get_one(Release, ("p", "1")), session.get_one(Release, ("p", "2"))
    session.expire_all()
    first.label, second.label = "y", "y"
    session.commit()
    assert changes(history_rows(session, "release_history", cycle="1")) == CHANGED
    assert changes(history_rows(session, "release_history", cycle="2")) == CREATED


def test_deferred_columns_are_archived_and_never_loaded(session: Session, user: User, statements: Statements) -> None:
    assert user.email == "a"
    statements.clear()
    user.email = "b"
    session.commit()
    assert not [
        statement for statement, _ in statements.executed if statement.startswith("SELECT") and "biography" in statement
    ]
    assert "biography" not in sa.inspect(user, raiseerr=True).dict
    assert history_rows(session, "appuser_history")[-1]["biography"] == "long"


def test_deferred_column_set_without_loading_it_is_recorded(session: Session, user: User) -> None:
    assert user.email == "a"
    user.biography = "long"
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == CREATED
    assert user.email == "a"
    user.biography = "longer"
    session.commit()
    rows = history_rows(session, "appuser_history")
    assert changes(rows) == CHANGED
    assert rows[-1]["biography"] == "long"


def test_object_loaded_without_its_version_is_recorded(session: Session, user: User) -> None:
    session.expunge_all()
    user = session.scalars(sa.select(User).options(load_only(User.email))).one()
    user.email = "b"
    session.commit()
    session.expunge_all()
    user = session.scalars(sa.select(User).options(load_only(User.email))).one()
    user.email = "c"
    session.commit()
    rows = history_rows(session, "appuser_history")
    assert changes(rows) == [*CHANGED, (1, "update")]
    assert [row["email"] for row in rows] == [None, "a", "b"]
    assert live_rows(session, "appuser")[0]["version"] == 2


def test_json_changed_in_place_is_recorded(session: Session, user: User) -> None:
    assert user.settings is not None
    user.settings["theme"] = "light"
    session.commit()
    user.settings["more"] = {"deep": [1, None]}
    session.commit()
    rows = history_rows(session, "appuser_history")
    assert changes(rows) == [*CHANGED, (1, "update")]
    assert [_json(row["settings"]) for row in rows[1:]] == [
        {"theme": "dark", "size": 2},
        {"theme": "light", "size": 2},
    ]


def test_json_changed_in_place_and_back_records_nothing(session: Session, user: User) -> None:
    assert user.settings is not None
    user.settings["size"] = 3
    user.settings["size"] = 2
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == CREATED
    assert user.settings == {"theme": "dark", "size": 2}


def test_attribute_flagged_as_modified_without_a_change_records_nothing(session: Session, user: User) -> None:
    assert user.settings is not None
    flag_modified(user, "settings")
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == CREATED


def test_json_set_to_null_and_from_null_is_recorded(session: Session, user: User) -> None:
    user.settings = None
    session.commit()
    user.settings = {}
    session.commit()
    rows = history_rows(session, "appuser_history")
    assert changes(rows) == [*CHANGED, (1, "update")]
    assert _json(rows[-1]["settings"]) is None


def test_expression_that_changes_a_column_is_recorded(session: Session, user: User) -> None:
    user.logins = User.logins + 1
    session.commit()
    assert user.logins == 4
    user.logins = User.logins + 1
    session.commit()
    assert user.logins == 5
    rows = history_rows(session, "appuser_history")
    assert changes(rows) == [*CHANGED, (1, "update")]
    assert [row["logins"] for row in rows] == [None, 3, 4]


def test_expression_that_leaves_a_column_as_it_was_records_nothing(session: Session, user: User) -> None:
    user.logins = User.logins + 0
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == CREATED
    assert (user.logins, user.version) == (3, 0)
    user.name = sa.func.coalesce(User.name, "nobody")
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == CREATED
    assert user.name == "Ada"


def test_expression_on_a_loaded_object_beside_a_plain_change_gives_one_row(session: Session, user: User) -> None:
    assert user.logins == 3
    user.logins = User.logins + 1
    user.name = "Grace"
    session.commit()
    rows = history_rows(session, "appuser_history")
    assert changes(rows) == CHANGED
    assert (user.logins, user.name, user.version) == (4, "Grace", 1)


def test_insert_with_an_expression_is_recorded(session: Session) -> None:
    user = User(id=sa.select(sa.literal(7)).scalar_subquery(), email="a", name=sa.func.upper("ada"))
    session.add(user)
    session.commit()
    assert changes(history_rows(session, "appuser_history")) == CREATED
    assert (user.id, user.name) == (7, "ADA")


def _json(value: Any) -> Any:
    """A JSON column's value, which SQLite gives as text."""
    return json.loads(value) if isinstance(value, str) else value

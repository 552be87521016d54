"""Erasing: the values of one record leave its history, and every row says that they did."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from chrononaut import (
    ChangeFilter,
    ChangeInfoError,
    ErasureError,
    MissingChangeInfoError,
    RestoreError,
    Retention,
    States,
    Timeline,
    VersionedSQLAlchemy,
    extra_change_info,
    rationale,
)
from chrononaut.purging import Purge
from chrononaut.transactions import snapshot
from chrononaut.types import JSONDocument
from chrononaut.verify import verify
from tests.library.models import Country, Release, User, db, define
from tests.library.rows import changes, history_rows, live_rows, state
from tests.library.staff import Staff

Open = Callable[..., Session]


@pytest.fixture
def user(session: Session) -> User:
    """At version 2; its email has had two values, its name two."""
    with rationale("Ada signed up"):
        user = User(id=1, email="ada@example.com", name="Ada", settings={"a": 1}, password_hash="p")
        session.add_all([user, User(id=2, email="bob@example.com")])
        session.commit()
    with extra_change_info(rationale="Ada married", ticket="Ada-1"):
        user.name = "Ada King"
        session.commit()
    with rationale("Ada moved"):
        user.email = "king@example.com"
        session.commit()
    return user


def clean(model: type, session: Session) -> bool:
    with snapshot(session.get_bind(sa.inspect(model)).engine) as connection:
        return not list(verify(connection, model))


def test_all_values_and_reasons_go_and_the_rest_stays(session: Session, user: User) -> None:
    before = history_rows(session, "appuser_history", id=1)
    with rationale("She asked us to"):
        erased = user.erase()
    session.commit()
    rows = history_rows(session, "appuser_history", id=1)
    columns = ["email", "name", "active", "logins", "born", "settings", "biography"]
    assert (erased.versions, erased.changes, [*erased.columns]) == (2, 3, columns)
    for row, was in zip(rows, before, strict=True):
        assert {value for name, value in state(row).items() if name != "id"} == {None}
        for name in ("id", "version", "operation", "changed", "transaction_id"):
            assert row[name] == was[name]
        mark = {"user_id": None, "columns": columns, "reasons": True, "extra": {"rationale": "She asked us to"}}
        (found,) = row["change_info"].pop("erased")
        assert found == erased.mark == {"at": found["at"], **mark}
        assert row["change_info"] == {name: value for name, value in was["change_info"].items() if name != "extra"}
        assert found["at"].endswith("Z")
        assert datetime.fromisoformat(found["at"]) == erased.at > was["changed"]
    assert live_rows(session, "appuser")[0]["email"] == "king@example.com"
    assert clean(User, session)


def test_other_records_keep_theirs(session: Session, user: User) -> None:
    before = history_rows(session, "appuser_history", id=2)
    user.erase()
    session.commit()
    assert history_rows(session, "appuser_history", id=2) == before


def test_chosen_columns_go_and_reasons_may_stay(session: Session, user: User) -> None:
    erased = user.erase(["email"], reasons=False)
    session.commit()
    assert (erased.columns, erased.reasons) == (("email",), False)
    first, second = user.versions()
    assert (first.email, first.name, first.erased) == (None, "Ada", ("email",))
    assert (second.email, second.name, second.erased) == (None, "Ada King", ("email",))
    assert [row["change_info"]["extra"]["rationale"] for row in history_rows(session, "appuser_history", id=1)] == [
        "Ada signed up",
        "Ada married",
        "Ada moved",
    ]


def test_reasons_may_go_alone(session: Session, user: User) -> None:
    user.erase([])
    session.commit()
    assert [(version.email, version.erased) for version in user.versions()] == [("ada@example.com", ())] * 2
    assert not any("extra" in row["change_info"] for row in history_rows(session, "appuser_history", id=1))


def test_each_erasure_leaves_its_mark(session: Session, user: User) -> None:
    with rationale("first"):
        user.timeline(1).erase(["email"], user_id="one@example.com")
    session.commit()
    with rationale("second"):
        user.erase(["name", "email"])
    session.commit()
    version = user.versions()[0]
    assert version.erased == ("email", "name")
    marks = version.change_info["erased"]
    assert [(mark["user_id"], mark["columns"], mark["extra"]) for mark in marks] == [
        ("one@example.com", ["email"], {"rationale": "first"}),
        (None, ["email", "name"], {"rationale": "second"}),
    ]
    assert clean(User, session)


def test_rollback_gives_everything_back(session: Session, user: User) -> None:
    before = history_rows(session, "appuser_history")
    loaded = user.versions()[0]
    user.erase()
    assert loaded.email is None
    session.rollback()
    assert history_rows(session, "appuser_history") == before
    assert loaded.email == "ada@example.com"
    nested = session.begin_nested()
    user.erase()
    nested.rollback()
    session.commit()
    assert history_rows(session, "appuser_history") == before


def test_what_is_pending_is_erased_too(session: Session, user: User) -> None:
    timeline = Timeline(session, User, (1,))
    user.email = "gone@example.com"
    assert timeline.erase().versions == 3
    session.commit()
    assert [version.email for version in user.versions()] == [None] * 3


def test_the_next_change_archives_what_the_live_record_still_has(session: Session, user: User) -> None:
    erased = user.erase()
    assert user.timeline(1).held(erased.columns) == ["email", "name", "active", "logins", "settings"]
    user.name = None
    session.commit()
    last = user.versions()[-1]
    assert (last.name, last.erased) == ("Ada King", ())


def test_erased_record_may_be_deleted_or_have_composite_key(session: Session) -> None:
    release = Release(product="p/,", cycle="1", label="secret")
    session.add(release)
    session.commit()
    session.delete(release)
    session.commit()
    timeline = Timeline(session, Release, ("p/,", "1"))
    assert timeline.erase().versions == 1
    session.commit()
    assert [row["codename"] for row in history_rows(session, "release_history")] == [None, None]
    assert changes(history_rows(session, "release_history")) == [(-1, "insert"), (0, "delete")]
    assert timeline.versions()[0].erased == ("label",)
    assert clean(Release, session)


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ("id", "by the key the record is found; delete_with_history"),
        ("password_hash", "history holds no value of it"),
        ("clicks", "history holds no value of it"),
        ("colour", "there is no such attribute; there are email, name,"),
    ],
)
def test_what_cannot_be_erased_is_refused(session: Session, user: User, column: str, problem: str) -> None:
    before = history_rows(session, "appuser_history")
    with pytest.raises(ErasureError, match=rf"User\.{column} cannot be erased: {problem}") as caught:
        user.erase(["email", column])
    assert caught.value.column == column
    assert history_rows(session, "appuser_history") == before


def test_text_is_no_list_of_columns(session: Session, user: User) -> None:
    with pytest.raises(ErasureError, match="must be a list of attribute names, not the text 'name'"):
        user.erase("name")


def test_nothing_to_erase_is_refused(session: Session, user: User) -> None:
    with pytest.raises(ErasureError, match="nothing is to be erased"):
        user.erase([], reasons=False)
    with pytest.raises(ErasureError, match="there never was a User 7"):
        User.timeline(7).erase()


def test_record_without_history_has_nothing_to_erase(session: Session) -> None:
    session.connection().execute(sa.text("INSERT INTO country (code, name) VALUES ('ES', 'from before')"))
    assert Timeline(session, Country, ("ES",)).erase().changes == 0


def test_reason_is_required_where_changes_require_one(app: Flask, session: Session, user: User) -> None:
    app.config["CHRONONAUT_REQUIRE_EXTRA_CHANGE_INFO"] = True
    with pytest.raises(MissingChangeInfoError, match="erasure of User"):
        user.erase()
    with rationale("She asked us to"):
        assert user.erase().extra == {"rationale": "She asked us to"}


def test_hidden_changes_stay_named(session: Session, user: User) -> None:
    user.password_hash = "q"
    session.commit()
    before = user.versions()[0]
    user.erase()
    session.commit()
    assert user.changes()[-1].hidden == ("password_hash",)
    assert user.diff(before, include_hidden=True) == {"password_hash": (None, "q")}


def test_only_what_was_there_is_counted(session: Session, user: User) -> None:
    user.name, user.born = None, None
    session.commit()
    erased = user.erase(["born"])
    assert (erased.versions, erased.changes, erased.rows) == (0, 3, 4)
    erased = user.erase(["name"], reasons=False)
    assert (erased.versions, erased.changes, erased.rows) == (3, 0, 4)


# Who is named by a value.


@pytest.fixture
def own_changes(session: Session, user: User, monkeypatch: pytest.MonkeyPatch) -> User:
    """The user has changed their own record, and another one, under an address that they had."""
    monkeypatch.setattr(User, "_fetch_current_user_id", lambda: "ada@example.com")
    user.logins = 5
    session.get_one(User, 2).logins = 5
    session.commit()
    monkeypatch.setattr(User, "_fetch_current_user_id", lambda: "admin@example.com")
    user.logins = 6
    session.commit()
    return user


def _users(session: Session, key: int) -> list[str | None]:
    return [row["change_info"]["user_id"] for row in history_rows(session, "appuser_history", id=key)]


def test_user_who_is_named_by_an_erased_value_is_forgotten(session: Session, own_changes: User) -> None:
    erased = own_changes.erase(["email"])
    session.commit()
    assert _users(session, 1) == [None] * 4 + ["admin@example.com"]
    assert _users(session, 2) == [None, "ada@example.com"]
    assert (erased.users, erased.mark["users"], erased.user_id) == (1, True, "admin@example.com")
    for row in history_rows(session, "appuser_history", id=1):
        assert row["change_info"]["erased"] == [erased.mark]
    assert clean(User, session)


def test_user_stays_where_the_value_does(session: Session, own_changes: User) -> None:
    erased = own_changes.erase(["name", "settings"])
    session.commit()
    assert _users(session, 1) == [None] * 3 + ["ada@example.com", "admin@example.com"]
    assert (erased.users, "users" in erased.mark) == (0, False)


# What is not known is not told as NULL.


def test_changes_tell_nothing_of_what_was_erased(session: Session, user: User) -> None:
    user.erase(["email"])
    session.commit()
    created, married, moved = user.changes()
    assert "email" not in created.differences
    assert created.differences["name"] == (None, "Ada")
    assert (married.differences, married.erased) == ({"name": ("Ada", "Ada King")}, ("email",))
    assert (moved.differences, moved.erased) == ({}, ("email",))
    assert created.erased == ("email",)
    (alone,) = User.feed(limit=1).changes
    assert (alone.version, alone.erased) == (1, ("email",))


def test_feed_of_a_column_lists_what_may_have_changed_it(session: Session, user: User) -> None:
    def listed(attribute: str) -> list[tuple[Any, int]]:
        return [(change.key[0], change.version) for change in User.feed(ChangeFilter(attribute=attribute)).changes]

    assert listed("email") == [(1, 1), (2, -1), (1, -1)]
    user.erase(["email"])
    session.commit()
    assert listed("email") == [(1, 1), (1, 0), (2, -1), (1, -1)]
    assert listed("name") == [(1, 0), (1, -1)]
    user.name = "new"
    session.commit()
    assert listed("email") == [(1, 1), (1, 0), (2, -1), (1, -1)]
    session.delete(user)
    session.commit()
    user.timeline(1).erase(["email"])
    session.commit()
    assert listed("email") == [(1, 3), (1, 2), (1, 1), (1, 0), (2, -1), (1, -1)]


def test_diff_leaves_out_what_was_erased(session: Session, user: User) -> None:
    user.erase(["email"])
    session.commit()
    first, second = user.versions()
    assert user.diff(first, second) == user.diff(first) == {"name": ("Ada", "Ada King")}


def test_nobody_is_blamed_for_what_is_not_known(session: Session, user: User) -> None:
    set_by = user.blame()
    user.erase(["email"])
    session.commit()
    blame = user.blame()
    assert blame["email"] is None
    assert blame["name"] is not None
    assert blame["name"].version == 0
    assert {name for name in blame if (blame[name] is None) != (set_by[name] is None)} == {"email"}
    user.email = "new@example.com"
    session.commit()
    user.name = "new"
    session.commit()
    email = user.blame()["email"]
    assert email is not None
    assert email.version == 2


def test_nobody_is_blamed_where_the_live_value_went_too(session: Session, user: User) -> None:
    user.name = None
    session.commit()
    assert user.blame()["name"] is not None
    user.erase(["name"])
    session.commit()
    assert user.blame()["name"] is None


def test_creation_is_blamed_where_there_was_no_other_state(session: Session) -> None:
    country = Country(code="FR", name="France")
    session.add(country)
    session.commit()
    country.erase()
    session.commit()
    created = country.blame()["name"]
    assert created is not None
    assert created.operation == "insert"


def test_what_was_erased_must_be_given_to_be_restored(session: Session, user: User) -> None:
    user.erase(["name"])
    session.commit()
    with pytest.raises(RestoreError, match=r"User\.name was erased from that version.*name=…") as caught:
        user.revert_to(0)
    assert caught.value.missing == ("name",)
    user.revert_to(0, name=None)
    session.commit()
    assert (user.name, user.email) == (None, "ada@example.com")
    session.delete(user)
    session.commit()
    with pytest.raises(RestoreError, match="was erased"):
        User.restore(1, 1)
    assert User.restore(1, 1, name="Ada").name == "Ada"


def test_values_without_objects_say_what_was_erased(session: Session, user: User) -> None:
    user.erase(["name"])
    session.commit()
    found = States(User).of(session, (1,)).version(0)
    assert found is not None
    assert (found.erased, found.values["name"], found.values["email"]) == (("name",), None, "ada@example.com")
    assert "name" not in found.known
    live = States(User).of(session, (1,)).live
    assert live is not None
    assert live.erased == ()


def test_past_reads_null(session: Session, user: User) -> None:
    at = user.versions()[0].changed
    user.erase(["name"])
    session.commit()
    assert [(one.id, one.name, one.erased) for one in session.scalars(User.as_of(at).order_by(User.id))] == [
        (1, None, ("name",)),
        (2, None, ()),
    ]
    assert session.scalars(User.as_of(at).where(User.name == "Ada")).all() == []


def test_attribute_called_erased_is_the_models_own(open_database: Open) -> None:
    database: Any = VersionedSQLAlchemy()
    page = define(database, "Page", id=sa.Column(sa.Integer, primary_key=True), erased=sa.Column(sa.String))
    session = open_database(database)
    one = page(id=1, erased="no")
    session.add(one)
    session.commit()
    one.erased = "yes"
    session.commit()
    assert one.versions()[0].erased == "no"
    one.erase()
    session.commit()
    assert one.versions()[0].erased is None
    assert one.changes()[-1].erased == ("erased",)


# Hierarchies, and what a model no longer has.


def test_all_tables_of_a_record_are_scrubbed(open_database: Open) -> None:
    staff = Staff()
    session = open_database(staff.db)
    director = staff.director(id=7, name="a", budget=1, car="x")
    clerk = staff.clerk(id=8, name="c", desk="left")
    session.add_all([director, clerk])
    session.commit()
    director.name, director.car, director.budget, clerk.desk = "b", "y", 2, "right"
    session.commit()
    # By the root, that knows nothing of the columns of the models below.
    erased = Timeline(session, staff.employee, (7,)).erase()
    session.commit()
    assert erased.columns == ("name", "desk", "budget", "car")
    assert [row["kind"] for row in history_rows(session, "employee_history", id=7)] == [None, "director"]
    for table, column in (("employee", "name"), ("manager", "budget")):
        assert {row[column] for row in history_rows(session, f"{table}_history", id=7)} == {None}
    assert {row["car"] for row in history_rows(session, "director_history", number=7)} == {None}
    version = Timeline(session, staff.director, (7,)).versions()[0]
    assert (version.car, version.erased) == (None, ("name", "budget", "car"))
    assert history_rows(session, "employee_history", id=8)[-1]["desk"] == "left"
    with pytest.raises(ErasureError, match="it tells of which model the record is"):
        director.erase(["kind"])
    assert clerk.timeline(8).erase(["desk"]).versions == 1
    session.commit()
    for model in (staff.employee, staff.manager, staff.director):
        assert clean(model, session)


def test_record_of_another_model_of_the_table_is_none(open_database: Open) -> None:
    staff = Staff()
    session = open_database(staff.db)
    session.add(staff.employee(id=1, name="a"))
    session.commit()
    with pytest.raises(ErasureError, match="there never was a Clerk 1"):
        Timeline(session, staff.clerk, (1,)).erase()


def test_dropped_columns_are_scrubbed(open_database: Open) -> None:
    database: Any = VersionedSQLAlchemy()
    page = define(
        database,
        "Page",
        __chrononaut_dropped__={"author": sa.Column("author", sa.String)},
        id=sa.Column(sa.Integer, primary_key=True),
        text=sa.Column(sa.JSON),
    )
    session = open_database(database)
    one = page(id=1, text={"by": "Ada"})
    session.add(one)
    session.commit()
    one.text = None
    session.commit()
    session.connection().execute(sa.text("UPDATE page_history SET author = 'Ada' WHERE version = 0"))
    session.commit()
    assert one.erase().columns == ("text", "author")
    session.commit()
    (row,) = history_rows(session, "page_history", version=0)
    assert (row["text"], row["author"]) == (None, None)
    assert one.versions()[0].erased == ("text", "author")
    assert clean(page, session)


def test_what_no_model_keeps_any_more_is_scrubbed_in_every_table(open_database: Open) -> None:
    staff = Staff()
    session = open_database(staff.db)
    session.add_all([staff.director(id=7, name="a", car="x"), staff.director(id=8, name="b", car="y")])
    session.commit()
    for table in ("employee_history", "director_history"):
        session.connection().execute(sa.text(f"ALTER TABLE {table} ADD COLUMN phone VARCHAR"))
        session.connection().execute(sa.text(f"UPDATE {table} SET phone = '4711'"))
    session.commit()
    assert Timeline(session, staff.employee, (7,)).erase().columns == ("name", "desk", "budget", "car", "phone")
    session.commit()
    for table in ("employee_history", "director_history"):
        assert {row["phone"] for row in history_rows(session, table)} == {None, "4711"}
    session.connection().execute(sa.text("UPDATE director_history SET phone = '4712'"))
    session.commit()
    with snapshot(staff.db.engine) as connection:
        found = [str(one) for model in (staff.employee, staff.director) for one in verify(connection, model)]
    assert found == ["Director 7 version -1: director_history has a value of phone, which was erased"]
    with pytest.raises(ErasureError, match=r"there is no such attribute; there are .*, phone"):
        Timeline(session, staff.employee, (7,)).erase(["fax"])


# What holds a record.


def test_what_holds_a_record_stays(open_database: Open) -> None:
    database: Any = VersionedSQLAlchemy()
    retention = Retention(versions=0, held="hold")
    columns = {name: sa.Column(name, sa.String) for name in ("text", "hold", "case")}
    page = define(
        database, "Page", id=sa.Column(sa.Integer, primary_key=True), __chrononaut_retention__=retention, **columns
    )
    session = open_database(database)
    one = page(id=1, text="secret", hold="Case 7", case="7")
    session.add(one)
    session.commit()
    session.delete(one)
    session.commit()
    for name, kept in (("hold", ()), ("case", ["case"])):
        with pytest.raises(ErasureError, match=f"Page.{name} cannot be erased: by it the record is held from purges"):
            Timeline(session, page, (1,)).erase([name], held_by=kept)
    assert Timeline(session, page, (1,)).erase(held_by=["case"]).columns == ("text",)
    session.commit()
    assert [part.doomed for part in Purge(page, retention).run(database.engine)] == [[]]
    assert [(row["text"], row["hold"]) for row in history_rows(session, "page_history")] == [
        (None, None),
        (None, "Case 7"),
    ]
    assert clean(page, session)


# Purged history has nothing to erase, and says what was erased all the same.


def test_cut_gets_the_mark_too(session: Session, user: User) -> None:
    plan = Purge(User, Retention(versions=1), extra={"rationale": "a policy"})
    assert sum(one.versions for part in plan.run(db.engine) for one in part.doomed) == 1
    before = history_rows(session, "appuser_history", id=1)
    assert changes(before) == [(0, "purge"), (1, "update")]
    session.commit()
    with rationale("She asked us to"):
        first, second = user.erase(), user.erase(["email"])
    session.commit()
    assert (first.versions, first.changes, first.rows) == (1, 1, 2)
    assert (second.versions, second.changes, second.rows) == (0, 0, 2)
    cut, row = history_rows(session, "appuser_history", id=1)
    marks = [first.mark, second.mark]
    assert cut == before[0] | {"change_info": before[0]["change_info"] | {"erased": marks}}
    assert row["change_info"]["erased"] == marks
    assert [change.erased for change in user.changes()] == [(), user.versions()[0].erased]
    assert clean(User, session)


def test_record_of_which_all_was_purged_gets_the_mark(session: Session, user: User) -> None:
    session.delete(user)
    session.commit()
    list(Purge(User, Retention(versions=0)).run(db.engine))
    erased = User.timeline(1).erase()
    session.commit()
    (cut,) = history_rows(session, "appuser_history", id=1)
    assert (cut["operation"], cut["change_info"]["erased"]) == ("purge", [erased.mark])
    assert (erased.versions, erased.changes, erased.rows) == (0, 0, 1)
    assert [cut.operation for cut in User.timeline(1).cuts()] == ["delete"]
    assert clean(User, session)


def test_who_erases_is_a_text(user: User) -> None:
    with pytest.raises(ChangeInfoError, match="user_id"):
        user.timeline(1).erase(user_id=5)  # type: ignore[arg-type]


def test_erased_versions_are_purged_as_others(session: Session, user: User) -> None:
    mark = user.erase().mark
    session.commit()
    list(Purge(User, Retention(versions=0)).run(db.engine))
    (cut,) = history_rows(session, "appuser_history", id=1)
    assert cut["operation"] == "purge"
    assert cut["change_info"]["erased"] == [mark]
    assert {change.operation for change in user.blame().values() if change} == {"purge"}
    assert clean(User, session)


# verify


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ("email = 'ada@example.com'", "version 0: appuser_history has a value of email, which was erased"),
        ("change_info = {extra}", "version 0: it has reasons, which were erased"),
        ("name = 'Ada'", None),
    ],
)
def test_verify_finds_what_should_be_gone(session: Session, user: User, damage: str, finding: str | None) -> None:
    user.erase(["email"])
    session.commit()
    extra = {
        "sqlite": """json_set(change_info, '$.extra', json('{"a" : "b"}'))""",
        "postgresql": """change_info || '{"extra" \\: {"a" \\: "b"}}'""",
    }[db.engine.dialect.name]
    statement = f"UPDATE appuser_history SET {damage.format(extra=extra)} WHERE id = 1 AND version = 0"
    session.connection().execute(sa.text(statement.replace("' : '", "' \\: '")))
    session.commit()
    with snapshot(db.engine) as connection:
        assert [str(one) for one in verify(connection, User)] == ([f"User 1 {finding}"] if finding else [])


def test_marks_are_read_only_where_they_are(session: Session, user: User) -> None:
    assert [version.erased for version in user.versions()] == [(), ()]
    assert {change.erased for change in user.changes()} == {()}


@pytest.mark.parametrize(
    "own", ["no", ["email"], [{"by": "us"}], [{"at": 1, "columns": 5, "reasons": True}], {"by": "us"}, None]
)
def test_what_an_application_kept_under_our_key_before_is_no_mark(session: Session, user: User, own: Any) -> None:
    info = {"user_id": None, "remote_addr": None, "extra": {"a": "b"}, "erased": own}
    update = sa.text("UPDATE appuser_history SET change_info = :info WHERE id = 1")
    session.connection().execute(update.bindparams(sa.bindparam("info", info, JSONDocument)))
    session.commit()
    assert {change.erased for change in user.changes()} == {()}
    assert [version.erased for version in user.versions()] == [(), ()]
    assert len(User.feed(ChangeFilter(attribute="email")).changes) == 3
    assert clean(User, session)
    mark = user.erase(["email"]).mark
    session.commit()
    for version in user.versions():
        assert version.erased == ("email",)
        assert version.change_info["erased"][-1] == mark
    assert clean(User, session)

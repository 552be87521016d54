"""``flask history erase``: says what would go, asks, and does it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask, current_app
from sqlalchemy.orm import Session

from chrononaut import VersionedSQLAlchemy, extra_change_info, rationale
from tests.library.conftest import recorded
from tests.library.models import Release, User, db, define
from tests.library.rows import history_rows
from tests.library.staff import Staff

_WHY = ("--rationale", "Request 1")


def run(app: Flask, *arguments: str, answer: str | None = None) -> Any:
    command = ["history", "erase", *arguments]
    return app.test_cli_runner().invoke(args=command, input=answer, catch_exceptions=False)


@pytest.fixture
def lives(session: Session) -> Session:
    """A user that lives, and a release that was deleted; each with a version."""
    with rationale("Ada signed up"):
        user, release = User(id=1, email="ada@example.com", name="Ada"), Release(product="p,q", cycle="1", label="x")
        session.add_all([user, release])
        session.commit()
        user.name = None
        session.delete(release)
        session.commit()
    return session


def _rows(session: Session) -> list[Any]:
    session.rollback()
    return [history_rows(session, f"{table}_history") for table in ("appuser", "release")]


def test_what_goes_is_told_and_done(app: Flask, lives: Session) -> None:
    result = run(app, "User", "1", *_WHY, "--yes", "--user", "admin@example.com")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "User 1: email, name, active, logins, born, settings, biography of 1 version; the reasons of 2 changes",
        "User 1: erased; 2 history rows say so",
    ]
    assert result.stderr.splitlines() == [
        "the live record still has email, active, logins: change it too, or its next change archives them again",
    ]
    rows, releases = _rows(lives)
    assert [row["email"] for row in rows] == [None, None]
    (mark,) = rows[0]["change_info"]["erased"]
    assert (mark["user_id"], mark["extra"]) == ("admin@example.com", {"rationale": "Request 1"})
    assert releases[1]["codename"] == "x"


def test_key_of_two_parts_is_written_as_in_addresses(app: Flask, lives: Session) -> None:
    result = run(app, "Release", "p~2q,1", "--column", "label", "--keep-reasons", *_WHY, "--yes")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0] == "Release p~2q,1: label of 1 version"
    row = _rows(lives)[1][1]
    assert row["codename"] is None
    assert row["change_info"]["extra"] == {"rationale": "Ada signed up"}


@pytest.mark.parametrize(("arguments", "answer", "status"), [(("--dry-run",), None, 0), ((), "n\n", 1), ((), "", 1)])
def test_nothing_goes_where_it_is_not_wanted(
    app: Flask, lives: Session, arguments: tuple[str, ...], answer: str | None, status: int
) -> None:
    before = _rows(lives)
    result = run(app, "User", "1", *_WHY, *arguments, answer=answer)
    assert result.exit_code == status
    assert result.stdout.startswith("User 1: email, name,")
    assert "erased;" not in result.stdout
    assert _rows(lives) == before


def test_what_is_wanted_anyway_is_done_once(app: Flask, lives: Session) -> None:
    with recorded(db.engine) as statements:
        assert run(app, "User", "1", *_WHY, "--yes").exit_code == 0
    # One takes the values, one the user, one leaves the mark.
    assert len(statements.matching("UPDATE appuser_history")) == 3


def test_it_is_done_when_the_answer_is_yes(app: Flask, lives: Session) -> None:
    assert run(app, "User", "1", *_WHY, answer="y\n").exit_code == 0
    assert _rows(lives)[0][1]["email"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("User", "x"), "'x' is no key of User: a key is {id}"),
        (("Release", "p"), "'p' is no key of Release: a key is {product},{cycle}"),
        (("User", "7"), "there never was a User 7"),
        (("User", "1", "--column", "id"), "User.id cannot be erased: by the key the record is found"),
        (("User", "1", "--column", "token"), "User.token cannot be erased: history holds no value of it"),
        (("Nobody", "1"), "no such model: Nobody"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    app: Flask, lives: Session, arguments: tuple[str, ...], said: str
) -> None:
    before = _rows(lives)
    result = run(app, *arguments, *_WHY, "--yes")
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert _rows(lives) == before


def test_column_that_holds_records_by_the_setting_stays(app: Flask, lives: Session) -> None:
    app.config["CHRONONAUT_RETENTION"] = {"Release": {"versions": 0, "held": "label"}}
    refused = run(app, "Release", "p~2q,1", "--column", "label", *_WHY, "--yes")
    assert (refused.exit_code, "by it the record is held from purges" in refused.stderr) == (2, True)
    assert run(app, "Release", "p~2q,1", *_WHY, "--yes").exit_code == 0
    assert _rows(lives)[1][1]["codename"] == "x"
    app.config["CHRONONAUT_RETENTION"] = "{"
    refused = run(app, "Release", "p~2q,1", *_WHY, "--yes")
    assert (refused.exit_code, "CHRONONAUT_RETENTION is no JSON" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    "why", [(), ("--rationale", " "), (*_WHY, "--extra", "ticket"), (*_WHY, "--extra", "ticket= ")]
)
def test_reason_is_needed(app: Flask, lives: Session, why: tuple[str, ...]) -> None:
    result = run(app, "User", "1", *why, "--yes")
    assert result.exit_code == 2
    assert (why[-2] if why else "--rationale") in result.stderr
    assert _rows(lives)[0][1]["email"] == "ada@example.com"


def test_reasons_that_a_model_requires_are_given(open_database: Callable[..., Session]) -> None:
    database: Any = VersionedSQLAlchemy()
    note = define(
        database, "Note", __chrononaut_required__={"ticket": "T-[0-9]+"}, id=sa.Column(sa.Integer, primary_key=True)
    )
    session = open_database(database)
    with extra_change_info(ticket="T-1"):
        session.add(note(id=1))
        session.commit()
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # of werkzeug's proxy
    for given in ((), ("--extra", "ticket=1")):
        result = run(app, "Note", "1", *_WHY, *given, "--yes")
        assert result.exit_code == 2
        assert "Note requires further reasons: --extra ticket=…, which must match T-[0-9]+" in result.stderr
    assert run(app, "Note", "1", *_WHY, "--extra", "ticket=T-2", "--extra", "by=a=b", "--yes").exit_code == 0
    (mark,) = history_rows(session, "note_history")[0]["change_info"]["erased"]
    assert mark["extra"] == {"rationale": "Request 1", "ticket": "T-2", "by": "a=b"}


def test_tables_that_are_not_there_are_told_in_a_line(app: Flask, lives: Session) -> None:
    lives.execute(sa.text("DROP TABLE release_history"))
    lives.commit()
    result = run(app, "Release", "p,1", *_WHY, "--yes")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "Release p,1 could not be erased: " in result.stderr


def test_what_no_model_has_any_more_goes_too(app: Flask, lives: Session) -> None:
    for column in ("phone", "password_hash"):
        lives.execute(sa.text(f"ALTER TABLE appuser_history ADD COLUMN {column} VARCHAR"))
        lives.execute(sa.text(f"UPDATE appuser_history SET {column} = 'secret' WHERE version = 0"))
    lives.commit()
    result = run(app, "User", "1", "--column", "password_hash", *_WHY, "--yes")
    assert (result.exit_code, result.stderr) == (0, "")
    assert [(row["phone"], row["password_hash"]) for row in _rows(lives)[0]] == [(None, None), ("secret", None)]
    result = run(app, "User", "1", *_WHY, "--yes")
    assert "biography, phone, password_hash of 1 version" in result.stdout
    assert [row["phone"] for row in _rows(lives)[0]] == [None, None]


def test_what_takes_no_null_is_told(app: Flask, lives: Session) -> None:
    lives.execute(sa.text("ALTER TABLE appuser_history ADD COLUMN phone VARCHAR DEFAULT '' NOT NULL"))
    lives.commit()
    result = run(app, "User", "1", *_WHY, "--yes")
    assert result.exit_code == 2
    assert "User.phone cannot be erased: appuser_history.phone takes no NULL" in result.stderr
    assert _rows(lives)[0][1]["email"] == "ada@example.com"
    assert run(app, "User", "1", *_WHY, "--yes", "--column", "email").exit_code == 0


def test_record_is_erased_under_the_name_of_any_of_its_models(open_database: Callable[..., Session]) -> None:
    staff = Staff()
    session = open_database(staff.db)
    director = staff.director(id=7, name="a", car="x")
    session.add(director)
    session.commit()
    director.car = None
    session.commit()
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # of werkzeug's proxy
    assert run(app, "Employee", "7", *_WHY, "--yes").exit_code == 0
    session.rollback()
    assert [row["car"] for row in history_rows(session, "director_history")] == [None, None]


def test_key_that_has_no_text_is_refused(open_database: Callable[..., Session]) -> None:
    database: Any = VersionedSQLAlchemy()
    define(database, "Price", amount=sa.Column(sa.Float, primary_key=True))
    open_database(database)
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # of werkzeug's proxy
    result = run(app, "Price", "1.5", *_WHY)
    assert result.exit_code == 2
    assert "price.amount is a FLOAT; a key as text can be text, integer, UUID or date" in result.stderr


def test_marks_are_json_that_any_program_reads(app: Flask, lives: Session) -> None:
    run(app, "User", "1", *_WHY, "--yes")
    lives.rollback()
    (info,) = lives.connection().execute(sa.text("SELECT change_info FROM appuser_history WHERE version = 0")).one()
    read = json.loads(info) if isinstance(info, str) else info
    assert read["erased"][0]["reasons"] is True

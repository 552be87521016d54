"""An archive of files goes on while its source is purged and erased, and what was taken away stays away."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from chrononaut import HistoryFileError, Imported, Retention, VersionedSQLAlchemy
from chrononaut.history import versioning_of
from chrononaut.purging import Purge
from chrononaut.transfer.files import GivenRow
from chrononaut.transfer.writing import Writer
from tests.library.models import Country, db, define
from tests.library.transferring import bound, differences, documents, exported, file_of, imported

on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)


@pytest.fixture
def country(session: Session) -> Country:
    """At version 5, with six history rows."""
    country = Country(code="FR", name="0")
    session.add(country)
    session.commit()
    change(country, 5)
    return country


def change(country: Country, times: int) -> None:
    for _ in range(times):
        country.name = f"{int(country.name or 0) + 1}"
        db.session.commit()


def purge(versions: int) -> None:
    db.session.rollback()
    for _ in Purge(Country, Retention(versions=versions)).run(db.engine):
        pass


def last_instant(file: bytes) -> datetime:
    return datetime.fromisoformat(max(line["changed"] for line in documents(file)[1:-1] if line["operation"]))


def in_history(file: bytes) -> list[tuple[int, str | None, Any]]:
    """Version, operation and name of each row."""
    return [
        (line["version"], line["operation"], line["state"] and line["state"]["name"]) for line in documents(file)[1:-1]
    ]


@pytest.mark.parametrize("batch", [1, 1000])
def test_what_was_purged_does_not_come_back_by_an_older_file(batch: int, country: Country) -> None:
    change(country, 15)
    older = exported(db.engine, Country)
    purge(2)
    before = exported(db.engine, Country)
    with pytest.raises(HistoryFileError, match="line 2, version: -1 was purged from the history that is there"):
        imported(db.engine, Country, older, batch=batch)
    assert exported(db.engine, Country) == before
    assert differences(db.engine, Country) == []


def test_archive_goes_on_from_what_its_source_has_purged(country: Country, other_database_url: str) -> None:
    files = [exported(db.engine, Country)]
    for _ in range(2):
        change(country, 4)
        purge(2)
        files.append(exported(db.engine, Country, since=last_instant(files[0] if len(files) == 1 else files[1])))
    with bound(db, other_database_url) as engine:
        for file in files:
            assert imported(engine, Country, file).skipped == 0
        assert imported(engine, Country, files[-1]).rows == 0
        assert differences(engine, Country) == []
        assert in_history(exported(engine, Country)) == [
            *[(-1, "insert", None), *((number, "update", f"{number}") for number in range(5))],
            *[(6, "purge", None), (7, "update", "7"), (8, "update", "8")],
            *[(10, "purge", None), (11, "update", "11"), (12, "update", "12"), (13, None, "13")],
        ]


def test_archive_goes_on_from_what_its_source_has_erased(country: Country, other_database_url: str) -> None:
    first = exported(db.engine, Country)
    change(country, 1)
    country.erase(["name"])
    db.session.commit()
    second = exported(db.engine, Country, since=last_instant(first))
    with bound(db, other_database_url) as engine:
        imported(engine, Country, first)
        assert imported(engine, Country, second) == Imported(2, 0)
        assert differences(engine, Country) == []
        assert in_history(exported(engine, Country))[-3:] == [(4, "update", "4"), (5, "update", None), (6, None, "6")]


def test_archive_gets_records_that_were_made_and_purged_since(country: Country, other_database_url: str) -> None:
    deleted, gone = Country(code="DE", name="0"), Country(code="IT", name="0")
    db.session.add(deleted)
    db.session.commit()
    db.session.delete(deleted)
    db.session.commit()
    files = [exported(db.engine, Country)]
    again, new = Country(code="DE", name="0"), Country(code="ES", name="0")
    db.session.add_all([again, new, gone])
    db.session.commit()
    for one in (again, new):
        change(one, 4)
    db.session.delete(gone)
    db.session.commit()
    purge(1)
    files.append(exported(db.engine, Country, since=last_instant(files[0])))
    with bound(db, other_database_url) as engine:
        for file in files:
            imported(engine, Country, file)
        assert imported(engine, Country, files[-1]).rows == 0
        assert differences(engine, Country) == []
        assert (0, "delete", "0") in in_history(exported(engine, Country))


def test_archive_that_holds_all_but_the_live_state_of_a_cut_takes_a_file_twice(
    country: Country, other_database_url: str
) -> None:
    first = exported(db.engine, Country)
    change(country, 1)
    purge(0)
    second = exported(db.engine, Country, since=last_instant(first))
    with bound(db, other_database_url) as engine:
        imported(engine, Country, first)
        assert imported(engine, Country, second).rows == 2
        assert imported(engine, Country, second) == Imported(0, 2)
        assert differences(engine, Country) == []


STEPS = st.tuples(
    st.sampled_from(["change", "change", "change", "delete", "purge", "erase"]),
    st.sampled_from(["FR", "IT"]),
    st.integers(0, 4),
)


def test_archive_follows_its_source_whatever_happens_there(session: Session, other_database_url: str) -> None:
    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.lists(STEPS, min_size=2, max_size=4), min_size=2, max_size=4))
    def follow(months: list[list[tuple[str, str, int]]]) -> None:
        _empty(db.engine)
        files: list[bytes] = []
        since = None
        for steps in months:
            for step in steps:
                _take(*step)
            until = datetime.now(UTC)
            files.append(exported(db.engine, Country, since=since))
            since = until
        live = _live(exported(db.engine, Country))
        with bound(db, other_database_url) as engine:
            _empty(engine)
            for file in files:
                imported(engine, Country, file)
                assert imported(engine, Country, file, batch=1).rows == 0
                assert differences(engine, Country) == []
            assert _live(exported(engine, Country)) == live

    follow()


def _take(what: str, code: str, number: int) -> None:
    country = db.session.get(Country, code)
    if what == "purge":
        purge(number % 2)
    elif what == "erase" and Country.timeline(code).exists():
        Country.timeline(code).erase(["name"])
    elif what == "delete" and country is not None:
        db.session.delete(country)
    elif what == "change":
        if country is None:
            country = Country(code=code, name="0")
            db.session.add(country)
            db.session.commit()
        change(country, number + 1)
    db.session.commit()


def _empty(engine: sa.Engine) -> None:
    db.session.remove()
    with engine.begin() as connection:
        for table in (versioning_of(Country).table, versioning_of(Country).history_table):
            connection.execute(sa.delete(table))


def _live(file: bytes) -> list[Any]:
    return [line for line in documents(file)[1:-1] if line["operation"] is None]


MARK = {"at": "2026-03-01T09:00:00.000000Z", "user_id": None, "columns": ["name"], "reasons": True}


@on_sqlite
@pytest.mark.parametrize(
    ("info", "told"),
    [
        ({"erased": [MARK]}, "line 4, name: has a value, which was erased as the row's change_info says"),
        (
            {"erased": [{**MARK, "columns": []}], "extra": {"a": "b"}},
            "line 4, change_info: has reasons (extra), which were erased as it says",
        ),
        ({"hidden_cols_changed": 4}, "line 4, change_info: hidden_cols_changed must be a list of names"),
        ({"extra": 7}, "line 4, change_info: extra must be a JSON object"),
        ({"user_id": 7}, "line 4, change_info: user_id must be a text or null"),
    ],
)
def test_change_info_of_a_wrong_form_is_refused(info: Any, told: str, country: Country) -> None:
    lines = documents(exported(db.engine, Country))[:-1]
    lines[3]["change_info"] = info
    with pytest.raises(HistoryFileError) as refused:
        imported(db.engine, Country, file_of(lines))
    (problem,) = refused.value.problems
    assert str(problem).startswith(told)


@on_sqlite
@pytest.mark.parametrize(
    ("purged", "told"),
    [
        ({"user_id": 7}, "purged: user_id must be a text or null"),
        ({"extra": 7}, "purged: extra must be a JSON object"),
        ({}, "purged: user_id is missing"),
    ],
)
def test_cut_that_does_not_tell_who_and_why_is_refused(purged: Any, told: str, country: Country) -> None:
    lines = documents(exported(db.engine, Country))[:-1]
    lines[3] |= {"operation": "purge", "state": None, "change_info": {"purged": purged}}
    with pytest.raises(HistoryFileError) as refused:
        imported(db.engine, Country, file_of(lines))
    assert f"line 4, change_info: {told}" in str(refused.value)


def test_what_an_application_has_told_under_our_names_comes_along(country: Country, other_database_url: str) -> None:
    lines = documents(exported(db.engine, Country))[:-1]
    lines[3]["change_info"] = {"erased": "x", "purged": 7}
    with bound(db, other_database_url) as engine:
        imported(engine, Country, file_of(lines))
        assert documents(exported(engine, Country))[3] == lines[3]
        assert differences(engine, Country) == []


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_two_imports_of_one_file_at_once(
    country: Country, other_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = exported(db.engine, Country)
    insert = Writer.insert_history

    def after_another(writer: Writer, rows: Sequence[GivenRow]) -> None:
        monkeypatch.setattr(Writer, "insert_history", insert)
        assert imported(writer.connection.engine, Country, file) == Imported(7, 0)
        writer.insert_history(rows)

    with bound(db, other_database_url) as engine:
        monkeypatch.setattr(Writer, "insert_history", after_another)
        assert imported(engine, Country, file) == Imported(0, 7)
        assert exported(engine, Country) == file


def test_hidden_column_that_must_have_a_value_is_asked_for(database_url: str, other_database_url: str) -> None:
    database = VersionedSQLAlchemy()
    account = define(
        database,
        "Account",
        __tablename__="account",
        __chrononaut_hidden__=["secret"],
        id=sa.Column(sa.Integer, primary_key=True),
        secret=sa.Column(sa.String, nullable=False),
    )
    with bound(database, database_url) as engine:
        database.session.add(account(id=1, secret="x"))
        database.session.commit()
        file = exported(engine, account)
    with bound(database, other_database_url) as engine:
        with pytest.raises(HistoryFileError, match=r"line 3, secret: must have a value, which no export has: --set"):
            imported(engine, account, file)
        assert imported(engine, account, file, values={"secret": "y"}) == Imported(2, 0)

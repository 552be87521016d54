"""``flask history export`` and ``import``: files that are complete or not there, and imports that are run again."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result
from flask import Flask
from sqlalchemy.orm import Session

from chrononaut import History, Timeline, VersionedSQLAlchemy, history_model
from tests.library.conftest import opened
from tests.library.large import Person, fill
from tests.library.large import db as large_db
from tests.library.models import Country, Release, User, db, define
from tests.library.test_transfer_memory import ROOT
from tests.library.transferring import differences, documents, exported


@pytest.fixture
def invoke(app: Flask) -> Callable[..., Result]:
    """Run one of the commands."""

    def invoke(*arguments: str, status: int = 0, **options: Any) -> Result:
        result = app.test_cli_runner().invoke(args=["history", *arguments], **options)
        assert result.exit_code == status, result.output
        return result

    return invoke


@pytest.fixture
def countries(session: Session) -> None:
    """FR at version 1, DE deleted."""
    session.add_all([Country(code=code, name="first") for code in ("FR", "DE")])
    session.commit()
    for code in ("FR", "DE"):
        session.get_one(Country, code).name = "second"
    session.commit()
    session.delete(session.get_one(Country, "DE"))
    session.commit()


def emptied() -> None:
    db.session.rollback()
    db.drop_all()
    db.create_all()


def rows(model: type) -> list[tuple[int, str]]:
    """Version and operation of each history row."""
    history: Any = history_model(model)
    found = db.session.scalars(sa.select(history).order_by(*sa.inspect(history).primary_key))
    return [(row.version, row.operation) for row in found]


def test_file_goes_out_and_comes_in(countries: None, invoke: Callable[..., Result], tmp_path: Path) -> None:
    whole = exported(db.engine, Country)
    for name in ("a.ndjson", "a.csv", "a.ndjson.gz", "a.csv.gz"):
        file = tmp_path / name
        assert invoke("export", "Country", "-o", str(file)).stderr == "Country: 6 rows written\n"
        assert [path.name for path in tmp_path.iterdir() if path.suffix != ".db"] == [name]
        emptied()
        assert invoke("import", "Country", str(file)).stderr == "Country: 6 rows written\n"
        again = invoke("import", "Country", str(file))
        assert again.stderr == "Country: 0 rows written, 6 skipped that were there already\n"
        assert again.stdout == ""
        assert exported(db.engine, Country) == whole
        file.unlink()


def test_export_goes_to_standard_output_and_import_takes_standard_input(
    countries: None, invoke: Callable[..., Result]
) -> None:
    whole = exported(db.engine, Country)
    assert invoke("export", "Country").stdout_bytes == whole
    assert invoke("export", "Country", "-o", "-", "--format", "csv").stdout_bytes == exported(
        db.engine, Country, format="csv"
    )
    emptied()
    invoke("import", "Country", "-", input=whole)
    assert exported(db.engine, Country) == whole


def test_part_of_a_history(session: Session, countries: None, invoke: Callable[..., Result]) -> None:
    session.add_all([Release(product="a,b", cycle="1"), User(id=7, email="a"), User(id=8, email="b")])
    session.commit()
    assert invoke("export", "Release", "--key", "a~2b,1").stdout.count("\n") == 4
    assert [line["key"] for line in documents(invoke("export", "User", "--key", "7").stdout_bytes)[1:-1]] == [
        {"id": 7}
    ] * 2
    at = documents(invoke("export", "Country", "--key", "FR").stdout_bytes)[2]["changed"]
    assert documents(invoke("export", "Country", "--since", at).stdout_bytes)[-1] == {"rows": 1}
    assert documents(invoke("export", "Country", "--until", at).stdout_bytes)[-1] == {"rows": 4}
    assert json.loads(invoke("export", "Country", "--since", at).stdout.partition("\n")[0])["part"] == {"since": at}


def test_file_that_cannot_be_completed_leaves_what_was_there(
    countries: None, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    file = tmp_path / "kept.ndjson"
    file.write_text("kept")
    db.session.execute(sa.text("ALTER TABLE country RENAME TO elsewhere"))
    db.session.commit()
    result = invoke("export", "Country", "-o", str(file), status=2)
    assert "Country could not be exported: " in result.stderr
    assert file.read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".db"] == ["kept.ndjson"]


def test_export_goes_through_what_is_no_plain_file(
    countries: None, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    whole = exported(db.engine, Country)
    pipe, link, aim = tmp_path / "pipe", tmp_path / "link.ndjson", tmp_path / "aim.ndjson"
    os.mkfifo(pipe)
    # A reader and a writer, so that nobody waits for the other.
    end = os.open(pipe, os.O_RDWR)
    invoke("export", "Country", "-o", str(pipe))
    assert os.read(end, 65_536) == whole
    os.close(end)
    assert pipe.is_fifo()
    aim.write_text("old")
    link.symlink_to(aim.name)
    invoke("export", "Country", "-o", str(link))
    assert link.is_symlink()
    assert aim.read_bytes() == whole


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_export_that_is_asked_to_end_leaves_nothing(
    countries: None, invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Iterator[str]:
        yield "line"
        signal.raise_signal(signal.SIGTERM)
        yield "line"

    monkeypatch.setattr("chrononaut.commands.transferring.export_history", interrupted)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        invoke("export", "Country", "-o", str(tmp_path / "a.ndjson"), status=128 + signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [path for path in tmp_path.iterdir() if "ndjson" in path.name] == []


def test_wrong_lines_are_told(countries: None, invoke: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "wrong.ndjson"
    lines = exported(db.engine, Country).splitlines()
    lines[2] = lines[2].replace(b'"version": 0', b'"version": 5')
    file.write_bytes(b"\n".join(lines) + b"\n")
    emptied()
    result = invoke("import", "Country", str(file), status=1)
    assert result.stderr.splitlines() == [
        "line 4, version: is lower than that of the row before it",
        "Country: the batch of line 4 was not written, nor what comes after it",
    ]
    assert rows(Country) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["export", "Nothing"], "no such model: Nothing"),
        (["export", "Release", "--key", "a"], "a key is {product},{cycle}"),
        (["export", "User", "--key", "x"], "the key (id) does not fit"),
        (["export", "User", "--since", "yesterday"], "is no instant"),
        (["export", "User", "--since", "0001-01-01T00:00:00+14:00"], "is no instant"),
        (["export", "User", "--since", "2026-03-02", "--until", "2026-03-01"], "a period must end after it begins"),
        (
            ["export", "User", "-o", "no/such/folder"],
            "could not be exported: [Errno 2] No such file or directory: 'no/such/folder'",
        ),
        (["import", "User", "no-such-file"], "could not be imported: [Errno 2]"),
        (["import", "User", "cut.ndjson.gz"], "could not be imported: Compressed file ended"),
        (["import", "User", "plain.ndjson.gz"], "could not be imported: Not a gzipped file"),
        (["import", "User", "ours.ndjson", "--column", "at=when"], "--column is for changes from another system"),
        (["import", "User", "ours.ndjson", "--set", "email=x"], "email is neither hidden nor untracked"),
        (["import", "User", "ours.ndjson", "--set", "clicks=x"], "clicks must be an integer"),
        (["import", "User", "theirs.ndjson", "--set", "clicks=1"], "--set is for exports"),
        (["import", "User", "theirs.ndjson", "--column", "when=at"], "there is no field when; there are operation, at"),
        (["import", "User", "theirs.ndjson", "--column", "at"], "has no NAME= at its beginning"),
    ],
)
def test_what_cannot_be_done_is_told(
    arguments: Sequence[str], told: str, invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = exported(db.engine, User)
    Path("ours.ndjson").write_bytes(ours)
    Path("cut.ndjson.gz").write_bytes(gzip.compress(ours)[:-20])
    Path("plain.ndjson.gz").write_bytes(ours)
    Path("theirs.ndjson").write_text('{"operation": "insert", "id": 1, "at": "2020-01-01T00:00:00Z", "email": "a"}\n')
    assert told in invoke(*arguments, status=2, input="{}\n").stderr
    assert rows(User) == []


CHANGES = [
    {"id": 1, "operation": "insert", "at": "2019-05-01T09:00:00Z", "email": "a", "born": "1815-12-10T00:00:00Z"},
    {"id": 2, "operation": "insert", "at": "2019-05-01T09:00:00Z", "email": "b", "settings": {"a": [1]}},
    {"id": 1, "operation": "update", "at": "2020-02-11T16:30:00Z", "values": {"name": "c", "logins": 5}},
    {"id": 1, "operation": "update", "at": "2020-02-12T16:30:00Z", "name": "c"},
    {"id": 2, "operation": "update", "at": "2020-02-13T16:30:00Z", "name": "d", "password_hash": "x"},
    {"id": 2, "operation": "delete", "at": "2023-01-31T08:15:00Z", "extra.ticket": "T-1", "user_id": "u"},
]


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """What another system has logged."""
    file = tmp_path / "theirs.ndjson"
    file.write_text("".join(f"{json.dumps(change)}\n" for change in CHANGES))
    return file


def users() -> list[History]:
    return [change for key in (1, 2) for change in Timeline(db.session(), User, (key,)).versions()]


def test_changes_of_another_system(invoke: Callable[..., Result], theirs: Path) -> None:
    assert invoke("import", "User", str(theirs), "--batch", "2").stderr == "User: 5 rows written\n"
    assert rows(User) == [(-1, "insert"), (0, "update"), (-1, "insert"), (0, "update"), (1, "delete")]
    user = db.session.get_one(User, 1)
    assert (user.name, user.logins) == ("c", 5)
    assert user.born is not None
    # Without a time zone on SQLite.
    assert user.born.replace(tzinfo=UTC) == datetime(1815, 12, 10, tzinfo=UTC)
    deleted = Timeline(db.session(), User, (2,)).changes()[-1]
    assert (deleted.at, deleted.info["user_id"]) == (datetime(2023, 1, 31, 8, 15, tzinfo=UTC), "u")
    assert deleted.info["extra"] == {"ticket": "T-1"}
    assert differences(db.engine, User) == []


@pytest.mark.parametrize("done", [2, 4])
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_import_of_changes_goes_on_where_it_was_interrupted(
    done: int, invoke: Callable[..., Result], theirs: Path, tmp_path: Path
) -> None:
    invoke("import", "User", str(theirs))
    whole = exported(db.engine, User)
    emptied()
    begun = tmp_path / "begun.ndjson"
    begun.write_text("".join(theirs.read_text().splitlines(keepends=True)[:done]))
    invoke("import", "User", str(begun), "--batch", "1")
    invoke("import", "User", str(theirs), "--batch", "2")
    assert _without_transactions(exported(db.engine, User)) == _without_transactions(whole)
    invoke("import", "User", str(theirs))
    assert _without_transactions(exported(db.engine, User)) == _without_transactions(whole)


def _without_transactions(file: bytes) -> list[Any]:
    return [{**line, "transaction_id": None} for line in documents(file)]


def test_fields_have_the_names_that_they_have_there(invoke: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "audit.csv.gz"
    text = (
        "\ufeffwhat,who,when,cc,title,why\r\n"
        "insert,ada,2019-05-01 09:00:00+02:00,FR,first,\r\n"
        'update,ada,2020-05-01T09:00:00,FR,"second\nline, ""quoted""","a reason, ü"\r\n'
        "update,,2021-05-01T09:00:00Z,FR,,\r\n"
    )
    file.write_bytes(gzip.compress(text.encode()))
    columns = ["operation=what", "user_id=who", "at=when", "code=cc", "name=title", "extra.rationale=why"]
    arguments = [part for column in columns for part in ("--column", column)]
    assert invoke("import", "Country", str(file), *arguments).stderr == "Country: 3 rows written\n"
    changes = Timeline(db.session(), Country, ("FR",)).changes()
    assert [(change.at, change.info.get("user_id"), change.info.get("extra")) for change in changes] == [
        (datetime(2019, 5, 1, 7, tzinfo=UTC), "ada", None),
        (datetime(2020, 5, 1, 9, tzinfo=UTC), "ada", {"rationale": "a reason, ü"}),
        (datetime(2021, 5, 1, 9, tzinfo=UTC), None, None),
    ]
    names = [version.name for version in Timeline(db.session(), Country, ("FR",)).versions()]
    assert names == ["first", 'second\nline, "quoted"']


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: is no JSON: "),
        ("[]", "line 2: is no change: that is a JSON object"),
        ('{"operation": "replace", "id": 5, "at": "2019-05-02T09:00:00Z"}', "line 2: the operation must be one of"),
        ('{"operation": "insert", "id": 5}', "line 2, at: must be an instant"),
        (
            '{"operation": "insert", "id": 5, "at": "2119-05-02T09:00:00Z"}',
            "line 2: 2119-05-02T09:00:00+00:00 is yet to",
        ),
        ('{"operation": "insert", "at": "2019-05-02T09:00:00Z"}', "line 2: the key must have a value for id"),
        ('{"operation": "insert", "id": 5, "at": "2019-05-02T09:00:00Z", "nick": "x"}', "line 2, nick: is no field"),
        (
            '{"operation": "insert", "id": 5, "at": "2019-05-02T09:00:00Z", "values": {"nick": "x"}}',
            "line 2, nick: the model has no such attribute",
        ),
        ('{"operation": "insert", "id": "5", "at": "2019-05-02T09:00:00Z"}', "line 2, id: must be an integer"),
        ('{"operation": "update", "id": 5, "at": "2019-05-02T09:00:00Z"}', "line 2: this update finds no record"),
        (
            '{"operation": "insert", "id": 1, "at": "2019-05-02T09:00:00Z"}',
            "line 2: this insert finds the record there",
        ),
        (
            '{"operation": "delete", "id": 1, "at": "2018-05-02T09:00:00Z"}',
            "line 2: 2018-05-02T09:00:00+00:00 is earlier",
        ),
        ('{"operation": "insert", "id": 5, "at": "2019-05-02T09:00:00Z"}', "line 2: the database refuses it"),
    ],
)
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_wrong_change_is_told_and_nothing_of_its_batch_is_written(
    line: str, told: str, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    file = tmp_path / "theirs.ndjson"
    file.write_text(f"{json.dumps(CHANGES[0])}\n{line}\n")
    result = invoke("import", "User", str(file), status=1)
    assert result.stderr.startswith(told), result.stderr
    assert rows(User) == []


def test_values_are_taken_as_the_types_say(database_url: str, tmp_path: Path) -> None:
    database = VersionedSQLAlchemy()
    thing = define(
        database,
        "Thing",
        __tablename__="thing",
        id=sa.Column(sa.Integer, primary_key=True),
        price=sa.Column(sa.Numeric(10, 2)),
        day=sa.Column(sa.Date),
        data=sa.Column(sa.LargeBinary),
        span=sa.Column(sa.Interval),
        code=sa.Column(sa.Uuid),
        flag=sa.Column(sa.Boolean),
        document=sa.Column(sa.JSON),
    )
    file = tmp_path / "theirs.csv"
    file.write_text(
        "id,operation,at,price,day,data,span,code,flag,document\n"
        "1,insert,2020-01-01T00:00:00Z,1.50,2020-02-29,AP8=,P1DT2H,"
        '00000000-0000-0000-0000-000000000005,true,"{""a"": 1}"\n'
    )
    with opened(database, database_url) as app:
        result = app.test_cli_runner().invoke(args=["history", "import", "Thing", str(file)])
        assert result.exit_code == 0, result.output
        live = documents(exported(database.engine, thing))[2]["state"]
    assert live == {
        "price": "1.50",
        "day": "2020-02-29",
        "data": "AP8=",
        "span": "P1DT2H",
        "code": "00000000-0000-0000-0000-000000000005",
        "flag": True,
        "document": '{"a": 1}',
    }


@pytest.fixture
def large(database_url: str, other_database_url: str, tmp_path: Path) -> Iterator[Path]:
    """A file of much history, and an empty database for it."""
    file = tmp_path / "large.ndjson"
    with opened(large_db, other_database_url):
        fill(large_db.engine, 8_000)
        file.write_bytes(exported(large_db.engine, Person))
    with opened(large_db, database_url):
        yield file


def test_import_that_was_killed_is_run_again(large: Path, database_url: str) -> None:
    command = [sys.executable, "-m", "flask", "--app", "tests.library.large:create_app()", "history"]
    importing = [*command, "import", "Person", str(large), "--batch", "100"]
    environment = {**os.environ, "DATABASE_URL": database_url}
    count = sa.text("SELECT count(*) FROM person_history")
    with subprocess.Popen(importing, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as process:
        while not (written := large_db.session.execute(count).scalar_one()):
            large_db.session.rollback()
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    large_db.session.rollback()
    assert process.returncode == -signal.SIGKILL
    written = large_db.session.execute(count).scalar_one()
    large_db.session.rollback()
    # Whole records, of ten rows each.
    assert 0 < written < 8_000
    assert written % 10 == 0
    done = subprocess.run(importing, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    told = re.search(r"Person: ([\d,]+) rows written, ([\d,]+) skipped", done.stderr)
    assert told is not None
    assert sum(int(part.replace(",", "")) for part in told.groups()) == 8_800
    assert exported(large_db.engine, Person) == large.read_bytes()

"""A file of history that is wrong is refused by line, column and reason, and nothing of its batch is written."""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut import HistoryFileError, Imported, UnsupportedMappingError, export_history, rationale
from tests.library.models import Country, Release, User, db
from tests.library.staff import Staff
from tests.library.transferring import (
    bound,
    differences,
    documents,
    exported,
    file_of,
    imported,
    lines_of,
    tables,
)

# What is wrong with a line itself is the same on every database.
on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)

Change = Callable[[list[Any]], object]
Edit = Callable[[bytes], bytes]


@pytest.fixture
def file(session: Session) -> bytes:
    """DE is deleted (lines 2 to 4), FR at version 2 (lines 5 to 8); line 9 is the last."""
    countries = {code: Country(code=code, name="first") for code in ("FR", "DE")}
    session.add_all(countries.values())
    session.commit()
    for country in countries.values():
        country.name = "second"
    session.commit()
    countries["FR"].name = "third"
    session.delete(countries["DE"])
    session.commit()
    return exported(db.engine, Country)


@pytest.fixture
def csv_file(file: bytes) -> bytes:
    """The same as CSV: one line more."""
    return exported(db.engine, Country, format="csv")


@pytest.fixture
def target(file: bytes, csv_file: bytes, other_database_url: str) -> Iterator[sa.Engine]:
    """The engine of an empty database."""
    with bound(db, other_database_url) as engine:
        yield engine


def refusal(engine: sa.Engine, file: bytes, **options: Any) -> list[str]:
    """Why a file is refused."""
    with pytest.raises(HistoryFileError) as refused:
        imported(engine, Country, file, **options)
    return [str(problem) for problem in refused.value.problems]


NOTHING: dict[str, list[Any]] = {"country": [], "country_history": []}

CHANGES: dict[str, tuple[Change, list[str]]] = {
    "gap": (
        lambda lines: lines.pop(5),
        ["line 6: history has a gap: the row before it is version -1"],
    ),
    "beginning is missing": (
        lambda lines: [lines.pop(4), lines.pop(4)],
        ["line 5: history begins with this update; the rows before it are missing"],
    ),
    "end is missing": (
        lambda lines: lines.pop(7),
        ["line 7: there is no live row, though history ends with this update"],
    ),
    "delete is missing": (
        lambda lines: lines.pop(3),
        ["line 3: there is no live row, though history ends with this update"],
    ),
    "wrong order": (
        lambda lines: lines.insert(5, lines.pop(6)),
        ["line 7, version: is lower than that of the row before it"],
    ),
    "row twice": (
        lambda lines: lines.insert(5, lines[5]),
        ["line 7, version: is that of the row before it: a row stands here twice"],
    ),
    "record in two places": (
        lambda lines: lines.append(lines.pop(2)),
        ["line 8: the rows of this record must stand together, and others are between"],
    ),
    "row behind the live one": (
        lambda lines: lines.append(lines.pop(6)),
        ["line 8: stands behind the record's live row, which must be its last"],
    ),
    "unknown columns": (
        lambda lines: [lines[6].update(nick="x"), lines[7]["state"].update(size=3)],
        ["line 7, nick: there is no such column", "line 8, size: there is no such column in this row"],
    ),
    "missing columns": (
        lambda lines: [lines[5]["key"].clear(), lines[6]["state"].clear(), lines[7].pop("version")],
        [
            "line 6, code: is missing",
            "line 7, name: is missing",
            "line 8, version: must be an integer from -1 to 2147483647",
        ],
    ),
    "wrong types": (
        lambda lines: [
            lines[1].update(changed="yesterday", transaction_id=5),
            lines[2].update(operation="replace", change_info=[]),
            lines[3].update(key={"code": None}),
            lines[4].update(key={"code": 5}),
            lines[5].update(version="0"),
            lines[6].update(state=[]),
        ],
        [
            "line 2, changed: must be an instant with an offset, as 2026-03-01T09:00:00.000000Z",
            "line 2, transaction_id: must be a UUID",
            "line 3, operation: must be one of insert, update, delete, purge, or null of a live row",
            "line 3, change_info: must be a JSON object",
            "line 4, code: is part of the key and must have a value",
            "line 5, code: must be a text, not an integer",
            "line 6, version: must be an integer from -1 to 2147483647",
            "line 7, state: must be a JSON object",
        ],
    ),
    "state of an insert": (
        lambda lines: lines[1].update(state={"name": "x"}),
        ["line 2: the row of an insert holds a state, though nothing was there before"],
    ),
    "insert of a record that is there": (
        lambda lines: lines[6].update(operation="insert", state=None),
        ["line 7: this insert follows the update of a record; it can only follow a delete"],
    ),
    "time runs backwards": (
        lambda lines: lines[3].update(changed="2001-01-01T00:00:00Z"),
        ["line 4: it was replaced earlier than the version before it"],
    ),
    "live row of a deleted record": (
        lambda lines: lines.insert(4, {**lines[7], "key": {"code": "DE"}, "version": 2}),
        ["line 4: there is a live row, though history ends with the delete of version 1"],
    ),
    "damaged cut": (
        lambda lines: lines[5].update(operation="purge", state=None),
        ["line 6: this cut does not say what was purged"],
    ),
    "NUL in a reason": (
        lambda lines: lines[5].update(change_info={"extra": {"a": "\0"}}),
        ["line 6, change_info: holds NUL, which no database stores in JSON"],
    ),
    "no rows of objects": (
        lambda lines: lines.__setitem__(5, [1]),
        ["line 6: is no row of a history: that is a JSON object"],
    ),
    "another model": (
        lambda lines: lines[0].update(model="User"),
        ["line 1: is the history of 'User', and not of Country"],
    ),
    "column that is no more": (
        lambda lines: lines[0]["state"].update(area="integer"),
        ["line 1, area: the model has no such column; __chrononaut_dropped__ can say that it had"],
    ),
    "column of another type": (
        lambda lines: lines[0]["state"].update(name="integer"),
        ["line 1, name: is 'integer'; the model has 'text'"],
    ),
    "another key": (
        lambda lines: lines[0].update(key={"id": "integer"}),
        ["line 1: has another key than the model, which has code (text)"],
    ),
    "form of tomorrow": (
        lambda lines: lines[0].update(format=2),
        ["line 1: is of format 2; this release reads format 1"],
    ),
    "no header": (
        lambda lines: lines.pop(0),
        ["line 1: does not begin a history: is it one, as ndjson?"],
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_rows_that_cannot_be(name: str, file: bytes, target: sa.Engine) -> None:
    change, told = CHANGES[name]
    lines = documents(file)[:-1]
    change(lines)
    assert refusal(target, file_of(lines)) == told
    assert tables(target, Country) == NOTHING


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_text_that_is_too_long_for_its_column(file: bytes, target: sa.Engine) -> None:
    lines = documents(file)[:-1]
    for line in lines[4:8]:
        line.update(key={"code": "FRANCE"})
    told = "code: is longer than the 2 characters that the column holds"
    assert refusal(target, file_of(lines)) == [f"line {number}, {told}" for number in range(5, 9)]
    assert tables(target, Country) == NOTHING


def _replaced(line: int, old: bytes, new: bytes) -> Edit:
    def edit(file: bytes) -> bytes:
        lines = lines_of(file)
        assert old in lines[line - 1]
        lines[line - 1] = lines[line - 1].replace(old, new)
        return b"".join(lines)

    return edit


EDITS: dict[str, tuple[Edit, Sequence[str]]] = {
    "empty": (lambda _: b"", ["line 1: the file is empty"]),
    "cut off in a line": (
        lambda file: file[: file.index(b'"third"')],
        ["line 8: is no JSON: ", "line 8: the file ends"],
    ),
    "cut off behind a line": (
        lambda file: b"".join(lines_of(file)[:-1]),
        ["line 8: the file ends here without its last line, which counts the rows: it was cut off"],
    ),
    "cut off behind the first line": (lambda file: lines_of(file)[0], ["line 1: the file ends here"]),
    "rows are missing": (
        lambda file: b"".join(lines_of(file)[:4] + lines_of(file)[8:]),
        ["line 5: the file says that it has 7 rows; 3 were read"],
    ),
    "something behind": (lambda file: file + lines_of(file)[1], ["line 10: stands behind the file's last line"]),
    "not UTF-8": (_replaced(6, b"first", b"f\xfcrst"), ["line 6: is not UTF-8 (byte "]),
    "NUL": (_replaced(6, b"first", b"f\0rst"), ["line 6: is no JSON: Invalid control character"]),
    "half a character": (_replaced(6, b"first", b"\\ud800"), ["line 6, name: holds half a character"]),
    "huge number": (
        _replaced(6, b'"version": 0', b'"version": 1' + b"0" * 5000),
        ["line 6: is no JSON: a number is too"],
    ),
    "large number": (
        _replaced(6, b'"version": 0', b'"version": 1' + b"0" * 50),
        ["line 6, version: must be an integer"],
    ),
    "deep": (_replaced(6, b'"first"', b"[" * 100_000), ["line 6: is no JSON: "]),
    "blank line": (lambda file: file.replace(b"\n", b"\n\n", 1), ["line 2: is no JSON: Expecting value"]),
    "no file of ours": (lambda _: b"PK\x03\x04\n", ["line 1: does not begin a history"]),
}


@on_sqlite
@pytest.mark.parametrize("name", EDITS)
def test_files_that_are_damaged(name: str, file: bytes, target: sa.Engine) -> None:
    edit, told = EDITS[name]
    found = refusal(target, edit(file))
    assert len(found) == len(told)
    assert all(one.startswith(start) for one, start in zip(found, told, strict=True)), found
    assert tables(target, Country) == NOTHING


CSV_EDITS: dict[str, tuple[Edit, Sequence[str]]] = {
    "empty": (lambda _: b"", ["line 1: the file is empty"]),
    "no header": (lambda file: b"".join(lines_of(file)[1:]), ["line 1: does not begin a history: is it one, as csv?"]),
    "no names": (lambda file: b"".join(lines_of(file)[:1] + lines_of(file)[2:]), ["line 2: must name the columns"]),
    "cut off": (lambda file: b"".join(lines_of(file)[:-1]), ["line 9: the file ends here"]),
    "cut off in a line": (lambda file: file[: file.rindex(b"third")], ["line 9: the file ends here"]),
    "a cell less": (_replaced(7, b",first", b""), ["line 7: has 6 cells; there are 7 columns"]),
    "open quotes": (_replaced(7, b",first", b',"first'), ["line 7: is no CSV: "]),
    "line breaks of Windows": (lambda file: file.replace(b"\n", b"\r\n"), ["line 1: ends with CR and LF"]),
    "not UTF-8": (_replaced(7, b"first", b"f\xfcrst"), ["line 7: is not UTF-8 (byte "]),
    "version": (_replaced(7, b"FR,0", b"FR,x"), ["line 7, version: must be an integer"]),
    "reason": (_replaced(7, b'"{', b'"'), ["line 7, change_info: must be a JSON object"]),
    "rows are missing": (
        lambda file: b"".join(lines_of(file)[:5] + lines_of(file)[9:]),
        ["line 6: the file says that it has 7 rows; 3 were read"],
    ),
}


@on_sqlite
@pytest.mark.parametrize("name", CSV_EDITS)
def test_files_of_csv_that_are_damaged(name: str, csv_file: bytes, target: sa.Engine) -> None:
    edit, told = CSV_EDITS[name]
    found = refusal(target, edit(csv_file), format="csv")
    assert all(one.startswith(start) for one, start in zip(found, told, strict=True)), found
    assert tables(target, Country) == NOTHING


@pytest.mark.parametrize("edit", [lambda file: b"\xef\xbb\xbf" + file, lambda file: file.replace(b"\n", b"\r\n")])
def test_what_programs_of_windows_add_does_no_harm(edit: Edit, file: bytes, target: sa.Engine) -> None:
    imported(target, Country, edit(file))
    assert exported(target, Country) == file


def test_batches_before_the_wrong_one_are_written_and_no_other(file: bytes, target: sa.Engine) -> None:
    lines = documents(file)[:-1]
    lines[6]["state"]["name"] = 5
    wrong = file_of(lines)
    assert refusal(target, wrong, batch=1) == ["line 7, name: must be a text, not an integer"]
    assert [row["code"] for row in tables(target, Country)["country_history"]] == ["DE"] * 3
    assert imported(target, Country, file) == Imported(4, 3)
    assert exported(target, Country) == file


def test_no_more_problems_are_told_than_somebody_reads(file: bytes, target: sa.Engine) -> None:
    header, row = documents(file)[:2]
    rows = [{**row, "key": {"code": f"{number}"}, "version": None} for number in range(100)]
    assert len(refusal(target, file_of([header, *rows]))) == 20


@pytest.mark.parametrize(
    ("line", "column", "value", "told"),
    [
        (6, "state", {"name": "other"}, "line 6, name: is otherwise in the row of this version that is there already"),
        (6, "change_info", {"user_id": "x"}, "line 6, change_info: is otherwise in the row"),
        (6, "changed", "2001-01-01T00:00:00Z", "line 6, changed: is otherwise in the row"),
        (8, "state", {"name": "other"}, "line 8, name: is otherwise in the live row that is there already"),
    ],
)
def test_what_is_there_and_says_otherwise_is_refused(
    line: int, column: str, value: Any, told: str, file: bytes, target: sa.Engine
) -> None:
    imported(target, Country, file)
    lines = documents(file)[:-1]
    lines[line - 1][column] = value
    before = tables(target, Country)
    assert any(problem.startswith(told) for problem in refusal(target, file_of(lines)))
    assert tables(target, Country) == before


def test_row_that_the_database_refuses_is_found_among_others(session: Session, other_database_url: str) -> None:
    session.add_all([User(id=number, email=f"{number}") for number in range(1, 21)])
    session.commit()
    lines = documents(exported(db.engine, User))[:-1]
    line = next(
        place for place, one in enumerate(lines[1:], start=1) if one["key"] == {"id": 13} and not one["operation"]
    )
    # Another one's, which is unique.
    lines[line]["state"]["email"] = "4"
    with bound(db, other_database_url) as engine, pytest.raises(HistoryFileError) as refused:
        imported(engine, User, file_of(lines))
    assert refused.value.line == line
    assert "refuses the record that begins here" in str(refused.value)


def test_record_that_has_gone_on_since_is_skipped(file: bytes, target: sa.Engine) -> None:
    imported(target, Country, file)
    db.session.get_one(Country, "FR").name = "fourth"
    db.session.add(Country(code="DE", name="again"))
    db.session.commit()
    assert imported(target, Country, file) == Imported(0, 7)
    assert differences(target, Country) == []


def test_period_continues_what_the_period_before_has_brought(session: Session, other_database_url: str) -> None:
    session.add_all([Country(code=code, name="a", secret="x") for code in ("FR", "DE", "IT")])
    session.commit()
    first = exported(db.engine, Country)
    session.get_one(Country, "FR").name = "b"
    session.delete(session.get(Country, "DE"))
    session.add(Country(code="AT"))
    session.commit()
    at = max(line["changed"] for line in documents(first)[1:-1] if line["operation"])
    second = exported(db.engine, Country, since=datetime.fromisoformat(at))
    assert [(line["key"]["code"], line["version"], line["operation"]) for line in documents(second)[1:-1]] == [
        ("AT", -1, "insert"),
        ("AT", 0, None),
        ("DE", 0, "delete"),
        ("FR", 0, "update"),
        ("FR", 1, None),
    ]
    whole, before = exported(db.engine, Country), exported(db.engine, Country, until=datetime.fromisoformat(at))
    assert [line["operation"] for line in documents(before)[1:-1]] == ["insert"] * 3
    with bound(db, other_database_url) as engine:
        with pytest.raises(HistoryFileError, match="line 4: the record's history before is not there"):
            imported(engine, Country, second)
        imported(engine, Country, first)
        db.session.execute(sa.text("UPDATE country SET secret = 'of its own' WHERE code = 'FR'"))
        db.session.commit()
        assert imported(engine, Country, second) == Imported(5, 0)
        assert db.session.get_one(Country, "FR").secret == "of its own"
        db.session.rollback()
        assert exported(engine, Country) == whole
        assert differences(engine, Country) == []
        assert imported(engine, Country, second) == Imported(0, 5)


def test_period_that_is_not_continued_from_is_refused(file: bytes, target: sa.Engine) -> None:
    db.session.add(Country(code="FR", name="another life"))
    db.session.commit()
    assert [one.partition(":")[0] for one in refusal(target, file)] == [
        "line 5, changed",
        "line 8",
    ]


def test_model_below_another_is_exported_with_that(open_database: Callable[..., Session]) -> None:
    staff = Staff()
    open_database(staff.db)
    for model in (staff.clerk, staff.manager, staff.director):
        with pytest.raises(UnsupportedMappingError, match="its rows are in the table of Employee; name that instead"):
            export_history(staff.db.engine, model)


@pytest.mark.parametrize("key", [(), ("a",), ("a", "b", "c"), ("a", 5)])
def test_key_that_fits_no_record_is_refused(key: tuple[Any, ...], session: Session) -> None:
    with pytest.raises(ValueError, match=r"key .*product, cycle"):
        export_history(db.engine, Release, key=key)


def test_export_is_one_state_of_the_database(session: Session) -> None:
    with rationale("first"):
        session.add_all([Country(code=f"{number}", name="a") for number in range(10, 99)])
        session.commit()
    lines = export_history(db.engine, Country)
    begun = next(lines)
    if db.engine.dialect.name == "postgresql":
        # On SQLite the writer would wait.
        session.execute(sa.update(Country).values(name="b"))
        session.commit()
    assert [json.loads(line) for line in [begun, *lines]][-1] == {"rows": 178}

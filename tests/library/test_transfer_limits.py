"""What a column cannot hold as it is, is refused by line and column before the database is asked."""

import enum
import json
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from chrononaut import HistoryFileError, Imported, VersionedSQLAlchemy
from chrononaut.transfer.changes import ChangeFile, import_change_file
from tests.library.models import define
from tests.library.transferring import bound, documents, exported, file_of, imported

AT = "2020-01-01T00:00:00Z"
LONG = "12345678901234567890.1234567891"


class Colour(enum.Enum):
    RED = 1


@pytest.fixture
def thing(database_url: str) -> Iterator[Any]:
    database = VersionedSQLAlchemy()
    thing = define(
        database,
        "Thing",
        __tablename__="thing",
        id=sa.Column(sa.Integer, primary_key=True),
        small=sa.Column(sa.SmallInteger),
        price=sa.Column(sa.Numeric(10, 2)),
        large=sa.Column(sa.Numeric(30, 10)),
        colour=sa.Column(sa.Enum(Colour)),
        name=sa.Column(sa.String(3)),
        share=sa.Column(sa.Float),
        ratio=sa.Column(sa.REAL),
        code=sa.Column(sa.Integer, unique=True),
    )
    with bound(database, database_url) as engine:
        thing.engine, thing.database = engine, database
        yield thing


def told_of_change(thing: Any, change: Any) -> list[str]:
    lines = [json.dumps({"id": 1, "operation": "insert", "at": AT, **change}).encode()]
    with pytest.raises(HistoryFileError) as refused:
        import_change_file(thing.database.session(), ChangeFile(thing, {}, "ndjson"), lines)
    return [str(problem) for problem in refused.value.problems]


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "integer": ({"id": 10**20}, "line 1, id: is beyond what the column can hold, "),
    "list for an enum": ({"colour": ["a"]}, "line 1, colour: must be a text, not a list"),
    "no number": (
        {"price": "x"},
        "line 1, price: must be a decimal number as a text, as 1.50, not a text that is none",
    ),
    "list for a number": ({"price": []}, "line 1, price: must be a decimal number as a text, as 1.50, not a list"),
    "digits": ({"price": "1.555"}, "line 1, price: has more than the 2 digits after the point that the column holds"),
    "more digits": ({"price": 1e9}, "line 1, price: has more than the 8 digits before the point that the column"),
    "reasons": ({"extra": {"a": "b"}}, "line 1, extra: is no field; give each of its reasons as extra.NAME"),
    "twice": ({"name": "x", "values": {"name": "y"}}, "line 1, name: stands among the values and beside them"),
}
ON_POSTGRESQL: dict[str, tuple[dict[str, Any], str]] = {
    "small": ({"small": 40_000}, "line 1, small: is beyond what the column can hold, 16 bits"),
    "long": ({"name": "abcd"}, "line 1, name: is longer than the 3 characters that the column holds"),
    "NUL": ({"name": "\0"}, "line 1, name: holds NUL, which PostgreSQL does not store"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_value_of_a_change(name: str, thing: Any) -> None:
    change, told = CHANGES[name]
    (problem,) = told_of_change(thing, change)
    assert problem.startswith(told)


@pytest.mark.parametrize("name", ON_POSTGRESQL)
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_value_of_a_change_that_postgresql_does_not_hold(name: str, thing: Any) -> None:
    change, told = ON_POSTGRESQL[name]
    assert told_of_change(thing, change) == [told]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_number_that_a_float_would_round(thing: Any) -> None:
    told = "large: is a number that SQLite cannot hold exactly, as it keeps a float"
    not_a_number = "share: is no number (nan), in place of which SQLite would hold NULL"
    assert told_of_change(thing, {"large": LONG, "share": "nan"}) == [f"line 1, {told}", f"line 1, {not_a_number}"]
    thing.database.session.add(thing(id=1, name="a"))
    thing.database.session.commit()
    lines = documents(exported(thing.engine, thing))[:-1]
    lines[2]["key"]["id"] = lines[1]["key"]["id"] = 2
    lines[2]["state"] |= {"large": LONG, "share": "nan"}
    with pytest.raises(HistoryFileError) as refused:
        imported(thing.engine, thing, file_of(lines))
    assert [str(problem) for problem in refused.value.problems] == [
        f"line 3, {told}",
        f"line 3, {not_a_number}",
    ]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_instant_that_is_yet_to_come(thing: Any) -> None:
    thing.database.session.add(thing(id=1))
    thing.database.session.commit()
    lines = documents(exported(thing.engine, thing))[:-1]
    lines[1]["changed"] = "2999-01-01T00:00:00Z"
    with pytest.raises(HistoryFileError, match=r"line 2, changed: .* is yet to come"):
        imported(thing.engine, thing, file_of(lines))


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_csv_that_names_a_column_twice(thing: Any) -> None:
    lines = [b"id,operation,at,name,name\n", f"1,insert,{AT},x,y\n".encode()]
    with pytest.raises(HistoryFileError, match="line 1, name: is the name of several columns"):
        import_change_file(thing.database.session(), ChangeFile(thing, {}, "csv"), lines)


def test_number_of_single_precision_is_the_same_again(thing: Any) -> None:
    lines = [json.dumps({"id": 1, "operation": "insert", "at": AT, "transaction": "t", "ratio": 1.1}).encode()]
    session, file = thing.database.session(), ChangeFile(thing, {}, "ndjson")
    assert import_change_file(session, file, lines) == Imported(1, 0)
    assert import_change_file(session, file, lines) == Imported(0, 1)


def test_batch_that_the_database_refuses_leaves_nothing_whatever_the_engine_commits(
    thing: Any, other_database_url: str
) -> None:
    thing.database.session.add_all([thing(id=key, code=key) for key in (1, 2, 3, 4)])
    thing.database.session.commit()
    lines = documents(exported(thing.engine, thing))[:-1]
    lines[-1]["state"]["code"] = 1
    with bound(thing.database, other_database_url) as target:
        engine = sa.create_engine(target.url, isolation_level="AUTOCOMMIT")
        with pytest.raises(HistoryFileError, match="line 8: the database refuses the record that begins here"):
            imported(engine, thing, file_of(lines))
        engine.dispose()
        with target.connect() as connection:
            for table in ("thing", "thing_history"):
                assert connection.scalar(sa.text(f"SELECT count(*) FROM {table}")) == 0

"""Values of every type pass a file exactly, both ways, whatever Python the model has of them."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chrononaut import HistoryFileError, VersionedSQLAlchemy
from tests.library.models import define
from tests.library.test_types import KINDS, POSTGRESQL_KINDS, warnings_of_sqlalchemy
from tests.library.transferring import bound, documents, exported, file_of, imported, tables

# The names of types that two of the kinds would share.
_KINDS = {name: kind for name, kind in KINDS.items() if name != "boolean-checked"}


def thing_of(database: Any, kinds: Any) -> Any:
    """A model with a column of each kind."""
    columns = {name.replace("-", "_"): sa.Column(kind.column()) for name, kind in kinds.items()}
    columns["enum_text_values"] = sa.Column(sa.Integer)
    return define(database, "Thing", __tablename__="thing", id=sa.Column(sa.Integer, primary_key=True), **columns)


def live(database: Any, thing: Any, kinds: Any) -> None:
    """A thing that had the first values of all kinds, none and the second ones."""
    session = database.session
    names = {name: name.replace("-", "_") for name in kinds if name != "enum-text-values"}
    one = thing(id=1, **{attribute: kinds[name].first for name, attribute in names.items()})
    session.add(one)
    session.commit()
    for attribute in names.values():
        setattr(one, attribute, None)
    session.commit()
    for name, attribute in names.items():
        setattr(one, attribute, kinds[name].second)
    session.commit()


@warnings_of_sqlalchemy
@pytest.mark.parametrize("format_", ["ndjson", "csv"])
def test_values_of_every_type(database_kind: str, database_url: str, other_database_url: str, format_: str) -> None:
    kinds = _KINDS | (POSTGRESQL_KINDS if database_kind == "postgresql" else {})
    database = VersionedSQLAlchemy()
    thing = thing_of(database, kinds)
    with bound(database, database_url) as engine:
        live(database, thing, kinds)
        file, before = exported(engine, thing, format=format_), tables(engine, thing)
    with bound(database, other_database_url) as target:
        imported(target, thing, file, format=format_)
        assert tables(target, thing) == before
        assert exported(target, thing, format=format_) == file
        assert imported(target, thing, file, format=format_).rows == 0


@warnings_of_sqlalchemy
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_values_of_every_type_come_from_sqlite(database_url: str, tmp_path: Path) -> None:
    database = VersionedSQLAlchemy()
    thing = thing_of(database, _KINDS)
    with bound(database, f"sqlite:///{tmp_path / 'from.db'}") as engine:
        live(database, thing, _KINDS)
        file = exported(engine, thing)
    with bound(database, database_url) as target:
        imported(target, thing, file)
        assert exported(target, thing) == file
        session = database.session
        one = session.get(thing, 1)
        found = {name: getattr(one, name.replace("-", "_")) for name in _KINDS if name != "enum-text-values"}
        assert found == {name: _KINDS[name].second for name in found}


@pytest.mark.parametrize(
    ("database_kind", "sql", "in_file"),
    [
        ("postgresql", "'infinity'", '"infinity"'),
        ("postgresql", "'0044-03-15 12:00:00+00 BC'", '"0044-03-15T12:00:00Z BC"'),
        ("postgresql", "'12345-01-01 00:00:00.5+02'", '"12344-12-31T22:00:00.5Z"'),
    ],
    indirect=["database_kind"],
)
def test_instants_that_python_does_not_know(database_url: str, other_database_url: str, sql: str, in_file: str) -> None:
    database = VersionedSQLAlchemy()
    key = sa.Column(sa.Integer, primary_key=True)
    thing = define(database, "Thing", __tablename__="thing", id=key, at=sa.Column(sa.DateTime(timezone=True)))
    with bound(database, database_url) as engine:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"INSERT INTO thing (id, at) VALUES (1, {sql})")
        file = exported(engine, thing)
    assert f'"at": {in_file}' in file.decode()
    with bound(database, other_database_url) as target:
        imported(target, thing, file)
        assert exported(target, thing) == file


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
STATES = st.fixed_dictionaries(
    {
        "text": TEXTS
        | st.none()
        | st.sampled_from(["\\N", "\\", "", '"', "#", "\r\n", "\ufeff", "NULL", "\x1e\x85\u2028"]),
        "float": st.floats() | st.none(),
        "whole": st.integers(-(2**63), 2**63 - 1) | st.none(),
        "number": st.decimals(-(10**9), 10**9, places=4) | st.none(),
        "bytes": st.binary() | st.none(),
        "at": st.datetimes(timezones=st.just(UTC)) | st.none(),
        "day": st.dates() | st.none(),
        "hour": st.times() | st.none(),
        "span": st.timedeltas(timedelta(-700_000), timedelta(2_900_000)) | st.none(),
        "document": st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
            lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
            max_leaves=5,
        ),
        "flag": st.booleans() | st.none(),
        "uuid": st.uuids() | st.none(),
    }
)
TYPES: dict[str, Any] = {
    "text": sa.String,
    "float": sa.Double,
    "whole": sa.BigInteger,
    "number": sa.Numeric(20, 4),
    "bytes": sa.LargeBinary,
    "at": sa.DateTime(timezone=True),
    "day": sa.Date,
    "hour": sa.Time,
    "span": sa.Interval,
    "document": sa.JSON,
    "flag": sa.Boolean,
    "uuid": sa.Uuid,
}


class Carried:
    """Two databases with a table of many columns; each example takes another key."""

    def __init__(self, url: str, other_url: str, stack: ExitStack) -> None:
        self.db, self.other = VersionedSQLAlchemy(), VersionedSQLAlchemy()
        self.model, self.other_model = (
            define(
                database,
                "Thing",
                __tablename__="thing",
                id=sa.Column(sa.Integer, primary_key=True),
                **{name: sa.Column(type_) for name, type_ in TYPES.items()},
            )
            for database in (self.db, self.other)
        )
        # The innermost context is the one that a session belongs to.
        self.target = stack.enter_context(bound(self.other, other_url))
        self.engine = stack.enter_context(bound(self.db, url))
        self.keys = count(1)


@pytest.fixture
def carried(database_url: str, other_database_url: str) -> Iterator[Carried]:
    """From one database to another."""
    with ExitStack() as stack:
        yield Carried(database_url, other_database_url, stack)


@warnings_of_sqlalchemy
@given(states=st.lists(STATES, min_size=1, max_size=3), format_=st.sampled_from(["ndjson", "csv"]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value(carried: Carried, states: list[dict[str, Any]], format_: str) -> None:
    key, session = next(carried.keys), carried.db.session
    one = carried.model(id=key, **states[0])
    session.add(one)
    session.commit()
    for state in states[1:]:
        for name, value in state.items():
            setattr(one, name, value)
        session.commit()
    file = exported(carried.engine, carried.model, key=(key,), format=format_)
    assert imported(carried.target, carried.other_model, file, format=format_).skipped == 0
    assert exported(carried.target, carried.other_model, key=(key,), format=format_) == file
    assert imported(carried.target, carried.other_model, file, format=format_).rows == 0


WRONG = {
    "text": [5, True, ["a"], {}, "\ud800"],
    "float": ["1.5", True, "Infinity", 10**400, []],
    "whole": ["1", 1.5, True, 2**63, []],
    "number": [1.5, "1,5", "x", "1e"],
    "bytes": ["ä", "abc", 5],
    "at": ["yesterday", "now", "2026-13-01T00:00:00Z", "2026-01-01", 5],
    "day": ["2026-02-30", "today", 5],
    "hour": ["25:00:00", "noon", 5],
    "span": ["1 day", "P", 5],
    "document": ["{", {"a": 1}, 5],
    "flag": [0, 1, "true", "yes"],
    "uuid": ["x", 5],
}


def test_values_of_wrong_types_are_refused(carried: Carried) -> None:
    carried.db.session.add(carried.model(id=1, text="a"))
    carried.db.session.commit()
    header, insert, live, _ = documents(exported(carried.engine, carried.model))
    taken = []
    for name, value in [(name, value) for name, values in WRONG.items() for value in values]:
        wrong = {**live, "state": {**live["state"], name: value}}
        try:
            imported(carried.target, carried.other_model, file_of([header, insert, wrong]))
        except HistoryFileError as error:
            (problem,) = error.problems
            # What only the database can say, it says of the record.
            assert (problem.line, problem.column) in {(3, name), (2, None)}
            continue
        taken.append((name, value))
    assert taken == []
    assert tables(carried.target, carried.other_model) == {"thing": [], "thing_history": []}

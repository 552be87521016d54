"""Random bulk statements over a small table, held against what plain Python makes of them."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from chrononaut import Versioned, VersionedSQLAlchemy
from tests.library.models import define
from tests.library.rows import history_rows, live_rows

COLUMNS = ("name", "secret", "seen")
Cells = dict[str, str | None]


@dataclass
class Record:
    cells: Cells
    version: int


class Oracle:
    """The records, and the history rows that there must be: (key, version, operation, name, hidden changes)."""

    def __init__(self) -> None:
        self.live: dict[int, Record] = {}
        self.rows: list[tuple[int, int, str, str | None, bool]] = []

    def update(self, keys: set[int], change: Callable[[Cells], Cells]) -> int:
        found = keys & self.live.keys()
        for key in found:
            record = self.live[key]
            new = record.cells | change(record.cells)
            hidden = new["secret"] != record.cells["secret"]
            if hidden or new["name"] != record.cells["name"]:
                self.rows.append((key, record.version, "update", record.cells["name"], hidden))
                record.version += 1
            record.cells = new
        return len(found)

    def delete(self, keys: set[int]) -> int:
        found = keys & self.live.keys()
        for key in found:
            record = self.live.pop(key)
            self.rows.append((key, record.version, "delete", record.cells["name"], record.cells["secret"] is not None))
        return len(found)

    def insert(self, keys: set[int], cells: Cells) -> None:
        for key in keys:
            last = max((version for known, version, *_ in self.rows if known == key), default=-2)
            self.rows.append((key, last + 1, "insert", None, cells.get("secret") is not None))
            self.live[key] = Record(dict.fromkeys(COLUMNS) | cells, last + 2)


KEYS = st.sets(st.integers(0, 4))
CELLS = st.dictionaries(st.sampled_from(COLUMNS), st.sampled_from([None, "x", "y"]), min_size=1)
STEPS: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    st.tuples(st.just("set"), KEYS, CELLS),
    st.tuples(st.just("copy"), KEYS, st.sampled_from(COLUMNS), st.sampled_from(COLUMNS)),
    st.tuples(st.just("many"), KEYS, CELLS),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("insert"), KEYS, CELLS, st.sampled_from(["many", "values", "returning", "flush"])),
    st.tuples(st.just("flush"), KEYS, CELLS),
    st.tuples(st.sampled_from(["commit", "rollback", "load", "expire"])),
)


@pytest.fixture
def thing(open_database: Callable[..., Session]) -> tuple[Session, Any]:
    database = VersionedSQLAlchemy()
    model = define(
        database,
        "Thing",
        Versioned,
        __tablename__="thing",
        __chrononaut_hidden__=["secret"],
        __chrononaut_untracked__=["seen"],
        id=sa.Column(sa.Integer, primary_key=True, autoincrement=False),
        **{name: sa.Column(sa.String) for name in COLUMNS},
    )
    return open_database(database), model


def _do(session: Session, model: Any, oracle: Oracle, step: tuple[Any, ...]) -> None:
    kind, *arguments = step
    keys: set[int] = arguments[0] if arguments else set()
    match kind:
        case "set":
            result: Any = session.execute(sa.update(model).where(model.id.in_(keys)).values(**arguments[1]))
            assert result.rowcount == oracle.update(keys, lambda _: arguments[1])
        case "copy":
            to, of = arguments[1:]
            result = session.execute(sa.update(model).where(model.id.in_(keys)).values({to: getattr(model, of)}))
            assert result.rowcount == oracle.update(keys, lambda cells: {to: cells[of]})
        case "many":
            if keys := keys & oracle.live.keys():
                session.execute(sa.update(model), [{"id": key, **arguments[1]} for key in keys])
                oracle.update(keys, lambda _: arguments[1])
        case "delete":
            result = session.execute(sa.delete(model).where(model.id.in_(keys)))
            assert result.rowcount == oracle.delete(keys)
        case "insert":
            if keys := keys - oracle.live.keys():
                _insert(session, model, [{"id": key, **arguments[1]} for key in keys], arguments[2])
                oracle.insert(keys, arguments[1])
        case "flush":
            for key in keys & oracle.live.keys():
                obj = session.get_one(model, key)
                for name, value in arguments[1].items():
                    setattr(obj, name, value)
            session.flush()
            oracle.update(keys, lambda _: arguments[1])
        case "load":
            # Kept by the session, so that later statements find objects.
            session.info["kept"] = session.scalars(sa.select(model)).all()
        case "expire":
            session.expire_all()


def _insert(session: Session, model: Any, rows: list[dict[str, Any]], how: str) -> None:
    if how == "many":
        session.execute(sa.insert(model), rows)
    elif how == "values":
        session.execute(sa.insert(model).values(rows))
    elif how == "returning":
        session.info["kept"] = session.scalars(sa.insert(model).returning(model), rows).all()
    else:
        session.add_all(model(**row) for row in rows)
        session.flush()


def _check(session: Session, model: Any, oracle: Oracle) -> None:
    live = {
        row["id"]: Record({name: row[name] for name in COLUMNS}, row["version"]) for row in live_rows(session, "thing")
    }
    assert live == oracle.live
    rows = history_rows(session, "thing_history")
    found = {
        (row["id"], row["version"], row["operation"], row["name"], "hidden_cols_changed" in row["change_info"])
        for row in rows
    }
    assert found == {*oracle.rows}
    assert len(rows) == len(oracle.rows)
    for obj in session.scalars(sa.select(model)):
        assert (obj.version, {name: getattr(obj, name) for name in COLUMNS}) == (
            live[obj.id].version,
            live[obj.id].cells,
        )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=5, max_size=20))
def test_history_of_bulk_statements_is_what_plain_python_makes_of_them(
    thing: tuple[Session, Any], steps: list[tuple[Any, ...]]
) -> None:
    session, model = thing
    session.rollback()
    session.expunge_all()
    session.info.clear()
    for table in ("thing", "thing_history"):
        session.connection().exec_driver_sql(f"DELETE FROM {table}")
    session.commit()
    oracle = Oracle()
    committed = deepcopy(oracle)
    for step in steps:
        if step == ("commit",):
            session.commit()
            committed = deepcopy(oracle)
        elif step == ("rollback",):
            session.rollback()
            oracle = deepcopy(committed)
        else:
            _do(session, model, oracle, step)
    _check(session, model, oracle)

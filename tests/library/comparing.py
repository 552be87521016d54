"""Hold the tables, and the answers of the library, against the oracle."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy.orm import Session

from chrononaut import Change, Timeline
from tests.library import oracle
from tests.library.oracle import Ident, Record, Shape, Transaction, Values
from tests.library.rows import Row, history_rows, live_rows
from tests.library.shapes import MODELS, SHAPES, column, kind
from tests.library.shapes import history as history_source
from tests.library.shapes import live as live_source

TICK = timedelta(microseconds=1)


def check_tables(session: Session, records: Mapping[Ident, Record], shapes: Iterable[str] = tuple(SHAPES)) -> None:
    """Hold each live row and each history row, but for its instant and transaction, against the oracle."""
    for name in shapes:
        shape = SHAPES[name]
        live = {
            _key(shape, row): (_values(shape, row, shape.attributes), row["version"])
            for row in live_rows(session, live_source(name))
        }
        expected = {
            ident.key: (record.values, record.version)
            for ident, record in records.items()
            if ident.shape == name and record.values is not None
        }
        _same(f"live rows of {name}", live, expected)
        found = [
            (
                (_key(shape, row), row["version"]),
                (row["operation"], _values(shape, row, shape.tracked), row["change_info"]),
            )
            for row in history_rows(session, history_source(name))
        ]
        rows = {
            (ident.key, row.version): (row.operation, row.state, _change_info(row))
            for ident, record in records.items()
            for row in record.rows
            if ident.shape == name
        }
        _same(f"history rows of {name}", dict(found), rows)
        assert len(found) == len(rows)


def ends(session: Session, ident: Ident) -> list[datetime]:
    """When each version of a record ended, by the table."""
    return [row["changed"] for row in history_of(session, ident)]


def around(instants: Iterable[datetime]) -> list[datetime]:
    """Each instant, and the ones just before and after."""
    return sorted({at + step for at in instants for step in (-TICK, 0 * TICK, TICK)})


def check_transactions(
    session: Session, records: Mapping[Ident, Record], transactions: Mapping[int, Transaction]
) -> None:
    """What one transaction wrote shares its id and its instant, and later transactions have later ones."""
    ids: dict[int, set[Any]] = {}
    instants: dict[int, set[datetime]] = {}
    for ident, record in records.items():
        found = history_of(session, ident)
        assert all(one["changed"] <= other["changed"] for one, other in pairwise(found)), "time runs backwards"
        for expected, row in zip(record.rows, found, strict=True):
            ids.setdefault(expected.transaction, set()).add(row["transaction_id"])
            instants.setdefault(expected.transaction, set()).add(row["changed"])
    assert all(len(shared) == 1 for shared in ids.values()), "a transaction has one id"
    assert len(set[Any]().union(*ids.values())) == len(ids), "no two transactions have one id"
    # One that was overtaken by another reads the clock anew for the records that the other one has changed.
    numbers = [number for number in sorted(instants) if transactions[number].alone]
    assert all(min(ids[one]) < min(ids[other]) for one, other in pairwise(numbers)), "ids are in order"
    alone = [instants[number] for number in numbers]
    assert all(len(shared) == 1 for shared in alone), "a transaction has one instant"
    assert all(min(one) < min(other) for one, other in pairwise(alone)), "instants are in the order of the transactions"


def check_answers(session: Session, ident: Ident, record: Record) -> None:
    """Ask all that can be asked of one record, live or deleted."""
    shape = SHAPES[ident.shape]
    instants = ends(session, ident)
    changed = {row.version: end for row, end in zip(record.rows, instants, strict=True)}
    timeline = Timeline(session, MODELS[ident.shape], ident.key)
    assert (timeline.live is None) == (record.values is None)
    prior = oracle.prior(record)
    versions = timeline.versions()
    assert [_version(shape, version) for version in versions] == [(row.version, row.state) for row in prior]
    assert [version.valid_from for version in versions] == [changed.get(row.version - 1) for row in prior]
    assert [version.changed for version in versions] == [changed[row.version] for row in prior]
    for at in around(instants):
        answer, number = timeline.version_at(at), oracle.valid_at(record, instants, at)
        assert (None if answer is None else answer.version) == number, f"the state at {at}"
        if number == record.version and record.values is not None:
            assert answer is timeline.live
    for at in sorted(set(instants)):
        later = [row.version for row in prior if changed[row.version] > at]
        earlier = [row.version for row in prior if row.version not in later]
        assert [version.version for version in timeline.versions(before=at)] == earlier
        assert [version.version for version in timeline.versions(after=at)] == later
        if timeline.live is not None:
            assert timeline.live.has_changed_since(at) == bool(later)
            assert timeline.live.has_changed_since(at - TICK) == any(changed[row.version] >= at for row in prior)
    _check_differences(shape, record, timeline, versions)
    changes = oracle.changes(shape, ident, record, {ident: instants})
    assert [told(change) for change in timeline.changes()] == [expected(change) for change in changes]
    blamed = oracle.blame(shape, changes)
    assert {name: told(change) for name, change in timeline.blame().items()} == {
        name: expected(change) for name, change in blamed.items()
    }


def told(change: Change | None) -> tuple[Any, ...] | None:
    """All that a change says."""
    if change is None:
        return None
    says = (change.version, change.operation, change.at, change.info, change.differences, change.hidden)
    return (change.model, change.key, *says)


def expected(change: oracle.Change, shape: str | None = None) -> tuple[Any, ...]:
    """All that a change must say, as the model of a shape tells it; by default the record's own."""
    row = change.row
    says = (row.version, row.operation, change.at, _change_info(row), change.differences, row.hidden)
    return (MODELS[shape or change.ident.shape], change.ident.key, *says)


def _check_differences(shape: Shape, record: Record, timeline: Timeline, versions: list[Any]) -> None:
    states = oracle.states(shape, record)
    ends = [*versions, *([timeline.live] if timeline.live is not None else [])]
    for number, one in enumerate(versions):
        for other in ends[number:]:
            expected = oracle.differences(states[one.version], states[other.version])
            assert timeline.diff(one, other) == expected
            expected |= oracle.hidden_changes(shape, record, one.version, other.version)
            assert timeline.diff(one, other, include_hidden=True) == expected


def _same(what: str, found: Mapping[Any, Any], expected: Mapping[Any, Any]) -> None:
    for key in [*expected, *found]:
        one, other = found.get(key), expected.get(key)
        assert one == other, f"of the {what}, {key} is\n{one}, and should be\n{other}"


def history_of(session: Session, ident: Ident) -> list[Row]:
    """The history rows of a record, by version."""
    parts = zip(SHAPES[ident.shape].key, ident.key, strict=True)
    key = {column(ident.shape, name): part for name, part in parts}
    return history_rows(session, history_source(ident.shape), **key)


def _version(shape: Shape, version: Any) -> tuple[int, Values]:
    return version.version, {name: getattr(version, name) for name in shape.tracked}


def _key(shape: Shape, row: Row) -> tuple[Any, ...]:
    return tuple(row[column(shape.name, name)] for name in shape.key)


def _values(shape: Shape, row: Row, names: Iterable[str]) -> Values:
    return {name: _value(kind(shape.name, name), row[column(shape.name, name)]) for name in names}


def _value(python_type: type, value: Any) -> Any:
    # SQLite keeps documents as text.
    return json.loads(value) if python_type is dict and isinstance(value, str) else value


def _change_info(row: oracle.Row) -> dict[str, Any]:
    document: dict[str, Any] = {"user_id": None, "remote_addr": None}
    if row.extra:
        document["extra"] = row.extra
    if row.hidden:
        document["hidden_cols_changed"] = list(row.hidden)
    return document

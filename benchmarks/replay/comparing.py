"""Hold what the service answers about one record against what the file says must have happened to it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from benchmarks.changes import History, Key, Living, Operation, Step
from benchmarks.replay.wire import key_text

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Words:
    """Says in words what no value can say."""

    text: str


ABSENT: Final = Words("nothing")
"""Stands for what is not there at all, where ``None`` is a value."""

_AN_INSTANT: Final = Words("an instant with an offset")


@dataclass(frozen=True, slots=True)
class Answers:
    """What the service says about one record, all pages together.

    :ivar current: ``current`` of its history
    :ivar versions: ``versions`` of its history, in the order of the answer
    :ivar changes: ``changes`` of its changes, in the order of the answer
    """

    current: Any
    versions: Sequence[Row]
    changes: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where the service and the file say different things.

    :ivar version: the number of the version or history row; ``None`` where the record as a whole is meant
    :ivar field: what differs there
    """

    key: Key
    version: int | None
    field: str
    expected: Any
    found: Any

    def __str__(self) -> str:
        where = key_text(self.key) if self.version is None else f"{key_text(self.key)} version {self.version}"
        return f"{where}: {self.field}: expected {_shown(self.expected)}, found {_shown(self.found)}"


def compare(history: History, answers: Answers | None, *, dated: bool = False) -> Iterator[Difference]:
    """Find all differences of one record.

    :param answers: ``None`` if the service does not know the record
    :param dated: whether each change must have the instant that the file gives
    """
    key = history.key
    if answers is None:
        yield Difference(key, None, "record", Words(f"a history of {len(history.changes)} changes"), ABSENT)
        return
    steps = list(history.steps())
    replaced = [step for step in steps if step.change.operation is not Operation.INSERT]
    yield from _numbering(key, "changes", steps, answers.changes)
    yield from _numbering(key, "versions", replaced, answers.versions)

    rows = _by_number(answers.changes)
    versions = _by_number(answers.versions)
    for step in steps:
        if (row := rows.get(step.version)) is not None:
            yield from _cause(key, "changes", step, row)
            if dated:
                yield from _moment(key, step, row)
            if step.change.operation is Operation.UPDATE:
                yield from _mapping(key, step.version, "differences", step.differences, row.get("differences"))
    for step in replaced:
        if (version := versions.get(step.version)) is not None:
            yield from _cause(key, "versions", step, version)
            yield from _mapping(key, step.version, "state", step.before, version.get("state"))
            yield from _begins(key, step.version, version, rows)
            yield from _same_change(key, step.version, version, rows.get(step.version))
    yield from _order_in_time(key, answers.changes)
    yield from _current(key, steps[-1], answers.current, rows)


def compare_table(
    view: str, expected: Mapping[Key, Living], found: Iterable[tuple[Key, int, Any, Any]]
) -> Iterator[Difference]:
    """Find all differences of a table as of an instant.

    :param view: how it was asked for
    :param found: key, version, when the state began as text (``ABSENT`` where that was not asked for), and the state
    """
    missing = dict(expected)
    for key, version, since, state in found:
        living = missing.pop(key, None)
        if living is None:
            yield Difference(key, version, view, ABSENT, Words("twice" if key in expected else "a record"))
            continue
        yield from _value(key, living.version, f"version {view}", living.version, version)
        if since is not ABSENT and _instant(since) != living.since:
            yield Difference(key, living.version, f"valid_from {view}", living.since.isoformat(), since)
        yield from _mapping(key, living.version, f"state {view}", living.state, state)
    for key, living in missing.items():
        yield Difference(key, living.version, view, Words("a record"), ABSENT)


def _numbering(key: Key, view: str, steps: Sequence[Step], rows: Sequence[Row]) -> Iterator[Difference]:
    """Each expected number once, in order, and no other."""
    expected = [step.version for step in steps]
    found = [row.get("version") for row in rows]
    if found == expected:
        return
    for step in steps:
        times = found.count(step.version)
        if times == 0:
            yield Difference(key, step.version, view, Words(f"a row of {step.change.operation}"), ABSENT)
        elif times > 1:
            yield Difference(key, step.version, view, Words("one row"), Words(f"{times} rows"))
    for number in found:
        if number not in expected:
            yield Difference(key, None, view, ABSENT, Words(f"a row of version {number}"))
    if sorted(found, key=str) == sorted(expected, key=str):
        yield Difference(key, None, f"order of {view}", expected, found)


def _cause(key: Key, view: str, step: Step, row: Row) -> Iterator[Difference]:
    """What replaced the state, and why."""
    operation = step.change.operation.value
    yield from _value(key, step.version, f"operation in {view}", operation, row.get("operation", ABSENT))
    rationale = _inside(row, "change_info", "extra", "change_rationale")
    yield from _value(key, step.version, f"change_rationale in {view}", step.change.rationale, rationale)
    if _instant(row.get("changed")) is None:
        yield Difference(key, step.version, f"changed in {view}", _AN_INSTANT, row.get("changed", ABSENT))


def _moment(key: Key, step: Step, row: Row) -> Iterator[Difference]:
    """Through the rows of changes, those of versions are compared as well."""
    expected, found = step.change.at, row.get("changed", ABSENT)
    if expected is None or _instant(found) != expected:
        at = ABSENT if expected is None else expected.isoformat()
        yield Difference(key, step.version, "instant", at, found)


def _begins(key: Key, version: int, row: Row, rows: Mapping[Any, Row]) -> Iterator[Difference]:
    """A state begins when the one before it was replaced."""
    before = rows.get(version - 1)
    if before is None:
        # Reported already, as a row that is missing.
        return
    expected, found = before.get("changed"), row.get("valid_from", ABSENT)
    if _instant(found) is None or _instant(found) != _instant(expected):
        yield Difference(key, version, f"valid_from (changed of row {version - 1})", expected, found)


def _same_change(key: Key, version: int, row: Row, change: Row | None) -> Iterator[Difference]:
    """Both views must tell of one and the same history row."""
    if change is None:
        return
    for field in ("changed", "transaction_id", "change_info"):
        yield from _value(key, version, f"{field} in versions", change.get(field, ABSENT), row.get(field, ABSENT))


def _order_in_time(key: Key, changes: Iterable[Row]) -> Iterator[Difference]:
    latest: datetime | None = None
    for row in changes:
        at = _instant(row.get("changed"))
        if at is None:
            continue
        if latest is not None and at < latest:
            yield Difference(
                key, row.get("version"), "changed", Words(f"not before {latest.isoformat()}"), row["changed"]
            )
        latest = at if latest is None else max(latest, at)


def _current(key: Key, last: Step, current: Any, rows: Mapping[Any, Row]) -> Iterator[Difference]:
    if last.after is None:
        yield from _value(key, None, "current", None, current)
        return
    version = last.version + 1
    if not isinstance(current, Mapping):
        yield Difference(key, version, "current", Words("the live state"), current)
        return
    yield from _value(key, version, "current.version", version, current.get("version", ABSENT))
    yield from _mapping(key, version, "current.state", last.after, current.get("state"))
    yield from _begins(key, version, current, rows)


def _mapping(
    key: Key, version: int, field: str, expected: Mapping[str, Any] | None, found: Any
) -> Iterator[Difference]:
    if expected is None or not isinstance(found, Mapping):
        yield from _value(key, version, field, expected, found)
        return
    for name in dict.fromkeys((*expected, *found)):
        yield from _value(key, version, f"{field}.{name}", expected.get(name, ABSENT), found.get(name, ABSENT))


def _value(key: Key, version: int | None, field: str, expected: Any, found: Any) -> Iterator[Difference]:
    # Python holds True for equal to 1, and JSON does not.
    if type(expected) is not type(found) or expected != found:
        yield Difference(key, version, field, expected, found)


def _by_number(rows: Iterable[Row]) -> dict[Any, Row]:
    return {row["version"]: row for row in rows if isinstance(row.get("version"), int)}


def _inside(row: Row, *path: str) -> Any:
    value: Any = row
    for name in path:
        value = value.get(name, ABSENT) if isinstance(value, Mapping) else ABSENT
    return value


def _instant(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return at if at.utcoffset() is not None else None


def _shown(value: Any) -> str:
    return value.text if isinstance(value, Words) else json.dumps(value, ensure_ascii=False)

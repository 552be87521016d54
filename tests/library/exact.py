"""Does history hold what happened to a table, and nothing besides? Told by reading both before and afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from chrononaut.history import versioning_of
from tests.library.rows import Row, history_rows, live_rows, state

Key = tuple[Any, ...]


@dataclass
class Happened:
    """What a block did to the records of a model.

    :ivar operations: key → operation; of what was left as it was, nothing
    """

    operations: dict[Key, str] = field(default_factory=dict)

    @property
    def keys(self) -> list[Any]:
        """The keys of what was changed; of a key of one part, the part."""
        return sorted(key[0] if len(key) == 1 else key for key in self.operations)


class _Tables:
    """What the tables of a model hold, by key."""

    def __init__(self, session: Session, model: Any) -> None:
        versioning = versioning_of(model)
        self.key = [column.name for column in versioning.key_columns]
        self.live = {self._key_of(row): row for row in live_rows(session, versioning.table.fullname)}
        self.history: dict[Key, dict[int, Row]] = {}
        for row in history_rows(session, versioning.history_table.fullname):
            self.history.setdefault(self._key_of(row), {})[row["version"]] = row

    def _key_of(self, row: Row) -> Key:
        return tuple(row[name] for name in self.key)


@contextmanager
def exactly_captured(session: Session, model: Any, more: bool = False) -> Iterator[Happened]:
    """A block after which history holds what it did to a model's table, one version for each record at the most.

    :param more: may there be versions of records that are what they were?
    """
    session.flush()
    before, happened = _Tables(session, model), Happened()
    yield happened
    session.flush()
    after = _Tables(session, model)
    moments = set()
    for key in before.live.keys() | after.live.keys() | after.history.keys():
        old, known = before.live.get(key), before.history.get(key, {})
        now = after.history.get(key, {})
        assert {version: now.get(version) for version in known} == known, key
        new = [row for version, row in now.items() if version not in known]
        versioned = more and len(new) == 1 and new[0]["operation"] == "update"
        expected = _expected(model, key, old, after.live.get(key), max(known, default=-2), versioned)
        assert [_told(row) for row in new] == expected, key
        for row in new:
            happened.operations[key] = row["operation"]
            moments.add((row["transaction_id"], row["changed"]))
            assert all(row["changed"] >= earlier["changed"] for earlier in known.values())
    assert len(moments) <= 1


def _told(row: Row) -> tuple[Any, ...]:
    return row["version"], row["operation"], state(row), row["change_info"].get("hidden_cols_changed", [])


def _expected(
    model: Any, key: Key, old: Row | None, new: Row | None, last: int, versioned: bool
) -> list[tuple[Any, ...]]:
    """The history row of what became of a record; none if it is what it was.

    :param versioned: does it have one although it is?
    """
    versioning = versioning_of(model)
    tracked = [column.name for column in versioning.tracked.values()]
    hidden = {name: column.name for name, column in versioning.hidden.items()}
    keys = dict(zip((column.name for column in versioning.key_columns), key, strict=True))
    version = versioning.version.name
    if old is None and new is None:
        return []
    if old is None:
        assert new is not None
        assert new[version] == last + 2, key
        given = [name for name, column in hidden.items() if new[column] is not None]
        return [(last + 1, "insert", dict.fromkeys(tracked) | keys, given)]
    pre_image = {name: old[name] for name in tracked}
    if new is None:
        return [
            (old[version], "delete", pre_image, [name for name, column in hidden.items() if old[column] is not None])
        ]
    differing = [name for name, column in hidden.items() if old[column] != new[column]]
    if not versioned and not differing and pre_image == {name: new[name] for name in tracked}:
        assert new[version] == old[version], key
        return []
    assert new[version] == old[version] + 1, key
    return [(old[version], "update", pre_image, differing)]

"""The change stream: read from a file, checked line by line, folded into what each record must have gone through.

Nothing here speaks to a service. A line that could not have happened (an update of a record that is not there, an
update that changes nothing) is refused with its number, because everything else counts on one history row a line.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeAlias

COLUMNS: Final = (
    "released_on",
    "end_of_life",
    "active_support",
    "extended_support",
    "lts",
    "latest",
    "latest_released_on",
    "codename",
    "label",
    "link",
    "discontinued",
)
"""The columns of a release beside its key."""

Value: TypeAlias = str | bool | None
State: TypeAlias = Mapping[str, Value]
"""All columns of a record, the key columns included; ``None`` for those that are not set."""

_GZIP_MAGIC: Final = b"\x1f\x8b"


class ChangeFileError(Exception):
    """The file of changes cannot be read, or is not one; the text says where and why."""


class ImpossibleChangeError(ValueError):
    """A line that is no change, or a change that could not have happened."""


class Operation(StrEnum):
    """What a change does to a record."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


class Key(NamedTuple):
    """What identifies a release."""

    product: str
    cycle: str

    def __str__(self) -> str:
        return f"{self.product} {self.cycle}"


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the file.

    :ivar values: the columns with their new values; empty for a delete
    :ivar at: when it was made, in UTC; ``None`` where the file does not say
    :ivar ref: what it was a part of; ``None`` where the file does not say
    """

    operation: Operation
    key: Key
    values: Mapping[str, Value]
    rationale: str
    at: datetime | None = None
    ref: str | None = None

    def apply(self, before: State | None) -> State | None:
        """Say what the record is after this change.

        :param before: the record as it was; ``None`` while it did not exist
        :return: the record as it is then; ``None`` once deleted
        :raises ImpossibleChangeError: the record is there and must not be, or the reverse, or nothing would change
        """
        if self.operation is Operation.INSERT:
            if before is not None:
                raise ImpossibleChangeError(f"inserts {self.key}, which is already there")
            return {**self.key._asdict(), **dict.fromkeys(COLUMNS), **self.values}
        if before is None:
            raise ImpossibleChangeError(f"{self.operation}s {self.key}, which is not there")
        if self.operation is Operation.DELETE:
            return None
        after = {**before, **self.values}
        if after == before:
            raise ImpossibleChangeError(f"changes nothing of {self.key}")
        return after


class Step(NamedTuple):
    """One change of a record with the states around it.

    :ivar version: the number of its history row, which is that of the state it replaced; -1 for the first insert
    """

    version: int
    change: Change
    before: State | None
    after: State | None

    @property
    def differences(self) -> dict[str, dict[str, Value]]:
        """What an update changed, as the service words it: column to ``{"from": ..., "to": ...}``."""
        before, after = self.before or {}, self.after or {}
        return {
            column: {"from": before.get(column), "to": value}
            for column, value in after.items()
            if before.get(column) != value
        }


class Living(NamedTuple):
    """A record as it was at an instant.

    :ivar since: when its state began
    """

    version: int
    since: datetime
    state: State


@dataclass(frozen=True, slots=True)
class History:
    """What the service must hold about one record after these changes.

    :ivar changes: all changes of the record, oldest first; at least one
    """

    key: Key
    changes: tuple[Change, ...]

    def steps(self) -> Iterator[Step]:
        """Replay the changes, oldest first.

        :raises ImpossibleChangeError: the changes do not follow from one another
        """
        state: State | None = None
        # Without gaps: an insert after delete row n is row n + 1, and the state that it makes is n + 2.
        for version, change in enumerate(self.changes, start=-1):
            before, state = state, change.apply(state)
            yield Step(version, change, before, state)


def fold(changes: Iterable[Change]) -> dict[Key, History]:
    """Gather the changes of each record.

    :param changes: in the order of the file
    :return: the histories, in the order in which the records first occur
    """
    gathered: dict[Key, list[Change]] = {}
    for change in changes:
        gathered.setdefault(change.key, []).append(change)
    return {key: History(key, tuple(own)) for key, own in gathered.items()}


def check_dated(changes: Iterable[Change], path: Path) -> None:
    """Make sure that each change says when it was made, and that none is earlier than the one before it.

    :param path: the file that they are from
    :raises ChangeFileError: one does not, or is
    """
    latest: datetime | None = None
    for number, change in enumerate(changes, start=1):
        if change.at is None:
            raise ChangeFileError(f"{path}, change {number}: has no instant (at), which an import needs")
        if latest is not None and change.at < latest:
            raise ChangeFileError(f"{path}, change {number}: is earlier than the change before it")
        latest = change.at


def fold_until(changes: Iterable[Change], instants: Iterable[datetime]) -> Iterator[tuple[datetime, dict[Key, Living]]]:
    """Say which records there were at some instants, and what they were. At the instant of a change it has happened.

    :param changes: as `check_dated` wants them
    :param instants: ascending
    """
    living: dict[Key, Living] = {}
    versions: dict[Key, int] = {}
    remaining = iter(instants)
    instant = next(remaining, None)
    for change in changes:
        assert change.at is not None
        while instant is not None and instant < change.at:
            yield instant, dict(living)
            instant = next(remaining, None)
        version = versions[change.key] = versions.get(change.key, -1) + 1
        before = living.pop(change.key, None)
        after = change.apply(None if before is None else before.state)
        if after is not None:
            living[change.key] = Living(version, change.at, after)
    for last in (instant, *remaining):
        if last is not None:
            yield last, dict(living)


def read(path: Path, limit: int | None = None) -> list[Change]:
    """Read a file of changes, plain or gzip, one JSON object a line; blank lines are skipped.

    :param limit: how many changes to read at most; all without it
    :return: the changes in the order of the file; at least one
    :raises ChangeFileError: with the number of the line where a line is to blame
    """
    try:
        with _open(path) as lines:
            changes = list(islice(_checked(path, lines), limit))
    # A gzip file that breaks off raises EOFError, one with a damaged inside zlib.error; BadGzipFile is an OSError.
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ChangeFileError(f"{path} is a broken gzip file: {error}") from error
    except OSError as error:
        raise ChangeFileError(f"cannot read {path}: {error.strerror or error}") from error
    if not changes:
        raise ChangeFileError(f"{path} holds no changes")
    return changes


def parse(line: str) -> Change:
    """Read one line.

    :raises ImpossibleChangeError: it is not JSON, or not a change
    """
    try:
        document = json.loads(line)
    except ValueError as error:
        raise ImpossibleChangeError(f"not JSON: {error}") from None
    except RecursionError:
        raise ImpossibleChangeError("not a change: nested too deep") from None
    if not isinstance(document, dict):
        raise ImpossibleChangeError("not a JSON object")
    name: Any = document.get("op")
    try:
        operation = Operation(name)
    except ValueError:
        raise ImpossibleChangeError(f"op must be one of {', '.join(Operation)}, not {name!r}") from None
    key = Key(_text(document, "product"), _text(document, "cycle"))
    return Change(
        operation,
        key,
        _values(document, operation),
        _text(document, "rationale"),
        _instant(document) if "at" in document else None,
        _text(document, "ref") if "ref" in document else None,
    )


def _checked(path: Path, lines: Iterable[bytes]) -> Iterator[Change]:
    live: dict[Key, State | None] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            change = parse(line.decode("utf-8"))
            live[change.key] = change.apply(live.get(change.key))
        except UnicodeDecodeError:
            raise ChangeFileError(f"{path}, line {number}: not UTF-8") from None
        except ImpossibleChangeError as error:
            raise ChangeFileError(f"{path}, line {number}: {error}") from None
        yield change


def _open(path: Path) -> BinaryIO | gzip.GzipFile:
    """Open a file for its lines, told by its first bytes and not by its name."""
    with path.open("rb") as file:
        compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    if compressed:
        return gzip.open(path, "rb")
    if path.suffix == ".gz":
        raise ChangeFileError(f"{path} is not a gzip file")
    return path.open("rb")


def _text(document: Mapping[str, Any], field: str) -> str:
    value = document.get(field)
    if not isinstance(value, str) or not value:
        raise ImpossibleChangeError(f"{field} must be a non-empty string, not {value!r}")
    return _encodable(field, value)


def _instant(document: Mapping[str, Any]) -> datetime:
    text = _text(document, "at")
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise ImpossibleChangeError(f"at must be an instant with an offset, not {text!r}")
    return at.astimezone(UTC)


def _values(document: Mapping[str, Any], operation: Operation) -> dict[str, Value]:
    if operation is Operation.DELETE:
        if "set" in document:
            raise ImpossibleChangeError("a delete sets nothing")
        return {}
    values = document.get("set")
    if not isinstance(values, dict):
        raise ImpossibleChangeError(f"set must be an object, not {values!r}")
    for column, value in values.items():
        if column not in COLUMNS:
            raise ImpossibleChangeError(f"set names {column!r}, which is no column")
        if isinstance(value, str):
            _encodable(column, value)
        elif value is not None and not isinstance(value, bool):
            raise ImpossibleChangeError(f"{column} must be a string, true, false or null, not {value!r}")
    return values


def _encodable(field: str, value: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        # JSON can escape half of a surrogate pair, which no request could carry.
        raise ImpossibleChangeError(f"{field} holds half of a surrogate pair: {value!a}") from None
    return value

"""Which changes of a file are in the history already, so that an import is simply run again."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeDecorator

from chrononaut.history import Key, Operation, Versioning
from chrononaut.importing import ImportedChange, transaction_id_of
from chrononaut.types import Instant, is_among, is_distinct

_LOOKED_UP = 1000  # changes by one statement

_Name = tuple[UUID, Key, Operation]
"""What a history row says of its change, and a change of its history row."""


class WrongChangeError(ValueError):
    """What is there says something else than a change.

    :ivar position: of the change, from 0
    """

    def __init__(self, position: int, problem: str) -> None:
        self.position = position
        super().__init__(problem)


class Repeated:
    """Tells the changes that are there from those that are to be made.

    A change is there if a history row has its transaction, its key and its operation, and its values led to the state
    after that. An update that changed nothing has left no row: it counts as there if the record has gone on since from
    a state that has its values.
    """

    def __init__(self, session: Session, versioning: Versioning) -> None:
        self.versioning = versioning
        self.connection = session.connection(bind_arguments={"mapper": versioning.mapper})
        self.key = [versioning.history_table.c[one.key] for one in versioning.key_columns]

    def missing(self, changes: Sequence[ImportedChange]) -> list[int]:
        """The positions of the changes that are not there.

        :raises WrongChangeError: what is there says something else
        """
        names = [_name(change) for change in changes]
        there = self._there(name for name in names if name is not None)
        versions = self._versions(changes, names, there)
        last = self._last(names[place] for place in range(len(changes)) if place not in versions)
        following: dict[Key, int] = {}
        missing: list[int] = []
        for place in reversed(range(len(changes))):
            name, change = names[place], changes[place]
            if place in versions and name is not None:
                following[name[1]] = versions[place]
            elif name is None or not self._is_past(name[1], change.at, following, last):
                missing.append(place)
            elif not self._changed_nothing(name, change, following):
                raise WrongChangeError(place, "is not there, and its record has later changes, which are")
        return missing[::-1]

    def _versions(
        self, changes: Sequence[ImportedChange], names: Sequence[_Name | None], there: Mapping[_Name, list[int]]
    ) -> dict[int, int]:
        """Position of a change that is there → the version of its history row."""
        found: dict[int, int] = {}
        used, wanted = Counter[_Name](), Counter(names)
        for place, (name, change) in enumerate(zip(names, changes, strict=True)):
            if name is None:
                continue
            versions = there.get(name, [])
            rest = versions[used[name] :]
            for skipped, version in enumerate(rest):
                if self._holds(name[1], version + 1, change.values):
                    found[place] = version
                    used[name] += skipped + 1
                    break
            else:
                # An update that changed nothing may stand beside others of its transaction.
                if rest and len(versions) >= wanted[name]:
                    raise WrongChangeError(place, "is otherwise in the history that is there already")
        return found

    def _there(self, names: Iterable[_Name]) -> dict[_Name, list[int]]:
        own = self.versioning.column
        columns = [own("transaction_id"), *self.key, own("operation"), own("version")]
        found: defaultdict[_Name, list[int]] = defaultdict(list)
        for ids in _some([*dict.fromkeys(one for one, _, _ in names)]):
            is_wanted = is_among(columns[:1], [(one,) for one in ids], self.connection.dialect.name)
            statement = sa.select(*columns).where(is_wanted).order_by(own("version"))
            for transaction, *key, operation, version in self.connection.execute(statement):
                found[transaction, tuple(key), operation].append(version)
        return found

    def _last(self, names: Iterable[_Name | None]) -> dict[Key, datetime]:
        """When each record was changed last."""
        last = sa.func.max(self.versioning.column("changed"), type_=Instant)
        found: dict[Key, datetime] = {}
        for keys in _some([*dict.fromkeys(name[1] for name in names if name is not None)]):
            is_wanted = is_among(self.key, keys, self.connection.dialect.name)
            statement = sa.select(last, *self.key).where(is_wanted).group_by(*self.key)
            found |= {tuple(key): at for at, *key in self.connection.execute(statement)}
        return found

    def _is_past(self, key: Key, at: datetime, following: Mapping[Key, int], last: Mapping[Key, datetime]) -> bool:
        return key in following or (key in last and at < last[key])

    def _changed_nothing(self, name: _Name, change: ImportedChange, following: Mapping[Key, int]) -> bool:
        _, key, operation = name
        if operation != "update":
            return False
        version = following.get(key)
        if version is None:
            later = self.versioning.has_key(key), self.versioning.column("changed") > change.at
            version = self.connection.execute(
                sa.select(sa.func.min(self.versioning.column("version"))).where(*later)
            ).scalar_one()
        return self._holds(key, version, change.values)

    def _holds(self, key: Key, version: int, values: Mapping[str, Any]) -> bool:
        """Has a state of a record some values? What history does not keep of them it may have or not."""
        kept = {name: self.versioning.columns[name] for name in values if self._is_compared(name)}
        if not kept:
            return True
        history = {column: self.versioning.history_table.c[column.key] for column in kept.values()}
        is_prior = self.versioning.has_key(key), self.versioning.column("version") == version
        row = self.connection.execute(self._same(kept, values, history).where(*is_prior)).scalar_one_or_none()
        if row is None:
            live = {column: column for column in kept.values()}
            same = [column == part for column, part in zip(self.versioning.key_columns, key, strict=True)]
            statement = self._same(kept, values, live).where(*same, self.versioning.version == version)
            row = self.connection.execute(statement).scalar_one_or_none()
        return bool(row)

    def _is_compared(self, name: str) -> bool:
        type_ = self.versioning.columns[name].type if name in self.versioning.tracked else None
        # The Python of another decorator may make another value each time.
        return type_ is not None and (isinstance(type_, Instant | sa.Interval) or not isinstance(type_, TypeDecorator))

    def _same(
        self, kept: Mapping[str, sa.Column[Any]], values: Mapping[str, Any], columns: Mapping[Any, Any]
    ) -> sa.Select[Any]:
        dialect = self.connection.dialect
        given = {name: bindparam(None, values[name], type_=column.type) for name, column in kept.items()}
        return sa.select(
            sa.not_(sa.or_(*(is_distinct(columns[column], given[name], dialect) for name, column in kept.items())))
        )


def _name(change: ImportedChange) -> _Name | None:
    """``None`` of a change that is none: the import says what is wrong with it."""
    try:
        hash(change.key)
        hash(change.operation)
    except TypeError:
        return None
    if any(part is None for part in change.key):
        return None
    return transaction_id_of(change.at, change.transaction), change.key, change.operation


def _some(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _LOOKED_UP):
        yield values[start : start + _LOOKED_UP]

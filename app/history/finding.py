"""How the record that an address names is found, and what is answered where it is not."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from app.db import session, snapshot
from app.instants import instant_text
from app.problems import Problem
from app.registry import Resource, UnknownKeyError
from chrononaut import Span, State, States, Timeline, queries
from chrononaut.history import Key, Versioning
from chrononaut.states import RecordStates


def unknown_record(resource: Resource, key_text: str) -> Problem:
    """There never was such a record."""
    parts = ",".join(f"{{{name}}}" for name in resource.versioning.key)
    return Problem(
        "unknown-record", f"there never was a {resource.name} with the key {key_text[:200]!r}; a key is {parts}"
    )


def unknown_version(number: int) -> Problem:
    """The record has no version of this number."""
    return Problem("unknown-version", f"the record has no version {number}")


@cache
def _select_live(resource: Resource, to_write: bool) -> sa.Select[Any]:
    """The live object of a record, and when its state began."""
    names, columns = _key_names(resource.versioning), resource.versioning.key_columns
    key = [column == sa.bindparam(name, type_=column.type) for name, column in zip(names, columns, strict=True)]
    select = sa.select(resource.model, queries.began(resource.model)).where(*key).options(*resource.shown)
    return select.with_for_update(key_share=True) if to_write else select


def _key_names(versioning: Versioning) -> list[str]:
    return [f"key_{place}" for place in range(len(versioning.key))]


def timeline_of(resource: Resource, key_text: str, *, to_write: bool = False) -> Timeline:
    """The history of the record that a text is the key of.

    :param to_write: lock the record, if it is live, so that nobody changes it before it is written
    :raises Problem: 404: there never was such a record
    """
    key = key_of(resource, key_text)
    parameters = dict(zip(_key_names(resource.versioning), key, strict=True))
    row = session().execute(_select_live(resource, to_write), parameters).unique().one_or_none()
    live, valid_from = row or (None, None)
    read = None if live is None else Span(resource.versioning.own(live, "version"), valid_from, None)
    timeline = Timeline(session(), resource.model, key, live, read)
    if not timeline.exists():
        raise unknown_record(resource, key_text)
    return timeline


@dataclass(frozen=True, slots=True)
class Found:
    """The states of the record that an address names.

    Whether there ever was such a record is asked only where it has not what is looked for.
    """

    resource: Resource
    key_text: str
    states: RecordStates

    @classmethod
    def by_key(cls, resource: Resource, states: States, key_text: str) -> "Found":
        """:raises Problem: 404: no record can have the key"""
        return cls(resource, key_text, states.of(snapshot(), key_of(resource, key_text)))

    def refuse_unknown(self) -> None:
        """:raises Problem: 404: there never was such a record"""
        if not self.states.exists():
            raise unknown_record(self.resource, self.key_text)

    def numbered(self, number: int) -> State:
        """The state that has a number.

        :raises Problem: 404: there is none
        """
        found = self.states.version(number)
        if found is None:
            self.refuse_unknown()
            raise unknown_version(number)
        return found

    def valid_at(self, at: datetime) -> State:
        """The state that was valid at an instant.

        :raises Problem: 404: the record did not exist then
        """
        found = self.states.version_at(at)
        if found is None:
            self.refuse_unknown()
            raise Problem("unknown-version", f"the record did not exist at {instant_text(at)}")
        return found

    def live(self) -> State:
        """The live state.

        :raises Problem: 404: the record was deleted
        """
        if self.states.live is None:
            self.refuse_unknown()
            raise Problem(
                "unknown-version", "the record was deleted and has no live state; say which version to compare to"
            )
        return self.states.live


def key_of(resource: Resource, key_text: str) -> Key:
    """The record key that a text stands for.

    :raises Problem: 404: no record can have it
    """
    try:
        return resource.parse_key(key_text)
    except UnknownKeyError:
        raise unknown_record(resource, key_text) from None

"""What the OpenAPI document shows of a model: a record that was made on one day, and changed on the next."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jsonpatch
import sqlalchemy as sa

from app.columns import changeable, new_schema, state_schema
from app.examples import another, example_of
from app.instants import instant_text
from app.registry import Resource
from chrononaut import Span

Document = dict[str, Any]

_MADE, _CHANGED = datetime(2026, 3, 1, 9, tzinfo=UTC), datetime(2026, 3, 2, 10, tzinfo=UTC)
_MADE_TEXT, _CHANGED_TEXT = instant_text(_MADE), instant_text(_CHANGED)
TRANSACTION_ID = "01990e5c-7d2a-7a31-9c1f-0d6a54b1f0aa"
CHANGE_INFO = {
    "user_id": "admin@example.com",
    "remote_addr": "127.0.0.1",
    "request_id": "01990e5c-7d2a-7a31-9c1f-0d6a54b1f0aa",
    "extra": {"change_rationale": "User request"},
}
SPANS = [Span(0, _MADE, _CHANGED), Span(1, _CHANGED, None)]
"""When the record's two versions were valid."""


@dataclass(frozen=True, slots=True)
class Another:
    """A record that is made beside that one.

    :ivar new: its columns, as they are sent
    """

    key_text: str
    new: Document


def _unique(table: sa.FromClause) -> set[Any]:
    """The last column of each set of columns whose values no two rows have in common."""
    rules: Iterable[Any] = (*table.constraints, *table.indexes) if isinstance(table, sa.Table) else ()
    return {
        [*rule.columns][-1]
        for rule in rules
        if isinstance(rule, sa.UniqueConstraint) or (isinstance(rule, sa.Index) and rule.unique)
        if len(rule.columns) > 0
    }


class Examples:
    """The documents about that record.

    The change gives a value to the first column that can be empty; where none can, it is one of hidden columns.
    """

    def __init__(self, resource: Resource) -> None:
        versioning = resource.versioning
        self._resource = resource
        made = example_of(state_schema(resource)())
        self.after = {name: made[name] for name in versioning.tracked}
        empty = [
            name for name, column in changeable(resource).items() if column.nullable and name in versioning.tracked
        ][:1]
        self.before = self.after | dict.fromkeys(empty)
        self.key_text = resource.key_text(tuple(self.after[name] for name in versioning.key))
        self.identified = resource.identified(self.key_text)
        self.values = {name: self.after[name] for name in empty}
        self.differences = {name: {"from": None, "to": self.after[name]} for name in empty}
        self.hidden_changed = [] if empty else [*versioning.hidden]
        self._cause = {
            "version": 0,
            "operation": "update",
            "changed": _CHANGED_TEXT,
            "change_info": CHANGE_INFO,
            "transaction_id": TRANSACTION_ID,
        }

    @property
    def another(self) -> "Another":
        """Another record that is made: it differs in what no two records have in common."""
        new, key = new_schema(self._resource)(), self._resource.versioning.key
        columns = self._resource.versioning.columns
        alone = {key[-1], *(name for name, column in columns.items() if column in _unique(column.table))}
        fields, values = state_schema(self._resource)().fields | new.fields, self.after | example_of(new)
        values |= {name: another(values[name], fields[name]) for name in alone if name in values}
        return Another(
            self._resource.key_text(tuple(values[name] for name in key)), {name: values[name] for name in new.fields}
        )

    @property
    def prior(self) -> Document:
        """The version that was replaced."""
        return self._cause | {"valid_from": _MADE_TEXT, "state": self.before}

    @property
    def current(self) -> Document:
        """The version that lives."""
        return {"version": 1, "valid_from": _CHANGED_TEXT, "state": self.after}

    @property
    def versions(self) -> Document:
        return self.identified | {"current": self.current, "versions": [self.prior], "purged": [], "next": None}

    @property
    def version(self) -> Document:
        return self.identified | self.prior

    @property
    def changed_since(self) -> Document:
        return self.identified | {"has_changed": True, "since": _MADE_TEXT, "last_changed": _CHANGED_TEXT}

    @property
    def diff(self) -> Document:
        return self.identified | {
            "from": {"version": 0, "valid_from": _MADE_TEXT, "changed": _CHANGED_TEXT},
            "to": {"version": 1, "valid_from": _CHANGED_TEXT, "changed": None},
            "changes": self.differences,
            "hidden_changed": self.hidden_changed,
            "purged": [],
        }

    @property
    def patch(self) -> list[Document]:
        operations: list[Document] = jsonpatch.make_patch(self.before, self.after).patch
        return operations

    @property
    def change(self) -> Document:
        return self._cause | {"differences": self.differences, "hidden_changed": self.hidden_changed}

    @property
    def changes(self) -> Document:
        return self.identified | {"changes": [self.change], "next": None}

    @property
    def change_of_record(self) -> Document:
        """The change, as it stands among those of other records."""
        return self.identified | self.change

    @property
    def blame(self) -> Document:
        hidden = {name: self._cause | {"from": None, "to": None} for name in self.hidden_changed}
        changed = {name: self._cause | values for name, values in self.differences.items()}
        return self.identified | {"columns": hidden | changed}

    def erasure(self, columns: list[str]) -> Document:
        """What was erased from the prior version.

        :param columns: those whose values went
        """
        mark = {"at": _CHANGED_TEXT, "user_id": "admin@example.com", "columns": columns, "reasons": True}
        extra = {"change_rationale": "Request 4711"}
        counts = {"versions": 1, "changes": 2, "users": 0, "rows": 2}
        return self.identified | counts | {"erased": mark | {"extra": extra}, "still_live": []}

    def record(self, fields: Document) -> Document:
        """The record as it is.

        :param fields: its columns
        """
        return self.identified | self.current | {"state": fields}

    @property
    def past_record(self) -> Document:
        """The record as it was on the first day."""
        return self.identified | {"version": 0, "valid_from": _MADE_TEXT, "state": self.before}

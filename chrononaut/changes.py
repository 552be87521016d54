"""Changes as people read them: what replaced one state by the next, and who and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from chrononaut import queries
from chrononaut.diff import Differences, differences
from chrononaut.history import STATELESS, History, Key, Operation, Versioning
from chrononaut.types import JSONObject

_BATCH = 500  # keys in one query

_States = dict[tuple[Key, int], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Change:
    """What replaced one state of a record by the next, and who and why.

    :ivar model: the model whose record it is
    :ivar key: the record key
    :ivar version: the number of the state that was replaced; of an ``insert`` the one below the record's first
    :ivar at: when, in UTC
    :ivar info: the change info
    :ivar operation: ``purge`` stands for all changes that were purged up to this version: ``info`` says which
    :ivar differences: attribute name → (value before, value after); of an ``insert`` and a ``delete`` against ``None``.
        None are known of a ``purge``, nor where the state that followed was purged
    :ivar hidden: the hidden attributes that changed
    :ivar erased: the attributes whose value before or after was erased: what became of them is not known
    """

    model: type
    key: Key
    version: int
    operation: Operation
    at: datetime
    info: JSONObject
    transaction_id: UUID
    differences: Differences
    hidden: tuple[str, ...]
    erased: tuple[str, ...] = ()


def changes_of(session: Session, versioning: Versioning, rows: Sequence[History]) -> list[Change]:
    """What history rows of a model tell, in the same order.

    The states that followed are read from history, and from the live rows, in sets.

    :param rows: of one record or of several
    """
    operations = {versioning.identity_of(row): versioning.own(row, "operation") for row in rows}
    states: _States = {
        versioning.identity_of(row): versioning.known(row)
        for row in rows
        if versioning.own(row, "operation") not in STATELESS
    }
    replaced = {
        (key, version + 1) for (key, version), operation in operations.items() if operation not in ("delete", "purge")
    }
    unknown = sorted(replaced - operations.keys(), key=repr)
    dialect = session.get_bind(versioning.mapper).dialect.name
    for start in range(0, len(unknown), _BATCH):
        batch = unknown[start : start + _BATCH]
        for states_of in (queries.live_states, queries.prior_states):
            select = states_of(versioning, batch, dialect)
            for version, info, *values in session.execute(select, bind_arguments={"mapper": versioning.mapper}):
                state = dict(zip(versioning.tracked, values, strict=True))
                key = tuple(state[name] for name in versioning.key)
                erased = versioning.erased_by(info)
                states[key, version] = {name: value for name, value in state.items() if name not in erased}
    return [_change(versioning, row, states) for row in rows]


def _change(versioning: Versioning, row: History, states: _States) -> Change:
    key, version = versioning.identity_of(row)
    operation: Operation = versioning.own(row, "operation")
    absent = dict.fromkeys(versioning.tracked)
    before = absent if operation in STATELESS else states[key, version]
    # A state that nobody archived, as when another program has deleted it, or that was purged: what changed into it is
    # not known.
    after = absent if operation in ("delete", "purge") else states.get((key, version + 1), before)
    info: JSONObject = versioning.own(row, "change_info")
    return Change(
        model=versioning.model,
        key=key,
        version=version,
        operation=operation,
        at=versioning.own(row, "changed"),
        info=info,
        transaction_id=versioning.own(row, "transaction_id"),
        differences={name: values for name, values in differences(before, after).items() if name not in versioning.key},
        hidden=tuple(info.get("hidden_cols_changed", ())),
        erased=tuple(name for name in versioning.tracked if name not in before or name not in after),
    )

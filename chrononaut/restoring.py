"""An old state of a record once more: in the live object, or in a new one."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import sqlalchemy as sa

from chrononaut.diff import differences
from chrononaut.exceptions import RestoreError
from chrononaut.history import Key, Versioning

State = Mapping[str, Any]
"""Attribute name → value."""


def revert(versioning: Versioning, live: Any, state: State, values: State) -> None:
    """Set a live object's attributes to those of a prior state.

    :param state: the tracked attributes that are known
    :param values: what goes before them
    :raises RestoreError: it was no object of this class then; a value is missing, or cannot be given
    """
    settable = _settable(versioning)
    _refuse_unsettable(versioning, settable, values)
    if kind(versioning, state) != kind(versioning, versioning.state(live)):
        raise RestoreError(f"it was no {versioning.name} in that version: delete it, and restore the version")
    names = [name for name in versioning.tracked if name in settable and name not in versioning.stamped]
    _refuse_erased(versioning, [name for name in names if name not in state and name not in values])
    wanted = {name: state[name] for name in names if name in state} | dict(values)
    _refuse_missing(
        versioning, [name for name, value in wanted.items() if value is None and not settable[name].nullable]
    )
    # A hidden value is not read to be compared: that it is the same is seen when it is written.
    compared = {name: value for name, value in wanted.items() if name not in versioning.hidden}
    changed = differences({name: getattr(live, name) for name in compared}, compared)
    for name in (*changed, *(wanted.keys() - compared.keys())):
        setattr(live, name, deepcopy(wanted[name]))


def recreate(versioning: Versioning, key: Key, state: State, values: State) -> Any:
    """A new object with the attributes of a prior state.

    :param state: the tracked attributes that are known
    :param values: what goes before them
    :raises RestoreError: a value is missing, or cannot be given
    """
    settable = _settable(versioning)
    _refuse_unsettable(versioning, settable, values)
    # What an insert stamps anew has a default; and a column that is newer than the state has NULL in it.
    names = [
        name
        for name in versioning.tracked
        if name in settable and not (name in versioning.stamped and _has_default(settable[name]))
    ]
    _refuse_erased(versioning, [name for name in names if name not in state and name not in values])
    kept = {
        name: state[name]
        for name in names
        if name in state and not (state[name] is None and not settable[name].nullable)
    }
    wanted = kept | dict(values)
    _refuse_missing(
        versioning,
        [
            name
            for name, column in settable.items()
            if wanted.get(name) is None and not (column.nullable or (_has_default(column) and name not in wanted))
        ],
    )
    # As the ORM makes an object that it loads: the class's own constructor may want something else.
    obj = versioning.mapper.class_manager.new_instance()
    for name, value in (*zip(versioning.key, key, strict=True), *wanted.items()):
        setattr(obj, name, deepcopy(value))
    return obj


def kind(versioning: Versioning, state: State) -> Any:
    """What says of a state which model of a hierarchy it is of; ``None`` where nothing does."""
    column = versioning.mapper.polymorphic_on
    return next((state[name] for name, one in versioning.tracked.items() if one is column), None)


def _settable(versioning: Versioning) -> Mapping[str, sa.Column[Any]]:
    """The attributes, but the key's, that neither the database nor the ORM sets by itself."""
    return {
        name: column
        for name, column in versioning.columns.items()
        if name not in versioning.key and name not in versioning.generated
    }


def _has_default(column: sa.Column[Any]) -> bool:
    return column.default is not None or column.server_default is not None


def _refuse_unsettable(versioning: Versioning, settable: Mapping[str, Any], values: State) -> None:
    if wrong := [name for name in values if name not in settable]:
        raise RestoreError(f"{versioning.name}.{wrong[0]} cannot be given; what can: {', '.join(settable)}")


def _refuse_missing(versioning: Versioning, names: list[str]) -> None:
    if names:
        raise RestoreError(
            f"no value is known of {versioning.name}.{', '.join(names)}, which cannot be empty; give it: {names[0]}=…",
            names,
        )


def _refuse_erased(versioning: Versioning, names: list[str]) -> None:
    if names:
        raise RestoreError(
            f"{versioning.name}.{', '.join(names)} was erased from that version; give what it shall be: {names[0]}=…",
            names,
        )

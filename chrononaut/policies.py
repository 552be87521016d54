"""Which policy of retention each model has: what the setting says, or else what the model declares."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import sqlalchemy as sa

from chrononaut.exceptions import OptionError
from chrononaut.history import Versioning
from chrononaut.options import RETENTION, check_held
from chrononaut.retention import Retention

SETTING = "CHRONONAUT_RETENTION"
"""The setting that goes before what models declare."""


def policies(versionings: Collection[Versioning], setting: Mapping[str, Retention]) -> dict[Versioning, Retention]:
    """The policies of models: what a setting says of each by its name, or else what the model itself declares. What is
    held by what the model declares stays so, unless the setting says what is.

    :param versionings: all models of the application
    :return: the roots of hierarchies that have one; the others' history is kept whole
    :raises OptionError: the setting names a model that has no history of its own, or it cannot be told what is held
    """
    roots = {one.name: one for one in versionings if len(one.tables) == 1 and not one.mapper.single}
    for name in setting:
        if name not in roots:
            below = next((one for one in versionings if one.name == name), None)
            raise OptionError(
                name,
                SETTING,
                f"no model of this name has a history table; there are {', '.join(sorted(roots))}"
                if below is None
                else f"it is purged with {below.root.name}, which it inherits from",
            )
    found = {}
    for name, one in roots.items():
        declared = one.options.retention
        retention = setting.get(name) or declared
        if retention is None:
            continue
        if retention.held is None and declared is not None:
            # Whoever sets a number means to let no held record go.
            retention = replace(retention, held=declared.held)
        refuse_untold_hold(one, SETTING if name in setting else RETENTION, retention)
        found[one] = retention
    return found


def refuse_untold_hold(versioning: Versioning, option: str, retention: Retention) -> None:
    """:raises OptionError: it cannot be told what is held"""
    check_held(versioning.name, option, retention, versioning.tracked)
    if not callable(retention.held):
        return
    for entity in (versioning.model, versioning.history):
        try:
            criterion = retention.held(entity)
        except Exception as error:
            raise OptionError(versioning.name, option, f"held cannot be told of {entity.__name__}: {error}") from error
        if not isinstance(criterion, sa.ClauseElement) and not hasattr(criterion, "__clause_element__"):
            raise OptionError(
                versioning.name,
                option,
                f"held must make a criterion of SQL of {entity.__name__}, as `lambda note: note.text == 'x'` does, "
                f"not {criterion!r}",
            )

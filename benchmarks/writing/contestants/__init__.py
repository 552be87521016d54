"""Those whose writing is compared: the same model, and one way each of keeping its history.

A contestant is measured in a process of its own, which imports no other: what one listens to weighs on no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final

import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy

FLOOR: Final = "floor"
CHRONONAUT: Final = "chrononaut"
TRIGGER: Final = "trigger"
HISTORY_OBJECT: Final = "history object"
CONTINUUM: Final = "continuum"

NAMES: Final = (FLOOR, CHRONONAUT, TRIGGER, HISTORY_OBJECT, CONTINUUM)
ROUNDS: Final = {HISTORY_OBJECT: 3, CONTINUUM: 2}
"""In how many rounds those that are slow are measured, at the most."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way of keeping history.

    :ivar db: what its sessions are from
    :ivar model: the model that all have
    :ivar history: the table of what was; ``None`` if it keeps nothing
    :ivar release: the model of the real changes; ``None`` if it does not replay them
    :ivar installing: name of the dialect → what is executed once the tables are there and filled
    """

    db: SQLAlchemy
    model: Any
    history: sa.Table | None = None
    release: Any = None
    installing: Mapping[str, Sequence[str]] = field(default_factory=dict)


def contestant(name: str) -> Contestant:
    """Import a contestant.

    :param name: one of `NAMES`
    """
    module = import_module(f"{__name__}.{name.replace(' ', '_')}")
    found: Contestant = module.CONTESTANT
    return found

"""Cuts: history rows that stand for others which were purged.

A cut is the last row of a run of consecutive rows of one record. It keeps its key, its number, when it ended and its
transaction, so that the rows around it read as before; it has no state, and says in its change info what was purged::

    {"user_id": null, "remote_addr": null,
     "purged": {"first": -1, "operation": "update", "at": "2026-03-01T09:00:00.000000Z", "user_id": null,
                "extra": {"rationale": "…"}}}

Of a hierarchy of models it keeps besides what tells of which of them the record was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, get_args

from chrononaut.exceptions import PurgedError
from chrononaut.history import NEVER, History, Operation, Versioning
from chrononaut.types import JSONObject, utc

PURGED = "purged"
"""The key of a cut's change info under which it says what was purged."""

OPERATIONS = tuple(one for one in get_args(Operation) if one != "purge")
"""What replaces states, and so what the last row of a run may have been."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Consecutive history rows of one record that were purged.

    :ivar first: the number of the first; -1 for the creation of a new key
    :ivar last: the number of the last, which the cut itself has
    :ivar changed: when the last ended, in UTC
    :ivar purged_at: when they were purged, the last time that the cut grew, in UTC
    :ivar user_id: who purged them; ``None`` if that was not told
    :ivar extra: why
    :ivar operation: what replaced the last: ``delete`` if the record was deleted then
    """

    first: int
    last: int
    changed: datetime
    purged_at: datetime
    user_id: str | None
    operation: Operation
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def version(self) -> int:
        """The number of the cut itself."""
        return self.last

    @classmethod
    def read(cls, version: int, changed: datetime, change_info: JSONObject) -> "Cut":
        """The cut that a row of history is."""
        purged = change_info[PURGED]
        return cls(
            first=purged["first"],
            last=version,
            changed=changed,
            purged_at=utc(datetime.fromisoformat(purged["at"])),
            user_id=purged["user_id"],
            operation=purged["operation"],
            extra=purged.get("extra", {}),
        )

    @classmethod
    def of(cls, versioning: Versioning, row: History) -> "Cut | None":
        """The cut that a history object is; ``None`` if it is another row."""
        if versioning.own(row, "operation") != "purge":
            return None
        return cls.read(*(versioning.own(row, name) for name in ("version", "changed", "change_info")))

    def error(self, model: str, key: tuple[Any, ...]) -> PurgedError:
        """What is raised when one of the versions is asked for."""
        return PurgedError(model, key, self.first, self.last, self.purged_at)


def damage(version: int, change_info: Any) -> str | None:
    """What is wrong with what a cut says; ``None`` if nothing is.

    :param change_info: what the database holds, whatever that is
    """
    purged = change_info.get(PURGED) if isinstance(change_info, dict) else None
    if not isinstance(purged, dict):
        return "does not say what was purged"
    first, operation, at = purged.get("first"), purged.get("operation"), purged.get("at")
    if not isinstance(first, int) or not NEVER <= first <= version:
        return f"cannot begin with version {first!r}"
    if operation not in OPERATIONS:
        return f"cannot end with the operation {operation!r}; it must be one of {', '.join(OPERATIONS)}"
    try:
        datetime.fromisoformat(str(at))
    except ValueError:
        return f"was not made at {at!r}, which is no instant"
    return None

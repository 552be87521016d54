"""What of history is kept, and for how long: the policies of models, as they and the settings declare them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

Held = str | Callable[[Any], Any]
"""Which records are held: the name of a tracked attribute, or what makes of a class a criterion of its attributes."""

_MOST = {"versions": 2**31 - 1, "days": 365_000, "daily_after": 365_000}


@dataclass(frozen=True, slots=True)
class Retention:
    """Which prior versions of a record are kept. `flask history purge` takes the others out of history.

    ::

        class User(db.Model, Versioned):
            __chrononaut_retention__ = Retention(versions=10, days=365, daily_after=30, held="legal_hold")

    A prior version is kept if it is one of the newest, or if it is young enough. The live state is never touched, and
    what is purged is no version that this keeps, whatever was purged before.

    :ivar versions: the newest prior versions that are kept, whatever their age; 0 and more
    :ivar days: those are kept that ended later than so many times 24 hours ago; 0 and more
    :ivar daily_after: of those that ended so many days ago or earlier, only those are kept that were valid at a
        midnight in UTC: the last state of each day; where ``days`` is given, of those that it keeps. 0 and more, less
        than ``days``
    :ivar held: a record with this is not purged at all: the name of a tracked attribute which then is true, or, unless
        it is a boolean, not NULL; or a function from the model, or from its history class, to a criterion of SQL. The
        live state counts; of a deleted record, its last one
    :raises ValueError: no rule is given, or a number is out of its range
    :raises TypeError: a value is of the wrong type
    """

    versions: int | None = None
    days: int | None = None
    daily_after: int | None = None
    held: Held | None = None

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            number: Any = getattr(self, name)
            if number is None:
                continue
            if not isinstance(number, int) or isinstance(number, bool):
                raise TypeError(f"{name} must be a whole number, not {number!r}")
            if not 0 <= number <= most:
                raise ValueError(f"{name} must be 0 to {most}, not {number}")
        if all(getattr(self, name) is None for name in _MOST):
            raise ValueError(f"says nothing of what is kept; give {', '.join(_MOST)}, or some of them")
        if self.days is not None and self.daily_after is not None and self.daily_after >= self.days:
            raise ValueError(f"daily_after must be less than days, {self.days}: what is that old is not kept at all")
        if not (self.held is None or isinstance(self.held, str) or callable(self.held)):
            raise TypeError(f"held must be the name of an attribute, or a function, not {self.held!r}")

    @classmethod
    def read(cls, given: Any) -> "Retention":
        """A policy, or one that is given as a mapping, as ``{"versions": 10}``.

        :raises ValueError: it is wrong
        """
        if isinstance(given, Retention):
            return given
        names = [field.name for field in fields(cls)]
        if not isinstance(given, Mapping):
            raise ValueError(f'must be a Retention, or a mapping as {{"versions": 10}}, not {given!r}')  # noqa: TRY004
        if unknown := [name for name in given if name not in names]:
            raise ValueError(f"has no {unknown[0]!r}; there are {', '.join(names)}")
        try:
            return cls(**given)
        except TypeError as error:
            raise ValueError(str(error)) from None


def read_setting(given: Any) -> dict[str, Retention]:
    """The policies of a setting: the name of each model → its policy.

    :param given: a mapping, or one as JSON text; policies as `Retention.read` takes them
    :raises ValueError: it is wrong
    """
    policies = given
    if isinstance(given, str):
        try:
            policies = json.loads(given)
        except ValueError as error:
            raise ValueError(f"is no JSON: {error}") from None
    if not isinstance(policies, Mapping):
        raise ValueError(  # noqa: TRY004
            f'must have a policy for each of some models, as {{"User": {{"versions": 10}}}}, not {given!r}'
        )
    read = {}
    for model, policy in policies.items():
        try:
            read[str(model)] = Retention.read(policy)
        except ValueError as error:
            raise ValueError(f"the policy of {model}: {error}") from None
    return read

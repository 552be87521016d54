"""What somebody may do: scopes, for all models or for one."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Scope = Literal["read", "write", "admin", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_IMPLIED: dict[Scope, frozenset[Scope]] = {
    "read": frozenset({"read"}),
    "write": frozenset({"read", "write"}),
    "admin": frozenset(SCOPES),
    "metrics": frozenset({"metrics"}),
}


class GrantError(ValueError):
    """A text that grants nothing; the message says what would."""


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """A scope, written ``read``, or for the records of one model only ``release:write``.

    The records of a model are also those of the models that inherit from it.

    :ivar model: the public name of the model; every one by default
    """

    scope: Scope
    model: str | None = None

    def __str__(self) -> str:
        return self.scope if self.model is None else f"{self.model}:{self.scope}"

    @classmethod
    def parse(cls, text: str) -> "Grant":
        """The grant that a text stands for.

        :raises GrantError: it has no scope, no model before its colon, or one where there can be none
        """
        model, colon, name = text.rpartition(":")
        scope = next((scope for scope in SCOPES if scope == name), None)
        if scope is None or bool(colon) != bool(model) or (model and scope == "metrics"):
            raise GrantError(f"{text!r} is no grant; write {', '.join(SCOPES)}, or for one model as release:write")
        return cls(scope, model or None)


@dataclass(frozen=True, slots=True)
class Grants:
    """All that somebody may do; written as an OAuth scope is (RFC 6749, section 3.3): ``read release:write``."""

    all: frozenset[Grant] = frozenset()

    def __str__(self) -> str:
        return " ".join(sorted(map(str, self.all)))

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "Grants":
        """:raises GrantError: one of the texts is no grant"""
        return cls(frozenset(Grant.parse(text) for text in texts))

    @property
    def models(self) -> frozenset[str]:
        """The models that some of them name."""
        return frozenset(grant.model for grant in self.all if grant.model is not None)

    def allow(self, scope: Scope, models: Collection[str] | None = None) -> bool:
        """Is a scope among them?

        :param models: for the records of one model: its name, and those of the models that it inherits from, whose
            records they are too; of any model by default
        """
        return any(
            scope in _IMPLIED[grant.scope] and (models is None or grant.model is None or grant.model in models)
            for grant in self.all
        )

"""The reasons that a write must have: any, by the application's config, and those that its model requires."""

import re

from chrononaut.change_info import extra_is_required, gives_reason, says_something
from chrononaut.exceptions import MissingChangeInfoError, RequiredChangeInfoError
from chrononaut.history import Versioning
from chrononaut.options import ANY_TEXT
from chrononaut.types import JSONObject

LONGEST = 1000
"""How long a value may be that a pattern is matched with, in characters: values may come from outside."""


def needs_reason(versioning: Versioning, operation: str) -> bool:
    """Can a write of a model be refused for what its change info says?"""
    return bool(versioning.options.required) or (operation != "insert" and extra_is_required())


def refuse_unreasoned(versioning: Versioning, operation: str, document: JSONObject) -> None:
    """Refuse a write whose change info does not say what it must.

    :param operation: ``insert``, ``update`` or ``delete``
    :param document: the change info
    :raises RequiredChangeInfoError: the model requires what it does not say
    :raises MissingChangeInfoError: it says nothing, and the application requires that every update and delete does
    """
    refuse_without_required(versioning, operation, document)
    if operation != "insert" and not gives_reason(document) and extra_is_required():
        raise MissingChangeInfoError(versioning.name, operation)


def refuse_without_required(versioning: Versioning, operation: str, document: JSONObject) -> None:
    """Refuse a write whose change info does not say what its model requires.

    :raises RequiredChangeInfoError: it does not
    """
    extra = document.get("extra", {})
    unmet = {
        key: pattern.pattern
        for key, pattern in versioning.options.required.items()
        if not _fits(extra.get(key), pattern)
    }
    if unmet:
        missing = {key: pattern for key, pattern in unmet.items() if not says_something(extra.get(key))}
        unfit = {key: pattern for key, pattern in unmet.items() if key not in missing}
        raise RequiredChangeInfoError(versioning.name, operation, missing, unfit)


def _fits(value: object, pattern: re.Pattern[str]) -> bool:
    if not isinstance(value, str) or not says_something(value):
        return False
    return pattern == ANY_TEXT or (len(value) <= LONGEST and pattern.fullmatch(value) is not None)

"""The differences between two states. Pure: mappings in, differences out."""

from collections.abc import Mapping
from typing import Any

Differences = dict[str, tuple[Any, Any]]
"""Attribute name → (value before, value after)."""


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Differences:
    """What differs between two states of one record.

    :param before: attribute name → value
    :param after: attribute name → value, the same names
    :return: the attributes whose values differ, in the order of ``before``
    """
    return {name: (value, after[name]) for name, value in before.items() if not _equal(value, after[name])}


def _equal(one: Any, other: Any) -> bool:
    # True == 1 in Python, but a flag that became a number has changed.
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)

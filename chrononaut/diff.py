"""The differences between two states. Pure: mappings in, differences out."""

from collections.abc import Mapping
from typing import Any

Differences = dict[str, tuple[Any, Any]]
"""Attribute name → (value before, value after)."""


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Differences:
    """What differs between two states of one record.

    :param before: attribute name → value
    :param after: attribute name → value; what only one of the two has is not known of the other, and no difference
    :return: the attributes whose values differ, in the order of ``before``
    """
    both = ((name, value) for name, value in before.items() if name in after)
    return {name: (value, after[name]) for name, value in both if not _equal(value, after[name])}


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    # True == 1 in Python, but a flag that became a number has changed; and NaN is no number, but the same value.
    same = bool(one == other) or bool(one != one and other != other)  # noqa: PLR0124
    return isinstance(one, bool) is isinstance(other, bool) and same

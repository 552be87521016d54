"""Opting out of capture, for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

_Suppression = Literal["none", "versioning", "immutability"]
_suppressed: ContextVar[_Suppression] = ContextVar("chrononaut_suppressed", default="none")


@contextmanager
def suppress_versioning(allow_deleting_history: bool = False) -> Iterator[None]:
    """Write no history for what is flushed or executed inside the block.

    :param allow_deleting_history: let the session delete history rows, which it refuses otherwise
    """
    token = _suppressed.set("immutability" if allow_deleting_history else "versioning")
    try:
        yield
    finally:
        _suppressed.reset(token)


def is_suppressed() -> bool:
    """Is history not to be written?"""
    return _suppressed.get() != "none"


def may_delete_history() -> bool:
    """May history rows be deleted?"""
    return _suppressed.get() == "immutability"

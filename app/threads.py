"""How much a worker does at once."""

from typing import Final

THREADS: Final = 12
"""Requests that a worker answers at once."""

SLOW_THREADS: Final = 4
"""Those besides whose large bodies it waits for at once."""

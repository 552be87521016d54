"""How much a worker does at once besides what is set: `app.settings`."""

from typing import Final

SLOW_THREADS: Final = 4
"""Requests whose large bodies it waits for at once, besides those that it answers."""

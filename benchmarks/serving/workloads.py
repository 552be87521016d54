"""What is requested, and how much of the floors' speed the service must have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal

from benchmarks.serving.filling import FIRST_WRITTEN, MADE_AT, READ

SERVICE: Final = "service"
"""What the service itself is called among the contestants."""
START: Final = 1.5
"""Seconds until the service's first answer, at the most."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind of request, which the service and its floors answer alike.

    :ivar path: of the service; that of a floor has the floor's name before it. A path of what is written goes on with
        the key
    :ivar floors: what the service is compared with
    :ivar targets: database → floor → how much of its requests per second the service must answer at the least
    """

    name: str
    method: Literal["GET", "PATCH"]
    path: str
    floors: Sequence[str]
    targets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def contestants(self) -> Mapping[str, str]:
        """The service and the floors, each with its path."""
        return {SERVICE: self.path} | {floor: f"/{floor}{self.path}" for floor in self.floors}


_READING: Final = ("constant", "hand-written")
_HISTORY: Final = f"/history/user/{READ}"
_NOON: Final = MADE_AT + timedelta(days=10, hours=12)

READS: Final = (
    Workload(
        "history, 20 versions",
        "GET",
        _HISTORY,
        _READING,
        {kind: {"hand-written": 0.9} for kind in ("postgresql", "sqlite")},
    ),
    Workload("version_at", "GET", f"{_HISTORY}/version_at?at={_NOON:%Y-%m-%dT%H:%M:%SZ}", _READING),
    Workload("diff", "GET", f"{_HISTORY}/diff?from=5&to=15", _READING),
)
"""Requests of one record, which nobody changes meanwhile."""
WRITE: Final = Workload(
    "PATCH with a rationale",
    "PATCH",
    "/records/user/",
    ("unversioned", "hand-written"),
    {"postgresql": {"unversioned": 0.8}},
)
"""Requests each of which really changes another record than the one before."""
WORKLOADS: Final = (*READS, WRITE)
WRITTEN_FIRST: Final = f"{WRITE.path}{FIRST_WRITTEN}"
"""The path of the service to one of the records that are written."""

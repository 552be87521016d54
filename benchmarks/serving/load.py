"""The load, by wrk."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from benchmarks.serving.filling import FIRST_WRITTEN, WRITTEN

CONNECTIONS: Final = 4
"""How many requests there are at once."""
_WRK: Final = "wrk"
_SCRIPT: Final = Path(__file__).with_name("load.lua")
_MICROSECONDS: Final = 1_000_000


class MissingToolError(Exception):
    """There is no wrk; the message says what to install."""


class LoadError(Exception):
    """A request failed or was refused, so that nothing was measured."""


@dataclass(frozen=True, slots=True)
class Load:
    """What came of requests that were sent for a while.

    :ivar requests: how many were answered
    :ivar seconds: how long they were sent
    :ivar p50: the median of their latencies, in seconds
    :ivar p99: the latency in seconds that one of a hundred is above
    """

    requests: int
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def find_tool() -> str:
    """The path of wrk.

    :raises MissingToolError: there is none
    """
    tool = shutil.which(_WRK)
    if tool is None:
        raise MissingToolError("there is no wrk, which makes the load; install it (on Debian: apt install wrk)")
    return tool


def send(port: int, token: str, method: str, path: str, seconds: int) -> Load:
    """Send requests for a while, in a process of its own.

    :param port: of loopback
    :param path: for a ``PATCH``, what is before the key
    :raises LoadError: not every answer was 2xx, or a connection failed
    :raises MissingToolError: there is no wrk
    """
    command = [find_tool(), "--threads=1", f"--connections={CONNECTIONS}", f"--duration={seconds}"]
    command += [f"--script={_SCRIPT}", f"--header=Authorization: Bearer {token}", f"http://127.0.0.1:{port}", "--"]
    command += [method, path, str(FIRST_WRITTEN), str(WRITTEN), uuid4().hex]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  it is no shell's
    if done.returncode:
        raise LoadError(f"wrk ended with status {done.returncode}: {done.stderr.strip()}")
    return parsed(done.stdout)


def parsed(output: str) -> Load:
    """What wrk says in the end.

    :raises LoadError: not every answer was 2xx, or a connection failed; or nothing was answered
    """
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise LoadError(f"wrk does not say what came of the requests: {output.strip()[-200:]}")
    told = json.loads(lines[-1])
    if told["refused"] or told["failed"] or not told["requests"]:
        raise LoadError(
            f"{told['requests']} requests were answered, {told['refused']} of them not by 2xx, "
            f"and {told['failed']} connections failed"
        )
    return Load(
        told["requests"],
        told["microseconds"] / _MICROSECONDS,
        told["p50"] / _MICROSECONDS,
        told["p99"] / _MICROSECONDS,
    )

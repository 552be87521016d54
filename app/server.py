"""Gunicorn as the service wants it: ``gunicorn -c python:app.server 'app:create_app()'``.

The names below are gunicorn's settings; what is not set here can be set on its command line.
"""

import json
import re
from typing import Any

from gunicorn.http.errors import InvalidHeader, InvalidHeaderName
from gunicorn.workers.gthread import ThreadWorker

from app.problems import KINDS, MEDIA_TYPE, problem_type

worker_class = "app.server.Worker"
threads = 4
control_socket_disable = True
header_map = "refuse"  # a reason in a header with an underscore would be dropped silently otherwise
limit_request_field_size = 16 * 1024  # above the limit of change headers, so that too long ones are told what is right

_KINDS = {414: "uri-too-long", 431: "headers-too-large", 501: "not-implemented"}
_STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Answers what is no HTTP with a problem, as the application answers everything else."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        super().handle_error(req, _AnsweringProblems(client, exc), addr, exc)


class _AnsweringProblems:
    """A socket on which gunicorn's page about an error becomes a problem of the same status."""

    def __init__(self, client: Any, error: Exception) -> None:
        self._client, self._error = client, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def sendall(self, page: bytes) -> None:
        match = _STATUS_LINE.match(page)
        kind = _KINDS.get(int(match.group(1)) if match else 400, "malformed-request")
        if isinstance(self._error, (InvalidHeader, InvalidHeaderName)) and "X-CHANGE-" in str(self._error).upper():
            kind = "change-header-invalid"
        body = json.dumps(
            {
                "type": problem_type(kind),
                "title": KINDS[kind].title,
                "status": KINDS[kind].status,
                "detail": f"{self._error}; it may hold no control characters and must keep within the limits",
            }
        ).encode()
        head = (
            f"HTTP/1.1 {KINDS[kind].status} {KINDS[kind].title}\r\nConnection: close\r\n"
            f"Content-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._client.sendall(head.encode() + body)

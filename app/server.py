"""Gunicorn as the service wants it: ``gunicorn -c python:app.server 'app:create_app()'``.

The names below are gunicorn's settings; what is not set here can be set on its command line.
"""

import json
import re
from typing import Any

from gunicorn import glogging
from gunicorn.http.errors import InvalidHeader, InvalidHeaderName
from gunicorn.workers.gthread import ThreadWorker

from app.problems import KINDS, MEDIA_TYPE, problem_type
from app.request_id import HEADER, LOG_FORMAT, add_request_id, request_named

worker_class = "app.server.Worker"
logger_class = "app.server.Logger"
access_log_format = f'%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s" %({{{HEADER}}}o)s'
threads = 4
control_socket_disable = True
header_map = "refuse"  # a reason in a header with an underscore would be dropped silently otherwise
limit_request_field_size = 16 * 1024  # above the limit of change headers, so that too long ones are told what is right

_KINDS = {414: "uri-too-long", 431: "headers-too-large", 501: "not-implemented"}
_STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Logger(glogging.Logger):  # type: ignore[misc]  # gunicorn has no types
    """Writes the name of the request into each record, as the application does."""

    error_fmt = LOG_FORMAT
    syslog_fmt = "[%(process)d] [%(request_id)s] %(message)s"

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.addFilter(add_request_id)
        self.access_log.addFilter(add_request_id)


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Answers what is no HTTP with a problem, as the application answers everything else."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        sent = dict(getattr(req, "headers", None) or ()).get(HEADER.upper())
        with request_named(sent) as name:
            super().handle_error(req, _AnsweringProblems(client, exc, name), addr, exc)


class _AnsweringProblems:
    """A socket on which gunicorn's page about an error becomes a problem of the same status."""

    def __init__(self, client: Any, error: Exception, request_id: str) -> None:
        self._client, self._error, self._request_id = client, error, request_id

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
            f"Content-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n{HEADER}: {self._request_id}\r\n\r\n"
        )
        self._client.sendall(head.encode() + body)

"""Gunicorn as the service wants it: ``gunicorn -c python:app.server 'app:create_app()'``.

The names below are gunicorn's settings; what is not set here can be set on its command line. A request must have
arrived whole within ``timeout`` seconds (30 by default), however slowly its bytes come.
"""

import errno
import json
import time
from collections.abc import Mapping
from typing import Any

from gunicorn import glogging
from gunicorn.http import errors
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

from app.database_errors import log_unexpected
from app.problems import KINDS, MEDIA_TYPE, Problem, problem_type
from app.request_id import HEADER, LOG_FORMAT, add_request_id, request_named

worker_class = "app.server.Worker"
logger_class = "app.server.Logger"
access_log_format = f'%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s" %({{{HEADER}}}o)s'
threads = 4
control_socket_disable = True
header_map = "refuse"  # a reason in a header with an underscore would be dropped silently otherwise
# Who is trusted to say for whom they ask is one setting, which `app.proxies` obeys; gunicorn's own would go by another.
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""
limit_request_line = (
    8190  # the most that gunicorn takes: an address as long as `app.bounds` allows, and what is around it
)
limit_request_fields = 100
limit_request_field_size = 16 * 1024  # above the limit of change headers, so that too long ones are told what is right

_HEADER = (
    "a header cannot be read; it is one line, its name has letters, digits and - only, its value no control character"
)
_PROBLEMS: Mapping[type[Exception], tuple[str, str]] = {
    errors.LimitRequestLine: ("uri-too-long", "the first line of the request is too long; ask for less at once"),
    errors.LimitRequestHeaders: ("headers-too-large", "there are too many headers, or one is longer than 16 KiB"),
    errors.ExpectationFailed: ("expectation-failed", "the only expectation that can be met is 100-continue"),
    errors.UnsupportedTransferCoding: ("not-implemented", "the only transfer coding that is taken is chunked"),
    errors.InvalidHTTPVersion: ("http-version-not-supported", "speak HTTP/1.1"),
    errors.InvalidHeaderName: ("malformed-request", _HEADER),
    errors.InvalidHeader: ("malformed-request", _HEADER),
    errors.ObsoleteFolding: ("malformed-request", _HEADER),
    errors.ParseException: ("malformed-request", "this is no request of HTTP/1.1 (RFC 9112)"),
}
_OUR_FAULT = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName, errors.ConfigurationProblem)


class Logger(glogging.Logger):  # type: ignore[misc]  # gunicorn has no types
    """Writes the name of the request into each record, as the application does."""

    error_fmt = LOG_FORMAT
    syslog_fmt = "[%(process)d] [%(request_id)s] %(message)s"

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.addFilter(add_request_id)
        self.access_log.addFilter(add_request_id)


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Waits for no request longer than it must, and answers what is no HTTP with a problem, as the application does."""

    def accept(self, listener: Any) -> None:
        try:
            client, address = listener.accept()
        except OSError as error:
            # Another worker was faster, or the client has gone.
            if error.errno not in {errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED}:
                raise
            return
        client.setblocking(True)
        self.nr_conns += 1
        self.enqueue_req(_Connection(self.cfg, client, address, listener.getsockname()))

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        sent = dict(getattr(req, "headers", None) or ()).get(HEADER.upper())
        with request_named(sent) as name:
            problem = _problem_of(exc)
            if problem.kind == "internal-error":
                log_unexpected(self.log, exc)
            else:
                # What was sent is neither logged nor repeated: it can be the rest of a body longer than it said.
                self.log.warning("no request from %s: %s", addr[0] if addr else "a socket", type(exc).__name__)
            try:
                client.sendall(_page(problem, name))
            except OSError:
                self.log.debug("the client has gone")


class _Connection(TConn):  # type: ignore[misc]  # gunicorn has no types
    """A connection, on which each request has its time."""

    def init(self) -> None:
        """Called before each request is read."""
        is_new = not self.initialized
        super().init()
        if not self.is_http2 and self.cfg.timeout:
            if is_new:
                self.parser.unreader = _Unreader(self.sock)
            self.parser.unreader.ends_at = time.monotonic() + self.cfg.timeout


class _Unreader(SocketUnreader):  # type: ignore[misc]  # gunicorn has no types
    """Reads a request until its time ends: who sends a byte now and then would hold a thread for ever otherwise.

    :ivar ends_at: on the monotonic clock, in seconds
    """

    ends_at: float

    def chunk(self, size_hint: int | None = None) -> bytes:
        """:raises Problem: 408"""
        if self.sock.gettimeout() is not None:
            # Gunicorn drops the rest of a body that nobody has read, within a time of its own.
            rest: bytes = super().chunk(size_hint)
            return rest
        try:
            self.sock.settimeout(max(self.ends_at - time.monotonic(), 0.001))
            received: bytes = super().chunk(size_hint)
        except TimeoutError:
            raise Problem("request-timeout", "the request did not arrive in time; send it anew") from None
        finally:
            self.sock.settimeout(None)
        return received


def _problem_of(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, _OUR_FAULT) or not isinstance(error, errors.ParseException):
        return Problem("internal-error", "the error was logged")
    kind, detail = next(told for class_, told in _PROBLEMS.items() if isinstance(error, class_))
    if detail == _HEADER and "X-CHANGE-" in str(error).upper():
        kind = "change-header-invalid"
    return Problem(kind, detail)


def _page(problem: Problem, request_id: str) -> bytes:
    """A whole response, as nothing of the application can make one."""
    kind = KINDS[problem.kind]
    body = json.dumps(
        {"type": problem_type(problem.kind), "title": kind.title, "status": kind.status, "detail": problem.detail}
    ).encode()
    head = (
        f"HTTP/1.1 {kind.status} {kind.title}\r\nConnection: close\r\nCache-Control: no-store\r\n"
        f"Content-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n{HEADER}: {request_id}\r\n\r\n"
    )
    return head.encode() + body

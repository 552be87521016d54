"""Gunicorn's worker, which no slow client stops.

A request must have arrived whole within `REQUEST_TIME`, however slowly its bytes come; one with a large body, or of
unknown length, within gunicorn's ``timeout`` (30 seconds by default) if that is longer. So must its answer be taken.
"""

import errno
import json
import re
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from typing import Any, Final

from gunicorn.errors import AppImportError
from gunicorn.http import errors
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

from app import UNSTARTABLE
from app.database_errors import log_unexpected
from app.health import LIVE_PATH
from app.problems import KINDS, MEDIA_TYPE, Problem, problem_type
from app.request_id import HEADER, request_named
from app.threads import SLOW_THREADS

REQUEST_TIME: Final = 10.0
"""Seconds that a request has to arrive, where it is waited for without a thread."""
_MOST_WAITED_FOR = 64 * 1024  # bytes of a head, and of a body: what a thousand clients can make a worker keep
_AT_ONCE = 64 * 1024
_SAMPLE_EVERY = 1.0  # seconds: as fresh as gauges of a worker are that answers no scraper
_CLOSING_TIME = 2.0
_MOST_DISCARDED = 2**20
_TELLING = get_context("fork").Lock()  # of all workers
_TELLING_TIME = 0.1

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


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Lets nobody who is slow hold what others need, and answers what is no HTTP with a problem.

    A connection waits in the poller until its request has arrived, and then takes one of `threads`; also when it closes
    it waits there until the client has. Gunicorn by itself waits for both, and whoever sends nothing stops it. What
    cannot be waited for so, a large body or one of unknown length, is for a few threads of their own. One more answers
    whether the worker is live, also while all others wait for a database.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slow_pool = ThreadPoolExecutor(SLOW_THREADS)
        self.live_pool = ThreadPoolExecutor(1)
        self.closing_conns: deque[_Connection] = deque()
        self._sampled_at = 0.0

    def load_wsgi(self) -> None:
        try:
            super().load_wsgi()
        except UNSTARTABLE as error:
            # That ends the server. All workers find the same; gunicorn fails where two of them say it.
            if _TELLING.acquire(block=False):
                raise AppImportError(str(error)) from error
            while self.alive and self.is_parent_alive():
                time.sleep(_TELLING_TIME)
            sys.exit()

    def set_accept_enabled(self, enabled: object) -> None:
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            # Clients are for other workers now, or refused: nobody shall wait in line until the last answer is given.
            for listener in self.sockets:
                listener.close()

    def accept(self, listener: Any) -> None:
        try:
            client, address = listener.accept()
        except OSError as error:
            # Another worker was faster, or the client has gone.
            if error.errno not in {errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED}:
                raise
            return
        self.nr_conns += 1
        self.enqueue_req(_Connection(self.cfg, client, address, listener.getsockname()))

    def enqueue_req(self, conn: "_Connection") -> None:
        """Let a connection wait for its next request."""
        if conn.begins():
            self._start(conn)
            return
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def on_pending_socket_readable(self, conn: "_Connection", client: Any) -> None:
        if conn.receives():
            self.poller.unregister(client)
            self.pending_conns.remove(conn)
            self._start(conn)

    def notify(self) -> None:
        super().notify()
        now = time.monotonic()
        if now - self._sampled_at >= _SAMPLE_EVERY:
            self._sampled_at = now
            self.wsgi.extensions["metrics"].sample()

    def murder_pending(self) -> None:
        """End the waiting of those whose time is over."""
        now = time.monotonic()
        if not self.alive:
            # Who has said nothing yet can say it to the next worker.
            for conn in [conn for conn in self.pending_conns if not conn.received]:
                self.pending_conns.remove(conn)
                self._close(conn)
        while self.pending_conns and self.pending_conns[0].timeout <= now:
            conn = self.pending_conns.popleft()
            if conn.received:
                # It is told so.
                self.poller.unregister(conn.sock)
                self._start(conn)
            else:
                self._close(conn)
        while self.closing_conns and self.closing_conns[0].timeout <= now:
            self._close(self.closing_conns.popleft())

    def finish_request(self, conn: "_Connection", fs: Any) -> None:
        """Go on after a request: with the next one, or by closing."""
        if not fs.cancelled() and fs.exception() is None and fs.result():
            super().finish_request(conn, fs)
            return
        # As long as there is something that we have not read, closing would take back the answer (RFC 9112, 9.6).
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._discard, conn))
        except (OSError, ValueError):
            self._close(conn)
            return
        conn.timeout = time.monotonic() + _CLOSING_TIME
        self.closing_conns.append(conn)

    def handle_request(self, req: Any, conn: "_Connection") -> Any:
        try:
            return super().handle_request(req, conn)
        except TimeoutError:
            self.log.info("the client does not take its answer")
            return False

    def _keepalive_after(self, conn: "_Connection", keepalive: object) -> bool:
        # What the application has not read of a body is dropped if it is there, and not waited for.
        conn.parser.unreader.ends_at = time.monotonic()
        try:
            return bool(super()._keepalive_after(conn, keepalive))
        except Problem:
            return False

    def handle_quit(self, sig: Any, frame: Any) -> None:
        self.slow_pool.shutdown(wait=False)
        self.live_pool.shutdown(wait=False)
        super().handle_quit(sig, frame)

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

    def _start(self, conn: "_Connection") -> None:
        # One with a large body would have to be waited for, whatever it asks.
        pool = self.slow_pool if conn.is_slow else self.live_pool if conn.asks_for(LIVE_PATH) else self.tpool
        future = pool.submit(self.handle, conn)
        future.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def _discard(self, conn: "_Connection", client: Any) -> None:
        try:
            data = client.recv(_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        conn.discarded += len(data)
        if not data or conn.discarded > _MOST_DISCARDED:
            self.closing_conns.remove(conn)
            self._close(conn)

    def _close(self, conn: "_Connection") -> None:
        with suppress(OSError, KeyError, ValueError):
            self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()


class _Connection(TConn):  # type: ignore[misc]  # gunicorn has no types
    """A connection, on which each request has its time.

    :ivar timeout: until when it waits in the poller, on the monotonic clock
    :ivar received: of the request that it waits for
    :ivar is_slow: would a thread have to wait for the request?
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.received = bytearray()
        self.discarded = 0
        self.is_slow = False
        self.data_ready = True
        self._length: int | None = None
        self._began_at = 0.0

    def begins(self) -> bool:
        """The next request begins; need it not be waited for?"""
        self._began_at = time.monotonic()
        self.timeout = self._began_at + REQUEST_TIME
        self._length, self.is_slow = None, False
        if self.cfg.is_ssl or self.cfg.http2_cleartext != "off":
            # What arrives is not yet the request.
            self.is_slow = True
            return True
        self.sock.setblocking(False)
        self.received = bytearray(self.parser.unreader.take_buffered() if self.parser else b"")
        return self._is_there() or self.receives()

    def receives(self) -> bool:
        """Take what has arrived; is it the whole request, or all that is waited for here?"""
        try:
            data = self.sock.recv(_AT_ONCE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        self.received += data
        return not data or self._is_there()

    def _is_there(self) -> bool:
        if self._length is None:
            self._length = _length(self.received)
        self.is_slow = self._length == _UNKNOWN
        return self._length is not None and len(self.received) >= self._length

    def asks_for(self, path: str) -> bool:
        """Is exactly this what the next request is for, as far as it has arrived?"""
        target = _TARGET.match(self.received)
        return target is not None and target[1] == path.encode()

    def init(self) -> None:
        """Called before each request is read."""
        is_new = not self.initialized
        super().init()
        longest = max(self.cfg.timeout, REQUEST_TIME)
        self.sock.settimeout(longest)  # of the answer
        if self.is_http2:
            return
        if is_new:
            self.parser.unreader = _Unreader(self.sock)
        self.parser.unreader.unread(bytes(self.received))
        self.received.clear()
        self.parser.unreader.ends_at = self._began_at + longest if self.is_slow else self.timeout


_UNKNOWN = -1
_TARGET = re.compile(rb"[!-~]+ ([!-~]+) ")
_FRAMING = re.compile(rb"^(?:Content-Length|Transfer-Encoding|Expect)[^\r\n]*", re.IGNORECASE | re.MULTILINE)
_CONTENT_LENGTH = re.compile(rb"Content-Length:[ \t]*([0-9]{1,9})[ \t]*", re.IGNORECASE)


def _length(received: bytearray) -> int | None:
    """How many bytes the request has that begins so.

    :return: `_UNKNOWN` where they are more than are waited for, or it is for gunicorn to find out; ``None`` as long as
        there is nothing to tell it by
    """
    head = received.find(b"\r\n\r\n") + 4
    if head < 4:  # noqa: PLR2004  it is not there
        return _UNKNOWN if len(received) > _MOST_WAITED_FOR else None
    framing = _FRAMING.findall(received, 0, head)
    if not framing:
        return head
    length = _CONTENT_LENGTH.fullmatch(framing[0]) if len(framing) == 1 else None
    body = int(length[1]) if length else _MOST_WAITED_FOR + 1
    return head + body if body <= _MOST_WAITED_FOR else _UNKNOWN


class _Unreader(SocketUnreader):  # type: ignore[misc]  # gunicorn has no types
    """Reads a request until its time ends: who sends a byte now and then would hold a thread for ever otherwise.

    :ivar ends_at: on the monotonic clock, in seconds
    """

    ends_at: float

    def chunk(self, size_hint: int | None = None) -> bytes:
        """:raises Problem: 408"""
        usual = self.sock.gettimeout()
        try:
            self.sock.settimeout(max(self.ends_at - time.monotonic(), 0.001))
            received: bytes = super().chunk(size_hint)
        except TimeoutError:
            raise Problem("request-timeout", "the request did not arrive in time; send it anew") from None
        finally:
            self.sock.settimeout(usual)
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

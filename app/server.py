"""Gunicorn as the service wants it: ``gunicorn -c python:app.server 'app:create_app()'``.

The names below are gunicorn's settings, of which `ServerSettings` are read from the environment; its command line goes
before them.
"""

import logging
import os
import shutil
import sys
import tempfile
from importlib import import_module
from secrets import token_hex
from typing import Any

from gunicorn import glogging

from app import UNSTARTABLE
from app.facts import facts_of
from app.logs import TEXT, Json, Withholding, add_facts, answered
from app.request_id import HEADER, request_id_of
from app.settings import ServerSettings, SettingError, Settings


def _settings() -> ServerSettings:
    try:
        return ServerSettings.from_environment(os.environ)
    except SettingError as error:
        sys.exit(str(error))


_set = _settings()
_NUMBERS = f"{tempfile.gettempdir()}/chrononaut-{os.getpid()}-{token_hex(4)}"

worker_class = "app.worker.Worker"
bind = [*_set.bind]
workers, threads = _set.workers, _set.threads
timeout, graceful_timeout = _set.timeout, _set.graceful_timeout
max_requests, max_requests_jitter = _set.max_requests, _set.max_requests // 10
logger_class = "app.server.Logger" if _set.log_format == "text" else "app.server.JsonLogger"
loglevel = _set.log_level
accesslog = "-"
access_log_format = f'%(h)s %(t)s "%(r)s" %(s)s %(b)s %({{{HEADER}}}o)s'
# Where `app.metrics` keeps the numbers of all workers. Gunicorn sets it before the application is loaded anywhere.
raw_env = [f"PROMETHEUS_MULTIPROC_DIR={_NUMBERS}"]
control_socket_disable = True
header_map = "refuse"  # a reason in a header with an underscore would be dropped silently otherwise
# Who is trusted to say for whom they ask is one setting, which `app.proxies` obeys; gunicorn's own would go by another.
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""
# The most that gunicorn takes: an address as long as `app.bounds` allows, and what is around it.
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 16 * 1024  # above the limit of change headers, so that too long ones are told what is right


def on_starting(arbiter: Any) -> None:
    """Before it listens: end where settings are wrong, and load the application where that is set.

    The workers share no connection with an application that is loaded here.
    """
    try:
        Settings.from_environment(os.environ)
    except SettingError as error:
        sys.exit(str(error))
    if not (_set.preload or arbiter.cfg.preload_app):
        return
    # Not by gunicorn's own setting, which has a traceback for whatever is wrong.
    try:
        app = arbiter.app.wsgi()
    except UNSTARTABLE as error:
        sys.exit(str(error))
    with app.app_context():
        # Here, and not in each worker: a connection of SQLite may not even be closed by another process.
        for engine in app.extensions["sqlalchemy"].engines.values():
            engine.dispose()


def child_exit(arbiter: Any, worker: Any) -> None:
    """What a worker has counted outlives it."""
    if os.path.isdir(_NUMBERS):
        import_module("app.metrics").bury(_NUMBERS, worker.pid, arbiter.log)


def on_exit(arbiter: Any) -> None:
    shutil.rmtree(_NUMBERS, ignore_errors=True)


class Logger(glogging.Logger):  # type: ignore[misc]  # gunicorn has no types
    """Writes the name of the request into each record, as the application does, and nothing else that a client chose.

    Of its headers and its query nothing is written, and its path only where it is one of the service's: they can hold
    values and secrets.
    """

    error_fmt = TEXT
    syslog_fmt = "[%(process)d] [%(request_id)s] %(message)s"

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        # What packages log, and warn of, is written as everything else.
        root = logging.getLogger()
        if not root.handlers:
            root.addHandler(logging.StreamHandler())
        logging.captureWarnings(capture=True)
        for log in (root, self.error_log, self.access_log):
            for handler in log.handlers:
                if not isinstance(handler.formatter, Withholding):
                    handler.setFormatter(Withholding(self.form(handler)))
                    handler.addFilter(add_facts)
        # Below it gunicorn logs addresses with their queries.
        level = max(self.loglevel, logging.INFO)
        for log in (self.error_log, logging.getLogger("app")):
            log.setLevel(level)

    def form(self, handler: logging.Handler) -> logging.Formatter:
        """How a handler writes records."""
        return handler.formatter or logging.Formatter(self.error_fmt, self.datefmt)

    def atoms(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> dict[str, Any]:
        known: dict[str, Any] = super().atoms(resp, req, environ, request_time)
        facts = facts_of(environ)
        method = facts.method if facts else "-"
        path = req.path if facts and facts.route else "-"
        left_out = dict.fromkeys("uqfa", "-")
        return known | left_out | {"m": method, "U": path, "r": f"{method} {path} {known['H']}"}


class JsonLogger(Logger):
    """Writes all records of the server as JSON: its own, the application's, and those of packages."""

    def form(self, handler: logging.Handler) -> logging.Formatter:
        return Json()

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:
        if not self.access_log_enabled:
            return
        record = answered(
            self.access_log,
            facts_of(environ),
            request_id=request_id_of(environ),
            status=resp.status_code,
            duration=request_time.total_seconds(),
            address=environ.get("REMOTE_ADDR"),
        )
        self.access_log.handle(record)

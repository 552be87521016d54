"""Gunicorn as the service wants it: ``gunicorn -c python:app.server 'app:create_app()'``.

The names below are gunicorn's settings; what is not set here can be set on its command line.
"""

import logging
import os
import shutil
import tempfile
from importlib import import_module
from secrets import token_hex
from typing import Any

from gunicorn import glogging

from app.facts import facts_of
from app.logs import Json, add_facts, answered
from app.request_id import HEADER, LOG_FORMAT, add_request_id, request_id_of
from app.threads import THREADS

# What is wrong with a setting is said when the application starts.
_LOG_FORMAT = os.environ.get("CHRONONAUT_LOG_FORMAT", "").lower()
_NUMBERS = f"{tempfile.gettempdir()}/chrononaut-{os.getpid()}-{token_hex(4)}"

worker_class = "app.worker.Worker"
logger_class = "app.server.Logger" if _LOG_FORMAT == "text" else "app.server.JsonLogger"
loglevel = os.environ.get("CHRONONAUT_LOG_LEVEL", "").lower() or "info"
accesslog = "-"
access_log_format = f'%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(a)s" %({{{HEADER}}}o)s'
# Where `app.metrics` keeps the numbers of all workers. Gunicorn sets it before the application is loaded anywhere.
raw_env = [f"PROMETHEUS_MULTIPROC_DIR={_NUMBERS}"]
threads = THREADS
control_socket_disable = True
header_map = "refuse"  # a reason in a header with an underscore would be dropped silently otherwise
# Who is trusted to say for whom they ask is one setting, which `app.proxies` obeys; gunicorn's own would go by another.
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""
# The most that gunicorn takes: an address as long as `app.bounds` allows, and what is around it.
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 16 * 1024  # above the limit of change headers, so that too long ones are told what is right


def child_exit(arbiter: Any, worker: Any) -> None:
    """What a worker has counted outlives it."""
    if os.path.isdir(_NUMBERS):
        import_module("app.metrics").bury(_NUMBERS, worker.pid)


def on_exit(arbiter: Any) -> None:
    shutil.rmtree(_NUMBERS, ignore_errors=True)


class Logger(glogging.Logger):  # type: ignore[misc]  # gunicorn has no types
    """Writes the name of the request into each record, as the application does, and no query: it can hold values."""

    error_fmt = LOG_FORMAT
    syslog_fmt = "[%(process)d] [%(request_id)s] %(message)s"

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.addFilter(add_request_id)
        self.access_log.addFilter(add_request_id)
        # Below it gunicorn logs addresses with their queries.
        level = max(self.loglevel, logging.INFO)
        for log in (self.error_log, logging.getLogger("app")):
            log.setLevel(level)

    def atoms(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> dict[str, Any]:
        known: dict[str, Any] = super().atoms(resp, req, environ, request_time)
        path = environ["RAW_URI"].partition("?")[0]
        return known | {"r": f"{known['m']} {path} {known['H']}", "q": "-", "f": "-"}


class JsonLogger(Logger):
    """Writes all records of the server as JSON: its own, the application's, and those of packages."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        root = logging.getLogger()
        if not any(isinstance(handler.formatter, Json) for handler in root.handlers):
            root.addHandler(logging.StreamHandler())
            logging.captureWarnings(capture=True)
        for log in (root, self.error_log, self.access_log):
            for handler in log.handlers:
                handler.setFormatter(Json())
                handler.addFilter(add_facts)

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

"""Gunicorn as the service wants it: ``gunicorn -c python:app.server 'app:create_app()'``.

The names below are gunicorn's settings; what is not set here can be set on its command line.
"""

from typing import Any

from gunicorn import glogging

from app.request_id import HEADER, LOG_FORMAT, add_request_id
from app.threads import THREADS

worker_class = "app.worker.Worker"
logger_class = "app.server.Logger"
access_log_format = f'%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s" %({{{HEADER}}}o)s'
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


class Logger(glogging.Logger):  # type: ignore[misc]  # gunicorn has no types
    """Writes the name of the request into each record, as the application does."""

    error_fmt = LOG_FORMAT
    syslog_fmt = "[%(process)d] [%(request_id)s] %(message)s"

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.addFilter(add_request_id)
        self.access_log.addFilter(add_request_id)

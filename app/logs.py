"""The log as text or as JSON, one record a line: what can be searched in it is the same for all that write.

No record has a value of a column, a query or a header: the fields are a list, and of an exception in a request it is
told where it was raised, not what it says.
"""

import logging
from copy import copy
from datetime import UTC, datetime
from json import JSONEncoder
from typing import Any, Final

from flask import has_request_context
from flask.logging import default_handler
from pythonjsonlogger.json import JsonFormatter

from app.database_errors import described
from app.facts import Facts, current_facts
from app.request_id import NO_REQUEST, add_request_id, is_in_request

_encode = JSONEncoder(default=str).encode
_KNOWN: Final = ("request_id", *Facts._fields, "status", "duration", "address")

TEXT: Final = "%(asctime)s [%(process)d] [%(levelname)s] [%(request_id)s] %(message)s"
"""The text form of all records: those of the application and those of the server."""


def init_logs() -> None:
    """Let Flask's handler, which writes what the application logs where no server does, write in the text form."""
    default_handler.addFilter(add_request_id)
    default_handler.setFormatter(Withholding(logging.Formatter(TEXT)))


def answered(logger: logging.Logger, facts: Facts | None, **answer: Any) -> logging.LogRecord:
    """The record that tells how a request was answered.

    :param facts: none of a request that no application has seen
    :param answer: `status`, `duration` in seconds, `address` of the client, `request_id`
    """
    # One of the logger's own would look for who calls it, which takes longer than to write it.
    record = logging.LogRecord(logger.name, logging.INFO, "", 0, "answered", None, None)
    vars(record).update(answer if facts is None else answer | facts._asdict())
    return record


def add_facts(record: logging.LogRecord) -> bool:
    """A filter of logging that lets a record say in which request it was written."""
    if not hasattr(record, "request_id") and add_request_id(record) and has_request_context():
        vars(record).update(current_facts()._asdict())
    return True


class Withholding(logging.Formatter):
    """Any form of records, in which an exception in a request does not say what it says.

    Outside of a request it does: an operator mends by it what does not start.
    """

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        raised = record.exc_info[1] if record.exc_info else None
        if raised is not None and is_in_request():
            record = copy(record)
            record.exc_info, record.exc_text = None, described(raised)
        return self._form.format(record)


class Json(JsonFormatter):
    """A record as a JSON object (RFC 8259), in ASCII; of what is not known there is no member."""

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        log_data |= {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.message,
        }
        known = vars(record)
        for name in _KNOWN:
            value = known.get(name)
            if value is not None and value != NO_REQUEST:
                log_data[name] = value
        if "exc_info" in message_dict:
            log_data["exception"] = message_dict["exc_info"]

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        # The encoder is made once, where the library's would be made anew for each record.
        return _encode(log_data)

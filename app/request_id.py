"""The name of a request, by which its answer, its log records and its changes are found together: ``X-Request-ID``."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from flask import Flask
from uuid_utils import uuid7

HEADER = "X-Request-ID"
NO_REQUEST = "-"
_NAME = "chrononaut.request_id"
# Visible ASCII without spaces: it stands in a line of a log, and in a header.
_SANE = re.compile(r"[!-~]{1,128}")

_current: ContextVar[str | None] = ContextVar("chrononaut_request_id", default=None)


def init_request_ids(app: Flask) -> None:
    """Name every request: in its answer, in its log records, and in the change info of what it changes."""
    app.wsgi_app = _Naming(app.wsgi_app)  # type: ignore[method-assign]  # as Flask says to wrap it
    app.config["CHRONONAUT_EXTRA_CHANGE_INFO_FUNC"] = _change_info


@contextmanager
def request_named(sent: str | None) -> Iterator[str]:
    """Be in a request inside the block.

    :param sent: the name that the client gave it, 1 to 128 visible characters of ASCII. Any other is passed over, and
        a UUIDv7 is made.
    :return: the name of the request
    """
    name = sent if sent is not None and _SANE.fullmatch(sent) else str(uuid7())
    token = _current.set(name)
    try:
        yield name
    finally:
        _current.reset(token)


def add_request_id(record: logging.LogRecord) -> bool:
    """A filter of logging that gives a record its ``request_id``; it is `NO_REQUEST` outside of a request."""
    if not hasattr(record, "request_id"):
        record.request_id = _current.get() or NO_REQUEST
    return True


def is_in_request() -> bool:
    """Is a request being answered here?"""
    return _current.get() is not None


def request_id_of(environ: Mapping[str, Any]) -> str:
    """The name of a request that was answered.

    :param environ: of WSGI
    """
    name: str = environ.get(_NAME, NO_REQUEST)
    return name


def _change_info() -> dict[str, str]:
    name = _current.get()
    return {} if name is None else {"request_id": name}


class _Naming:
    """A WSGI application that names each request. Outermost, so that no answer goes without."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with request_named(environ.get("HTTP_X_REQUEST_ID")) as name:
            environ[_NAME] = name

            def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
                return start_response(status, [*headers, (HEADER, name)], *error)

            return self._application(environ, start)

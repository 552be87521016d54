"""Cross-origin requests (CORS, of the Fetch standard): which pages of other origins may use the service."""

import re
from datetime import timedelta
from typing import Any

from flask import Flask
from flask_cors import CORS
from werkzeug import Response

from app.change_headers import NAME

ANY = "*"
_ALLOWED = (
    "Accept-Datetime",
    "Authorization",
    "Content-Type",
    "If-Match",
    "If-None-Match",
    "X-CSRF-Token",
    "X-Request-ID",
)
_EXPOSED = (
    "Accept",
    "Accept-Encoding",
    "Accept-Patch",
    "Allow",
    "ETag",
    "Link",
    "Location",
    "Memento-Datetime",
    "Retry-After",
    "WWW-Authenticate",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-Request-ID",
)
# As long as any browser keeps the answer to a preflight.
_KEPT = timedelta(hours=2)


def init_cors(app: Flask, origins: tuple[str, ...]) -> None:
    """Let pages of some origins use the service; without any, no answer says anything of CORS.

    :param origins: as ``https://example.com``, or `ANY` alone. Cookies are for those that are listed only: any page may
        ask with a token that it has, none but them with the session of who looks at it.
    """
    if not origins:
        return
    allowed: Any = re.compile(rf"(?:{'|'.join(map(re.escape, _ALLOWED))}|X-Change-{NAME})\Z", re.IGNORECASE | re.ASCII)
    is_open = origins == (ANY,)
    CORS(
        app,
        # Anchored: Flask-CORS takes a text with a bracket, as an IPv6 address has, for a pattern of its beginning.
        origins=ANY if is_open else [re.compile(rf"{re.escape(origin)}\Z") for origin in origins],
        allow_headers=[allowed],
        expose_headers=_EXPOSED,
        supports_credentials=not is_open,
        send_wildcard=is_open,
        always_send=is_open,
        max_age=_KEPT,
        # Problems pass the same way as all answers.
        intercept_exceptions=False,
        vary_header=False,
    )
    if not is_open:
        app.after_request(_vary)


def _vary(response: Response) -> Response:
    """Flask-CORS says it only to those that it allows; a cache would give the others' answer to them."""
    response.vary.add("Origin")
    return response

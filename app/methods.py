"""What of HTTP's methods is answered alike for all resources (RFC 9110, section 9)."""

from flask import Flask, Response, request
from flask.globals import request_ctx

from app.answers import no_content
from app.media import body_types

IMPLEMENTED = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def init_methods(app: Flask) -> None:
    """Answer ``OPTIONS`` of every resource.

    A resource has one address: a doubled slash makes another one, as one at the end does.
    """
    app.url_map.merge_slashes = False
    app.before_request(answer_method)


def answer_method() -> Response | None:
    """Answer ``OPTIONS`` before it is asked who sends it: what it tells is in the OpenAPI document, for everyone.

    Any other method that a resource does not have is 405, also one that nobody here knows, for which 501 would do as
    well: ``Allow`` helps more than to hear of a failure of the server.
    """
    if request.method != "OPTIONS":
        return None
    # Of the service as a whole (section 9.3.7), or of the resource; of no resource it is 404.
    allowed = IMPLEMENTED if request.path == "/*" else sorted(_methods_here())
    return _options(allowed) if allowed else None


def _methods_here() -> set[str]:
    adapter = request_ctx.url_adapter
    return set(adapter.allowed_methods()) if adapter is not None else set()


def _options(allowed: tuple[str, ...] | list[str]) -> Response:
    response = no_content()
    response.headers["Allow"] = ", ".join(allowed)
    if "PATCH" in allowed:
        response.headers["Accept-Patch"] = ", ".join(body_types("PATCH"))
    return response

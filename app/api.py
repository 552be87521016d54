"""How operations are declared, so that what is checked and what the OpenAPI document says come from one place."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any
from urllib.parse import unquote_to_bytes

import flask_smorest
import marshmallow
from flask import Flask, Request, request
from flask_swagger_ui.flask_swagger_ui import get_swaggerui_blueprint
from webargs.flaskparser import FlaskParser
from werkzeug import Response

from app.auth.access import requires
from app.auth.grants import Scope
from app.columns import Query
from app.conditional import ask_again
from app.examples import example_of
from app.headers import ACCEPT_DATETIME, IF_MATCH, IF_NONE_MATCH, answered, change_parameters
from app.pages import next_link
from app.problems import KINDS, MEDIA_TYPE, BulkProblemSchema, Problem, ProblemSchema, problem_type
from app.reasons import with_reasons
from app.registry import Resource
from app.settings import Settings
from app.variants import variants2properties

_MERGE_PATCH = "application/merge-patch+json"
_WRITING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_DESCRIPTION = """\
Version history of records: what a record was at an instant, who changed it, and why.

Every write takes `X-Change-*` headers, which are kept with the change: `X-Change-Rationale: why`. Every error is a
problem (RFC 9457) with a stable `type`. A key is the parts of a record's primary key joined by `,`; in a part `~` is
`~0`, `/` is `~1` and `,` is `~2`. Instants are RFC 3339 with an offset.
"""


class _Parser(FlaskParser):
    """Refuses unknown query parameters, and bodies that are no JSON."""

    DEFAULT_UNKNOWN_BY_LOCATION = FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION | {"query": marshmallow.RAISE}

    def load_querystring(self, req: Request, schema: marshmallow.Schema) -> Any:
        """The parameters, each at most once."""
        if repeated := [name for name, values in req.args.lists() if len(values) > 1]:
            errors = {"query": {name: ["given more than once"] for name in repeated}}
            raise Problem("invalid", f"given more than once: {', '.join(repeated)}", errors=errors)
        return super().load_querystring(req, schema)

    def load_json(self, req: Request, schema: marshmallow.Schema) -> Any:
        if not req.is_json:
            given = req.mimetype or "none"
            raise Problem("unsupported-media-type", f"send the body as application/json; its Content-Type was {given}")
        if req.headers.get("Content-Encoding", "identity") != "identity":
            raise Problem("unsupported-media-type", "send the body as it is, without a Content-Encoding")
        try:
            return json.loads(_body_of(req), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise Problem("malformed-request", f"the body is no JSON: {error}") from error


def _body_of(req: Request) -> bytes:
    try:
        body = req.get_data(cache=True)
    except OSError as error:
        raise Problem("malformed-request", f"the body cannot be read: {error}") from error
    # A body that comes in chunks is cut at the limit, silently.
    if req.content_length is None and len(body) >= (req.max_content_length or len(body) + 1):
        raise Problem("content-too-large", f"a body may have {req.max_content_length} bytes at the most")
    return body


def refuse_undecodable() -> None:
    """Refuse an address that is no UTF-8: read with replacement characters, it would be another one.

    :raises Problem: 400
    """
    path = request.environ.get("PATH_INFO", "").encode("latin-1")
    parameters = unquote_to_bytes(request.environ.get("QUERY_STRING", "").encode("latin-1"))
    try:
        (path + b" " + parameters).decode()
    except UnicodeDecodeError as error:
        raise Problem("malformed-request", "the address holds bytes that are no UTF-8; encode them anew") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # flask-smorest has no types
    """A group of operations."""

    ARGUMENTS_PARSER = _Parser()

    def __init__(self, *args: Any, resource: Resource | None = None, **kwargs: Any) -> None:
        """:param resource: the model that the operations are about; none by default"""
        super().__init__(*args, **kwargs)
        self._resource = resource
        self._model = resource.name if resource else None
        self._varying: dict[str, Sequence[str]] = {}
        # After a request, so that a problem that comes before the view says it too.
        self.after_request(self._vary)

    @property
    def _requires_reasons(self) -> bool:
        return self._resource is not None and self._resource.may_require_reasons

    def _vary(self, response: Response) -> Response:
        """Say in the answer which headers of the request it depends on, whatever it is."""
        response.vary.update(self._varying.get(request.endpoint or "", ()))
        return response

    def operation(
        self,
        method: str,
        path: str,
        operation_id: str,
        *,
        scope: Scope,
        answer: type[marshmallow.Schema] | None,
        status: int = 200,
        query: type[marshmallow.Schema] = Query,
        body: type[marshmallow.Schema] | None = None,
        problems: Sequence[str] = (),
        headers: Sequence[str] = (),
        example: Any = None,
        examples: Mapping[str, Any] | None = None,
        body_example: Any = None,
        largest_body: int | None = None,
        media: Mapping[str, Any] | None = None,
        conditional: bool = False,
        cacheable: bool = False,
        timegate: bool = False,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a view as an operation of the API.

        The view is called with the parsed query, then the parsed body if there is one, then the parts of the path. Its
        docstring is the operation's description. An operation whose query has a cursor answers with pages: a document
        whose ``next`` is the cursor of the next one, which is linked to in a header as well.

        :param answer: the schema of the answer's body; ``None`` for an empty one
        :param problems: kinds of problems that it answers with, besides those that every operation has
        :param headers: names of headers of its answer
        :param example: of the answer
        :param examples: of the answer by what they are of, where one is not enough
        :param body_example: of the body; by default one with all its fields
        :param largest_body: how many bytes the body may have, where it is not what the application's config says
        :param media: media types that it answers with besides JSON, as the OpenAPI document tells of them
        :param conditional: does it take ``If-Match``?
        :param cacheable: does it take ``If-None-Match``, and answer with what `app.conditional.cacheable` makes?
        :param timegate: does it take ``Accept-Datetime``, and answer by sending to a Memento?
        """
        paged = "cursor" in query().fields
        varying = [*(("Accept",) if media else ()), *(("Accept-Datetime",) if timegate else ())]
        self._varying[f"{self.name}.{operation_id}"] = varying
        names = [
            "Cache-Control",
            *headers,
            *(("Link",) if paged else ()),
            *(("Vary",) if varying else ()),
            *(("ETag",) if cacheable else ()),
            *(("Link",) if timegate else ()),
        ]

        def declare(view: Callable[..., Any]) -> Callable[..., Any]:
            writing = method in _WRITING
            wrapped = _with_next_link(view) if paged else view
            if body is not None:
                content_type = _MERGE_PATCH if method == "PATCH" else "application/json"
                of_body = example_of(body()) if body_example is None else body_example
                wrapped = self.arguments(body, content_type=content_type, example=of_body)(wrapped)
            wrapped = self.arguments(query, location="query")(wrapped)
            named = examples and {name: {"value": value} for name, value in examples.items()}
            shown = answered(*names)
            wrapped = self.response(status, answer, example=example, examples=named, headers=shown)(wrapped)
            for media_type, told in (media or {}).items():
                wrapped = self.alt_response(status, content_type=media_type, **told)(wrapped)
            if timegate:
                sent = answered("Cache-Control", "Link", "Location", "Vary")
                wrapped = self.alt_response(302, description="The Memento is there", headers=sent)(wrapped)
            if cacheable:
                wrapped = self.alt_response(304, description="The client has it already", headers=shown)(wrapped)
            kinds_of_problems = (
                *_ALWAYS,
                *problems,
                *(_BODY if body else ()),
                *(_WRITE if writing else ()),
                *(("change-info-required",) if writing and self._requires_reasons else ()),
                *(("not-acceptable",) if media else ()),
                *(("malformed-request",) if timegate else ()),
            )
            for kind_status, kinds in _by_status(kinds_of_problems).items():
                told_of = [
                    "Cache-Control",
                    *(("Link",) if "deleted" in kinds else ()),
                    *(("Vary",) if varying else ()),
                ]
                wrapped = self.alt_response(
                    kind_status,
                    schema=BulkProblemSchema if any(kind.startswith("bulk-") for kind in kinds) else ProblemSchema,
                    content_type=MEDIA_TYPE,
                    description=" or ".join(KINDS[kind].title for kind in kinds),
                    example={
                        "type": problem_type(kinds[0]),
                        "title": KINDS[kinds[0]].title,
                        "status": kind_status,
                        "detail": "what was wrong, and what would be right",
                    },
                    headers=answered(*told_of),
                )(wrapped)
            required = self._resource.required if self._resource else {}
            parameters = [
                parameter
                for parameter, is_taken in (
                    *((parameter, writing) for parameter in change_parameters(required)),
                    (IF_MATCH, conditional),
                    (IF_NONE_MATCH, cacheable),
                    (ACCEPT_DATETIME, timegate),
                )
                if is_taken
            ]
            wrapped = self.doc(operationId=operation_id, parameters=parameters)(wrapped)
            if largest_body is not None:
                wrapped = _taking(largest_body, wrapped)
            if writing:
                wrapped = with_reasons(self._resource)(wrapped)
            # Outermost: nothing of a request is read before it is known who sends it.
            self.route(path, methods=[method], endpoint=operation_id)(requires(scope, self._model)(wrapped))
            return view

        return declare


_ALWAYS = ("unauthenticated", "invalid")
_WRITE = ("forbidden", "change-header-invalid")
_BODY = ("malformed-request", "unsupported-media-type", "content-too-large")


def _with_next_link(view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def linked(*args: Any, **kwargs: Any) -> Any:
        page = view(*args, **kwargs)
        return (page, next_link(page["next"])) if isinstance(page, Mapping) else page

    return linked


def _taking(largest_body: int, view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def taking(*args: Any, **kwargs: Any) -> Any:
        request.max_content_length = largest_body
        return view(*args, **kwargs)

    return taking


def _by_status(kinds: Sequence[str]) -> Mapping[int, list[str]]:
    by_status: dict[int, list[str]] = {}
    for kind in dict.fromkeys(kinds):
        by_status.setdefault(KINDS[kind].status, []).append(kind)
    return dict(sorted(by_status.items()))


class Api(flask_smorest.Api):  # type: ignore[misc]  # flask-smorest has no types
    """The API and its OpenAPI document, at ``/openapi.json``; its documentation page is at ``/docs``."""

    ERROR_SCHEMA = ProblemSchema

    def __init__(self, app: Flask, settings: Settings) -> None:
        app.config.update(
            API_TITLE="Chrononaut",
            API_VERSION="1",
            OPENAPI_VERSION="3.1.0",
            OPENAPI_URL_PREFIX="/",
            OPENAPI_JSON_PATH="openapi.json",
        )
        app.before_request(refuse_undecodable)
        app.after_request(ask_again)
        super().__init__(
            app,
            spec_kwargs={
                "info": {"description": _DESCRIPTION, "license": {"name": "MIT", "identifier": "MIT"}},
                "servers": [{"url": "/"}],
                "security": [{"token": []}],
            },
        )
        self.ma_plugin.converter.add_attribute_function(variants2properties)
        # Answered as text, so that no digit is lost.
        self.register_field(marshmallow.fields.Decimal, "string", "decimal")
        self.spec.components.security_scheme(
            "token", {"type": "http", "scheme": "bearer", "description": "a token made by `flask tokens create`"}
        )
        app.register_blueprint(get_swaggerui_blueprint("/docs", "/openapi.json", config={"app_name": "Chrononaut"}))

    def _register_error_handlers(self) -> None:
        """`register_problems` answers all errors."""

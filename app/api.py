"""How operations are declared, so that what is checked and what the OpenAPI document says come from one place."""

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import flask_smorest
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin, resolver
from flask import Flask, jsonify, request
from flask_swagger_ui.flask_swagger_ui import get_swaggerui_blueprint
from marshmallow import Schema, fields
from werkzeug import Response

from app.auth.access import requires
from app.auth.grants import Scope
from app.bounds import refuse_long_address
from app.change_headers import header_of
from app.columns import Query
from app.conditional import ask_again, check_untagged_preconditions
from app.document import (
    INFO,
    PATH_PARAMETERS,
    SECURITY_SCHEMES,
    SERVERS,
    answered,
    described,
    link_to_next_page,
    problem_response,
    register_components,
)
from app.dumping import Dump, dumper
from app.examples import example_of
from app.headers import change_parameters
from app.media import JSON, acceptable, body_types
from app.names import NameTakenError, free_schema_name
from app.pages import next_link
from app.problems import KINDS
from app.reading import Digits, Parser, refuse_undecodable
from app.reasons import RATIONALE, with_reasons
from app.registry import RENAME, RegistrationError, Resource
from app.retries import made_anew
from app.settings import Settings
from app.variants import properties_of
from chrononaut.options import ANY_TEXT

WRITING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # flask-smorest has no types
    """A group of operations."""

    ARGUMENTS_PARSER = Parser()

    def __init__(
        self, *args: Any, resource: Resource | None = None, key: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """:param resource: the model that the operations are about; no single one by default
        :param key: what the document tells of the part ``key`` of their paths
        """
        super().__init__(*args, **kwargs)
        self._resource = resource
        self._model = resource.name if resource else None
        self._path_parameters = {**PATH_PARAMETERS, **({"key": key} if key else {})}
        self._contracts: dict[str, _Contract] = {}
        self._prepare_doc_cbks.append(self._tell_contract)
        self._varying: dict[str, Sequence[str]] = {}
        # After a request, so that a problem that comes before the view says it too.
        self.after_request(self._vary)

    def _vary(self, response: Response) -> Response:
        """Say in the answer which headers of the request it depends on, whatever it is."""
        varying = self._varying.get(request.endpoint or "", ())
        if "Vary" in response.headers:
            response.vary.update(varying)
        elif varying:
            response.headers["Vary"] = ", ".join(varying)
        return response

    def operation(
        self,
        method: str,
        path: str,
        operation_id: str,
        *,
        scope: Scope | None,
        answer: type[Schema] | None,
        status: int = 200,
        query: type[Schema] = Query,
        body: type[Schema] | None = None,
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
        links: Mapping[str, Any] | None = None,
        public: bool = False,
        needs_rationale: bool = False,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a view as an operation of the API.

        The view is called with the parsed query, then the parsed body if there is one, then the parts of the path. Its
        docstring is the operation's description, and its first sentence the summary. An operation whose query has a
        cursor answers with pages: a document whose ``next`` is the cursor of the next one, which is linked to in a
        header as well.

        :param scope: what it takes; ``None`` where it is enough to be known, and where it is ``public``
        :param answer: the schema of the answer's body; ``None`` for an empty one
        :param problems: kinds of problems that it answers with, besides those that every operation has
        :param headers: names of headers of its answer
        :param example: of the answer
        :param examples: of the answer by what they are of, where one is not enough
        :param body_example: of the body; by default one with all its fields
        :param largest_body: how many bytes the body may have, where it is not what the application's config says
        :param media: media types that it answers with besides JSON, as the OpenAPI document tells of them
        :param conditional: does it take ``If-Match`` and ``If-None-Match``?
        :param cacheable: does it take ``If-Match`` and ``If-None-Match``, and answer with what
            `app.conditional.cacheable` makes?
        :param timegate: does it take ``Accept-Datetime``, and answer by sending to a Memento?
        :param links: from its answer to other operations, as the OpenAPI document tells of them
        :param public: is it for everyone, also for who is not known?
        :param needs_rationale: must a rationale come with it, whatever its model requires?
        """
        paged = "cursor" in query().fields
        required = {header_of(RATIONALE): ANY_TEXT} if needs_rationale else {}
        required |= self._resource.required if self._resource else {}
        # What is kept for one must not be shown to another: that of who has logged out, say.
        varying = [
            *(() if public else ("Authorization", "Cookie")),
            *(("Accept",) if answer else ()),
            *(("Accept-Datetime",) if timegate else ()),
        ]
        self._varying[f"{self.name}.{operation_id}"] = varying
        names = [
            *headers,
            *(("Link",) if paged or timegate else ()),
            *(("ETag",) if cacheable else ()),
        ]
        parts = re.findall(r"<(?:[^:>]+:)?(\w+)>", path)
        told_of_parts = [{"in": "path", "name": name, **self._path_parameters[name]} for name in parts]

        def declare(view: Callable[..., Any]) -> Callable[..., Any]:
            unsafe = method in WRITING and not public
            writing = unsafe and scope is not None
            # Only told of: flask-smorest would look into each request anew for what is known from here on.
            told: Any = view
            if body is not None:
                of_body = example_of(body()) if body_example is None else body_example
                preferred, *others = body_types(method)
                told = self.arguments(body, content_type=preferred, example=of_body)(told)
                content = {media_type: {"schema": body, "example": of_body} for media_type in others}
                told = self.doc(requestBody={"content": content})(told) if content else told
            told = self.arguments(query, location="query")(told)
            named = examples and {name: {"value": value} for name, value in examples.items()}
            shown = answered(*names)
            # What is declared last comes first, and the first is what generated clients take.
            for media_type, told_of_media in (media or {}).items():
                told = self.alt_response(status, content_type=media_type, **told_of_media)(told)
            told = self.response(status, answer, example=example, examples=named, headers=shown)(told)
            if timegate:
                sent = answered("Link", "Location")
                told = self.alt_response(302, description="The Memento is there", headers=sent)(told)
            if cacheable:
                told = self.alt_response(304, description="The client has it already", headers=shown)(told)
            told = self.doc(operationId=operation_id, **described(view.__doc__))(told)
            parameters = [field.data_key or name for name, field in query().fields.items()]
            following = link_to_next_page(operation_id, parts, parameters) if paged else {}
            self._contracts[operation_id] = _Contract(
                scope=scope,
                public=public,
                status=status,
                problems=(
                    *(() if public else ("unauthenticated",)),
                    *(() if scope is None else ("forbidden",)),
                    *_ALWAYS,
                    *problems,
                    *(("csrf-failed",) if unsafe else ()),
                    *(_BODY if body else ()),
                    *(_WRITE if writing else ()),
                    *(("not-acceptable",) if answer else ()),
                    *(("precondition-failed",) if cacheable or writing else ()),
                ),
                links={**following, **(links or {})},
                headers=[
                    *(change_parameters(required) if writing else ()),
                    *(
                        name
                        for name, is_taken in (
                            ("X-Request-ID", True),
                            ("X-CSRF-Token", unsafe),
                            ("If-Match", conditional or cacheable),
                            ("If-None-Match", conditional or cacheable),
                            ("Accept-Datetime", timegate),
                        )
                        if is_taken
                    ),
                ],
            )
            wrapped = view if answer is None else _answering(dumper(answer), status, view, paged=paged)
            wrapped = made_anew(self._reading(query(), None if body is None else body(), wrapped))
            if writing and not conditional:
                wrapped = _after(check_untagged_preconditions, wrapped)
            if largest_body is not None:
                wrapped = _taking(largest_body, wrapped)
            if writing:
                wrapped = with_reasons(self._resource, needs_rationale=needs_rationale)(wrapped)
            if answer is not None:
                # Before all else of the operation: nothing is written for a 406.
                wrapped = _after(partial(acceptable, JSON, *(media or {})), wrapped)
            # Outermost: nothing of a request is read before it is known who sends it.
            guarded: Any = wrapped if public else requires(scope, self._model)(wrapped)
            guarded._apidoc = told._apidoc
            self.route(path, methods=[method], endpoint=operation_id, parameters=told_of_parts)(guarded)
            return view

        return declare

    def _reading(self, query: Schema, body: Schema | None, view: Callable[..., Any]) -> Callable[..., Any]:
        """A view that calls another one with the query and the body of the request."""
        parse = self.ARGUMENTS_PARSER.parse
        defaults = None if query.validate({}) else query.load({})

        @wraps(view)
        def reading(**parts: Any) -> Any:
            given = [parse(query, location="query") if defaults is None or request.query_string else dict(defaults)]
            if body is not None:
                given.append(parse(body, location="json"))
            return view(*given, **parts)

        return reading

    @property
    def operation_ids(self) -> Set[str]:
        """The ids of its operations."""
        return self._contracts.keys()

    def _tell_contract(
        self, doc: dict[str, Any], doc_info: Mapping[str, Any], *, api: "Api", spec: APISpec, **kwargs: Any
    ) -> dict[str, Any]:
        """Complete what the document tells of an operation by what is the document's own: references and security."""
        contract = self._contracts[doc_info["manual_doc"]["operationId"]]
        answers = doc["responses"]
        for status, kinds in _by_status(contract.problems).items():
            answers[status] = problem_response(spec, kinds)
        if contract.links:
            answers[contract.status]["links"] = dict(contract.links)
        doc["parameters"] = [*doc["parameters"], *contract.headers]
        doc["security"] = [] if contract.public else api.security(contract.scope)
        return doc


@dataclass(frozen=True, slots=True)
class _Contract:
    """What an operation promises besides its query, its body and its answer."""

    scope: Scope | None
    public: bool
    status: int
    problems: Sequence[str]
    links: Mapping[str, Any]
    headers: Sequence[str | Mapping[str, Any]]


_ALWAYS = ("malformed-request", "uri-too-long", "invalid", "too-many-requests", "internal-error", "unavailable")
_WRITE = ("change-header-invalid", "change-info-required", "conflict", "concurrent-change", "outcome-unknown")
_BODY = ("unsupported-media-type", "content-too-large")


def _after(check: Callable[[], object], view: Callable[..., Any]) -> Callable[..., Any]:
    """A view that is called only if a check of the request raises nothing."""

    @wraps(view)
    def checked(*args: Any, **kwargs: Any) -> Any:
        check()
        return view(*args, **kwargs)

    return checked


def _answering(dump: Dump, status: int, view: Callable[..., Any], *, paged: bool) -> Callable[..., Response]:
    """A view that answers with the document that another one returns, alone or with headers, or with its response."""

    @wraps(view)
    def answering(*args: Any, **kwargs: Any) -> Response:
        returned = view(*args, **kwargs)
        if isinstance(returned, Response):
            return returned
        document, headers = returned if isinstance(returned, tuple) else (returned, {})
        response: Response = jsonify(dump(document))
        response.status_code = status
        response.headers.extend(headers)
        if paged:
            response.headers.extend(next_link(document["next"]))
        return response

    return answering


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

    DEFAULT_ERROR_RESPONSE_NAME = "Problem"

    def __init__(self, app: Flask, settings: Settings) -> None:
        self._settings = settings
        self._operation_ids: set[str] = set()
        app.config.update(
            API_TITLE="Chrononaut",
            API_VERSION="1",
            OPENAPI_VERSION="3.1.0",
            OPENAPI_URL_PREFIX="/",
            OPENAPI_JSON_PATH="openapi.json",
        )
        app.url_map.converters["int"] = Digits
        app.before_request(refuse_long_address)
        app.before_request(refuse_undecodable)
        app.after_request(ask_again)
        schemas = MarshmallowPlugin(schema_name_resolver=self._name_of_schema)
        told = {"info": INFO, "servers": SERVERS, "security": self.security("read"), "marshmallow_plugin": schemas}
        super().__init__(app, spec_kwargs=told)
        # Where a column does not say otherwise.
        self.register_field(fields.Integer, "integer", "int32")
        self.ma_plugin.converter.add_attribute_function(properties_of)
        register_components(self.spec, settings.provider)
        app.register_blueprint(get_swaggerui_blueprint("/docs", "/openapi.json", config={"app_name": "Chrononaut"}))

    def register_blueprint(self, blueprint: Blueprint, **options: Any) -> None:
        """Add a group of operations.

        :raises RegistrationError: a name that the model's would give is another's already. Nothing is renamed silently:
            names that depended on what else is served would change under the feet of generated clients.
        """
        try:
            self._take_names(blueprint)
            super().register_blueprint(blueprint, **options)
        except NameTakenError as error:
            raise RegistrationError(
                f"the model {blueprint.name} cannot have its name: there is {error} already; {RENAME}"
            ) from None

    def _take_names(self, blueprint: Blueprint) -> None:
        if blueprint.name in self._app.blueprints:
            raise NameTakenError(f"a group of operations {blueprint.name}")
        if taken := sorted(self._operation_ids & blueprint.operation_ids):
            raise NameTakenError(f"an operation {taken[0]}")
        self._operation_ids |= blueprint.operation_ids

    def _name_of_schema(self, schema: Any) -> str:
        return free_schema_name(self.spec.components, resolver(schema))

    def security(self, scope: Scope | None) -> list[dict[str, list[str]]]:
        """What an operation takes that is not public, as a list of alternatives."""
        is_open = scope == "read" and self._settings.open_reading
        scopes: list[str] = [] if scope is None else [scope]
        return [*([{}] if is_open else []), *({scheme: scopes} for scheme in SECURITY_SCHEMES)]

    def _register_responses(self) -> None:
        """`register_components` adds those that there are."""

    _register_etag_headers = _register_pagination_header = _register_responses

    def _register_error_handlers(self) -> None:
        """`register_problems` answers all errors."""

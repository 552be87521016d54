"""The OpenAPI document as a contract: what it promises of an answer, held against the answers that there are."""

import gzip
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from openapi_schema_validator import OAS31Validator, oas31_format_checker
from werkzeug.exceptions import HTTPException

PROBLEM = "application/problem+json"
_OPERATIONS = ("/history", "/problems", "/records", "/transactions")
# Of every answer that has a body: OpenAPI tells of the first by the media type.
_ALWAYS = {"Content-Encoding", "Content-Type", "Content-Length"}


def resolve(document: Any, told: Any) -> Any:
    """What a part of a document tells, or what it refers to."""
    while "$ref" in told:
        part = document
        for name in told["$ref"].removeprefix("#/").split("/"):
            part = part[name]
        told = part
    return told


def misfits(document: Any, schema: Any, value: Any) -> list[str]:
    """What about a value does not fit a schema of a document."""
    validator = OAS31Validator(schema | {"components": document["components"]}, format_checker=oas31_format_checker)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def examples_of(content: Any) -> list[Any]:
    """The examples of a media type."""
    return [content["example"]] if "example" in content else [told["value"] for told in content["examples"].values()]


def breaches(document: Any, template: str, method: str, response: Any) -> Iterator[str]:
    """What a document does not promise of the answer of an operation."""
    operation = document["paths"][template]["get" if method == "HEAD" else method.lower()]
    status = str(response.status_code)
    if status not in operation["responses"]:
        yield f"the status {status} is not told of: {response.text[:300]}"
        return
    told = resolve(document, operation["responses"][status])
    # What a browser may do with an answer of another origin is no part of it.
    given = {name for name in response.headers.keys() if not name.startswith("Access-Control-")}  # noqa: SIM118
    unknown = given - _ALWAYS - told.get("headers", {}).keys()
    if unknown:
        yield f"the headers {sorted(unknown)} of {status} are not told of"
    if method != "HEAD":
        yield from _of_body(document, told.get("content", {}), response)


def _of_body(document: Any, contents: Any, response: Any) -> Iterator[str]:
    if not response.data:
        if contents:
            yield f"no body, and not one of {sorted(contents)}"
        return
    content = contents.get(response.mimetype)
    if content is None:
        yield f"the media type {response.mimetype} is none of {sorted(contents)}"
        return
    data = gzip.decompress(response.data) if response.content_encoding == "gzip" else response.data
    if not response.mimetype.endswith("json"):
        yield from misfits(document, content["schema"], data.decode())
        return
    body = json.loads(data, parse_constant=_refuse_constant)
    yield from misfits(document, content["schema"], body)
    if response.mimetype == PROBLEM:
        kinds = {example["type"] for example in examples_of(content)}
        if body["type"] not in kinds:
            yield f"the problem {body['type']} is none of {sorted(kinds)}"


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@lru_cache(maxsize=4)
def document_of(app: Flask) -> Any:
    """The document that a service answers with, closed: what it does not tell of is not answered."""
    document = json.loads(app.test_client().get("/openapi.json").data)
    _close(document["components"]["schemas"])
    return document


def _close(schemas: Any) -> None:
    for schema in schemas.values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
            _close(schema["properties"])


class ContractClient(FlaskClient):
    """A client that holds every answer of an operation against the document."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        """The answer, which is as the document says."""
        response = super().open(*args, **kwargs)
        request = response.request
        try:
            rule, _ = self.application.url_map.bind_to_environ(request.environ).match(return_rule=True)
        except HTTPException:
            rule = None
        if rule is not None and request.method != "OPTIONS" and request.path.startswith(_OPERATIONS):
            template = re.sub(r"<(?:[^:>]+:)?(\w+)>", r"{\1}", rule.rule)
            wrong = list(breaches(document_of(self.application), template, request.method, response))
            assert not wrong, f"{request.method} {template}: {wrong}"
        return response

"""The parts of the OpenAPI document that operations share: what they answer errors with, and how they are linked.

Operations refer to them by name, so that the document stays small and generated clients have one type for each.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from apispec import APISpec

from app.auth.access import CSRF_HEADER, SESSION_COOKIE
from app.headers import ANSWERED, RATE_LIMIT, TAKEN
from app.json_patch import JSON_PATCH_OPERATION
from app.problem_examples import EXAMPLES
from app.problems import KINDS, MEDIA_TYPE, BulkProblemSchema, ProblemSchema
from app.registry import Resource
from app.settings import ProviderSettings

INFO: Mapping[str, Any] = {
    "description": """\
Version history of records: what a record was at an instant, who changed it, and why.

Every write takes `X-Change-*` headers, which are kept with the change: `X-Change-Rationale: why`. Every error is a
problem (RFC 9457) with a stable `type`, at whose address stands what it means. A key is the parts of a record's primary
key joined by `,`; in a part `~` is `~0`, `/` is `~1` and `,` is `~2`. Instants are RFC 3339 with an offset.

Every `GET` is there as `HEAD` too, and every address answers `OPTIONS` with the methods that it has. A `POST` to a list
is refused (412) with a tag in `If-Match` or with `If-None-Match: *`: the list is there, and has no `ETag`.

What is added later breaks no client that passes over what it does not know: fields of answers, headers, and kinds of
problems. Fields that a request does not know are refused.
""",
    "contact": {"name": "Whoever operates this service"},
    "license": {"name": "MIT", "identifier": "MIT"},
}
SERVERS = [{"url": "/", "description": "Where this document is served"}]
SECURITY_SCHEMES: Mapping[str, Mapping[str, Any]] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token made by `flask tokens create`. Its scopes are for all models (`read`) or for one "
        "(`user:read`); each operation tells which one it takes.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": SESSION_COOKIE,
        "description": f"A session begun by `POST /session`; what changes something takes `{CSRF_HEADER}` as well.",
    },
}
PATH_PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "kind": {"description": "The kind of problem: the last part of its `type`.", "example": "precondition-failed"},
    "number": {"description": "The number of the version, from 0 on.", "example": 0},
    "transaction_id": {
        "description": "The id of the transaction, as its changes tell it.",
        "example": "01990e5c-7d2a-7a31-9c1f-0d6a54b1f0aa",
    },
}
"""What is told of the parts of a path, by their names; of a record's key by `key_parameter`."""

_BEFORE_ALL = (
    "unknown-model",
    "method-not-allowed",
    "request-timeout",
    "headers-too-large",
    "expectation-failed",
    "not-implemented",
    "http-version-not-supported",
)
"""The kinds of problems that come before it is known which operation is asked for."""


def register_components(spec: APISpec, provider: ProviderSettings | None = None) -> None:
    """Add what operations refer to by its name, so far as any does."""
    spec.components.schema("Problem", schema=ProblemSchema)
    spec.components.schema("JsonPatchOperation", dict(JSON_PATCH_OPERATION))
    spec.components.schema("BulkProblem", schema=BulkProblemSchema, lazy=True)
    for name, header in ANSWERED.items():
        spec.components.header(name, dict(header), lazy=True)
    for name, parameter in TAKEN.items():
        spec.components.parameter(name, "header", dict(parameter), lazy=True)
    others = {kind: _example(kind) for kind in _BEFORE_ALL}
    spec.components.response("Problem", _problem("Any other problem", sorted(_headers(KINDS)), others))
    for name, scheme in SECURITY_SCHEMES.items():
        spec.components.security_scheme(name, dict(scheme) | (_of(provider, scheme) if name == "token" else {}))


def _of(provider: ProviderSettings | None, scheme: Mapping[str, Any]) -> dict[str, str]:
    """What is told of tokens besides, if those of an identity provider are taken."""
    if provider is None:
        return {}
    theirs = f"Or a JWT of {provider.issuer} for {provider.audience}, with the scopes in `{provider.scope_claim}`."
    return {"bearerFormat": "JWT", "description": f"{scheme['description']} {theirs}"}


def problem_response(spec: APISpec, kinds: Sequence[str]) -> str:
    """The name of the response that is one of some kinds of problems, all of one status; it is added if it is new."""
    name = "Or".join("".join(word.capitalize() for word in kind.split("-")) for kind in kinds)
    if name not in spec.components.responses:
        examples = {kind: _example(kind) for kind in kinds}
        description = " or ".join(KINDS[kind].title for kind in kinds)
        spec.components.response(name, _problem(description, _headers(kinds), examples))
    return name


def _example(kind: str) -> dict[str, Any]:
    told = KINDS[kind]
    return {"summary": told.title, "description": told.description, "value": EXAMPLES[kind]}


def _problem(description: str, headers: Iterable[str], examples: Mapping[str, Any]) -> dict[str, Any]:
    is_bulk = any(kind.startswith("bulk-") for kind in examples)
    content = {"schema": "BulkProblem" if is_bulk else "Problem", "examples": examples}
    return {"description": description, "headers": answered(*headers), "content": {MEDIA_TYPE: content}}


def _headers(kinds: Iterable[str]) -> list[str]:
    return [name for kind in kinds for name in KINDS[kind].headers]


def answered(*names: str) -> dict[str, str]:
    """The headers of an answer, those that every answer may have included, each as a reference."""
    return {name: name for name in sorted({*names, *RATE_LIMIT, "Cache-Control", "Vary", "X-Request-ID"})}


def described(docstring: str | None) -> dict[str, str]:
    """An operation's summary, which is the first sentence of a docstring, and its description, which is all of it."""
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", (docstring or "").strip())]
    summary = re.split(r"(?<=[.?!])\s", paragraphs[0])[0].removesuffix(".")
    return {"summary": summary, "description": "\n\n".join(paragraphs)}


def key_parameter(resource: Resource, example: str) -> dict[str, Any]:
    """What is told of the key in a path."""
    parts = ",".join(f"{{{name}}}" for name in resource.versioning.key)
    return {
        "description": f"The key of the record: `{parts}`; in a part `~` is `~0`, `/` is `~1` and `,` is `~2`.",
        "example": example,
        "schema": {"type": "string", "minLength": 1, "maxLength": resource.longest_key_text},
    }


def link_to_next_page(operation_id: str, parameters: Iterable[str], query: Sequence[str]) -> dict[str, Any]:
    """The link from a page to the one that follows, which is asked for with the same parameters and a cursor.

    :param parameters: those of the path
    :param query: those of the query
    """
    # Tools read a dot in an expression as the end of a name.
    repeated = [name for name in query if name != "cursor" and "." not in name]
    again = "".join(f" Say `{name}` again." for name in query if "." in name)
    return {
        "next": {
            "operationId": operation_id,
            "description": f"The next page; there is none if `next` is null.{again}",
            "parameters": {
                **{name: f"$request.path.{name}" for name in parameters},
                **{name: f"$request.query.{name}" for name in repeated},
                "cursor": "$response.body#/next",
            },
        }
    }


def links_to_record(name: str, key: str = "$response.body#/key") -> dict[str, Any]:
    """The links from an answer that tells of a record to what can be asked of it.

    :param name: of the model
    :param key: an expression for the record's key
    """
    operations = {
        "record": f"get_{name}",
        "history": f"list_{name}_versions",
        "changes": f"list_{name}_changes",
        "blame": f"get_{name}_blame",
    }
    return {link: {"operationId": id_, "parameters": {"key": key}} for link, id_ in operations.items()}


def links_to_writes(name: str) -> dict[str, Any]:
    """The links from an answer that is a record to what changes it, if it is still at this version."""
    operations = {"change": f"change_{name}", "replace": f"replace_{name}", "delete": f"delete_{name}"}
    parameters = {"key": "$response.body#/key", "If-Match": "$response.header.ETag"}
    return {link: {"operationId": id_, "parameters": parameters} for link, id_ in operations.items()}


def links_to_deleted(name: str) -> dict[str, Any]:
    """The links from the answer that a record was deleted: what is left of it, and how it is made again."""
    operations = {"history": f"list_{name}_versions", "changes": f"list_{name}_changes", "restore": f"restore_{name}"}
    parameters = {"key": "$request.path.key"}
    return {link: {"operationId": id_, "parameters": parameters} for link, id_ in operations.items()}


def links_to_version(name: str, pointer: str = "") -> dict[str, Any]:
    """The link to a version of a record by its number.

    :param name: of the model
    :param pointer: where in the answer's body that stands which has a version (RFC 6901)
    """
    parameters = {"key": "$response.body#/key", "number": f"$response.body#{pointer}/version"}
    return {"version": {"operationId": f"get_{name}_version", "parameters": parameters}}


def link_to_transaction(pointer: str = "") -> dict[str, Any]:
    """The link to a transaction.

    :param pointer: where in the answer's body that stands which has its id (RFC 6901)
    """
    id_ = {"transaction_id": f"$response.body#{pointer}/transaction_id"}
    return {"transaction": {"operationId": "get_transaction", "parameters": id_}}

"""The REST reference: pages in Markdown of what `openapi/openapi.json` says, made whenever the pages are built.

A page that has the line ``<!-- operations -->``, ``<!-- schemas -->`` or ``<!-- problems -->`` gets them there.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_DOCUMENT = Path(__file__).parents[2] / "openapi" / "openapi.json"
_METHODS = ("get", "post", "put", "patch", "delete")
_LIMITS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
    "default": "by default `{}`",
}
_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
"""Limits that a format has by itself."""


def operations(document: Mapping[str, Any]) -> str:
    """All operations of an OpenAPI document, by their tags: a section of Markdown for each.

    :param document: OpenAPI 3.1
    """
    return "\n\n".join(_operations(document)) + "\n"


def schemas(document: Mapping[str, Any]) -> str:
    """All schemas of an OpenAPI document: a section of Markdown for each.

    :param document: OpenAPI 3.1
    """
    sections = (_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items()))
    return "\n\n".join(sections) + "\n"


def problems(document: Mapping[str, Any]) -> str:
    """A table of all kinds of problems that an OpenAPI document has an example of.

    :param document: OpenAPI 3.1
    """
    kinds = {
        kind: example
        for answer in document["components"]["responses"].values()
        for content in answer.get("content", {}).values()
        for kind, example in content.get("examples", {}).items()
    }
    rows = (
        [f"`{each['value']['type']}`", str(each["value"]["status"]), each["summary"], each.get("description", "")]
        for _, each in sorted(kinds.items(), key=lambda item: (item[1]["value"]["status"], item[0]))
    )
    return _table(("type", "status", "title", "what it means, and what to do"), rows) + "\n"


def _operations(document: Mapping[str, Any]) -> Iterator[str]:
    for tag in document["tags"]:
        yield f"## {tag['name']}\n\n{tag['description'].rstrip('.')}."
        for path, item in document["paths"].items():
            for method in _METHODS:
                if tag["name"] in item.get(method, {}).get("tags", ()):
                    yield _operation(document, f"{method.upper()} {path}", item[method], item.get("parameters", []))


def _operation(document: Mapping[str, Any], title: str, operation: Mapping[str, Any], shared: list[Any]) -> str:
    parts = [f"({operation['operationId']})=\n### `{title}`", operation.get("description", operation["summary"])]
    parts.append(f"Operation `{operation['operationId']}`. {_access(operation)}")
    parameters = [_resolved(document, parameter) for parameter in (*shared, *operation.get("parameters", ()))]
    if parameters:
        parts.append(
            _table(
                ("parameter", "in", "type", "meaning"),
                ([f"`{each['name']}`", each["in"], _type(each["schema"]), _meaning(each)] for each in parameters),
            )
        )
    if "requestBody" in operation:
        body = _resolved(document, operation["requestBody"])
        parts.append(f"The body: {_content(body['content'])}.")
        parts += _examples(body["content"])
    answers = [(status, _resolved(document, answer)) for status, answer in operation["responses"].items()]
    parts.append(
        _table(
            ("status", "meaning", "body"),
            (
                [status, answer["description"], _content(answer.get("content", {}))]
                for status, answer in sorted(answers)
            ),
        )
    )
    parts += [each for status, answer in answers if status[0] == "2" for each in _examples(answer.get("content", {}))]
    return "\n\n".join(parts)


def _access(operation: Mapping[str, Any]) -> str:
    grants = [scope for each in operation.get("security", ()) for scopes in each.values() for scope in scopes]
    if not operation.get("security"):
        return "For everyone."
    return f"Takes the grant `{grants[0]}`." if grants else "Takes a token or a session."


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    parts = [f"(schema-{name.lower()})=\n## {name}"]
    if "description" in schema:
        parts.append(schema["description"])
    fields = schema.get("properties", {})
    if fields:
        required = schema.get("required", ())
        parts.append(
            _table(
                ("field", "type", "meaning"),
                (
                    [f"`{field}`" + ("" if field in required else " (may be absent)"), _type(of), _meaning(of)]
                    for field, of in fields.items()
                ),
            )
        )
    else:
        parts.append(_type(schema))
    return "\n\n".join(parts)


def _resolved(document: Mapping[str, Any], thing: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference leads to, or the thing itself."""
    if "$ref" not in thing:
        return thing
    found: Any = document
    for part in thing["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return _resolved(document, found)


def _type(schema: Mapping[str, Any]) -> str:
    """The type of a value, in words, with the limits that it has."""
    match schema:
        case {"$ref": reference}:
            name = reference.rpartition("/")[2]
            text = f"[{name}](#schema-{name.lower()})"
        case {"anyOf": kinds} | {"oneOf": kinds}:
            text = " or ".join(map(_type, kinds))
        case {"const": value}:
            text = f"`{value}`"
        case {"enum": values}:
            text = " or ".join(f"`{value}`" for value in values)
        case {"type": "array", "items": items}:
            text = f"array of {_type(items)}"
        case {"type": "object", "additionalProperties": {} as values} if values:
            text = f"object of {_type(values)}"
        case {"type": [*kinds]}:
            text = " or ".join(kinds)
        case {"type": kind}:
            text = kind
        case _:
            text = "any"
    if "format" in schema:
        text += f" ({schema['format']})"
    usual = _RANGES.get(schema.get("format", ""), ())
    limits = [
        says.format(schema[limit]) for limit, says in _LIMITS.items() if limit in schema and schema[limit] not in usual
    ]
    return ", ".join([text, *limits])


def _meaning(thing: Mapping[str, Any]) -> str:
    words = [thing["description"]] if "description" in thing else []
    if thing.get("required") is True:
        words.append("Required.")
    words += [says for mark, says in (("readOnly", "Read only."), ("writeOnly", "Written only.")) if thing.get(mark)]
    return " ".join(words)


def _content(content: Mapping[str, Any]) -> str:
    return ", ".join(f"`{kind}`: {_type(of.get('schema', {}))}" for kind, of in content.items())


def _examples(content: Mapping[str, Any]) -> Iterator[str]:
    for kind, of in content.items():
        if "example" in of and "json" in kind:
            yield f"```json\n{json.dumps(of['example'], indent=2, ensure_ascii=False)}\n```"
            return


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )


def _fill(app: Any, name: str, source: list[str]) -> None:
    document = json.loads(_DOCUMENT.read_text())
    for made in (operations, schemas, problems):
        mark = f"<!-- {made.__name__} -->"
        if mark in source[0]:
            app.env.note_dependency(str(_DOCUMENT), docname=name)
            source[0] = source[0].replace(mark, made(document))


def setup(app: Any) -> dict[str, bool]:
    """Fill the pages as they are read."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

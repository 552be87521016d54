"""Differences as JSON Patch (RFC 6902)."""

from collections.abc import Mapping
from typing import Any

import jsonpatch
from flask import current_app
from werkzeug import Response

JSON_PATCH = "application/json-patch+json"
JSON_PATCH_OPERATION: Mapping[str, Any] = {
    "type": "object",
    "required": ["op", "path"],
    "properties": {
        "op": {"type": "string", "enum": ["add", "remove", "replace", "move", "copy", "test"]},
        "path": {"type": "string", "format": "json-pointer"},
        "from": {"type": "string", "format": "json-pointer"},
        "value": {},
    },
}
"""The component ``JsonPatchOperation`` of the OpenAPI document."""
_SCHEMA: Mapping[str, Any] = {"type": "array", "items": {"$ref": "#/components/schemas/JsonPatchOperation"}}


def patch_answer(example: Any) -> dict[str, Any]:
    """A patch as the OpenAPI document tells of it."""
    return {"schema": _SCHEMA, "example": example}


def patch_between(before: Any, after: Any) -> Response:
    """The patch that makes one document into another, each as the service answers with it."""
    json = current_app.json
    # As JSON: what is no JSON value, as a decimal number, is compared as it is answered.
    patch = jsonpatch.make_patch(json.loads(json.dumps(before)), json.loads(json.dumps(after)))
    return Response(json.dumps(patch.patch), content_type=JSON_PATCH)

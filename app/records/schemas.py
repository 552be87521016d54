"""The documents of ``/records``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marshmallow import Schema, fields, validate

from app.answers import Answer
from app.columns import (
    Body,
    Exact,
    Query,
    new_schema,
    patch_schema,
    record_schema,
    replacement_schema,
    restoration_schema,
)
from app.history.schemas import LinksSchema, erased_field, version_field
from app.instants import Instant
from app.pages import cursor_field, limit_field
from app.registry import Resource
from app.variants import Constant, Variants

MOST_ITEMS = 1000
"""How many records one request may write."""
LONGEST_IF_MATCH = 1000
"""Characters of what one item says as ``If-Match``."""


class RecordQuery(Query):
    """Which state of a record."""

    as_of = Instant(metadata={"description": "as it was at this instant, without untracked columns; now by default"})


class RecordsQuery(RecordQuery):
    """Which page of the records."""

    limit = limit_field()
    cursor = cursor_field()


@dataclass(frozen=True, slots=True)
class RecordSchemas:
    """The documents of one model's records."""

    state: type[Schema]
    record: type[Schema]
    records: type[Schema]
    new: type[Schema]
    replacement: type[Schema]
    patch: type[Schema]
    restoration: type[Schema]


def record_schemas(resource: Resource) -> RecordSchemas:
    """The schemas of a model's records."""
    state = record_schema(resource)
    record = Answer.from_dict(
        {
            "model": fields.String(required=True),
            "key": fields.String(required=True),
            "version": version_field(),
            "valid_from": Instant(required=True, allow_none=True, metadata={"description": "when the state began"}),
            "state": fields.Nested(state, required=True),
            "erased": erased_field(),
            "links": fields.Nested(LinksSchema, required=True),
        },
        name=resource.title,
    )
    records = Answer.from_dict(
        {
            "model": fields.String(required=True),
            "records": fields.List(fields.Nested(record), required=True),
            "next": fields.String(required=True, allow_none=True, metadata={"description": "the next page's cursor"}),
        },
        name=f"{resource.title}List",
    )
    return RecordSchemas(
        state=state,
        record=record,
        records=records,
        new=new_schema(resource),
        replacement=replacement_schema(resource),
        patch=patch_schema(resource),
        restoration=restoration_schema(resource),
    )


@dataclass(frozen=True, slots=True)
class BulkSchemas:
    """The documents of writing many records of one model.

    :ivar items: operation → schema of an item
    """

    items: Mapping[str, type[Schema]]
    body: type[Schema]
    answer: type[Schema]


class _Items(Exact):
    """What its items hold is for their own schemas to say, item by item."""


def bulk_schemas(resource: Resource) -> BulkSchemas:
    """The schemas of writing many records of a model."""
    title = resource.title
    key = fields.String(
        required=True,
        validate=validate.Length(max=resource.longest_key_text),
        metadata={"description": "the record's key, as every answer carries it"},
    )
    if_match = fields.String(
        validate=validate.Length(max=LONGEST_IF_MATCH),
        metadata={
            "description": "write only if the record is still at this version: an `ETag`, quotes included, or whatever "
            "else the header `If-Match` takes",
            "example": '"v3"',
        },
    )
    existing: dict[str, fields.Field[Any]] = {"key": key, "if_match": if_match}
    contents: Mapping[str, dict[str, fields.Field[Any]]] = {
        "create": {"record": fields.Nested(new_schema(resource), required=True)},
        "replace": existing | {"record": fields.Nested(replacement_schema(resource), required=True)},
        "change": existing | {"changes": fields.Nested(patch_schema(resource), required=True)},
        "delete": existing,
    }
    items = {
        operation: Body.from_dict(
            {"operation": Constant(operation), **content},
            name=f"{title}Bulk{operation.title()}",
        )
        for operation, content in contents.items()
    }
    body = _Items.from_dict(
        {
            "items": fields.List(
                Variants(f"{title}BulkItem", "operation", items),
                required=True,
                validate=validate.Length(min=1, max=MOST_ITEMS),
            )
        },
        name=f"{title}Bulk",
    )
    written = Answer.from_dict(
        {
            "operation": fields.String(required=True, validate=validate.OneOf([*items])),
            "key": fields.String(required=True),
            "version": fields.Integer(
                required=True, allow_none=True, metadata={"description": "none of a deleted record"}
            ),
            "etag": fields.String(
                required=True,
                allow_none=True,
                metadata={"description": "what identifies the record (RFC 9110); none of a deleted one"},
            ),
            "links": fields.Nested(LinksSchema, required=True),
        },
        name=f"{title}Written",
    )
    answer = Answer.from_dict(
        {"model": fields.String(required=True), "items": fields.List(fields.Nested(written), required=True)},
        name=f"{title}BulkWritten",
    )
    return BulkSchemas(items=items, body=body, answer=answer)

"""The documents of ``/records``."""

from dataclasses import dataclass

from marshmallow import Schema, fields

from app.answers import Answer
from app.columns import Query, new_schema, patch_schema, record_schema, replacement_schema, restoration_schema
from app.history.schemas import LinksSchema, version_field
from app.instants import Instant
from app.pages import cursor_field, limit_field
from app.registry import Resource


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

"""Columns → marshmallow fields: how the values of a model stand in documents."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import sqlalchemy as sa
from marshmallow import Schema, ValidationError, fields, pre_load, validate
from marshmallow_sqlalchemy import ModelConverter

from app.instants import Instant
from app.registry import Resource, integer_range
from chrononaut import types

_CONVERTER = ModelConverter()


class Strict(Schema):
    """What a request says; any field that is not known is refused, and any text that no database can store."""

    class Meta:
        """Refuse what is not known."""

        unknown = "raise"

    @pre_load
    def refuse_unstorable_text(self, data: Any, **kwargs: Any) -> Any:
        """Refuse NUL and lone surrogates, which JSON can carry and PostgreSQL cannot."""
        if isinstance(data, Mapping) and (
            wrong := [item[0] for item in data.items() if any(map(_is_unstorable, item))]
        ):
            raise ValidationError({name: ["holds NUL or a lone surrogate, which cannot be stored"] for name in wrong})
        return data


class Query(Strict):
    """The parameters of a query."""


class Body(Strict):
    """A body."""


def _is_unstorable(value: Any) -> bool:
    if isinstance(value, str):
        return any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, Mapping):
        return any(_is_unstorable(part) for item in value.items() for part in item)
    return isinstance(value, list) and any(_is_unstorable(item) for item in value)


@cache
def state_schema(resource: Resource) -> type[Schema]:
    """The schema of a state in history: the tracked columns."""
    columns = resource.versioning.tracked
    return Schema.from_dict(
        {name: _field(column, required=True) for name, column in columns.items()}, name=f"{resource.title}State"
    )


def record_schema(resource: Resource) -> type[Schema]:
    """The schema of a record: all columns but the hidden ones."""
    fields_of_state = {name: _field(column, required=True) for name, column in resource.versioning.tracked.items()}
    # Nobody knows them of a state that was.
    untracked = {name: _field(column, required=False) for name, column in resource.versioning.untracked.items()}
    return Schema.from_dict(fields_of_state | untracked, name=f"{resource.title}Fields")


@cache
def new_schema(resource: Resource) -> type[Schema]:
    """The schema of a record to be made: every column that the database does not number by itself."""
    columns = resource.versioning.columns
    return _body(f"New{resource.title}", {name: c for name, c in columns.items() if not _is_numbered(c)})


@cache
def replacement_schema(resource: Resource) -> type[Schema]:
    """The schema of a record's replacement: every column but the key."""
    columns = resource.versioning.columns
    return _body(
        f"{resource.title}Replacement", {name: c for name, c in columns.items() if name not in resource.versioning.key}
    )


@cache
def patch_schema(resource: Resource) -> type[Schema]:
    """The schema of a merge patch: any column but the key."""
    columns = resource.versioning.columns
    changeable = {name: column for name, column in columns.items() if name not in resource.versioning.key}
    return Body.from_dict(
        {name: _field(column, required=False) for name, column in changeable.items()}, name=f"{resource.title}Patch"
    )


def restoration_schema(resource: Resource) -> type[Schema]:
    """The schema of what to restore: a version, and what goes before its values."""
    least = 0
    return Body.from_dict(
        {
            "version": fields.Integer(
                strict=True,
                validate=validate.Range(least, integer_range(sa.Integer())[1]),
                metadata={
                    "description": "which version; of a deleted record by default the last one",
                    "example": least,
                },
            ),
            "values": fields.Nested(
                patch_schema(resource),
                load_default={},
                metadata={"description": "what goes before the old values; history has none of hidden columns"},
            ),
        },
        name=f"{resource.title}Restoration",
    )


def _body(name: str, columns: Mapping[str, sa.Column[Any]]) -> type[Schema]:
    return Body.from_dict(
        {attribute: _field(column, required=_is_required(column)) for attribute, column in columns.items()}, name=name
    )


def _is_numbered(column: sa.Column[Any]) -> bool:
    return bool(column.table.autoincrement_column is column)


def _is_required(column: sa.Column[Any]) -> bool:
    return not (column.nullable or column.default is not None or column.server_default is not None)


def _field(column: sa.Column[Any], *, required: bool) -> fields.Field[Any]:
    options: dict[str, Any] = {"required": required, "allow_none": column.nullable}
    if "example" in column.info:
        options["metadata"] = {"example": column.info["example"]}
    own: type[fields.Field[Any]] | None = column.info.get("field")
    if own is not None:
        return own(**options)
    if isinstance(column.type, types.Instant) or (isinstance(column.type, sa.DateTime) and column.type.timezone):
        return Instant(**options)
    if isinstance(column.type, sa.Boolean):
        return fields.Boolean(**options, truthy={True}, falsy={False})
    if isinstance(column.type, sa.Integer):
        low, high = integer_range(column.type)
        return fields.Integer(**options, strict=True, validate=validate.Range(low, high))
    if type(column.type) in {sa.String, sa.Text, sa.Unicode, sa.UnicodeText}:
        # An empty part of a key could not stand in a URL.
        shortest = 1 if column.primary_key else None
        return fields.String(
            **options, validate=validate.Length(min=shortest, max=getattr(column.type, "length", None))
        )
    field: fields.Field[Any] = _CONVERTER.column2field(column, **options)
    return field

"""Examples for the OpenAPI document, made of schemas, so that they fit them."""

from typing import Any

from marshmallow import Schema, fields, validate

from app.instants import Instant

_VALUES: tuple[tuple[type[fields.Field[Any]], Any], ...] = (
    (fields.Boolean, True),
    (fields.Integer, 1),
    (fields.Decimal, "1.50"),
    (fields.Number, 1.5),
    (fields.UUID, "01990e5c-7d2a-7a31-9c1f-0d6a54b1f0aa"),
    (Instant, "2026-03-01T09:00:00.000000Z"),
    (fields.Date, "2026-03-01"),
    (fields.Time, "09:00:00"),
    (fields.DateTime, "2026-03-01T09:00:00"),
    (fields.TimeDelta, 3600),
    (fields.Mapping, {}),
)
"""Kind of field → a value of it as JSON; the first that fits."""


def example_of(schema: Schema) -> dict[str, Any]:
    """A document with all fields of a schema."""
    return {field.data_key or name: _value(name, field) for name, field in schema.fields.items()}


def _value(name: str, field: fields.Field[Any]) -> Any:
    """A value of a field; a text is its name, as long as it may be."""
    if "example" in field.metadata:
        return field.metadata["example"]
    if isinstance(field, fields.Enum):
        return field._serialize(next(iter(field.enum.__members__.values())), None, None)
    if isinstance(field, fields.Nested):
        return example_of(field.schema)
    if isinstance(field, fields.List):
        return [_value(name, field.inner)]
    for validator in field.validators:
        if isinstance(validator, validate.OneOf):
            return next(iter(validator.choices))
    longest = min((rule.max for rule in field.validators if isinstance(rule, validate.Length) and rule.max), default=99)
    return next((value for kind, value in _VALUES if isinstance(field, kind)), name[:longest])

"""Examples for the OpenAPI document, made of schemas, so that they fit them."""

from collections.abc import Iterator
from string import ascii_lowercase, digits
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

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


def another(value: Any, field: fields.Field[Any]) -> Any:
    """A value that a field takes, like the example but not the same."""
    for candidate in _like(value, field):
        try:
            field.deserialize(candidate)
        except ValidationError:
            continue
        return candidate
    return value


def _like(value: Any, field: fields.Field[Any]) -> Iterator[Any]:
    for rule in field.validators:
        if isinstance(rule, validate.OneOf):
            yield from (choice for choice in rule.choices if choice != value)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield value + 1
    elif isinstance(value, str):
        place = max((place for place, character in enumerate(value) if character in digits), default=0)
        row = digits if value[place : place + 1] in digits else ascii_lowercase
        start = row.find(value[place : place + 1]) + 1
        # What follows comes first; the last digit of a date has only some that may follow.
        yield from (value[:place] + other + value[place + 1 :] for other in row[start:] + row[: max(start - 1, 0)])


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

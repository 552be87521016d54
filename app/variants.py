"""Documents of several kinds in one place, told apart by the value of one of their fields."""

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields


class Variants(fields.Field[Any]):
    """A document that fits one of several schemas; whoever loads it finds out which, and whether it does.

    :param by: the field that tells them apart
    :param schemas: value of that field → schema, which takes no other value of it
    """

    def __init__(self, by: str, schemas: Mapping[str, type[Schema]], **options: Any) -> None:
        self.by, self.schemas = by, schemas
        super().__init__(**options)


def variants2properties(converter: Any, field: fields.Field[Any], **kwargs: Any) -> dict[str, Any]:
    """What the OpenAPI document tells of `Variants`; apispec calls it for each field."""
    if not isinstance(field, Variants):
        return {}
    told = {value: converter.resolve_nested_schema(schema) for value, schema in field.schemas.items()}
    mapping = {value: reference["$ref"] for value, reference in told.items()}
    return {"oneOf": [*told.values()], "discriminator": {"propertyName": field.by, "mapping": mapping}}

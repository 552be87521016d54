"""Fields of which the OpenAPI document says so much that generated clients have good types for them."""

from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import Schema, fields, validate

from app.names import free_schema_name


class Choice(fields.String):
    """One of a few texts.

    :param component: the name of its component; fields of one name take the same texts
    """

    def __init__(self, component: str, choices: Sequence[str], **options: Any) -> None:
        self.component, self.choices = component, choices
        super().__init__(validate=validate.OneOf(choices), **options)


class Constant(fields.String):
    """A text that is always the same: what tells a variant apart."""

    def __init__(self, value: str) -> None:
        self.value = value
        super().__init__(required=True, validate=validate.OneOf([value]))


class Variants(fields.Field[Any]):
    """A document that fits one of several schemas; whoever loads it finds out which, and whether it does.

    :param component: the name of its component
    :param by: the field that tells them apart
    :param schemas: value of that field → schema, whose field is a `Constant` of it
    """

    def __init__(self, component: str, by: str, schemas: Mapping[str, type[Schema]], **options: Any) -> None:
        self.component, self.by, self.schemas = component, by, schemas
        super().__init__(**options)


def properties_of(converter: Any, field: fields.Field[Any], ret: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """What the OpenAPI document tells of these fields; apispec calls it for each field.

    :param ret: what is told of the field so far
    """
    match field:
        case Choice():
            del ret["type"], ret["enum"]
            reference = _reference(converter, field.component, {"type": "string", "enum": [*field.choices]})
            return {"anyOf": [reference, {"type": "null"}]} if field.allow_none else reference
        case Constant():
            del ret["enum"]
            return {"const": field.value}
        case Variants():
            told = {value: converter.resolve_nested_schema(schema) for value, schema in field.schemas.items()}
            mapping = {value: reference["$ref"] for value, reference in told.items()}
            discriminator = {"propertyName": field.by, "mapping": mapping}
            return _reference(converter, field.component, {"oneOf": [*told.values()], "discriminator": discriminator})
        case _:
            return {}


def _reference(converter: Any, name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A reference to a component, which is made when it is first needed.

    :raises NameTakenError: another one has its name
    """
    components, names = converter.spec.components, converter.refs
    if name not in names:
        names[name] = free_schema_name(components, name)
        components.schema(name, schema)
    reference: dict[str, Any] = components.get_ref("schema", name)
    return reference

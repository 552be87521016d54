"""Schemas → functions that dump documents.

A schema of marshmallow finds out for each value anew how it is dumped. That depends on the schema alone: here it is
found out once. What a value becomes is for its field to say, as ever.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from marshmallow import Schema, fields, missing

Document = dict[str, Any]
Dump = Callable[[Mapping[str, Any]], Document]
_Write = Callable[..., Any]  # called as `Field._serialize` is: with the value, the field's name and the document


class _Step(NamedTuple):
    """How one field is dumped.

    :ivar key: its name in the document that is made, and `attribute` in the one that is dumped
    :ivar plain: the classes of values that the field leaves as they are
    :ivar write: what dumps any other value; ``None`` where the field has to see more than the value
    :ivar is_skipped: is it left out where the document lacks it?
    """

    key: str
    name: str
    attribute: str
    field: fields.Field[Any]
    plain: frozenset[type]
    write: _Write | None
    is_skipped: bool


def dumper(schema: type[Schema]) -> Dump:
    """What dumps a mapping as a schema does."""
    made = schema()
    return _dumper(made, ()) if _is_plain(made) else made.dump


def _is_plain(schema: Schema) -> bool:
    """Is all that a schema dumps what its fields dump?"""
    class_: Any = type(schema)
    has_hooks = schema._hooks["pre_dump"] or schema._hooks["post_dump"]
    return not has_hooks and class_.get_attribute is Schema.get_attribute


def _dumper(schema: Schema, around: tuple[type[Schema], ...]) -> Dump:
    """:param around: the schemas that it is nested in"""
    steps = [_step(name, field, (*around, type(schema))) for name, field in schema.dump_fields.items()]

    def dump(document: Mapping[str, Any]) -> Document:
        dumped = {}
        for key, name, attribute, field, plain, write, is_skipped in steps:
            value = document.get(attribute, missing)
            if value.__class__ not in plain:
                if value is missing and is_skipped:
                    continue
                if write is None or value is missing:
                    value = field.serialize(name, document)
                else:
                    value = write(value, name, document)
                if value is missing:
                    continue
            dumped[key] = value
        return dumped

    return dump


def _step(name: str, field: fields.Field[Any], around: tuple[type[Schema], ...]) -> _Step:
    class_ = type(field)
    key = name if field.data_key is None else field.data_key
    attribute = name if field.attribute is None else field.attribute
    if class_.serialize is not fields.Field.serialize or class_.get_value is not fields.Field.get_value:
        return _Step(key, name, attribute, field, frozenset(), None, False)
    sees_value = field._CHECK_ATTRIBUTE and "." not in attribute
    # In the place of a key that a dict has not, marshmallow takes its attribute of that name.
    is_skipped = sees_value and field.dump_default is missing and not hasattr(dict, attribute)
    write = _write(field, around) if sees_value else None
    return _Step(key, name, attribute, field, _plain(field), write, is_skipped)


def _plain(field: Any) -> frozenset[type]:
    class_: Any = type(field)
    if class_._serialize is fields.String._serialize:
        return frozenset({str, type(None)})
    is_number = isinstance(field, fields.Number) and class_._serialize is fields.Number._serialize
    if is_number and class_._format_num is fields.Number._format_num and not field.as_string:
        return frozenset({field.num_type, type(None)})
    return frozenset()


def _write(field: Any, around: tuple[type[Schema], ...]) -> _Write:
    """What dumps the values of a field: that of the values which they hold, or else the field itself."""
    own: Any = type(field)._serialize
    if own is fields.Nested._serialize and type(field.schema) not in around and _is_plain(field.schema):
        return _write_nested(_dumper(field.schema, around), is_list=field.schema.many or field.many)
    if own is fields.List._serialize:
        return _write_list(_write(field.inner, around))
    if own is fields.Dict._serialize and field.mapping_type is dict and field.key_field and field.value_field:
        return _write_dict(_write(field.key_field, around), _write(field.value_field, around))
    write: _Write = field._serialize
    return write


def _write_nested(dump: Dump, *, is_list: bool) -> _Write:
    def write(value: Any, name: str, document: Any) -> Any:
        if value is None:
            return None
        return [dump(one) for one in value] if is_list else dump(value)

    return write


def _write_list(write_one: _Write) -> _Write:
    def write(value: Any, name: str, document: Any) -> Any:
        return None if value is None else [write_one(one, name, document) for one in value]

    return write


def _write_dict(write_key: _Write, write_value: _Write) -> _Write:
    def write(value: Any, name: str, document: Any) -> Any:
        if value is None:
            return None
        return {write_key(key, None, None): write_value(one, None, None) for key, one in value.items()}

    return write

"""Models → marshmallow schemas: how their records stand in documents."""

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import sqlalchemy as sa
from marshmallow import Schema, ValidationError, fields, pre_load, validate

from app.answers import Answer
from app.fields import Whole, default_of, explain, field_of
from app.registry import Resource, integer_range


class Exact(Schema):
    """What a request says; any field that is not known is refused, with those that are."""

    thing: ClassVar = "field"
    """What its fields are called."""

    class Meta:
        """Refuse what is not known."""

        unknown = "raise"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        names = [field.data_key or name for name, field in self.load_fields.items()]
        there_are = f"there are {', '.join(names)}" if names else "there is none here"
        self.error_messages = self.error_messages | {
            "unknown": f"there is no such {self.thing}; {there_are}",
            "type": "must be an object",
        }

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """marshmallow calls it for each field."""
        explain(field_obj)


class Strict(Exact):
    """What a request says; any text in it that no database can store is refused too."""

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

    thing = "parameter"


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
    """The schema of a state in history: the tracked columns, and the dropped ones of a version that had them."""
    dropped = {
        name: field_of(column, required=False, deprecated=True, readOnly=True)
        for name, column in resource.versioning.dropped.items()
    }
    return Answer.from_dict(_tracked(resource) | dropped, name=f"{resource.title}State")


def record_schema(resource: Resource) -> type[Schema]:
    """The schema of a record, as it is or was: all columns but the hidden ones."""
    # Nobody knows them of a state that was.
    untracked = {
        name: field_of(column, required=False, **_read_only(resource, name))
        for name, column in resource.versioning.untracked.items()
    }
    return Answer.from_dict(_tracked(resource) | untracked, name=f"{resource.title}Fields")


def _tracked(resource: Resource) -> dict[str, fields.Field[Any]]:
    tracked = {
        name: field_of(column, required=True, **_read_only(resource, name))
        for name, column in resource.versioning.tracked.items()
    }
    for name in tracked.keys() - set(resource.versioning.key):
        # In a state that was: values that were erased, and those of a column that is younger.
        tracked[name].allow_none = True
    return tracked


@cache
def new_schema(resource: Resource) -> type[Schema]:
    """The schema of a record to be made: every column that the database does not give a value by itself."""
    columns = resource.versioning.columns
    given = {name: column for name, column in columns.items() if not _read_only(resource, name)}
    return _body(resource, f"New{resource.title}", given)


@cache
def replacement_schema(resource: Resource) -> type[Schema]:
    """The schema of a record's replacement: every column that can change."""
    return _body(resource, f"{resource.title}Replacement", changeable(resource))


@cache
def patch_schema(resource: Resource) -> type[Schema]:
    """The schema of a merge patch: any column that can change."""
    return Body.from_dict(
        {
            name: field_of(column, required=False, **_hidden(resource, name))
            for name, column in changeable(resource).items()
        },
        name=f"{resource.title}Patch",
    )


def changeable(resource: Resource) -> Mapping[str, sa.Column[Any]]:
    """Attribute name → column that can be given another value: not the key, nor what is generated."""
    versioning = resource.versioning
    fixed = versioning.generated.union(versioning.key)
    return {name: column for name, column in versioning.columns.items() if name not in fixed}


def restoration_schema(resource: Resource) -> type[Schema]:
    """The schema of what to restore: a version, and what goes before its values."""
    least = 0
    return Body.from_dict(
        {
            "version": Whole(
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


def _body(resource: Resource, name: str, columns: Mapping[str, sa.Column[Any]]) -> type[Schema]:
    return Body.from_dict(
        {
            attribute: field_of(
                column,
                required=_is_required(column),
                is_sent=True,
                **(_hidden(resource, attribute) or default_of(column)),
            )
            for attribute, column in columns.items()
        },
        name=name,
    )


def _hidden(resource: Resource, attribute: str) -> dict[str, Any]:
    return {"writeOnly": True} if attribute in resource.versioning.hidden else {}


def _read_only(resource: Resource, attribute: str) -> dict[str, Any]:
    versioning = resource.versioning
    is_given = attribute in versioning.generated or _is_numbered(versioning.columns[attribute])
    return {"readOnly": True} if is_given else {}


def _is_numbered(column: sa.Column[Any]) -> bool:
    return bool(column.table.autoincrement_column is column)


def _is_required(column: sa.Column[Any]) -> bool:
    return not (column.nullable or column.default is not None or column.server_default is not None)

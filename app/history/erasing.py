"""The operation that erases values of a record from its history."""

from typing import Any

from flask import current_app
from marshmallow import Schema, fields, validate

from app.answers import Answer
from app.api import Blueprint
from app.columns import Body
from app.db import commit
from app.document import links_to_record
from app.fields import Flag
from app.history.examples import Document, Examples
from app.history.finding import timeline_of
from app.history.schemas import ErasureMarkSchema, LinksSchema
from app.registry import Resource
from chrononaut.erasing import erasable, holding
from chrononaut.policies import SETTING


def _number(what: str) -> fields.Integer:
    return fields.Integer(required=True, metadata={"minimum": 0, "description": what})


class ErasureSchema(Answer):
    """What was erased from a record's history."""

    model = fields.String(required=True)
    key = fields.String(required=True)
    versions = _number("how many prior versions have lost a value")
    changes = _number("how many changes have lost their reasons, their `extra`, the record's creation included")
    users = _number("how many changes have lost the user, who was named by one of the values")
    rows = _number("how many rows of history say of it, those that stand for purged versions included")
    erased = fields.Nested(ErasureMarkSchema, required=True)
    still_live = fields.List(
        fields.String(),
        required=True,
        metadata={
            "description": "those of the columns that the record still has a value of: change it too, or its next "
            "change archives them again"
        },
    )
    links = fields.Nested(LinksSchema, required=True)


def add_erasing(blueprint: Blueprint, resource: Resource) -> None:
    """Add ``POST /history/{model}/{key}/erase``."""
    versioning = resource.versioning
    held_by = holding(versioning)
    name, names = resource.name, [name for name in erasable(versioning) if name not in held_by]
    examples = Examples(resource)

    @blueprint.operation(
        "POST",
        f"/history/{name}/<key>/erase",
        f"erase_{name}_history",
        scope="admin",
        answer=ErasureSchema,
        body=_body(resource, names),
        body_example={"columns": names[:1], "reasons": True},
        example=examples.erasure(names[:1]),
        problems=["unknown-record"],
        needs_rationale=True,
        links=links_to_record(name),
    )
    def erase_history(query: Document, body: Document, key: str) -> Document:
        """Erase values of a record from all its prior versions, and the reasons of its changes with them.

        It cannot be undone. Numbers, instants and users stay, but for a user whom one of the values names; and each
        change says what was erased, by whom and why: `X-Change-Rationale` is kept, so it should not repeat the values.
        The record itself is left alone: where it still has the values, its next change archives them again. The column
        by which a retention policy holds records stays. Versions get another `ETag`.
        """
        timeline = timeline_of(resource, key, to_write=True)
        held_by = holding(versioning, current_app.config.get(SETTING))
        erased = timeline.erase(body["columns"], reasons=body["reasons"], held_by=held_by)
        document = resource.identified(key) | {
            "versions": erased.versions,
            "changes": erased.changes,
            "users": erased.users,
            "rows": erased.rows,
            "erased": {**erased.mark, "at": erased.at},
            "still_live": timeline.held(erased.columns),
        }
        commit()
        return document


def _body(resource: Resource, names: list[str]) -> type[Schema]:
    told: dict[str, Any] = {
        "description": "which columns' values go; by default all of these, and what history still holds of columns "
        "that were tracked and are not any more"
    }
    return Body.from_dict(
        {
            "columns": fields.List(
                fields.String(validate=validate.OneOf(names)), load_default=None, allow_none=True, metadata=told
            ),
            "reasons": Flag(
                load_default=True, metadata={"description": "do the reasons of the changes, their `extra`, go too?"}
            ),
        },
        name=f"{resource.title}Erasing",
    )

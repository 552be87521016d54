"""The documents that tell of changes."""

from typing import Any

from marshmallow import Schema, fields, pre_load, validate

from app.answers import Answer
from app.columns import Query
from app.history.schemas import LinksSchema, change_info_field, differences_field, operation_field
from app.instants import Instant
from app.pages import cursor_field, limit_field
from app.registry import Resource
from chrononaut import queries

EXTRA = "extra."
"""How the parameters begin that ask for a key of the change info's ``extra``."""


class ChangePageQuery(Query):
    """Which page of some changes."""

    limit = limit_field()
    cursor = cursor_field()


class FeedQuery(ChangePageQuery):
    """Which changes of a model."""

    since = Instant(metadata={"description": "only changes later than this instant"})
    until = Instant(metadata={"description": "only changes at this instant or earlier"})
    user_id = fields.String(metadata={"description": "only changes by this user"})
    operation = operation_field(metadata={"description": "only changes of this kind"})
    transaction_id = fields.UUID(metadata={"description": "only changes of this transaction"})
    rationale = fields.String(
        data_key=f"{EXTRA}change_rationale",
        metadata={"description": "only changes with this reason; likewise `extra.…` for any other key of `extra`"},
    )

    @pre_load
    def leave_extra(self, data: Any, **kwargs: Any) -> Any:
        """Any key of ``extra`` may be asked for: the view reads them."""
        # Hooks have no order, and what has been left cannot be checked any more.
        checked = self.refuse_unstorable_text(data)
        return {name: value for name, value in checked.items() if not name.startswith(EXTRA) or name == EXTRA}


def feed_query(resource: Resource) -> type[Schema]:
    """The query of a model's feed."""
    names = queries.blamed(resource.versioning)
    attribute = fields.String(
        validate=validate.OneOf(names), metadata={"description": "only changes of this column, also a hidden one"}
    )
    return type(f"{resource.title}FeedQuery", (FeedQuery,), {"attribute": attribute})


class CauseSchema(Answer):
    """When a change was made, by whom and why."""

    version = fields.Integer(required=True, metadata={"description": "the state that was replaced"})
    operation = operation_field(required=True)
    changed = Instant(required=True)
    change_info = change_info_field()
    transaction_id = fields.UUID(required=True)


class ChangeSchema(CauseSchema):
    """What replaced one state of a record by the next."""

    differences = differences_field()
    hidden_changed = fields.List(fields.String(), required=True)
    erased = fields.List(
        fields.String(),
        metadata={
            "description": "the columns whose value before or after was erased, so that nobody knows how they changed; "
            "absent if none was",
            "example": [],
        },
    )


class ChangeListSchema(Answer):
    """What happened to a record."""

    model = fields.String(required=True)
    key = fields.String(required=True)
    changes = fields.List(fields.Nested(ChangeSchema), required=True)
    next = fields.String(required=True, allow_none=True)
    links = fields.Nested(LinksSchema, required=True)


class RecordChangeSchema(ChangeSchema):
    """A change of one of several records."""

    model = fields.String(required=True)
    key = fields.String(required=True)
    links = fields.Nested(LinksSchema, required=True)


class FeedSchema(Answer):
    """What happened to the records of a model, newest first."""

    model = fields.String(required=True)
    changes = fields.List(fields.Nested(RecordChangeSchema), required=True)
    next = fields.String(required=True, allow_none=True, metadata={"description": "the next page's cursor"})


class TransactionSchema(Answer):
    """What one transaction changed."""

    transaction_id = fields.UUID(required=True)
    changes = fields.List(fields.Nested(RecordChangeSchema), required=True)
    next = fields.String(required=True, allow_none=True, metadata={"description": "the next page's cursor"})


class BlameSchema(CauseSchema):
    """The change that gave a column its value, with the values before and after; both are null of a hidden column."""

    from_ = fields.Raw(required=True, allow_none=True, data_key="from")
    to = fields.Raw(required=True, allow_none=True)


class BlamesSchema(Answer):
    """For each column the change that last set it."""

    model = fields.String(required=True)
    key = fields.String(required=True)
    columns = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(BlameSchema, allow_none=True),
        required=True,
        metadata={
            "description": "null of a column whose value was there before the record was versioned, or of which "
            "that is not known, as the values before were erased"
        },
    )
    links = fields.Nested(LinksSchema, required=True)

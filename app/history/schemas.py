"""The documents of ``/history``."""

from dataclasses import dataclass
from typing import Any, get_args

from marshmallow import Schema, ValidationError, fields, validate

from app.answers import Answer
from app.columns import Query, state_schema
from app.history.examples import CHANGE_INFO
from app.instants import Instant, parse_instant
from app.pages import cursor_field, limit_field
from app.registry import Resource
from app.variants import Choice
from chrononaut.history import Operation

_ORDERS = ("asc", "desc")
_EXAMPLE = "2026-03-01T09:00:00.000000Z"


class VersionOrInstant(fields.Field[Any]):
    """A version number, or an instant."""

    def __init__(self, **options: Any) -> None:
        # No union: openapi-generator's clients cannot send one in a query.
        told = {"type": "string", "format": "version-or-instant"}
        super().__init__(**options | {"metadata": told | options.get("metadata", {})})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = str(value)
        most_digits = 9
        if text.isascii() and text.isdigit() and len(text) <= most_digits:
            return int(text)
        try:
            return parse_instant(text)
        except ValueError as error:
            raise ValidationError(f"must be a version number or an instant; {error}") from error


class PageQuery(Query):
    """Which page."""

    limit = limit_field()
    cursor = cursor_field()
    order = fields.String(
        load_default="asc", validate=validate.OneOf(_ORDERS), metadata={"description": "oldest or newest first"}
    )


class VersionsQuery(PageQuery):
    """Which versions."""

    before = Instant(metadata={"description": "only versions that ended at this instant or earlier"})
    after = Instant(metadata={"description": "only versions that ended later than this instant"})


class AtQuery(Query):
    """Which instant."""

    at = Instant(required=True, metadata={"description": "the instant", "example": _EXAMPLE})


class SinceQuery(Query):
    """Since when."""

    since = Instant(required=True, metadata={"description": "the instant", "example": _EXAMPLE})


class DiffQuery(Query):
    """Which two states."""

    from_ = VersionOrInstant(
        required=True,
        data_key="from",
        metadata={"description": "a version number or an instant", "example": "0"},
    )
    to = VersionOrInstant(metadata={"description": "a version number or an instant; the live state by default"})
    include_hidden = fields.Boolean(
        load_default=False, metadata={"description": "name the hidden columns that changed; never their values"}
    )


def operation_field(**options: Any) -> Choice:
    """The field for what replaced a state."""
    return Choice("Operation", get_args(Operation), **options)


def version_field() -> fields.Integer:
    """The field for the number of a version."""
    return fields.Integer(
        required=True,
        metadata={"minimum": 0, "readOnly": True, "description": "the number of the version", "example": 0},
    )


def erased_field() -> fields.Field[Any]:
    """The field for what was erased from a state."""
    return fields.List(
        fields.String(),
        metadata={
            "description": "the columns whose values were erased from it: `null` there, whatever they were; absent if "
            "none was",
            "example": [],
        },
    )


class LinksSchema(Answer):
    """The paths of a record's resources."""

    record = fields.String(required=True)
    history = fields.String(required=True)


class ModelSchema(Answer):
    """A registered model."""

    name = fields.String(required=True)
    key = fields.List(fields.String(), required=True)
    tracked = fields.List(fields.String(), required=True)
    hidden = fields.List(fields.String(), required=True)
    untracked = fields.List(fields.String(), required=True)
    links = fields.Dict(keys=fields.String(), values=fields.String(), required=True)


class ModelListSchema(Answer):
    """The registered models."""

    models = fields.List(fields.Nested(ModelSchema), required=True)


class ChangedSinceSchema(Answer):
    """Whether a record has changed."""

    model = fields.String(required=True)
    key = fields.String(required=True)
    has_changed = fields.Boolean(required=True)
    since = Instant(required=True)
    last_changed = Instant(required=True, allow_none=True, metadata={"description": "null if never"})
    links = fields.Nested(LinksSchema, required=True)


class StateReferenceSchema(Answer):
    """Which state."""

    version = version_field()
    valid_from = Instant(required=True, allow_none=True)
    changed = Instant(required=True, allow_none=True, metadata={"description": "null of the live state"})
    erased = erased_field()


class DifferenceSchema(Answer):
    """The values before and after."""

    from_ = fields.Raw(required=True, allow_none=True, data_key="from")
    to = fields.Raw(required=True, allow_none=True)


def differences_field() -> fields.Dict:
    """The field for differences: column → the values before and after."""
    return fields.Dict(keys=fields.String(), values=fields.Nested(DifferenceSchema), required=True)


class CutSchema(Answer):
    """Consecutive versions that were purged."""

    first = fields.Integer(
        required=True,
        metadata={"minimum": -1, "description": "the first of them; -1 is the record's creation", "example": -1},
    )
    last = fields.Integer(required=True, metadata={"minimum": -1, "description": "the last of them", "example": 3})
    changed = Instant(required=True, metadata={"description": "when the last ended"})
    purged_at = Instant(required=True)
    user_id = fields.String(required=True, allow_none=True, metadata={"description": "who purged them"})
    extra = fields.Dict(keys=fields.String(), values=fields.String(), required=True, metadata={"description": "why"})
    operation = operation_field(required=True, metadata={"description": "what replaced the last"})


def cuts_field(description: str = "versions that were there, on this page, and were purged") -> fields.List[Any]:
    """The field for what was purged."""
    return fields.List(
        fields.Nested(CutSchema),
        required=True,
        metadata={"description": description, "example": []},
    )


class DiffSchema(Answer):
    """The differences between two states."""

    model = fields.String(required=True)
    key = fields.String(required=True)
    from_ = fields.Nested(StateReferenceSchema, required=True, data_key="from")
    to = fields.Nested(StateReferenceSchema, required=True)
    changes = differences_field()
    hidden_changed = fields.List(
        fields.String(),
        required=True,
        metadata={"description": "the hidden columns that changed in between, as far as that was not `purged`"},
    )
    purged = cuts_field("versions between the two that were purged")
    links = fields.Nested(LinksSchema, required=True)


class ErasureMarkSchema(Answer):
    """That values were erased from a version: when, by whom and why."""

    at = Instant(required=True)
    user_id = fields.String(required=True, allow_none=True, metadata={"description": "who; null if that was not told"})
    columns = fields.List(fields.String(), required=True, metadata={"description": "the columns whose values went"})
    reasons = fields.Boolean(required=True, metadata={"description": "did the `extra` of the change go too?"})
    users = fields.Boolean(
        metadata={
            "description": "did the `user_id` go of changes of the record whose user one of the values named? Absent "
            "if there was none"
        }
    )
    extra = fields.Dict(keys=fields.String(), values=fields.String(), metadata={"description": "why"})


class PurgedSchema(Answer):
    """What was purged up to a version."""

    first = fields.Integer(
        required=True,
        metadata={"minimum": -1, "description": "the first version; -1 is the record's creation", "example": -1},
    )
    operation = operation_field(required=True, metadata={"description": "what replaced the last"})
    at = Instant(required=True, metadata={"description": "when it was purged"})
    user_id = fields.String(required=True, allow_none=True, metadata={"description": "who purged it"})
    extra = fields.Dict(keys=fields.String(), values=fields.String(), metadata={"description": "why"})


class ChangeInfoSchema(Answer):
    """Who and why; the service may be set up to keep further fields."""

    class Meta:
        """Tell of further fields."""

        unknown = "include"

    user_id = fields.String(allow_none=True, metadata={"description": "who; null if nobody was logged in"})
    remote_addr = fields.String(allow_none=True, metadata={"description": "from which address"})
    request_id = fields.String(
        metadata={"description": "the `X-Request-ID` of the request that made the change", "maxLength": 128}
    )
    extra = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        metadata={"description": "what the `X-Change-*` headers said: `X-Change-Rationale` is `change_rationale`"},
    )
    hidden_cols_changed = fields.List(
        fields.String(), metadata={"description": "the hidden columns that changed, whose values are not kept"}
    )
    erased = fields.List(
        fields.Nested(ErasureMarkSchema),
        metadata={"description": "what was erased from the version, oldest first; absent if nothing was"},
    )
    purged = fields.Nested(
        PurgedSchema,
        metadata={"description": "of the operation `purge`: for which changes it stands, that were purged"},
    )


class AsStored(fields.Nested):
    """A document that is answered as it was stored, whatever the schema knows of it."""

    # marshmallow's own classes name the first one in two ways.
    def _serialize(  # type: ignore[override]
        self, value: Any, attr: str | None, obj: Any, **kwargs: Any
    ) -> Any:
        return value


def change_info_field() -> fields.Field[Any]:
    """The field for change info."""
    return AsStored(ChangeInfoSchema, required=True, allow_none=True, metadata={"example": CHANGE_INFO})


class TimeMapQuery(Query):
    """Which page of a TimeMap."""

    limit = limit_field()
    cursor = cursor_field()


class MementoSchema(Answer):
    """A version as a Memento."""

    version = version_field()
    datetime = Instant(
        required=True,
        metadata={
            "description": "`valid_from` cut to the second; 1970-01-01 if that is unknown",
            "example": "2026-03-01T09:00:00.000000Z",
        },
    )
    valid_from = Instant(required=True, allow_none=True, metadata={"example": "2026-03-01T09:00:00.123456Z"})
    changed = Instant(
        required=True,
        allow_none=True,
        metadata={"description": "null of the live state", "example": "2026-03-02T10:00:00.123456Z"},
    )
    link = fields.String(required=True, metadata={"example": "/history/user/42/versions/0"})


class TimeMapSchema(Answer):
    """The states of a record as Mementos."""

    model = fields.String(required=True)
    key = fields.String(required=True)
    original = fields.String(required=True, metadata={"description": "the record", "example": "/records/user/42"})
    timegate = fields.String(required=True, metadata={"description": "the record", "example": "/records/user/42"})
    self = fields.String(required=True, metadata={"example": "/history/user/42/timemap"})
    from_ = Instant(
        required=True,
        allow_none=True,
        data_key="from",
        metadata={"description": "`datetime` of the first on this page"},
    )
    until = Instant(required=True, allow_none=True, metadata={"description": "`datetime` of the last on this page"})
    mementos = fields.List(fields.Nested(MementoSchema), required=True)
    purged = cuts_field()
    next = fields.String(required=True, allow_none=True, metadata={"description": "the next page's cursor"})
    links = fields.Nested(LinksSchema, required=True)


@dataclass(frozen=True, slots=True)
class HistorySchemas:
    """The documents of one model's history."""

    state: type[Schema]
    version: type[Schema]
    versions: type[Schema]


def history_schemas(resource: Resource) -> HistorySchemas:
    """The schemas of a model's history."""
    title = resource.title
    state = state_schema(resource)
    version_fields: dict[str, fields.Field[Any]] = {
        "version": version_field(),
        "valid_from": Instant(required=True, allow_none=True, metadata={"description": "when the state began"}),
        "changed": Instant(required=True, allow_none=True, metadata={"description": "when it ended; null if it lives"}),
        "operation": operation_field(
            required=True, allow_none=True, metadata={"description": "what replaced it; null if it lives"}
        ),
        "change_info": change_info_field(),
        "transaction_id": fields.UUID(required=True, allow_none=True),
        "state": fields.Nested(state, required=True),
        "erased": erased_field(),
    }
    identified: dict[str, fields.Field[Any]] = {
        "model": fields.String(required=True),
        "key": fields.String(required=True),
        "links": fields.Nested(LinksSchema, required=True),
    }
    current = Answer.from_dict(
        {name: version_fields[name] for name in ("version", "valid_from", "state")}, name=f"{title}Current"
    )
    prior = Answer.from_dict(dict(version_fields), name=f"{title}PriorVersion")
    versions = Answer.from_dict(
        identified
        | {
            "current": fields.Nested(
                current, required=True, allow_none=True, metadata={"description": "null of a deleted record"}
            ),
            "versions": fields.List(fields.Nested(prior), required=True),
            "purged": cuts_field(),
            "next": fields.String(required=True, allow_none=True, metadata={"description": "the next page's cursor"}),
        },
        name=f"{title}Versions",
    )
    return HistorySchemas(
        state=state, version=Answer.from_dict(identified | version_fields, name=f"{title}Version"), versions=versions
    )

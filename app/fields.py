"""Columns → marshmallow fields: the values of a column in documents, taken exactly as the OpenAPI document says."""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from marshmallow import ValidationError, fields, validate
from marshmallow_sqlalchemy import ModelConverter
from sqlalchemy.dialects import postgresql

from app.instants import Instant
from app.registry import integer_range, longest_part
from chrononaut import types

_CONVERTER = ModelConverter()
_DATE, _TIME = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?"
_OFFSET = r"(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"


@dataclass(frozen=True, slots=True)
class Form:
    """How values stand as text.

    :ivar pattern: what all such texts match; told of in the document where no format says the same
    :ivar format: of JSON Schema, or of OpenAPI's registry of formats
    """

    format: str
    pattern: str
    example: str
    read: Callable[[str], Any] = field(repr=False)
    write: Callable[[Any], str] = field(repr=False)
    has_standard_format: bool = False


_LOCAL_DATE_TIME = Form(
    "date-time-local",
    f"^{_DATE}T{_TIME}$",
    "2026-03-01T09:00:00",
    datetime.fromisoformat,
    lambda value: value.isoformat(),
)
_LOCAL_TIME = Form("time-local", f"^{_TIME}$", "09:00:00", time.fromisoformat, lambda value: value.isoformat())
_OFFSET_TIME = Form(
    "time", f"^{_TIME}{_OFFSET}$", "09:00:00+00:00", time.fromisoformat, lambda value: value.isoformat(), True
)
_CALENDAR_DATE = Form("date", f"^{_DATE}$", "2026-03-01", date.fromisoformat, lambda value: value.isoformat(), True)
_UUID_PATTERN = r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
_UUID_EXAMPLE = "01990e5c-7d2a-7a31-9c1f-0d6a54b1f0aa"
_UUID = Form("uuid", _UUID_PATTERN, _UUID_EXAMPLE, UUID, str, True)
_UUID_AS_TEXT = Form("uuid", _UUID_PATTERN, _UUID_EXAMPLE, lambda text: str(UUID(text)), str, True)
_BASE64 = Form(
    "byte",
    "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    "Y2hyb25vbmF1dA==",
    lambda text: b64decode(text, validate=True),
    lambda value: b64encode(value).decode(),
)


def _decimal(type_: sa.Numeric[Any] | sa.Float[Any]) -> Form:
    """A decimal number as text, so that no digit is lost, with as many digits as the column holds."""
    whole, fraction, example = r"\d+", r"(\.\d+)?", "1.50"
    # The precision of a float counts no decimal digits.
    if isinstance(type_, sa.Numeric) and not isinstance(type_, sa.Float) and type_.precision is not None:
        scale = type_.scale or 0
        digits = type_.precision - scale
        whole = rf"\d{{1,{digits}}}" if digits > 0 else "0"
        fraction = rf"(\.\d{{1,{scale}}})?" if scale > 0 else ""
        example = ("1" if digits > 0 else "0") + (".50"[: scale + 1] if scale > 0 else "")
    return Form("decimal", f"^-?{whole}{fraction}$", example, Decimal, lambda value: format(Decimal(value), "f"))


class Text(fields.Field[Any]):
    """A value as text of one form."""

    def __init__(self, form: Form, **options: Any) -> None:
        self.form = form
        told = {"type": "string", "format": form.format, "example": form.example}
        if not form.has_standard_format:
            told["pattern"] = form.pattern
        super().__init__(**options | {"metadata": told | options.get("metadata", {})})

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else self.form.write(value)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        what_is_right = f"must be a text in the form {self.form.format}, as {self.form.example}"
        if not isinstance(value, str) or not re.fullmatch(self.form.pattern, value, re.ASCII):
            raise ValidationError(what_is_right)
        try:
            return self.form.read(value)
        except ValueError as error:
            raise ValidationError(what_is_right) from error


class Flag(fields.Boolean):
    """True or false, and nothing that is taken for one of them."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class Whole(fields.Integer):
    """An integer as JSON Schema has it: a number without a fraction, also where it is written with one, as ``3.0``."""

    def _validated(self, value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class Double(fields.Float):
    """A number, and no text that looks like one."""

    def _validated(self, value: Any) -> float:
        if not isinstance(value, int | float):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class Seconds(fields.TimeDelta):
    """A span of time in seconds."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> timedelta:
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= _LONGEST_SPAN:
            raise ValidationError(f"must be a number of seconds, from -{_LONGEST_SPAN} to {_LONGEST_SPAN}")
        return super()._deserialize(value, attr, data, **kwargs)


_LONGEST_SPAN = 62_135_596_800
"""Seconds from the year 1 to 1970, from which SQLAlchemy counts spans on databases that have no type for them."""


def field_of(column: sa.Column[Any], *, required: bool, is_sent: bool = False, **told: Any) -> fields.Field[Any]:
    """The field for a column.

    A column's ``info`` can hold a ``field`` of its own, which tells of itself by its metadata, and an ``example``.

    :param is_sent: is it one of a body? A text in a key that is sent has a greatest length; others may have made longer
        ones.
    :param told: what the document says of it besides what the column does
    """
    metadata = dict(told)
    if description := column.doc or column.comment:
        metadata["description"] = description
    if "example" in column.info:
        metadata["example"] = column.info["example"]
    options: dict[str, Any] = {"required": required, "allow_none": column.nullable, "metadata": metadata}
    own: type[fields.Field[Any]] | None = column.info.get("field")
    if own is not None:
        return own(**options)
    # An empty part of a key could not stand in a URL.
    length = (1, longest_part(column) if is_sent else None) if column.primary_key else (None, None)
    made = _field(column.type, options, length)
    if made is None:
        made = _CONVERTER.column2field(column, **options)
    return made


def default_of(column: sa.Column[Any]) -> dict[str, Any]:
    """The default of a column as the document tells of it; nothing if it is none that can be told."""
    if not isinstance(column.default, sa.ColumnDefault) or not column.default.is_scalar:
        return {}
    return {"default": field_of(column, required=False)._serialize(column.default.arg, None, None)}


def _field(  # noqa: PLR0911  one kind of column after the other
    type_: Any, options: dict[str, Any], length: tuple[int | None, int | None] = (None, None)
) -> fields.Field[Any] | None:
    """The field for a type; ``None`` for one of a single database that is not among these.

    :param length: of a text, at least and at most, where the type does not say
    """
    form = _form(type_)
    if form is not None:
        return Text(form, **options)
    if isinstance(type_, types.Instant | sa.DateTime):
        return Instant(**options)
    if isinstance(type_, sa.Interval | postgresql.INTERVAL):
        limits = {"minimum": -_LONGEST_SPAN, "maximum": _LONGEST_SPAN, "format": "double"}
        return Seconds(**_telling(options, **limits))
    if isinstance(type_, sa.types.TypeDecorator):
        return _field(type_.impl_instance, options, length)
    if isinstance(type_, sa.Boolean):
        return Flag(**options)
    if isinstance(type_, sa.Integer):
        low, high = integer_range(type_)
        told = _telling(options, format="int64" if isinstance(type_, sa.BigInteger) else "int32")
        return Whole(**told, validate=validate.Range(low, high))
    if isinstance(type_, sa.Numeric | sa.Float):
        return Double(**_telling(options, format="double"))
    if isinstance(type_, sa.Enum):
        return _enum(type_, options)
    if isinstance(type_, sa.String):
        return fields.String(**options, validate=validate.Length(min=length[0], max=length[1] or type_.length))
    if isinstance(type_, sa.JSON):
        # `null` is one of its values.
        return fields.Raw(**options | {"allow_none": True})
    if isinstance(type_, sa.ARRAY):
        inner = _field(type_.item_type, {"allow_none": True}) or fields.Raw(allow_none=True)
        for _ in range((type_.dimensions or 1) - 1):
            inner = fields.List(inner)
        return fields.List(inner, **options)
    return None


def _form(type_: Any) -> Form | None:
    """The form of values that stand as text and have a type of their own in Python."""
    if isinstance(type_, sa.Numeric | sa.Float):
        return _decimal(type_) if type_.asdecimal else None
    if isinstance(type_, sa.Uuid):
        return _UUID if type_.as_uuid else _UUID_AS_TEXT
    if isinstance(type_, sa.DateTime):
        return None if type_.timezone else _LOCAL_DATE_TIME
    if isinstance(type_, sa.Time):
        return _OFFSET_TIME if type_.timezone else _LOCAL_TIME
    if isinstance(type_, sa.Date):
        return _CALENDAR_DATE
    return _BASE64 if isinstance(type_, sa.LargeBinary) else None


def _enum(type_: sa.Enum, options: dict[str, Any]) -> fields.Field[Any]:
    """One of some texts: those that the database holds, which are an enum's names or its values."""
    if type_.enum_class is None:
        return fields.String(**options, validate=validate.OneOf(type_.enums))
    names = list(type_.enum_class.__members__)
    # Aliases are no choices, and `values_callable` may give the values.
    return fields.Enum(
        type_.enum_class, by_value=fields.String if not set(type_.enums) <= set(names) else False, **options
    )


_MESSAGES: tuple[tuple[type[fields.Field[Any]], Mapping[str, str]], ...] = (
    (fields.Field, {"required": "is missing, and must be given", "null": "must not be null"}),
    (fields.String, {"invalid": "must be a text"}),
    (fields.Boolean, {"invalid": "must be true or false"}),
    (fields.Number, {"invalid": "must be a number"}),
    (fields.Integer, {"invalid": "must be a number without a fraction"}),
    (fields.UUID, {"invalid_uuid": f"must be a UUID, as {_UUID_EXAMPLE}"}),
    (fields.List, {"invalid": "must be an array"}),
    (fields.Mapping, {"invalid": "must be an object"}),
)
"""Kind of field → what would be right, in the place of what marshmallow says is wrong."""


def explain(field: fields.Field[Any]) -> None:
    """Let a field say what would be right, where it says no more than marshmallow does."""
    for kind, messages in _MESSAGES:
        if isinstance(field, kind):
            theirs = kind.default_error_messages
            field.error_messages = field.error_messages | {
                name: text for name, text in messages.items() if field.error_messages.get(name) == theirs[name]
            }
    if isinstance(field, fields.List):
        explain(field.inner)


def _telling(options: dict[str, Any], **told: Any) -> dict[str, Any]:
    return options | {"metadata": told | options["metadata"]} if "metadata" in options else options | {"metadata": told}

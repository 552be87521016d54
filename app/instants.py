"""Instants as text: RFC 3339 with an offset in, UTC with microseconds out."""

import re
from datetime import UTC, datetime
from typing import Any

from marshmallow import ValidationError, fields

from chrononaut.types import instant_text as instant_text

_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
_WHAT_IS_RIGHT = "an instant must be RFC 3339 with an offset, as 2026-03-01T09:00:00Z or 2026-03-01T10:00:00%2B01:00"


def parse_instant(text: str) -> datetime:
    """Read an instant (RFC 3339, section 5.6).

    A space before the offset is read as the ``+`` that a client forgot to encode. Digits beyond the microsecond are
    cut.

    :return: the instant in UTC
    :raises ValueError: the text is none, has no offset, or lies outside of the years 1 to 9999
    """
    match = _RFC_3339.fullmatch(re.sub(r" (\d\d:\d\d)$", r"+\1", text))
    if match is None:
        # What was given is not repeated: it may be a value of a hidden column.
        raise ValueError(_WHAT_IS_RIGHT)
    date, time, fraction, offset = match.groups()
    try:
        return datetime.fromisoformat(
            f"{date}T{time}.{(fraction or '')[:6]:0<6}{'+00:00' if offset in 'Zz' else offset}"
        ).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{_WHAT_IS_RIGHT}; there is no such day or time") from None


class Instant(fields.Field[datetime]):
    """An instant in a document or a query."""

    def __init__(self, **options: Any) -> None:
        told = {"type": "string", "format": "date-time"}
        super().__init__(**options | {"metadata": told | options.get("metadata", {})})

    def _serialize(self, value: datetime | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else instant_text(value)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        if not isinstance(value, str):
            raise ValidationError(_WHAT_IS_RIGHT)
        try:
            return parse_instant(value)
        except ValueError as error:
            raise ValidationError(str(error)) from error

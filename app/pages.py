"""Pages: signed cursors, so that a page goes on where the one before it ended."""

from typing import Any
from urllib.parse import quote, urlencode

from flask import current_app, request
from itsdangerous import BadData, URLSafeSerializer
from marshmallow import ValidationError, fields, validate

from app.links import Link
from app.problems import Problem

MOST = 500
"""Entries on a page at the most."""


LONGEST_CURSOR = 6000
"""Characters of a cursor: what leaves room for the rest of an address."""


class Count(fields.Integer):
    """A number in decimal digits."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if not (isinstance(value, str) and value.isascii() and value.isdigit()):
            raise ValidationError("must be a number in decimal digits")
        return super()._deserialize(value, attr, data, **kwargs)


def limit_field() -> Count:
    """The query parameter ``limit``."""
    return Count(
        load_default=50,
        validate=validate.Range(1, MOST),
        metadata={"description": "entries on a page at the most"},
    )


def cursor_field() -> fields.String:
    """The query parameter ``cursor``."""
    return fields.String(
        validate=validate.Length(max=LONGEST_CURSOR),
        metadata={"description": "`next` of the page before; the other parameters must be the same"},
    )


def make_cursor(what: str, position: list[Any]) -> str:
    """The cursor of the page that begins after a position.

    :param what: what is being paged, so that a cursor cannot be used for something else
    """
    return str(_serializer(what).dumps(position))


def read_cursor(what: str, cursor: str) -> list[Any]:
    """The position that a cursor stands for.

    :raises Problem: the cursor is cut, forged, or one of something else
    """
    try:
        position: list[Any] = _serializer(what).loads(cursor)
    except BadData:
        raise Problem(
            "invalid",
            "the cursor is none that was given for this list; start without one",
            errors={"query": {"cursor": ["not a cursor of this list"]}},
        ) from None
    return position


def page_path(cursor: str | None = None) -> str:
    """The path of the page that is asked for, with all its parameters; with a cursor, that of the page there."""
    parameters = {**request.args, **({} if cursor is None else {"cursor": cursor})}
    path = quote(request.path, safe="/,~")
    return f"{path}?{urlencode(parameters)}" if parameters else path


def next_link(cursor: str | None) -> dict[str, str]:
    """The header that links to the next page (RFC 8288); none on the last one."""
    return {} if cursor is None else {"Link": Link(page_path(cursor), "next").text()}


def _serializer(what: str) -> URLSafeSerializer:
    return URLSafeSerializer(current_app.config["SECRET_KEY"], salt=f"cursor {what}")

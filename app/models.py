"""The bundled models: two plain records to try the service with."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from marshmallow import ValidationError, fields
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from app.db import Model
from chrononaut import Versioned
from chrononaut.types import Instant


class User(Model, Versioned):
    """A person that somebody keeps a record of. It gives no access to the service."""

    __tablename__ = "appuser"
    __chrononaut_hidden__ = ("password_hash",)
    __chrononaut_untracked__ = ("last_seen_at",)

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(
        sa.String(254),
        unique=True,
        doc="where mail reaches them; nobody else has it",
        info={"example": "ada@example.com"},
    )
    name: Mapped[str | None] = mapped_column(sa.String(200), info={"example": "Ada Lovelace"})
    active: Mapped[bool] = mapped_column(default=True, doc="may mail be sent to them?")
    password_hash: Mapped[str | None] = mapped_column(sa.String(200), doc="written only: no answer has it")
    last_seen_at: Mapped[datetime | None] = mapped_column(Instant, doc="when they were seen last; of no prior version")


_LONGEST = 40
"""Characters of a `TextOrFlag` at the most."""


class TextOrFlag(TypeDecorator[str | bool]):
    """A text, or true or false, as the people who track releases write it: ``2027-04-01``, ``true``."""

    impl = sa.String(_LONGEST)
    cache_ok = True

    def process_bind_param(self, value: str | bool | None, dialect: Dialect) -> str | None:
        return str(value).lower() if isinstance(value, bool) else value

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | bool | None:
        return {"true": True, "false": False}.get(value, value) if value is not None else None


class TextOrFlagField(fields.Field[str | bool]):
    """A `TextOrFlag` in a document."""

    def __init__(self, **options: Any) -> None:
        told = {"type": ["string", "boolean"], "maxLength": _LONGEST, "pattern": "^(?!(true|false)$)"}
        super().__init__(**options | {"metadata": told | options.get("metadata", {})})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str | bool:
        if isinstance(value, bool):
            return value
        if not isinstance(value, str) or len(value) > _LONGEST or value in {"true", "false"}:
            raise ValidationError(f"must be true, false, or a text of at most {_LONGEST} characters, as 2027-04-01")
        return value


def _text_or_flag(example: str | bool, doc: str) -> Mapped[str | bool | None]:
    return mapped_column(TextOrFlag, doc=doc, info={"field": TextOrFlagField, "example": example})


def _text(length: int, example: str, doc: str) -> Mapped[str | None]:
    return mapped_column(sa.String(length), doc=doc, info={"example": example})


class Release(Model, Versioned):
    """A release cycle of a product: when it came out, and how long it is supported."""

    __tablename__ = "release"

    product: Mapped[str] = mapped_column(
        sa.String(80), primary_key=True, doc="whose release", info={"example": "ubuntu"}
    )
    cycle: Mapped[str] = mapped_column(sa.String(120), primary_key=True, doc="which one", info={"example": "24.04"})
    released_on: Mapped[str | None] = _text(40, "2024-04-25", "when it came out")
    end_of_life: Mapped[str | bool | None] = _text_or_flag(
        "2029-05-31", "when all support ends, or whether it has ended"
    )
    active_support: Mapped[str | bool | None] = _text_or_flag(
        "2027-04-01", "when active support ends, or whether there is any"
    )
    extended_support: Mapped[str | bool | None] = _text_or_flag(
        "2036-04-25", "when paid support ends, or whether there is any"
    )
    lts: Mapped[str | bool | None] = _text_or_flag(True, "is it supported for long, or from when on")
    latest: Mapped[str | None] = _text(80, "24.04.1", "its latest version")
    latest_released_on: Mapped[str | None] = _text(40, "2024-08-27", "when that came out")
    codename: Mapped[str | None] = _text(120, "Noble Numbat", "what its makers call it")
    label: Mapped[str | None] = _text(120, "24.04 'Noble Numbat' (LTS)", "how it is shown")
    link: Mapped[str | None] = _text(400, "https://example.com/releases/24.04", "where it is told of")
    discontinued: Mapped[str | bool | None] = _text_or_flag(False, "when it was discontinued, or whether it is")

"""The versioned tables, and how large they are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chrononaut import Versioned, VersionedSQLAlchemy

db = VersionedSQLAlchemy()

if TYPE_CHECKING:

    class Model(DeclarativeBase):
        """What ``db.Model`` is to a type checker."""
else:
    Model = db.Model


class Columns:
    """The columns of a record as applications have them."""

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str] = mapped_column(sa.String(100))
    body: Mapped[str | None] = mapped_column(sa.Text)
    owner: Mapped[str | None] = mapped_column(sa.String(100))
    status: Mapped[str] = mapped_column(sa.String(20))
    quantity: Mapped[int]
    weight: Mapped[float | None]
    active: Mapped[bool]
    created_on: Mapped[date]
    due_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    tags: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    secret: Mapped[str | None]
    views: Mapped[int]


class Document(Model, Columns, Versioned):
    """A few records with long histories: `LONG` and `SHORT`."""

    __tablename__ = "document"
    __chrononaut_hidden__ = ("secret",)
    __chrononaut_untracked__ = ("views",)


class Item(Model, Columns, Versioned):
    """Many records with short histories."""

    __tablename__ = "item"
    __chrononaut_hidden__ = ("secret",)
    __chrononaut_untracked__ = ("views",)


class Leaflet(Model, Columns, Versioned):
    """Few records with short histories."""

    __tablename__ = "leaflet"
    __chrononaut_hidden__ = ("secret",)
    __chrononaut_untracked__ = ("views",)


LONG: Final = 1
"""The key of the document with the long history."""
SHORT: Final = 2
"""The key of the document with the short history."""
PAGE: Final = 50
"""Versions, changes or records on a page."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the tables are.

    :ivar long: prior versions of the document with the long history
    :ivar short: prior versions of the document with the short history
    :ivar items: records of the table with many
    :ivar again: of how many items one changed in the last hour
    :ivar leaflets: records of the table with few
    :ivar rows: history rows of each item and of each leaflet, but for what changed in the last hour
    """

    long: int
    short: int
    items: int
    again: int
    leaflets: int = 100
    rows: int = 10


FULL: Final = Sizes(long=1_000_000, short=1_000, items=100_000, again=100)
QUICK: Final = Sizes(long=20_000, short=1_000, items=2_000, again=20)

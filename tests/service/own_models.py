"""Models that are not the bundled ones, on a database object of their own."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chrononaut import Versioned, VersionedSQLAlchemy
from chrononaut.types import Instant


class Base(DeclarativeBase):
    pass


db = VersionedSQLAlchemy(model_class=Base)

if TYPE_CHECKING:
    Model = Base
else:
    Model = db.Model


class Size(Enum):
    """How large a parcel is."""

    SMALL = "s"
    LARGE = "l"


class Grade(Enum):
    """How good a specimen is; the database holds the values."""

    FIRST = "first"
    SECOND = "second"


class Account(Model, Versioned):
    """An account, with hidden columns that cannot be empty."""

    __chrononaut_hidden__ = ("pin", "pass_phrase")
    __chrononaut_dropped__: ClassVar = {"branch": sa.String(20), "opened_on": sa.Date}

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str | None]
    pin: Mapped[str]
    pass_phrase: Mapped[str]


class Parcel(Model, Versioned):
    """A parcel, with a key of three parts and columns of many types, none of which can be empty."""

    code: Mapped[UUID] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    initials: Mapped[str] = mapped_column(sa.String(2), primary_key=True)
    size: Mapped[Size]
    speed: Mapped[str] = mapped_column(sa.Enum("slow", "fast", name="speed"))
    count: Mapped[int] = mapped_column(sa.SmallInteger)
    weight: Mapped[float]
    price: Mapped[Decimal] = mapped_column(sa.Numeric(8, 2))
    fragile: Mapped[bool]
    arrived_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    opens_at: Mapped[time]
    travelled: Mapped[timedelta] = mapped_column(sa.Interval)
    content: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    note: Mapped[str] = mapped_column(sa.Text)


class Specimen(Model, Versioned):
    """A specimen, with columns of further types, all of which can be empty or have a default."""

    __chrononaut_hidden__ = ("origin",)

    id: Mapped[int] = mapped_column(sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)
    label: Mapped[str] = mapped_column(sa.String(20), default="unknown", comment="what is written on it")
    grade: Mapped[Grade | None] = mapped_column(
        sa.Enum(Grade, name="grade", values_callable=lambda enum: [member.value for member in enum])
    )
    cells: Mapped[int | None] = mapped_column(sa.BigInteger, doc="how many cells were counted")
    mass: Mapped[float] = mapped_column(sa.Double, default=0.5)
    share: Mapped[Decimal | None] = mapped_column(sa.Numeric(3, 3))
    found_at: Mapped[datetime | None] = mapped_column(sa.DateTime)
    found_on: Mapped[date | None]
    box: Mapped[str | None] = mapped_column(sa.Uuid(as_uuid=False))
    image: Mapped[bytes | None] = mapped_column(sa.LargeBinary(6))
    notes: Mapped[Any | None] = mapped_column(sa.JSON)
    origin: Mapped[str | None] = mapped_column(sa.String(10))


class Invoice(Model, Versioned):
    """An invoice, which nobody writes without a ticket and a reason."""

    __chrononaut_required__: ClassVar = {"change_ticket": r"[A-Z]+-\d+", "change_rationale": r"[\s\S]+"}

    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]
    number: Mapped[str | None] = mapped_column(sa.String(20), unique=True)
    details: Mapped[Any | None] = mapped_column(sa.JSON)


def _shout(context: Any) -> str:
    return str(context.get_current_parameters()["title"]).upper()


class Article(Model, Versioned):
    """An article, with columns that the database makes, and defaults of every kind."""

    __chrononaut_untracked__ = ("letters",)

    slug: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    title: Mapped[str]
    twice: Mapped[str | None] = mapped_column(sa.Computed("title || title", persisted=True))
    letters: Mapped[int | None] = mapped_column(sa.Computed("length(title)", persisted=True))
    loud: Mapped[str] = mapped_column(default=_shout)
    pages: Mapped[int] = mapped_column(server_default="5")
    genre: Mapped[str] = mapped_column(server_default=sa.text("'it''s 100%'"))
    motto: Mapped[str] = mapped_column(server_default="it's 100%")
    shown: Mapped[bool] = mapped_column(server_default=sa.true())
    rating: Mapped[int] = mapped_column(default=3)
    words: Mapped[int] = mapped_column(default=sa.text("40 + 2"))
    printed_at: Mapped[datetime] = mapped_column(Instant, default=lambda: datetime(2026, 3, 1, tzinfo=UTC))
    proofs: Mapped[int | None] = mapped_column(onupdate=7)
    note: Mapped[str | None] = mapped_column(sa.Text)

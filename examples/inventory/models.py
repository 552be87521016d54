"""What a warehouse keeps, and who supplies it."""

from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from chrononaut import Versioned, VersionedSQLAlchemy


class Base(DeclarativeBase):
    pass


db = VersionedSQLAlchemy(model_class=Base)

if TYPE_CHECKING:
    Model = Base
else:
    Model = db.Model


class Status(Enum):
    DRAFT = "draft"
    ON_SALE = "on sale"
    DISCONTINUED = "discontinued"


class Supplier(Model):
    __tablename__ = "supplier"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(200), unique=True)
    items: Mapped[list["Item"]] = relationship(back_populates="supplier")


class Item(Model, Versioned):
    """What can be bought."""

    __tablename__ = "item"
    __table_args__ = (sa.CheckConstraint("price >= 0", name="item_price_not_negative"),)
    __chrononaut_hidden__ = ("purchase_price",)  # changes are noted, values are never kept
    __chrononaut_untracked__ = ("counted_at",)  # ignored
    __chrononaut_required__: ClassVar = {"change_rationale": r"[\s\S]+"}  # no write without a reason

    id: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(sa.String(20), unique=True)
    price: Mapped[Decimal] = mapped_column(sa.Numeric(10, 2))
    purchase_price: Mapped[Decimal | None] = mapped_column(sa.Numeric(10, 2))
    status: Mapped[Status] = mapped_column(sa.Enum(Status, name="item_status"), default=Status.DRAFT)
    counted_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    supplier_id: Mapped[int] = mapped_column(sa.ForeignKey(Supplier.id), index=True)
    supplier: Mapped[Supplier] = relationship(back_populates="items")

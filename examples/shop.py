"""The models of a shop, on the service's own database object: products, and orders with their lines.

``CHRONONAUT_MODELS=examples.shop`` serves them. The database object is that of `app.db`, so that they need no
application of their own.
"""

from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db import Model
from chrononaut import Versioned
from chrononaut.types import Instant

Money = sa.Numeric(10, 2)


class Status(Enum):
    """How far an order is; answers and bodies have the names."""

    OPEN = "open"
    PAID = "paid"
    SHIPPED = "shipped"
    CANCELLED = "cancelled"


class Product(Model, Versioned):
    """What is sold, and for how much. Nobody changes it without a ticket."""

    __tablename__ = "product"
    __table_args__ = (sa.CheckConstraint("price >= 0", name="product_price_not_negative"),)
    __chrononaut_required__: ClassVar = {"change_ticket": r"SHOP-\d+"}  # the header X-Change-Ticket
    __chrononaut_hidden__ = ("purchase_price",)  # that it changed is noted, what it was is not kept
    __chrononaut_untracked__ = ("in_stock",)  # counted all day long, of no interest to an auditor

    id: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(sa.String(20), unique=True, doc="its number", info={"example": "TEA-250"})
    name: Mapped[str] = mapped_column(sa.String(200), info={"example": "Green tea, 250 g"})
    price: Mapped[Decimal] = mapped_column(Money, doc="for one, in euros", info={"example": "8.50"})
    purchase_price: Mapped[Decimal | None] = mapped_column(Money, doc="written only: no answer has it")
    in_stock: Mapped[int] = mapped_column(default=0, doc="how many there are now; of no prior version")


class Order(Model, Versioned):
    """What somebody has ordered. Its lines go with it when it is deleted."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str] = mapped_column(sa.String(254), info={"example": "ada@example.com"})
    status: Mapped[Status] = mapped_column(sa.Enum(Status, name="order_status"), default=Status.OPEN)
    placed_at: Mapped[datetime] = mapped_column(Instant, default=lambda: datetime.now(UTC))

    lines: Mapped[list["OrderLine"]] = relationship(
        back_populates="order", cascade="all, delete-orphan", order_by="OrderLine.position"
    )


class OrderLine(Model, Versioned):
    """How many of a product an order has, and what each of them cost then."""

    __tablename__ = "order_line"
    __table_args__ = (sa.CheckConstraint("quantity > 0", name="order_line_quantity_positive"),)

    # The key has two parts: the third line of order 7 is /records/order_line/7,3.
    order_id: Mapped[int] = mapped_column(sa.ForeignKey(Order.id), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    product_id: Mapped[int] = mapped_column(sa.ForeignKey(Product.id), index=True)
    quantity: Mapped[int] = mapped_column(default=1)
    unit_price: Mapped[Decimal] = mapped_column(Money)

    order: Mapped[Order] = relationship(back_populates="lines")
    product: Mapped[Product] = relationship()

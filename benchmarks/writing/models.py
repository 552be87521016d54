"""The columns that the records of all contestants have, and their values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

TABLE: Final = "purchase"
USER: Final = "clerk@example.com"
ADDRESS: Final = "192.0.2.17"
WHO: Final = {"user_id": USER, "remote_addr": ADDRESS}
"""The change info of all changes: who made them, and where from."""


class Columns:
    """A key that the database gives, and ten columns as applications have them."""

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(sa.String(20))
    customer: Mapped[str] = mapped_column(sa.String(100))
    note: Mapped[str | None] = mapped_column(sa.Text)
    quantity: Mapped[int]
    price: Mapped[Decimal] = mapped_column(sa.Numeric(12, 2))
    discount: Mapped[float | None]
    paid: Mapped[bool]
    due_on: Mapped[date]
    ordered_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    details: Mapped[dict[str, Any]] = mapped_column(sa.JSON)


class ReleaseColumns:
    """The columns of the real changes."""

    product: Mapped[str] = mapped_column(sa.String(100), primary_key=True)
    cycle: Mapped[str] = mapped_column(sa.String(100), primary_key=True)
    released_on: Mapped[str | None]
    end_of_life: Mapped[str | None]
    active_support: Mapped[str | None]
    extended_support: Mapped[str | None]
    lts: Mapped[str | None]
    latest: Mapped[str | None]
    latest_released_on: Mapped[str | None]
    codename: Mapped[str | None]
    label: Mapped[str | None]
    link: Mapped[str | None]
    discontinued: Mapped[str | None]


def values(number: int) -> Mapping[str, Any]:
    """The columns of a new record but its key.

    :param number: the records' numbers follow each other from 1 on
    """
    return {
        "number": f"P-{number:08}",
        "customer": f"Customer {number % 997} of the old town",
        "note": f"Leave it with the neighbour at number {number % 89}, please." if number % 3 else None,
        "quantity": number % 50 + 1,
        "price": Decimal(number % 100_000) / 100,
        "discount": number % 20 / 40 if number % 4 else None,
        "paid": number % 2 == 0,
        "due_on": date(2026, 1, 1) + timedelta(days=number % 365),
        "ordered_at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
        "details": {"priority": number % 5, "labels": ["gift", "fragile"], "weight": number % 90 / 2},
    }


def change(record: Any) -> None:
    """Give a record other values in three of its columns."""
    record.quantity += 1
    record.paid = not record.paid
    record.note = f"Changed: {record.quantity} pieces."

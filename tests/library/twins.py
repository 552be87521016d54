"""A versioned model and a plain one with the same columns: what a statement does to the one it must do to the other."""

import enum
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column, synonym

from chrononaut import Versioned, VersionedSQLAlchemy

twins = VersionedSQLAlchemy()

if TYPE_CHECKING:

    class Model(DeclarativeBase):
        """What ``twins.Model`` is to a type checker."""
else:
    Model = twins.Model


class Kind(enum.Enum):
    SMALL = "s"
    LARGE = "l"


class Cents(sa.types.TypeDecorator[Decimal]):
    """An amount of money, stored as a whole number."""

    impl = sa.Integer
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value * 100)

    def process_result_value(self, value: int | None, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value) / 100


class Columns:
    """A column of each kind that a bulk statement could set."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(sa.String(50))
    label: Mapped[str | None] = mapped_column("codename")
    logins: Mapped[int] = mapped_column(default=0, server_default="0")
    kind: Mapped[Kind | None]
    price: Mapped[Decimal | None] = mapped_column(Cents)
    rate: Mapped[Decimal | None] = mapped_column(sa.Numeric(10, 2))
    day: Mapped[date | None]
    settings: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(sa.JSON()))
    parent_id: Mapped[int | None]
    secret: Mapped[str | None]
    token: Mapped[str | None]
    clicks: Mapped[int] = mapped_column(default=0)
    mood: Mapped[Kind | None]

    @declared_attr
    def title(self) -> Mapped[str | None]:
        return synonym("name")

    @hybrid_property
    def shout(self) -> Any:
        return sa.func.upper(self.name)

    @shout.inplace.update_expression
    @classmethod
    def _set_shout(cls, value: Any) -> Any:
        return [(cls.name, sa.func.upper(value)), (cls.label, value)]


class Item(Columns, Model, Versioned):
    __tablename__ = "item"
    __chrononaut_hidden__ = ("secret", "token")
    __chrononaut_untracked__ = ("clicks", "mood")


class Plain(Columns, Model):
    """Is not versioned."""

    __tablename__ = "plain"


class Tag(Model):
    """Says something of items. Is not versioned."""

    __tablename__ = "tag"

    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int]
    text: Mapped[str | None]


def values_of(obj: Any) -> dict[str, Any]:
    """The values of an object's columns, all but the version."""
    return {name: getattr(obj, name) for name in sa.inspect(Plain).column_attrs.keys()}  # noqa: SIM118

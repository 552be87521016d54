"""The models that the state machine drives, one of each shape."""

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from chrononaut import Versioned, VersionedSQLAlchemy
from tests.library.oracle import Shape

db = VersionedSQLAlchemy()

if TYPE_CHECKING:

    class Model(DeclarativeBase):
        """What ``db.Model`` is to a type checker."""
else:
    Model = db.Model


class Gauge(Model, Versioned):
    """Has a natural key, hidden and untracked columns."""

    __tablename__ = "gauge"
    __chrononaut_hidden__ = ("secret", "token")
    __chrononaut_untracked__ = ("seen",)

    code: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    count: Mapped[int | None]
    secret: Mapped[str | None]
    token: Mapped[int | None]
    seen: Mapped[int | None]


class Price(Model, Versioned):
    """Has a key of two parts, and attributes that are not named as their columns."""

    __tablename__ = "price"
    __chrononaut_hidden__ = ("pin",)

    product: Mapped[str] = mapped_column("prod", primary_key=True)
    cycle: Mapped[int] = mapped_column("cyc", primary_key=True, autoincrement=False)
    label: Mapped[str | None] = mapped_column("codename")
    amount: Mapped[int | None] = mapped_column("label")
    pin: Mapped[str | None] = mapped_column("amount")


class Paper(Model, Versioned):
    """Has a document that is changed in place, and a number that may be missing."""

    __tablename__ = "paper"
    __chrononaut_hidden__ = ("note",)
    __chrononaut_untracked__ = ("views",)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    data: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(sa.JSON(none_as_null=True)))
    score: Mapped[float | None]
    note: Mapped[str | None]
    views: Mapped[int | None]


class Owner(Model, Versioned):
    """Has a key of the database's making; what belongs to it is let go (items) or deleted (parts) with it."""

    __tablename__ = "owner"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    items: Mapped[list["Item"]] = relationship(back_populates="owner", foreign_keys="Item.owner_id")
    parts: Mapped[list["Part"]] = relationship(cascade="all, delete-orphan")


class Item(Model, Versioned):
    """Knows two owners, of whom only one knows it."""

    __tablename__ = "item"
    __chrononaut_hidden__ = ("secret",)

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str | None]
    rank: Mapped[int | None]
    owner_id: Mapped[int | None] = mapped_column(sa.ForeignKey("owner.id"))
    keeper_id: Mapped[int | None] = mapped_column(sa.ForeignKey("owner.id"))
    secret: Mapped[str | None]
    owner: Mapped[Owner | None] = relationship(back_populates="items", foreign_keys=[owner_id])
    keeper: Mapped[Owner | None] = relationship(foreign_keys=[keeper_id])


class Part(Model, Versioned):
    """Does not know its owner, without whom it cannot be."""

    __tablename__ = "part"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str | None]
    owner_id: Mapped[int] = mapped_column(sa.ForeignKey("owner.id"))


class Vehicle(Model, Versioned):
    """Has a model below it with a table of its own."""

    __tablename__ = "vehicle"
    __chrononaut_hidden__ = ("secret",)
    __mapper_args__ = {"polymorphic_on": "type", "polymorphic_identity": "vehicle"}  # noqa: RUF012

    code: Mapped[str] = mapped_column(primary_key=True)
    type: Mapped[str]
    name: Mapped[str | None]
    secret: Mapped[str | None]


class Truck(Vehicle):
    """Has its row in two tables."""

    __tablename__ = "truck"
    __chrononaut_hidden__ = ("plan",)
    __chrononaut_untracked__ = ("seen",)
    __mapper_args__ = {"polymorphic_identity": "truck"}  # noqa: RUF012

    code: Mapped[str] = mapped_column(sa.ForeignKey("vehicle.code"), primary_key=True)
    load: Mapped[int | None]
    plan: Mapped[str | None]
    seen: Mapped[int | None]


class Animal(Model, Versioned):
    """Has a model below it in its own table."""

    __tablename__ = "animal"
    __mapper_args__ = {"polymorphic_on": "type", "polymorphic_identity": "animal"}  # noqa: RUF012

    code: Mapped[str] = mapped_column(primary_key=True)
    type: Mapped[str]
    name: Mapped[str | None]


class Dog(Animal):
    """Has columns in the table of another model."""

    __chrononaut_hidden__ = ("chip",)
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012

    tricks: Mapped[int | None]
    chip: Mapped[str | None]


MODELS: dict[str, Any] = {
    "gauge": Gauge,
    "price": Price,
    "paper": Paper,
    "owner": Owner,
    "item": Item,
    "part": Part,
    "vehicle": Vehicle,
    "truck": Truck,
    "animal": Animal,
    "dog": Dog,
}
NAMES = {model: name for name, model in MODELS.items()}
SHAPES = {
    shape.name: shape
    for shape in (
        Shape("gauge", ("code",), ("name", "count"), ("secret", "token"), ("seen",)),
        Shape("price", ("product", "cycle"), ("label", "amount"), ("pin",)),
        Shape("paper", ("number",), ("data", "score"), ("note",), ("views",)),
        Shape("owner", ("id",), ("name",)),
        Shape("item", ("id",), ("title", "rank", "owner_id", "keeper_id"), ("secret",)),
        Shape("part", ("id",), ("label", "owner_id")),
        Shape("vehicle", ("code",), ("type", "name"), ("secret",)),
        Shape("truck", ("code",), ("type", "name", "load"), ("secret", "plan"), ("seen",)),
        Shape("animal", ("code",), ("type", "name")),
        Shape("dog", ("code",), ("type", "name", "tricks"), ("chip",)),
    )
}
FAMILY = ("owner", "item", "part")
"""The shapes that refer to each other. Their keys are the database's."""

HIERARCHIES = ("vehicle", "truck", "animal", "dog")
"""The shapes of models that inherit, or are inherited from. Their keys begin with a letter of their own."""

BELOW = {"vehicle": ("truck",), "animal": ("dog",)}
"""The shapes of models that inherit: their records are also records of the model above."""

SOURCES = {
    "vehicle": ("vehicle WHERE code LIKE 'v%'", "vehicle_history WHERE code LIKE 'v%'"),
    "truck": (
        "vehicle JOIN truck USING (code)",
        "vehicle_history JOIN truck_history USING (code, version)",
    ),
    "animal": ("animal WHERE code LIKE 'a%'", "animal_history WHERE code LIKE 'a%'"),
    "dog": ("animal WHERE code LIKE 'd%'", "animal_history WHERE code LIKE 'd%'"),
}
FIXED = ("owner_id", "keeper_id", "type")
"""Attributes that are not set as the others: by relationships, or by the model."""

FOREIGN = ("owner_id", "keeper_id")
KEYS: dict[str, list[tuple[Any, ...]]] = {
    "gauge": [("a",), ("b",), ("c",)],
    "price": [("p", 1), ("p", 2)],
    "paper": [(1,), (2,)],
    "vehicle": [("v",)],
    "truck": [("t",), ("u",)],
    "animal": [("a",)],
    "dog": [("d",), ("dd",)],
}
"""The keys of the other shapes."""


def live(shape: str) -> str:
    """What the live rows of a shape are selected from."""
    return f"(SELECT * FROM {SOURCES[shape][0]}) AS live" if shape in SOURCES else shape


def history(shape: str) -> str:
    """What the history rows of a shape are selected from."""
    return f"(SELECT * FROM {SOURCES[shape][1]}) AS rows_" if shape in SOURCES else f"{shape}_history"


def column(shape: str, attribute: str) -> str:
    """The column that an attribute is kept in."""
    name: str = MODELS[shape].__mapper__.columns[attribute].name
    return name


def kind(shape: str, attribute: str) -> type:
    """The Python type of an attribute."""
    type_ = MODELS[shape].__mapper__.columns[attribute].type
    python_type: type = dict if isinstance(type_, sa.JSON) else type_.python_type
    return python_type

"""The release before."""

from typing import TYPE_CHECKING

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chrononaut import Versioned, VersionedSQLAlchemy


class Base(DeclarativeBase):
    pass


db = VersionedSQLAlchemy(model_class=Base)

if TYPE_CHECKING:
    Model = Base
else:
    Model = db.Model


class Item(Model, Versioned):
    """A thing in a store."""

    __tablename__ = "item"

    id: Mapped[int] = mapped_column(primary_key=True)
    pieces: Mapped[int]

"""Models that are not the bundled ones, on a database object of their own."""

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


class Account(Model, Versioned):
    """An account, with hidden columns that cannot be empty."""

    __chrononaut_hidden__ = ("pin", "pass_phrase")

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str | None]
    pin: Mapped[str]
    pass_phrase: Mapped[str]

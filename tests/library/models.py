"""The models that most tests of the library use; one test's odd models are built in the test, by `define`."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from chrononaut import Versioned, VersionedSQLAlchemy

db = VersionedSQLAlchemy()

if TYPE_CHECKING:

    class Model(DeclarativeBase):
        """What ``db.Model`` is to a type checker."""
else:
    Model = db.Model


def define(database: Any, name: str, /, *mixins: type, **attributes: Any) -> Any:
    """A versioned model of a test's own.

    :param mixins: what makes it versioned; `Versioned` by default
    :param attributes: what stands in the class's body
    """
    return type(name, (database.Model, *(mixins or (Versioned,))), attributes)


class User(Model, Versioned):
    """Has a key of the database's making, and a column of each kind."""

    __tablename__ = "appuser"
    __chrononaut_hidden__ = ("password_hash", "token")
    __chrononaut_untracked__ = ("last_seen_at", "clicks")

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(sa.String(100), unique=True)
    name: Mapped[str | None] = mapped_column(index=True)
    active: Mapped[bool] = mapped_column(default=True)
    logins: Mapped[int] = mapped_column(default=0, server_default="0")
    born: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    settings: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(sa.JSON()))
    biography: Mapped[str | None] = mapped_column(sa.Text, deferred=True)
    password_hash: Mapped[str | None]
    token: Mapped[str | None]
    last_seen_at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    clicks: Mapped[int] = mapped_column(default=0)


class Release(Model, Versioned):
    """Has a natural key of two parts, and an attribute that is not named as its column."""

    __tablename__ = "release"

    product: Mapped[str] = mapped_column(primary_key=True)
    cycle: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str | None] = mapped_column("codename")


class Country(Model, Versioned):
    """Has a natural key of one part."""

    __tablename__ = "country"
    __chrononaut_hidden__ = ("secret",)

    code: Mapped[str] = mapped_column(sa.String(2), primary_key=True)
    name: Mapped[str | None]
    secret: Mapped[str | None]


class Author(Model):
    """Is not versioned. Its books know it."""

    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author")


class Shelf(Model, Versioned):
    """Knows its books, which do not know it."""

    __tablename__ = "shelf"

    id: Mapped[int] = mapped_column(primary_key=True)
    room: Mapped[str | None]
    books: Mapped[list["Book"]] = relationship()


class Book(Model, Versioned):
    """Is versioned; its foreign keys are set through relationships of three kinds, and to itself."""

    __tablename__ = "book"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str | None]
    author_id: Mapped[int | None] = mapped_column(sa.ForeignKey("author.id"))
    shelf_id: Mapped[int | None] = mapped_column(sa.ForeignKey("shelf.id"))
    country_code: Mapped[str | None] = mapped_column(sa.ForeignKey("country.code"))
    sequel_of_id: Mapped[int | None] = mapped_column(sa.ForeignKey("book.id"))
    author: Mapped[Author | None] = relationship(back_populates="books")
    country: Mapped[Country | None] = relationship()
    sequel_of: Mapped["Book | None"] = relationship(remote_side="Book.id", back_populates="sequels")
    sequels: Mapped[list["Book"]] = relationship(back_populates="sequel_of")


class Note(Model):
    """Is not versioned."""

    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str | None]

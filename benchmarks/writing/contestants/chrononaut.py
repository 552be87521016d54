"""The library, as applications use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.orm import DeclarativeBase

from benchmarks.writing.contestants import Contestant
from benchmarks.writing.models import ADDRESS, TABLE, USER, Columns, ReleaseColumns
from chrononaut import Versioned, VersionedSQLAlchemy
from chrononaut.history import versioning_of

db = VersionedSQLAlchemy()

if TYPE_CHECKING:

    class Model(DeclarativeBase):
        """What ``db.Model`` is to a type checker."""
else:
    Model = db.Model


class Known(Versioned):
    """Versioned, by a user who is known without a request."""

    @classmethod
    def _fetch_current_user_id(cls) -> str:
        return USER

    @classmethod
    def _fetch_remote_addr(cls) -> str:
        return ADDRESS


class Purchase(Model, Columns, Known):
    """A record with history."""

    __tablename__ = TABLE


class Release(Model, ReleaseColumns, Known):
    """A record of the real changes, with history."""

    __tablename__ = "release"


CONTESTANT = Contestant(db, Purchase, versioning_of(Purchase).history_table, release=Release)

"""The same models without history: what writing costs at the least."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase

from benchmarks.writing.contestants import Contestant
from benchmarks.writing.models import TABLE, Columns, ReleaseColumns

db = SQLAlchemy()

if TYPE_CHECKING:

    class Model(DeclarativeBase):
        """What ``db.Model`` is to a type checker."""
else:
    Model = db.Model


class Purchase(Model, Columns):
    """A record without history."""

    __tablename__ = TABLE


class Release(Model, ReleaseColumns):
    """A record of the real changes, without history."""

    __tablename__ = "release"


CONTESTANT = Contestant(db, Purchase, release=Release)

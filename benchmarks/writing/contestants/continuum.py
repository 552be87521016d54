"""SQLAlchemy-Continuum, as it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy_continuum import make_versioned, version_class

from benchmarks.writing.contestants import Contestant
from benchmarks.writing.models import TABLE, Columns

make_versioned(user_cls=None)
db = SQLAlchemy()

if TYPE_CHECKING:

    class Model(DeclarativeBase):
        """What ``db.Model`` is to a type checker."""
else:
    Model = db.Model


class Purchase(Model, Columns):
    """A record with history by SQLAlchemy-Continuum."""

    __tablename__ = TABLE
    __versioned__ = {}  # type: ignore[var-annotated]  # noqa: RUF012


sa.orm.configure_mappers()

CONTESTANT = Contestant(db, Purchase, version_class(Purchase).__table__)

"""An object of history for each row, which the session inserts with the rest of the flush."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, SessionTransaction, mapped_column
from uuid_utils.compat import uuid7

from benchmarks.writing.contestants import Contestant
from benchmarks.writing.history import VERSION, history_table
from benchmarks.writing.models import TABLE, WHO, Columns
from chrononaut.types import now

db = SQLAlchemy()

if TYPE_CHECKING:

    class Model(DeclarativeBase):
        """What ``db.Model`` is to a type checker."""

        __table__: ClassVar[Any]
else:
    Model = db.Model


class Purchase(Model, Columns):
    """A record whose version the session counts."""

    __tablename__ = TABLE

    version: Mapped[int] = mapped_column(default=0)


class PurchaseHistory(Model):
    """A state that a record had."""

    __table__ = history_table(Purchase.__table__)


_STATE: Final = [column.key for column in Purchase.__table__.c if column.name != VERSION]
_SHARED: Final = "writing_shared"


def _shared(session: Session) -> Mapping[str, Any]:
    """What all history objects of a transaction have."""
    shared: Mapping[str, Any] = session.info.setdefault(_SHARED, {"changed": now(), "transaction_id": uuid7()})
    return shared


def _before_flush(session: Session, context: Any, instances: Any) -> None:
    for record in [record for record in session.dirty if isinstance(record, Purchase) and session.is_modified(record)]:
        session.add(_ended(session, record, "update"))
        record.version += 1
    for record in [record for record in session.deleted if isinstance(record, Purchase)]:
        session.add(_ended(session, record, "delete"))


def _after_flush(session: Session, context: Any) -> None:
    # Only now are their keys known; what is added here goes into the next flush of the same commit.
    for record in [record for record in session.new if isinstance(record, Purchase)]:
        beginning = {"id": record.id, "version": -1, "operation": "insert"}
        session.add(PurchaseHistory(**beginning, change_info=WHO, **_shared(session)))


def _ended(session: Session, record: Purchase, operation: str) -> PurchaseHistory:
    """The history object of the state that the database still has."""
    state = sa.inspect(record)
    old = {name: (state.attrs[name].history.deleted or (getattr(record, name),))[0] for name in _STATE}
    own = {"version": record.version, "operation": operation, "change_info": WHO}
    return PurchaseHistory(**old, **own, **_shared(session))


def _forget(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info.pop(_SHARED, None)


event.listen(db.session, "before_flush", _before_flush)
event.listen(db.session, "after_flush", _after_flush)
event.listen(db.session, "after_transaction_end", _forget)

CONTESTANT = Contestant(db, Purchase, PurchaseHistory.__table__)

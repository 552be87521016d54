"""A trigger in the server that archives each row before it is changed, as written by hand for this table.

The history table has the columns, the key and the indexes of Chrononaut's. What only the application knows (who, where
from, and which changes belong together) it tells the server once in each transaction.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, Final

import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, ORMExecuteState, Session, SessionTransaction
from uuid_utils.compat import uuid7

from benchmarks.writing.contestants import Contestant
from benchmarks.writing.history import HISTORY, VERSION, history_table
from benchmarks.writing.models import TABLE, WHO, Columns
from chrononaut.types import Instant, JSONDocument, now

db = SQLAlchemy()

if TYPE_CHECKING:

    class Model(DeclarativeBase):
        """What ``db.Model`` is to a type checker."""

        __table__: ClassVar[Any]
else:
    Model = db.Model


class Purchase(Model, Columns):
    """A record whose version the server counts; the application does not see it."""

    __tablename__ = TABLE
    __table_args__ = (sa.Column(VERSION, sa.Integer, nullable=False, server_default="0"),)
    __mapper_args__ = {"exclude_properties": (VERSION,)}  # noqa: RUF012


_HISTORY = history_table(Purchase.__table__)
_TELLING: Final = sa.Table(
    "telling",
    Purchase.metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("changed", Instant),
    sa.Column("change_info", JSONDocument),
    sa.Column("transaction_id", sa.Uuid()),
)
"""What the application tells SQLite's triggers, in one row. PostgreSQL's look at settings of the transaction."""

_TELL: Final = sa.select(
    sa.func.set_config("writing.change_info", sa.bindparam("info", type_=sa.Text), True),
    sa.func.set_config("writing.transaction_id", sa.bindparam("id", type_=sa.Text), True),
)
_TOLD: Final = "writing_told"
_KEY: Final = [column.name for column in Purchase.__table__.primary_key]
_STATE: Final = [column.name for column in Purchase.__table__.c if column.name not in {*_KEY, VERSION}]


def _names(prefix: str = "") -> str:
    return ", ".join(prefix + name for name in (*_KEY, VERSION, *_STATE))


_POSTGRESQL: Final = (
    f"""
    CREATE OR REPLACE FUNCTION archive_{TABLE}() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        info jsonb := current_setting('writing.change_info')::jsonb;
        transaction uuid := current_setting('writing.transaction_id')::uuid;
    BEGIN
        IF TG_OP = 'INSERT' THEN
            INSERT INTO {HISTORY} (id, {VERSION}, operation, changed, change_info, transaction_id)
            VALUES (NEW.id, -1, 'insert', now(), info, transaction);
            RETURN NEW;
        END IF;
        INSERT INTO {HISTORY} ({_names()}, operation, changed, change_info, transaction_id)
        VALUES ({_names("OLD.")}, lower(TG_OP), now(), info, transaction);
        IF TG_OP = 'DELETE' THEN
            RETURN OLD;
        END IF;
        NEW.{VERSION} := OLD.{VERSION} + 1;
        RETURN NEW;
    END $$
    """,  # noqa: S608
    f"""
    CREATE TRIGGER archive_{TABLE} BEFORE INSERT OR UPDATE OR DELETE ON {TABLE}
    FOR EACH ROW EXECUTE FUNCTION archive_{TABLE}()
    """,
)

_OWN: Final = "operation, changed, change_info, transaction_id"
_TELLS: Final = "changed, change_info, transaction_id FROM telling WHERE telling.id = 1"
_SQLITE: Final = (
    f"""
    CREATE TRIGGER archive_insert AFTER INSERT ON {TABLE} BEGIN
        INSERT INTO {HISTORY} (id, {VERSION}, {_OWN}) SELECT NEW.id, -1, 'insert', {_TELLS};
    END
    """,
    f"""
    CREATE TRIGGER archive_update AFTER UPDATE ON {TABLE} BEGIN
        INSERT INTO {HISTORY} ({_names()}, {_OWN}) SELECT {_names("OLD.")}, 'update', {_TELLS};
        UPDATE {TABLE} SET {VERSION} = OLD.{VERSION} + 1 WHERE id = OLD.id;
    END
    """,  # noqa: S608
    f"""
    CREATE TRIGGER archive_delete AFTER DELETE ON {TABLE} BEGIN
        INSERT INTO {HISTORY} ({_names()}, {_OWN}) SELECT {_names("OLD.")}, 'delete', {_TELLS};
    END
    """,
)


def _before_flush(session: Session, context: Any, instances: Any) -> None:
    _tell(session)


def _before_execute(execution: ORMExecuteState) -> None:
    if execution.is_insert or execution.is_update or execution.is_delete:
        _tell(execution.session)


def _tell(session: Session) -> None:
    """Tell the server, once in a transaction, what it cannot know."""
    if session.info.get(_TOLD):
        return
    session.info[_TOLD] = True
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        connection.execute(_TELL, {"info": json.dumps(WHO), "id": str(uuid7())})
        return
    telling = {"changed": now(), "change_info": WHO, "transaction_id": uuid7()}
    if not connection.execute(sa.update(_TELLING).values(telling)).rowcount:
        connection.execute(sa.insert(_TELLING).values(id=1, **telling))


def _forget(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info.pop(_TOLD, None)


event.listen(db.session, "before_flush", _before_flush)
event.listen(db.session, "do_orm_execute", _before_execute)
event.listen(db.session, "after_transaction_end", _forget)

CONTESTANT = Contestant(db, Purchase, _HISTORY, installing={"postgresql": _POSTGRESQL, "sqlite": _SQLITE})

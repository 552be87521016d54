"""Capture: the listeners that let a session write history.

Mapper events tell what a flush changes (`flushes`); a listener on the engine sees every statement of the session
(`executions`): it lets the first one of a flush write the history rows of what is about to change, captures bulk
statements, and refuses a write to a versioned table that would leave no history.
"""

import logging
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Mapper, Session, SessionTransaction, sessionmaker

from chrononaut import executions, flushes
from chrononaut.change_info import is_within, roll_appended_back
from chrononaut.mapping import build_history
from chrononaut.session import Capture, begin_capture, capture_by, end_capture, own_engine, written_on
from chrononaut.signals import versions_committed

_logger = logging.getLogger(__name__)
# Two threads may be the first on an engine at once.
_listening = Lock()


def capture_sessions(
    factory: sessionmaker[Any], metadatas: Callable[[], Iterable[sa.MetaData]], sender: object
) -> None:
    """Let the sessions that a factory makes capture; sessions of other factories are left alone.

    :param metadatas: those that the tables of the sessions' models belong to
    :param sender: of the signals that tell of what they have written
    """

    @event.listens_for(factory, "after_begin")
    def begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
        begin_capture(session, connection, metadatas, sender)
        _listen_to(own_engine(connection))

    @event.listens_for(factory, "after_transaction_end")
    def end(session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None:
            capture = end_capture(session)
            if capture is not None and capture.committed:
                _tell_committed(capture)

    event.listen(factory, "after_commit", _note_committed)
    event.listen(factory, "do_orm_execute", executions.execute)
    event.listen(factory, "before_commit", executions.refuse_half_captured)
    event.listen(factory, "before_flush", flushes.before_flush)
    event.listen(factory, "after_flush", flushes.after_flush)
    event.listen(factory, "after_soft_rollback", _forget_flush)
    for rolled_back in ("pending_to_transient", "persistent_to_transient"):
        event.listen(factory, rolled_back, _forget_appended)


def capture_models(mixin: type) -> None:
    """Version each model that is defined with a mixin."""
    event.listen(mixin, "after_mapper_constructed", _version_model, propagate=True)
    event.listen(mixin, "before_insert", flushes.before_insert, propagate=True)
    event.listen(mixin, "before_update", flushes.before_update, propagate=True)
    event.listen(mixin, "before_delete", flushes.before_delete, propagate=True)


def _version_model(mapper: Mapper[Any], model: type) -> None:
    build_history(mapper)


def _listen_to(engine: sa.Engine) -> None:
    with _listening:
        if not event.contains(engine, "before_cursor_execute", executions.watch):
            event.listen(engine, "before_execute", executions.capture_statement, retval=True)
            event.listen(engine, "before_cursor_execute", executions.watch)
            event.listen(engine, "after_execute", executions.follow_statement)
            event.listen(engine, "handle_error", executions.fail_statement)
            event.listen(engine, "savepoint", _keep_count)
            event.listen(engine, "rollback_savepoint", _roll_count_back)
            event.listen(engine, "release_savepoint", _release_count)
            event.listen(engine, "commit", _count)
            event.listen(engine, "prepare_twophase", _count)


def _keep_count(connection: Connection, name: str | None) -> None:
    for _, written in written_on(connection):
        written.keep()


def _roll_count_back(connection: Connection, name: str, context: object) -> None:
    for _, written in written_on(connection):
        written.roll_back()


def _release_count(connection: Connection, name: str, context: object) -> None:
    for _, written in written_on(connection):
        written.release()


def _count(connection: Connection, xid: object = None) -> None:
    """Before the transaction is committed: afterwards there is none to ask in."""
    for capture, written in written_on(connection):
        if written.uncounted and any(versions_committed.receivers_for(capture.sender)):
            written.count(connection, capture.current_transaction())


def _note_committed(session: Session) -> None:
    capture = capture_by(session)
    if capture is not None and not session.in_nested_transaction():
        capture.committed = not any(connection.in_transaction() for connection in capture.connections)


def _tell_committed(capture: Capture) -> None:
    versions = capture.versions()
    if not versions:
        return
    told = {(versioning.model, operation): count for (versioning, operation), count in versions.items()}
    transaction_id = capture.current_transaction().id
    for receiver in versions_committed.receivers_for(capture.sender):
        try:
            receiver(capture.sender, transaction_id=transaction_id, versions=told)
        except Exception:
            # The commit is done. Whoever was told that it failed would write the same once more.
            _logger.exception("a receiver of versions_committed failed")


def _forget_flush(session: Session, previous: SessionTransaction) -> None:
    flushes.forget_flush(session)
    capture = capture_by(session)
    if capture is not None:
        if capture.failed is not None and is_within(capture.failed[1], previous):
            capture.failed = None
        capture.forget_followed()
    for obj in session.identity_map.values():
        roll_appended_back(sa.inspect(obj), previous)


def _forget_appended(session: Session, obj: Any) -> None:
    ended = session.get_nested_transaction() or session.get_transaction()
    if ended is not None:
        roll_appended_back(sa.inspect(obj), ended)

"""The listeners by which a flush is captured: what it inserts, updates and deletes, as mapper events tell.

The history rows of updates and deletes are written when the first statement of the flush reaches a versioned table:
later than the listeners that may still change an object, and sooner than the row changes. Those of inserts are written
after the flush, when their keys are known.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import InstanceState, Mapper, Session, UOWTransaction, object_session
from sqlalchemy.orm.attributes import flag_modified, set_committed_value

from chrononaut.change_info import appended_to, with_extra
from chrononaut.dirty import compare, dirty, forget, given_hidden, known_version, leave_alone
from chrononaut.exceptions import UncapturedWriteError
from chrononaut.history import NEVER, Versioning, versioning_of
from chrononaut.reasons import needs_reason, refuse_unreasoned
from chrononaut.session import Capture, capture_by, capture_of
from chrononaut.suppression import is_suppressed
from chrononaut.types import JSONObject

_FLUSH = "chrononaut_flush"


def before_flush(session: Session, context: UOWTransaction, objects: object) -> None:
    session.info[_FLUSH] = context
    _require_change_info(session)


def _require_change_info(session: Session) -> None:
    """Refuse before the first statement of a flush what is certain to be refused in the middle of it."""
    if is_suppressed():
        return
    shared: dict[type, JSONObject] = {}
    for operation, changed in (("insert", session.new), ("update", session.dirty), ("delete", session.deleted)):
        requires: dict[type, Versioning | None] = {}
        for obj in changed:
            class_ = type(obj)
            if class_ not in requires:
                requires[class_] = _requiring(class_, operation)
            versioning = requires[class_]
            if versioning is None:
                continue
            state = sa.inspect(obj)
            if operation == "update" and not dirty(versioning, state).known:
                continue
            if versioning.model not in shared:
                shared[versioning.model] = versioning.model._capture_change_info()
            refuse_unreasoned(versioning, operation, with_extra(shared[versioning.model], appended_to(state)))


def _requiring(class_: type, operation: str) -> Versioning | None:
    """The versioning of a model of which a write can be refused for what its change info says."""
    versioning: Versioning | None = getattr(class_, "__chrononaut__", None)
    if versioning is None or versioning.history is class_ or not needs_reason(versioning, operation):
        return None
    return versioning


def _capture_of(versioning: Versioning, state: InstanceState[Any], connection: Connection) -> Capture | None:
    """What the session of an object that is flushed has yet to write; ``None`` where it does not capture, and need not.

    :raises UncapturedWriteError: it does not capture, or its connection has no transactions
    """
    capture = capture_of(state)
    if not is_suppressed():
        if capture is None:
            raise UncapturedWriteError(
                versioning.table.name,
                "a change by a session that does not capture",
                "use the session of the VersionedSQLAlchemy that the model belongs to",
            )
        capture.refuse_autocommit(connection, versioning)
    if capture is not None:
        capture.flushing = True
    return capture


def before_insert(mapper: Mapper[Any], connection: Connection, obj: Any) -> None:
    versioning, state = versioning_of(mapper.class_), sa.inspect(obj)
    capture = _capture_of(versioning, state, connection)
    if capture is None:
        return
    version = versioning.options.names.version
    replaced = _replaced_by(mapper, obj)
    if replaced is not None:
        versioning = _replaced_versioning(versioning, replaced)
        known = known_version(versioning, replaced)
        hidden = [name for name in versioning.hidden if name in state.dict]
        if known is None or hidden:
            found = compare(connection, versioning, replaced, capture.transaction, hidden, state.dict)
            known = found.version if known is None else known
            hidden = [name for name in hidden if name in found.changed]
        if not is_suppressed():
            document = capture.change_info(versioning, "update", state, hidden)
            capture.expect(versioning, "update")
            capture.replace(versioning, "update", known, replaced, by=state, document=document)
            known += 1
        setattr(obj, version, known)
        return
    setattr(obj, version, 0)
    capture.expect(versioning, "insert")
    if is_suppressed():
        capture.unrecorded[versioning].append(obj)
        return
    document = capture.change_info(versioning, "insert", state, given_hidden(versioning, state))
    capture.inserted[versioning].add(obj, document)


def _replaced_versioning(versioning: Versioning, replaced: InstanceState[Any]) -> Versioning:
    """The versioning of the object whose row a new one takes over; it may be of another class.

    :raises UncapturedWriteError: its row is in other tables
    """
    before = versioning_of(replaced.class_)
    if [one.live for one in before.tables] != [one.live for one in versioning.tables]:
        raise UncapturedWriteError(
            versioning.table.name,
            f"replacing a {before.name} by a {versioning.name} of its key in one flush",
            "flush the delete before you add the other",
        )
    return before


def _replaced_by(mapper: Mapper[Any], obj: Any) -> InstanceState[Any] | None:
    """The object whose row a new one takes over: a flush turns the delete and insert of one key into an update."""
    session = object_session(obj)
    if session is None or any(part is None for part in mapper.primary_key_from_instance(obj)):
        return None
    existing = session.identity_map.get(mapper.identity_key_from_instance(obj))
    flush: Any = session.info.get(_FLUSH)
    state: InstanceState[Any] | None = None if existing is None else sa.inspect(existing)
    return state if flush is not None and state is not None and flush.is_deleted(state) else None


def before_update(mapper: Mapper[Any], connection: Connection, obj: Any) -> None:
    versioning, state = versioning_of(mapper.class_), sa.inspect(obj)
    capture = _capture_of(versioning, state, connection)
    if capture is None:
        return
    version = versioning.options.names.version
    known = known_version(versioning, state)
    changed, unknown, stamped = dirty(versioning, state)
    if known is None:
        # Nor is it known then of which version the loaded values are.
        changed, unknown = frozenset(), (*changed, *unknown)
    if unknown or (known is None and stamped):
        found = compare(connection, versioning, state, capture.transaction, unknown)
        known = found.version if known is None else known
        changed = changed | found.changed
        leave_alone(obj, [name for name in unknown if name not in found.changed])
    if is_suppressed() and not changed.isdisjoint(versioning.key):
        capture.unrecorded[versioning].append(obj)
    if not (changed or stamped) or is_suppressed():
        # The version is nobody's to set. One that is known stays so: by it a change of another transaction is found.
        if version in state.committed_state and known is None:
            forget(obj, version)
        elif version in state.committed_state:
            set_committed_value(obj, version, known)
        return
    assert known is not None
    if changed.isdisjoint(versioning.key):
        # What setting the attribute does, without its events: they were a quarter of the time here.
        state.committed_state.setdefault(version, known)
        state.dict[version] = known + 1
        capture.expect(versioning, "update")
        capture.replace(versioning, "update", known, state, by=state)
        return
    # A record is its key: the one of the old key ends, and one of the new key begins.
    document = capture.change_info(versioning, "delete", state, [])
    setattr(obj, version, NEVER + 1)
    flag_modified(obj, version)
    capture.expect(versioning, "update")
    capture.replace(versioning, "delete", known, state, by=state, document=document)
    capture.moved[versioning].add(obj, document)


def before_delete(mapper: Mapper[Any], connection: Connection, obj: Any) -> None:
    versioning, state = versioning_of(mapper.class_), sa.inspect(obj)
    capture = _capture_of(versioning, state, connection)
    if capture is None:
        return
    if is_suppressed():
        return
    capture.expect(versioning, "delete")
    capture.replace(versioning, "delete", known_version(versioning, state), state, by=state)


def forget_flush(session: Session) -> None:
    """Drop what is kept during a flush, whichever way it ended."""
    session.info.pop(_FLUSH, None)
    capture = capture_by(session)
    if capture is not None:
        capture.end_flush()


def after_flush(session: Session, context: UOWTransaction) -> None:
    capture = capture_by(session)
    if capture is not None and capture.pending:
        # The statement that should have archived it was not seen: a connection whose events are hidden.
        versioning, operation = next(iter(capture.pending))
        raise UncapturedWriteError(versioning.table.name, f"this {operation.upper()}")
    if capture is not None:
        capture.archive_inserted(session)
    forget_flush(session)

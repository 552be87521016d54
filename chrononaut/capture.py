"""Session listeners: write into history what a flush is about to change, and refuse what would leave no history.

Mapper events say which objects a flush inserts, updates and deletes. The history rows of updates and deletes are
written when the first statement of the flush reaches a versioned table: later than the listeners that may still change
an object, and sooner than the row changes. Those of inserts are written after the flush, when their keys are known.

That first statement is seen by a listener on the engine, which sees every other write of the session as well. A write
to a versioned table that was not captured is refused there.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary, WeakSet, ref

import sqlalchemy as sa
import uuid_utils.compat
from sqlalchemy import event
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.orm import (
    InstanceState,
    Mapper,
    ORMExecuteState,
    RelationshipDirection,
    Session,
    SessionTransaction,
    UOWTransaction,
    object_session,
    sessionmaker,
)
from sqlalchemy.orm.attributes import flag_modified, set_committed_value
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase

from chrononaut import bulk
from chrononaut.archive import (
    ARCHIVING,
    Beginning,
    Ending,
    Transaction,
    archive_inserts,
    archive_states,
    continue_numbering,
    hidden_values,
)
from chrononaut.change_info import (
    CapturesChangeInfo,
    extra_is_required,
    gives_reason,
    has_appended,
    is_within,
    roll_appended_back,
    take_appended,
)
from chrononaut.dirty import (
    compare,
    dirty,
    dirty_hidden,
    forget,
    given_hidden,
    known_version,
    leave_alone,
)
from chrononaut.exceptions import (
    ConcurrentChangeError,
    HistoryImmutableError,
    MissingChangeInfoError,
    UncapturedWriteError,
    UnsupportedMappingError,
)
from chrononaut.history import NEVER, Key, Versioning, full_name, versioning_of, versioning_of_table
from chrononaut.locking import is_conflict
from chrononaut.mapping import build_history
from chrononaut.statements import target, writes, written_columns
from chrononaut.types import JSONObject

_COMPILED_CACHE = "compiled_cache"  # the ORM executes the statements of a flush with it, and nobody else does
_Replacement = Literal["update", "delete"]
_Suppression = Literal["none", "versioning", "immutability"]
_suppressed: ContextVar[_Suppression] = ContextVar("chrononaut_suppressed", default="none")


@contextmanager
def suppress_versioning(allow_deleting_history: bool = False) -> Iterator[None]:
    """Write no history for what is flushed or executed inside the block.

    :param allow_deleting_history: let the session delete history rows, which it refuses otherwise
    """
    token = _suppressed.set("immutability" if allow_deleting_history else "versioning")
    try:
        yield
    finally:
        _suppressed.reset(token)


class _Pending(NamedTuple):
    """A row that a flush is about to replace.

    :ivar state: of the object that replaces it, or is deleted
    :ivar document: the change info, where it is known already
    """

    versioning: Versioning
    operation: _Replacement
    key: Key
    version: int | None
    state: InstanceState[Any]
    document: JSONObject | None = None


@dataclass(slots=True)
class _Capture:
    """What one session has yet to write into history."""

    session: ref[Session]
    metadatas: Callable[[], Iterable[sa.MetaData]]
    transaction: Transaction | None = None
    connections: WeakSet[Connection] = field(default_factory=WeakSet)
    pending: list[_Pending] = field(default_factory=list)
    inserted: dict[Versioning, list[tuple[object, JSONObject]]] = field(default_factory=lambda: defaultdict(list))
    moved: dict[Versioning, list[tuple[object, JSONObject]]] = field(default_factory=lambda: defaultdict(list))
    unrecorded: dict[Versioning, list[object]] = field(default_factory=lambda: defaultdict(list))
    announced: Counter[tuple[sa.Table, str]] = field(default_factory=Counter)
    counted: Any = None
    change_infos: dict[type, JSONObject] = field(default_factory=dict)
    flushing: bool = False
    captured: dict[Any, Versioning] = field(default_factory=dict)
    failed: tuple[Versioning, SessionTransaction | None] | None = None

    def current_transaction(self) -> Transaction:
        if self.transaction is None:
            self.transaction = Transaction(uuid_utils.compat.uuid7())
        return self.transaction

    def change_info(self, versioning: Versioning, state: InstanceState[Any], hidden: list[str]) -> JSONObject:
        """The document for one change; what the changes of one flush share is made once for each model."""
        model: type[CapturesChangeInfo] = versioning.model
        shared = self.change_infos.get(model)
        if shared is None:
            shared = self.change_infos[model] = model._capture_change_info()
        appended = take_appended(state.info)
        if appended:
            shared = shared | {"extra": {**shared.get("extra", {}), **appended}}
        return _naming(shared, hidden)

    def archive_pending(self, connection: Connection) -> None:
        """Write the rows that are about to be replaced into history."""
        pending, self.pending = self.pending, []
        required = bool(pending) and extra_is_required()
        endings: dict[tuple[Versioning, _Replacement], list[Ending]] = defaultdict(list)
        for versioning, operation, key, version, state, known in pending:
            document = known
            if document is None:
                hidden = dirty_hidden(versioning, state) if operation == "update" else []
                document = self.change_info(versioning, state, hidden)
            if required and not gives_reason(document):
                raise MissingChangeInfoError(versioning.name, operation)
            endings[versioning, operation].append(Ending(key, version, document))
        for (versioning, operation), of_model in endings.items():
            archive_states(connection, versioning, operation, of_model, self.current_transaction())

    def archive_inserted(self, session: Session) -> None:
        """Write the ``insert`` rows of what was inserted, or got another key."""
        for versioning in {**self.inserted, **self.moved}:
            connection = session.connection(bind_arguments={"mapper": versioning.mapper})
            inserted, moved = self.inserted[versioning], self.moved[versioning]
            beginnings = [Beginning(versioning.key_of(obj), document) for obj, document in inserted]
            hidden = hidden_values(connection, versioning, [versioning.key_of(obj) for obj, _ in moved])
            for obj, document in moved:
                key = versioning.key_of(obj)
                beginnings.append(Beginning(key, _naming(document, hidden.get(key, []))))
            reused = archive_inserts(connection, versioning, beginnings, self.current_transaction())
            _show_versions(versioning, [obj for obj, _ in (*inserted, *moved)], reused)
        for versioning, objects in self.unrecorded.items():
            connection = session.connection(bind_arguments={"mapper": versioning.mapper})
            reused = continue_numbering(connection, versioning, [versioning.key_of(obj) for obj in objects])
            _show_versions(versioning, objects, reused)

    def executed_by_flush(self, execution_options: Mapping[str, Any]) -> bool:
        """Is a statement with these options one by which a flush writes objects?"""
        return self.flushing and _COMPILED_CACHE in execution_options

    def is_flushed(self, versioning: Versioning) -> bool:
        """Does the current flush write objects of a model?"""
        return any(written is one.live for written, _ in self.announced for one in versioning.tables)

    def is_announced(self, versioning: Versioning, write: UpdateBase, context: Any) -> bool:
        """Did mapper events announce what a statement of a flush writes?

        They did not where a listener writes by itself in the middle of the flush, or changes an object that ours had
        seen unchanged before.
        """
        if isinstance(write, sa.Update) and len(versioning.tables) == 1:
            written = written_columns(write, context.compiled_parameters)
            if versioning.version.key not in written:
                whole = versioning.whole()
                versioned = (*whole.tracked.values(), *whole.hidden.values())
                return not any(column.key in written for column in versioned)
        announced = versioning.tables[-1].live, write.__visit_name__
        if context is not self.counted:
            # One INSERT may be sent in several parts; it is counted with the first.
            self.counted = context
            self.announced[announced] -= len(context.compiled_parameters)
        return self.announced[announced] >= 0

    def archive_inserted_by_statement(
        self, connection: Connection, versioning: Versioning, keys: Sequence[Key]
    ) -> None:
        """Write the ``insert`` rows of what a statement has inserted."""
        shared = versioning.model._capture_change_info()
        hidden = hidden_values(connection, versioning.whole(), keys)
        beginnings = [Beginning(key, _naming(shared, hidden.get(key, []))) for key in keys]
        reused = archive_inserts(connection, versioning, beginnings, self.current_transaction())
        session = self.session()
        if reused and session is not None:
            _forget_versions(session, versioning)

    def fail(self, versioning: Versioning) -> None:
        """Let nothing be committed until the session is rolled back to before a statement that failed halfway."""
        session = self.session()
        if self.failed is None and session is not None:
            self.failed = versioning, session.get_nested_transaction() or session.get_transaction()

    @contextmanager
    def entire(self, versioning: Versioning) -> Iterator[None]:
        """A block that changes rows as well as history: nothing is committed where it fails."""
        try:
            yield
        except BaseException:
            self.fail(versioning)
            raise

    def expect(self, versioning: Versioning, operation: str) -> None:
        """Note that the flush is about to write the rows of a record."""
        for one in versioning.tables:
            self.announced[one.live, operation] += 1

    def announce(
        self,
        versioning: Versioning,
        operation: _Replacement,
        version: int | None,
        replaced: InstanceState[Any],
        by: InstanceState[Any],
    ) -> None:
        """Note that a row is about to be replaced."""
        self.expect(versioning, operation)
        self.pending.append(_Pending(versioning, operation, tuple(replaced.identity or ()), version, by))

    def versioning_of(self, table: sa.FromClause, connection: Connection) -> Versioning | None:
        """The versioning that a written table belongs to, whichever object describes the table."""
        versioning = versioning_of_table(table)
        session = self.session()
        if versioning is not None or session is None:
            return versioning
        for metadata in self.metadatas():
            known = metadata.tables.get(full_name(table))
            versioning = None if known is None else versioning_of_table(known)
            if versioning is not None and session.get_bind(versioning.mapper).engine is connection.engine:
                return versioning
        return None

    def end_flush(self) -> None:
        self.pending.clear()
        self.inserted.clear()
        self.moved.clear()
        self.unrecorded.clear()
        self.announced.clear()
        self.counted = None
        self.change_infos.clear()
        self.flushing = False


def _naming(document: JSONObject, hidden: list[str]) -> JSONObject:
    """A change info document that names the hidden attributes which the change concerns."""
    return document | {"hidden_cols_changed": hidden} if hidden else document


def _show_versions(versioning: Versioning, objects: Sequence[object], versions: Mapping[Key, int]) -> None:
    for obj in objects if versions else ():
        version = versions.get(versioning.key_of(obj))
        if version is not None:
            set_committed_value(obj, versioning.options.names.version, version)


_CAPTURE = "chrononaut"
# Usually one; sessions that are bound to the same connection share it.
_capturing: WeakKeyDictionary[Connection, list[_Capture]] = WeakKeyDictionary()


def capture_sessions(factory: sessionmaker[Any], metadatas: Callable[[], Iterable[sa.MetaData]]) -> None:
    """Let the sessions that a factory makes capture; sessions of other factories are left alone.

    :param metadatas: those that the tables of the sessions' models belong to
    """

    @event.listens_for(factory, "after_begin")
    def begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
        _begin(session, connection, metadatas)

    event.listen(factory, "do_orm_execute", _return_keys)
    event.listen(factory, "before_commit", _refuse_half_captured)
    event.listen(factory, "before_flush", _require_change_info)
    event.listen(factory, "after_flush", _after_flush)
    event.listen(factory, "after_soft_rollback", _forget_flush)
    event.listen(factory, "after_transaction_end", _end_transaction)
    for rolled_back in ("pending_to_transient", "persistent_to_transient"):
        event.listen(factory, rolled_back, _forget_appended)


def capture_models(mixin: type) -> None:
    """Version each model that is defined with a mixin."""
    event.listen(mixin, "after_mapper_constructed", _version_model, propagate=True)
    event.listen(mixin, "before_insert", _before_insert, propagate=True)
    event.listen(mixin, "before_update", _before_update, propagate=True)
    event.listen(mixin, "before_delete", _before_delete, propagate=True)


def _version_model(mapper: Mapper[Any], model: type) -> None:
    build_history(mapper)


_WRITTEN_SIDES = {RelationshipDirection.ONETOMANY: "mapper", RelationshipDirection.MANYTOONE: "parent"}


@event.listens_for(Mapper, "mapper_configured")
def _refuse_uncaptured_cascades(mapper: Mapper[Any], model: type) -> None:
    for relationship in mapper.relationships:
        side = _WRITTEN_SIDES.get(relationship.direction)
        written = None if side is None else getattr(relationship, side).local_table
        versioning = None if written is None else versioning_of_table(written)
        if written is None or versioning is None or versioning.is_history(written):
            continue
        if relationship.post_update:
            cascade = "post_update=True"
        elif relationship.passive_deletes and side == "mapper":
            cascade = f"passive_deletes={relationship.passive_deletes!r}"
        else:
            continue
        raise UnsupportedMappingError(
            versioning.name,
            f"{model.__name__}.{relationship.key} has {cascade}, by which it would change without history; remove it",
        )


# Transactions


def _begin(session: Session, connection: Connection, metadatas: Callable[[], Iterable[sa.MetaData]]) -> None:
    capture = session.info.setdefault(_CAPTURE, _Capture(ref(session), metadatas))
    if connection not in capture.connections:
        capture.connections.add(connection)
        _capturing.setdefault(connection, []).append(capture)
    if not event.contains(connection.engine, "before_cursor_execute", _watch):
        event.listen(connection.engine, "before_execute", _capture_statement, retval=True)
        event.listen(connection.engine, "before_cursor_execute", _watch)
        event.listen(connection.engine, "after_execute", _follow_statement)
        event.listen(connection.engine, "handle_error", _fail_statement)


def _end_transaction(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is not None:
        return
    capture: _Capture | None = session.info.pop(_CAPTURE, None)
    # A connection that outlives the transaction is the caller's own: what it executes by itself is not the session's.
    for connection in capture.connections if capture is not None else ():
        _capturing[connection] = [other for other in _capturing.get(connection, ()) if other is not capture]


def _forget_flush(session: Session, previous: SessionTransaction) -> None:
    capture: _Capture | None = session.info.get(_CAPTURE)
    if capture is not None:
        capture.end_flush()
        if capture.failed is not None and is_within(capture.failed[1], previous):
            capture.failed = None
    for obj in session.identity_map.values():
        roll_appended_back(sa.inspect(obj).info, previous)


def _forget_appended(session: Session, obj: Any) -> None:
    take_appended(sa.inspect(obj).info)


# Flushes


def _capture_of(obj: object) -> _Capture | None:
    """What the session of an object has yet to write; ``None`` where its session does not capture."""
    session = object_session(obj)
    return None if session is None else session.info.get(_CAPTURE)


def _require_change_info(session: Session, context: UOWTransaction, objects: object) -> None:
    """Refuse before the first statement of a flush what is certain to be refused in the middle of it."""
    if not extra_is_required() or _suppressed.get() != "none":
        return
    for operation, changed in (("update", session.dirty), ("delete", session.deleted)):
        for obj in changed:
            state = sa.inspect(obj)
            versioning = versioning_of_table(state.mapper.local_table)
            if versioning is None or versioning.history is type(obj) or has_appended(state.info):
                continue
            if operation == "update" and not dirty(versioning, state).known:
                continue
            if not gives_reason(versioning.model._capture_change_info()):
                raise MissingChangeInfoError(versioning.name, operation)


def _before_insert(mapper: Mapper[Any], connection: Connection, obj: Any) -> None:
    versioning, capture = versioning_of(mapper.class_), _capture_of(obj)
    if capture is None:
        return
    capture.flushing = True
    version = versioning.options.names.version
    state = sa.inspect(obj)
    replaced = _replaced_by(mapper, obj)
    if replaced is not None:
        known = known_version(versioning, replaced)
        if known is None:
            known = compare(connection, versioning, replaced).version
        if _suppressed.get() == "none":
            capture.announce(versioning, "update", known, replaced, by=state)
            known += 1
        setattr(obj, version, known)
        return
    setattr(obj, version, 0)
    capture.expect(versioning, "insert")
    if _suppressed.get() != "none":
        capture.unrecorded[versioning].append(obj)
        return
    document = capture.change_info(versioning, state, given_hidden(versioning, state))
    capture.inserted[versioning].append((obj, document))


def _replaced_by(mapper: Mapper[Any], obj: Any) -> InstanceState[Any] | None:
    """The object whose row a new one takes over: a flush turns the delete and insert of one key into an update."""
    session = object_session(obj)
    if session is None or any(part is None for part in mapper.primary_key_from_instance(obj)):
        return None
    existing = session.identity_map.get(mapper.identity_key_from_instance(obj))
    return None if existing is None else sa.inspect(existing)


def _before_update(mapper: Mapper[Any], connection: Connection, obj: Any) -> None:
    versioning, capture = versioning_of(mapper.class_), _capture_of(obj)
    if capture is None:
        return
    capture.flushing = True
    state = sa.inspect(obj)
    version = versioning.options.names.version
    known = known_version(versioning, state)
    changed, unknown, stamped = dirty(versioning, state)
    if unknown or (known is None and (changed or stamped)):
        found = compare(connection, versioning, state, unknown)
        known = found.version if known is None else known
        changed = changed | found.changed
        leave_alone(obj, [name for name in unknown if name not in found.changed])
    if not (changed or stamped) or _suppressed.get() != "none":
        if version in state.committed_state:
            # The version is nobody's to set.
            forget(obj, version)
        return
    assert known is not None
    if changed.isdisjoint(versioning.key):
        setattr(obj, version, known + 1)
        capture.announce(versioning, "update", known, state, by=state)
        return
    # A record is its key: the one of the old key ends, and one of the new key begins.
    document = capture.change_info(versioning, state, [])
    setattr(obj, version, NEVER + 1)
    flag_modified(obj, version)
    capture.expect(versioning, "update")
    capture.pending.append(_Pending(versioning, "delete", tuple(state.identity or ()), known, state, document))
    capture.moved[versioning].append((obj, document))


def _before_delete(mapper: Mapper[Any], connection: Connection, obj: Any) -> None:
    versioning, capture = versioning_of(mapper.class_), _capture_of(obj)
    if capture is None:
        return
    capture.flushing = True
    if _suppressed.get() != "none":
        return
    state = sa.inspect(obj)
    capture.announce(versioning, "delete", known_version(versioning, state), state, by=state)


def _after_flush(session: Session, context: UOWTransaction) -> None:
    capture: _Capture | None = session.info.get(_CAPTURE)
    if capture is None:
        return
    if capture.pending:
        # The statement that should have archived it was not seen: a connection whose events are hidden.
        left = capture.pending[0]
        raise UncapturedWriteError(left.versioning.table.name, f"this {left.operation.upper()}")
    capture.archive_inserted(session)
    capture.end_flush()


# Statements

_KEYS_RETURNED = "chrononaut_keys_returned"
_Statement = tuple[Any, Any, Any]


def _capturing_session(connection: Connection) -> _Capture | None:
    captures = _capturing.get(connection)
    return next((capture for capture in captures if capture.flushing), captures[0]) if captures else None


def _capture_statement(
    connection: Connection, element: Any, multiparams: Any, params: Any, execution_options: Mapping[str, Any]
) -> _Statement:
    """Let a statement that writes a versioned table leave history."""
    unchanged = element, multiparams, params
    capture = _capturing_session(connection)
    if (
        capture is None
        or not isinstance(element, UpdateBase)
        or ARCHIVING in execution_options
        or _suppressed.get() != "none"
        or capture.executed_by_flush(execution_options)
    ):
        return unchanged
    table = target(element)
    versioning = capture.versioning_of(table, connection)
    if versioning is None or versioning.is_history(table):
        return unchanged
    if capture.is_flushed(versioning):
        # Its rows are being archived by the versions that the flush knows.
        return unchanged
    parameters = multiparams or ([params] if params else [])
    statement: UpdateBase
    if isinstance(element, (sa.Update, sa.Delete)):
        document = versioning.model._capture_change_info()
        if extra_is_required() and not gives_reason(document):
            raise MissingChangeInfoError(versioning.name, element.__visit_name__)
        statement, parameters = bulk.captured(
            element, parameters, versioning, connection, capture.current_transaction(), document
        )
        capture.captured[statement] = versioning
    elif _KEYS_RETURNED in execution_options:
        statement = element
        capture.captured[statement] = versioning
    else:
        assert isinstance(element, sa.Insert)
        if element._returning:
            raise UncapturedWriteError(versioning.table.name, "this INSERT", "execute it by the session")
        numbered = bulk.numbered(element, parameters, versioning)
        statement = bulk.returning_keys(numbered, parameters, versioning)
        capture.captured[statement] = versioning
    return statement, list(parameters), {}


def _follow_statement(
    connection: Connection,
    element: Any,
    multiparams: Any,
    params: Any,
    execution_options: Mapping[str, Any],
    result: sa.CursorResult[Any],
) -> None:
    """Write the history of what a statement has inserted, and let the session read the versions that it has counted."""
    capture = _capturing_session(connection)
    versioning = None if capture is None else capture.captured.pop(element, None)
    if capture is None or versioning is None:
        return
    if not isinstance(element, sa.Insert):
        _forget_versions(capture.session(), versioning)
    elif _KEYS_RETURNED not in execution_options:
        with capture.entire(versioning):
            capture.archive_inserted_by_statement(connection, versioning, bulk.inserted_keys(result, versioning))


def _return_keys(state: ORMExecuteState) -> Any:
    """Let an INSERT with a RETURNING of its own return the keys of what it inserts as well."""
    if not state.is_insert or _suppressed.get() != "none" or _KEYS_RETURNED in state.execution_options:
        return None
    statement: Any = state.statement
    table = target(statement)
    connection = state.session.connection(bind_arguments=dict(state.bind_arguments))
    capture: _Capture | None = state.session.info.get(_CAPTURE)
    versioning = None if capture is None else capture.versioning_of(table, connection)
    if capture is None or versioning is None or not statement._returning:
        return None
    given: Any = state.parameters or {}
    parameters = [given] if isinstance(given, Mapping) else given
    keys = [column.label(f"{bulk.OWN}{column.key}") for column in versioning.key_columns]
    with capture.entire(versioning):
        result = state.invoke_statement(
            bulk.numbered(statement, parameters, versioning).returning(*keys), execution_options={_KEYS_RETURNED: True}
        ).freeze()
        rows: Any = result()
        columns = len(rows.keys()) - len(keys)
        capture.archive_inserted_by_statement(connection, versioning, [tuple(row[columns:]) for row in rows])
    return result().columns(*range(columns))


def _fail_statement(context: ExceptionContext) -> None:
    """Let nothing be committed of a statement that failed, and name the model where another transaction was in its way.

    :raises ConcurrentChangeError: instead of the database's error
    """
    execution: Any = context.execution_context
    capture = None if context.connection is None else _capturing_session(context.connection)
    statement = getattr(execution, "invoked_statement", None)
    if capture is None or statement not in capture.captured:
        return
    versioning = capture.captured.pop(statement)
    capture.fail(versioning)
    if is_conflict(context.original_exception):
        raise ConcurrentChangeError(versioning.name, []) from context.original_exception


def _refuse_half_captured(session: Session) -> None:
    capture: _Capture | None = session.info.get(_CAPTURE)
    if capture is not None and capture.failed is not None:
        raise UncapturedWriteError(
            capture.failed[0].table.name, "a statement that failed halfway", "roll the session back"
        )


def _forget_versions(session: Session | None, versioning: Versioning) -> None:
    """Let a session load the versions of a model's objects anew."""
    name = versioning.options.names.version
    for obj in session.identity_map.values() if session is not None else ():
        if isinstance(obj, versioning.model) and name in sa.inspect(obj).dict:
            forget(obj, name)


def _watch(
    connection: Connection, cursor: object, statement: str, parameters: object, context: Any, executemany: bool
) -> None:
    capture = _capturing_session(connection)
    compiled = getattr(context, "compiled", None)
    if capture is None or not isinstance(compiled, SQLCompiler) or ARCHIVING in context.execution_options:
        return
    by_flush = capture.executed_by_flush(context.execution_options)
    statement = context.invoked_statement
    for write, name in writes(compiled):
        if statement in capture.captured and (name is None or name.startswith(bulk.OWN)):
            continue
        table = target(write)
        versioning = capture.versioning_of(table, connection)
        if versioning is None:
            continue
        if versioning.is_history(table):
            if not (write.is_delete and _suppressed.get() == "immutability"):
                raise HistoryImmutableError(full_name(table))
        elif _suppressed.get() == "none":
            if not (by_flush and capture.is_announced(versioning, write, context)):
                raise UncapturedWriteError(versioning.table.name, f"this {write.__visit_name__.upper()}")
            capture.archive_pending(connection)

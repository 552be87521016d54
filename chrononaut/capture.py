"""Session listeners: write into history what a flush is about to change, and refuse what would leave no history.

Mapper events say which objects a flush inserts, updates and deletes. The history rows of updates and deletes are
written when the first statement of the flush reaches a versioned table: later than the listeners that may still change
an object, and sooner than the row changes. Those of inserts are written after the flush, when their keys are known.

That first statement is seen by a listener on the engine, which sees every other write of the session as well. A write
to a versioned table that was not captured is refused there.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import sqlalchemy as sa
import uuid_utils.compat
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import (
    InstanceState,
    Mapper,
    Session,
    SessionTransaction,
    UOWTransaction,
    object_session,
    sessionmaker,
)
from sqlalchemy.orm.attributes import get_history, set_committed_value
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase

from chrononaut.archive import (
    ARCHIVING,
    Beginning,
    Ending,
    Transaction,
    archive_inserts,
    archive_states,
    continue_numbering,
)
from chrononaut.change_info import (
    CapturesChangeInfo,
    current_extra,
    extra_is_required,
    has_appended,
    take_appended,
)
from chrononaut.exceptions import (
    ConcurrentChangeError,
    HistoryImmutableError,
    MissingChangeInfoError,
    UncapturedWriteError,
    UnsupportedMappingError,
)
from chrononaut.history import Key, Versioning, build_history, versioning_of, versioning_of_table
from chrononaut.types import JSONObject, is_distinct

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


@dataclass(slots=True)
class _Capture:
    """What one session has yet to write into history."""

    transaction: Transaction | None = None
    connections: WeakSet[Connection] = field(default_factory=WeakSet)
    endings: dict[tuple[Versioning, _Replacement], list[Ending]] = field(default_factory=lambda: defaultdict(list))
    inserted: dict[Versioning, list[tuple[object, JSONObject]]] = field(default_factory=lambda: defaultdict(list))
    unrecorded: dict[Versioning, list[object]] = field(default_factory=lambda: defaultdict(list))
    change_infos: dict[type, JSONObject] = field(default_factory=dict)
    flushing: bool = False

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
        if not (appended or hidden):
            return shared
        document = dict(shared)
        if appended:
            document["extra"] = {**shared.get("extra", {}), **appended}
        if hidden:
            document["hidden_cols_changed"] = hidden
        return document

    def end(
        self,
        versioning: Versioning,
        operation: _Replacement,
        state: InstanceState[Any],
        version: int | None,
        document: JSONObject,
    ) -> None:
        """Note that the current state of a record is about to be replaced."""
        if extra_is_required() and not document.get("extra"):
            raise MissingChangeInfoError(versioning.name, operation)
        self.endings[versioning, operation].append(Ending(tuple(state.identity or ()), version, document))

    def archive_endings(self, connection: Connection) -> None:
        endings, self.endings = self.endings, defaultdict(list)
        for (versioning, operation), of_model in endings.items():
            archive_states(connection, versioning, operation, of_model, self.current_transaction())

    def archive_beginnings(self, session: Session) -> None:
        for versioning, inserted in self.inserted.items():
            connection = session.connection(bind_arguments={"mapper": versioning.mapper})
            beginnings = [Beginning(versioning.key_of(obj), document) for obj, document in inserted]
            reused = archive_inserts(connection, versioning, beginnings, self.current_transaction())
            _show_versions(versioning, [obj for obj, _ in inserted], reused)
        for versioning, objects in self.unrecorded.items():
            connection = session.connection(bind_arguments={"mapper": versioning.mapper})
            reused = continue_numbering(connection, versioning, [versioning.key_of(obj) for obj in objects])
            _show_versions(versioning, objects, reused)

    def end_flush(self) -> None:
        self.endings.clear()
        self.inserted.clear()
        self.unrecorded.clear()
        self.change_infos.clear()
        self.flushing = False


def _show_versions(versioning: Versioning, objects: Sequence[object], versions: Mapping[Key, int]) -> None:
    for obj in objects if versions else ():
        version = versions.get(versioning.key_of(obj))
        if version is not None:
            set_committed_value(obj, versioning.options.names.version, version)


_CAPTURE = "chrononaut"
_capturing: WeakKeyDictionary[Connection, _Capture] = WeakKeyDictionary()


def capture_sessions(factory: sessionmaker[Any]) -> None:
    """Let the sessions that a factory makes capture; sessions of other factories are left alone."""
    event.listen(factory, "after_begin", _begin)
    event.listen(factory, "before_flush", _require_change_info)
    event.listen(factory, "after_flush", _after_flush)
    event.listen(factory, "after_soft_rollback", _forget_flush)
    event.listen(factory, "after_transaction_end", _end_transaction)


def capture_models(mixin: type) -> None:
    """Version each model that is defined with a mixin."""
    event.listen(mixin, "after_mapper_constructed", _version_model, propagate=True)
    event.listen(mixin, "before_insert", _before_insert, propagate=True)
    event.listen(mixin, "before_update", _before_update, propagate=True)
    event.listen(mixin, "before_delete", _before_delete, propagate=True)


def _version_model(mapper: Mapper[Any], model: type) -> None:
    build_history(mapper)


@event.listens_for(Mapper, "mapper_configured")
def _refuse_uncaptured_cascades(mapper: Mapper[Any], model: type) -> None:
    for relationship in mapper.relationships:
        target = relationship.mapper.local_table
        child = versioning_of_table(target)
        if child is None or child.table is not target:
            continue
        if relationship.passive_deletes:
            cascade = f"passive_deletes={relationship.passive_deletes!r}"
        elif relationship.post_update:
            cascade = "post_update=True"
        else:
            continue
        raise UnsupportedMappingError(
            child.name,
            f"{model.__name__}.{relationship.key} has {cascade}, by which it would change without history; remove it",
        )


# Transactions


def _begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    capture = session.info.setdefault(_CAPTURE, _Capture())
    capture.connections.add(connection)
    _capturing[connection] = capture
    if not event.contains(connection.engine, "before_cursor_execute", _watch):
        event.listen(connection.engine, "before_cursor_execute", _watch)


def _end_transaction(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is not None:
        return
    capture: _Capture | None = session.info.pop(_CAPTURE, None)
    # A connection that outlives the transaction is the caller's own: what it executes by itself is not the session's.
    for connection in capture.connections if capture is not None else ():
        _capturing.pop(connection, None)


def _forget_flush(session: Session, previous: SessionTransaction) -> None:
    capture: _Capture | None = session.info.get(_CAPTURE)
    if capture is not None:
        capture.end_flush()
    for obj in session.identity_map.values():
        take_appended(sa.inspect(obj).info)


# Flushes


def _capture_of(obj: object) -> _Capture | None:
    """What the session of an object has yet to write; ``None`` where its session does not capture."""
    session = object_session(obj)
    return None if session is None else session.info.get(_CAPTURE)


def _require_change_info(session: Session, context: UOWTransaction, objects: object) -> None:
    """Refuse before the first statement of the flush what the mapper events would refuse later."""
    if not extra_is_required() or current_extra() or _suppressed.get() != "none":
        return
    for obj in (*session.dirty, *session.deleted):
        versioning = versioning_of_table(sa.inspect(obj).mapper.local_table)
        if versioning is None or versioning.history is type(obj) or has_appended(sa.inspect(obj).info):
            continue
        if obj in session.deleted:
            raise MissingChangeInfoError(versioning.name, "delete")
        if _changes(versioning, obj).known:
            raise MissingChangeInfoError(versioning.name, "update")


def _before_insert(mapper: Mapper[Any], connection: Connection, obj: Any) -> None:
    versioning, capture = versioning_of(mapper.class_), _capture_of(obj)
    if capture is None:
        return
    capture.flushing = True
    version = versioning.options.names.version
    setattr(obj, version, 0)
    if _suppressed.get() != "none":
        capture.unrecorded[versioning].append(obj)
        return
    state = sa.inspect(obj)
    given = [name for name in versioning.hidden if state.dict.get(name) is not None]
    replaced = _replaced_by(mapper, state)
    if replaced is None:
        capture.inserted[versioning].append((obj, capture.change_info(versioning, state, given)))
        return
    known = _known_version(versioning, replaced)
    if known is None:
        known = _compare(connection, versioning, replaced, ()).version
    setattr(obj, version, known + 1)
    capture.end(versioning, "update", replaced, known, capture.change_info(versioning, state, given))


def _replaced_by(mapper: Mapper[Any], state: InstanceState[Any]) -> InstanceState[Any] | None:
    """The object whose row a new one takes over: a flush turns the delete and the insert of one key into an update."""
    if state.session is None or any(part is None for part in mapper.primary_key_from_instance(state.obj())):
        return None
    existing = state.session.identity_map.get(mapper.identity_key_from_instance(state.obj()))
    return None if existing is None else sa.inspect(existing)


def _before_update(mapper: Mapper[Any], connection: Connection, obj: Any) -> None:
    versioning, capture = versioning_of(mapper.class_), _capture_of(obj)
    if capture is None:
        return
    capture.flushing = True
    state = sa.inspect(obj)
    version = versioning.options.names.version
    known = _known_version(versioning, state)
    changed, unknown, stamped = _changes(versioning, obj)
    if unknown or (known is None and (changed or stamped)):
        found = _compare(connection, versioning, state, unknown)
        known = found.version if known is None else known
        changed = changed | found.changed
        _leave_alone(obj, [name for name in unknown if name not in found.changed])
    if moved := [name for name in versioning.key if name in changed]:
        raise UncapturedWriteError(
            versioning.table.name, f"changing the primary key ({', '.join(moved)})", "delete the record and add it anew"
        )
    if not (changed or stamped) or _suppressed.get() != "none":
        if known is not None and version in state.committed_state:
            set_committed_value(obj, version, known)
        return
    assert known is not None
    setattr(obj, version, known + 1)
    hidden = [name for name in versioning.hidden if name in changed]
    capture.end(versioning, "update", state, known, capture.change_info(versioning, state, hidden))


def _before_delete(mapper: Mapper[Any], connection: Connection, obj: Any) -> None:
    versioning, capture = versioning_of(mapper.class_), _capture_of(obj)
    if capture is None:
        return
    capture.flushing = True
    if _suppressed.get() != "none":
        return
    state = sa.inspect(obj)
    document = capture.change_info(versioning, state, [])
    capture.end(versioning, "delete", state, _known_version(versioning, state), document)


def _after_flush(session: Session, context: UOWTransaction) -> None:
    capture: _Capture | None = session.info.get(_CAPTURE)
    if capture is not None:
        capture.archive_beginnings(session)
        capture.end_flush()


# What an object's flush changes


class _Changes(NamedTuple):
    """The attributes that a flush sets: to another value, to one that cannot be compared in memory, by ``onupdate``."""

    known: frozenset[str]
    unknown: tuple[str, ...]
    stamped: bool


class _Comparison(NamedTuple):
    version: int
    changed: frozenset[str]


def _changes(versioning: Versioning, obj: object) -> _Changes:
    state = sa.inspect(obj, raiseerr=True)
    known, unknown, stamped = set(), [], False
    for name in state.committed_state:
        if name not in versioning.columns:
            continue
        added, _, deleted = get_history(obj, name, PASSIVE_NO_INITIALIZE)
        if not added and not deleted:
            continue
        if name in versioning.untracked:
            stamped = versioning.stamped
        elif deleted and not (added and _is_expression(added[0])):
            known.add(name)
        else:
            unknown.append(name)
    return _Changes(frozenset(known), tuple(unknown), stamped)


def _is_expression(value: object) -> bool:
    return isinstance(value, sa.ClauseElement) or hasattr(value, "__clause_element__")


def _known_version(versioning: Versioning, state: InstanceState[Any]) -> int | None:
    """The version of the row that the session has loaded; ``None`` where it is expired or deferred."""
    name = versioning.options.names.version
    version = state.committed_state.get(name, state.dict.get(name))
    return version if isinstance(version, int) else None


def _compare(
    connection: Connection, versioning: Versioning, state: InstanceState[Any], names: Sequence[str]
) -> _Comparison:
    """Lock a row and let the database say which attributes its flush would really change.

    For objects whose row is not loaded, so that the old values need not be either.
    """
    columns = [
        is_distinct(versioning.columns[name], state.dict.get(name), connection.dialect).label(name) for name in names
    ]
    identity = tuple(state.identity or ())
    row = connection.execute(
        sa.select(versioning.version, *columns)
        .where(*(column == part for column, part in zip(versioning.key_columns, identity, strict=True)))
        .with_for_update(key_share=True)
    ).one_or_none()
    if row is None:
        raise ConcurrentChangeError(versioning.name, [identity])
    version, *distinct = row
    return _Comparison(version, frozenset(name for name, differs in zip(names, distinct, strict=True) if differs))


def _leave_alone(obj: object, names: Sequence[str]) -> None:
    """Take attributes out of the flush that were set to the value which the row has."""
    for name in names:
        value = sa.inspect(obj, raiseerr=True).dict.get(name)
        if _is_expression(value):
            session = object_session(obj)
            assert session is not None
            session.expire(obj, [name])
        else:
            set_committed_value(obj, name, value)


# Statements


def _watch(
    connection: Connection, cursor: object, statement: str, parameters: object, context: Any, executemany: bool
) -> None:
    capture = _capturing.get(connection)
    compiled = getattr(context, "compiled", None)
    if capture is None or not isinstance(compiled, SQLCompiler) or ARCHIVING in context.execution_options:
        return
    by_flush = capture.flushing and _COMPILED_CACHE in context.execution_options
    for write in _writes(compiled):
        table = _target(write)
        versioning = versioning_of_table(table)
        if versioning is None:
            continue
        if table is versioning.history_table:
            if not (write.is_delete and _suppressed.get() == "immutability"):
                raise HistoryImmutableError(table.name)
        elif _suppressed.get() == "none":
            if not by_flush or _is_uncounted(versioning, write, context.compiled_parameters):
                raise UncapturedWriteError(versioning.table.name, f"this {write.__visit_name__.upper()}")
            capture.archive_endings(connection)


_COMPILED_CACHE = "compiled_cache"  # the ORM executes the statements of a flush with it, and nobody else does


def _writes(compiled: SQLCompiler) -> Iterator[UpdateBase]:
    """The INSERT, UPDATE and DELETE of a statement: the statement itself, and those in its WITH clause."""
    statements = (compiled.statement, *(cte.element for cte in compiled.ctes or ()))
    for statement in statements:
        written = getattr(statement, "element", statement)
        if isinstance(written, UpdateBase):
            yield written


def _target(write: UpdateBase) -> sa.FromClause:
    target: Any = write.table
    while not isinstance(target, sa.TableClause):
        target = target.element
    return target


def _is_uncounted(versioning: Versioning, write: UpdateBase, parameters: Sequence[Mapping[str, Any]]) -> bool:
    """Does an UPDATE of a flush set what is versioned, and not the version?

    Such is the work of a listener that changed an object after ours had seen it, and of ``post_update``.
    """
    if not isinstance(write, sa.Update):
        return False
    expressions = getattr(write, "_values", None) or {}
    written = {*(parameters[0] if parameters else ()), *(column.key for column in expressions)}
    versioned = {column.key for column in (*versioning.tracked.values(), *versioning.hidden.values())}
    return bool(written & versioned) and versioning.version.key not in written

"""What one session has yet to write into history, and which sessions capture on a connection."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary, WeakSet, ref

import sqlalchemy as sa
import uuid_utils.compat
from sqlalchemy.engine import Connection
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.orm import InstanceState, Session, SessionTransaction
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.sql.dml import UpdateBase

from chrononaut.archive import (
    BATCH,
    Transaction,
    add_extra,
    archive_inserts,
    archive_states,
    archived_versions,
    continue_numbering,
    fix_instant,
    hidden_values,
)
from chrononaut.change_info import (
    CapturesChangeInfo,
    appended_to,
    take_appended,
    with_extra,
)
from chrononaut.dirty import dirty_hidden, forget
from chrononaut.exceptions import UncapturedWriteError
from chrononaut.history import Key, Versioning, full_name, versioning_of_table
from chrononaut.reasons import needs_reason, refuse_unreasoned
from chrononaut.records import Records
from chrononaut.statements import models_of, written_columns
from chrononaut.suppression import is_suppressed
from chrononaut.types import JSONObject, now
from chrononaut.written import Versions, Written

Replacement = Literal["update", "delete"]
_CAPTURE = "chrononaut"
_COMPILED_CACHE = "compiled_cache"  # the ORM executes the statements of a flush with it, and nobody else does


@dataclass(slots=True)
class Pending:
    """Rows of a model that a flush is about to replace, in lists beside each other.

    :ivar versions: those of the rows, where they are known
    :ivar states: of the objects that replace them, or are deleted
    :ivar documents: their change info, where it is known already
    """

    keys: list[Key] = field(default_factory=list)
    versions: list[int | None] = field(default_factory=list)
    states: list[InstanceState[Any]] = field(default_factory=list)
    documents: list[JSONObject | None] = field(default_factory=list)


@dataclass(slots=True)
class Begun:
    """Objects of a model that begin a record by a flush, and the change info of each beside it."""

    objects: list[object] = field(default_factory=list)
    documents: list[JSONObject] = field(default_factory=list)

    def add(self, obj: object, document: JSONObject) -> None:
        self.objects.append(obj)
        self.documents.append(document)


class Captured(NamedTuple):
    """A statement that was captured and is being executed.

    :ivar marked: the session's objects that are marked with a reason for their next version, by key
    :ivar archived: the states of these, by key and version, that the transaction had replaced before
    """

    versioning: Versioning
    marked: Mapping[Key, InstanceState[Any]]
    archived: Set[tuple[Key, int]]


@dataclass(slots=True)
class Capture:
    """What one session has yet to write into history.

    :ivar metadatas: those that the tables of the session's models belong to
    :ivar sender: of the signals that tell of what was written
    :ivar transaction: what all changes of the database transaction share; from the first capture on
    :ivar connections: those that the session has begun to use in its transaction
    :ivar transactional: those of them that were seen not to be in AUTOCOMMIT
    :ivar pending: rows that the flush replaces, until its first statement archives them
    :ivar inserted: objects that the flush inserts
    :ivar moved: objects whose key the flush changes
    :ivar unrecorded: objects that get a key without history, inside `suppress_versioning`
    :ivar announced: how many rows of a table the flush is still to write, by kind of statement
    :ivar counted: the execution that was counted last
    :ivar shared: what the documents of one flush share, by model
    :ivar documents: the documents of one flush that are no object's own, by what they are for and what they name
    :ivar told: the objects whose marks are told by what the flush writes into history
    :ivar flushing: is a flush under way that writes versioned objects?
    :ivar captured: statements that were captured and are being executed
    :ivar followed: models whose objects were given the versions that statements counted
    :ivar kept: (object, attribute, version), while a statement is synchronized with the session
    :ivar failed: what a statement that failed halfway wrote, and the transaction or savepoint it was in
    :ivar written: what was written into history, by the connection
    :ivar committed: has the database committed the transaction?
    """

    session: ref[Session]
    metadatas: Callable[[], Iterable[sa.MetaData]]
    sender: object
    transaction: Transaction | None = None
    connections: WeakSet[Connection] = field(default_factory=WeakSet)
    transactional: WeakSet[Connection] = field(default_factory=WeakSet)
    pending: dict[tuple[Versioning, Replacement], Pending] = field(default_factory=lambda: defaultdict(Pending))
    inserted: dict[Versioning, Begun] = field(default_factory=lambda: defaultdict(Begun))
    moved: dict[Versioning, Begun] = field(default_factory=lambda: defaultdict(Begun))
    unrecorded: dict[Versioning, list[object]] = field(default_factory=lambda: defaultdict(list))
    announced: Counter[tuple[sa.Table, str]] = field(default_factory=Counter)
    counted: Any = None
    shared: dict[type, JSONObject] = field(default_factory=dict)
    documents: dict[tuple[Versioning, str, tuple[str, ...]], JSONObject] = field(default_factory=dict)
    told: list[InstanceState[Any]] = field(default_factory=list)
    flushing: bool = False
    captured: dict[Any, Captured] = field(default_factory=dict)
    followed: set[Versioning] = field(default_factory=set)
    kept: list[tuple[Any, str, int]] | None = None
    failed: tuple[Versioning, SessionTransaction | None] | None = None
    written: WeakKeyDictionary[Connection, Written] = field(default_factory=WeakKeyDictionary)
    committed: bool = False

    def refuse_autocommit(self, connection: Connection, versioning: Versioning) -> None:
        """:raises UncapturedWriteError: each statement would be committed by itself, a change without its history"""
        if connection in self.transactional:
            return
        driver = connection.connection.dbapi_connection
        option = connection.get_execution_options().get("isolation_level")
        if option == "AUTOCOMMIT" or getattr(driver, "autocommit", None) is True:
            raise UncapturedWriteError(
                versioning.table.name, "a change in AUTOCOMMIT", "take an isolation level that has transactions"
            )
        self.transactional.add(connection)

    def current_transaction(self) -> Transaction:
        if self.transaction is None:
            self.transaction = Transaction(uuid_utils.compat.uuid7())
        return self.transaction

    def change_info(
        self, versioning: Versioning, operation: str, state: InstanceState[Any], hidden: list[str]
    ) -> JSONObject:
        """The document for one change. What the changes of one flush share is made once, and is one object.

        :raises MissingChangeInfoError: it does not say what it must
        """
        appended = appended_to(state)
        if appended:
            self.told.append(state)
        kind = versioning, operation, tuple(hidden)
        if appended or kind not in self.documents:
            model: type[CapturesChangeInfo] = versioning.model
            if model not in self.shared:
                self.shared[model] = model._capture_change_info()
            document = naming(with_extra(self.shared[model], appended), hidden)
            refuse_unreasoned(versioning, operation, document)
            if appended:
                return document
            self.documents[kind] = document
        return self.documents[kind]

    def archive_pending(self, connection: Connection) -> None:
        """Write the rows that are about to be replaced into history."""
        pending = {**self.pending}
        self.pending.clear()
        replaced = {
            (versioning, operation): Records(rows.keys, [*self._documents(versioning, operation, rows)], rows.versions)
            for (versioning, operation), rows in pending.items()
        }
        for (versioning, operation), records in replaced.items():
            archive_states(connection, versioning, operation, records, self.current_transaction())
            self.written_on(connection).versions[versioning, operation] += len(records.keys)

    def _documents(self, versioning: Versioning, operation: Replacement, rows: Pending) -> Iterator[JSONObject]:
        for state, document in zip(rows.states, rows.documents, strict=True):
            if document is None:
                hidden = dirty_hidden(versioning, state) if operation == "update" else []
                yield self.change_info(versioning, operation, state, hidden)
            else:
                yield document

    def archive_inserted(self, session: Session) -> None:
        """Write the ``insert`` rows of what was inserted, or got another key."""
        for versioning in {**self.inserted, **self.moved}:
            connection = session.connection(bind_arguments={"mapper": versioning.mapper})
            self._record(connection, versioning, self.inserted[versioning])
            moved = self.moved[versioning]
            keys = [versioning.key_of(obj) for obj in moved.objects]
            hidden = hidden_values(connection, versioning, keys)
            named = zip(keys, moved.documents, strict=True)
            documents = [naming(document, hidden.get(key, [])) for key, document in named]
            self._record(connection, versioning, Begun(moved.objects, documents))
        for state in self.told:
            take_appended(state)
        for versioning, objects in self.unrecorded.items():
            connection = session.connection(bind_arguments={"mapper": versioning.mapper})
            reused = continue_numbering(connection, versioning, [versioning.key_of(obj) for obj in objects])
            _show_versions(versioning, objects, reused)

    def _record(self, connection: Connection, versioning: Versioning, begun: Begun) -> None:
        for start in range(0, len(begun.objects), BATCH):
            objects = begun.objects[start : start + BATCH]
            keys = [versioning.key_of(obj) for obj in objects]
            records = Records(keys, begun.documents[start : start + BATCH], [None] * len(keys))
            _show_versions(versioning, objects, self._archive_inserts(connection, versioning, records))

    def _archive_inserts(self, connection: Connection, versioning: Versioning, records: Records) -> dict[Key, int]:
        reused = archive_inserts(connection, versioning, records, self.current_transaction())
        self.written_on(connection).versions[versioning, "insert"] += len(records.keys)
        return reused

    def executed_by_flush(self, connection: Connection, execution_options: Mapping[str, Any]) -> bool:
        """Is a statement with these options one by which a flush writes objects?"""
        cache = execution_options.get(_COMPILED_CACHE)
        # The connection may have one too, or none, which is that of all its statements.
        return self.flushing and cache is not connection.get_execution_options().get(_COMPILED_CACHE)

    def is_flushed(self, versioning: Versioning) -> bool:
        """Does the current flush write objects of a model?"""
        return any(written is one.live for written, _ in self.announced for one in versioning.tables)

    def is_announced(self, versioning: Versioning, write: UpdateBase, context: Any) -> bool:
        """Did mapper events announce what a statement of a flush writes?

        They did not where a listener writes by itself in the middle of the flush, or changes an object that ours had
        seen unchanged before.
        """
        live = versioning.tables[-1].live
        if isinstance(write, sa.Update):
            written = written_columns(write, context.compiled_parameters)
            if live is not versioning.table or versioning.version.key not in written:
                whole = versioning.whole()
                versioned = (*whole.tracked.values(), *whole.hidden.values())
                if not any(column.key in written for column in versioned if column.table is live):
                    return True
                if live is versioning.table:
                    return False
        announced = live, write.__visit_name__
        if context is not self.counted:
            # One INSERT may be sent in several parts; it is counted with the first.
            self.counted = context
            self.announced[announced] -= len(context.compiled_parameters)
        return self.announced[announced] >= 0

    def shared_change_info(self, versioning: Versioning) -> JSONObject:
        """The document for all that one statement changes."""
        session = self.session()
        # The user may be loaded by this session, which must not flush before a statement that does not.
        with nullcontext() if session is None else session.no_autoflush:
            document: JSONObject = versioning.model._capture_change_info()
        return document

    def refuse_unreasoned_insert(self, versioning: Versioning, statement: sa.Insert) -> None:
        """Refuse a statement that inserts records without the reason which their model requires.

        :raises RequiredChangeInfoError: it has none
        """
        if is_suppressed():
            return
        requiring = [model for model in models_of(statement, versioning) if needs_reason(model, "insert")]
        document = self.shared_change_info(versioning) if requiring else {}
        for model in requiring:
            refuse_unreasoned(model, "insert", document)

    def follow_inserts(self, connection: Connection, versioning: Versioning, keys: Sequence[Key]) -> Mapping[Key, int]:
        """Write the ``insert`` rows of what a statement has inserted, unless that is suppressed.

        :return: the live version of each record whose key was used before
        """
        self._forget_appended(versioning, keys)
        if is_suppressed():
            reused = continue_numbering(connection, versioning, keys)
        else:
            shared = versioning.model._capture_change_info()
            hidden = hidden_values(connection, versioning.whole(), keys)
            records = Records(keys, [naming(shared, hidden.get(key, [])) for key in keys], [None] * len(keys))
            reused = self._archive_inserts(connection, versioning, records)
        for obj, key in self.loaded(versioning) if reused else ():
            if key in reused:
                set_committed_value(obj, versioning.options.names.version, reused[key])
        return reused

    def _forget_appended(self, versioning: Versioning, keys: Sequence[Key]) -> None:
        """Take the marks from objects whose rows were gone: what a statement inserts under their keys is another's."""
        session = self.session()
        if session is None:
            return
        for key in keys:
            obj = session.identity_map.get(versioning.mapper.identity_key_from_primary_key(key))
            if obj is not None:
                take_appended(sa.inspect(obj))

    def about_to_execute(self, connection: Connection, versioning: Versioning) -> Captured:
        """Note of what objects a statement may write the next version that they are marked for."""
        session = self.session()
        states = [sa.inspect(obj) for obj in session.identity_map.values()] if session is not None else []
        marked = {
            tuple(state.identity): state
            for state in states
            if state.identity is not None and issubclass(state.class_, versioning.model) and appended_to(state)
        }
        return Captured(
            versioning, marked, archived_versions(connection, versioning, [*marked], self.current_transaction())
        )

    def tell_reasons(self, connection: Connection, executed: Captured) -> None:
        """Add what objects are marked with to the versions of them that a statement has written."""
        versioning, marked, archived = executed
        written = archived_versions(connection, versioning, [*marked], self.current_transaction()) - archived
        # A statement that is executed for several sets of parameters may write several versions of one record.
        next_versions = dict(sorted(written, key=lambda state: state[1], reverse=True))
        add_extra(connection, versioning, {state: take_appended(marked[state[0]]) for state in next_versions.items()})

    def loaded(self, versioning: Versioning) -> Iterator[tuple[Any, Key]]:
        """The objects of a model that the session has loaded with their versions, and their keys."""
        session, name = self.session(), versioning.options.names.version
        for obj in session.identity_map.values() if session is not None else ():
            state = sa.inspect(obj)
            if isinstance(obj, versioning.model) and name in state.dict and state.identity is not None:
                yield obj, tuple(state.identity)

    def follow(self, connection: Connection, versioning: Versioning) -> None:
        """Let the session's objects have the versions that a statement of its own has counted.

        An object whose row another transaction has changed meanwhile keeps the version that it was loaded with, so
        that its change is refused later.
        """
        objects = {key: obj for obj, key in self.loaded(versioning)}
        counted = archived_versions(connection, versioning, [*objects], self.current_transaction())
        name = versioning.options.names.version
        for key, obj in objects.items():
            known = version = sa.inspect(obj).dict[name]
            while (key, version) in counted:
                version += 1
            if version != known:
                set_committed_value(obj, name, version)
                self.followed.add(versioning)
            if self.kept is not None:
                self.kept.append((obj, name, version))

    @contextmanager
    def keeping_versions(self) -> Iterator[None]:
        """Keep the versions that objects have by `follow`, though the ORM expires them to synchronize the session."""
        self.kept = []
        try:
            yield
            for obj, name, version in self.kept:
                if name not in sa.inspect(obj).dict:
                    set_committed_value(obj, name, version)
        finally:
            self.kept = None

    def forget_followed(self) -> None:
        """Let the session load the versions anew that `follow` gave to its objects."""
        for versioning in self.followed:
            for obj, _ in self.loaded(versioning):
                forget(obj, versioning.options.names.version)
        self.followed.clear()

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

    def replace(
        self,
        versioning: Versioning,
        operation: Replacement,
        version: int | None,
        replaced: InstanceState[Any],
        by: InstanceState[Any],
        document: JSONObject | None = None,
    ) -> None:
        """Note that a row is about to be replaced."""
        rows = self.pending[versioning, operation]
        rows.keys.append(tuple(replaced.identity or ()))
        rows.versions.append(version)
        rows.states.append(by)
        rows.documents.append(document)

    def versioning_of(self, table: sa.FromClause, connection: Connection) -> Versioning | None:
        """The versioning that a written table belongs to, whichever object describes the table."""
        versioning = versioning_of_table(table)
        session = self.session()
        if versioning is not None or session is None:
            return versioning
        for metadata in self.metadatas():
            known = metadata.tables.get(full_name(table))
            versioning = None if known is None else versioning_of_table(known)
            if versioning is not None and own_engine(session.get_bind(versioning.mapper)) is own_engine(connection):
                return versioning
        return None

    def written_on(self, connection: Connection) -> Written:
        return self.written.setdefault(connection, Written())

    def versions(self) -> Versions:
        """How many versions were written in the transaction, by model and operation; once they are counted."""
        return sum((written.versions for written in self.written.values()), Versions())

    def end_flush(self) -> None:
        self.pending.clear()
        self.inserted.clear()
        self.moved.clear()
        self.unrecorded.clear()
        self.announced.clear()
        self.counted = None
        self.shared.clear()
        self.documents.clear()
        self.told.clear()
        self.flushing = False


# Usually one; sessions that are bound to the same connection share it.
_capturing: WeakKeyDictionary[Connection, list[Capture]] = WeakKeyDictionary()


def begin_capture(
    session: Session, connection: Connection, metadatas: Callable[[], Iterable[sa.MetaData]], sender: object
) -> None:
    """Let a session capture on a connection, until its transaction ends."""
    capture = session.info.setdefault(_CAPTURE, Capture(ref(session), metadatas, sender))
    if connection not in capture.connections:
        capture.connections.add(connection)
        _capturing.setdefault(connection, []).append(capture)


def end_capture(session: Session) -> Capture | None:
    """Forget what a session captured in its transaction, and return it."""
    capture: Capture | None = session.info.pop(_CAPTURE, None)
    # A connection that outlives the transaction is the caller's own: what it executes by itself is not the session's.
    for connection in capture.connections if capture is not None else ():
        others = [other for other in _capturing.pop(connection, ()) if other is not capture]
        if others:
            _capturing[connection] = others
    return capture


def capture_by(session: Session) -> Capture | None:
    """What a session has yet to write; ``None`` where it does not capture."""
    return session.info.get(_CAPTURE)


def capture_of(state: InstanceState[Any]) -> Capture | None:
    """What the session of an object has yet to write; ``None`` where its session does not capture."""
    session = state.session
    return None if session is None else capture_by(session)


def capturing(connection: Connection) -> Capture | None:
    """What the session that executes statements on a connection has yet to write."""
    captures = _capturing.get(connection)
    return next((capture for capture in captures if capture.flushing), captures[0]) if captures else None


def written_on(connection: Connection) -> Iterator[tuple[Capture, Written]]:
    """What each session that uses a connection has written on it."""
    for capture in _capturing.get(connection, ()):
        yield capture, capture.written_on(connection)


def own_engine(bind: sa.Engine | Connection) -> sa.Engine:
    """The engine that a bind is of; of one with execution options, which shares its listeners, the one without."""
    engine = bind.engine
    while isinstance(engine, OptionEngine):
        engine = engine._proxied
    return engine


def instant_of(connection: Connection) -> datetime:
    """The instant of the transaction that a session has on a connection; by this process's clock if there is none."""
    capture = capturing(connection)
    return now() if capture is None else fix_instant(connection, capture.current_transaction())


def naming(document: JSONObject, hidden: list[str]) -> JSONObject:
    """A change info document that names the hidden attributes which the change concerns."""
    return document | {"hidden_cols_changed": hidden} if hidden else document


def _show_versions(versioning: Versioning, objects: Sequence[object], versions: Mapping[Key, int]) -> None:
    for obj in objects if versions else ():
        version = versions.get(versioning.key_of(obj))
        if version is not None:
            set_committed_value(obj, versioning.options.names.version, version)

"""Listeners that see every statement of a session: they capture bulk statements, and refuse what leaves no history."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.orm import ORMExecuteState, Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase

from chrononaut import bulk, inserts
from chrononaut.archive import ARCHIVING, is_postgresql
from chrononaut.exceptions import (
    ConcurrentChangeError,
    HistoryImmutableError,
    MissingChangeInfoError,
    UncapturedWriteError,
)
from chrononaut.history import Versioning, full_name
from chrononaut.locking import is_conflict
from chrononaut.records import OWN
from chrononaut.session import Capture, Captured, capture_by, capturing
from chrononaut.statements import Parameters, target, writes
from chrononaut.suppression import is_suppressed, may_delete_history

_KEYS_RETURNED = "chrononaut_keys_returned"
_Statement = tuple[Any, Any, Any]


def capture_statement(
    connection: Connection, element: Any, multiparams: Any, params: Any, execution_options: Mapping[str, Any]
) -> _Statement:
    """Let a statement that writes a versioned table leave history."""
    unchanged = element, multiparams, params
    capture = capturing(connection)
    if (
        capture is None
        or not isinstance(element, UpdateBase)
        or ARCHIVING in execution_options
        or (is_suppressed() and not isinstance(element, sa.Insert))
        or capture.executed_by_flush(connection, execution_options)
    ):
        return unchanged
    table = target(element)
    versioning = capture.versioning_of(table, connection)
    if versioning is None or versioning.is_history(table):
        return unchanged
    if capture.is_flushed(versioning) or (is_suppressed() and not inserts.is_numbered(element, versioning)):
        # The rows of a flush are being archived by the versions that it knows.
        return unchanged
    if not is_suppressed():
        capture.refuse_autocommit(connection, versioning)
    parameters = multiparams or ([params] if params else [])
    if isinstance(element, sa.Insert):
        executed = Captured(versioning, {}, set())
        statement = _captured_insert(connection, capture, versioning, element, parameters, execution_options)
    else:
        executed = capture.about_to_execute(connection, versioning)
        statement, parameters = _captured_write(connection, capture, versioning, element, parameters, execution_options)
    capture.captured[statement] = executed
    return statement, list(parameters), {}


def _captured_write(
    connection: Connection,
    capture: Capture,
    versioning: Versioning,
    statement: Any,
    parameters: Parameters,
    execution_options: Mapping[str, Any],
) -> tuple[Any, Parameters]:
    document = capture.shared_change_info(versioning)
    if not is_postgresql(connection):
        # Its history is written by a statement of ours.
        _refuse_translated(connection, statement, versioning, execution_options)
    try:
        return bulk.captured(statement, parameters, versioning, connection, capture.current_transaction(), document)
    except (MissingChangeInfoError, UncapturedWriteError):
        raise  # before anything was written
    except BaseException:
        capture.fail(versioning)
        raise


def _captured_insert(
    connection: Connection,
    capture: Capture,
    versioning: Versioning,
    statement: sa.Insert,
    parameters: Parameters,
    execution_options: Mapping[str, Any],
) -> sa.Insert:
    if _KEYS_RETURNED in execution_options:
        return statement
    if statement._returning:
        raise UncapturedWriteError(versioning.table.name, "this INSERT", "execute it by the session")
    _refuse_translated(connection, statement, versioning, execution_options)
    capture.refuse_unreasoned_insert(versioning, statement)
    return inserts.returning_keys(inserts.numbered(statement, parameters, versioning), parameters, versioning)


def _refuse_translated(
    connection: Connection, statement: Any, versioning: Versioning, execution_options: Mapping[str, Any]
) -> None:
    translated, given = "schema_translate_map", connection.get_execution_options()
    if execution_options.get(translated) != given.get(translated):
        raise UncapturedWriteError(
            versioning.table.name,
            f"this {statement.__visit_name__.upper()} with a {translated} of its own",
            "give it to the engine or to the session's connection",
        )


def follow_statement(
    connection: Connection,
    element: Any,
    multiparams: Any,
    params: Any,
    execution_options: Mapping[str, Any],
    result: sa.CursorResult[Any],
) -> None:
    """Write the history of what a statement has inserted, and let the session read the versions that it has counted."""
    capture = capturing(connection)
    executed = None if capture is None else capture.captured.pop(element, None)
    if capture is None or executed is None:
        return
    versioning = executed.versioning
    with capture.entire(versioning):
        if not isinstance(element, sa.Insert):
            capture.follow(connection, versioning)
            capture.tell_reasons(connection, executed)
            capture.written_on(connection).uncounted.add(versioning)
        elif _KEYS_RETURNED not in execution_options:
            capture.follow_inserts(connection, versioning, inserts.inserted_keys(result, versioning))


def execute(state: ORMExecuteState) -> Any:
    """Execute a statement of the session's: an UPDATE, or an INSERT with a RETURNING of its own."""
    statement: Any = state.statement
    if isinstance(statement, sa.Update):
        passed_on = is_suppressed()
    else:
        passed_on = not isinstance(statement, sa.Insert) or not statement._returning
    if passed_on or _KEYS_RETURNED in state.execution_options:
        return None
    # The session captures from its first connection on.
    connection = state.session.connection(bind_arguments=dict(state.bind_arguments))
    capture = capture_by(state.session)
    versioning = None if capture is None else capture.versioning_of(target(statement), connection)
    if capture is None or versioning is None:
        return None
    if state.is_update:
        with capture.keeping_versions():
            return state.invoke_statement()
    if is_suppressed() and not inserts.is_numbered(statement, versioning):
        return None
    _refuse_translated(connection, statement, versioning, state.execution_options)
    return _returning_keys(state, capture, connection, versioning)


def _returning_keys(
    state: ORMExecuteState, capture: Capture, connection: Connection, versioning: Versioning
) -> sa.Result[Any]:
    """Execute an INSERT so that it returns the keys of what it inserts as well, and give back what it was to return."""
    statement: Any = state.statement
    given: Any = state.parameters or {}
    parameters = [given] if isinstance(given, Mapping) else given
    keys = [column.label(f"{OWN}{column.key}") for column in versioning.key_columns]
    returning = inserts.numbered(statement, parameters, versioning).returning(*keys)
    capture.refuse_unreasoned_insert(versioning, statement)
    with capture.entire(versioning):
        result = state.invoke_statement(returning, execution_options={_KEYS_RETURNED: True}).freeze()
        rows: Any = result().all()
        columns = len(result().keys()) - len(keys)
        given_keys = [tuple(row[columns:]) for row in rows]
        reused = capture.follow_inserts(connection, versioning, given_keys)
    if reused:
        # They returned the version before it was counted on.
        places = [place for place, name in enumerate(result().keys()) if name == versioning.version.key]
        counted = [[*row] for row in rows]
        for row, key in zip(counted, given_keys, strict=True):
            for place in places:
                row[place] = reused.get(key, row[place])
        told: Any = [tuple(row) for row in counted]
        result = result.with_new_rows(told)
    return result().columns(*range(columns))


def fail_statement(context: ExceptionContext) -> None:
    """Let nothing be committed of a statement that failed, and name the conflict where a transaction was in the way.

    :raises ConcurrentChangeError: instead of the database's error
    """
    execution: Any = context.execution_context
    capture = None if context.connection is None else capturing(context.connection)
    if capture is None or (execution is not None and ARCHIVING in execution.execution_options):
        return
    # An error before the database was asked comes without the statement; it is the last one then.
    failed = next(reversed(capture.captured), None) if execution is None else execution.invoked_statement
    executed = capture.captured.pop(failed, None)
    versioning = None if executed is None else executed.versioning
    if versioning is not None:
        capture.fail(versioning)
    if not is_conflict(context.original_exception):
        return
    if versioning is None:
        versioning = _written(capture, context)
    if versioning is not None or capture.transaction is not None:
        name = "a record of this transaction" if versioning is None else versioning.name
        raise ConcurrentChangeError(name, []) from context.original_exception


def _written(capture: Capture, context: ExceptionContext) -> Versioning | None:
    """The versioning of what a statement writes, by a flush or in its WITH clause."""
    compiled = getattr(context.execution_context, "compiled", None)
    if context.connection is None or not isinstance(compiled, SQLCompiler):
        return None
    written = (capture.versioning_of(target(write), context.connection) for write, _ in writes(compiled))
    return next((versioning for versioning in written if versioning is not None), None)


def refuse_half_captured(session: Session) -> None:
    capture = capture_by(session)
    if capture is not None and capture.failed is not None:
        raise UncapturedWriteError(
            capture.failed[0].table.name, "a statement that failed halfway", "roll the session back", or_suppress=False
        )


def watch(
    connection: Connection, cursor: object, statement: str, parameters: object, context: Any, executemany: bool
) -> None:
    capture = capturing(connection)
    compiled = getattr(context, "compiled", None)
    if capture is None or not isinstance(compiled, SQLCompiler) or ARCHIVING in context.execution_options:
        return
    by_flush = capture.executed_by_flush(connection, context.execution_options)
    statement = context.invoked_statement
    for write, name in writes(compiled):
        if statement in capture.captured and (name is None or name.startswith(OWN)):
            continue
        table = target(write)
        versioning = capture.versioning_of(table, connection)
        if versioning is None:
            continue
        if versioning.is_history(table):
            if not (write.is_delete and may_delete_history()):
                raise HistoryImmutableError(full_name(table))
        elif not is_suppressed():
            if not (by_flush and capture.is_announced(versioning, write, context)):
                raise UncapturedWriteError(
                    versioning.table.name,
                    f"this {write.__visit_name__.upper()}",
                    "its flush writes objects of the table too; flush a collection that goes through the table, and "
                    "what a listener changes, apart from them"
                    if capture.is_flushed(versioning)
                    else "change objects in the session instead, or give the statement itself to session.execute()",
                )
            capture.archive_pending(connection)

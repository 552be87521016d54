"""The changes of one model that were made elsewhere: how one follows another, and how they are written.

They are made in the order in which they are given, so that constraints hold as they held then. Neighbours of the same
kind go to the database together: one statement archives what they replace, from table to table, and one writes the live
rows. So no pre-image travels through Python, and it is the database that says whether an update changes anything.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.engine import Connection

from chrononaut.archive import OPTIONS
from chrononaut.archive_statements import insert_into, naming_hidden
from chrononaut.exceptions import ConcurrentChangeError, HistoryImportError
from chrononaut.history import NEVER, Key, Operation, Versioning
from chrononaut.locking import locking
from chrononaut.options import BOOKKEEPING
from chrononaut.records import OWN, key_binds, key_parameters
from chrononaut.types import Instant, JSONDocument, JSONObject, is_among, is_distinct, with_names

# Of an INSERT, SQLAlchemy keeps it only where it is told to.
_COUNTING = {**OPTIONS, "preserve_rowcount": True}
_KINDS = 256  # kinds of changes whose statements are kept
_INSTANT = bindparam(f"{OWN}instant", type_=Instant)
_DOCUMENT = bindparam(f"{OWN}document", type_=JSONDocument)
_TRANSACTION = bindparam(f"{OWN}transaction", type_=sa.Uuid())


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was checked as far as it goes by itself.

    :ivar position: of the change in the import, from 0
    """

    position: int
    operation: Operation
    key: Key
    at: datetime
    values: Mapping[str, Any]
    document: JSONObject
    transaction_id: UUID

    @property
    def kind(self) -> tuple[Operation, tuple[str, ...]]:
        """What changes must have in common to be written by the same statements."""
        return self.operation, tuple(sorted(self.values))


@dataclass(slots=True)
class _Record:
    """How far a record has come.

    :ivar last: when its last change was made; ``None`` without history
    """

    is_live: bool = False
    last: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Statements:
    """What writes changes of one kind.

    :ivar archive: the history rows; ``None`` where nothing is changed that history knows of
    :ivar write: the live rows; ``None`` where nothing is set
    """

    archive: sa.Insert | None
    write: sa.Insert | sa.Update | sa.Delete | None


class Writer:
    """Writes changes that belong to one model, on one connection.

    :ivar records: those of the current batch
    """

    def __init__(self, connection: Connection, versioning: Versioning) -> None:
        self.connection = connection
        self.versioning = versioning
        self.records: dict[Key, _Record] = {}
        # As many kinds as there are sets of attributes: too many to keep them all.
        self._statements = lru_cache(maxsize=_KINDS)(self._make_statements)

    def take(self, batch: Sequence[Change]) -> int:
        """Make changes, in their order.

        :return: how many have changed anything
        """
        if not batch:
            return 0
        keys = list(dict.fromkeys(change.key for change in batch))
        with self._telling(batch):
            self._load(keys)
        written = 0
        alike: dict[Key, Change] = {}
        kind = batch[0].kind
        for change in batch:
            if change.kind != kind or change.key in alike:
                written += self._write([*alike.values()])
                alike, kind = {}, change.kind
            self._follow(change)
            alike[change.key] = change
        return written + self._write([*alike.values()])

    def _load(self, keys: Sequence[Key]) -> None:
        """Lock the live rows of records, and read how far the records have come."""
        key_columns = self.versioning.key_columns
        is_wanted = is_among(key_columns, keys, self.connection.dialect.name)
        live = sa.select(*key_columns).where(is_wanted).order_by(*key_columns).with_for_update()
        self.records = {key: _Record() for key in keys}
        with locking(self.versioning, keys):
            for row in self.connection.execute(live, execution_options=OPTIONS):
                self.records[tuple(row)].is_live = True
        self._load_instants(keys)

    def _load_instants(self, keys: Sequence[Key]) -> None:
        history = self.versioning.history_table
        key_columns = [history.c[column.key] for column in self.versioning.key_columns]
        last = sa.func.max(self.versioning.column("changed"), type_=Instant)
        is_wanted = is_among(key_columns, keys, self.connection.dialect.name)
        statement = sa.select(last, *key_columns).where(is_wanted).group_by(*key_columns)
        for at, *key in self.connection.execute(statement, execution_options=OPTIONS):
            self.records[tuple(key)].last = at

    def _follow(self, change: Change) -> None:
        """:raises HistoryImportError: a change does not follow from what its record has come to"""
        record = self.records[change.key]
        problem = None
        if change.operation == "insert" and record.is_live:
            problem = "this insert finds the record there; it can only be the first change, or follow a delete"
        elif change.operation != "insert" and not record.is_live:
            problem = f"this {change.operation} finds no record; insert it first"
        elif record.last is not None and change.at < record.last:
            problem = (
                f"{change.at.isoformat()} is earlier than the record's change before it, of {record.last.isoformat()}; "
                "give the changes of a record oldest first"
            )
        if problem is not None:
            raise HistoryImportError(self.versioning.name, change.position, change.key, problem)
        record.is_live = change.operation != "delete"

    def _write(self, alike: Sequence[Change]) -> int:
        """Make changes of one kind, of different records.

        :return: how many have changed anything
        """
        statements = self._statements(*alike[0].kind)
        keys = [change.key for change in alike]
        rows = [_parameters(self.versioning, change) for change in alike]
        with self._telling(alike), locking(self.versioning, keys):
            if alike[0].operation == "insert":
                self._execute(statements.write, rows)
                archived = self._execute(statements.archive, rows)
            else:
                archived = self._execute(statements.archive, rows)
                found = self._execute(statements.write, rows)
                if statements.write is not None and found != len(rows):
                    # Where reading locks nothing.
                    raise ConcurrentChangeError(self.versioning.name, keys)
        if archived == len(alike):
            for change in alike:
                self.records[change.key].last = change.at
        elif archived:
            self._load_instants(keys)
        return archived

    def _execute(self, statement: sa.Executable | None, rows: Sequence[Mapping[str, Any]]) -> int:
        """:return: how many rows were written"""
        if statement is None:
            return 0
        return self.connection.execute(statement, rows, execution_options=_COUNTING).rowcount

    @contextmanager
    def _telling(self, changes: Sequence[Change]) -> Iterator[None]:
        """Statements for some changes. What the database says against them is told with their places.

        :raises HistoryImportError: it says something; not what, as that may hold the values of hidden attributes
        """
        try:
            yield
        except sa.exc.StatementError as error:
            first, last = changes[0], changes[-1]
            those = "it" if first is last else f"one of the changes {first.position} to {last.position}"
            raise HistoryImportError(
                self.versioning.name, first.position, first.key, f"the database refuses {those} ({_name_of(error)})"
            ) from error

    def _make_statements(self, operation: Operation, names: tuple[str, ...]) -> _Statements:
        if operation == "insert":
            return self._inserting(names)
        return self._updating(names) if operation == "update" else self._deleting()

    def _inserting(self, names: tuple[str, ...]) -> _Statements:
        versioning = self.versioning
        before = versioning.history_table.alias()
        last = (
            sa.select(sa.func.max(before.c[versioning.options.names.version]))
            .where(*(before.c[column.key] == bind for column, bind in key_binds(versioning)))
            .scalar_subquery()
        )
        values = {**_given(versioning, names), **_kept_on_rows(versioning)}
        identity = versioning.mapper.polymorphic_identity
        told_apart_by = versioning.mapper.polymorphic_on
        if identity is not None and isinstance(told_apart_by, sa.Column) and told_apart_by not in values:
            values[told_apart_by] = sa.literal(identity, told_apart_by.type)
        insert = sa.insert(versioning.table).values(
            {
                **dict(key_binds(versioning)),
                **values,
                versioning.version: sa.func.coalesce(last, NEVER - 1) + 2,
            }
        )
        return _Statements(self._archiving("insert", versioning.version - 1, self._naming_hidden(), {}), insert)

    def _updating(self, names: tuple[str, ...]) -> _Statements:
        versioning, dialect = self.versioning, self.connection.dialect
        given = _given(versioning, names)
        versioned = {
            name: is_distinct(versioning.columns[name], given[versioning.columns[name]], dialect)
            for name in names
            if name not in versioning.untracked
        }
        if not given:
            return _Statements(None, None)
        left_alone = {column: column for column in versioning.table.c if column.onupdate is not None}
        if not versioned:
            return _Statements(None, self._update(left_alone | given | _kept_on_rows(versioning)))
        changes = sa.or_(*versioned.values())
        hidden = {name: condition for name, condition in versioned.items() if name in versioning.hidden}
        document = with_names(_DOCUMENT, "hidden_cols_changed", hidden, dialect.name)
        archive = self._archiving("update", versioning.version, document, _archived_state(versioning), changes)
        kept = {column: sa.case((changes, value), else_=column) for column, value in _kept_on_rows(versioning).items()}
        counted = versioning.version + sa.case((changes, 1), else_=0)
        return _Statements(archive, self._update(left_alone | given | kept | {versioning.version: counted}))

    def _update(self, values: Mapping[Any, Any]) -> sa.Update:
        return sa.update(self.versioning.table).where(*_has_key(self.versioning)).values(dict(values))

    def _deleting(self) -> _Statements:
        versioning = self.versioning
        archive = self._archiving("delete", versioning.version, self._naming_hidden(), _archived_state(versioning))
        return _Statements(archive, sa.delete(versioning.table).where(*_has_key(versioning)))

    def _naming_hidden(self) -> sa.ColumnElement[Any]:
        """The change info of an insert or a delete, which names the hidden attributes that have a value."""
        hidden = self.versioning.hidden
        row = {column: column for column in hidden.values()}
        return naming_hidden(_DOCUMENT, hidden, row, self.connection.dialect.name)

    def _archiving(
        self,
        operation: Operation,
        version: sa.ColumnElement[int],
        document: sa.ColumnElement[Any],
        state: Mapping[sa.Column[Any], sa.Column[Any]],
        changes: sa.ColumnElement[bool] | None = None,
    ) -> sa.Insert:
        """The history row of a live row, if there is a change."""
        versioning = self.versioning
        values = {
            **{versioning.history_table.c[column.key]: column for column in versioning.key_columns},
            versioning.column("version"): version,
            **state,
            versioning.column("operation"): sa.literal(operation),
            versioning.column("changed"): _INSTANT,
            versioning.column("change_info"): document,
            versioning.column("transaction_id"): _TRANSACTION,
        }
        source = sa.select().select_from(versioning.table).where(*_has_key(versioning))
        return insert_into(values, source if changes is None else source.where(changes))


def _has_key(versioning: Versioning) -> list[sa.ColumnElement[bool]]:
    return [column == bind for column, bind in key_binds(versioning)]


def _value(name: str) -> str:
    return f"{OWN}value_{name}"


def _given(versioning: Versioning, names: Iterable[str]) -> dict[Any, Any]:
    """Column → the parameter that has the value given."""
    columns = {name: versioning.columns[name] for name in names}
    return {column: bindparam(_value(name), type_=column.type) for name, column in columns.items()}


def _kept_on_rows(versioning: Versioning) -> dict[Any, Any]:
    """What `RecordChanges` keeps on live rows: column → what it is when a change is made."""
    kept = {"changed": _INSTANT, "change_info": _DOCUMENT}
    names = getattr(versioning.model, BOOKKEEPING, ())
    return {versioning.mapper.columns[name]: kept[name] for name in names}


def _archived_state(versioning: Versioning) -> dict[sa.Column[Any], sa.Column[Any]]:
    """Column of the history table → of the live table."""
    return {
        versioning.history_table.c[column.key]: column
        for name, column in versioning.tracked.items()
        if name not in versioning.key
    }


def _parameters(versioning: Versioning, change: Change) -> dict[str, Any]:
    return {
        **key_parameters(versioning, change.key),
        **{_value(name): value for name, value in change.values.items()},
        _INSTANT.key: change.at,
        _DOCUMENT.key: change.document,
        _TRANSACTION.key: change.transaction_id,
    }


def _name_of(error: sa.exc.StatementError) -> str:
    return type(error if error.orig is None else error.orig).__name__

"""Writing history: what of it goes into which statement, and what the database says to that.

No pre-image travels through Python. PostgreSQL does all of a batch in one statement: it locks the rows in key order,
reads the clock, writes the history rows and says how many and when. Other databases (SQLite) run an INSERT … SELECT;
their write lock is the whole transaction's, and their clock this process's.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.engine import Connection

from chrononaut.archive_statements import (
    CLOCK,
    archiving_elsewhere,
    archiving_on_postgresql,
    recording_elsewhere,
    recording_on_postgresql,
    renumbering,
    reused_elsewhere,
)
from chrononaut.change_info import with_extra
from chrononaut.exceptions import ConcurrentChangeError
from chrononaut.history import Key, Versioning
from chrononaut.locking import locking, numbering
from chrononaut.records import OWN, Records, given, key_binds, key_parameters
from chrononaut.types import is_among, now

BATCH = 500
"""History rows that one statement writes at the most."""

ARCHIVING = "chrononaut_archiving"
"""The execution option that our own statements carry."""

_T = TypeVar("_T")
OPTIONS = {ARCHIVING: True}


@dataclass(slots=True)
class Transaction:
    """What all changes of one database transaction share. The instant is known from the first capture on."""

    id: UUID
    instant: datetime | None = None


def archive_states(
    connection: Connection,
    versioning: Versioning,
    operation: Literal["update", "delete"],
    records: Records,
    transaction: Transaction,
) -> None:
    """Write the current states of records into history, before something replaces them.

    A ``delete`` row names the hidden attributes that had a value.

    :raises ConcurrentChangeError: a record is not at the version given; nothing may be written then
    """
    for batch in records.batches(BATCH):
        records_given, parameters = given(versioning, batch, connection.dialect)
        parameters |= _shared(connection, transaction)
        with locking(versioning, batch.keys):
            if is_postgresql(connection):
                statement = archiving_on_postgresql(versioning, operation, records_given)
                row = connection.execute(statement, parameters, execution_options=OPTIONS).one()
                archived, transaction.instant = row.archived, row.instant
            else:
                for archiving in archiving_elsewhere(versioning, operation, records_given):
                    archived = connection.execute(archiving, parameters, execution_options=OPTIONS).rowcount
        if archived != len(batch.keys):
            raise changed_meanwhile(connection, versioning, batch.keys, batch.versions, transaction)


def archive_inserts(
    connection: Connection, versioning: Versioning, records: Records, transaction: Transaction
) -> dict[Key, int]:
    """Write the ``insert`` rows of records that were just inserted.

    :return: the live version of each record whose key was used before: its numbering goes on. The live row is updated.
    :raises ConcurrentChangeError: another transaction deleted a record of such a key since this one began to see the
        database; nothing may be written then
    """
    reused: dict[Key, int] = {}
    for batch in records.batches(BATCH):
        keys = batch.keys
        records_given, parameters = given(versioning, batch, connection.dialect)
        parameters |= _shared(connection, transaction)
        if is_postgresql(connection):
            with numbering(versioning, keys):
                recorded = connection.execute(
                    recording_on_postgresql(versioning, records_given), parameters, execution_options=OPTIONS
                ).all()
            if recorded[0].twice:
                _next_versions(connection, versioning, keys)  # which raises, with the keys that are
            for row in recorded:
                transaction.instant, _, version, *key = tuple(row)
                if version is not None:
                    reused[tuple(key)] = version + 1
        else:
            with locking(versioning, keys):
                for recording in recording_elsewhere(versioning, records_given):
                    connection.execute(recording, parameters, execution_options=OPTIONS)
                for version, *key in connection.execute(
                    reused_elsewhere(versioning, records_given), parameters, execution_options=OPTIONS
                ):
                    reused[tuple(key)] = version
    _renumber(connection, versioning, reused)
    return reused


def continue_numbering(connection: Connection, versioning: Versioning, keys: Sequence[Key]) -> dict[Key, int]:
    """Give records that were inserted without an ``insert`` row the version that follows their key's history.

    :return: the live version of each record whose key was used before. The live row is updated.
    :raises ConcurrentChangeError: as `archive_inserts`
    """
    reused: dict[Key, int] = {}
    for batch in _batches(keys):
        reused |= _next_versions(connection, versioning, batch)
    _renumber(connection, versioning, reused)
    return reused


def hidden_values(connection: Connection, versioning: Versioning, keys: Sequence[Key]) -> dict[Key, list[str]]:
    """The hidden attributes that live records have a value of, in mapping order."""
    found: dict[Key, list[str]] = {}
    for batch in _batches(keys) if versioning.hidden else ():
        statement = (
            sa.select(*versioning.key_columns, *(column.is_not(None) for column in versioning.hidden.values()))
            .select_from(versioning.rows)
            .where(is_among(versioning.key_columns, batch, connection.dialect.name))
        )
        for row in connection.execute(statement, execution_options=OPTIONS):
            key, given = row[: len(versioning.key)], row[len(versioning.key) :]
            found[tuple(key)] = [name for name, has in zip(versioning.hidden, given, strict=True) if has]
    return found


def archived_versions(
    connection: Connection, versioning: Versioning, keys: Sequence[Key], transaction: Transaction
) -> set[tuple[Key, int]]:
    """The states of records that a transaction itself has replaced, by key and version."""
    columns = [versioning.history_table.c[column.key] for column in versioning.key_columns]
    found = set()
    for batch in _batches(keys):
        statement = sa.select(versioning.column("version"), *columns).where(
            is_among(columns, batch, connection.dialect.name), versioning.column("transaction_id") == transaction.id
        )
        for version, *key in connection.execute(statement, execution_options=OPTIONS):
            found.add((tuple(key), version))
    return found


def add_extra(
    connection: Connection, versioning: Versioning, extras: Mapping[tuple[Key, int], Mapping[str, str]]
) -> None:
    """Add extra to the change info of history rows, by key and version, that the transaction itself has written."""
    history, version, info = versioning.history_table, versioning.column("version"), versioning.column("change_info")
    columns = [history.c[column.key] for column in versioning.key_columns]
    adding = (
        sa.update(history)
        .where(version == bindparam(f"{OWN}version", type_=version.type))
        .where(*(history.c[column.key] == bind for column, bind in key_binds(versioning)))
        .values({info: bindparam(f"{OWN}info", type_=info.type)})
    )
    for batch in _batches([*extras]):
        states = [(*key, number) for key, number in batch]
        found = sa.select(info, version, *columns).where(is_among([*columns, version], states, connection.dialect.name))
        rows = [
            {
                **key_parameters(versioning, tuple(key)),
                f"{OWN}version": number,
                f"{OWN}info": with_extra(document, extras[tuple(key), number]),
            }
            for document, number, *key in connection.execute(found, execution_options=OPTIONS)
        ]
        connection.execute(adding, rows, execution_options=OPTIONS)


def changed_meanwhile(
    connection: Connection,
    versioning: Versioning,
    keys: Sequence[Key],
    versions: Sequence[int | None],
    transaction: Transaction | None,
) -> ConcurrentChangeError:
    """The error that names the records which are not at the version that they were taken to be at.

    :param versions: those of the records, where they are known
    :param transaction: ``None`` if it has captured nothing yet
    """
    live = sa.select(*versioning.key_columns, versioning.version).where(
        is_among(versioning.key_columns, keys, connection.dialect.name)
    )
    found = {tuple(key): version for *key, version in connection.execute(live, execution_options=OPTIONS)}
    taken = zip(keys, versions, strict=True)
    changed = [(key, version) for key, version in taken if key not in found or version not in (None, found[key])]
    keys = [key for key, _ in changed]
    own = set() if transaction is None else archived_versions(connection, versioning, keys, transaction)
    # What is gone, and was changed by this transaction, was locked by it.
    gone = {key for key, _ in own} - found.keys()
    by_others = [key for key, version in changed if (key, version) not in own and key not in gone]
    return ConcurrentChangeError(versioning.name, by_others or keys, own=bool(changed) and not by_others)


def fix_instant(connection: Connection, transaction: Transaction) -> datetime:
    """The instant of a transaction: now, if it had none before, by the clock of the database where it has one."""
    if transaction.instant is None:
        clock = sa.select(CLOCK)
        transaction.instant = (
            connection.execute(clock, execution_options=OPTIONS).scalar_one() if is_postgresql(connection) else now()
        )
    return transaction.instant


def _batches(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def is_postgresql(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _shared(connection: Connection, transaction: Transaction) -> dict[str, Any]:
    """The parameters that all rows of a statement share."""
    if is_postgresql(connection):
        return {"transaction_id": transaction.id, "instant": transaction.instant}
    return {"transaction_id": transaction.id, "instant": fix_instant(connection, transaction), "now": now()}


def _next_versions(connection: Connection, versioning: Versioning, keys: Sequence[Key]) -> dict[Key, int]:
    """The version that follows the last row of each live record that has history.

    :raises ConcurrentChangeError: two rows of one key are seen
    """
    history = versioning.history_table
    last = (
        sa.select(sa.func.max(versioning.column("version")))
        .where(*(history.c[column.key] == column for column in versioning.key_columns))
        .correlate(versioning.table)
        .scalar_subquery()
    )
    key_columns = versioning.key_columns
    statement = sa.select(last, *key_columns).where(is_among(key_columns, keys, connection.dialect.name))
    rows = connection.execute(statement, execution_options=OPTIONS).all()
    found = Counter(tuple(key) for _, *key in rows)
    if twice := [key for key, count in found.items() if count > 1]:
        raise ConcurrentChangeError(versioning.name, twice)
    return {tuple(key): version + 1 for version, *key in rows if version is not None}


def _renumber(connection: Connection, versioning: Versioning, versions: Mapping[Key, int]) -> None:
    if versions:
        rows = [key_parameters(versioning, key) | {f"{OWN}live_version": version} for key, version in versions.items()]
        connection.execute(renumbering(versioning), rows, execution_options=OPTIONS)

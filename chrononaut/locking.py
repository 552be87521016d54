"""What another transaction's change looks like when rows are locked, and when history is written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa

from chrononaut.exceptions import ConcurrentChangeError
from chrononaut.history import Key, Versioning

# SQLSTATE, in the SQL standard and in PostgreSQL's appendix A: serialization_failure and deadlock_detected
_CONFLICTS = ("40001", "40P01")
# SQLite's primary result codes SQLITE_BUSY and SQLITE_LOCKED
_LOCKED = (5, 6)
# SQLSTATE unique_violation
_TAKEN = "23505"


def is_conflict(error: BaseException | None) -> bool:
    """Does a driver's error say that another transaction was in the way, so that this one may be tried again?"""
    return getattr(error, "sqlstate", None) in _CONFLICTS or getattr(error, "sqlite_errorcode", 0) & 0xFF in _LOCKED


@contextmanager
def locking(versioning: Versioning, keys: Sequence[Key]) -> Iterator[None]:
    """Statements that lock the rows of records.

    Above READ COMMITTED the database itself refuses to lock a row that was changed since the transaction began.

    :raises ConcurrentChangeError: it did so, or found a deadlock; which of the rows it was, it does not say
    """
    try:
        yield
    except sa.exc.DBAPIError as error:
        if is_conflict(error.orig):
            raise ConcurrentChangeError(versioning.name, keys) from error
        raise


@contextmanager
def numbering(versioning: Versioning, keys: Sequence[Key]) -> Iterator[None]:
    """A statement that writes history rows whose numbers follow those of the rows that the transaction sees.

    :raises ConcurrentChangeError: there is a row of such a number, or the database refuses to serialize
    """
    try:
        with locking(versioning, keys):
            yield
    except sa.exc.IntegrityError as error:
        if getattr(error.orig, "sqlstate", None) == _TAKEN:
            raise ConcurrentChangeError(versioning.name, keys) from error
        raise

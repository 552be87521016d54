"""What another transaction's change looks like when rows are locked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa

from chrononaut.exceptions import ConcurrentChangeError
from chrononaut.history import Key, Versioning

_SERIALIZATION_FAILURE = "40001"  # SQLSTATE, in the SQL standard and in PostgreSQL's appendix A


@contextmanager
def locking(versioning: Versioning, keys: Sequence[Key]) -> Iterator[None]:
    """Statements that lock the rows of records.

    Above READ COMMITTED the database itself refuses to lock a row that was changed since the transaction began.

    :raises ConcurrentChangeError: it did so; which of the rows it was, it does not say
    """
    try:
        yield
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _SERIALIZATION_FAILURE:
            raise ConcurrentChangeError(versioning.name, keys) from error
        raise

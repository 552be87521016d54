"""What the errors of databases mean: by their codes, as their texts may hold values, hidden ones too."""

import re
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from logging import Logger

import sqlalchemy as sa
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, StatementError


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the database, or a column's type on the way to it, does not take a statement.

    :ivar kind: the kind of problem that a request is answered with
    :ivar detail: what was wrong, without any text of the driver
    """

    kind: str
    detail: str


_TAKEN = Refusal("conflict", "a value that must be unique is taken")
_REFERENCE = Refusal("conflict", "a record that is referred to would be missing: this one refers to it, or others do")
_OF_OTHERS = Refusal("conflict", "other records refer to this one; change or delete them first")
_TO_OTHERS = Refusal("conflict", "a record that this one refers to is missing; make it first")
_MISSING = Refusal("invalid", "a value is missing that the database wants")
_CHECK = Refusal("invalid", "a value is none that a check of the database allows")
_RULE = Refusal("invalid", "a rule of the database does not allow this change")
_VALUE = Refusal("invalid", "a value lies outside of what its column can hold")
_LARGE = Refusal("invalid", "a value is larger than the database takes, or than an index of it does")
_GENERATED = Refusal("invalid", "a value is given that the database makes by itself; leave it out")
CONCURRENT = Refusal("concurrent-change", "another request was in the way; read again what is there, and repeat")
UNAVAILABLE = Refusal("unavailable", "the database does not answer; try again")
NOT_MIGRATED = Refusal("unavailable", "the database lacks a table: its migrations have not been run")
_READ_ONLY = Refusal("unavailable", "the database takes no changes now; try again")
_LOCKED = Refusal("unavailable", "other requests are changing the same for too long; try again")
_TOO_LONG = Refusal("unavailable", "it takes the database longer than it may; ask for less, or try again")

_BY_SQLSTATE: Mapping[str, Refusal] = {
    "08": UNAVAILABLE,  # connection exceptions
    "22": _VALUE,  # data exceptions
    "23": _TAKEN,  # of the integrity constraints below those that want no two alike: 23505, 23P01
    "23001": _REFERENCE,
    "23502": _MISSING,
    "23503": _REFERENCE,
    "23514": _CHECK,
    "25006": _READ_ONLY,  # it stands by for another one, or was set so
    "40001": CONCURRENT,
    "40P01": CONCURRENT,
    "428C9": _GENERATED,
    "42P01": NOT_MIGRATED,
    "44000": _CHECK,  # of a view
    "53": UNAVAILABLE,  # insufficient resources: connections, memory, disk
    "54": _LARGE,  # program limits
    "55P03": _LOCKED,
    "57": UNAVAILABLE,  # an operator's intervention: shutdown, start
    "57014": _TOO_LONG,
    "58": UNAVAILABLE,  # errors of its system, as of its disk
    "P0001": _RULE,
}
"""By SQLSTATE, or by its class, which its first two characters are (PostgreSQL's appendix A)."""

_BY_SQLITE_NAME: Mapping[str, Refusal] = {
    "SQLITE_BUSY": UNAVAILABLE,
    "SQLITE_CANTOPEN": UNAVAILABLE,
    "SQLITE_CONSTRAINT": _TAKEN,
    "SQLITE_CONSTRAINT_CHECK": _CHECK,
    "SQLITE_CONSTRAINT_DATATYPE": _VALUE,
    "SQLITE_CONSTRAINT_FOREIGNKEY": _REFERENCE,
    "SQLITE_CONSTRAINT_NOTNULL": _MISSING,
    "SQLITE_CONSTRAINT_TRIGGER": _RULE,
    "SQLITE_FULL": UNAVAILABLE,
    "SQLITE_LOCKED": UNAVAILABLE,
    "SQLITE_MISMATCH": _VALUE,
    "SQLITE_PROTOCOL": UNAVAILABLE,
    "SQLITE_TOOBIG": _LARGE,
}
"""By the name of SQLite's extended result code, or of the primary one, which it begins with."""

_UNDONE_SQLSTATES = frozenset({"40001", "40P01"})  # a serialization failure, a deadlock
_UNDONE_SQLITE = frozenset({"SQLITE_BUSY", "SQLITE_LOCKED"})

# SQLite has no code for them.
_SQLITE_MISSING = re.compile("no such table: ")
_SQLITE_GENERATED = re.compile("cannot (INSERT into|UPDATE) generated column ")
# What types of columns raise of a value that they cannot send: those of SQLAlchemy, and those of applications.
_OF_VALUES = (ValueError, TypeError, LookupError, ArithmeticError)


def refusal_of(error: StatementError, names: Collection[str] = ()) -> Refusal | None:
    """What an error of a statement means to who sent the values; ``None`` if it is nothing that they could know of.

    :param names: those of columns and constraints that may be told
    """
    if not isinstance(error, DBAPIError):
        return _VALUE if isinstance(error.orig, _OF_VALUES) else None
    found = UNAVAILABLE if error.connection_invalidated else _by_code(error)
    if found is _REFERENCE:
        return _reference(error)
    if found in {_MISSING, _CHECK} and (name := _name(error.orig)) in names:
        return replace(found, detail=f"{found.detail}: {name}")
    return found


def is_undone(error: DBAPIError) -> bool:
    """Did the database undo the transaction only because of another one, so that the same may succeed now?"""
    name: str = getattr(error.orig, "sqlite_errorname", None) or ""
    sqlstate = getattr(error.orig, "sqlstate", None)
    return sqlstate in _UNDONE_SQLSTATES or "_".join(name.split("_")[:2]) in _UNDONE_SQLITE


def log_unexpected(logger: Logger, error: BaseException) -> None:
    """Log an error that nobody should get."""
    logger.error("unexpected error: %s", described(error))


def described(error: BaseException) -> str:
    """An error and what led to it, and where it was raised, without any message.

    A trigger's can hold the values of hidden columns, and so can that of a column's type or of a model's validator.
    """
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{' from '.join(map(name_of, _chain(error)))}\nTraceback (most recent call last):\n{frames}"


def reason_of(error: DBAPIError) -> str:
    """What the driver says first, for who operates the database at a terminal: it may hold values."""
    return str(error.orig).strip().partition("\n")[0]


def names_of(metadatas: Iterable[sa.MetaData]) -> frozenset[str]:
    """The names of all columns, and of all checks that have one."""
    tables = [table for metadata in metadatas for table in metadata.tables.values()]
    columns = (column.name for table in tables for column in table.columns)
    checks = (one.name for table in tables for one in table.constraints if isinstance(one, sa.CheckConstraint))
    return frozenset(str(name) for name in (*columns, *checks) if name is not None)


def _by_code(error: DBAPIError) -> Refusal | None:
    sqlstate: str | None = getattr(error.orig, "sqlstate", None)
    if sqlstate is not None:
        return _BY_SQLSTATE.get(sqlstate) or _BY_SQLSTATE.get(sqlstate[:2])
    name: str | None = getattr(error.orig, "sqlite_errorname", None)
    if name is not None:
        if name == "SQLITE_ERROR":
            return _of_sqlite_error(str(error.orig))
        return _BY_SQLITE_NAME.get(name) or _BY_SQLITE_NAME.get("_".join(name.split("_")[:2]))
    # The driver itself: it cannot connect, or cannot send a value.
    by_class: Mapping[type[DBAPIError], Refusal] = {
        OperationalError: UNAVAILABLE,
        IntegrityError: _TAKEN,
        DataError: _VALUE,
    }
    return by_class.get(type(error))


def _of_sqlite_error(text: str) -> Refusal | None:
    if _SQLITE_MISSING.match(text):
        return NOT_MIGRATED
    return _GENERATED if _SQLITE_GENERATED.match(text) else None


def _reference(error: DBAPIError) -> Refusal:
    """Which side of a foreign key is wrong, as far as the statement tells; that of a commit has none."""
    verb = (error.statement or "").lstrip()[:6].upper()
    return {"DELETE": _OF_OTHERS, "INSERT": _TO_OTHERS}.get(verb, _REFERENCE)


def _name(orig: BaseException | None) -> str | None:
    """The column or the constraint that an error is about."""
    diagnostic = getattr(orig, "diag", None)
    if diagnostic is not None:
        name: str | None = diagnostic.column_name or diagnostic.constraint_name
        return name
    return re.split("[ .]", str(orig))[-1]


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        orig = following.orig if isinstance(following, StatementError) else None
        following = orig or following.__cause__ or following.__context__


def name_of(error: BaseException) -> str:
    """The class of an error, and its code if it has one of a database's."""
    code = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None)
    return f"{type(error).__qualname__} {code}" if code else type(error).__qualname__

"""History from elsewhere: changes with given instants, each checked and then written by `imported`."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import islice
from typing import Any, NoReturn
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut.change_info import checked, unstorable
from chrononaut.cuts import OPERATIONS
from chrononaut.exceptions import ChangeInfoError, HistoryImportError, UncapturedWriteError, UnsupportedMappingError
from chrononaut.history import Operation, Versioning, versioning_of
from chrononaut.imported import Change, Writer
from chrononaut.session import capture_by
from chrononaut.types import JSONObject, now, utc

BATCH = 1000
"""Changes that are checked and written together; no more than twice as many are held."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ImportedChange:
    """One change of one record, as another system tells it.

    :ivar operation: ``insert``, ``update`` or ``delete``
    :ivar key: the primary key values in mapping order; of a key of one column, the value alone will do
    :ivar at: when it was made; a naive one is read as UTC. Resolution 1 µs.
    :ivar values: attribute name → value: all that an insert gives, only what an update sets, nothing of a delete
    :ivar info: who and why, as the change info document has it: ``user_id``, ``remote_addr``, ``extra`` and further
        keys of your own; not ``hidden_cols_changed``, which is found out
    :ivar transaction: what the transaction was called there. Changes of one instant that name the same one share a
        ``transaction_id``, also those of other models and of other imports. Without a name it is a transaction of its
        own.
    """

    operation: Operation
    key: Any
    at: datetime
    values: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    transaction: str | None = None


def import_changes(session: Session, model: type, changes: Iterable[ImportedChange]) -> int:
    """Write changes that were made elsewhere, with the instants at which they were made.

    What is written is what capture would have written had the changes been made through the session at those instants:
    history rows, and the live rows that the changes lead to. Column defaults fill in what an insert leaves out;
    ``onupdate`` does nothing, for it would set the values of today. A record may have history already, which the
    changes then continue. Changes are taken in the order given, a bounded number at a time; those of one record must be
    given oldest first.

    All of it happens in the session's transaction, which the caller commits. Pending changes are flushed first, and
    objects of the records are expired. `suppress_versioning` and a required reason concern what the application itself
    changes, and so make no difference.

    :param session: one of the `VersionedSQLAlchemy` that the model belongs to
    :param model: a versioned model
    :param changes: an iterable, which may be a generator
    :return: how many changes were written; an update that changes nothing leaves nothing
    :raises HistoryImportError: a change is wrong, or could not have happened. Roll the transaction back: it cannot be
        committed.
    :raises ConcurrentChangeError: another transaction changes one of the records meanwhile
    :raises UncapturedWriteError: the session does not capture, or its connection is in AUTOCOMMIT
    :raises UnsupportedMappingError: the model has its rows in several tables, or in that of its parent
    :raises TypeError: the model is not versioned
    """
    versioning = _importable(model)
    connection = session.connection(bind_arguments={"mapper": versioning.mapper})
    capture = capture_by(session)
    if capture is None:
        raise UncapturedWriteError(
            versioning.table.name,
            "an import by a session that does not capture",
            "use the session of the VersionedSQLAlchemy that the model belongs to",
            or_suppress=False,
        )
    capture.refuse_autocommit(connection, versioning)
    written = 0
    with capture.entire(versioning):
        numbered = enumerate(changes)
        writer = Writer(connection, versioning)
        while given := list(islice(numbered, BATCH)):
            session.flush()
            batch, refusal = _checked_until_wrong(versioning, given)
            written += writer.take(batch)
            if refusal is not None:
                raise refusal
            _expire(session, versioning, batch)
    return written


def _importable(model: type) -> Versioning:
    """:raises UnsupportedMappingError: the rows of the model's records cannot be written one by one"""
    versioning = versioning_of(model)
    if any(len(one.tables) > 1 for one in versioning.hierarchy):
        raise UnsupportedMappingError(
            versioning.name, "history cannot be imported where records have rows in several tables"
        )
    inherits = versioning.mapper.inherits
    if inherits is not None and not versioning.mapper.concrete:
        raise UnsupportedMappingError(
            versioning.name,
            f"its rows are in the table of {versioning.mapper.base_mapper.class_.__name__}; import into that, and give "
            "the column that tells the models apart",
        )
    return versioning.whole()


def _expire(session: Session, versioning: Versioning, batch: Sequence[Change]) -> None:
    for key in {change.key for change in batch}:
        obj = session.identity_map.get(versioning.mapper.identity_key_from_primary_key(key))
        if obj is not None:
            session.expire(obj)


def _checked_until_wrong(
    versioning: Versioning, given: Iterable[tuple[int, ImportedChange]]
) -> tuple[list[Change], HistoryImportError | None]:
    """The changes before the first one that is wrong by itself, and what is wrong with that.

    One before it may still turn out to be impossible, which is then the first error.
    """
    batch: list[Change] = []
    for position, change in given:
        try:
            batch.append(_checked(versioning, position, change))
        except HistoryImportError as error:
            return batch, error
    return batch, None


def _checked(versioning: Versioning, position: int, change: ImportedChange) -> Change:
    def refuse(problem: str) -> NoReturn:
        raise HistoryImportError(versioning.name, position, getattr(change, "key", None), problem) from None

    if not isinstance(change, ImportedChange):
        refuse(f"a change must be an ImportedChange, not {type(change).__name__}")
    if change.operation not in OPERATIONS:
        refuse(f"the operation must be one of {', '.join(OPERATIONS)}, not {change.operation!r}")
    key = change.key if isinstance(change.key, tuple) else (change.key,)
    if len(key) != len(versioning.key) or any(part is None for part in key):
        refuse(f"the key must have a value for {', '.join(versioning.key)}, in this order")
    try:
        hash(key)
    except TypeError:
        refuse("the key must be hashable")
    try:
        at = utc(change.at)
    except (TypeError, OverflowError) as error:
        refuse(f"at: {error}")
    if at > now():
        refuse(f"{at.isoformat()} is yet to come; history tells what has happened")
    if problem := _problem_of_values(versioning, change):
        refuse(problem)
    try:
        document = _document(change.info)
    except ChangeInfoError as error:
        refuse(f"info: {error}")
    if not (change.transaction is None or isinstance(change.transaction, str)):
        refuse(f"the transaction must be named by a string, not {type(change.transaction).__name__}")
    transaction_id = transaction_id_of(at, change.transaction)
    return Change(position, change.operation, key, at, change.values, document, transaction_id)


def _problem_of_values(versioning: Versioning, change: ImportedChange) -> str | None:
    if not isinstance(change.values, Mapping):
        return f"the values must be a mapping of attribute names, not {type(change.values).__name__}"
    if change.operation == "delete" and change.values:
        return "a delete has no values; leave them out"
    if keys := [name for name in versioning.key if name in change.values]:
        return f"{', '.join(keys)} stands in the key and cannot be among the values"
    if unknown := [name for name in change.values if name not in versioning.columns]:
        known = ", ".join(name for name in versioning.columns if name not in versioning.key)
        return f"there is no attribute {', '.join(map(str, unknown))}; there are {known}"
    for name, value in change.values.items():
        if isinstance(value, sa.ClauseElement) or hasattr(value, "__clause_element__"):
            return f"{name} must be a value, not an SQL expression"
    return None


def _document(info: Mapping[str, Any]) -> JSONObject:
    """The change info document of an imported change, but for the hidden attributes.

    :raises ChangeInfoError: it is none, or cannot be stored
    """
    if not isinstance(info, Mapping) or not all(isinstance(name, str) for name in info):
        raise ChangeInfoError("must be a mapping with strings as keys")
    if "hidden_cols_changed" in info:
        raise ChangeInfoError("hidden_cols_changed is found out; leave it out")
    for name in ("erased", "purged"):
        if name in info:
            raise ChangeInfoError(f"{name} tells of this history; leave it out")
    document: JSONObject = {"user_id": None, "remote_addr": None, **info}
    for name in ("user_id", "remote_addr"):
        if not (document[name] is None or isinstance(document[name], str)):
            raise ChangeInfoError(f"{name} must be a string or None, not {type(document[name]).__name__}")
    extra = document.pop("extra", {})
    if not isinstance(extra, Mapping) or not all(isinstance(name, str) for name in extra):
        raise ChangeInfoError("extra must be a mapping of strings")
    if extra:
        document["extra"] = dict(checked(extra))
    if problem := unstorable(document):
        raise ChangeInfoError(problem)
    return document


def transaction_id_of(at: datetime, name: str | None) -> UUID:
    """A UUIDv7 (RFC 9562, 5.7) of an instant, to the microsecond (6.2, method 3).

    :param name: what gives the rest of the bits; they are random without it. It need not be kept, so that it does not
        matter how many there are. Before 1970, for which UUIDv7 has no number, the instant is that of 1970.
    """
    microseconds = (at - _EPOCH) // timedelta(microseconds=1)
    milliseconds, rest = divmod(max(microseconds, 0), 1000)
    if name is None:
        bits = secrets.randbits(62)
    else:
        digest = sha256(f"{microseconds} {name}".encode(errors="surrogatepass")).digest()
        bits = int.from_bytes(digest[:8]) >> 2
    return UUID(int=milliseconds << 80 | 0x7 << 76 | rest * 4096 // 1000 << 64 | 0b10 << 62 | bits)

"""What can go wrong.

::

    ChrononautException
    ├── OptionError (TypeError)             a model's options are wrong; raised when the class is defined
    ├── UnsupportedMappingError (TypeError) a mapping whose changes would not be captured
    ├── ChangeInfoError (ValueError)        a reason that cannot be stored
    │   └── ChangeInfoTypeError (TypeError) a reason that is no string
    ├── MissingChangeInfoError              a change without the reason that the application requires
    │   └── RequiredChangeInfoError         a write without what the model requires to be said of it
    ├── UncapturedWriteError                a write that would leave no history
    ├── ConcurrentChangeError (StaleDataError)  the record was changed meanwhile
    ├── HistoryImmutableError               an attempt to change history
    ├── HistoryImportError (ValueError)     history from elsewhere that cannot have been
    ├── HistoryFileError (ValueError)       a file of history that is wrong
    ├── DiffError (ValueError)              two states that cannot be compared
    ├── RestoreError (ValueError)           an old state that cannot be had again
    ├── ErasureError (ValueError)           what cannot be erased from history
    ├── PastError (ValueError)              a question to the past that has no answer
    ├── PurgedError (LookupError)           a version that was purged
    ├── DetachedError                       the object belongs to no session
    └── HiddenAttributeError (AttributeError)   a value that history does not keep
        └── UntrackedAttributeError
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm.exc import StaleDataError

_KEYS_NAMED = 5


class ChrononautException(Exception):  # noqa: N818  the name is part of the public interface
    """The root of all errors of this library."""


class OptionError(ChrononautException, TypeError):
    """An option of a model is wrong.

    :param model: the name of the model
    :param option: the attribute or option that is wrong
    :param problem: what is wrong, and what would be right
    """

    def __init__(self, model: str, option: str, problem: str) -> None:
        self.model, self.option, self.problem = model, option, problem
        super().__init__(f"{model}.{option}: {problem}")


class UnsupportedMappingError(ChrononautException, TypeError):
    """A mapping whose changes would not be captured, refused before it can lose any."""

    def __init__(self, model: str, problem: str) -> None:
        self.model = model
        super().__init__(f"{model}: {problem}")


class ChangeInfoError(ChrononautException, ValueError):
    """A key or value of the change info that no database can store."""


class ChangeInfoTypeError(ChangeInfoError, TypeError):
    """A value of the change info that is no string."""

    def __init__(self, name: str, value: object) -> None:
        super().__init__(f"change info {name!r} must be a string, not {type(value).__name__}")


class MissingChangeInfoError(ChrononautException):
    """An update or delete without extra change info, where the application requires it."""

    def __init__(self, model: str, operation: str) -> None:
        self.model, self.operation = model, operation
        super().__init__(
            f"{operation} of {model} without a reason: CHRONONAUT_REQUIRE_EXTRA_CHANGE_INFO is set; "
            "make the change inside extra_change_info(...) or rationale(...)"
        )


class RequiredChangeInfoError(MissingChangeInfoError):
    """A write without the change info that its model requires (``__chrononaut_required__``); nothing was written.

    :ivar missing: key → pattern of what was not given, or was blank
    :ivar unfit: key → pattern of what was given and does not match it as a whole
    """

    def __init__(self, model: str, operation: str, missing: Mapping[str, str], unfit: Mapping[str, str]) -> None:
        self.model, self.operation, self.missing, self.unfit = model, operation, missing, unfit
        wrong = [
            *(f"{key} is missing or blank, which must match {pattern}" for key, pattern in missing.items()),
            *(f"{key} does not match {pattern}" for key, pattern in unfit.items()),
        ]
        # Not that of the class it belongs to, which names a setting.
        ChrononautException.__init__(
            self,
            f"{operation} of {model} without the reason that it requires: {'; '.join(wrong)}; "
            "make the change inside extra_change_info(...), or mark its object by append_change_info(...)",
        )


class UncapturedWriteError(ChrononautException):
    """A write to a versioned table that would leave no history; nothing was written.

    :param table: the versioned table
    :param what: the write
    :param instead: what to do instead
    :param or_suppress: would it go through inside `suppress_versioning`?
    """

    def __init__(
        self, table: str, what: str, instead: str = "change objects in the session instead", or_suppress: bool = True
    ) -> None:
        self.table = table
        suppress = ", or, to leave no history, do it inside suppress_versioning()" if or_suppress else ""
        super().__init__(f"{what} on the versioned table {table} is not captured: {instead}{suppress}")


class ConcurrentChangeError(ChrononautException, StaleDataError):
    """The record was changed or deleted since this session loaded it; nothing was written.

    By another transaction: retry this one from its start, load the record again and repeat the change.

    :param keys: of the records; none where the database does not say
    :param own: was it this transaction itself that changed it, behind the object's back?
    """

    def __init__(self, model: str, keys: Sequence[tuple[Any, ...]], own: bool = False) -> None:
        self.model, self.keys, self.own = model, tuple(keys), own
        named = ", ".join(repr(key[0] if len(key) == 1 else key) for key in self.keys[:_KEYS_NAMED])
        unnamed = len(self.keys) - _KEYS_NAMED
        more = f" and {unnamed} more" if unnamed > 0 else ""
        records = f"{model} {named}{more}" if named else model
        super().__init__(
            f"{records}: changed or deleted by this transaction itself, by a statement or an object that the session "
            "does not know to be of the same record; roll back, and flush or synchronize between the two"
            if own
            else f"{records}: changed by another transaction meanwhile; roll back, load again and repeat the change"
        )


class HistoryImmutableError(ChrononautException):
    """An attempt to change or delete history rows through the session; nothing was written."""

    def __init__(self, table: str) -> None:
        self.table = table
        super().__init__(
            f"history is immutable: {table} can be neither inserted into, updated nor deleted from; "
            "to delete, use suppress_versioning(allow_deleting_history=True)"
        )


class HistoryImportError(ChrononautException, ValueError):
    """A change that was to be imported is wrong, or could not have happened; nothing of the import can be committed.

    :param model: the name of the model
    :param position: of the change among those that were given, from 0
    :param key: the key of the change, as it was given
    :param problem: what is wrong, and what would be right
    """

    def __init__(self, model: str, position: int, key: Any, problem: str) -> None:
        self.model, self.position, self.key, self.problem = model, position, key, problem
        named = key[0] if isinstance(key, tuple) and len(key) == 1 else key
        super().__init__(f"change {position}, {model} {named!r}: {problem}")


@dataclass(frozen=True, slots=True)
class FileProblem:
    """What is wrong in a file.

    :ivar line: its number, from 1; of a record that the database refuses, its first
    :ivar column: which column of it; ``None`` where it is the line
    :ivar reason: what is wrong, and what would be right; never a value
    """

    line: int
    column: str | None
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}{'' if self.column is None else f', {self.column}'}: {self.reason}"


class HistoryFileError(ChrononautException, ValueError):
    """A file of history is wrong; nothing was written of the batch that has the wrong lines.

    :ivar problems: what is wrong with lines of the batch, the first ones
    :ivar line: the line of the first
    """

    def __init__(self, problems: Sequence[FileProblem]) -> None:
        self.problems = tuple(problems)
        self.line = self.problems[0].line
        super().__init__("; ".join(map(str, self.problems)))


class DiffError(ChrononautException, ValueError):
    """Two states that cannot be compared; the message says why."""


class RestoreError(ChrononautException, ValueError):
    """An old state that cannot be had again as it was; the message says why, and what to give.

    :ivar missing: the attributes whose values must be given
    """

    def __init__(self, message: str, missing: Sequence[str] = ()) -> None:
        self.missing = tuple(missing)
        super().__init__(message)


class ErasureError(ChrononautException, ValueError):
    """What cannot be erased from the history of a record; the message says why, and what to do. Nothing was erased.

    :ivar column: the attribute that cannot be; ``None`` where it is not about one
    """

    def __init__(self, message: str, column: str | None = None) -> None:
        self.column = column
        super().__init__(message)


class PastError(ChrononautException, ValueError):
    """A question to the past that has no answer, or would have a wrong one; the message says why, and what to ask."""


class PurgedError(ChrononautException, LookupError):
    """A version, or the state at an instant, that was there and was purged.

    :ivar first: the number of the first version that was purged together with it; -1 for the record's creation
    :ivar last: that of the last
    :ivar at: when they were purged, the last of them, in UTC
    """

    def __init__(self, model: str, key: tuple[Any, ...], first: int, last: int, at: datetime) -> None:
        self.model, self.key, self.first, self.last, self.at = model, key, first, last, at
        lowest = max(first, 0)
        when = f"{at:%Y-%m-%dT%H:%M:%SZ}"
        named = key[0] if len(key) == 1 else key
        told = f"version {last} was purged at {when}"
        if lowest < last:
            told = f"versions {lowest} to {last} were purged, the last of them at {when}"
        super().__init__(f"{model} {named!r}: {told}")


class DetachedError(ChrononautException):
    """The object belongs to no session, so that its history cannot be asked for."""

    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__(f"this {model} belongs to no session: add it, or load it, before you ask for its history")


class HiddenAttributeError(ChrononautException, AttributeError):
    """A hidden column was read from a history object."""

    reason = "is hidden: its changes are noted, its values are not kept"

    def __init__(self, model: str, attribute: str) -> None:
        self.model, self.attribute = model, attribute
        super().__init__(f"{model}.{attribute} {self.reason}")


class UntrackedAttributeError(HiddenAttributeError):
    """An untracked column was read from a history object."""

    reason = "is untracked: history does not keep it"

"""The change info document, the scopes that add to it, and where its user and address come from."""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from types import MappingProxyType
from typing import Any
from weakref import WeakSet

import sqlalchemy as sa
from flask import current_app, has_app_context, has_request_context, request
from sqlalchemy.orm import InstanceState, Session, SessionTransaction

from chrononaut.exceptions import ChangeInfoError, ChangeInfoTypeError
from chrononaut.types import JSONObject

# Fillers of Hangul and the empty pattern of Braille: letters and a symbol by their category, and empty to the eye.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
_RESERVED = frozenset({"user_id", "remote_addr", "extra", "hidden_cols_changed", "erased", "purged"})
# In the `info` of an object's state: how it was marked, and in which savepoints, the last one holding.
_APPENDED = "chrononaut.change_info"
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_Mark = tuple[WeakSet[SessionTransaction], Mapping[str, str]]

_extra: ContextVar[Mapping[str, str]] = ContextVar("chrononaut_extra", default=MappingProxyType({}))


@contextmanager
def extra_change_info(**values: str) -> Iterator[None]:
    """Add ``extra`` to the change info of all that is flushed inside the block.

    Blocks nest, and the inner value wins; each thread and each task has its own. What was there before is restored
    when the block ends, also by an exception. Flush or commit inside the block: a change that is flushed after it
    does not carry the values.

    :raises ChangeInfoTypeError: a value is no string
    :raises ChangeInfoError: a value holds what a database cannot store (NUL, a lone surrogate)
    """
    token = _extra.set({**_extra.get(), **checked(values)})
    try:
        yield
    finally:
        _extra.reset(token)


@contextmanager
def rationale(why: str) -> Iterator[None]:
    """``extra_change_info(rationale=why)``."""
    with extra_change_info(rationale=why):
        yield


def append_change_info(obj: object, **values: str) -> None:
    """Add ``extra`` to the change info of one object's next version, and of no later one.

    It is the next version, whether a flush writes it or a statement that the object's session executes (``update()``,
    ``delete()``, ``bulk_update_mappings``, …); a row that is set to what it was has none, and the object stays marked.
    What a statement inserts is no object of the session and carries no mark, be it by ``bulk_save_objects`` or under
    the key of an object whose row was gone, which is marked no longer. Where extra change info is required, a statement
    needs some of its own: which rows it will change is not known before.

    A rollback takes the mark away together with the change that it described. That of a savepoint leaves the object
    marked as it was when the savepoint began.

    :param obj: an object of a mapped class
    :raises ChangeInfoTypeError: a value is no string
    :raises ChangeInfoError: a value holds what a database cannot store (NUL, a lone surrogate)
    """
    state = sa.inspect(obj, raiseerr=True)
    _mark(state, {**appended_to(state), **checked(values)})


def appended_to(state: InstanceState[Any]) -> Mapping[str, str]:
    """What `append_change_info` has put on an object."""
    # Asking for `info` gives a state one.
    marks: list[_Mark] = state.info.get(_APPENDED, []) if "info" in vars(state) else []
    return marks[-1][1] if marks else {}


def take_appended(state: InstanceState[Any]) -> Mapping[str, str]:
    """Take away and return what `append_change_info` has put on an object."""
    appended = appended_to(state)
    if appended:
        _mark(state, {})
    return appended


def roll_appended_back(state: InstanceState[Any], ended: SessionTransaction) -> None:
    """Let an object be marked as it was before a savepoint; the rollback of a whole transaction leaves no mark."""
    while not ended.nested and ended.parent is not None:
        # The part of a flush that failed: it was rolled back up to here.
        ended = ended.parent
    kept = [mark for mark in state.info.pop(_APPENDED, ()) if ended.nested and ended not in mark[0]]
    if kept:
        state.info[_APPENDED] = kept


def _mark(state: InstanceState[Any], appended: Mapping[str, str]) -> None:
    """Let an object be marked so, and as before again when the savepoint that is open is rolled back."""
    savepoints = _savepoints(state.session)
    before = state.info.pop(_APPENDED, [])
    marks = [*(before if savepoints else ()), (savepoints, appended)]
    if any(values for _, values in marks):
        state.info[_APPENDED] = marks


def _savepoints(session: Session | None) -> WeakSet[SessionTransaction]:
    """The savepoints that are open in a session."""
    savepoints = WeakSet[SessionTransaction]()
    transaction = None if session is None else session.get_nested_transaction()
    while transaction is not None:
        if transaction.nested:
            savepoints.add(transaction)
        transaction = transaction.parent
    return savepoints


def is_within(transaction: SessionTransaction | None, outer: SessionTransaction) -> bool:
    """Is a transaction or savepoint another one, or inside it?"""
    while transaction is not None and transaction is not outer:
        transaction = transaction.parent
    return transaction is outer


def with_extra(document: JSONObject, extra: Mapping[str, str]) -> JSONObject:
    """A change info document with further extra, which wins."""
    return document | {"extra": {**document.get("extra", {}), **extra}} if extra else document


def current_extra() -> Mapping[str, str]:
    """What the blocks around the caller add."""
    return _extra.get()


def extra_is_required() -> bool:
    """Does the application refuse updates and deletes without extra change info?"""
    return has_app_context() and bool(current_app.config.get("CHRONONAUT_REQUIRE_EXTRA_CHANGE_INFO"))


def gives_reason(document: JSONObject) -> bool:
    """Does a change info document have extra that says something?"""
    return any(map(says_something, document.get("extra", {}).values()))


def says_something(value: object) -> bool:
    """Is this a text with a character that can be seen: a letter, a digit, a punctuation mark or a symbol?"""
    return isinstance(value, str) and any(
        unicodedata.category(character)[0] in "LNPS" and character not in _BLANK for character in value
    )


def checked(values: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in values.items():
        if not isinstance(value, str):
            raise ChangeInfoTypeError(name, value)
        for text in (name, value):
            if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
                raise ChangeInfoError(f"change info {name!r} holds a character that no database stores: {value!r}")
    return values


class CapturesChangeInfo:
    """Where the change info document comes from. Override any of the four class methods."""

    @classmethod
    def _capture_change_info(cls) -> JSONObject:
        """The document for the changes of one flush; it calls the other three."""
        document: JSONObject = {"user_id": cls._fetch_current_user_id(), "remote_addr": cls._fetch_remote_addr()}
        custom = cls._get_custom_change_info()
        if reserved := _RESERVED & custom.keys():
            raise ChangeInfoError(f"custom change info must not set {', '.join(sorted(reserved))}")
        document.update(custom)
        if extra := current_extra():
            document["extra"] = dict(extra)
        return document

    @classmethod
    def _fetch_current_user_id(cls) -> str | None:
        """Flask-Login's current user: its ``email`` if it has one, else ``get_id()``.

        ``None`` outside a request, when anonymous, and without Flask-Login.
        """
        if not has_request_context() or not hasattr(current_app, "login_manager"):
            return None
        # Flask-Login is optional.
        from flask_login import current_user  # noqa: PLC0415

        user: Any = current_user
        if not user.is_authenticated:
            return None
        user_id = getattr(user, "email", None) or user.get_id()
        return None if user_id is None else str(user_id)

    @classmethod
    def _fetch_remote_addr(cls) -> str | None:
        """The address that the request came from; ``None`` outside a request."""
        return request.remote_addr if has_request_context() else None

    @classmethod
    def _get_custom_change_info(cls) -> JSONObject:
        """Further top-level keys of the document, a flat dict.

        By default what the callable in the config ``CHRONONAUT_EXTRA_CHANGE_INFO_FUNC`` returns.
        """
        custom = current_app.config.get("CHRONONAUT_EXTRA_CHANGE_INFO_FUNC") if has_app_context() else None
        return dict(custom()) if custom is not None else {}


def unstorable(document: Any) -> str | None:
    """Why no database stores a document as JSON; ``None`` if they do."""
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        return f"cannot be stored as JSON: {error}"
    return "holds NUL, which no database stores in JSON" if _NUL.search(text) else None


def damage(document: Any) -> str | None:
    """What is wrong with the form of a change info document; ``None`` if nothing is.

    :param document: whatever stands in its place
    """
    if not isinstance(document, dict):
        return "must be a JSON object"
    names = document.get("hidden_cols_changed", [])
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        return "hidden_cols_changed must be a list of names"
    purged = document.get("purged", {})
    return (
        _damage_of_telling(document, "")
        or damage_of_marks(document.get("erased", []))
        or ("purged must be a JSON object" if not isinstance(purged, dict) else _damage_of_telling(purged, "purged."))
    )


def damage_of_marks(marks: Any) -> str | None:
    """What is wrong with the form of what a document says of erasures; ``None`` if nothing is."""
    if not (isinstance(marks, list) and all(isinstance(mark, dict) for mark in marks)):
        return "erased must be a list of JSON objects"
    for mark in marks:
        columns = mark.get("columns")
        if not (isinstance(columns, list) and all(isinstance(name, str) for name in columns)):
            return "erased: columns must be a list of names"
        if not isinstance(mark.get("reasons"), bool):
            return "erased: reasons must be true or false"
        if not _is_instant(mark.get("at")):
            return "erased: at must be an instant, as 2026-03-01T09:00:00.000000Z"
        if problem := _damage_of_telling(mark, "erased: "):
            return problem
    return None


def _damage_of_telling(document: Mapping[str, Any], place: str) -> str | None:
    """What is wrong with what tells of who and why."""
    for name in ("user_id", "remote_addr"):
        if not isinstance(document.get(name), str | None):
            return f"{place}{name} must be a text or null"
    return None if isinstance(document.get("extra", {}), dict) else f"{place}extra must be a JSON object"


def _is_instant(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value) is not None
    except ValueError:
        return False

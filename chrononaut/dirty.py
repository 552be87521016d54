"""What a flush is going to change of an object, and what the database has to be asked for to know it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import InstanceState, LoaderCallableStatus, object_session
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.base import NO_VALUE

from chrononaut.archive import OPTIONS, Transaction, changed_meanwhile
from chrononaut.history import Versioning
from chrononaut.locking import locking
from chrononaut.types import is_distinct


class Dirty(NamedTuple):
    """The attributes that a flush sets.

    :ivar known: to another value than the row has
    :ivar unknown: to a value that cannot be compared in memory: the row's is not loaded, or this one is an expression
    :ivar stamped: will an UPDATE, because of an untracked attribute, set tracked ones by their ``onupdate``?
    """

    known: frozenset[str]
    unknown: tuple[str, ...]
    stamped: bool


class Compared(NamedTuple):
    """What the database says of a row: its version, and which attributes differ from it."""

    version: int
    changed: frozenset[str]


def dirty(versioning: Versioning, state: InstanceState[Any]) -> Dirty:
    """What a flush sets of an object, as far as memory tells."""
    known, unknown, stamped = set(), [], False
    for name, loaded in state.committed_state.items():
        column = versioning.columns.get(name)
        if column is None:
            continue
        value = state.dict.get(name, NO_VALUE)
        is_loaded = not isinstance(loaded, LoaderCallableStatus)
        if is_loaded and value is not NO_VALUE and column.type.compare_values(value, loaded) is True:
            continue
        if name in versioning.untracked:
            stamped = bool(versioning.stamped)
        elif is_loaded and not _is_expression(value):
            known.add(name)
        else:
            unknown.append(name)
    return Dirty(frozenset(known), tuple(unknown), stamped)


def dirty_hidden(versioning: Versioning, state: InstanceState[Any]) -> list[str]:
    """The hidden attributes that an UPDATE sets, in mapping order."""
    if not versioning.hidden:
        return []
    found = dirty(versioning, state)
    changed = {*found.known, *found.unknown, *versioning.stamped}
    return [name for name in versioning.hidden if name in changed]


def given_hidden(versioning: Versioning, state: InstanceState[Any]) -> list[str]:
    """The hidden attributes that an INSERT gives a value, be it their default, in mapping order."""
    given = state.dict
    return [
        name
        for name, column in versioning.hidden.items()
        if given.get(name) is not None
        or (name not in given and (column.default is not None or column.server_default is not None))
    ]


def known_version(versioning: Versioning, state: InstanceState[Any]) -> int | None:
    """The version of the row that the session has loaded; ``None`` where it is expired or deferred."""
    name = versioning.options.names.version
    version = state.committed_state.get(name, state.dict.get(name))
    return version if isinstance(version, int) else None


def compare(
    connection: Connection,
    versioning: Versioning,
    state: InstanceState[Any],
    transaction: Transaction | None,
    names: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
) -> Compared:
    """Lock a row and let the database say which attributes a flush would really change.

    For objects whose row is not loaded, so that the old values need not be either.

    :param transaction: what the session has captured, if it has captured anything yet
    :param values: what the attributes are compared with; by default what the object has
    :raises ConcurrentChangeError: the row is gone, or was changed where the transaction does not see it
    """
    given = state.dict if values is None else values
    columns = [is_distinct(versioning.columns[name], given.get(name), connection.dialect).label(name) for name in names]
    identity = tuple(state.identity or ())
    statement = (
        sa.select(versioning.version, *columns)
        .select_from(versioning.rows)
        .where(*(column == part for column, part in zip(versioning.key_columns, identity, strict=True)))
        .with_for_update(key_share=True)
    )
    with locking(versioning, [identity]):
        row = connection.execute(statement, execution_options=OPTIONS).one_or_none()
    if row is None:
        raise changed_meanwhile(connection, versioning, [identity], [None], transaction)
    version, *distinct = row
    return Compared(version, frozenset(name for name, differs in zip(names, distinct, strict=True) if differs))


def leave_alone(obj: Any, names: Sequence[str]) -> None:
    """Take attributes out of the flush that were set to the value which the row has."""
    for name in names:
        value = sa.inspect(obj).dict.get(name)
        if _is_expression(value):
            forget(obj, name)
        else:
            set_committed_value(obj, name, value)


def forget(obj: Any, name: str) -> None:
    """Take an attribute out of the flush; it is loaded anew when it is asked for."""
    session = object_session(obj)
    assert session is not None
    session.expire(obj, [name])


def _is_expression(value: object) -> bool:
    return isinstance(value, sa.ClauseElement) or hasattr(value, "__clause_element__")

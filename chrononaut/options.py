"""The ``__chrononaut_*__`` options of a model, read and checked once, when its class is defined."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import Mapper

from chrononaut.exceptions import OptionError
from chrononaut.retention import Retention


@dataclass(frozen=True, slots=True)
class Names:
    """What our own attributes are called, on the model (``version``) and on its history (all)."""

    version: str = "version"
    operation: str = "operation"
    changed: str = "changed"
    change_info: str = "change_info"
    transaction_id: str = "transaction_id"
    valid_from: str = "valid_from"


SESSION = "__chrononaut_session__"
"""What the declarative base of a `VersionedSQLAlchemy` has: a function that returns the session, which captures."""

BOOKKEEPING = "__chrononaut_bookkeeping__"
"""The attributes of a model that say of a row who changed it last and when: no part of its state."""

ANY_TEXT = re.compile(r"[\s\S]+", re.ASCII)
"""The pattern of a required reason that any text will do for which has a character that can be seen."""

RETENTION = "__chrononaut_retention__"
"""The option that says what of history is kept."""

_REQUIRED = "__chrononaut_required__"
_DROPPED = "__chrononaut_dropped__"
_OPTIONS = (
    *("__chrononaut_hidden__", "__chrononaut_untracked__", "__chrononaut_tablename__", "__chrononaut_rename__"),
    *(_REQUIRED, _DROPPED, RETENTION),
)
_METHODS = (
    *("versions", "version_at", "has_changed_since", "previous_version", "diff", "changes", "blame", "revert_to"),
    *("delete_with_history", "as_of", "feed", "timeline", "restore", "erase", "cuts"),
)
OWN_NAMES = tuple(field.name for field in fields(Names))


@dataclass(frozen=True, slots=True)
class Options:
    """How one model is versioned.

    ``hidden`` and ``untracked`` are attribute names, in mapping order; ``required`` are keys of the change info's
    ``extra``, each with the pattern of its whole value; ``dropped`` are attribute names, each with its column;
    ``retention`` is ``None`` where all is kept.
    """

    history_table: str
    hidden: tuple[str, ...]
    untracked: tuple[str, ...]
    names: Names
    required: Mapping[str, re.Pattern[str]]
    dropped: Mapping[str, sa.Column[Any]]
    retention: Retention | None


def read_options(mapper: Mapper[Any]) -> Options:
    """The options of a mapped class.

    ``__chrononaut_tablename__``
        the name of the history table; by default that of the table with ``_history``
    ``__chrononaut_hidden__``
        attribute names whose changes are noted and whose values are never kept
    ``__chrononaut_untracked__``
        attribute names that are ignored
    ``__chrononaut_rename__``
        other names for our own columns, as ``{"version": "row_version"}``
    ``__chrononaut_required__``
        what the change info of every write must say: a key of its ``extra`` → a regular expression that the whole value
        matches, as ``{"ticket": r"[A-Z]+-\\d+"}``; or a list of keys, whose values are any text. No blank text is a
        reason, whatever the pattern: it needs a letter, a digit, a punctuation mark or a symbol.
        ``\\d`` and ``\\w`` are those of ASCII, as in JavaScript, to which a service may tell the pattern. Values may
        come from outside: repeat nothing that repeats by itself (``(a+)+``), which takes for ever to match; what is
        longer than 1000 characters fits no pattern.
    ``__chrononaut_dropped__``
        tracked columns that the model once had and its table no longer has: attribute name → type, as
        ``{"nickname": sa.String(80)}``, or the column, where that had another name. Their history stays, and old
        versions have the attribute; newer ones have ``None``. It is no difference between two versions.
    ``__chrononaut_retention__``
        a `chrononaut.Retention`: which prior versions ``flask history purge`` keeps; by default all

    :raises OptionError: an option is wrong, or one of our columns would take the place of one of the model's
    """
    model = mapper.class_
    refuse_uncaptured(model)
    _refuse_unknown(model)
    columns = state_columns(mapper)
    key = {mapper.get_property_by_column(column).key for column in mapper.primary_key}
    return _checked(
        model,
        Options(
            history_table=_table_name(mapper, getattr(model, "__chrononaut_tablename__", None)),
            hidden=_attributes(model, "__chrononaut_hidden__", columns, key),
            untracked=_attributes(model, "__chrononaut_untracked__", columns, key),
            names=_names(mapper, {column.name for column in columns.values()}),
            required=_required(model),
            dropped=_dropped(mapper, {}),
            retention=_retention(model),
        ),
    )


def state_columns(mapper: Mapper[Any]) -> dict[str, Any]:
    """Attribute name → column of the mapper's own table, but for bookkeeping."""
    left_out = getattr(mapper.class_, BOOKKEEPING, ())
    return {
        name: column
        for name, column in mapper.columns.items()
        if column.table is mapper.local_table and name not in left_out
    }


def inherit_options(mapper: Mapper[Any], parent: Options, own: Mapping[str, Any]) -> Options:
    """The options of a class that inherits from a versioned model: the model's, and those of its own columns.

    :param own: attribute name → column that the class adds
    :raises OptionError: an option is wrong, or would change how the columns of the parent are versioned
    """
    model = mapper.class_
    _refuse_unknown(model)
    given = {}
    for option, inherited in (("__chrononaut_hidden__", parent.hidden), ("__chrononaut_untracked__", parent.untracked)):
        added = [name for name in _listed(model, option) if name not in inherited]
        given[option] = (*inherited, *_attributes(model, option, own, set(), added))
    required = _required(model)
    if changed := [key for key, pattern in required.items() if parent.required.get(key, pattern) != pattern]:
        raise OptionError(
            model.__name__, _REQUIRED, f"the model it inherits from has a pattern for {changed[0]} already"
        )
    renamed = getattr(model, "__chrononaut_rename__", {})
    if any(getattr(parent.names, own_name, None) != name for own_name, name in renamed.items()):
        raise OptionError(
            model.__name__, "__chrononaut_rename__", "our columns are named by the model it inherits from"
        )
    names = [getattr(parent.names, own_name) for own_name in OWN_NAMES]
    if taken := [name for name in names if name in own or any(column.name == name for column in own.values())]:
        raise OptionError(model.__name__, taken[0], "the history needs this name for its own; give the column another")
    _refuse_hiding(mapper, own)
    table_name = vars(model).get("__chrononaut_tablename__")
    return _checked(
        model,
        Options(
            history_table=_table_name(mapper, table_name),
            hidden=given["__chrononaut_hidden__"],
            untracked=given["__chrononaut_untracked__"],
            names=parent.names,
            required={**parent.required, **required},
            dropped={**parent.dropped, **_dropped(mapper, parent.dropped)},
            retention=_inherited_retention(model, parent),
        ),
    )


def _refuse_unknown(model: type) -> None:
    known = {*_OPTIONS, SESSION, BOOKKEEPING}
    unknown = [
        name for name in dir(model) if name.startswith("__chrononaut_") and name not in known | {"__chrononaut__"}
    ]
    if unknown:
        raise OptionError(model.__name__, unknown[0], f"there is no such option; there are {', '.join(_OPTIONS)}")


def refuse_uncaptured(model: type) -> None:
    """:raises OptionError: no session would capture what happens to a model"""
    if not hasattr(model, SESSION):
        raise OptionError(
            model.__name__,
            "Versioned",
            "needs db.Model of a VersionedSQLAlchemy beside it, whose sessions capture; no other's do",
        )


def _retention(model: type) -> Retention | None:
    retention: object = getattr(model, RETENTION, None)
    if retention is None or isinstance(retention, Retention):
        return retention
    raise OptionError(model.__name__, RETENTION, f"must be a Retention, as Retention(versions=10), not {retention!r}")


def _inherited_retention(model: type, parent: Options) -> Retention | None:
    retention = _retention(model)
    if retention != parent.retention:
        raise OptionError(model.__name__, RETENTION, "its records are purged as those of the model it inherits from")
    return retention


def check_held(model: str, option: str, retention: Retention | None, tracked: Iterable[str]) -> None:
    """Check that what is held can be told, of deleted records too.

    :param option: where the policy is declared
    :raises OptionError: it names no attribute whose values history keeps
    """
    held = None if retention is None else retention.held
    if isinstance(held, str) and held not in tracked:
        raise OptionError(
            model, option, f"held must name a tracked attribute, not {held!r}; there are {', '.join(tracked)}"
        )


def _checked(model: type, options: Options) -> Options:
    both = [name for name in options.hidden if name in options.untracked]
    if both:
        raise OptionError(
            model.__name__, "__chrononaut_untracked__", f"hidden and untracked at once: {', '.join(both)}"
        )
    return options


def _listed(model: type, option: str) -> tuple[str, ...]:
    given: Iterable[str] = getattr(model, option, ())
    if isinstance(given, str):
        raise OptionError(model.__name__, option, f"must be a list of attribute names, not the string {given!r}")
    if not isinstance(given, Iterable):
        raise OptionError(model.__name__, option, f"must be a list of attribute names, not {given!r}")
    return tuple(given)


def _required(model: type) -> Mapping[str, re.Pattern[str]]:
    given: object = getattr(model, _REQUIRED, ())
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise OptionError(
            model.__name__, _REQUIRED, f'must be a mapping of patterns, as {{"ticket": "T-[0-9]+"}}, not {given!r}'
        )
    patterns = given if isinstance(given, Mapping) else dict.fromkeys(given, ANY_TEXT.pattern)
    for key, pattern in patterns.items():
        if not isinstance(key, str) or not key:
            raise OptionError(model.__name__, _REQUIRED, f"a key of the change info is a text, not {key!r}")
        if not isinstance(pattern, str):
            raise OptionError(model.__name__, _REQUIRED, f"the pattern of {key} must be a text, not {pattern!r}")
    return {key: _compiled(model, key, pattern) for key, pattern in patterns.items()}


def _dropped(mapper: Mapper[Any], inherited: Mapping[str, Any]) -> dict[str, sa.Column[Any]]:
    model = mapper.class_
    given: object = getattr(model, _DROPPED, {})
    if not isinstance(given, Mapping) or not all(map(_is_name, given)):
        raise OptionError(model.__name__, _DROPPED, f'must be a mapping, as {{"nickname": String(80)}}, not {given!r}')
    columns = {name: _column(model, name, described) for name, described in given.items() if name not in inherited}
    there = {column.name for column in mapper.columns}
    for name, column in columns.items():
        if hasattr(model, name) or column.name in there or {name, column.name} & set(OWN_NAMES):
            raise OptionError(model.__name__, _DROPPED, f"{name} is dropped, and the model still has what is called so")
    return columns


def _column(model: type, name: str, described: Any) -> sa.Column[Any]:
    if isinstance(described, sa.Column):
        return described
    try:
        return sa.Column(name, sa.types.to_instance(described))
    except sa.exc.ArgumentError:
        raise OptionError(model.__name__, _DROPPED, f"{name} needs a type or a column, not {described!r}") from None


def _compiled(model: type, key: str, pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern, re.ASCII)
    except re.error as error:
        raise OptionError(
            model.__name__, _REQUIRED, f"the pattern of {key} is no regular expression, {pattern!r}: {error}"
        ) from None
    if compiled.fullmatch(""):
        raise OptionError(
            model.__name__,
            _REQUIRED,
            f"the pattern of {key} matches the empty text, {pattern!r}: it would require nothing",
        )
    return compiled


def _attributes(
    model: type, option: str, columns: Mapping[str, Any], key: set[str], given: Iterable[str] | None = None
) -> tuple[str, ...]:
    given = _listed(model, option) if given is None else tuple(given)
    unknown = [name for name in given if name not in columns]
    if unknown:
        raise OptionError(
            model.__name__, option, f"no such columns: {', '.join(map(str, unknown))}; there are {', '.join(columns)}"
        )
    if keys := [name for name in given if name in key]:
        raise OptionError(model.__name__, option, f"a key column cannot be left out of history: {', '.join(keys)}")
    return tuple(name for name in columns if name in given)


def _table_name(mapper: Mapper[Any], name: object) -> str:
    model, table = mapper.class_, cast(sa.Table, mapper.local_table)
    if name is None:
        name = f"{getattr(table, 'name', model.__name__)}_history"
    if not isinstance(name, str) or not name:
        raise OptionError(model.__name__, "__chrononaut_tablename__", f"must be a table name, not {name!r}")
    taken = (f"{table.schema}.{name}" if table.schema else name) in table.metadata.tables
    if taken and not mapper.single:
        raise OptionError(
            model.__name__,
            "__chrononaut_tablename__",
            f"there is a table {name} already, and the history needs one of its own; give it another name",
        )
    return name


def _names(mapper: Mapper[Any], column_names: set[str]) -> Names:
    model = mapper.class_
    option = "__chrononaut_rename__"
    renamed = getattr(model, option, {})
    if not isinstance(renamed, Mapping) or not all(map(_is_name, renamed.values())):
        raise OptionError(model.__name__, option, 'must be a mapping of names, as {"version": "row_version"}')
    unknown = [name for name in renamed if name not in OWN_NAMES]
    if unknown:
        raise OptionError(
            model.__name__, option, f"no such names of ours: {', '.join(unknown)}; there are {', '.join(OWN_NAMES)}"
        )
    names = Names(**renamed)
    chosen = [getattr(names, own) for own in OWN_NAMES]
    if len(set(chosen)) < len(chosen):
        raise OptionError(model.__name__, option, f"two of ours would have one name: {', '.join(chosen)}")
    _refuse_hiding(mapper, [name for name in _METHODS if mapper.has_property(name)])
    for own, name in zip(OWN_NAMES, chosen, strict=True):
        if own == "version" and name not in column_names and _inherits_version(mapper):
            continue
        if name in getattr(model, BOOKKEEPING, ()):
            continue
        if mapper.has_property(name) or name in column_names or hasattr(model, name):
            raise OptionError(
                model.__name__,
                name,
                f"the model has this attribute already, and the history needs it for its own; "
                f'rename ours with {option} = {{"{own}": "another_name"}}',
            )
    return names


def _inherits_version(mapper: Mapper[Any]) -> bool:
    """Is a model concrete, so that it has a version of its own in the place of the one that it inherits?"""
    return mapper.concrete and mapper.inherits is not None and hasattr(mapper.inherits.class_, "__chrononaut__")


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name.isidentifier() and not name.startswith("__")


def _refuse_hiding(mapper: Mapper[Any], attributes: Iterable[str]) -> None:
    if hiding := [name for name in _METHODS if name in attributes]:
        raise OptionError(
            mapper.class_.__name__,
            hiding[0],
            "the attribute would hide a method of Versioned; give it another name than its column",
        )

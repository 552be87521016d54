"""The change feed: what happened to all records of a model, newest first, and what one transaction changed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, get_args
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Session, aliased

from chrononaut.changes import Change, changes_of
from chrononaut.exceptions import UntrackedAttributeError
from chrononaut.history import Key, Operation, Versioning, full_name, versioning_of
from chrononaut.queries import blamed, follows, history_key, of_model
from chrononaut.types import as_loaded, has_text, is_distinct, lists_name, utc

_OPERATIONS: tuple[str, ...] = get_args(Operation)


def _refuse_other(name: str, value: object, type_: type) -> None:
    if value is not None and not isinstance(value, type_):
        raise TypeError(f"{name} must be a {type_.__name__}, not {type(value).__name__}")
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"{name} holds NUL, which no database stores")


@dataclass(frozen=True, slots=True)
class ChangeFilter:
    """Which changes of a model are asked for; all by default.

    Only the instants and the transaction have an index: what else is asked for is looked for from the newest change on.

    :ivar since: only later than this instant
    :ivar until: only at this instant or earlier, so that the two split the feed
    :ivar extra: key → value of the change info's ``extra``; all must be there
    :ivar attribute: only changes of this attribute, a tracked or a hidden one; that a record is created or deleted with
        a value of it is a change too, and so is what was purged, which may have changed it
    :raises TypeError: a value is of the wrong type
    :raises ValueError: there is no such operation, or a text holds NUL
    """

    since: datetime | None = None
    until: datetime | None = None
    user_id: str | None = None
    operation: Operation | None = None
    transaction_id: UUID | None = None
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)
    attribute: str | None = None

    def __post_init__(self) -> None:
        for name, type_ in (("since", datetime), ("until", datetime), ("user_id", str), ("attribute", str)):
            _refuse_other(name, getattr(self, name), type_)
        _refuse_other("transaction_id", self.transaction_id, UUID)
        for name, text in self.extra.items():
            _refuse_other("a key of extra", name, str)
            _refuse_other(f"extra {name!r}", text, str)
        if self.operation is not None and self.operation not in _OPERATIONS:
            raise ValueError(f"operation must be one of {', '.join(_OPERATIONS)}, not {self.operation!r}")


EVERYTHING = ChangeFilter()


@dataclass(frozen=True, slots=True)
class Position:
    """A place among the changes of a model, or of a transaction: that of a change.

    :ivar model: `place_of` its model
    """

    model: str
    at: datetime
    key: Key
    version: int


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Some changes, in the order of what they are a page of.

    :ivar next: where the next page begins; ``None`` on the last one
    """

    changes: list[Change]
    next: Position | None


def feed(
    session: Session, model: type, which: ChangeFilter, limit: int = 50, cursor: Position | None = None
) -> FeedPage:
    """A page of the changes of all records of a model, newest first.

    The changes of one instant are in the order of their keys. Pages that follow each other hold every change that was
    there when the first was read exactly once, whatever is written meanwhile.

    :param limit: changes on the page at the most
    :param cursor: `FeedPage.next` of the page before; the first page by default
    :raises AttributeError: the filter's attribute is none of the model's
    :raises UntrackedAttributeError: the filter's attribute is untracked
    :raises ValueError: the limit is less than 1, or the cursor is one of another feed
    """
    _refuse_limit(limit)
    versioning = versioning_of(model)
    order = [versioning.column("changed"), *history_key(versioning), versioning.column("version")]
    select = (
        sa.select(versioning.history)
        .where(*_criteria(versioning, which, _dialect(session, versioning)), *of_model(versioning))
        .order_by(*(column.desc() for column in order))
        .limit(limit + 1)
    )
    if cursor is not None and cursor.model != place_of(versioning):
        raise ValueError(f"the cursor is of {cursor.model}, not of {place_of(versioning)}")
    if cursor is not None:
        position = _values(order, (utc(cursor.at), *cursor.key, cursor.version))
        select = select.where(sa.tuple_(*order) < position)
    rows = session.scalars(select).all()
    return _page(changes_of(session, versioning, rows[:limit]), len(rows) > limit)


def transaction(
    session: Session,
    models: Iterable[Versioning],
    transaction_id: UUID,
    limit: int | None = None,
    cursor: Position | None = None,
) -> FeedPage:
    """What one transaction changed, in the order of the models' names, keys and versions.

    A record is told of by the most specific of the models that have it.

    :param models: those to look at
    :param limit: changes on the page at the most; all by default
    :param cursor: `FeedPage.next` of the page before; the first page by default
    :raises TypeError: the id is no UUID
    :raises ValueError: the limit is less than 1
    """
    _refuse_limit(limit)
    _refuse_other("a transaction id", transaction_id, UUID)
    changes: list[Change] = []
    for versioning in sorted(models, key=place_of):
        if cursor is not None and place_of(versioning) < cursor.model:
            continue
        order = [*history_key(versioning), versioning.column("version")]
        select = (
            sa.select(versioning.history)
            .where(versioning.column("transaction_id") == transaction_id, *of_model(versioning, exactly=True))
            .order_by(*order)
        )
        if cursor is not None and place_of(versioning) == cursor.model:
            select = select.where(sa.tuple_(*order) > _values(order, (*cursor.key, cursor.version)))
        if limit is not None:
            select = select.limit(limit + 1 - len(changes))
        changes += changes_of(session, versioning, session.scalars(select).all())
        if limit is not None and len(changes) > limit:
            return _page(changes[:limit], True)
    return FeedPage(changes, None)


def place_of(versioning: Versioning) -> str:
    """By what the models of a transaction are ordered: their names; two of one name by their tables."""
    return f"{versioning.name} {full_name(versioning.tables[-1].live)}"


def _refuse_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")


def _values(columns: Sequence[sa.Column[Any]], values: Iterable[Any]) -> sa.Tuple:
    return sa.tuple_(*(sa.literal(value, column.type) for value, column in zip(values, columns, strict=True)))


def _page(changes: list[Change], has_more: bool) -> FeedPage:
    if not has_more:
        return FeedPage(changes, None)
    last = changes[-1]
    return FeedPage(changes, Position(place_of(versioning_of(last.model)), last.at, last.key, last.version))


def _dialect(session: Session, versioning: Versioning) -> Dialect:
    return session.get_bind(versioning.mapper).dialect


def _criteria(versioning: Versioning, which: ChangeFilter, dialect: Dialect) -> Iterator[sa.ColumnElement[bool]]:
    changed, info = versioning.column("changed"), versioning.column("change_info")
    if which.since is not None:
        yield changed > utc(which.since)
    if which.until is not None:
        yield changed <= utc(which.until)
    if which.user_id is not None:
        yield info["user_id"].as_string() == which.user_id
    if which.operation is not None:
        yield versioning.column("operation") == which.operation
    if which.transaction_id is not None:
        yield versioning.column("transaction_id") == which.transaction_id
    for name, value in which.extra.items():
        yield has_text(info, "extra", name, value, dialect.name)
    if which.attribute is not None:
        yield _changes_attribute(versioning, which.attribute, dialect)


def _changes_attribute(versioning: Versioning, name: str, dialect: Dialect) -> sa.ColumnElement[bool]:
    purged = versioning.column("operation") == "purge"
    if name in versioning.hidden:
        return sa.or_(purged, lists_name(versioning.column("change_info"), "hidden_cols_changed", name, dialect.name))
    if name in versioning.untracked:
        raise UntrackedAttributeError(versioning.name, name)
    if name not in blamed(versioning):
        there = ", ".join(blamed(versioning))
        raise AttributeError(f"no change sets {name!r} of a {versioning.name}; there are {there}")
    before = as_loaded(getattr(versioning.history, name), dialect)
    prior: Any = aliased(versioning.history, flat=True)
    # What a state was changed into that was purged is not known.
    is_known = getattr(prior, versioning.options.names.operation) != "purge"
    # The row of an insert has no state: NULL.
    following = [
        sa.exists()
        .select_from(entity)
        .where(*follows(versioning, entity), is_distinct(before, as_loaded(getattr(entity, name), dialect), dialect))
        .where(*criteria)
        for entity, criteria in ((prior, (is_known,)), (aliased(versioning.model, flat=True), ()))
    ]
    is_delete = versioning.column("operation") == "delete"
    return sa.or_(purged, sa.and_(is_delete, before.is_not(None)), sa.and_(~is_delete, sa.or_(*following)))

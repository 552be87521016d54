"""The mixins: `Versioned` keeps every prior version, `RecordChanges` who changed a row last, when and why."""

from collections.abc import Callable, Collection
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, overload

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import InstanceState, Mapped, Mapper, Query, Session, declared_attr, mapped_column, object_session
from sqlalchemy.orm.attributes import flag_modified, get_history, set_committed_value
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE

from chrononaut import queries
from chrononaut.as_of import AsOf
from chrononaut.capture import capture_models
from chrononaut.change_info import CapturesChangeInfo, appended_to, take_appended, with_extra
from chrononaut.changes import Change
from chrononaut.cuts import Cut
from chrononaut.diff import Differences
from chrononaut.erasing import Erasure
from chrononaut.exceptions import DetachedError
from chrononaut.feed import EVERYTHING, ChangeFilter, FeedPage, Position, feed
from chrononaut.history import History, Versioning, versioning_of
from chrononaut.options import refuse_uncaptured
from chrononaut.session import instant_of
from chrononaut.timeline import Timeline
from chrononaut.types import Instant, JSONDocument, JSONObject


class Versioned(CapturesChangeInfo):
    """Keeps every prior version of a model's records in ``<table>_history``.

    ::

        class User(db.Model, Versioned):
            __chrononaut_hidden__ = ["password_hash"]   # changes are noted, values are never kept
            __chrononaut_untracked__ = ["last_seen_at"]  # ignored

    The model gets the column ``version``: 0 for the first state of a record, +1 with every change. The options
    are those of `read_options <chrononaut.options.read_options>`. The methods flush pending changes first, as any query
    does; on an object that belongs to no session they raise `DetachedError`.
    """

    if TYPE_CHECKING:
        __chrononaut__: ClassVar[Versioning]
        __chrononaut_session__: ClassVar[Callable[[], Session]]
        version: Mapped[int]

    def __init_subclass__(cls, **options: Any) -> None:
        if {"__tablename__", "__table__"} & vars(cls).keys():
            # Without a declarative base the class would never be mapped, and nobody would notice.
            refuse_uncaptured(cls)
        super().__init_subclass__(**options)

    @overload
    def versions(
        self, before: datetime | None = None, after: datetime | None = None, return_query: Literal[False] = False
    ) -> list[History]: ...

    @overload
    def versions(
        self, before: datetime | None = None, after: datetime | None = None, *, return_query: Literal[True]
    ) -> Query[History]: ...

    def versions(
        self, before: datetime | None = None, after: datetime | None = None, return_query: bool = False
    ) -> list[History] | Query[History]:
        """The prior versions, oldest first; what was purged of them `cuts` tells.

        :param before: only versions that ended at this instant or earlier; a naive one is read as UTC
        :param after: only versions that ended later than this instant, so that the two split the history
        :param return_query: return the query, to be filtered further, instead of its result
        """
        timeline = self._timeline()
        if not return_query:
            return timeline.versions(before, after)
        select = queries.versions(type(self), timeline.key, before, after)
        query: Query[History] = timeline.session.query(versioning_of(type(self)).history)
        criteria = () if select.whereclause is None else (select.whereclause,)
        return query.filter(*criteria).order_by(versioning_of(type(self)).column("version"))

    def cuts(self) -> list[Cut]:
        """What was purged of the record, oldest first: that there were older versions, and when and why they went."""
        return self._timeline().cuts()

    def version_at(self, at: datetime) -> Any:
        """The state that was valid at an instant.

        :param at: an instant; a naive one is read as UTC. Resolution 1 µs.
        :return: a history object; this object itself if its current state was valid then; ``None`` before the record's
            creation or while it was deleted
        :raises PurgedError: what was valid then was purged
        """
        return self._timeline().version_at(at)

    @classmethod
    def as_of(cls, at: datetime) -> AsOf:
        """All records as they were at an instant, those that were deleted since included.

        ::

            db.session.scalars(User.as_of(at).where(User.active).order_by(User.name))
            db.session.scalars(Item.as_of(at).with_parent(user, User.items))

        :param at: an instant; a naive one is read as UTC. Resolution 1 µs. One that is yet to come gives what is now.
        :return: a select of history objects of this model's, in which everything is as of the instant
        """
        return AsOf(sa.select(cls), at)

    def has_changed_since(self, since: datetime) -> bool:
        """Was the record updated or deleted later than an instant?

        :param since: an instant; a naive one is read as UTC
        """
        return self._timeline().has_changed_since(since)

    def previous_version(self) -> History | None:
        """The state before the current one; ``None`` if there was none.

        :raises PurgedError: it was purged
        """
        return self._timeline().previous_version()

    def changes(self) -> list[Change]:
        """What happened to the record, its creation included, oldest first."""
        return self._timeline().changes()

    def blame(self) -> dict[str, Change | None]:
        """For each attribute the change that gave it the value that it has. See `Timeline.blame`."""
        return self._timeline().blame()

    def revert_to(self, version: int | History, **values: Any) -> Self:
        """Set the attributes to what they were in a prior version. See `Timeline.revert_to`.

        ::

            user.revert_to(3)
            db.session.commit()

        :param version: a version's number, or a history object
        :param values: attribute name → value, which goes before the old one
        :return: this object
        :raises RestoreError: there is no such version; a value is missing that must be there
        :raises PurgedError: it was purged
        """
        self._timeline().revert_to(version, **values)
        return self

    @classmethod
    def restore(cls, key: Any, version: int | History | None = None, **values: Any) -> Self:
        """Make a deleted record anew, with the state that it had. See `Timeline.restore`.

        ::

            user = User.restore(42, password_hash=new_hash)
            db.session.commit()

        :param key: the record key: one value, or a tuple in mapping order
        :param version: a version's number, or a history object; by default the last state before the deletion
        :param values: attribute name → value, for hidden and untracked attributes that cannot be empty
        :return: the new object, which is pending in the session
        :raises RestoreError: the record is live, or never was; a value is missing that must be there
        :raises PurgedError: the version was purged
        """
        restored: Self = cls.timeline(key).restore(version, **values)
        return restored

    @classmethod
    def timeline(cls, key: Any) -> Timeline:
        """The history of a record by its key: whether it is live or deleted.

        :param key: one value, or a tuple in mapping order
        :raises ValueError: the key has too few or too many parts
        """
        return Timeline(cls.__chrononaut_session__(), cls, key if isinstance(key, tuple) else (key,))

    @classmethod
    def feed(cls, which: ChangeFilter = EVERYTHING, *, limit: int = 50, cursor: Position | None = None) -> FeedPage:
        """A page of what happened to all records of the model, newest first.

        ::

            of_admin = ChangeFilter(user_id="admin@example.com", attribute="email")
            page = User.feed(of_admin)
            more = User.feed(of_admin, cursor=page.next)

        :param which: which changes; all by default
        :param limit: changes on the page at the most
        :param cursor: ``next`` of the page before
        :raises AttributeError: the filter's attribute is none of the model's
        :raises UntrackedAttributeError: the filter's attribute is untracked
        """
        return feed(cls.__chrononaut_session__(), cls, which, limit, cursor)

    def diff(self, from_model: Any, to: Any = None, include_hidden: bool = False) -> Differences:
        """What changed between two states of this record.

        :param from_model: a history object
        :param to: a later history object, or this object; this object by default
        :param include_hidden: list the hidden attributes that changed, as ``(None, None)`` against a history object and
            as ``(None, value now)`` against this object
        :return: attribute name → (value before, value after)
        :raises DiffError: states of another record, a ``from_model`` that is no history object, a ``to`` that is older
        """
        return self._timeline().diff(from_model, to, include_hidden)

    def erase(self, columns: Collection[str] | None = None, *, reasons: bool = True) -> Erasure:
        """Erase values of this record from all its history; this object keeps them. See `Timeline.erase`.

        :param columns: attribute names; by default all that can be erased
        :param reasons: does the ``extra`` of the change infos go too?
        """
        return self._timeline().erase(columns, reasons=reasons)

    def delete_with_history(self) -> int:
        """Delete the record and all its history, in the session's transaction. No trace is left.

        `Timeline.delete_with_history` does it for a record that is deleted already.

        :return: how many history rows were deleted
        """
        return self._timeline().delete_with_history()

    def _timeline(self) -> Timeline:
        session: Session | None = object_session(self)
        versioning = versioning_of(type(self))
        if session is None:
            raise DetachedError(versioning.name)
        return Timeline(session, type(self), versioning.key_of(self), live=self)


class RecordChanges(CapturesChangeInfo):
    """Keeps on each row when it was last written, by whom and why; without `Versioned`, no prior state.

    ::

        class Note(db.Model, RecordChanges):
            text: Mapped[str]

    The model gets the columns ``changed`` (UTC, the instant of the transaction) and ``change_info``. Every insert and
    update sets them, of objects as well as by bulk statements. Beside `Versioned` they are no part of the state: no
    version keeps them.
    """

    __chrononaut_bookkeeping__ = ("changed", "change_info")

    @declared_attr
    def changed(cls) -> Mapped[datetime | None]:  # noqa: N805  SQLAlchemy passes the class
        return mapped_column(Instant, default=_instant, onupdate=_instant)

    @declared_attr
    def change_info(cls) -> Mapped[JSONObject | None]:  # noqa: N805
        def document() -> JSONObject:
            return cls._capture_change_info()

        return mapped_column(JSONDocument, default=document, onupdate=document)


def _instant(context: Any) -> datetime:
    return instant_of(context.root_connection)


def _record_appended(mapper: Mapper[Any], connection: object, obj: Any) -> None:
    """Add to a row's change info what `append_change_info` has marked the object with, if the flush writes the row."""
    state = sa.inspect(obj)
    if not appended_to(state) or not (state.pending or _is_written(state)):
        return
    # Capture takes the mark when the flush has written the version that it belongs to.
    appended = appended_to(state) if isinstance(obj, Versioned) else take_appended(state)
    set_committed_value(obj, "change_info", with_extra(type(obj)._capture_change_info(), appended))
    # Also where it is what the row has: an UPDATE leaves out what is equal, and `onupdate` would take its place.
    flag_modified(obj, "change_info")


def _is_written(state: InstanceState[Any]) -> bool:
    """Does a flush write an object's row? A collection is no part of it."""
    names = state.committed_state.keys() & state.mapper.column_attrs.keys()
    histories = (get_history(state.obj(), name, PASSIVE_NO_INITIALIZE) for name in names)
    return any(history.has_changes() for history in histories)


def _record_changes(mapper: Mapper[Any], model: type) -> None:
    # Behind the listeners of `Versioned`, whatever the order of the mixins: they know what really changes.
    for written in ("before_insert", "before_update"):
        event.listen(mapper, written, _record_appended)


capture_models(Versioned)
event.listen(RecordChanges, "after_mapper_constructed", _record_changes, propagate=True)

"""The history of one record, asked by its key: whether the record is live, deleted, or never was."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, undefer

from chrononaut import erasing, queries, restoring
from chrononaut.change_info import checked, current_extra
from chrononaut.changes import Change, changes_of
from chrononaut.cuts import Cut
from chrononaut.diff import Differences, differences
from chrononaut.erasing import Erasure
from chrononaut.exceptions import DiffError, ErasureError, RestoreError
from chrononaut.history import NEVER, STATELESS, History, Key, Versioning, versioning_of
from chrononaut.options import OWN_NAMES
from chrononaut.reasons import refuse_unreasoned
from chrononaut.session import capture_by, instant_of
from chrononaut.states import Place, Span
from chrononaut.suppression import suppress_versioning
from chrononaut.types import utc

_HIGHEST = 2**31 - 1  # what the column of versions holds


@dataclass(slots=True)
class Timeline:
    """The states that a record had, and the live object if there is one.

    :param session: the session to ask with
    :param model: a versioned model
    :param key: primary key values, in mapping order
    :param live: the live object where it is at hand; it is loaded otherwise
    :param read: when the state began that the live object was loaded with in this transaction, where that is known
    :raises ValueError: the key has too few or too many parts
    """

    session: Session
    model: type
    key: Key
    live: Any = None
    read: Span | None = None
    _versioning: Versioning = field(init=False)

    def __post_init__(self) -> None:
        self._versioning = versioning_of(self.model)
        if len(self.key) != len(self._versioning.key):
            names = ", ".join(self._versioning.key)
            raise ValueError(f"a key of {self._versioning.name} has a value for {names}; {self.key!r} does not fit")
        if self.session.autoflush:
            # Before the live object is looked at: its version counts what is pending.
            self.session.flush()
        if self.live is None:
            self.live = self.session.get(self.model, self.key)
        elif sa.inspect(self.live).deleted:
            self.live = None

    def versions(self, before: datetime | None = None, after: datetime | None = None) -> list[History]:
        """The prior versions, oldest first.

        :param before: only versions that ended at this instant or earlier; a naive one is read as UTC
        :param after: only versions that ended later than this instant, so that the two split the history
        """
        select = queries.versions(self.model, self.key, before, after)
        return list(self.session.scalars(select.options(undefer(self._versioning.valid_from))))

    def version(self, number: int) -> History | None:
        """One prior version.

        :raises PurgedError: it was purged
        """
        found = self.session.scalars(queries.version(self.model, self.key, number)).one_or_none()
        if found is None:
            row = self.session.scalars(queries.row_from(self.model, self.key, number)).one_or_none()
            cut = row and Cut.of(self._versioning, row)
            if cut and cut.first <= number:
                raise cut.error(self._versioning.name, self.key)
        return found

    def cuts(self, after: int = NEVER, until: int | None = None) -> list[Cut]:
        """What was purged of the record, oldest first: that there were older versions, and when and why they went.

        :param after: only those whose last version has a higher number
        :param until: only those whose last version has this number or a lower one; all by default
        """
        rows = self.session.scalars(queries.cuts(self.model, self.key, after, _HIGHEST if until is None else until))
        return [cut for row in rows if (cut := Cut.of(self._versioning, row))]

    def version_at(self, at: datetime) -> Any:
        """The state that was valid at an instant.

        :return: a history object; the live object if its current state was valid then; ``None`` before the record's
            creation or while it was deleted
        :raises PurgedError: what was valid then was purged
        """
        replaced = self.session.scalars(queries.version_at(self.model, self.key, at)).one_or_none()
        if replaced is None:
            return self.live
        self._refuse_cut(replaced)
        return None if self._versioning.own(replaced, "operation") == "insert" else replaced

    def last_changed(self) -> datetime | None:
        """When the record was last updated or deleted, in UTC; ``None`` if never."""
        return self.session.scalar(queries.last_changed(self.model, self.key))

    def has_changed_since(self, since: datetime) -> bool:
        """Was the record updated or deleted later than an instant?

        :param since: an instant; a naive one is read as UTC
        """
        last = self.last_changed()
        return last is not None and last > utc(since)

    def previous_version(self) -> History | None:
        """The last prior version.

        :raises PurgedError: it was purged
        """
        last = self._last()
        if last is not None:
            self._refuse_cut(last)
        return last

    def valid_from(self) -> datetime | None:
        """When the live state began, in UTC; ``None`` if there is none, or if it was there before versioning."""
        if self.live is None:
            return None
        known = self._known_valid_from()
        if known is not None:
            return known
        return self.session.scalar(queries.valid_from(self.model, self.key, self.number(self.live)))

    def span(self) -> Span | None:
        """Since when the live state is valid; ``None`` for a deleted record."""
        return None if self.live is None else Span(self.number(self.live), self.valid_from(), None)

    def place(self, number: int) -> Place:
        """Where a version stands among the others.

        :param number: the number of a version, whether there is one or not
        """
        rows = self.session.execute(queries.spans_around(self.model, self.key, number)).all()
        return Place.among([Span(*row) for row in rows], self.span(), number)

    def number_at(self, at: datetime) -> int | None:
        """The number of the version that was valid at an instant, or else of the last one that ended before.

        :return: ``None`` if the record was not changed, and not created, by then: then its first version was valid, if
            that was there before the record was versioned
        """
        row = self.session.execute(queries.last_change_by(self.model, self.key, at)).one_or_none()
        if row is None:
            return None
        number, operation = row
        return number if operation == "delete" else number + 1

    def exists(self) -> bool:
        """Is there such a record, or was there ever one?"""
        return self.live is not None or bool(self.session.scalar(queries.exists(self.model, self.key)))

    def changes(self, rows: Sequence[History] | None = None) -> list[Change]:
        """What happened to the record, creation and deletion included.

        :param rows: some of the record's rows of history, in any order; all by default, oldest first
        """
        if rows is None:
            rows = self.session.scalars(queries.changes(self.model, self.key)).all()
        return changes_of(self.session, self._versioning, rows)

    def blame(self) -> dict[str, Change | None]:
        """For each attribute the change that gave it the value that it has, or had when the record was deleted.

        The change's ``differences`` have the value before. What was not changed since the record's creation was given
        by that. All rows of the record's history since its creation are looked at, by the database.

        :return: tracked and hidden attributes but the key's, in mapping order → a change, whose operation is ``purge``
            if the one that set the value was purged; ``None`` if the value was there before the record was versioned,
            or if that is not known, as the values before were erased. Empty if the record never was.
        """
        names = queries.blamed(self._versioning)
        last = self.live or self._last()
        if last is None:
            return {}
        if isinstance(last, History) and Cut.of(self._versioning, last):
            (purged,) = self.changes([last])
            return dict.fromkeys(names, purged)
        end = self.number(last)
        dialect = self.session.get_bind(self._versioning.mapper).dialect
        select = queries.last_set(self.model, self.key, end, self.live is not None, dialect)
        created, *latest = self.session.execute(select).one()
        numbers = {name: created if number is None else number for name, number in zip(names, latest, strict=True)}
        version = self._versioning.column("version")
        rows = self.session.scalars(queries.changes(self.model, self.key).where(version.in_({*numbers.values()}))).all()
        changes = {change.version: change for change in self.changes(rows)}
        # By whom the value was set of which the one before was erased is not known: it may have been the same.
        unknown = {
            (self.number(row), name)
            for row in rows
            if self._versioning.own(row, "operation") not in STATELESS
            for name in self._versioning.erased(row)
        }
        return {name: None if (number, name) in unknown else changes.get(number) for name, number in numbers.items()}

    def revert_to(self, version: int | History, **values: Any) -> Any:
        """Set the live object's attributes to what they were in a prior version: a change like any other.

        Hidden and untracked attributes keep their values, and so do those that the database or the ORM sets by itself.
        Nothing is flushed.

        :param version: a version's number, or a history object of the record, as `version_at` returns it
        :param values: attribute name → value, which goes before the old one
        :return: the live object
        :raises RestoreError: the record is deleted; there is no such version; a value is missing that must be there
        :raises PurgedError: the version was purged
        """
        if self.live is None and self.exists():
            raise RestoreError(f"{self._described()} is deleted: restore it, which makes it anew")
        if self.live is None:
            raise RestoreError(f"there never was a {self._described()}")
        found = self._found(version)
        if type(self.live) is not self.model:
            return self._of(type(self.live)).revert_to(self.number(found), **values)
        restoring.revert(self._versioning, self.live, self._versioning.known(found), values)
        return self.live

    def restore(self, version: int | History | None = None, **values: Any) -> Any:
        """Make a deleted record anew, with the state that it had: an insert like any other.

        Nobody has kept the values of hidden and untracked attributes: they get their defaults, if they are not given.
        Nothing is flushed.

        :param version: a version's number, or a history object of the record; by default the last one
        :param values: attribute name → value, which goes before the old one
        :return: the new object, which is pending in the session
        :raises RestoreError: the record is live, or never was; there is no such version; a value is missing that must
            be there
        :raises PurgedError: the version was purged
        """
        if self.live is not None:
            raise RestoreError(f"{self._described()} is live: revert it with revert_to")
        found = self.previous_version() if version is None else self._found(version)
        if found is None:
            raise RestoreError(f"{self._described()} has no prior version")
        state = self._versioning.known(found)
        kind = self._versioning.mapper.polymorphic_map.get(restoring.kind(self._versioning, state))
        if kind is not None and kind.class_ is not self.model:
            return self._of(kind.class_).restore(self.number(found), **values)
        self.live = restoring.recreate(self._versioning, self.key, state, values)
        self.session.add(self.live)
        return self.live

    def diff(self, from_: Any, to: Any = None, include_hidden: bool = False) -> Differences:
        """What changed between two states.

        :param from_: a history object of this record
        :param to: a later history object of this record, or the live object; the live object by default
        :param include_hidden: list the hidden attributes that changed, as ``(None, None)`` against a history object and
            as ``(None, value now)`` against the live object
        :return: attribute name → (value before, value after); without those that were erased from one of the two
        :raises DiffError: objects of another record, a ``from_`` that is no history object, a ``to`` that is older
        """
        to = self.live if to is None else to
        self._check_comparable(from_, to)
        changed = differences(self._versioning.known(from_), self._versioning.known(to))
        if include_hidden:
            for name in self.hidden_changes(from_, to):
                changed[name] = (None, None if isinstance(to, History) else getattr(to, name))
        return changed

    def hidden_changes(self, from_: Any, to: Any) -> list[str]:
        """The hidden attributes that changed between two states, in mapping order."""
        infos = self.session.scalars(queries.change_infos(self.model, self.key, self.number(from_), self.number(to)))
        changed = {name for info in infos for name in info.get("hidden_cols_changed", ())}
        return [name for name in self._versioning.hidden if name in changed]

    def delete_with_history(self) -> int:
        """Delete the record, if it is live, and all its history, in the session's transaction. No trace is left.

        What the session deletes with it, by the cascades of its relationships, leaves history as ever.

        :return: how many history rows were deleted
        :raises MissingChangeInfoError: a live record is deleted without a reason, where the application requires one
        """
        if self.live is not None:
            self.session.delete(self.live)
            self.live = None
            self.session.flush()
        deleted: int = 0
        with suppress_versioning(allow_deleting_history=True):
            for table in reversed(self._versioning.tables):
                keys = [table.history.c[column.key] == part for column, part in zip(table.key, self.key, strict=True)]
                bind = {"mapper": self._versioning.mapper}
                result: Any = self.session.execute(sa.delete(table.history).where(*keys), bind_arguments=bind)
                deleted = result.rowcount
        return deleted

    def erase(
        self,
        columns: Collection[str] | None = None,
        *,
        reasons: bool = True,
        user_id: str | None = None,
        held_by: Collection[str] = (),
    ) -> Erasure:
        """Erase values of the record from all its history, in the session's transaction. Each change says so.

        ::

            with rationale("Request 4711"):
                User.timeline(42).erase(["email", "name"])
            db.session.commit()

        The live record is left alone: where it still has the values, its next change archives them again. Nor is
        anything erased from other records, whose reasons may be the same where one transaction has changed several.

        :param columns: attribute names; by default all that can be erased: not the key, nor what tells of which model
            the record is, nor the attribute by which the model's `Retention` holds records from purges
        :param reasons: does the ``extra`` of the change infos go too?
        :param user_id: who does it; by default the current user, as for a change
        :param held_by: more attributes that stay, as by them policies hold records that the model does not declare
        :raises ChangeInfoError: the user is no text, or cannot be stored
        :raises ErasureError: an attribute cannot be erased; there never was such a record; nothing is to be erased
        :raises MissingChangeInfoError: there is no reason where the application or the model requires one
        :raises ConcurrentChangeError: the record was changed since the session's transaction began to see the database
        """
        versioning = self._versioning
        connection = self.session.connection(bind_arguments={"mapper": versioning.mapper})
        chosen = erasing.chosen(connection, versioning, columns, held_by)
        if not chosen and not reasons:
            raise ErasureError("neither columns nor reasons: nothing is to be erased")
        extra = dict(current_extra())
        refuse_unreasoned(versioning, "erasure", {"extra": extra})
        self.session.flush()
        if not self.exists():
            raise ErasureError(f"there never was a {self._described()}")
        capture = capture_by(self.session)
        if capture is not None:
            capture.refuse_autocommit(connection, versioning)
        who = versioning.model._fetch_current_user_id() if user_id is None else user_id
        if who is not None:
            checked({"user_id": who})
        erased = erasing.erase(connection, versioning, self.key, chosen, reasons, instant_of(connection), who, extra)
        for obj in self.session.identity_map.values():
            if isinstance(obj, History) and self._is_of_record(obj):
                self.session.expire(obj)
        return erased

    def held(self, names: Iterable[str]) -> list[str]:
        """Those of some attributes that the live record has a value of."""
        if self.live is None:
            return []
        known = versioning_of(type(self.live)).tracked
        return [name for name in names if name in known and getattr(self.live, name) is not None]

    def number(self, obj: Any) -> int:
        """The version number of the live object or of a history object."""
        number: int = self._versioning.own(obj, "version")
        return number

    def own(self, row: History) -> dict[str, Any]:
        """Our own attributes of a history object, by their unrenamed names."""
        return {name: self._versioning.own(row, name) for name in OWN_NAMES}

    def state(self, obj: Any) -> Mapping[str, Any]:
        """The tracked attributes of the live object or of a history object."""
        return self._versioning.state(obj)

    def _known_valid_from(self) -> datetime | None:
        """When the live state began, as far as that needs no query."""
        # Read while another transaction wrote, the beginning of a state may have been missed.
        if self.read is None or self.read.valid_from is None:
            return None
        written = self.number(self.live) - self.read.version
        if written == 0:
            return self.read.valid_from
        capture = capture_by(self.session)
        instant = None if capture is None or capture.transaction is None else capture.transaction.instant
        # Only within a record's own time a change is not at its transaction's instant.
        return instant if written == 1 and instant is not None and self.read.valid_from <= instant else None

    def _of(self, model: type) -> "Timeline":
        """The same record's, as that of another model of the hierarchy."""
        return Timeline(self.session, model, self.key, self.live)

    def _is_of_record(self, row: History) -> bool:
        # Its attributes may have expired: to ask them would load them.
        identity = sa.inspect(row).identity or ()
        return versioning_of(type(row)).table is self._versioning.table and identity[: len(self.key)] == self.key

    def _described(self) -> str:
        return f"{self._versioning.name} {self.key[0] if len(self.key) == 1 else self.key!r}"

    def _found(self, version: Any) -> Any:
        """The history object of a version, or the live object.

        :param version: a version's number, or an object of the record
        :raises RestoreError: there is none
        """
        found: Any = version
        if isinstance(version, int) and not isinstance(version, bool):
            is_live = self.live is not None and self.number(self.live) == version
            found = self.live if is_live else self.version(version) if 0 <= version <= _HIGHEST else None
        elif not isinstance(version, self._versioning.history) and (version is None or version is not self.live):
            raise RestoreError(
                f"{version!r} is no version of {self._described()}: give its number, or a history object"
            )
        elif self._versioning.key_of(version) != self.key:
            raise RestoreError(f"{version!r} is no state of {self._described()}")
        if found is None or (isinstance(found, History) and self._versioning.own(found, "operation") in STATELESS):
            raise RestoreError(f"{self._described()} has no version {self.number(version) if found else version}")
        return found

    def _last(self) -> History | None:
        """The row of the last prior version, or the cut."""
        return self.session.scalars(queries.previous_version(self.model, self.key)).one_or_none()

    def _refuse_cut(self, row: History) -> None:
        """:raises PurgedError: a history row is a cut"""
        cut = Cut.of(self._versioning, row)
        if cut:
            raise cut.error(self._versioning.name, self.key)

    def _check_comparable(self, from_: Any, to: Any) -> None:
        name = self._versioning.name
        if not isinstance(from_, self._versioning.history):
            raise DiffError(f"from must be a history object of {name}, not {_described(from_)}")
        if not isinstance(to, (self._versioning.history, self.model)):
            raise DiffError(f"to must be a {name} or a history object of it, not {_described(to)}")
        for end, obj in (("from", from_), ("to", to)):
            if self._versioning.key_of(obj) != self.key:
                raise DiffError(f"{end} is a state of {name} {self._versioning.key_of(obj)}, not of {self.key}")
            if isinstance(obj, History) and self._versioning.own(obj, "operation") in STATELESS:
                what = "creation" if self._versioning.own(obj, "operation") == "insert" else "purged history"
                raise DiffError(f"{end} is the {what} of {name} {self.key}, which has no state")
        if self.number(to) < self.number(from_):
            raise DiffError(
                f"to is version {self.number(to)}, older than from, which is version {self.number(from_)}; swap them"
            )


def _described(obj: object) -> str:
    return "None" if obj is None else f"a {type(obj).__name__}"

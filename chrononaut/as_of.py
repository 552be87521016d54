"""Tables as they were at an instant: a select that is filtered, ordered and joined like one of the live model."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Self

import sqlalchemy as sa
from sqlalchemy.orm import Bundle, InstrumentedAttribute, RelationshipProperty
from sqlalchemy.sql import coercions, roles
from sqlalchemy.sql.selectable import AliasedReturnsRows
from sqlalchemy.sql.util import _deep_deannotate
from sqlalchemy.sql.visitors import iterate, replacement_traverse

from chrononaut.exceptions import HiddenAttributeError, PastError, UntrackedAttributeError
from chrononaut.history import History, Versioning, versioning_of, versioning_of_table
from chrononaut.queries import is_of_the_past, states_at
from chrononaut.types import utc


class AsOf(sa.Select[History]):
    """The records of a model as they were at an instant, those that were deleted since included.

    ::

        session.scalars(User.as_of(at).where(User.active).order_by(User.name))

    A select like any other, of history objects that belong to no session. Wherever it is given columns, tables or
    relationships of versioned models, as in `where`, `order_by`, `join`, `add_columns` or an ``EXISTS``, it takes them
    as of the same instant. ``User.as_of(at).subquery()`` has the columns under the names of the attributes.

    A state that still holds has no ``changed``, ``operation``, ``change_info`` and ``transaction_id``.

    :raises HiddenAttributeError: it is given a hidden column
    :raises UntrackedAttributeError: it is given an untracked column
    """

    inherit_cache = True

    _at: datetime
    _past: "dict[sa.FromClause, _Past]"
    _subqueries: dict[sa.Subquery, sa.Subquery]
    _last: Any

    @classmethod
    def of(cls, model: type, at: datetime) -> Self:
        """The records of a model as of an instant.

        :param at: an instant; a naive one is read as UTC. Resolution 1 µs.
        """
        versioning = versioning_of(model)
        past = states_at(model, at).subquery(versioning.table.name)
        select = cls(_States(versioning, past))
        select._at, select._last, select._subqueries = utc(at), model, {}
        select._past = dict.fromkeys([one.live for one in versioning.tables], _Past(versioning, past))
        return select.select_from(past)

    def where(self, *criteria: Any) -> Self:
        """Filter, as `Select.where`."""
        return super().where(*(self._then(roles.WhereHavingRole, one) for one in criteria))

    def having(self, *criteria: Any) -> Self:
        """Filter groups, as `Select.having`."""
        return super().having(*(self._then(roles.WhereHavingRole, one) for one in criteria))

    def filter_by(self, **values: Any) -> Self:
        """Filter by attributes of the model, or of the one that was joined last, as `Select.filter_by`."""
        return self.where(*(getattr(self._last, name) == value for name, value in values.items()))

    def order_by(self, *clauses: Any) -> Self:
        """Order, as `Select.order_by`."""
        return super().order_by(*(self._then(roles.OrderByRole, one) for one in clauses))

    def group_by(self, *clauses: Any) -> Self:
        """Group, as `Select.group_by`."""
        return super().group_by(*(self._then(roles.GroupByRole, one) for one in clauses))

    def distinct(self, *columns: Any) -> Self:
        """Leave out repeated rows, as `Select.distinct`."""
        return super().distinct(*(self._then(roles.ByOfRole, one) for one in columns))

    def add_columns(self, *entities: Any) -> Any:
        """Select more, as `Select.add_columns`: columns, or models, whose history objects are added."""
        return super().add_columns(*map(self._selected, entities))

    def with_only_columns(self, *entities: Any, **options: Any) -> Any:
        """Select something else, as `Select.with_only_columns`."""
        return super().with_only_columns(*map(self._selected, entities), **options)

    def select_from(self, *froms: Any) -> Self:
        """Select from other tables too, as `Select.select_from`."""
        return super().select_from(*(self._then(roles.FromClauseRole, one) for one in froms))

    def join(self, target: Any, onclause: Any = None, *, isouter: bool = False, full: bool = False) -> Self:
        """Join a relationship, a model or a table, as `Select.join`; what is versioned, as of the same instant.

        :param target: a relationship of the model or of one that was joined; or a model, an alias of one, or a table
        :raises PastError: a relationship over a table that is not versioned, or to the table that it comes from
        """
        how = {"isouter": isouter, "full": full}
        prop = getattr(target, "property", None)
        if isinstance(prop, RelationshipProperty):
            return self._join_relationship(prop, how)
        table = sa.inspect(target).selectable
        if onclause is None:
            known = next(iter(self._past))
            onclause = sa.join(known, table).onclause
        joined = super().join(self._then(roles.FromClauseRole, table), self._then(roles.OnClauseRole, onclause), **how)
        joined._last = target
        return joined

    def outerjoin(self, target: Any, onclause: Any = None, *, full: bool = False) -> Self:
        """Join, and keep what there is nothing to join to, as `Select.outerjoin`."""
        return self.join(target, onclause, isouter=True, full=full)

    def join_from(self, *args: Any, **options: Any) -> Any:
        """:raises PastError: always; `join` does it"""
        raise PastError("a select as of an instant has one root: start from that model's as_of(), and join the others")

    outerjoin_from = join_from

    def related(self, relationship: InstrumentedAttribute[Any], record: History) -> Self:
        """Only what was related to a record, in the order of the relationship.

        :param relationship: one of the record's model, to this select's model
        :param record: the record's state at the instant
        """
        prop = relationship.property
        refuse_unversioned(prop)
        versioning = versioning_of(prop.parent.class_)
        local: set[Any] = {one.live for one in versioning.tables}

        def of_record(element: Any, **options: Any) -> Any:
            if isinstance(element, sa.Column) and element.table in local and "remote" not in element._annotations:
                return sa.literal(getattr(record, _attribute(versioning, element)), element.type)
            return None

        select = super().where(self._then(roles.WhereHavingRole, replacement_traverse(prop.primaryjoin, {}, of_record)))
        if prop.secondaryjoin is not None:
            select = select.where(prop.secondaryjoin)
        return select.order_by(*(prop.order_by or ()))

    def _join_relationship(self, prop: Any, how: dict[str, bool]) -> Self:
        refuse_unversioned(prop)
        target = prop.entity.selectable
        if any(table in self._past for table in (target, prop.secondary) if table is not None):
            raise PastError(
                f"{prop} leads to a table that is there already: join aliased({prop.mapper.class_.__name__}) "
                "on a condition of your own"
            )
        if prop.secondary is None:
            joined = self.join(target, prop.primaryjoin, **how)
        else:
            joined = self.join(prop.secondary, prop.primaryjoin, **how).join(target, prop.secondaryjoin, **how)
        joined._last = prop.mapper.class_
        return joined

    def _selected(self, entity: Any) -> Any:
        inspected: Any = sa.inspect(entity, raiseerr=False)
        if not (getattr(inspected, "is_mapper", False) or getattr(inspected, "is_aliased_class", False)):
            return self._then(roles.ColumnsClauseRole, entity)
        past = self._past_of(inspected.selectable)
        return entity if past is None else _States(*past)

    def _then(self, role: Any, clause: Any) -> Any:
        """A clause with all that is versioned in it as of the instant."""
        # The ORM's own mark would keep the table of a relationship's any() and has() from being replaced.
        clause = _deep_deannotate(coercions.expect(role, clause), ["no_replacement_traverse"])
        return replacement_traverse(clause, {}, self._replacement)

    def _replacement(self, element: Any, **options: Any) -> Any:
        if _is_of_the_past(element):
            return element
        if isinstance(element, sa.FromClause):
            past = self._past_of(element)
            if past is not None:
                return past.states
            return self._derived(element) if isinstance(element, AliasedReturnsRows) else None
        if isinstance(element, sa.ColumnClause) and element.table is not None:
            past = self._past_of(element.table)
            if past is not None:
                return past.states.c[_attribute(past.versioning, element)]
            if isinstance(element.table, sa.Subquery) and not _is_of_the_past(element.table):
                return self._derived(element.table).c[element.key]
        return None

    def _derived(self, derived: Any) -> Any:
        """What stands for a subquery: the same of the past.

        :raises PastError: a common table expression, or the like, that reads a versioned table
        """
        if derived not in self._subqueries:
            if not any(isinstance(one, sa.Table) and _versioning_of(one) for one in iterate(derived)):
                return derived
            if not isinstance(derived, sa.Subquery):
                raise PastError(f"{type(derived).__name__} {derived.name} reads live tables; make it a subquery()")
            past: Any = replacement_traverse(derived.element, {}, self._replacement)
            self._subqueries[derived] = past.subquery(derived.name)
        return self._subqueries[derived]

    def _past_of(self, table: sa.FromClause) -> "_Past | None":
        """What stands for a live table, an alias of one, or the join of a model's; ``None`` if it is not versioned."""
        if table not in self._past:
            versioning = _versioning_of(table)
            if versioning is None:
                return None
            name = table.name if isinstance(table, sa.Table) else None
            past = _Past(versioning, states_at(versioning.model, self._at).subquery(name))
            tables = [one.live for one in versioning.tables] if isinstance(table, sa.Join) else []
            self._past.update(dict.fromkeys([table, *tables], past))
        return self._past[table]


class _Past(NamedTuple):
    """The states of a model's records at an instant, with a column for each attribute."""

    versioning: Versioning
    states: sa.Subquery


class _States(Bundle[History]):
    """Columns whose rows are history objects that belong to no session."""

    inherit_cache = True

    def __init__(self, versioning: Versioning, states: sa.FromClause) -> None:
        super().__init__(versioning.name, *states.c, single_entity=True)
        self._history = versioning.history

    @property
    def entity(self) -> Any:
        # By it the session finds the database.
        return sa.inspect(self._history)

    def create_row_processor(
        self, query: Any, procs: Sequence[Callable[[Any], Any]], labels: Sequence[str]
    ) -> Callable[[Any], Any]:
        new = self.entity.class_manager.new_instance

        def process(row: Any) -> Any:
            values = [proc(row) for proc in procs]
            if values[0] is None:
                # The other side of an outer join: a part of a key is never NULL.
                return None
            state = new()
            state.__dict__.update(zip(labels, values, strict=True))
            return state

        return process


def refuse_unversioned(prop: Any) -> None:
    """:raises PastError: a relationship to or over rows whose history is not kept"""
    for table in (prop.entity.selectable, prop.secondary):
        if table is not None and _versioning_of(table) is None:
            raise PastError(
                f"{prop} leads over the table {table}, which is not versioned, so that nobody knows what was related "
                "at an instant; map it as a model with Versioned"
            )


def _is_of_the_past(clause: Any) -> bool:
    """Is a clause one of ours, so that it is of the past already?"""
    clause = clause.element if isinstance(clause, sa.Subquery) else clause
    return isinstance(clause, AsOf) or is_of_the_past(clause)


def _versioning_of(table: Any) -> Versioning | None:
    """The versioning of a live table, of an alias of one, or of the join that a model is mapped to."""
    if isinstance(table, sa.Join):
        versioning = _versioning_of(table.right)
        return versioning if versioning is not None and versioning.rows is table else None
    if isinstance(table, sa.Alias) and isinstance(table.element, sa.Table):
        return _versioning_of(table.element)
    versioning = versioning_of_table(table)
    return None if versioning is None or versioning.is_history(table) else versioning


def _attribute(versioning: Versioning, column: Any) -> str:
    """The attribute that a column of a live table, or of an alias of it, is mapped to.

    :raises HiddenAttributeError: its values are not kept
    :raises PastError: it belongs to a model that inherits from this one
    """
    table = column.table.element if isinstance(column.table, sa.Alias) else column.table
    live = table.c[column.key]
    if live is versioning.version:
        return versioning.options.names.version
    keys = [(name, part) for one in versioning.tables for name, part in zip(versioning.key, one.key, strict=True)]
    name = next((name for name, one in (*versioning.columns.items(), *keys) if one is live), None)
    if name is None:
        raise PastError(f"{versioning.name} has no {column}; start from the as_of() of the model that has it")
    if name in versioning.hidden:
        raise HiddenAttributeError(versioning.name, name)
    if name in versioning.untracked:
        raise UntrackedAttributeError(versioning.name, name)
    return name

"""Tables as they were at an instant: a select that is filtered, ordered and joined like one of the live model."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa
from sqlalchemy.orm import Bundle, aliased
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.lambdas import LambdaElement
from sqlalchemy.sql.selectable import AliasedReturnsRows

from chrononaut.exceptions import HiddenAttributeError, PastError, UntrackedAttributeError
from chrononaut.history import History, Versioning, versioning_of, versioning_of_table
from chrononaut.queries import is_of_the_past, rows_at
from chrononaut.types import utc

_HARMLESS_TEXT = re.compile(r"\*|\d+")
_COMBINING = ("from_statement", "union", "union_all", "intersect", "intersect_all", "except_", "except_all")

if TYPE_CHECKING:
    _Select = sa.Select[History]
else:
    _Select = object


class AsOf(_Select):
    """The records of a model as they were at an instant, those that were deleted since included.

    A record whose state of then was purged is left out, as nobody knows it any more; `chrononaut.Timeline.version_at`
    tells so.

    ::

        session.scalars(User.as_of(at).where(User.active).order_by(User.name).limit(10))

    It takes all that ``select(User)`` takes, and answers what that would have answered at the instant: every versioned
    table in it is as of the instant, be it joined, or read by a subquery, an ``any()`` or an ``EXISTS``. A model among
    the columns gives history objects, which belong to no session; a state that still holds has no ``changed``,
    ``operation``, ``change_info`` and ``transaction_id``; none has relationships, so that options to load these have no
    effect.

    SQLAlchemy takes it wherever it takes a select, though it is none to ``isinstance``. What has no past is refused
    when it is executed or made a subquery. Values that come from objects, as in ``Owner.items.contains(item)``, are
    what the objects hold now; `with_parent` goes by the key alone. Criteria that a listener of ``do_orm_execute`` adds
    to selects of the live model are not in it.

    :raises PastError: it reads a table that is not versioned, or text in which nobody sees what it reads
    :raises HiddenAttributeError: it reads a hidden column
    :raises UntrackedAttributeError: it reads an untracked column
    """

    _live: sa.Select[Any]
    _at: datetime
    _past: sa.Select[Any] | None

    def __init__(self, live: Any, at: datetime) -> None:
        """A select of live records, as of an instant.

        :param at: a naive one is read as UTC. Resolution 1 µs.
        """
        self._live, self._at, self._past = live, utc(at), None

    def with_parent(self, instance: object, relationship: Any) -> Self:
        """Only what was related to a record at the instant, as `sqlalchemy.orm.with_parent`.

        ::

            session.scalars(Item.as_of(at).with_parent(owner, Owner.items))

        :param instance: any state of the record: a history object or the live object
        :param relationship: an attribute of the record's model, that leads to this select's
        :raises PastError: the record is of another model than the attribute
        """
        mapper, target = relationship.parent, relationship.property.mapper
        versioning = _versioning_of(mapper.local_table)
        record = getattr(type(instance), "__chrononaut__", None)
        if record is None or not record.mapper.isa(mapper):
            raise PastError(f"{relationship} is no relationship of a {type(instance).__name__}")
        selected = [sa.inspect(one["expr"], raiseerr=False) for one in self._live.column_descriptions]
        if not any(getattr(one, "is_mapper", False) and one.isa(target) for one in selected):
            raise PastError(
                f"{relationship} leads to {target.class_.__name__}: ask {target.class_.__name__}.as_of(…) for it"
            )
        parent: Any = aliased(mapper.class_, flat=True)
        key = zip(versioning.key, versioning.key_of(instance), strict=True)
        is_parent = (getattr(parent, name) == part for name, part in key)
        return self.where(sa.exists().where(*is_parent, getattr(parent, relationship.key)))

    def __clause_element__(self) -> Any:
        # By it SQLAlchemy takes an object for a clause.
        if self._past is None:
            self._past = _Past(self._at).select(self._live)
        return self._past

    def __str__(self) -> str:
        return str(self.__clause_element__())

    if not TYPE_CHECKING:
        is_clause_element = False

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            if name in _COMBINING:
                raise PastError(f"{name}() would take the others as they are now; use sqlalchemy.union(…) and the like")
            if name == "with_for_update":
                raise PastError("with_for_update() would lock rows of today; a state of the past cannot change")
            live = getattr(self._live, name)
            if name.startswith("_") or not callable(live):
                return getattr(self.__clause_element__(), name)

            @wraps(live)
            def method(*args: Any, **options: Any) -> Any:
                result = live(*args, **options)
                if isinstance(result, sa.Select):
                    return type(self)(result, self._at)
                return getattr(self.__clause_element__(), name)(*args, **options)

            return method


class _Past:
    """What stands for the clauses of one live select, as of an instant.

    A live table, or an alias of one, stands for its rows at the instant.
    """

    def __init__(self, at: datetime) -> None:
        self._at = at
        self._known: dict[int, tuple[Any, Any]] = {}
        self._tables: dict[Any, Any] = {}
        self._order: list[tuple[sa.Column[Any], Any]] = []

    def select(self, live: sa.Select[Any]) -> Any:
        """A select of models and columns as of the instant; of a model it gives history objects."""
        selected = [_columns(one["expr"]) for one in live.column_descriptions]
        core = _rendered(live.with_only_columns(*(column for _, columns in selected for column in columns)))
        self._order = _leading_order(core)
        past = self._copy(core)
        replaced = iter(past.inner_columns)
        entities: list[Any] = []
        for versioning, columns in selected:
            if versioning is None:
                entities.append(next(replaced))
            else:
                entities.append(_States(versioning, [*islice(replaced, len(columns))]))
        past = past.with_only_columns(*entities).execution_options(**live.get_execution_options())
        # By it the session finds the database; nothing public tells it without adding a table.
        past._propagate_attrs = live._propagate_attrs
        return past

    def of(self, element: Any, **options: Any) -> Any:
        """A clause with the past in the place of all that is live."""
        if id(element) not in self._known:
            past = self._replacement(element)
            past = self._copy(element) if past is None else past
            # The elements are kept, so that no other takes their ids.
            self._known[id(element)] = element, past
            self._known[id(past)] = past, past
        return self._known[id(element)][1]

    def _copy(self, element: Any) -> Any:
        # SQLAlchemy's replacement_traverse does the same, but leaves out what relationships join.
        copy = element._clone()
        self._known[id(element)] = element, copy
        copy._copy_internals(clone=self.of)
        return copy

    def _replacement(self, element: Any) -> Any:
        if isinstance(element, (sa.TextClause, LambdaElement, UpdateBase, sa.TableSample)):
            raise _unreadable(element)
        if isinstance(element, sa.Select):
            return self._copy(self._resolved(element))
        if isinstance(element, (sa.TableClause, AliasedReturnsRows)):
            return self._rows(element)
        if isinstance(element, sa.ColumnClause):
            return self._column(element)
        return None

    def _rows(self, table: Any) -> Any:
        # The ORM's marks make copies of a table, which have to become one again.
        table = table._deannotate()
        if table not in self._tables:
            self._tables[table] = self._rows_of(table)
        return self._tables[table]

    def _rows_of(self, table: Any) -> Any:
        live = table
        while isinstance(live, sa.Alias):
            live = live.element
        if is_of_the_past(live):
            return table
        if not isinstance(live, sa.TableClause):
            return self._copy(table)
        versioning = _versioning_of(live)
        if versioning.is_history(live):
            return table
        order = [clause for column, clause in self._order if column.table is table]
        return rows_at(versioning, self._at, order).subquery(table.name)

    def _column(self, column: Any) -> Any:
        if column.table is None:
            if column.is_literal and not _HARMLESS_TEXT.fullmatch(column.name):
                raise _unreadable(column)
            return None
        past = self.of(column.table)
        if past is column.table:
            return column
        for lost in self._lost(column):
            raise _not_kept(_versioning_of(lost.table), lost)
        if is_of_the_past(past):
            return past.c[column.key]
        # By place: a subquery of models has not the names that its columns have to the ORM.
        return dict(zip(column.table.c, past.c, strict=True))[column]

    def _lost(self, column: Any) -> list[sa.Column[Any]]:
        """The live columns that a column is one of, or has its values from, and that history does not keep."""
        bases = [base for base in column.base_columns if isinstance(base, sa.Column)]
        return [base for base in bases if base.key not in self.of(base.table).c]

    def _resolved(self, select: sa.Select[Any]) -> Any:
        """A select within another as SQLAlchemy renders it: in tables and columns, without what only the ORM knows."""
        # Nothing public tells a model or a table from its columns.
        if any(isinstance(listed, sa.FromClause) for listed in select._raw_columns):
            # All columns, unlike what the ORM loads for a model; those that history does not keep are there to be
            # counted, and refused where they are read.
            columns = [
                sa.type_coerce(sa.null(), column.type).label(column.key) if self._lost(column) else column
                for column in select.selected_columns
            ]
            select = select.with_only_columns(*columns, maintain_column_froms=True)
        return _rendered(select)


class _States(Bundle[History]):
    """Columns whose rows are history objects that belong to no session.

    :param columns: the version and the tracked attributes of a model, as of an instant
    """

    inherit_cache = True

    def __init__(self, versioning: Versioning, columns: Sequence[Any]) -> None:
        names = versioning.options.names
        version, *_ = columns
        states = dict(zip((names.version, *versioning.tracked), columns, strict=True))
        if not is_of_the_past(version.table):
            raise PastError(
                f"{version.table.name} is a subquery of {versioning.name}, whose rows are no states; select its "
                "columns, or use aliased(…, flat=True)"
            )
        for own in (names.operation, names.changed, names.change_info, names.transaction_id):
            states[own] = version.table.c[own]
        # Here and not in the rows of the table, so that it costs only for the rows that come out.
        began = versioning.began([states[name] for name in versioning.key], version)
        states[names.valid_from] = began.label(names.valid_from)
        super().__init__(versioning.name, *states.values(), single_entity=True)
        self._history = versioning.history
        self._names = tuple(states)

    def create_row_processor(
        self, query: Any, procs: Sequence[Callable[[Any], Any]], labels: Sequence[str]
    ) -> Callable[[Any], Any]:
        manager, names = sa.inspect(self._history).class_manager, self._names
        version, *_ = procs

        def process(row: Any) -> Any:
            if version(row) is None:
                # The other side of an outer join.
                return None
            state = manager.new_instance()
            state.__dict__.update(zip(names, [proc(row) for proc in procs], strict=True))
            if manager.dispatch.load:
                # SQLAlchemy's `Mutable` makes its values what they are on a live object.
                manager.dispatch.load(sa.inspect(state), None)
            return state

        return process


def _columns(selected: Any) -> tuple[Versioning | None, Sequence[Any]]:
    """What is selected of live tables: the versioning and columns of a model, or a column."""
    if isinstance(selected, Bundle):
        raise PastError(f"the Bundle {selected.name} has no past; select its columns")
    if not _is_entity(selected):
        return None, [selected]
    inspected: Any = sa.inspect(selected)
    _versioning_of(inspected.mapper.local_table)
    versioning = versioning_of(inspected.mapper.class_)
    names = (versioning.options.names.version, *versioning.tracked)
    return versioning, [getattr(selected, name) for name in names]


def _is_entity(selected: Any) -> bool:
    inspected: Any = sa.inspect(selected, raiseerr=False)
    return getattr(inspected, "is_mapper", False) or getattr(inspected, "is_aliased_class", False)


def _rendered(select: sa.Select[Any]) -> Any:
    state: Any = select.compile().compile_state
    return state.statement


def _leading_order(select: Any) -> list[tuple[sa.Column[Any], Any]]:
    """By what a select from one table is ordered, as long as that is by columns of its own."""
    order: list[tuple[sa.Column[Any], Any]] = []
    if [type(table) for table in select.get_final_froms()] != [sa.Table]:
        return order
    # Nothing public tells it.
    for clause in select._order_by_clauses:
        column = clause
        while column is not None and not isinstance(column, sa.Column):
            column = getattr(column, "element", None)
        if column is None or versioning_of_table(column.table) is None:
            break
        order.append((column, clause))
    return order


def _not_kept(versioning: Versioning, column: sa.Column[Any]) -> Exception:
    whole = versioning.whole()
    name = next((name for name, one in whole.columns.items() if one is column), column.key)
    error = HiddenAttributeError if column in whole.hidden.values() else UntrackedAttributeError
    return error(versioning.name, name)


def _unreadable(clause: Any) -> PastError:
    return PastError(
        f"nobody knows which tables {clause} ({type(clause).__name__}) reads; write it with models and their attributes"
    )


def _versioning_of(table: Any) -> Versioning:
    """:raises PastError: a table whose history is not kept"""
    versioning = versioning_of_table(table)
    if versioning is None:
        raise PastError(
            f"the table {table} is not versioned, so that nobody knows what it held at an instant: map it as a model "
            "with Versioned; or, to read what it holds now, select from as_of(…).subquery() and join it there"
        )
    return versioning

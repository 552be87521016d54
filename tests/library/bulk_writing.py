"""Statements that write many records at once, with what the oracle is told of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from tests.library.oracle import Ident, Values
from tests.library.pending import Plus, Set, Target, evaluated, lock
from tests.library.player import Player
from tests.library.shapes import FAMILY, FOREIGN, HIERARCHIES, MODELS, SHAPES, column, kind

SYNCHRONIZED = ("auto", "evaluate", "fetch")
UPDATES = (
    *SYNCHRONIZED,
    "unsynchronized",
    "core",
    "query",
    "query_fetch",
    "returning",
    "returning_entities",
    "by_alias",
)
DELETES = (*SYNCHRONIZED, "unsynchronized", "core", "query", "query_fetch", "returning")
INSERTS = ("orm", "orm_values", "orm_returning", "core", "core_values", "mappings", "objects", "connection")
KEYED = ("orm", "mappings", "objects", "core")


class Where(NamedTuple):
    """Which records of a shape.

    :ivar what: all, none, one, two: an attribute's value; key: one record
    """

    what: Literal["all", "none", "one", "two", "key"]
    slot: int


@dataclass(frozen=True)
class _Criterion:
    clauses: Callable[[Any], list[Any]]
    matches: Callable[[Ident, Values], bool]


def _criterion(player: Player, shape: str, where: Where) -> _Criterion:
    if where.what == "all":
        return _Criterion(lambda entity: [], lambda ident, values: True)
    if where.what == "key":
        wanted = player.resolve(Target(shape, where.slot))
        key = wanted.key if wanted is not None else (None,) * len(SHAPES[shape].key)
        names = SHAPES[shape].key
        return _Criterion(
            lambda entity: [_column(entity, shape, name) == part for name, part in zip(names, key, strict=True)],
            lambda ident, values: ident == wanted,
        )
    comparable = [name for name in SHAPES[shape].attributes if kind(shape, name) is not dict and name not in FOREIGN]
    name = comparable[where.slot % len(comparable)]
    value = player.value(shape, name, where.what, None) if name not in SHAPES[shape].untracked else None
    # SQLAlchemy writes IS NULL for None.
    return _Criterion(
        lambda entity: [_column(entity, shape, name) == value],
        lambda ident, values: bool(values[name] == value),
    )


def _column(entity: Any, shape: str, name: str) -> Any:
    return entity.c[column(shape, name)] if isinstance(entity, sa.FromClause) else getattr(entity, name)


def update(player: Player, sets: Sequence[Set], where: Where, form: str) -> None:
    """Set attributes, of the shape of the first set, of all records that match."""
    shape = sets[0].target.shape
    if not _begin(player, shape):
        return
    values: Values = {
        one.attribute: player.value(shape, one.attribute, one.choice, None)
        for one in sets
        if one.target.shape == shape and one.choice not in ("same", "grow")
    }
    if not values:
        return
    criterion, model = _criterion(player, shape, where), MODELS[shape]
    entity = model.__table__ if form == "core" else model.__table__.alias("other") if form == "by_alias" else model
    clauses = criterion.clauses(entity)
    new = {name: _expression(_column(entity, shape, name), value) for name, value in values.items()}
    matching = [
        (ident, record) for ident, record in player.view.live(shape) if criterion.matches(ident, record.current)
    ]
    if form in ("query", "query_fetch"):
        query = player.session.query(model).filter(*clauses)
        count = query.update(new, "auto" if form == "query" else "fetch")
    else:
        by_column = {_column(entity, shape, name): value for name, value in new.items()}
        statement = sa.update(entity).where(*clauses).values(by_column)
        if form.startswith("returning"):
            what = model if form == "returning_entities" else getattr(model, SHAPES[shape].key[0])
            count = len(player.session.execute(statement.returning(what)).all())
        else:
            count = _rows(player.session.execute(statement, execution_options=_synchronization(form)))
    player.view.begin(surely=not values.keys() <= {*SHAPES[shape].untracked})
    assert count == len(matching), "an UPDATE reaches the rows that match"
    for ident, record in matching:
        before = record.current
        player.tell_update(ident, {name: evaluated(value, before, name) for name, value in values.items()})
    _end(player, shape, [ident for ident, _ in matching], form not in ("unsynchronized", "core", "by_alias"))


def delete(player: Player, shape: str, where: Where, form: str) -> None:
    """Delete all records that match."""
    if shape == "owner" or not _begin(player, shape):
        return
    criterion, model = _criterion(player, shape, where), MODELS[shape]
    entity = model.__table__ if form == "core" else model
    clauses = criterion.clauses(entity)
    matching = [ident for ident, record in player.view.live(shape) if criterion.matches(ident, record.current)]
    if form in ("query", "query_fetch"):
        count = player.session.query(model).filter(*clauses).delete("auto" if form == "query" else "fetch")
    elif form == "returning":
        returning = sa.delete(model).where(*clauses).returning(getattr(model, SHAPES[shape].key[0]))
        count = len(player.session.execute(returning).all())
    else:
        statement = sa.delete(entity).where(*clauses)
        count = _rows(player.session.execute(statement, execution_options=_synchronization(form)))
    player.view.begin()
    assert count == len(matching), "a DELETE reaches the rows that match"
    for ident in matching:
        player.view.delete(ident, player.reasons(ident))
    for ident, obj in player.persistent().items():
        if ident in matching:
            # The session does not know that it is gone.
            player.session.expunge(obj)
    _end(player, shape, matching, synchronized=True)
    for ident in matching:
        player.marks.pop(ident, None)


def insert(player: Player, targets: Sequence[Target], choice: str, hidden: str, form: str) -> None:
    """Insert records of the shape of the first target, where there are none."""
    shape, model = targets[0].shape, MODELS[targets[0].shape]
    if shape == "part" or not _begin(player, shape):
        return
    mine = [target for target in targets if target.shape == shape]
    idents = [player.resolve(target, dead=True) if shape in FAMILY else player.resolve(target) for target in mine]
    free = [
        ident
        for ident in dict.fromkeys(ident for ident in idents if ident is not None)
        if player.view.record(ident).values is None and ident not in player.persistent()
    ]
    own = player.values(shape, choice, hidden)
    rows = [{**dict(zip(SHAPES[shape].key, ident.key, strict=True)), **own} for ident in free]
    if shape in FAMILY and not free:
        rows = [dict(own) for _ in mine]
    if not rows:
        return
    _insert(player, shape, rows, form)
    if not free:
        known = {ident.key[0] for ident, _ in player.view.live(shape)}
        ids = player.session.connection().execute(sa.select(model.__table__.c.id)).scalars()
        free = [Ident(shape, (number,)) for number in sorted({*ids} - known)]
    assert len(free) == len(rows)
    for ident in free:
        player.view.insert(ident, own, player.extra())
        # A key that the database gave out again is that of another record than the object's.
        player.marks.pop(ident, None)
    _end(player, shape, free, synchronized=True)


def _insert(player: Player, shape: str, rows: list[Values], form: str) -> None:
    session, model, table = player.session, MODELS[shape], MODELS[shape].__table__
    columns = [{column(shape, name): value for name, value in row.items()} for row in rows]
    key = getattr(model, SHAPES[shape].key[0])
    forms: dict[str, Callable[[], Any]] = {
        "orm": lambda: session.execute(sa.insert(model), rows),
        "orm_values": lambda: session.execute(sa.insert(model).values(rows)),
        "orm_returning": lambda: session.scalars(sa.insert(model).returning(key), rows).all(),
        "core": lambda: session.execute(table.insert(), columns),
        "core_values": lambda: session.execute(table.insert().values(columns)),
        "mappings": lambda: session.bulk_insert_mappings(sa.inspect(model), rows),
        "objects": lambda: session.bulk_save_objects([model(**row) for row in rows]),
        "connection": lambda: session.connection().execute(table.insert(), columns),
    }
    result = forms[form]()
    assert form != "orm_returning" or len(result) == len(rows), "an INSERT returns what it inserts"


def update_by_key(player: Player, sets: Sequence[Set], form: str) -> None:
    """Set attributes of records of the shape of the first set, each named by its key."""
    shape, model = sets[0].target.shape, MODELS[sets[0].target.shape]
    if not _begin(player, shape):
        return
    changes: dict[Ident, Values] = {}
    for target, name, choice in sets:
        ident = player.resolve(target) if target.shape == shape else None
        if ident is None or player.view.record(ident).values is None or choice == "plus":
            continue
        current = player.view.record(ident).current[name]
        changes.setdefault(ident, {})[name] = player.value(shape, name, choice, current)
    key = SHAPES[shape].key
    rows = [{**dict(zip(key, ident.key, strict=True)), **values} for ident, values in changes.items()]
    if not rows:
        return
    if form == "objects":
        _save_objects(player, changes)
    elif form == "mappings":
        player.session.bulk_update_mappings(sa.inspect(model), rows)
    elif form == "orm":
        player.session.execute(sa.update(model), rows)
    else:
        _update_one_by_one(player, shape, changes)
    player.view.begin(surely=False)
    for ident, values in changes.items():
        player.tell_update(ident, values)
    _end(player, shape, [*changes], synchronized=False)


def _save_objects(player: Player, changes: dict[Ident, Values]) -> None:
    """Save objects that are in the session, and are changed."""
    objs = {ident: player.find(ident) for ident in changes}
    for ident, values in changes.items():
        # Memory is what the row is.
        player.session.refresh(objs[ident])
        for name, value in values.items():
            setattr(objs[ident], name, value)
    player.session.bulk_save_objects([*objs.values()])
    for obj in objs.values():
        player.session.expire(obj)


def _update_one_by_one(player: Player, shape: str, changes: dict[Ident, Values]) -> None:
    """One statement for all records that have the same attributes set, with many sets of parameters."""
    table, names = MODELS[shape].__table__, SHAPES[shape].key
    criteria = [table.c[column(shape, name)] == sa.bindparam(f"which_{name}") for name in names]
    for attributes in {tuple(values) for values in changes.values()}:
        rows = [
            {f"which_{name}": part for name, part in zip(names, ident.key, strict=True)}
            | {column(shape, name): value for name, value in values.items()}
            for ident, values in changes.items()
            if tuple(values) == attributes
        ]
        player.session.execute(table.update().where(*criteria), rows)


def _begin(player: Player, shape: str) -> bool:
    """Write what is pending, and let the other session end if it has locked any record of the shape.

    :return: may the statement be executed?
    """
    if shape in HIERARCHIES:
        return False
    player.make_way(locked for locked in player.other.locked if locked == "family" or locked[0] == shape)
    if shape in FAMILY:
        player.make_way(["family"])
    return player.flush()


def _end(player: Player, shape: str, written: Sequence[Ident], synchronized: bool) -> None:
    player.locked.update(map(lock, written))
    for ident in player.persistent():
        if ident.shape == shape:
            known, record = player.known.get(ident), player.view.record(ident)
            # What is known of a record that another session has changed stays too old.
            stale = known is not None and (known.stale or record.values is None)
            if ident in written and not stale:
                player.known.pop(ident, None)
            # What the session has loaded may be older than the row.
            if not synchronized or stale:
                player.vague.add(ident)
    player.bulk_written = True
    player.sync()


def _expression(column_: Any, value: Any) -> Any:
    return column_ + value.number if isinstance(value, Plus) else value


def _synchronization(form: str) -> dict[str, Any]:
    if form in SYNCHRONIZED:
        return {"synchronize_session": form}
    return {"synchronize_session": False} if form == "unsynchronized" else {}


def _rows(result: Any) -> int:
    count: int = result.rowcount
    return count

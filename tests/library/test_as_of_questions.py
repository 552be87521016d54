"""``as_of`` answers any question as the live tables did at the instant: what was answered then is the oracle."""

from collections.abc import Callable
from datetime import datetime
from itertools import zip_longest
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased, lazyload, with_loader_criteria, with_polymorphic

from chrononaut.history import versioning_of
from tests.library import shapes
from tests.library.rows import history_rows
from tests.library.shapes import Animal, Dog, Gauge, Item, Owner, Paper, Part, Price, Truck, Vehicle

Start = Callable[[Any], Any]
Question = Callable[[Start], Any]


def _change_everything(session: Session, word: str, number: int) -> None:
    """Write what no state before has held."""
    owners = [Owner(name=f"{word}{one}") for one in range(3)]
    session.add_all(owners)
    session.flush()
    for one in range(6):
        owner, keeper = owners[(one + number) % 3], owners[(one * number) % 3] if one % 2 else None
        session.add(Item(title=f"{word}{one}", rank=one + number, owner=owner if one else None, keeper=keeper))
        session.add(Part(label=f"{word}{one % 2}", owner_id=owner.id))
    session.add_all(
        [
            Gauge(code=f"{word}g", name=word, count=number, secret="s"),
            Price(product=word, cycle=number, label=f"{word}l", amount=number, pin="p"),
            Price(product=word, cycle=number + 1, label=f"{word}m", amount=number * 2),
            Paper(number=number, data={"a": number, "b": [word]}, score=number / 2),
            Vehicle(code=f"v{word}", name=word),
            Truck(code=f"t{word}", name=word, load=number),
            Truck(code=f"u{word}", name=f"{word}u", load=number + 5),
            Animal(code=f"a{word}", name=word),
            Dog(code=f"d{word}", name=word, tricks=number),
        ]
    )


@pytest.fixture
def session(open_database: Callable[..., Session]) -> Session:
    session = open_database(shapes.db)
    _change_everything(session, "x", 1)
    session.commit()
    _change_everything(session, "y", 4)
    for item in session.scalars(sa.select(Item)):
        item.rank = (item.rank or 0) + 1
    session.commit()
    return session


def _then(session: Session) -> datetime:
    tables = [versioning_of(model).history_table.name for model in shapes.MODELS.values()]
    instant: datetime = max(row["changed"] for table in tables for row in history_rows(session, table))
    return instant


def _turn_over(session: Session) -> None:
    """Change every row or delete it, and add others."""
    for number, model in enumerate(shapes.MODELS.values()):
        for position, obj in enumerate(session.scalars(sa.select(model)).all()):
            if position % 3 == 2 and model not in (Owner,):
                session.delete(obj)
                continue
            for name in versioning_of(type(obj)).tracked.keys() - {*versioning_of(type(obj)).key, *shapes.FIXED}:
                old = getattr(obj, name)
                new = {"z": 1} if name == "data" else f"z{old}" if isinstance(old, str) else 100 + position + number
                setattr(obj, name, new)
            if isinstance(obj, Item):
                obj.owner, obj.keeper = obj.keeper, obj.owner
    session.commit()
    _change_everything(session, "z", 50)
    session.commit()


def _plain(model: Any, value: Any) -> Any:
    """A value of an answer; of an object, live or of history, its state as of a model."""
    if not hasattr(type(value), "__chrononaut__"):
        return value
    return model.__name__, value.version, {name: getattr(value, name) for name in versioning_of(model).tracked}


def _answer(session: Session, question: Question, start: Start) -> list[Any]:
    described = getattr(question(sa.select), "column_descriptions", [])
    models = [sa.inspect(one["entity"]).mapper.class_ if one["entity"] else None for one in described]
    return sorted(
        ([_plain(*one) for one in zip_longest(models, row)] for row in session.execute(question(start))), key=repr
    )


_other = aliased(Item, name="other")
_owner = aliased(Owner)
_truck = aliased(Truck, flat=True)
_ranks = sa.select(Item.owner_id, sa.func.sum(Item.rank).label("total")).group_by(Item.owner_id).subquery()
_ranks_again = _ranks.alias()
_cheap = sa.select(Price).where(Price.amount < 5).subquery()
_prices = sa.select(Price.amount, Price.label).subquery()
_cheap_price = aliased(Price, _cheap)
_ranked = sa.select(Item.id, Item.owner_id).where(Item.rank > 3).cte("ranked")
_item = Item.__table__
_items = sa.select(_item).subquery()
_dogs = sa.select(Dog).subquery()
_lorry: Any = aliased(Truck)
_any_vehicle: Any = with_polymorphic(Vehicle, [Truck], flat=True)
_documents = sa.func.json_each(Paper.data).table_valued("key", "value")
_owner_table = Owner.__table__


def _tree(start: Start) -> Any:
    """A recursive CTE: from an owner to its items' keepers, and so on."""
    first = sa.select(Owner.id.label("id"), sa.literal(0).label("depth")).where(Owner.name == "x0").cte(recursive=True)
    step = sa.select(Item.keeper_id, first.c.depth + 1).join(first, Item.owner_id == first.c.id)
    tree = first.union_all(step.where(first.c.depth < 3))
    return start(Owner).where(Owner.id.in_(sa.select(tree.c.id)))


QUESTIONS: dict[str, Question] = {
    "all": lambda start: start(Owner),
    "another order": lambda start: start(Item).order_by(Item.rank.desc(), Item.id).limit(3).offset(1),
    "slice": lambda start: start(Item).order_by(Item.id).slice(1, 3),
    "attribute unlike its column": lambda start: start(Price).where(Price.amount > 1, Price.label.like("%l")),
    "filter_by": lambda start: start(Item).filter_by(rank=4),
    "filter": lambda start: start(Item).filter(sa.or_(Item.rank > 4, Item.owner_id.is_(None))),
    "key of two parts": lambda start: start(Price).where(sa.tuple_(Price.product, Price.cycle).in_([("x", 1)])),
    "columns": lambda start: start(Owner).with_only_columns(Owner.name, sa.func.upper(Owner.name).label("upper")),
    "column of another name": lambda start: start(Price).with_only_columns(Price.amount, Price.label.label("amount2")),
    "count": lambda start: start(Owner).with_only_columns(sa.func.count(), maintain_column_froms=True),
    "count of a subquery": lambda start: sa.select(sa.func.count()).select_from(start(Dog).subquery()),
    "aggregate": lambda start: (
        start(Item)
        .with_only_columns(Item.owner_id, sa.func.max(Item.rank))
        .group_by(Item.owner_id)
        .having(sa.func.count(Item.id) > 1)
    ),
    "window": lambda start: start(Item).add_columns(
        sa.func.row_number().over(partition_by=Item.owner_id, order_by=Item.id)
    ),
    "distinct": lambda start: start(Item).with_only_columns(Item.owner_id).distinct(),
    "case": lambda start: start(Item).add_columns(sa.case((Item.rank > 4, Item.title), else_="low")),
    "document": lambda start: start(Paper).where(Paper.data["a"].as_integer() == 1),
    "join of a relationship": lambda start: start(Owner).join(Owner.items).where(Item.rank > 3),
    "filter_by what was joined": lambda start: start(Owner).join(Owner.items).filter_by(rank=3),
    "join of a model": lambda start: start(Owner).join(Item, Item.owner_id == Owner.id).where(Item.rank > 3),
    "join that is found": lambda start: start(Owner).join(Part),
    "join of an alias": lambda start: start(Owner).join(_other, _other.keeper_id == Owner.id).add_columns(_other),
    "join of a relationship to an alias": lambda start: (
        start(Owner).join(Owner.items.of_type(_other)).where(_other.rank > 4)
    ),
    "join_from": lambda start: start(Owner).add_columns(Item.title).join_from(Owner, Owner.items),
    "outer join": lambda start: start(Item).add_columns(Owner).outerjoin(Item.owner),
    "join twice": lambda start: start(Item).join(Item.owner).join(_owner, Item.keeper).add_columns(_owner.name),
    "join with a condition": lambda start: start(Owner).join(Owner.items.and_(Item.rank > 4)),
    "full join": lambda start: start(Item).add_columns(Owner).join(Item.keeper, full=True),
    "two models": lambda start: start(Owner).add_columns(Item).where(Item.keeper_id == Owner.id),
    "any": lambda start: start(Owner).where(Owner.items.any(Item.rank > 5)),
    "any of any": lambda start: start(Item).where(Item.owner.has(Owner.items.any(Item.rank == 5))),
    "has": lambda start: start(Item).where(~Item.owner.has(Owner.name == "x1")),
    "has with keywords": lambda start: start(Item).where(Item.keeper.has(name="x1")),
    "none": lambda start: start(Item).where(Item.owner == None),  # noqa: E711
    "exists": lambda start: start(Owner).where(sa.exists().where(Item.owner_id == Owner.id, Item.rank > 5)),
    "exists of a select": lambda start: start(Owner).where(
        sa.select(Item).where(Item.owner_id == Owner.id).correlate(Owner).exists()
    ),
    "not exists of an alias": lambda start: start(Item).where(
        ~sa.exists().where(_other.owner_id == Item.owner_id, _other.rank > Item.rank)
    ),
    "in a select": lambda start: start(Owner).where(Owner.id.in_(sa.select(Item.owner_id).where(Item.rank > 4))),
    "not in a select that joins": lambda start: start(Owner).where(
        Owner.id.not_in(sa.select(Item.owner_id).join(Item.keeper).where(Owner.name == "x1"))
    ),
    "in a select of the same table": lambda start: start(Item).where(
        Item.rank == sa.select(sa.func.max(_other.rank)).scalar_subquery()
    ),
    "scalar subquery": lambda start: start(Owner).add_columns(
        sa.select(sa.func.count(Item.id)).where(Item.owner_id == Owner.id).scalar_subquery()
    ),
    "scalar subquery that is correlated": lambda start: start(Owner).order_by(
        sa.select(sa.func.sum(Item.rank)).where(Item.owner_id == Owner.id).correlate_except(Item).scalar_subquery()
    ),
    "subquery": lambda start: start(Owner).join(_ranks, _ranks.c.owner_id == Owner.id).where(_ranks.c.total > 5),
    "columns of a subquery": lambda start: (
        start(Owner).with_only_columns(_ranks.c.total, Owner.id).join(_ranks, _ranks.c.owner_id == Owner.id)
    ),
    "alias of a subquery": lambda start: start(Owner).join(_ranks_again, _ranks_again.c.owner_id == Owner.id),
    "subquery of a model": lambda start: start(Price).join(
        _cheap, sa.and_(_cheap.c.prod == Price.product, _cheap.c.label != Price.amount)
    ),
    "subquery of attributes": lambda start: (
        start(Price).join(_prices, _prices.c.amount == Price.amount).add_columns(_prices.c.label)
    ),
    "model of a subquery": lambda start: (
        start(Price)
        .join(_cheap_price, sa.and_(_cheap_price.product == Price.product, _cheap_price.label != Price.label))
        .add_columns(_cheap_price.amount)
    ),
    "common table expression": lambda start: start(Owner).join(_ranked, _ranked.c.owner_id == Owner.id),
    "recursive common table expression": _tree,
    "lateral": lambda start: start(Owner).where(
        Owner.id.in_(sa.union(sa.select(Item.owner_id), sa.select(Part.owner_id)).scalar_subquery())
    ),
    "union": lambda start: start(Owner).where(
        Owner.id.in_(sa.union(sa.select(Item.owner_id), sa.select(Part.owner_id)))
    ),
    "union of two": lambda start: sa.union_all(
        start(Item).with_only_columns(Item.id, Item.rank), start(Part).with_only_columns(Part.id, Part.owner_id)
    ),
    "in another": lambda start: start(Owner).where(Owner.id.in_(start(Item).with_only_columns(Item.owner_id))),
    "exists of another": lambda start: start(Owner).where(start(Gauge).where(Gauge.count > 3).exists()),
    "tables": lambda start: start(Owner).where(
        Owner.id.in_(sa.select(_item.c.owner_id).where(_item.c.rank > 3)), _owner_table.c.name != "y"
    ),
    "join of tables": lambda start: start(Owner).where(
        Owner.id.in_(sa.select(_item.c.owner_id).join(_owner_table, _item.c.keeper_id == _owner_table.c.id))
    ),
    "table joined": lambda start: start(Owner).join(_item, _item.c.keeper_id == _owner_table.c.id),
    "alias of a table": lambda start: start(Owner).where(sa.exists().where(_item.alias("i").c.owner_id == Owner.id)),
    "select_from": lambda start: start(Item).with_only_columns(Item.title).select_from(Owner).join(Owner.items),
    "cast and collate": lambda start: start(Item).where(sa.cast(Item.rank, sa.String) == "5"),
    "criteria of a loader": lambda start: (
        start(Owner).join(Owner.items).options(with_loader_criteria(Item, Item.rank > 4))
    ),
    "options of loading": lambda start: start(Owner).options(lazyload("*")),
    "order by a name": lambda start: start(Price).order_by(sa.desc("label")).limit(1),
    "order by several": lambda start: start(Item).order_by(Item.rank.desc().nulls_last(), -Item.id).limit(2),
    "order by an attribute and a subquery": lambda start: (
        start(Item).order_by(Item.owner_id, sa.select(sa.func.max(Owner.name)).scalar_subquery(), Item.id).limit(2)
    ),
    "order by a label": lambda start: start(Item).add_columns((-Item.rank).label("lowest")).order_by("lowest").limit(2),
    "joined model": lambda start: start(Truck).where(Truck.load > 1, Truck.name == "y"),
    "joined model's parent": lambda start: start(Vehicle).where(Vehicle.name == "y"),
    "joined model in a select": lambda start: start(Vehicle).where(Vehicle.code.in_(sa.select(Truck.code))),
    "alias of a joined model": lambda start: (
        start(Vehicle).join(_truck, _truck.code == Vehicle.code).add_columns(_truck)
    ),
    "columns of an alias of a joined model": lambda start: (
        start(Vehicle).join(aliased(Truck, name="t"), sa.true()).with_only_columns(Vehicle.code)
    ),
    "model of one table": lambda start: start(Dog).where(Dog.tricks > 1),
    "model of one table, its parent": lambda start: start(Animal),
    "model of one table in a select": lambda start: start(Animal).where(Animal.code.in_(sa.select(Dog.code))),
    "model of one table by exists": lambda start: start(Animal).where(
        sa.select(Dog.code).where(Dog.tricks == 4).exists()
    ),
    "model of one table, all of it": lambda start: start(Animal).join(_dogs, _dogs.c.code == Animal.code),
    "table, all of it": lambda start: start(Owner).join(_items, _items.c.owner_id == Owner.id),
    "alias of an alias": lambda start: start(Owner).where(
        sa.exists().where(_item.alias().alias().c.keeper_id == Owner.id)
    ),
    "columns of a joined model's alias": lambda start: (
        start(Vehicle).join(_lorry, _lorry.code == Vehicle.code).where(_lorry.load > 3).add_columns(_lorry.name)
    ),
    "several models at once": lambda start: (
        start(Vehicle).join(_any_vehicle, _any_vehicle.code == Vehicle.code).where(_any_vehicle.Truck.load > 3)
    ),
    "function that gives rows": lambda start: (
        start(Paper).add_columns(_documents.c.key).join(_documents, sa.true()).where(_documents.c.key == "a")
    ),
    "added common table expression": lambda start: start(Owner).add_cte(_ranked),
    "alias of a model of one table": lambda start: start(Animal).join(aliased(Dog, name="d"), sa.true()),
}


def test_every_question_has_the_answer_that_it_had_at_the_instant(session: Session) -> None:
    at = _then(session)
    then = {name: _answer(session, question, sa.select) for name, question in QUESTIONS.items()}
    session.rollback()
    _turn_over(session)
    now = {name: _answer(session, question, sa.select) for name, question in QUESTIONS.items()}
    session.expunge_all()
    for name, question in QUESTIONS.items():
        assert then[name] not in ([], now[name]), f"{name} would not tell the past from the present"
        assert _answer(session, question, lambda model: model.as_of(at)) == then[name], name
    assert not list(session), "states of the past belong to no session"

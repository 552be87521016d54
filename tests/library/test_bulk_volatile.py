"""What is another value, or finds other rows, when the database is asked again: it loses no version."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, aliased

from chrononaut import UncapturedWriteError, history_model
from tests.library.conftest import opened
from tests.library.exact import exactly_captured
from tests.library.rows import live_rows
from tests.library.twins import Item, Tag, twins

Write = Callable[[Session], Any]
HISTORY: Any = history_model(Item)
TABLE: Any = Item.__table__
OTHER = aliased(Item)
PARENT = aliased(Item)


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    with opened(twins, database_url):
        session: Session = twins.session()
        session.add_all(
            Item(id=number, name=f"{number % 2}", logins=number, parent_id=number - 1) for number in range(20)
        )
        session.commit()
        yield session


class Coin(sa.ColumnElement[bool]):
    """An element of the application's own, written as SQLAlchemy's compiler extension describes."""

    inherit_cache = True
    type = sa.Boolean()


class Lower(sa.sql.functions.FunctionElement[int]):
    """A function of the application's own, with the name of one that is repeatable."""

    name = "lower"
    inherit_cache = True
    type = sa.Integer()


@compiles(Coin)
@compiles(Lower)
def _random_half(element: Any, compiler: Any, **options: Any) -> str:
    on_sqlite = compiler.dialect.name == "sqlite"
    number = "random()" if on_sqlite else "(random() - 0.5)"
    return f"({number} > 0)" if isinstance(element, Coin) else number


class Salted(sa.types.TypeDecorator[int]):
    """A number that the database itself makes another one of."""

    impl = sa.Integer
    cache_ok = True

    def bind_expression(self, bindvalue: sa.BindParameter[int]) -> sa.ColumnElement[int]:
        return bindvalue + sa.func.random(type_=sa.Integer)


CRITERIA: dict[str, Callable[[], Any]] = {
    "random": lambda: sa.func.random() > sa.case((sa.func.abs(sa.func.random()) > 1, 0), else_=0.5),
    "text": lambda: sa.text("abs(random()) >= 0"),
    "literal_column": lambda: sa.literal_column("random()") != 0.1,
    "random_parameter": lambda: Item.logins > sa.bindparam("least", callable_=lambda: random.randrange(20)),
    "random_element": Coin,
    "random_function": lambda: Lower() > 0,
    "random_operator": lambda: Item.logins.op("* (random() - 0.5) >")(sa.literal(0)),
    "random_type": lambda: sa.literal(0, Salted) > 0,
    "random_in_a_subquery": lambda: Item.id.in_(sa.select(OTHER.id).order_by(sa.func.random()).limit(10)),
    "subquery_of_rows_that_are_changed": lambda: (
        sa.select(sa.func.count()).where(OTHER.name == Item.name).scalar_subquery() > 5
    ),
    "exists_of_rows_that_are_changed": lambda: sa.exists().where(OTHER.id == Item.parent_id, OTHER.name != "x"),
    "subquery_of_history": lambda: Item.id.not_in(sa.select(HISTORY.id).where(HISTORY.operation != "insert")),
    "subquery_of_history_that_matches": lambda: (
        sa.select(sa.func.max(HISTORY.version)).where(HISTORY.id == Item.id).scalar_subquery() == -1
    ),
}


@pytest.mark.parametrize("operation", ["update", "update_the_same", "delete"])
def test_criteria_find_the_rows_that_are_archived(
    session: Session, operation: str, subtests: pytest.Subtests, database_kind: str
) -> None:
    for name, criterion in CRITERIA.items():
        with subtests.test(name):
            with exactly_captured(session, Item, more=operation == "update_the_same") as happened:
                if operation == "delete":
                    result: Any = session.execute(sa.delete(Item).where(criterion()))
                else:
                    label = "x" if operation == "update" else sa.null()
                    result = session.execute(sa.update(Item).where(criterion()).values(label=label, clicks=7))
            if operation != "delete":
                touched = [row["id"] for row in live_rows(session, "item", "id") if row["clicks"] == 7]
                assert len(touched) == result.rowcount
            if operation != "update_the_same":
                assert len(happened.operations) == result.rowcount
            elif database_kind == "postgresql" or name in {
                "subquery_of_rows_that_are_changed", "exists_of_rows_that_are_changed",
            }:  # fmt: skip
                assert happened.operations == {}
            if "random" not in name:
                assert result.rowcount in {19, 20}
        session.rollback()


REPEATABLE: dict[str, Callable[[], Any]] = {
    "comparisons": lambda: sa.or_(Item.id == 1, ~Item.name.is_(None), Item.name.is_distinct_from("x"), sa.false()),
    "texts": lambda: sa.and_(Item.name.like("%"), Item.name.collate("NOCASE") != "X", ~Item.name.startswith("x")),
    "lists": lambda: sa.and_(Item.id.in_(range(20)), sa.tuple_(Item.id, Item.name).not_in([(77, "x")])),
    "arithmetic": lambda: sa.cast(-Item.id, sa.Integer) + sa.case((Item.id > 1, 1), else_=2) < 3,
    "functions": lambda: sa.func.coalesce(sa.func.lower(Item.name), "x") != "x",
    "operator": lambda: Item.id.op("%")(2) < 2,
    "type": lambda: Item.price.is_(None),
    "parameter": lambda: Item.id < sa.bindparam("most", 100),
    "lambda": lambda: lambda: Item.id < 100,
    "subquery": lambda: Item.id.not_in(sa.select(Tag.item_id).join(tag := aliased(Tag), tag.id == Tag.id).limit(3)),
    "union": lambda: Item.id.not_in(sa.union(sa.select(Tag.id), sa.select(Tag.item_id).distinct())),
    "exists": lambda: ~sa.exists().where(Tag.item_id == Item.id),
    "cte": lambda: sa.select(sa.func.count()).select_from(sa.select(Tag.id).cte()).scalar_subquery() == 0,
}


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_repeatable_criteria_archive_no_row_that_stays_what_it_is(session: Session, subtests: pytest.Subtests) -> None:
    """On SQLite, which is asked twice."""
    for name, criterion in REPEATABLE.items():
        with subtests.test(name):
            with exactly_captured(session, Item) as happened:
                result: Any = session.execute(sa.update(Item).where(criterion()).values(label=sa.null(), clicks=7))
            assert (result.rowcount, happened.operations) == (20, {})
        session.rollback()


def test_criterion_that_depends_on_rows_that_are_changed_is_asked_of_what_they_were(session: Session) -> None:
    older = sa.select(OTHER.name).where(OTHER.id == Item.parent_id).scalar_subquery()
    with exactly_captured(session, Item) as happened:
        session.execute(sa.update(Item).where(older == "1").values(name="x"))
    assert happened.keys == list(range(2, 20, 2))


# What SQLite computes for a row may depend on those that it has changed already.
VALUES: dict[str, tuple[str, Callable[[], Any]]] = {
    "random": ("logins", lambda: sa.cast(sa.func.random() * 3, sa.Integer) % 3),
    "random_and_the_same": ("logins", lambda: Item.logins + sa.cast(sa.func.random() * 0, sa.Integer)),
    "literal_column": ("name", lambda: sa.literal_column("'1'")),
    "text": ("name", lambda: sa.text("'1'")),
    "now": ("name", lambda: sa.cast(sa.func.now(), sa.String)),
    "subquery": ("name", lambda: sa.select(sa.func.max(OTHER.name)).scalar_subquery()),
    "correlated_subquery": (
        "name",
        lambda: sa.select(PARENT.name).where(PARENT.id == Item.parent_id).scalar_subquery(),
    ),
    "subquery_of_history": ("logins", lambda: sa.select(sa.func.count(HISTORY.id)).scalar_subquery()),
    "correlated_subquery_of_history": (
        "logins",
        lambda: sa.select(sa.func.count(HISTORY.id)).where(HISTORY.id == Item.id).scalar_subquery(),
    ),
}


def test_values_that_cannot_be_foretold_are_archived_and_followed(
    session: Session, subtests: pytest.Subtests, database_kind: str
) -> None:
    for name, (column, value) in VALUES.items():
        with subtests.test(name):
            # Where the database cannot tell whether a value will be another, there is a version in any case.
            with exactly_captured(session, Item, more=database_kind == "sqlite"):
                result: Any = session.execute(sa.update(Item).where(Item.id > 0).values({column: value()}))
            assert result.rowcount == 19
        session.rollback()


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_clock_that_is_read_for_each_row_is_archived_as_it_is_set(session: Session) -> None:
    """On PostgreSQL, which has such a clock."""
    clock = sa.cast(sa.func.clock_timestamp(), sa.String)
    with exactly_captured(session, Item) as happened:
        names = session.scalars(sa.update(Item).values(name=clock, label=clock).returning(Item.name)).all()
    assert len(happened.operations) == 20
    assert {*names} == {row["name"] for row in live_rows(session, "item")}


# Of several sets of parameters, the first changes what the second finds.
DEPENDENT: dict[str, tuple[sa.Update | sa.Delete, list[dict[str, Any]]]] = {
    "untracked": (
        TABLE.update()
        .where(TABLE.c.clicks == sa.bindparam("old"))
        .values(clicks=sa.bindparam("new"), name=sa.bindparam("named")),
        [{"old": 0, "new": 1, "named": "0"}, {"old": 1, "new": 2, "named": "x"}],
    ),
    "untracked_value": (
        TABLE.update()
        .where(TABLE.c.id == sa.bindparam("which"))
        .values(clicks=sa.bindparam("new"), logins=TABLE.c.clicks * 0 + TABLE.c.logins + TABLE.c.clicks),
        [{"which": 3, "new": 1}, {"which": 3, "new": 1}],
    ),
    "other_rows": (
        TABLE.update()
        .where(
            TABLE.c.id == sa.bindparam("which"),
            sa.exists().where((other := TABLE.alias()).c.id == sa.bindparam("other"), other.c.name == "x"),
        )
        .values(name="x"),
        [{"which": 1, "other": 1}, {"which": 2, "other": 1}],
    ),
    "rows_that_are_left": (
        TABLE.delete().where(
            TABLE.c.id >= sa.bindparam("which"), sa.select(sa.func.count(TABLE.alias().c.id)).scalar_subquery() > 18
        ),
        [{"which": 18}, {"which": 16}, {"which": 1}],
    ),
    "history": (
        TABLE.delete().where(
            TABLE.c.id == sa.bindparam("which"), sa.exists().where(HISTORY.id == TABLE.c.id, HISTORY.version == -1)
        ),
        [{"which": 1}, {"which": 2}],
    ),
    "random": (
        TABLE.update().where(TABLE.c.id > sa.bindparam("which"), sa.func.random() != 0.1).values(name="x"),
        [{"which": 1}, {"which": 2}],
    ),
}


def test_sets_of_parameters_that_depend_on_each_other_are_captured_or_refused(
    session: Session, subtests: pytest.Subtests, database_kind: str
) -> None:
    before = live_rows(session, "item")
    for name, (statement, parameters) in DEPENDENT.items():
        with subtests.test(name):
            if database_kind == "postgresql":
                session.execute(statement, parameters)
                continue
            with exactly_captured(session, Item), pytest.raises(UncapturedWriteError, match="execute it once for each"):
                session.execute(statement, parameters)
            assert live_rows(session, "item") == before
        session.rollback()


def test_sets_of_parameters_that_match_the_same_rows_leave_history_of_each_row(session: Session) -> None:
    statement = TABLE.update().where(TABLE.c.name == sa.bindparam("old")).values(name=sa.bindparam("new"))
    session.execute(statement, [{"old": "0", "new": "1"}, {"old": "1", "new": "2"}, {"old": "2", "new": "2"}])
    session.commit()
    assert {row["name"] for row in live_rows(session, "item")} == {"2"}
    for number in (2, 3):
        item = session.get_one(Item, number)
        names = [version.name for version in item.versions()]
        assert names[0] == f"{number % 2}"
        assert len(names) == item.version
        assert "2" not in names


def test_sets_of_parameters_that_change_one_row_twice_leave_its_history(session: Session) -> None:
    statement = TABLE.update().where(TABLE.c.id == sa.bindparam("which")).values(name=sa.bindparam("new"))
    session.execute(statement, [{"which": 1, "new": "1"}, {"which": 1, "new": "x"}, {"which": 1, "new": "y"}])
    session.commit()
    item = session.get_one(Item, 1)
    names = [version.name for version in item.versions()]
    # SQLite archives before the first set what all of them change.
    assert (item.name, item.version) == ("y", len(names))
    assert names in (["1"], ["1", "x"])

"""Whatever a bulk statement says of the rows it means, it writes those and archives them, as without versioning."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased, with_loader_criteria

from chrononaut import UncapturedWriteError
from tests.library.conftest import opened
from tests.library.exact import exactly_captured
from tests.library.rows import live_rows
from tests.library.twins import Item, Plain, Tag, twins

Write = Callable[[Session, Any], Any]


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    with opened(twins, database_url):
        session: Session = twins.session()
        for model in (Item, Plain):
            session.add_all(
                model(id=number, name=f"{number % 2}", logins=number, parent_id=number - 1) for number in range(1, 7)
            )
        session.add_all(
            [Tag(item_id=1, text="1"), Tag(item_id=1, text="one"), Tag(item_id=2, text="two"), Tag(item_id=9, text="9")]
        )
        session.commit()
        yield session


def _update(criterion: Callable[[Any], Any], **options: Any) -> Write:
    return lambda s, m: s.execute(sa.update(m).where(criterion(m)).values(name="1"), execution_options=options)


def _delete(criterion: Callable[[Any], Any]) -> Write:
    return lambda s, m: s.execute(sa.delete(m).where(criterion(m)))


def _tagged(model: Any) -> Any:
    return sa.select(Tag.item_id).where(Tag.text != "9")


def _returning(model: Any) -> Any:
    return sa.update(model).where(model.id < 4).values(name="1")


def _with_criteria(session: Session, model: Any) -> Any:
    return session.execute(sa.update(model).values(name="1").options(with_loader_criteria(model, model.id < 3)))


def _with_own_cte(session: Session, model: Any) -> Any:
    chosen = sa.select(Tag.item_id).where(Tag.text == "two").cte("chosen")
    return session.execute(sa.update(model).where(model.id.in_(sa.select(chosen.c.item_id))).values(name="1"))


def _with_added_cte(session: Session, model: Any) -> Any:
    chosen = sa.select(Tag.item_id).cte("chosen")
    return session.execute(sa.update(model).where(model.id == 2).values(name="1").add_cte(chosen))


def _of_alias(session: Session, model: Any) -> Any:
    table = model.__table__.alias()
    return session.execute(sa.delete(table).where(table.c.id.in_([1, 2])).returning(table.c.name)).all()


# What is written, and the rows that change.
WRITES: dict[str, tuple[Write, list[int]]] = {
    "no_criteria": (lambda s, m: s.execute(sa.update(m).values(name="1")), [2, 4, 6]),
    "no_criteria_delete": (lambda s, m: s.execute(sa.delete(m)), [1, 2, 3, 4, 5, 6]),
    "no_rows": (_update(lambda m: m.id > 100), []),
    "no_rows_delete": (_delete(lambda m: m.id > 100), []),
    "false": (_update(lambda m: sa.false()), []),
    "none_of_a_list": (_update(lambda m: m.id.in_([])), []),
    "a_list": (_update(lambda m: m.id.in_([1, 2, 4])), [2, 4]),
    "a_list_delete": (_delete(lambda m: m.id.in_([1, 2, 4])), [1, 2, 4]),
    "a_list_as_parameter": (
        lambda s, m: s.execute(
            m.__table__.update().where(m.id.in_(sa.bindparam("ids", expanding=True))).values(name="1"), {"ids": [1, 2]}
        ),
        [2],
    ),
    "tuples": (_update(lambda m: sa.tuple_(m.id, m.name).in_([(2, "0"), (4, "1")])), [2]),
    "several": (lambda s, m: s.execute(sa.update(m).where(m.id > 1).where(m.id < 4).values(name="1")), [2]),
    "filter_by": (lambda s, m: s.execute(sa.update(m).filter_by(title="0").values(title="1")), [2, 4, 6]),
    "query": (lambda s, m: s.query(m).filter(m.id < 3).filter_by(name="0").update({"name": "1"}), [2]),
    "query_delete": (lambda s, m: s.query(m).filter(m.id < 3).delete("fetch"), [1, 2]),
    "what_is_set": (_update(lambda m: m.name == "0"), [2, 4, 6]),
    "subquery": (_update(lambda m: m.id.in_(_tagged(m))), [2]),
    "subquery_delete": (_delete(lambda m: m.id.in_(_tagged(m))), [1, 2]),
    "exists": (_update(lambda m: sa.exists().where(Tag.item_id == m.id)), [2]),
    "exists_delete": (_delete(lambda m: sa.exists(sa.literal_column("1")).where(Tag.item_id == m.id)), [1, 2]),
    "scalar_subquery": (
        _update(lambda m: sa.select(sa.func.count()).where(Tag.item_id == m.id).scalar_subquery() == 1),
        [2],
    ),
    "itself": (_update(lambda m: m.id.in_(sa.select(aliased(m).id).limit(9))), [2, 4, 6]),
    "loader_criteria": (_with_criteria, [2]),
    "own_cte": (_with_own_cte, [2]),
    "added_cte": (_with_added_cte, [2]),
    "alias": (_of_alias, [1, 2]),
    "returning_columns": (lambda s, m: s.execute(_returning(m).returning(m.id, m.label, m.name)).all(), [2]),
    "returning_expression": (lambda s, m: s.execute(_returning(m).returning(m.id + m.logins)).all(), [2]),
    "returning_entities": (lambda s, m: sorted(i.id for i in s.scalars(_returning(m).returning(m))), [2]),
    "returning_of_delete": (
        lambda s, m: s.execute(sa.delete(m).where(m.id < 3).returning(m.name, m.id)).all(),
        [1, 2],
    ),
    "returning_text": (lambda s, m: s.execute(_returning(m).returning(sa.text("name"))).all(), [2]),
    "returning_text_of_delete": (
        lambda s, m: s.execute(sa.delete(m).where(m.id < 3).returning(sa.literal_column("id"))).all(),
        [1, 2],
    ),
    "returning_of_nothing": (lambda s, m: s.execute(_returning(m).where(m.id > 5).returning(m.id)).all(), []),
    "returning_one": (lambda s, m: s.execute(_returning(m).where(m.id == 2).returning(m.id)).scalar_one(), [2]),
    "returning_of_core": (
        lambda s, m: s.execute(
            m.__table__.update().where(m.__table__.c.id < 4).values(name="1").returning(m.__table__.c.codename)
        ).all(),
        [2],
    ),
    "partitions": (
        lambda s, m: [len(p) for p in s.execute(_returning(m).returning(m.id)).partitions(2)],
        [2],
    ),
    "no_autoflush": (lambda s, m: s.execute(_returning(m), execution_options={"autoflush": False}), [2]),
}  # fmt: skip


def _comparable(result: Any) -> object:
    return result.rowcount if isinstance(result, sa.CursorResult) else _sorted(result)


def _sorted(result: object) -> object:
    return sorted(map(str, result)) if isinstance(result, list) else result


def test_statement_writes_the_rows_that_it_means_and_archives_those(
    session: Session, subtests: pytest.Subtests
) -> None:
    for name, (write, changed) in WRITES.items():
        with subtests.test(name):
            with exactly_captured(session, Item) as happened:
                result = _comparable(write(session, Item))
            assert happened.keys == changed
            assert result == _comparable(write(session, Plain))
            live = [(row["id"], row["name"]) for row in live_rows(session, "item", "id")]
            assert live == [(row["id"], row["name"]) for row in live_rows(session, "plain", "id")]
        session.rollback()


def test_version_that_is_returned_is_the_one_that_was_counted(session: Session) -> None:
    returned = session.execute(sa.update(Item).where(Item.id < 4).values(name="1").returning(Item.id, Item.version))
    assert sorted(tuple(row) for row in returned) == [(1, 0), (2, 1), (3, 0)]
    entities = session.scalars(sa.update(Item).values(name="2").returning(Item))
    assert sorted((item.id, item.version) for item in entities) == [(1, 1), (2, 2), (3, 1), (4, 1), (5, 1), (6, 1)]
    deleted = session.execute(sa.delete(Item).where(Item.id == 2).returning(Item.version)).scalar_one()
    assert deleted == 2


# Statements that draw on other tables.
JOINS: dict[str, tuple[Write, list[int]]] = {
    "value_of_the_other": (
        lambda s, m: s.execute(sa.update(m).where(m.id == Tag.item_id, m.id == 2).values(name=Tag.text)),
        [2],
    ),
    "one_of_several": (lambda s, m: s.execute(sa.update(m).where(m.id == Tag.item_id).values(name="x")), [1, 2]),
    "same_value": (lambda s, m: s.execute(sa.update(m).where(m.id == Tag.item_id).values(name=m.name)), []),
    "expression_of_both": (
        lambda s, m: s.execute(
            sa.update(m).where(m.id == Tag.item_id, Tag.text == "two").values(logins=m.logins + Tag.item_id)
        ),
        [2],
    ),
    "the_same_table": (
        lambda s, m: s.execute(
            sa.update(m).where(m.parent_id == (parent := aliased(m)).id, m.id < 4).values(name=parent.name)
        ),
        [2, 3],
    ),
    "own_cte": (
        lambda s, m: s.execute(
            sa.update(m)
            .where(m.id == (c := sa.select(Tag.item_id, Tag.text).where(Tag.text == "two").cte("c")).c.item_id)
            .values(name=c.c.text)
        ),
        [2],
    ),
    "values": (
        lambda s, m: s.execute(
            sa.update(m)
            .where(
                m.id
                == (
                    given := sa.values(sa.column("id", sa.Integer), sa.column("name", sa.String), name="given").data(
                        [(1, "1"), (2, "x"), (3, "y")]
                    )
                ).c.id
            )
            .values(name=given.c.name)
        ),
        [2, 3],
    ),
    "returning_of_own": (
        lambda s, m: s.execute(
            sa.update(m).where(m.id == Tag.item_id).values(name="x").returning(m.id)
        ).all(),
        [1, 2],
    ),
    "delete": (lambda s, m: s.execute(sa.delete(m).where(m.id == Tag.item_id)), [1, 2]),
    "delete_the_same_table": (
        lambda s, m: s.execute(sa.delete(m).where(m.parent_id == (parent := aliased(m)).id, parent.name == "1")),
        [2, 4, 6],
    ),
}  # fmt: skip


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_statement_that_joins_writes_and_archives_each_row_once(session: Session, subtests: pytest.Subtests) -> None:
    """On PostgreSQL. Where several rows match one, the database takes any of them."""
    for name, (write, changed) in JOINS.items():
        with subtests.test(name):
            with exactly_captured(session, Item) as happened:
                result = _comparable(write(session, Item))
            assert happened.keys == changed
            assert result == _comparable(write(session, Plain))
            live = [(row["id"], row["name"], row["logins"]) for row in live_rows(session, "item", "id")]
            assert live == [(row["id"], row["name"], row["logins"]) for row in live_rows(session, "plain", "id")]
        session.rollback()


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_one_of_several_joined_rows_is_archived_as_it_is_set(session: Session) -> None:
    """On PostgreSQL, where the database takes any of the rows that match."""
    with exactly_captured(session, Item) as happened:
        (name,) = session.scalars(
            sa.update(Item).where(Item.id == Tag.item_id, Item.id == 1).values(name=Tag.text).returning(Item.name)
        )
    assert happened.keys == {"1": [], "one": [1]}[str(name)]


RETURNING_OF_THE_OTHER: dict[str, Callable[[], Any]] = {
    "update": lambda: sa.update(Item).where(Item.id == Tag.item_id).values(name="x").returning(Item.id, Tag.text),
    "delete": lambda: sa.delete(Item).where(Item.id == Tag.item_id).returning(Item.id, Tag.text),
}


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize("statement", RETURNING_OF_THE_OTHER.values(), ids=RETURNING_OF_THE_OTHER)
def test_returning_of_what_is_joined_is_refused(session: Session, statement: Callable[[], Any]) -> None:
    with exactly_captured(session, Item), pytest.raises(UncapturedWriteError, match="RETURNING"):
        session.execute(statement())


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_statement_that_joins_is_refused(session: Session, subtests: pytest.Subtests) -> None:
    """On SQLite, which would write any of the rows that match."""
    for name, (write, _) in JOINS.items():
        with (
            subtests.test(name),
            exactly_captured(session, Item) as happened,
            pytest.raises(
                (UncapturedWriteError, sa.exc.CompileError), match=r"use a subquery|RETURNING with DELETE..USING"
            ),
        ):
            write(session, Item)
        assert happened.operations == {}

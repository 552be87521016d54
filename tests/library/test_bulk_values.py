"""What a bulk update sets, however it is said, the rows and their history have: as without versioning, and exactly."""

from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut import VersionedSQLAlchemy
from tests.library.conftest import opened
from tests.library.exact import exactly_captured
from tests.library.models import define
from tests.library.rows import Row, changes, history_rows, live_rows
from tests.library.twins import Item, Kind, Plain, twins

Write = Callable[[Session, Any], Any]


def _set(**values: Any) -> Write:
    return lambda session, model: session.execute(sa.update(model).values(**values))


def _set_to(**expressions: Callable[[Any], Any]) -> Write:
    def write(session: Session, model: Any) -> Any:
        return session.execute(sa.update(model).values({name: of(model) for name, of in expressions.items()}))

    return write


# What is written, and which of the four rows it changes.
UPDATES: dict[str, tuple[Write, list[int]]] = {
    "a_value": (_set(name="b"), [1, 3, 4]),
    "none": (_set(name=None), [1, 2, 3]),
    "null": (_set(name=sa.null()), [1, 2, 3]),
    "literal": (_set(name=sa.literal("b")), [1, 3, 4]),
    "text": (_set(logins=sa.text("logins + 1")), [1, 2, 3, 4]),
    "sum": (_set_to(logins=lambda m: m.logins + m.clicks), [2, 3, 4]),
    "product_that_is_the_same": (_set_to(logins=lambda m: m.logins * 1), []),
    "function": (_set_to(name=lambda m: sa.func.lower(m.name)), [3]),
    "case": (_set_to(name=lambda m: sa.case((m.id < 3, "a"), else_=m.name)), [2]),
    "cast": (_set_to(name=lambda m: sa.cast(m.id, sa.String)), [1, 2, 3, 4]),
    "coalesce": (_set_to(name=lambda m: sa.func.coalesce(m.name, "z")), [4]),
    "other_column": (_set_to(name=lambda m: m.label, label=lambda m: m.name), [1, 2, 3]),
    "enum": (_set(kind=Kind.SMALL), [2, 3, 4]),
    "enum_by_case": (
        _set_to(kind=lambda m: sa.case((m.id < 3, sa.literal(Kind.SMALL, m.kind.type)), else_=m.kind)),
        [2],
    ),
    "decorated": (_set(price=Decimal("1.5")), [2, 3, 4]),
    "decorated_sum": (_set_to(price=lambda m: m.price + Decimal("0.5")), [1, 2]),
    "decorated_raw": (_set(price=sa.literal(150, sa.Integer)), [2, 3, 4]),
    "numeric": (_set(rate=Decimal("1.10")), [2, 3, 4]),
    "date": (_set(day=date(2026, 1, 1)), [2, 3, 4]),
    "json": (_set(settings={"a": 1}), [2, 3, 4]),
    "json_of_other_column": (_set_to(settings=lambda m: m.settings), []),
    "synonym": (_set_to(title=lambda m: sa.literal("b")), [1, 3, 4]),
    "hybrid": (lambda s, m: s.execute(sa.update(m).values({m.shout: "b"})), [1, 2, 3, 4]),
    "attribute_named_unlike_its_column": (_set(label="x"), [2, 3, 4]),
    "column_named_unlike_its_attribute": (
        lambda s, m: s.execute(m.__table__.update().values(codename="x")),
        [2, 3, 4],
    ),
    "untracked": (_set(clicks=7), []),
    "untracked_expression": (_set_to(clicks=lambda m: m.clicks + 1), []),
    "untracked_and_tracked_that_is_the_same": (_set_to(clicks=lambda m: 7, name=lambda m: m.name), []),
    "hidden": (_set(secret="s"), [2, 3, 4]),
    "hidden_expression": (_set_to(secret=lambda m: sa.func.lower(m.secret)), [2]),
    "two_hidden": (_set(secret="s", token="t"), [1, 2, 3, 4]),
    "hidden_and_tracked": (_set_to(secret=lambda m: "s", name=lambda m: "b"), [1, 2, 3, 4]),
    "hidden_and_untracked": (_set(secret="s", clicks=9), [2, 3, 4]),
    "named_parameter": (
        lambda s, m: s.execute(
            m.__table__.update().where(m.id < sa.bindparam("below")).values(name=sa.bindparam("given")),
            {"below": 3, "given": "b"},
        ),
        [1],
    ),
    "parameters_named_as_columns_of_ours": (
        lambda s, m: s.execute(
            m.__table__.update().where(m.id < sa.bindparam("operation")).values(name=sa.bindparam("changed")),
            {"operation": 3, "changed": "b"},
        ),
        [1],
    ),
    "parameter_with_a_value": (_set(name=sa.bindparam("given", "b")), [1, 3, 4]),
    "parameter_in_a_function": (
        lambda s, m: s.execute(
            m.__table__.update().values(name=sa.func.lower(sa.bindparam("given", type_=sa.String))), {"given": "B"}
        ),
        [1, 3, 4],
    ),
    "given_columns": (lambda s, m: s.execute(m.__table__.update(), {"name": "b", "clicks": 3}), [1, 3, 4]),
    "given_and_set": (lambda s, m: s.execute(m.__table__.update().values(codename="x"), {"name": "b"}), [1, 2, 3, 4]),
    "the_version": (lambda s, m: s.execute(sa.update(m).values(name="b", version=7)), [1, 3, 4]),
    "the_version_and_untracked": (lambda s, m: s.execute(sa.update(m).values(clicks=1, version=7)), []),
    "the_version_and_untracked_given": (lambda s, m: s.execute(m.__table__.update(), {"clicks": 1, "version": 7}), []),
    "the_version_alone": (lambda s, m: s.execute(sa.update(m).values(version=7)), []),
    "the_version_given": (
        lambda s, m: s.execute(m.__table__.update(), {"name": "b", "version": 7}),
        [1, 3, 4],
    ),
    "the_version_by_primary_key": (
        lambda s, m: s.execute(
            sa.update(m), [{"id": 1, "name": "b", "version": 7}, {"id": 2, "name": "b", "version": 7}]
        ),
        [1],
    ),
    "many_of_different_columns": (
        lambda s, m: s.execute(sa.update(m), [{"id": 1, "name": "b"}, {"id": 2, "label": "x"}, {"id": 3, "clicks": 1}]),
        [1, 2],
    ),
    "ordered": (lambda s, m: s.execute(sa.update(m).ordered_values((m.label, "x"), (m.name, m.label))), [1, 2, 3, 4]),
}
WITHOUT_TWIN = {name for name in UPDATES if name.startswith("the_version")}


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    with opened(twins, database_url):
        session: Session = twins.session()
        for model in (Item, Plain):
            session.add_all(
                [
                    model(
                        id=1, name="a", label="x", kind=Kind.SMALL, price=Decimal("1.5"), rate=Decimal("1.1"),
                        day=date(2026, 1, 1), settings={"a": 1}, parent_id=2, secret="s",
                    ),
                    model(
                        id=2, name="b", label="y", kind=Kind.LARGE, price=Decimal(2), settings={"a": 2}, parent_id=3,
                        secret="S", token="T", clicks=1,
                    ),
                    model(id=3, name="C", clicks=2, settings=None),
                    model(id=4, clicks=3),
                ]
            )  # fmt: skip
        session.commit()
        yield session


def test_update_sets_what_it_says_and_archives_what_it_changes(session: Session, subtests: pytest.Subtests) -> None:
    for name, (update, changed) in UPDATES.items():
        with subtests.test(name):
            with exactly_captured(session, Item) as happened:
                result = update(session, Item)
            assert happened.keys == changed
            if name not in WITHOUT_TWIN:
                plain = update(session, Plain)
                assert _told(result) == _told(plain)
                assert _without_version(live_rows(session, "item", "id")) == live_rows(session, "plain", "id")
        session.rollback()


def _told(result: Any) -> tuple[object, ...]:
    return getattr(result, "rowcount", None), getattr(result, "returns_rows", None)


def _without_version(rows: list[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if name != "version"} for row in rows]


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_computed_value_that_the_column_rounds_to_what_it_was_is_no_version(
    open_database: Callable[..., Session],
) -> None:
    """On PostgreSQL, whose columns round."""
    database = VersionedSQLAlchemy()
    price = define(database, "Price", id=sa.Column(sa.Integer, primary_key=True), amount=sa.Column(sa.Numeric(10, 2)))
    session = open_database(database)
    session.add_all([price(id=1, amount=1), price(id=2, amount=1000)])
    session.commit()
    session.execute(sa.update(price).values(amount=price.amount * sa.literal(Decimal("1.001"))))
    session.commit()
    assert changes(history_rows(session, "price_history", id=1)) == [(-1, "insert")]
    assert changes(history_rows(session, "price_history", id=2)) == [(-1, "insert"), (0, "update")]

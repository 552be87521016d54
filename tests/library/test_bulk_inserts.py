"""Bulk inserts record what they insert, and go on numbering where a key was used before."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from chrononaut import UncapturedWriteError, VersionedSQLAlchemy, suppress_versioning
from tests.library.conftest import opened
from tests.library.exact import exactly_captured
from tests.library.models import Release, User, define
from tests.library.rows import changes, history_rows, live_rows
from tests.library.twins import Item, Plain, Tag, twins

ITEMS: Any = Item.__table__
TABLE: Any = User.__table__
Write = Callable[[Session, Any], Any]


@pytest.fixture
def items(database_url: str) -> Iterator[Session]:
    """Items of which 1 and 2 are there, 3 was deleted, and 4 was deleted twice."""
    with opened(twins, database_url):
        session: Session = twins.session()
        for model in (Item, Plain):
            for ids in ([1, 2, 3, 4], [4]):
                session.add_all(model(id=number, name="old") for number in ids)
                session.flush()
                for obj in session.scalars(sa.select(model).where(model.id > 2)):
                    session.delete(obj)
                session.commit()
        session.add_all(Tag(item_id=number, text=f"tag {number}") for number in (3, 8))
        session.commit()
        if session.connection().dialect.name == "postgresql":
            for table in ("item", "plain"):
                session.execute(sa.text(f"SELECT setval('{table}_id_seq', 100)"))
            session.commit()
        else:
            session.execute(sa.insert(Item).values(id=100))
            session.execute(sa.insert(Plain).values(id=100))
            session.commit()
        yield session


def _or_nothing(session: Session, model: Any) -> Any:
    return (postgresql.insert if session.connection().dialect.name == "postgresql" else sqlite.insert)(
        model
    ).on_conflict_do_nothing()


KEYED: list[dict[str, Any]] = [
    {"id": 3, "name": "a", "secret": "s"},
    {"id": 5, "name": "b", "secret": None},
    {"id": 4, "name": "c", "secret": "s"},
]
TAKEN: list[dict[str, Any]] = [
    {"id": 1, "name": "taken"},
    {"id": 3, "name": "a"},
    {"id": 5, "name": "b"},
    {"id": 2, "name": "taken"},
]
UNKEYED: list[dict[str, Any]] = [{"name": "a", "secret": "s"}, {"name": "b", "secret": None}]
PARTLY: list[dict[str, Any]] = [
    {"id": 3, "name": "a"},
    {"name": "b"},
    {"id": 5, "name": "c"},
    {"id": None, "name": "d"},
    {"name": "e", "secret": "s"},
]


def _from_select(session: Session, model: Any) -> Any:
    return session.execute(sa.insert(model).from_select(["id", "name"], sa.select(Tag.item_id, Tag.text)))


def _from_select_of_itself(session: Session, model: Any) -> Any:
    rows = sa.select(model.id + 2, model.name, sa.literal("s")).where(model.id < 3)
    return session.execute(model.__table__.insert().from_select(["id", "name", "secret"], rows))


# What is inserted, and the keys of it; None where the database makes them.
INSERTS: dict[str, tuple[Write, list[int] | None]] = {
    "many": (lambda s, m: s.execute(sa.insert(m), KEYED), [3, 4, 5]),
    "many_of_core": (lambda s, m: s.execute(m.__table__.insert(), KEYED), [3, 4, 5]),
    "values": (lambda s, m: s.execute(sa.insert(m).values(KEYED)), [3, 4, 5]),
    "single": (lambda s, m: s.execute(sa.insert(m).values(id=3, name="x")), [3]),
    "expression": (lambda s, m: s.execute(sa.insert(m).values(id=sa.literal(2) + 1, name=sa.func.lower("X"))), [3]),
    "subquery": (
        lambda s, m: s.execute(sa.insert(m).values(id=sa.select(sa.func.min(Tag.item_id)).scalar_subquery())),
        [3],
    ),
    "unkeyed": (lambda s, m: s.execute(sa.insert(m), UNKEYED), None),
    "unkeyed_values": (lambda s, m: s.execute(sa.insert(m).values(UNKEYED)), None),
    "partly_keyed": (lambda s, m: s.execute(sa.insert(m), PARTLY), None),
    "partly_keyed_mappings": (lambda s, m: s.bulk_insert_mappings(m, [dict(row) for row in PARTLY]), None),
    "nulls_rendered": (lambda s, m: s.execute(sa.insert(m).execution_options(render_nulls=True), KEYED), [3, 4, 5]),
    "nulls_rendered_mappings": (
        lambda s, m: s.bulk_insert_mappings(m, [dict(row) for row in KEYED], render_nulls=True),
        [3, 4, 5],
    ),
    "taken": (lambda s, m: s.execute(_or_nothing(s, m).values(TAKEN)), [3, 5]),
    "taken_many": (lambda s, m: s.execute(_or_nothing(s, m), TAKEN), [3, 5]),
    "taken_many_of_core": (lambda s, m: s.execute(_or_nothing(s, m.__table__), TAKEN), [3, 5]),
    "taken_single": (lambda s, m: s.execute(_or_nothing(s, m).values(id=1)), []),
    "taken_returning": (
        lambda s, m: sorted(s.scalars(_or_nothing(s, m).values(TAKEN).returning(m.id))),
        [3, 5],
    ),
    "from_select": (_from_select, [3, 8]),
    "from_select_of_itself": (_from_select_of_itself, [3, 4]),
    "from_select_returning": (
        lambda s, m: s.execute(
            sa.insert(m).from_select(["id", "name"], sa.select(Tag.item_id, Tag.text)).returning(m.name, m.id)
        ).all(),
        [3, 8],
    ),
    "sorted": (
        lambda s, m: s.scalars(sa.insert(m).returning(m.name, sort_by_parameter_order=True), KEYED).all(),
        [3, 4, 5],
    ),
    "sorted_entities": (
        lambda s, m: [i.name for i in s.scalars(sa.insert(m).returning(m, sort_by_parameter_order=True), UNKEYED)],
        None,
    ),
    "returning_mappings": (
        lambda s, m: s.execute(sa.insert(m).returning(m.name, m.label), KEYED).mappings().all(),
        [3, 4, 5],
    ),
    "returning_one": (lambda s, m: s.execute(sa.insert(m).values(id=3).returning(m.id)).scalar_one(), [3]),
    "returning_entity": (lambda s, m: s.scalars(sa.insert(m).values(id=3).returning(m)).one().id, [3]),
    "saved_objects": (lambda s, m: s.bulk_save_objects([m(**row) for row in KEYED]), [3, 4, 5]),
    "nothing": (
        lambda s, m: s.execute(sa.insert(m).from_select(["id"], sa.select(sa.literal(9)).where(sa.false()))),
        [],
    ),
}


def _comparable(result: Any) -> object:
    if isinstance(result, sa.CursorResult):
        return result.rowcount
    return None if isinstance(result, sa.Result) else result


def test_insert_inserts_what_it_says_and_records_it(items: Session, subtests: pytest.Subtests) -> None:
    for name, (insert, keys) in INSERTS.items():
        with subtests.test(name):
            with exactly_captured(items, Item) as happened:
                result = _comparable(insert(items, Item))
            assert {*happened.operations.values()} <= {"insert"}
            assert len(happened.keys) > 1 if keys is None else happened.keys == keys
            assert result == _comparable(insert(items, Plain))
            columns = "name", "codename", "logins", "secret"
            live = [[row[column] for column in columns] for row in live_rows(items, "item", "id")]
            assert live == [[row[column] for column in columns] for row in live_rows(items, "plain", "id")]
            for item in items.scalars(sa.select(Item)):
                item.name = f"{item.id} goes on"
            items.flush()
        items.rollback()


def test_objects_that_an_insert_returns_have_the_version_that_follows(items: Session) -> None:
    found = items.scalars(sa.insert(Item).returning(Item), KEYED).all()
    assert {item.id: item.version for item in found} == {3: 2, 4: 4, 5: 0}
    for item in found:
        item.name = "goes on"
    items.commit()
    assert {item.id: item.version for item in found} == {3: 3, 4: 5, 5: 1}


def test_version_that_an_insert_returns_is_the_one_that_follows(items: Session) -> None:
    found = items.execute(sa.insert(Item).returning(Item.id, Item.version), KEYED).all()
    assert {row.id: row.version for row in found} == {3: 2, 4: 4, 5: 0}


def test_object_that_is_loaded_has_the_version_that_follows(items: Session) -> None:
    items.execute(sa.insert(Item), KEYED)
    assert items.get_one(Item, 4).version == 4


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_insert_or_ignore_records_what_it_inserts(items: Session) -> None:
    """On SQLite, which has it."""
    for many in (False, True):
        with exactly_captured(items, Item) as happened:
            statement = ITEMS.insert().prefix_with("OR IGNORE")
            if many:
                items.execute(statement, TAKEN)
            else:
                items.execute(statement.values(id=1, name="taken"))
        assert happened.keys == ([3, 5] if many else [])
    with exactly_captured(items, Item) as happened, pytest.raises(Exception, match="not captured"):
        items.execute(ITEMS.update().prefix_with("OR IGNORE").values(id=1))


VERSIONS: dict[str, Write] = {
    "single": lambda s, m: s.execute(sa.insert(m).values(id=5, version=7)),
    "many": lambda s, m: s.execute(sa.insert(m), [{"id": 5, "version": 7}, {"id": 3, "version": 8}]),
    "many_of_core": lambda s, m: s.execute(m.__table__.insert(), [{"id": 5, "version": 7}, {"id": 3, "version": 8}]),
    "given": lambda s, m: s.execute(m.__table__.insert(), {"id": 5, "version": 7}),
    "mappings": lambda s, m: s.bulk_insert_mappings(m, [{"id": 5, "version": 7}, {"id": 3, "version": 8}]),
    "returning": lambda s, m: s.scalars(
        sa.insert(m).returning(m.id), [{"id": 5, "version": 7}, {"id": 3, "version": 8}]
    ).all(),
    "objects": lambda s, m: s.bulk_save_objects([m(id=5, version=7)]),
}


def test_version_that_is_given_is_not_taken(items: Session, subtests: pytest.Subtests) -> None:
    for name, insert in VERSIONS.items():
        with subtests.test(name), exactly_captured(items, Item) as happened:
            insert(items, Item)
        assert 5 in happened.keys
        items.rollback()


def test_many_rows_are_recorded_in_batches(items: Session, subtests: pytest.Subtests) -> None:
    rows = [{"name": f"{number}", **({"secret": "s"} if number % 2 else {"secret": None})} for number in range(2500)]
    writes: dict[str, Callable[[], Any]] = {
        "orm": lambda: items.execute(sa.insert(Item), rows),
        "keyed": lambda: items.execute(sa.insert(Item), [{"id": 200 + n, **row} for n, row in enumerate(rows)]),
        "returning": lambda: items.execute(sa.insert(Item).returning(Item.name), rows).all(),
    }
    for name, write in writes.items():
        with subtests.test(name):
            with exactly_captured(items, Item) as happened:
                write()
            assert len(happened.operations) == 2500
        items.rollback()


@pytest.mark.parametrize("many", [True, False])
def test_key_of_python_or_of_a_sequence_is_recorded(open_database: Callable[..., Session], many: bool) -> None:
    database: Any = VersionedSQLAlchemy()
    by_uuid = define(
        database, "ByUuid", id=sa.Column(sa.Uuid, primary_key=True, default=uuid.uuid4), name=sa.Column(sa.String)
    )
    by_text = define(
        database,
        "ByText",
        code=sa.Column(sa.String, primary_key=True, server_default="made"),
        name=sa.Column(sa.String),
    )
    two = define(
        database,
        "Two",
        product=sa.Column(sa.String, primary_key=True),
        number=sa.Column(sa.Integer, primary_key=True, default=7),
        name=sa.Column(sa.String),
    )
    session = open_database(database)
    rows = [{"name": "a"}, {"name": "b"}] if many else {"name": "a"}
    with exactly_captured(session, by_uuid) as happened:
        session.execute(sa.insert(by_uuid), rows)
    assert len(happened.operations) == 1 + many
    if not many:
        with exactly_captured(session, by_text) as happened:
            session.execute(sa.insert(by_text), rows)
        assert happened.keys == ["made"]
    pairs: Any = [{"product": "b", "name": "a"}, {"product": "a", "name": "b"}]
    for again in range(2):
        with exactly_captured(session, two) as happened:
            session.execute(sa.insert(two), pairs if many else pairs[0])
        assert happened.keys == ([("a", 7), ("b", 7)] if many else [("b", 7)])
        session.execute(sa.delete(two).where(two.number == 7))
        assert changes(history_rows(session, "two_history", product="b"))[-1] == (2 * again, "delete")


def test_key_that_is_not_fetched_by_itself_is_recorded(session: Session) -> None:
    with exactly_captured(session, User) as happened:
        session.execute(TABLE.insert().inline().values(email="a"))
        session.execute(TABLE.insert().inline(), [{"email": "b"}, {"email": "c"}])
    assert len(happened.operations) == 3


@pytest.mark.parametrize("given", ["insertmanyvalues", "implicit_returning"])
def test_insert_whose_keys_are_not_returned_is_refused(open_database: Callable[..., Session], given: str) -> None:
    database: Any = VersionedSQLAlchemy()
    returning = given != "implicit_returning"
    page = define(
        database,
        "Page",
        __table_args__={"implicit_returning": returning},
        id=sa.Column(sa.Integer, primary_key=True),
        name=sa.Column(sa.String),
    )
    session = open_database(database, SQLALCHEMY_ENGINE_OPTIONS={"use_insertmanyvalues": returning and None})
    if returning:
        session.connection().dialect.insert_executemany_returning = False
    rows: Any = [{"name": "a"}, {"name": "b"}]
    with pytest.raises(UncapturedWriteError, match=r"INSERT whose keys are not returned .* give the keys"):
        session.execute(sa.insert(page), rows)
    with pytest.raises(UncapturedWriteError, match="roll the session back"):
        session.commit()
    session.rollback()
    with exactly_captured(session, page) as happened:
        session.execute(sa.insert(page), [{"id": 7, "name": "a"}, {"id": 8, "name": "b"}])
        session.execute(sa.insert(page), {"id": 9})
    assert happened.keys == [7, 8, 9]
    with suppress_versioning():
        session.execute(sa.insert(page), rows)
    session.commit()
    assert len(live_rows(session, "page")) == 5
    assert len(history_rows(session, "page_history")) == 3


@pytest.mark.parametrize("many", [True, False])
def test_key_of_the_mapper_that_is_not_the_tables_is_recorded(
    open_database: Callable[..., Session], many: bool
) -> None:
    database: Any = VersionedSQLAlchemy()
    page = define(
        database,
        "Page",
        __mapper_args__={"primary_key": ["code"]},
        id=sa.Column(sa.Integer, primary_key=True),
        code=sa.Column(sa.String, unique=True, nullable=False),
    )
    session = open_database(database)
    for _ in range(2):
        rows: Any = [{"code": "a"}, {"code": "b"}] if many else {"code": "a"}
        with exactly_captured(session, page) as happened:
            session.execute(sa.insert(page), rows)
            session.execute(page.__table__.insert().values(code="c"))
            session.bulk_insert_mappings(sa.inspect(page), [{"code": "d"}])
        assert happened.keys == (["a", "b", "c", "d"] if many else ["a", "c", "d"])
        session.execute(sa.delete(page))
        session.commit()


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_insert_from_what_another_tables_write_returns_is_recorded(items: Session) -> None:
    """On PostgreSQL, which alone can."""
    tag = sa.insert(Tag).values(item_id=1, text="new").returning(Tag.text).cte("tag")
    with exactly_captured(items, Item) as happened:
        items.execute(
            ITEMS.insert().from_select(
                ["name", "logins", "clicks"], sa.select(tag.c.text, sa.literal(1), sa.literal(1))
            )
        )
    assert happened.keys == [101]


def test_natural_keys_that_were_used_before_go_on(session: Session) -> None:
    rows = [{"product": "p", "cycle": f"{number}", "label": "x"} for number in range(3)]
    for _ in range(3):
        with exactly_captured(session, Release) as happened:
            session.execute(sa.insert(Release), rows)
        assert len(happened.operations) == 3
        session.execute(sa.delete(Release).where(Release.cycle > "0"))
        rows = rows[1:] if len(rows) == 3 else rows
        rows = [*rows, {"product": "q", "cycle": f"{len(rows)}{_}", "label": "y"}]


def test_insert_without_history_goes_on_numbering(session: Session) -> None:
    session.add(User(id=1, email="a"))
    session.commit()
    session.execute(sa.delete(User))
    with suppress_versioning():
        session.execute(sa.insert(User), [{"id": 1, "email": "b"}])
    session.execute(sa.update(User).values(email="c"))
    session.commit()
    assert changes(history_rows(session, "appuser_history"))[-1] == (1, "update")

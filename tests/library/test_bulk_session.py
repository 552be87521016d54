"""Objects in the session after a bulk statement: as they were without versioning, and good for further changes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests.library.conftest import opened
from tests.library.exact import exactly_captured
from tests.library.rows import changes, history_rows, live_rows
from tests.library.twins import Item, Plain, twins, values_of

SYNCHRONIZED: list[Any] = ["auto", "evaluate", "fetch", False]


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    with opened(twins, database_url):
        session: Session = twins.session()
        for model in (Item, Plain):
            session.add_all(model(id=number, name=f"{number % 2}", logins=number, clicks=1) for number in range(1, 6))
        session.commit()
        yield session


def _in_session(session: Session, model: Any) -> dict[int, Any]:
    """An object of each kind."""
    objects = {obj.id: obj for obj in session.scalars(sa.select(model))}
    session.expire(objects[2])
    session.expire(objects[3], ["name"])
    objects[4].label = "not flushed"
    objects[4].name = "dirty"
    objects[5].clicks = 9
    return objects


STATEMENTS: dict[str, Callable[[Any], Any]] = {
    "update": lambda m: sa.update(m).where(m.id < 5).values(name="x", clicks=3),
    "update_the_same": lambda m: sa.update(m).where(m.id < 5).values(name=m.name, logins=m.logins),
    "update_by_expression": lambda m: sa.update(m).values(logins=m.logins + 1),
    "update_untracked": lambda m: sa.update(m).values(clicks=m.clicks + 1),
    "update_by_what_is_dirty": lambda m: sa.update(m).where(m.name == "0").values(name="y"),
    "update_returning": lambda m: sa.update(m).where(m.id < 4).values(name="x").returning(m),
    "delete": lambda m: sa.delete(m).where(m.id < 3),
    "delete_all": sa.delete,
    "delete_returning": lambda m: sa.delete(m).where(m.id < 3).returning(m.name),
}


def _seen(session: Session, statement: Any, model: Any, synchronized: Any, autoflush: bool) -> tuple[Any, ...]:
    """What memory holds after a statement, and then what a flush makes of it."""
    objects = _in_session(session, model)
    options: Any = {"synchronize_session": synchronized, "autoflush": autoflush}
    with session.no_autoflush:
        try:
            result: Any = session.execute(statement, execution_options=options)
            returned = sorted(str(row) for row in result.all()) if statement._returning else []
        except sa.exc.InvalidRequestError as error:
            return (type(error),)
        returned = [text.replace("Item", "").replace("Plain", "").split(" object")[0] for text in returned]
        loaded = {
            key: ({k: v for k, v in sa.inspect(obj).dict.items() if k != "version" and k[0] != "_"}, obj in session)
            for key, obj in objects.items()
        }
    return returned, loaded


@pytest.mark.parametrize("autoflush", [True, False], ids=["autoflush", "no_autoflush"])
def test_objects_are_synchronized_as_without_versioning(
    session: Session, subtests: pytest.Subtests, autoflush: bool
) -> None:
    for name, statement in STATEMENTS.items():
        for synchronized in SYNCHRONIZED:
            with subtests.test(name, synchronized=synchronized):
                seen = _seen(session, statement(Item), Item, synchronized, autoflush)
                session.rollback()
                assert seen == _seen(session, statement(Plain), Plain, synchronized, autoflush)
            session.rollback()
            session.expunge_all()


@pytest.mark.parametrize("kept", [True, False], ids=["loaded", "expired"])
def test_objects_are_used_on_after_each_statement(session: Session, subtests: pytest.Subtests, kept: bool) -> None:
    for name, statement in STATEMENTS.items():
        for synchronized in ["auto", False] if kept else [False]:
            with subtests.test(name, synchronized=synchronized):
                objects = _in_session(session, Item)
                try:
                    session.execute(statement(Item), execution_options={"synchronize_session": synchronized})
                except sa.exc.InvalidRequestError:
                    session.rollback()
                    continue
                if not kept:
                    session.expire_all()
                there = [row["id"] for row in live_rows(session, "item")]
                with exactly_captured(session, Item) as happened:
                    for key in there:
                        objects[key].name = "used on"
                assert happened.keys == there
                with exactly_captured(session, Item) as happened:
                    for key in there:
                        assert objects[key].version == len(objects[key].versions())
                        session.delete(objects[key])
                assert happened.keys == there
            session.rollback()
            session.expunge_all()


def test_change_that_is_not_flushed_is_written_over_the_statement(session: Session) -> None:
    with session.no_autoflush:
        item = session.get_one(Item, 1)
        other = session.get_one(Item, 2)
        item.name = "mine"
        other.label = "mine"
        # Otherwise the session would forget the change.
        session.execute(sa.update(Item).values(name="x"), execution_options={"synchronize_session": False})
    session.commit()
    assert changes(history_rows(session, "item_history", id=1)) == [(-1, "insert"), (0, "update"), (1, "update")]
    assert [row["name"] for row in history_rows(session, "item_history", id=1)] == [None, "1", "x"]
    assert [row["name"] for row in history_rows(session, "item_history", id=2)] == [None, "0", "x"]
    (one, two, *_) = live_rows(session, "item", "id")
    assert (one["name"], one["version"], two["name"], two["codename"], two["version"]) == ("mine", 2, "x", "mine", 2)


def test_object_that_is_to_be_deleted_is_deleted_as_the_statement_has_left_it(session: Session) -> None:
    with session.no_autoflush:
        session.delete(session.get_one(Item, 1))
        session.execute(sa.update(Item).values(name="x"))
    session.commit()
    rows = history_rows(session, "item_history", id=1)
    assert changes(rows) == [(-1, "insert"), (0, "update"), (1, "delete")]
    assert rows[-1]["name"] == "x"


def test_deleted_record_is_added_anew_in_the_same_transaction(session: Session) -> None:
    item = session.get_one(Item, 1)
    session.execute(sa.delete(Item).where(Item.id == 1))
    assert item not in session
    session.add(again := Item(id=1, name="again"))
    session.flush()
    assert again.version == 2
    session.execute(sa.update(Item).where(Item.id == 1).values(name="and again"))
    assert (again.version, again.name) == (3, "and again")
    session.commit()
    rows = history_rows(session, "item_history", id=1)
    assert changes(rows) == [(-1, "insert"), (0, "delete"), (1, "insert"), (2, "update")]
    assert len({row["transaction_id"] for row in rows[1:]}) == len({row["changed"] for row in rows[1:]}) == 1


def test_values_that_the_session_has_are_those_of_the_row(session: Session) -> None:
    items = {item.id: item for item in session.scalars(sa.select(Item))}
    session.execute(sa.update(Item).where(Item.id < 4).values(name="x", secret="s"))
    session.execute(sa.update(Item).where(Item.id < 3).values(settings={"a": 1}))
    settings = items[1].settings
    assert settings is not None
    settings["b"] = 2
    session.flush()
    found = {key: values_of(item) | {"version": item.version} for key, item in items.items()}
    session.expire_all()
    assert found == {key: values_of(item) | {"version": item.version} for key, item in items.items()}
    assert [found[key]["version"] for key in range(1, 6)] == [3, 2, 1, 0, 0]
    assert found[1]["settings"] == {"a": 1, "b": 2}

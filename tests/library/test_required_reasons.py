"""``__chrononaut_required__``: no write to a model without the reasons that it requires."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut import (
    ImportedChange,
    MissingChangeInfoError,
    OptionError,
    RequiredChangeInfoError,
    VersionedSQLAlchemy,
    append_change_info,
    extra_change_info,
    import_changes,
    suppress_versioning,
)
from tests.library.conftest import recorded
from tests.library.models import define
from tests.library.rows import changes, history_rows, live_rows

TICKET = r"[A-Z]+-\d+"
GOOD = {"ticket": "OPS-17", "why": "asked for"}

db = VersionedSQLAlchemy()
Page: Any = define(
    db,
    "Page",
    id=sa.Column(sa.Integer, primary_key=True),
    text=sa.Column(sa.String),
    clicks=sa.Column(sa.Integer, default=0),
    __chrononaut_untracked__=("clicks",),
    __chrononaut_required__={"ticket": TICKET, "why": r"[\s\S]+"},
)
Plain: Any = define(db, "Plain", id=sa.Column(sa.Integer, primary_key=True), text=sa.Column(sa.String))


@pytest.fixture
def session(open_database: Callable[..., Session]) -> Session:
    """A session with a page that was made for a reason."""
    session = open_database(db)
    with extra_change_info(**GOOD):
        session.add(Page(id=1, text="a"))
        session.commit()
    session.get_one(Page, 1)
    return session


def _loaded(session: Session) -> Any:
    page = session.get_one(Page, 1)
    session.refresh(page)
    return page


def _add(session: Session) -> None:
    session.add(Page(id=2, text="b"))
    session.flush()


def _change(session: Session) -> None:
    _loaded(session).text = "b"
    session.flush()


def _change_expired(session: Session) -> None:
    page = session.get_one(Page, 1)
    session.expire(page)
    page.text = "b"
    session.flush()


def _change_key(session: Session) -> None:
    _loaded(session).id = 7
    session.flush()


def _delete(session: Session) -> None:
    session.delete(_loaded(session))
    session.flush()


def _take_over(session: Session) -> None:
    session.delete(_loaded(session))
    session.add(Page(id=1, text="b"))
    session.flush()


def _update_query(session: Session) -> None:
    session.query(Page).filter_by(id=1).update({"text": "b"})


def _delete_query(session: Session) -> None:
    session.query(Page).filter_by(id=1).delete()


def _update_by_key(session: Session) -> None:
    session.execute(sa.update(Page), [{"id": 1, "text": "b"}])


def _insert_returning(session: Session) -> None:
    session.execute(sa.insert(Page).values(id=2, text="b").returning(Page.id)).all()


def _save_objects(session: Session) -> None:
    session.bulk_save_objects([Page(id=2, text="b")])


def _save_changed(session: Session) -> None:
    page = _loaded(session)
    page.text = "b"
    with session.no_autoflush:
        session.bulk_save_objects([page])
    # It still is to be flushed, as SQLAlchemy has it.
    session.expire(page)


def _revert(session: Session) -> None:
    with extra_change_info(**GOOD):
        _loaded(session).text = "b"
        session.commit()
    _loaded(session).revert_to(0)
    session.flush()


def _restore(session: Session) -> None:
    with extra_change_info(**GOOD):
        session.delete(_loaded(session))
        session.commit()
    Page.restore(1)
    session.flush()


WRITES: Mapping[str, tuple[str, Callable[[Session], Any]]] = {
    "add": ("insert", _add),
    "change": ("update", _change),
    "change_expired": ("update", _change_expired),
    "change_key": ("update", _change_key),
    "delete": ("delete", _delete),
    "take_over": ("insert", _take_over),
    "update": ("update", lambda session: session.execute(sa.update(Page).values(text="b"))),
    "update_table": ("update", lambda session: session.execute(sa.update(Page.__table__).values(text="b"))),
    "update_by_key": ("update", _update_by_key),
    "update_query": ("update", _update_query),
    "delete_statement": ("delete", lambda session: session.execute(sa.delete(Page))),
    "delete_query": ("delete", _delete_query),
    "insert": ("insert", lambda session: session.execute(sa.insert(Page).values(id=2))),
    "insert_many": ("insert", lambda session: session.execute(sa.insert(Page), [{"id": 2}, {"id": 3}])),
    "insert_returning": ("insert", _insert_returning),
    "bulk_save_objects": ("insert", _save_objects),
    "bulk_save_changed": ("update", _save_changed),
    "bulk_insert_mappings": ("insert", lambda session: session.bulk_insert_mappings(Page, [{"id": 2}])),
    "bulk_update_mappings": (
        "update",
        lambda session: session.bulk_update_mappings(Page, [{"id": 1, "text": "b"}]),
    ),
    "revert_to": ("update", _revert),
    "restore": ("insert", _restore),
    "delete_with_history": ("delete", lambda session: _loaded(session).delete_with_history()),
}


@pytest.mark.parametrize("way", WRITES)
def test_write_without_the_reason_is_refused_before_anything_is_written(session: Session, way: str) -> None:
    operation, write = WRITES[way]
    with (
        recorded(db.engine) as statements,
        pytest.raises(RequiredChangeInfoError, match=f"^{operation} of Page ") as error,
    ):
        write(session)
    refused = error.value
    assert (refused.model, refused.operation, refused.missing, refused.unfit) == (
        "Page",
        operation,
        {"ticket": TICKET, "why": r"[\s\S]+"},
        {},
    )
    if way not in {"revert_to", "restore"}:  # which write for a good reason first
        for verb in ("INSERT", "UPDATE ", "DELETE"):
            assert not [one for one, _ in statements.matching(verb) if "FOR NO KEY UPDATE" not in one]
    session.rollback()
    assert [row["id"] for row in live_rows(session, "page")] == ([] if way == "restore" else [1])
    operations = {"revert_to": [(0, "update")], "restore": [(0, "delete")]}.get(way, [])
    assert changes(history_rows(session, "page_history")) == [(-1, "insert"), *operations]


@pytest.mark.parametrize("way", WRITES)
def test_write_with_the_reason_is_kept_with_it(session: Session, way: str) -> None:
    with extra_change_info(**GOOD):
        WRITES[way][1](session)
    session.commit()
    rows = history_rows(session, "page_history")
    assert [row["change_info"]["extra"] for row in rows] == [GOOD] * len(rows)
    assert len(rows) > 1 or way == "delete_with_history"


@pytest.mark.parametrize(
    "ticket", ["ops-17", "OPS-17 and more", "OPS-17\n", "xOPS-17", "OPS-\u0661\u0667", "A-" + "1" * 999]
)
def test_value_must_match_as_a_whole_and_is_bounded(session: Session, ticket: str) -> None:
    with (
        pytest.raises(RequiredChangeInfoError, match=r"ticket does not match \[A-Z\]\+-\\d\+;") as error,
        extra_change_info(ticket=ticket, why="x"),
    ):
        _change(session)
    assert (error.value.missing, error.value.unfit) == ({}, {"ticket": TICKET})
    session.rollback()


def test_what_is_missing_and_what_does_not_fit_are_told_apart(session: Session) -> None:
    with pytest.raises(RequiredChangeInfoError) as error, extra_change_info(ticket="x", why=""):
        _change(session)
    assert (error.value.missing, error.value.unfit) == ({"why": r"[\s\S]+"}, {"ticket": TICKET})
    assert isinstance(error.value, MissingChangeInfoError)
    session.rollback()


def test_any_text_that_is_not_empty_will_do_where_only_keys_are_named(open_database: Callable[..., Session]) -> None:
    database = VersionedSQLAlchemy()
    model = define(database, "Memo", id=sa.Column(sa.Integer, primary_key=True), __chrononaut_required__=["why"])
    session = open_database(database)
    session.add(model(id=1))
    with pytest.raises(RequiredChangeInfoError), extra_change_info(why=""):
        session.commit()
    session.rollback()
    session.add(model(id=1))
    with extra_change_info(why="two\nlines, and longer than a pattern would be matched with " * 40):
        session.commit()
    assert len(history_rows(session, "memo_history")) == 1


def test_mark_on_an_object_counts_for_it_and_for_no_other(session: Session) -> None:
    page = _loaded(session)
    page.text = "b"
    append_change_info(page, **GOOD)
    session.commit()
    other = Page(id=2, text="x")
    append_change_info(other, **GOOD)
    session.add_all([other, Page(id=3, text="y")])
    with pytest.raises(RequiredChangeInfoError, match="insert of Page"):
        session.commit()
    session.rollback()
    assert changes(history_rows(session, "page_history")) == [(-1, "insert"), (0, "update")]


def test_mark_completes_what_the_block_says(session: Session) -> None:
    page = _loaded(session)
    page.text = "b"
    append_change_info(page, ticket="OPS-18")
    with extra_change_info(why="asked for", ticket="wrong"):
        session.commit()
    assert history_rows(session, "page_history")[-1]["change_info"]["extra"] == {"why": "asked for", "ticket": "OPS-18"}


def test_refusal_leaves_other_objects_of_the_flush_unwritten(session: Session) -> None:
    session.add_all([Plain(id=1, text="a"), Page(id=2, text="b")])
    with recorded(db.engine) as statements, pytest.raises(RequiredChangeInfoError):
        session.flush()
    assert statements.matching("INSERT") == []
    session.rollback()


def test_model_that_requires_nothing_needs_none(session: Session) -> None:
    session.add(Plain(id=1, text="a"))
    session.commit()
    session.execute(sa.update(Plain).values(text="b"))
    session.commit()
    assert len(history_rows(session, "plain_history")) == 2


@pytest.mark.parametrize("way", ["same value", "untracked", "untracked by a statement", "suppressed"])
def test_what_leaves_no_history_needs_no_reason(session: Session, way: str) -> None:
    page = _loaded(session)
    with suppress_versioning() if way == "suppressed" else nullcontext():
        if way == "same value":
            page.text = "a"
        elif way == "untracked":
            page.clicks += 1
        elif way == "suppressed":
            page.text = "b"
            session.add(Page(id=2))
            session.execute(sa.insert(Page).values(id=3))
        else:
            session.execute(sa.update(Page).values(clicks=7))
        session.commit()
    assert changes(history_rows(session, "page_history")) == [(-1, "insert")]


def test_session_goes_on_after_a_refused_statement(session: Session) -> None:
    for statement in (sa.update(Page).values(text="b"), sa.insert(Page).values(id=2).returning(Page.id)):
        with pytest.raises(RequiredChangeInfoError):
            session.execute(statement)
        with extra_change_info(**GOOD):
            session.execute(statement)
    session.commit()
    assert len(live_rows(session, "page")) == 2


def test_history_from_elsewhere_needs_no_reason(session: Session) -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    import_changes(session, Page, [ImportedChange("insert", 9, at, {"text": "a"})])
    session.commit()
    assert len(history_rows(session, "page_history", id=9)) == 1


def test_subclasses_inherit_what_is_required_and_may_add_to_it(open_database: Callable[..., Session]) -> None:
    database = VersionedSQLAlchemy()
    animal = define(
        database,
        "Animal",
        id=sa.Column(sa.Integer, primary_key=True),
        kind=sa.Column(sa.String),
        name=sa.Column(sa.String),
        __mapper_args__={"polymorphic_on": "kind", "polymorphic_identity": "animal"},
        __chrononaut_required__={"ticket": TICKET},
    )
    dog: Any = type(
        "Dog",
        (animal,),
        {"__mapper_args__": {"polymorphic_identity": "dog"}, "__chrononaut_required__": ["vet"]},
    )
    cat: Any = type("Cat", (animal,), {"__mapper_args__": {"polymorphic_identity": "cat"}})
    session = open_database(database)
    with extra_change_info(ticket="T-1"):
        session.add_all([animal(id=1), cat(id=2)])
        session.commit()
        session.add(dog(id=3))
        with pytest.raises(RequiredChangeInfoError, match="insert of Dog") as error:
            session.commit()
        session.rollback()
        assert [*error.value.missing] == ["vet"]
        session.execute(sa.update(cat).values(name="b"))
        # Some of the animals may be dogs.
        for statement in (sa.update(animal), sa.update(animal.__table__), sa.update(dog)):
            with pytest.raises(RequiredChangeInfoError, match="update of Dog"):
                session.execute(statement.values(name="b"))
    session.add(cat(id=4))
    with pytest.raises(RequiredChangeInfoError, match="insert of Cat"):
        session.commit()
    session.rollback()
    with extra_change_info(ticket="T-1", vet="Ada"):
        session.add(dog(id=3))
        session.execute(sa.update(animal).values(name="b"))
        session.commit()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("ticket", r"must be a mapping of patterns, as \{\"ticket\": \"T-\[0-9\]\+\"\}, not 'ticket'"),
        (7, "must be a mapping of patterns"),
        ({"ticket": "["}, r"the pattern of ticket is no regular expression, '\['"),
        ({"ticket": 7}, "the pattern of ticket must be a text, not 7"),
        ({"": "x"}, "a key of the change info is a text, not ''"),
        ([3], "a key of the change info is a text, not 3"),
        ({"ticket": ".*"}, r"the pattern of ticket matches the empty text, '\.\*'"),
    ],
)
def test_wrong_requirement_is_refused(value: object, message: str) -> None:
    with pytest.raises(OptionError, match=rf"^Person\.__chrononaut_required__: {message}"):
        define(
            VersionedSQLAlchemy(), "Person", id=sa.Column(sa.Integer, primary_key=True), __chrononaut_required__=value
        )


def test_subclass_cannot_have_another_pattern() -> None:
    database = VersionedSQLAlchemy()
    parent = define(database, "Animal", id=sa.Column(sa.Integer, primary_key=True), __chrononaut_required__=["why"])
    with pytest.raises(OptionError, match=r"^Dog\.__chrononaut_required__: .* has a pattern for why already"):
        type("Dog", (parent,), {"__chrononaut_required__": {"why": "x"}})


@pytest.mark.parametrize("blank", ["", " ", "\t\n", "\xa0", "\u200b", "\u2060\ufeff", "\u3164", "\u2800", "\u0301"])
def test_text_without_a_character_that_can_be_seen_is_missing(session: Session, blank: str) -> None:
    page = _loaded(session)
    page.text = "b"
    with extra_change_info(**GOOD | {"why": blank}), pytest.raises(RequiredChangeInfoError) as refused:
        session.commit()
    assert (refused.value.missing, refused.value.unfit) == ({"why": r"[\s\S]+"}, {})


@pytest.mark.parametrize("text", [".", "é", "e\u0301", "理由", "\N{BUG}", " x "])
def test_text_of_any_characters_that_can_be_seen_is_a_reason(session: Session, text: str) -> None:
    page = _loaded(session)
    page.text = "b"
    with extra_change_info(**GOOD | {"why": text}):
        session.commit()
    assert changes(history_rows(session, "page_history")) == [(-1, "insert"), (0, "update")]

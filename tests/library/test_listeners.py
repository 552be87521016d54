"""Listeners of the application's own that change an object while it is flushed."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut import UncapturedWriteError, Versioned, VersionedSQLAlchemy
from tests.library.models import define
from tests.library.rows import changes, history_rows, live_rows

Open = Callable[..., Session]
CHANGED = [(-1, "insert"), (0, "update")]


def _stamp(mapper: object, connection: object, page: Any) -> None:
    page.slug = page.text.lower()


def _hide(mapper: object, connection: object, page: Any) -> None:
    page.digest = f"digest of {page.text}"


def _page(db: VersionedSQLAlchemy, *mixins: type) -> Any:
    return define(
        db,
        "Page",
        *mixins,
        __tablename__="page",
        __chrononaut_hidden__=["digest"],
        __chrononaut_untracked__=["views"],
        id=sa.Column(sa.Integer, primary_key=True),
        text=sa.Column(sa.String),
        slug=sa.Column(sa.String),
        digest=sa.Column(sa.String),
        views=sa.Column(sa.Integer),
    )


def _created(session: Session, model: Any) -> Any:
    page = model(id=1, text="A", slug="?", views=0)
    session.add(page)
    session.commit()
    session.refresh(page)
    return page


@pytest.mark.parametrize("first", [True, False])
def test_listener_that_changes_another_column_with_a_change_is_part_of_it(open_database: Open, first: bool) -> None:
    db = VersionedSQLAlchemy()
    model = _page(db)
    session = open_database(db)
    page = _created(session, model)
    sa.event.listen(model, "before_update", _stamp, insert=first)
    page.text = "B"
    session.commit()
    rows = history_rows(session, "page_history")
    assert changes(rows) == CHANGED
    assert (rows[-1]["text"], rows[-1]["slug"]) == ("A", "?")
    assert (page.slug, page.version) == ("b", 1)


def test_listener_before_ours_that_makes_the_only_tracked_change_is_recorded(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    model = _page(db)
    session = open_database(db)
    page = _created(session, model)
    sa.event.listen(model, "before_update", _stamp, insert=True)
    page.views = 1
    session.commit()
    rows = history_rows(session, "page_history")
    assert changes(rows) == CHANGED
    assert rows[-1]["slug"] == "?"


def test_listener_after_ours_that_makes_the_only_tracked_change_is_refused(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    model = _page(db)
    session = open_database(db)
    page = _created(session, model)
    sa.event.listen(model, "before_update", _stamp)
    page.views = 1
    with pytest.raises(UncapturedWriteError, match="versioned table page"):
        session.commit()
    session.rollback()
    assert changes(history_rows(session, "page_history")) == CHANGED[:1]
    assert (live_rows(session, "page")[0]["views"], live_rows(session, "page")[0]["slug"]) == (0, "?")


def test_listener_before_ours_that_changes_a_hidden_column_is_noted(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    model = _page(db)
    session = open_database(db)
    page = _created(session, model)
    sa.event.listen(model, "before_update", _hide, insert=True)
    page.text = "B"
    session.commit()
    assert history_rows(session, "page_history")[-1]["change_info"]["hidden_cols_changed"] == ["digest"]


def test_listener_after_ours_that_changes_a_hidden_column_is_not_lost(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    model = _page(db)
    session = open_database(db)
    page = _created(session, model)
    sa.event.listen(model, "before_update", _hide)
    page.text = "B"
    refused = False
    try:
        session.commit()
    except UncapturedWriteError:
        refused = True
        session.rollback()
    row = history_rows(session, "page_history")[-1]
    assert refused or row["change_info"].get("hidden_cols_changed") == ["digest"]


def test_listener_on_a_mixin_is_recorded(open_database: Open) -> None:
    class Stamped(Versioned):
        """Sets the slug at each change."""

    sa.event.listen(Stamped, "before_update", _stamp, propagate=True)
    db = VersionedSQLAlchemy()
    model = _page(db, Stamped)
    session = open_database(db)
    page = _created(session, model)
    page.text = "B"
    session.commit()
    rows = history_rows(session, "page_history")
    assert changes(rows) == CHANGED
    assert live_rows(session, "page")[0]["slug"] == "b"


def test_listener_of_the_session_that_adds_and_changes_objects_is_recorded(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    model = _page(db)
    session = open_database(db)
    page = _created(session, model)

    def before_flush(session: Session, context: object, objects: object) -> None:
        if page in session.dirty:
            page.slug = "by the listener"
            session.add(model(id=2, text="added"))

    sa.event.listen(session, "before_flush", before_flush)
    page.text = "B"
    session.commit()
    assert changes(history_rows(session, "page_history", id=1)) == CHANGED
    assert changes(history_rows(session, "page_history", id=2)) == CHANGED[:1]


def test_listener_before_an_insert_is_part_of_it(open_database: Open) -> None:
    db = VersionedSQLAlchemy()
    model = _page(db)
    session = open_database(db)
    sa.event.listen(model, "before_insert", _stamp)
    _created(session, model)
    assert changes(history_rows(session, "page_history")) == CHANGED[:1]
    assert live_rows(session, "page")[0]["slug"] == "a"

"""`RecordChanges`: who wrote a row last, when and why, on the row itself."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, relationship

from chrononaut import RecordChanges, Versioned, VersionedSQLAlchemy, append_change_info, rationale
from tests.library.models import define
from tests.library.rows import changes, history_rows

NOBODY = {"user_id": None, "remote_addr": None}
MODELS = ["note", "page", "sheet"]


class Noted:
    """A model that only records its last change, and two that are versioned as well."""

    def __init__(self) -> None:
        self.db: Any = VersionedSQLAlchemy()
        self.note = self._define("Note", RecordChanges)
        self.page = self._define("Page", Versioned, RecordChanges)
        self.sheet = self._define("Sheet", RecordChanges, Versioned)

    def _define(self, name: str, *mixins: type) -> Any:
        line = type(
            f"{name}Line",
            (self.db.Model,),
            {
                "id": sa.Column(sa.Integer, primary_key=True),
                "owner_id": sa.Column(sa.ForeignKey(f"{name.lower()}.id")),
            },
        )
        columns: dict[str, Any] = {
            "id": sa.Column(sa.Integer, primary_key=True),
            "text": sa.Column(sa.String),
            "lines": relationship(line),
        }
        return define(self.db, name, *mixins, __tablename__=name.lower(), **columns)


@pytest.fixture
def noted() -> Noted:
    return Noted()


@pytest.fixture
def session(noted: Noted, open_database: Callable[..., Session]) -> Session:
    return open_database(noted.db)


def test_row_tells_its_last_change(noted: Noted, session: Session) -> None:
    before = datetime.now(UTC) - timedelta(minutes=5)
    note = noted.note(id=1, text="a")
    session.add(note)
    with rationale("begin"):
        session.commit()
    created = note.changed
    assert before < created < datetime.now(UTC) + timedelta(minutes=5)
    assert note.change_info == {**NOBODY, "extra": {"rationale": "begin"}}
    note.text = "b"
    session.commit()
    assert note.changed > created
    assert note.change_info == NOBODY
    note.text = "b"
    changed = note.changed
    session.commit()
    assert note.changed == changed
    assert "note_history" not in noted.db.metadata.tables


def test_bulk_statements_tell_it_too(noted: Noted, session: Session) -> None:
    with rationale("in bulk"):
        session.execute(sa.insert(noted.note), [{"id": 1, "text": "a"}, {"id": 2, "text": "b"}])
        session.commit()
    rows = session.scalars(sa.select(noted.note)).all()
    assert [row.change_info["extra"] for row in rows] == [{"rationale": "in bulk"}] * 2
    assert len({row.changed for row in rows}) == 1
    first = rows[0].changed
    with rationale("changed in bulk"):
        session.execute(sa.update(noted.note).values(text="c"))
        session.commit()
    assert [row.change_info["extra"] for row in rows] == [{"rationale": "changed in bulk"}] * 2
    assert all(row.changed > first for row in rows)


@pytest.mark.parametrize("model", MODELS)
def test_mark_on_an_object_is_told_once(noted: Noted, session: Session, model: str) -> None:
    note = getattr(noted, model)(id=1, text="a")
    session.add(note)
    append_change_info(note, why="new")
    session.commit()
    assert note.change_info == {**NOBODY, "extra": {"why": "new"}}
    note.text = "b"
    append_change_info(note, why="changed")
    session.commit()
    assert note.change_info == {**NOBODY, "extra": {"why": "changed"}}
    note.text = "c"
    session.commit()
    assert note.change_info == NOBODY


def test_versioned_row_tells_the_change_that_its_version_began_with(noted: Noted, session: Session) -> None:
    page = noted.page(id=1, text="a")
    session.add(page)
    session.commit()
    for text in ("b", "c"):
        with rationale(text):
            page.text = text
            session.commit()
    rows = history_rows(session, "page_history")
    assert changes(rows) == [(-1, "insert"), (0, "update"), (1, "update")]
    assert (page.changed, page.change_info) == (rows[-1]["changed"], rows[-1]["change_info"])
    version = page.versions()[-1]
    assert (version.text, version.changed, version.change_info["extra"]) == ("b", page.changed, {"rationale": "c"})
    assert page.diff(version) == {"text": ("b", "c")}
    with rationale("all"):
        session.execute(sa.update(noted.page).values(text="d"))
    session.commit()
    rows = history_rows(session, "page_history")
    assert changes(rows)[-1] == (2, "update")
    assert (page.changed, page.change_info) == (rows[-1]["changed"], rows[-1]["change_info"])


@pytest.mark.parametrize("model", MODELS)
def test_same_reason_is_told_of_each_change(noted: Noted, session: Session, model: str) -> None:
    note = getattr(noted, model)(id=1, text="a")
    session.add(note)
    session.commit()
    for text in ("b", "c"):
        append_change_info(note, why="the same")
        note.text = text
        session.commit()
        assert note.change_info == {**NOBODY, "extra": {"why": "the same"}}
    note.text = "d"
    session.commit()
    assert note.change_info == NOBODY


@pytest.mark.parametrize("model", MODELS)
def test_row_that_is_not_written_tells_nothing_and_leaves_the_mark(noted: Noted, session: Session, model: str) -> None:
    """A collection is no part of its owner's row; nor does a versioned row change where it is set to what it was."""
    note = getattr(noted, model)(id=1, text="a")
    session.add(note)
    session.commit()
    told = note.changed, note.change_info
    append_change_info(note, why="for the text")
    note.lines.append(type(note).lines.property.mapper.class_())
    session.commit()
    assert (note.changed, note.change_info) == told
    if model != "note":
        session.expire(note)
    note.text = "a"
    session.commit()
    assert (note.changed, note.change_info) == told
    note.text = "b"
    session.commit()
    assert note.change_info == {**NOBODY, "extra": {"why": "for the text"}}


@pytest.mark.parametrize("model", MODELS)
def test_changed_key_carries_the_mark(noted: Noted, session: Session, model: str) -> None:
    note = getattr(noted, model)(id=1, text="a")
    session.add(note)
    session.commit()
    append_change_info(note, why="moved")
    note.id = 2
    session.commit()
    assert note.change_info == {**NOBODY, "extra": {"why": "moved"}}
    if model != "note":
        rows = history_rows(session, f"{model}_history")
        assert [row["change_info"].get("extra") for row in rows if row["operation"] == "delete"] == [{"why": "moved"}]
        assert history_rows(session, f"{model}_history", id=2)[0]["change_info"]["extra"] == {"why": "moved"}

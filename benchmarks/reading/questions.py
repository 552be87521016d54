"""What is asked, of a long history and of a short one, and what must be answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import undefer

from benchmarks.reading.filling import RECENT
from benchmarks.reading.models import LONG, PAGE, SHORT, Document, Item, Leaflet, Sizes, db
from chrononaut import queries
from chrononaut.history import versioning_of

Ask = Callable[[], Any]
"""A question, asked in the session of the application's context."""

RATIO: Final = 1.5
"""How much longer a question of a long history may take than the same of a short one."""


RATIO_AS_OF: Final = 3.0
"""How much longer a table as of a while ago may take than the live one."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question that must take about as long as another.

    :ivar model: the model whose history is read
    :ivar ask: the question to a long history
    :ivar other: what it is compared with
    :ivar told: an answer → what is told of it
    :ivar answers: what must be told of the two
    :ivar limit: how many times as long as the other it may take at the most; ``None`` if that is only told
    :ivar rounds: how often both are asked
    :ivar of_record: is it of one record?
    :ivar by_index: must it be answered by indexes, without a sort?
    """

    name: str
    model: type
    ask: Ask
    other: Ask
    told: Callable[[Any], Any]
    answers: tuple[Any, Any]
    limit: float | None = RATIO
    rounds: int = 500
    of_record: bool = True
    by_index: bool = True


def questions(sizes: Sizes, now: datetime) -> list[Question]:
    """All that is asked.

    :param now: when the latest change was
    """
    return [*_of_records(sizes), _of_feed(sizes), *_of_table(sizes, now)]


def _of_records(sizes: Sizes) -> list[Question]:
    long, short = sizes.long, sizes.short
    at, at_short = _middle(LONG, long), _middle(SHORT, short)
    page, page_short = _inner_page(long), _inner_page(short)

    def question(name: str, ask: Ask, other: Ask, told: Callable[[Any], Any], *answers: Any) -> Question:
        return Question(name, Document, ask, other, told, (answers[0], answers[1]))

    return [
        question(
            "version_at, in the middle",
            lambda: Document.timeline(LONG).version_at(at),
            lambda: Document.timeline(SHORT).version_at(at_short),
            _number,
            long // 2 + 1,
            short // 2 + 1,
        ),
        question(
            "has_changed_since the middle",
            lambda: Document.timeline(LONG).has_changed_since(at),
            lambda: Document.timeline(SHORT).has_changed_since(at_short),
            bool,
            True,
            True,
        ),
        question(
            "versions, page 1",
            lambda: _page(LONG, 1),
            lambda: _page(SHORT, 1),
            _numbers,
            _numbers_on(1, long),
            _numbers_on(1, short),
        ),
        question(
            f"versions, page {page:,} (short: {page_short})",
            lambda: _page(LONG, page),
            lambda: _page(SHORT, page_short),
            _numbers,
            _numbers_on(page, long),
            _numbers_on(page_short, short),
        ),
        question(
            "changes, page 1",
            lambda: _changes(LONG),
            lambda: _changes(SHORT),
            _numbers,
            list(range(-1, PAGE - 1)),
            list(range(-1, PAGE - 1)),
        ),
        question(
            "one version, in the middle",
            lambda: Document.timeline(LONG).version(long // 2),
            lambda: Document.timeline(SHORT).version(short // 2),
            _number,
            long // 2,
            short // 2,
        ),
        question(
            "previous_version",
            lambda: Document.timeline(LONG).previous_version(),
            lambda: Document.timeline(SHORT).previous_version(),
            _number,
            long - 1,
            short - 1,
        ),
    ]


def _inner_page(versions: int) -> int:
    """The thousandth page of a history, or one in its middle."""
    return min(1000, versions // PAGE // 2)


def _middle(key: int, versions: int) -> datetime:
    """When the middle one of a document's versions ended."""
    select = queries.version(Document, (key,), versions // 2)
    ended: datetime = db.session.scalars(select).one().changed
    db.session.remove()
    return ended


def _page(key: int, number: int) -> Sequence[Any]:
    """A page of versions as the service reads it, by the number of the last version of the page before."""
    versioning = versioning_of(Document)
    timeline = Document.timeline(key)
    version = versioning.column("version")
    select = queries.versions(timeline.model, timeline.key).options(undefer(versioning.valid_from))
    if number > 1:
        select = select.where(version > (number - 1) * PAGE - 1)
    return timeline.session.scalars(select.order_by(None).order_by(version).limit(PAGE + 1)).all()


def _changes(key: int) -> Sequence[Any]:
    """The first changes of a document."""
    timeline = Document.timeline(key)
    rows = timeline.session.scalars(queries.changes(timeline.model, timeline.key).limit(PAGE)).all()
    return timeline.changes(rows)


def _number(row: Any) -> int:
    number: int = row.version
    return number


def _numbers(rows: Sequence[Any]) -> list[int]:
    return [row.version for row in rows]


def _numbers_on(page: int, versions: int) -> list[int]:
    """The versions on a page, and the one that begins the next."""
    first = (page - 1) * PAGE
    return list(range(first, min(first + PAGE + 1, versions)))


def _of_feed(sizes: Sizes) -> Question:
    lately = sizes.items // sizes.again
    return Question(
        f"feed, page 1 (short: of {sizes.leaflets * sizes.rows:,} changes)",
        Item,
        lambda: Item.feed(limit=PAGE),
        lambda: Leaflet.feed(limit=PAGE),
        lambda page: [change.key[0] for change in page.changes],
        (
            [(lately - number) * sizes.again for number in range(min(PAGE, lately))],
            [sizes.leaflets - number for number in range(PAGE)],
        ),
        of_record=False,
    )


def _of_table(sizes: Sizes, now: datetime) -> list[Question]:
    at, live = now - RECENT, sa.select(Item)
    version, lately = sizes.rows - 1, sizes.items // sizes.again

    def counted(rows: Sequence[Any]) -> tuple[int, int]:
        return len(rows), sum(row.version for row in rows)

    return [
        Question(
            "as_of an hour ago (short: the live table)",
            Item,
            lambda: db.session.scalars(Item.as_of(at)).all(),
            lambda: db.session.scalars(live).all(),
            counted,
            ((sizes.items, sizes.items * version), (sizes.items, sizes.items * version + lately)),
            limit=RATIO_AS_OF,
            rounds=7,
            of_record=False,
            by_index=False,
        ),
        Question(
            "as_of an hour ago, page 1 (short: of the live table)",
            Item,
            lambda: db.session.scalars(Item.as_of(at).order_by(Item.id).limit(PAGE)).all(),
            lambda: db.session.scalars(live.order_by(Item.id).limit(PAGE)).all(),
            counted,
            ((PAGE, PAGE * version), (PAGE, PAGE * version + PAGE // sizes.again)),
            limit=None,
            rounds=20,
            of_record=False,
            by_index=False,
        ),
    ]

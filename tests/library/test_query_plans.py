"""By which indexes the databases find what is asked of history, and what capture asks: none reads or sorts it whole."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

from benchmarks.reading.databases import connected
from benchmarks.reading.filling import contents, fill, settle
from benchmarks.reading.models import Document, Sizes, db
from benchmarks.reading.plans import Plan, faults, planned
from benchmarks.reading.questions import Question, questions
from chrononaut import Retention
from chrononaut.history import versioning_of
from chrononaut.purging import Purge
from tests.library import shapes
from tests.library.explaining import explained, nodes
from tests.library.models import User
from tests.library.shapes import Price

SIZES = Sizes(long=3000, short=300, items=300, again=5, leaflets=10)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def asked(database_url: str) -> Iterator[list[Question]]:
    """Questions to histories of some thousand rows, of which the database has its statistics."""
    with connected(database_url):
        for rows in contents(SIZES):
            for _ in fill(db.engine, rows, NOW):
                pass
        assert list(settle(db.engine, SIZES)) == []
        yield questions(SIZES, NOW)


def wrong(plans: Sequence[Plan], model: type, of_record: bool = False) -> list[str]:
    history = versioning_of(model).history_table
    return [fault for plan in plans for fault in faults(plan, history, db.engine, of_record)]


def test_questions_are_answered_by_index_and_without_a_sort(asked: list[Question]) -> None:
    found = {}
    for question in asked:
        with planned(db.engine) as plans:
            answered = question.told(question.ask())
        db.session.remove()
        assert answered == question.answers[0], question.name
        assert any(access.table.endswith("_history") for plan in plans for access in plan.accesses)
        if question.by_index:
            found[question.name] = wrong(plans, question.model, question.of_record)
    assert {name: faults for name, faults in found.items() if faults} == {}


@pytest.mark.parametrize("database_kind", ["postgresql"])
@pytest.mark.parametrize("retention", [Retention(versions=100), Retention(days=1, daily_after=0, versions=3)])
def test_parts_are_purged_by_index(asked: list[Question], retention: Retention) -> None:
    history = versioning_of(Document).history_table.name
    with explained(db.engine, history) as plans:
        gone = [part.doomed for part in Purge(Document, retention, at=NOW, batch=200).run(db.engine)]
    assert sum(map(len, gone)) > 0
    assert {plan.statement.split()[0] for plan in plans} == {"SELECT", "WITH", "DELETE"}
    # Each looks at the rows of its part, and at single ones besides: none reads the whole table.
    whole = [plan.text for plan in plans for node in plan.reads(history) if node["Node Type"] == "Seq Scan"]
    assert not whole, whole[0]


def test_plans_tell_of_a_scan_and_of_a_sort(asked: list[Question]) -> None:
    versioning = versioning_of(Document)
    changed = versioning.column("changed")
    with planned(db.engine) as plans:
        db.session.scalars(sa.select(versioning.history).order_by(versioning.column("operation"))).all()
        db.session.scalars(sa.select(versioning.history).order_by(changed)).all()
    db.session.remove()
    scanned, along = plans
    scan, sort = sorted(wrong([scanned], Document), key=lambda fault: "sort" in fault.lower() or "TEMP" in fault)
    assert scan == "reads document_history whole"
    assert "ORDER BY" in sort or "sort by" in sort
    # An index that gives the order, but not the record.
    assert wrong([along], Document, of_record=True)


@pytest.fixture
def prices(open_database: Callable[..., Session]) -> Session:
    """A session of a database with many records of a key of two parts."""
    session = open_database(shapes.db)
    rows = [{"product": f"p{number}", "cycle": number % 7, "pin": "x"} for number in range(2000)]
    session.execute(sa.insert(Price), rows)
    session.commit()
    session.execute(sa.text("ANALYZE"))
    session.commit()
    return session


def test_capture_finds_records_by_index(prices: Session) -> None:
    some = prices.scalars(sa.select(Price).where(Price.product.in_([f"p{number}" for number in range(6)]))).all()
    with planned(shapes.db.engine) as plans:
        prices.add_all(Price(product=f"p{number}", cycle=9, pin="y") for number in range(3))
        prices.flush()
        for price in some[:3]:
            price.amount, price.pin = 1, "z"
        prices.flush()
        for price in some[3:]:
            prices.delete(price)
        prices.commit()
        prices.execute(sa.update(Price).where(Price.product.in_(["p7", "p8", "p9"])).values(label="l", pin="z"))
        prices.commit()
    assert plans
    assert [str(plan) for plan in plans for access in plan.accesses if not access.finds] == []


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_history_is_not_read_while_it_is_written(session: Session) -> None:
    # While it was empty, to scan it was the cheapest way to find a row of it: by a plan of then, each row that is
    # written would scan those written before.
    inserts: list[Mapping[str, Any]] = []

    def explain(
        connection: sa.Connection, cursor: object, statement: str, parameters: Any, context: object, many: bool
    ) -> None:
        if "INSERT INTO appuser_history" in statement:
            asked = connection.connection.cursor()
            asked.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
            ((explained,),) = asked.fetchall()
            inserts.extend(node for node in nodes(explained[0]["Plan"]) if node.get("Operation") == "Insert")

    event.listen(session.get_bind(), "before_cursor_execute", explain)
    for count in (1, 20):
        users = [User(email=uuid4().hex) for _ in range(count)]
        session.add_all(users)
        session.flush()
        for user in users:
            user.name = "new"
        session.flush()
        session.execute(sa.update(User).values(logins=User.logins + 1))
        for user in users:
            session.delete(user)
        session.flush()
        session.execute(sa.delete(User))
    session.commit()
    event.remove(session.get_bind(), "before_cursor_execute", explain)
    assert len(inserts) == 10
    read = [
        node["Relation Name"]
        for insert in inserts
        for node in nodes(insert)
        if node is not insert and "Relation Name" in node
    ]
    assert read == []

"""Purging: what a policy keeps stays, what it does not keep goes, and what went is told by a cut."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from chrononaut import (
    ChangeFilter,
    ChangeInfoError,
    Cut,
    ImportedChange,
    PurgedError,
    RestoreError,
    Retention,
    Timeline,
    VersionedSQLAlchemy,
    import_changes,
    rationale,
    suppress_versioning,
)
from chrononaut.history import versioning_of
from chrononaut.purging import Purge, total_rows
from chrononaut.types import JSONDocument
from tests.library.models import define
from tests.library.shapes import Animal, Dog, Gauge, Price, Truck, Vehicle, db
from tests.library.test_verify import found

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def session(open_database: Callable[..., Session]) -> Session:
    return open_database(db)


def lives(session: Session, model: Any, key: Any, *ends: datetime, deleted: bool = False, **values: Any) -> None:
    """A record that is made a year before, and changed at some instants: by the last of them it is deleted, perhaps."""
    name = "name" if model is Gauge else "label"
    operations: list[Any] = ["update"] * len(ends)
    if deleted:
        operations[-1] = "delete"
    changes = [ImportedChange("insert", key, NOW - 365 * DAY, values)]
    for number, (at, operation) in enumerate(zip(ends, operations, strict=True)):
        set_ = {name: f"{number}"} if operation == "update" else {}
        changes.append(ImportedChange(operation, key, at, set_))
    import_changes(session, model, changes)
    session.commit()


@dataclass(frozen=True)
class Row:
    """A row of history."""

    key: tuple[Any, ...]
    version: int
    operation: str
    changed: datetime


def rows(session: Session, model: Any) -> list[Row]:
    versioning = versioning_of(model)
    history = versioning.history
    key = [getattr(history, name) for name in versioning.key]
    select = sa.select(history).order_by(*key, versioning.column("version"))
    session.expire_all()
    found = session.scalars(select).all()
    return [Row(versioning.key_of(row), row.version, row.operation, row.changed) for row in found]


def purge(model: type, retention: Retention, batch: int = 2000, **told: Any) -> int:
    """Purge, and check that what a dry run has said has gone.

    :return: how many versions have gone
    """
    plan = Purge(model, retention, at=NOW, batch=batch, **told)
    db.session.rollback()
    would = [doomed for part in plan.dry_run(db.engine) for doomed in part.doomed]
    gone = [doomed for part in plan.run(db.engine) for doomed in part.doomed]
    assert gone == would
    again = [doomed for part in plan.run(db.engine) for doomed in part.doomed]
    assert again == []
    assert found(model, db.engine) == []
    return sum(doomed.versions for doomed in gone)


def kept(history: Sequence[Row], retention: Retention) -> set[tuple[Any, ...]]:
    """Key and number of the versions that a policy keeps, told in another way than the statements do."""
    keep = set()
    for key in {row.key for row in history}:
        of_record = [row for row in history if row.key == key]
        states = [row for row in of_record if row.operation not in ("insert", "purge")]
        began = {row.version + 1: row.changed for row in of_record}
        for place, row in enumerate(reversed(states)):
            age = NOW - row.changed
            since = began.get(row.version)
            midnight = (row.changed - timedelta(microseconds=1)).replace(hour=0, minute=0, second=0, microsecond=0)
            young = retention.days is not None or retention.daily_after is not None
            if retention.days is not None:
                young = young and age < retention.days * DAY
            if retention.daily_after is not None:
                young = young and (age < retention.daily_after * DAY or since is None or since <= midnight)
            if young or (retention.versions is not None and place < retention.versions):
                keep.add((row.key, row.version))
    return keep


def test_newest_versions_are_kept(session: Session) -> None:
    lives(session, Gauge, "a", *(NOW - number * DAY for number in range(6, 0, -1)))
    lives(session, Gauge, "b", NOW - 2 * DAY, NOW - DAY)
    assert purge(Gauge, Retention(versions=2)) == 4
    assert [(row.key, row.version, row.operation) for row in rows(session, Gauge)] == [
        (("a",), 3, "purge"),
        (("a",), 4, "update"),
        (("a",), 5, "update"),
        (("b",), -1, "insert"),
        (("b",), 0, "update"),
        (("b",), 1, "update"),
    ]
    assert [version.version for version in session.get_one(Gauge, "a").versions()] == [4, 5]


def test_version_that_ended_at_the_very_instant_goes_and_one_that_ended_later_stays(session: Session) -> None:
    lives(session, Gauge, "a", NOW - 10 * DAY, NOW - 10 * DAY + timedelta(microseconds=1))
    assert purge(Gauge, Retention(days=10)) == 1
    assert [row.version for row in rows(session, Gauge)] == [0, 1]
    assert Gauge.timeline("a").version_at(NOW - 10 * DAY).version == 1


def test_last_state_of_each_day_is_kept(session: Session) -> None:
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    tick = timedelta(microseconds=1)
    # Numbers from 0: the first was valid at all midnights since it was made.
    ends = [midnight - 5 * tick, midnight - tick, midnight, midnight + tick, midnight + 2 * tick, midnight + DAY]
    lives(session, Gauge, "a", *ends, midnight + DAY + tick)
    assert purge(Gauge, Retention(daily_after=7)) == 4
    session.expire_all()
    left = [version.version for version in Gauge.timeline("a").versions()]
    # 3 held at the first midnight, 6 at the second; the live one holds since.
    assert left == [0, 3, 6]
    for number in range(40):
        at = midnight - 20 * DAY + number * DAY
        assert Gauge.timeline("a").version_at(at) is not None


def test_young_versions_are_not_thinned_out(session: Session) -> None:
    lives(session, Gauge, "a", *(NOW - timedelta(hours=hours) for hours in range(72, 0, -1)))
    assert purge(Gauge, Retention(daily_after=2)) == 23
    assert purge(Gauge, Retention(versions=3, days=2, daily_after=1)) > 0


@pytest.mark.parametrize(
    ("retention", "batch"),
    [
        (Retention(versions=0), 4),
        (Retention(versions=3), 2000),
        (Retention(days=4), 7),
        (Retention(daily_after=2), 5),
        (Retention(versions=2, days=5, daily_after=1), 3),
    ],
    ids=repr,
)
def test_exactly_what_the_policy_keeps_is_left(session: Session, retention: Retention, batch: int) -> None:
    dice = random.Random(f"{retention} {batch}")
    for product in ("p", "q", "r,/"):
        for cycle in (1, 2):
            ends = sorted(NOW - dice.random() * 8 * DAY for _ in range(dice.randrange(12)))
            lives(session, Price, (product, cycle), *ends, deleted=bool(ends) and dice.random() < 0.5)
            if ends and session.get(Price, (product, cycle)) is None:
                import_changes(session, Price, [ImportedChange("insert", (product, cycle), NOW)])
                session.commit()
    # Policies that follow each other: cuts grow and become one.
    for policy in (Retention(versions=6), Retention(versions=5, days=7, daily_after=3), retention):
        before = rows(session, Price)
        states = {(row.key, row.version) for row in before if row.operation not in ("insert", "purge")}
        expected = kept(before, policy)
        assert purge(Price, policy, batch) == len(states - expected)
        after = rows(session, Price)
        assert {(row.key, row.version) for row in after if row.operation not in ("insert", "purge")} == expected
        assert set(after) >= {row for row in before if (row.key, row.version) in expected}
        for one, following in pairwise(after):
            assert (one.operation, one.key) != ("purge", following.key) or following.operation != "purge"


def test_cut_says_what_went(session: Session) -> None:
    lives(session, Gauge, "a", NOW - 3 * DAY, NOW - 2 * DAY, NOW - DAY, secret="x")
    purge(Gauge, Retention(versions=1), user_id="ada", extra={"rationale": "old"})
    timeline = Gauge.timeline("a")
    cut = Cut(-1, 1, NOW - 2 * DAY, NOW, "ada", "update", {"rationale": "old"})
    assert timeline.cuts() == session.get_one(Gauge, "a").cuts() == [cut]
    assert timeline.exists()
    first, second = timeline.changes()
    assert (first.operation, first.version, first.differences) == ("purge", 1, {})
    assert first.info["purged"]["first"] == -1
    assert (second.operation, second.version) == ("update", 2)
    row = session.execute(sa.text("SELECT * FROM gauge_history WHERE version = 1")).mappings().one()
    assert (row["name"], row["count"]) == (None, None)
    # What another one purges, or for another reason, stands beside it; by the same for the same it grows.
    lives(session, Gauge, "b", *(NOW - days * DAY for days in (6, 5, 4, 3, 2)))
    for versions, user_id, extra in (
        (4, "ada", {"a": "ä", "b": "x"}),
        (3, "ada", {"b": "x", "a": "ä"}),
        (2, "ada", {"a": "ä"}),
        (1, None, {}),
        (0, None, {}),
    ):
        purge(Gauge, Retention(versions=versions), user_id=user_id, extra=extra)
    assert timeline.cuts() == [cut, Cut(2, 2, NOW - DAY, NOW, None, "update", {})]
    assert Gauge.timeline("b").cuts() == [
        Cut(-1, 1, NOW - 5 * DAY, NOW, "ada", "update", {"a": "ä", "b": "x"}),
        Cut(2, 2, NOW - 4 * DAY, NOW, "ada", "update", {"a": "ä"}),
        Cut(3, 4, NOW - 2 * DAY, NOW, None, "update", {}),
    ]


def test_what_was_purged_is_refused(session: Session) -> None:
    lives(session, Gauge, "a", NOW - 3 * DAY, NOW - 2 * DAY, NOW - DAY)
    purge(Gauge, Retention(versions=1))
    timeline = Gauge.timeline("a")
    for ask in (lambda: timeline.version(0), lambda: timeline.version(1), lambda: timeline.version_at(NOW - 3 * DAY)):
        with pytest.raises(
            PurgedError, match="Gauge 'a': versions 0 to 1 were purged, the last of them at 2026-03-31T12:00:00Z"
        ):
            ask()
    with pytest.raises(PurgedError):
        timeline.version_at(NOW - 2 * DAY - timedelta(microseconds=1))
    assert timeline.version_at(NOW - 2 * DAY).version == 2
    assert timeline.version(7) is None
    with pytest.raises(PurgedError):
        session.get_one(Gauge, "a").revert_to(0)
    with pytest.raises(RestoreError):
        session.get_one(Gauge, "a").revert_to(7)
    (version,) = timeline.versions()
    assert version.valid_from == NOW - 2 * DAY
    assert timeline.has_changed_since(NOW - 2 * DAY)


def test_all_of_it_may_go(session: Session) -> None:
    lives(session, Gauge, "a", NOW - 3 * DAY, NOW - 2 * DAY)
    lives(session, Gauge, "b", NOW - 3 * DAY, NOW - 2 * DAY, deleted=True)
    purge(Gauge, Retention(versions=0))
    live, deleted = Gauge.timeline("a"), Gauge.timeline("b")
    assert (live.versions(), live.version_at(NOW)) == ([], live.live)
    assert live.valid_from() == NOW - 2 * DAY
    assert live.has_changed_since(NOW - 3 * DAY)
    assert deleted.version_at(NOW) is None
    for ask in (live.previous_version, deleted.previous_version, deleted.restore):
        with pytest.raises(PurgedError):
            ask()
    for timeline in (live, deleted):
        assert {change and change.operation for change in timeline.blame().values()} == {"purge"}
    # The key is used again.
    session.add(Gauge(code="b", name="again"))
    session.commit()
    assert session.get_one(Gauge, "b").version == 3
    assert [row.operation for row in rows(session, Gauge) if row.key == ("b",)] == ["purge", "insert"]
    assert found(Gauge, db.engine) == []


def test_creation_that_made_what_is_kept_stays(session: Session) -> None:
    lives(session, Gauge, "a", NOW - 3 * DAY, deleted=True)
    import_changes(session, Gauge, [ImportedChange("insert", "a", NOW - 2 * DAY)])
    session.commit()
    purge(Gauge, Retention(versions=0))
    assert [(row.version, row.operation) for row in rows(session, Gauge)] == [(0, "purge"), (1, "insert")]
    assert Gauge.timeline("a").cuts()[0].operation == "delete"
    assert Gauge.timeline("a").version_at(NOW - 3 * DAY) is None


def test_record_whose_state_of_then_was_purged_is_left_out_of_lists(session: Session) -> None:
    lives(session, Gauge, "a", NOW - 3 * DAY, NOW - 2 * DAY)
    lives(session, Gauge, "b", NOW - 2 * DAY)
    purge(Gauge, Retention(versions=1))
    as_of = session.scalars(Gauge.as_of(NOW - 3 * DAY - timedelta(microseconds=1))).all()
    assert [gauge.code for gauge in as_of] == ["b"]
    assert {gauge.code for gauge in session.scalars(Gauge.as_of(NOW - 3 * DAY))} == {"a", "b"}


def test_value_that_was_set_by_what_was_purged_is_blamed_on_the_cut(session: Session) -> None:
    lives(session, Gauge, "a", NOW - 3 * DAY, NOW - 2 * DAY, count=1)
    purge(Gauge, Retention(versions=1))
    blame = Gauge.timeline("a").blame()
    assert {name: change and (change.operation, change.version) for name, change in blame.items()} == {
        "name": ("update", 1),
        "count": ("purge", 0),
        "secret": ("purge", 0),
        "token": ("purge", 0),
    }


def test_feed_of_an_attribute_has_what_was_purged_and_nothing_that_is_not_known(session: Session) -> None:
    lives(session, Gauge, "a", NOW - 5 * DAY, NOW - 3 * DAY, NOW - 3 * DAY + timedelta(hours=1), NOW - DAY, count=1)
    purge(Gauge, Retention(versions=1, daily_after=0))
    assert [(row.version, row.operation) for row in rows(session, Gauge)] == [
        (-1, "insert"),
        (0, "update"),
        (1, "update"),
        (2, "purge"),
        (3, "update"),
    ]
    for attribute, numbers in (("name", [3, 2, 0]), ("count", [2, -1]), ("secret", [2])):
        changes = Gauge.feed(ChangeFilter(attribute=attribute)).changes
        assert [change.version for change in changes] == numbers, attribute


def test_history_from_before_versioning_begins_with_its_first_version(session: Session) -> None:
    with suppress_versioning():
        session.add(Gauge(code="a", name="x"))
        session.commit()
    for name in "yz":
        session.get_one(Gauge, "a").name = name
        session.commit()
    purge(Gauge, Retention(versions=1))
    assert [(cut.first, cut.last) for cut in Gauge.timeline("a").cuts()] == [(0, 0)]


def test_held_records_are_left_alone(session: Session) -> None:
    for code, deleted in (("free", False), ("held", False), ("gone", True), ("gone held", True)):
        count = 1 if "held" in code else 0
        lives(session, Gauge, code, NOW - 3 * DAY, NOW - 2 * DAY, deleted=deleted, count=count)
    assert purge(Gauge, Retention(versions=0, held=lambda gauge: gauge.count == 1)) == 4
    left = {row.key[0] for row in rows(session, Gauge) if row.operation != "purge"}
    assert left == {"held", "gone held"}
    # Lifted by an ordinary change.
    session.get_one(Gauge, "held").count = None
    session.commit()
    assert purge(Gauge, Retention(versions=0, held="count")) == 3
    assert {row.key[0] for row in rows(session, Gauge) if row.operation != "purge"} == {"gone held"}


def test_hierarchies_are_purged_as_one(session: Session) -> None:
    vehicles: list[Any] = [Vehicle(code="v", name="0"), Truck(code="t", name="0", load=0)]
    animals: list[Any] = [Animal(code="a", name="0"), Dog(code="d", name="0", tricks=0)]
    session.add_all([*vehicles, *animals])
    session.commit()
    for number in range(1, 4):
        for each in (*vehicles, *animals):
            each.name = f"{number}"
        vehicles[1].load = animals[1].tricks = number
        session.commit()
    session.delete(vehicles[1])
    session.delete(animals[1])
    session.commit()
    for root, below, code, attribute in ((Vehicle, Truck, "t", "load"), (Animal, Dog, "d", "tricks")):
        assert purge(root, Retention(versions=1), batch=3) == 5
        if below is Truck:
            assert found(below, db.engine) == []
            with pytest.raises(ValueError, match="Truck is purged with the model that it inherits from"):
                Purge(below, Retention(versions=1))
        for model in (root, below):
            timeline = Timeline(session, model, (code,))
            assert [(cut.first, cut.last) for cut in timeline.cuts()] == [(-1, 2)]
            assert [(change.version, change.operation) for change in timeline.changes()] == [
                (2, "purge"),
                (3, "delete"),
            ]
        assert [getattr(version, attribute) for version in Timeline(session, below, (code,)).versions()] == [3]
        purge(root, Retention(versions=0))
        assert [change.operation for change in Timeline(session, below, (code,)).changes()] == ["purge"]
        other = Timeline(session, below, (root.__name__[0].lower(),))
        assert other.changes() == []
    states = session.execute(sa.text("SELECT load FROM truck_history")).scalars().all()
    assert states == [None]


@pytest.mark.parametrize(("root", "below"), [(Vehicle, Truck), (Animal, Dog)])
def test_cut_stands_for_records_of_one_kind(session: Session, root: Any, below: Any) -> None:
    for kind in (below, root, below):
        session.add(kind(code="x", name="0"))
        session.commit()
        session.get_one(kind, "x").name = "1"
        session.commit()
        session.delete(session.get_one(kind, "x"))
        session.commit()
    purge(root, Retention(versions=0), batch=4)
    assert [(cut.first, cut.last) for cut in root.timeline("x").cuts()] == [(-1, 1), (2, 4), (5, 7)]
    of_below = Timeline(session, below, ("x",))
    assert of_below.exists()
    assert (-1, 1) in [(cut.first, cut.last) for cut in of_below.cuts()]


def test_column_that_no_model_has_keeps_nothing_in_cuts(session: Session) -> None:
    lives(session, Gauge, "a", NOW - 3 * DAY, NOW - 2 * DAY)
    session.add(Truck(code="t", name="0"))
    session.commit()
    session.get_one(Truck, "t").load = 1
    session.commit()
    for table in ("gauge_history", "truck_history"):
        session.execute(sa.text(f'ALTER TABLE {table} ADD COLUMN "Was hidden" TEXT'))
        session.execute(sa.text(f"UPDATE {table} SET \"Was hidden\" = 'secret'"))
    session.commit()
    purge(Gauge, Retention(versions=1))
    purge(Vehicle, Retention(versions=0))
    left = sa.text('SELECT "Was hidden" FROM gauge_history ORDER BY version')
    assert session.scalars(left).all() == [None, "secret"]
    assert session.scalars(sa.text('SELECT "Was hidden" FROM truck_history')).all() == [None]


def test_cut_says_what_was_erased_of_what_it_stands_for(session: Session) -> None:
    lives(session, Gauge, "a", *(NOW - days * DAY for days in (5, 4, 3)))
    with rationale("asked"):
        Gauge.timeline("a").erase(["name"], user_id="ada")
    session.commit()
    # What comes later was never erased.
    later = [ImportedChange("update", "a", NOW - days * DAY, {"name": f"{days} ago"}) for days in (2, 1)]
    import_changes(session, Gauge, later)
    session.commit()
    for versions in (4, 1):
        purge(Gauge, Retention(versions=versions))
        (change, *_) = Gauge.timeline("a").changes()
        (mark,) = change.info["erased"]
        assert (change.operation, mark["user_id"], mark["columns"]) == ("purge", "ada", ["name"])
    (cut,) = Gauge.timeline("a").changes()[:1]
    assert Gauge.timeline("a").blame()["name"] != cut == Gauge.timeline("a").blame()["count"]


def test_cut_says_what_was_erased_of_its_later_rows_alone(session: Session) -> None:
    lives(session, Gauge, "a", *(NOW - days * DAY for days in (5, 4, 3)))
    Gauge.timeline("a").erase(["name"], user_id="ada")
    session.commit()
    # As where an archive got the first rows before they were erased.
    unmarked = sa.text("UPDATE gauge_history SET change_info = :info WHERE version < 1")
    session.execute(unmarked.bindparams(sa.bindparam("info", {"user_id": None, "remote_addr": None}, JSONDocument)))
    session.commit()
    purge(Gauge, Retention(versions=0))
    (change,) = Gauge.timeline("a").changes()
    assert [mark["user_id"] for mark in change.info["erased"]] == ["ada"]


def test_who_purges_is_a_text() -> None:
    with pytest.raises(ChangeInfoError, match="user_id"):
        Purge(Gauge, Retention(versions=0), user_id=5)  # type: ignore[arg-type]


def test_purge_tells_what_it_did_and_not_what_it_meant_to_do(session: Session) -> None:
    lives(session, Gauge, "a", NOW - 3 * DAY, NOW - 2 * DAY)
    lives(session, Gauge, "b", NOW - 3 * DAY, NOW - 2 * DAY)
    session.rollback()
    at_once = {"to be held"}

    def hold(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT" and looked and at_once:
            at_once.clear()
            with other.begin() as writing:
                writing.execute(sa.text("UPDATE gauge SET count = 1 WHERE code = 'b'"))

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        looked.extend(["goes"] if "goes" in statement else [])

    looked: list[str] = []
    engine, other = sa.create_engine(db.engine.url), sa.create_engine(db.engine.url)
    sa.event.listen(engine, "begin", hold)
    sa.event.listen(engine, "before_cursor_execute", note)
    (part,) = Purge(Gauge, Retention(versions=0, held="count"), at=NOW).run(engine)
    for one in (engine, other):
        one.dispose()
    assert [(doomed.key, doomed.versions) for doomed in part.doomed] == [(("a",), 2)]
    assert [cut.last for cut in Gauge.timeline("a").cuts()] == [1]
    assert Gauge.timeline("b").cuts() == []


class _YesNo(sa.TypeDecorator[bool]):
    impl = sa.Boolean
    cache_ok = True


def test_boolean_of_an_applications_own_type_holds_when_it_is_true(open_database: Callable[..., Session]) -> None:
    database: Any = VersionedSQLAlchemy()
    columns: Any = {
        "id": sa.Column(sa.Integer, primary_key=True),
        "hold": sa.Column(_YesNo),
        "n": sa.Column(sa.Integer),
    }
    note = define(database, "Note", __tablename__="note", **columns)
    session = open_database(database)
    notes = [note(id=number, hold=hold) for number, hold in enumerate((True, False, None))]
    session.add_all(notes)
    session.commit()
    for one in notes:
        one.n = 1
    session.commit()
    list(Purge(note, Retention(versions=0, held="hold")).run(database.engine))
    assert [len(one.versions()) for one in notes] == [1, 0, 0]


@pytest.mark.parametrize("batch", [3, 4, 5, 6])
def test_run_over_several_parts_becomes_one_cut(session: Session, batch: int) -> None:
    # Wherever a part ends: behind a creation too, of which it is not yet known there whether it goes.
    for code in "abcd":
        lives(session, Gauge, code, NOW - 6 * DAY, NOW - 5 * DAY, deleted=True)
        again = [
            ImportedChange("insert", code, NOW - 4 * DAY),
            *(ImportedChange("update", code, NOW - days * DAY, {"name": f"{days}"}) for days in (3, 2)),
        ]
        import_changes(session, Gauge, again)
        session.commit()
    plan = Purge(Gauge, Retention(versions=0), at=NOW, batch=batch)
    db.session.rollback()
    with db.engine.connect() as connection:
        assert sum(part.rows for part in plan.dry_run(db.engine)) == total_rows(connection, Gauge) == 24
    assert purge(Gauge, Retention(versions=0), batch) == 16
    assert [(row.version, row.operation) for row in rows(session, Gauge)] == [(4, "purge")] * 4
    for code in "abcd":
        assert [(cut.first, cut.last) for cut in Gauge.timeline(code).cuts()] == [(-1, 4)]

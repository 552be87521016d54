"""Changes that are imported with given instants leave what they would have left, had the session made them then."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from chrononaut import (
    ConcurrentChangeError,
    HistoryImportError,
    ImportedChange,
    RecordChanges,
    Timeline,
    UncapturedWriteError,
    UnsupportedMappingError,
    Versioned,
    VersionedSQLAlchemy,
    extra_change_info,
    import_changes,
    importing,
    suppress_versioning,
)
from chrononaut.transactions import snapshot
from chrononaut.verify import verify
from tests.library.conftest import recorded
from tests.library.models import Country, Release, User, db, define
from tests.library.rows import changes as operations
from tests.library.rows import history_rows, live_rows
from tests.library.twins import Item, Kind, twins

START = datetime(2020, 1, 1, tzinfo=UTC)
BERLIN = timezone(timedelta(hours=1))
NAMES = {"version": "row_version", "changed": "ended"}


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def insert(key: Any, hours: float = 0, **values: Any) -> ImportedChange:
    return ImportedChange("insert", key, at(hours), values)


def update(key: Any, hours: float = 0, **values: Any) -> ImportedChange:
    return ImportedChange("update", key, at(hours), values)


def delete(key: Any, hours: float = 0) -> ImportedChange:
    return ImportedChange("delete", key, at(hours))


def check_verified(engine: sa.Engine, *models: type) -> None:
    """What `flask history verify` checks."""
    with snapshot(engine) as connection:
        assert [finding for model in models for finding in verify(connection, model)] == []


class TestProperty:
    """Two models with the same columns: one is imported into, the other is changed through the session."""

    def define(self, database: Any, name: str) -> Any:
        return define(
            database,
            name,
            __tablename__=name.lower(),
            __chrononaut_hidden__=["secret"],
            __chrononaut_untracked__=["seen"],
            __chrononaut_rename__=NAMES,
            part=sa.Column("key_part", sa.String, primary_key=True),
            number=sa.Column(sa.Integer, primary_key=True, autoincrement=False),
            label=sa.Column("codename", sa.String),
            document=sa.Column(sa.JSON(none_as_null=True)),
            count=sa.Column(sa.Integer, default=7),
            secret=sa.Column(sa.String),
            seen=sa.Column(sa.Integer),
        )

    @pytest.fixture
    def twins(self, open_database: Callable[..., Session]) -> tuple[Session, Any, Any]:
        database = VersionedSQLAlchemy()
        models = self.define(database, "Imported"), self.define(database, "Captured")
        return open_database(database), *models

    values = st.fixed_dictionaries(
        {},
        optional={
            "label": st.sampled_from([None, "a", "b"]),
            "document": st.sampled_from([None, {"a": 1, "b": [2]}, {"b": [2], "a": 1}, {"a": 1.5}]),
            "count": st.sampled_from([7, 8]),
            "secret": st.sampled_from([None, "x", "y"]),
            "seen": st.sampled_from([5, 6]),
        },
    )
    wishes = st.lists(
        st.tuples(
            st.tuples(st.sampled_from(["a", "a,b"]), st.integers(0, 1)),
            st.booleans(),
            values,
            st.sampled_from([0, 0, 1, 250, 3_000_000]),
            st.fixed_dictionaries({}, optional={"rationale": st.sampled_from(["why", "🤖"])}),
            st.sampled_from([None, None, "t1", "t2"]),
        ),
        max_size=25,
    )

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(wishes=wishes, batch=st.integers(1, 6), calls=st.integers(1, 3))
    def test_imported_is_what_the_session_would_have_written(
        self, twins: tuple[Session, Any, Any], wishes: list[tuple[Any, ...]], batch: int, calls: int
    ) -> None:
        session, imported, captured = twins
        self.empty(session)
        changes = list(self.changes(wishes))
        written = self.capture(session, captured, changes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(importing, "BATCH", batch)
            size = len(changes) // calls + 1
            parts = [changes[start : start + size] for start in range(0, len(changes), size)]
            counts = [import_changes(session, imported, iter(part)) for part in parts]
        session.commit()
        assert sum(counts) == len(written)
        assert self.live(session, "imported") == self.live(session, "captured")
        self.compare_history(session, written)
        check_verified(session.get_bind().engine, imported)

    def empty(self, session: Session) -> None:
        session.rollback()
        session.expunge_all()
        for table in ("imported", "imported_history", "captured", "captured_history"):
            session.connection().exec_driver_sql(f"DELETE FROM {table}")
        session.commit()

    def changes(self, wishes: list[tuple[Any, ...]]) -> Iterator[ImportedChange]:
        """Changes that could have been: each wish as the operation that is possible."""
        live: set[Any] = set()
        instant = START
        for key, ends, values, microseconds, extra, transaction in wishes:
            instant += timedelta(microseconds=microseconds)
            operation: Any = "insert" if key not in live else "delete" if ends else "update"
            info = {"extra": extra} if extra else {}
            given = {} if operation == "delete" else values
            yield ImportedChange(operation, key, instant, given, info, transaction)
            (live.discard if operation == "delete" else live.add)(key)

    def capture(
        self, session: Session, model: Any, changes: list[ImportedChange]
    ) -> dict[tuple[Any, int], ImportedChange]:
        """Make changes through the session.

        :return: key and version of each history row → the change that it is of
        """
        written: dict[tuple[Any, int], ImportedChange] = {}
        for change in changes:
            part, number = change.key
            with extra_change_info(**change.info["extra"]) if change.info else nullcontext():
                if change.operation == "insert":
                    session.add(model(part=part, number=number, **change.values))
                else:
                    obj = session.get_one(model, change.key)
                    if change.operation == "delete":
                        session.delete(obj)
                    for name, value in change.values.items():
                        setattr(obj, name, value)
                session.flush()
            rows = session.connection().execute(
                sa.text("SELECT max(row_version) FROM captured_history WHERE key_part = :part AND number = :number"),
                {"part": part, "number": number},
            )
            written.setdefault((change.key, rows.scalar_one()), change)
        return written

    def live(self, session: Session, table: str) -> list[dict[str, Any]]:
        rows = live_rows(session, table, "key_part", "number")
        # SQLite keeps documents as text.
        return [
            row | {"document": json.loads(row["document"]) if isinstance(row["document"], str) else row["document"]}
            for row in rows
        ]

    def compare_history(self, session: Session, written: Mapping[tuple[Any, int], ImportedChange]) -> None:
        found = self.rows(session, "imported_history")
        expected = self.rows(session, "captured_history")
        assert found.keys() == expected.keys() == written.keys()
        ids: dict[Any, set[Any]] = {}
        for place, change in written.items():
            row, other = found[place], expected[place]
            own = row.pop("ended"), row.pop("transaction_id")
            other.pop("ended"), other.pop("transaction_id")
            assert row == other
            assert own[0] == change.at
            assert (own[1].version, own[1].variant) == (7, "specified in RFC 4122")
            assert own[1].int >> 80 == int(change.at.timestamp() * 1000 + 0.0005)
            ids.setdefault((change.at, change.transaction) if change.transaction else (change.at, place), set()).add(
                own[1]
            )
        assert all(len(shared) == 1 for shared in ids.values()), "a transaction has one id"
        assert len(set[Any]().union(*ids.values())) == len(ids), "no two transactions have one id"
        for (one, _), (smaller,) in ids.items():
            assert all(smaller < larger for (other, _), (larger,) in ids.items() if one < other), "ids are in order"

    def rows(self, session: Session, table: str) -> dict[Any, dict[str, Any]]:
        found = {}
        for row in session.connection().execute(sa.text(f"SELECT * FROM {table}")).mappings():
            read = dict(row)
            if isinstance(read["ended"], str):
                read["ended"] = datetime.fromisoformat(read["ended"]).replace(tzinfo=UTC)
            read["transaction_id"] = UUID(str(read["transaction_id"]))
            for name in ("change_info", "document"):
                read[name] = json.loads(read[name]) if isinstance(read[name], str) else read[name]
            found[(row["key_part"], row["number"]), row["row_version"]] = read
        return found


class TestWritten:
    def test_numbering_goes_on_after_a_delete_and_across_imports(self, session: Session) -> None:
        first = [insert(("p", "1"), 1, label="a"), delete(("p", "1"), 2)]
        second = [insert(("p", "1"), 2, label="b"), update(("p", "1"), 3, label="c")]
        assert [import_changes(session, Release, part) for part in (first, second)] == [2, 2]
        rows = history_rows(session, "release_history")
        assert operations(rows) == [(-1, "insert"), (0, "delete"), (1, "insert"), (2, "update")]
        assert [row["changed"] for row in rows] == [at(1), at(2), at(2), at(3)]
        assert [row["codename"] for row in rows] == [None, "a", None, "b"]
        assert live_rows(session, "release") == [{"product": "p", "cycle": "1", "codename": "c", "version": 3}]

    def test_history_that_was_captured_is_continued_and_captured_after(self, session: Session) -> None:
        country = Country(code="FR", name="a")
        session.add(country)
        session.commit()
        (created,) = history_rows(session, "country_history")
        later = replace(update("FR", name="b"), at=created["changed"])
        assert import_changes(session, Country, [later]) == 1
        assert country.name == "b", "the loaded object is expired"
        country.name = "c"
        session.commit()
        rows = history_rows(session, "country_history")
        assert operations(rows) == [(-1, "insert"), (0, "update"), (1, "update")]
        assert rows[0]["changed"] == rows[1]["changed"] < rows[2]["changed"]
        check_verified(db.engine, Country)

    def test_record_without_history_is_taken_to_have_always_been(self, session: Session) -> None:
        with suppress_versioning():
            session.add(Country(code="FR", name="a"))
            session.commit()
        assert import_changes(session, Country, [update("FR", 1, name="b")]) == 1
        session.commit()
        assert operations(history_rows(session, "country_history")) == [(0, "update")]
        check_verified(db.engine, Country)

    def test_what_is_pending_is_flushed_first(self, session: Session) -> None:
        country = Country(code="FR", name="a")
        session.add(country)
        with pytest.raises(HistoryImportError, match="this insert finds the record there"):
            import_changes(session, Country, [insert("FR")])

    def test_object_of_a_deleted_record_is_gone(self, session: Session) -> None:
        import_changes(session, Country, [insert("FR", name="a")])
        country = session.get_one(Country, "FR")
        import_changes(session, Country, [delete("FR", 1)])
        assert session.get(Country, "FR") is None
        assert country not in session

    def test_hidden_values_are_named_and_never_stored(self, session: Session) -> None:
        changes = [
            insert(1, 0, email="a", password_hash="s3cret", token=None),
            update(1, 1, token="s3cret", password_hash="s3cret"),
            update(1, 2, last_seen_at=at(2)),
            delete(1, 3),
        ]
        assert import_changes(session, User, changes) == 3
        rows = history_rows(session, "appuser_history")
        hidden = [row["change_info"].get("hidden_cols_changed") for row in rows]
        assert hidden == [["password_hash"], ["token"], ["password_hash", "token"]]
        assert "s3cret" not in str(rows)
        assert live_rows(session, "appuser") == []

    def test_document_is_the_one_given(self, session: Session) -> None:
        info = {"user_id": "ada@example.com", "extra": {"rationale": "🤖 why"}, "tenant": 7, "path": r"a\u0000"}
        import_changes(session, Country, [replace(insert("FR"), info=info)])
        (row,) = history_rows(session, "country_history")
        assert row["change_info"] == {"remote_addr": None, **info}

    def test_defaults_fill_in_what_an_insert_leaves_out(self, session: Session) -> None:
        import_changes(session, User, [insert(1, email="a")])
        (row,) = live_rows(session, "appuser")
        assert (row["active"], row["logins"], row["clicks"]) == (True, 0, 0)

    def test_values_pass_through_the_types_of_their_columns(self, open_database: Callable[..., Session]) -> None:
        session = open_database(twins)
        first: dict[str, Any] = {
            "name": "é",
            "label": "x",
            "kind": Kind.LARGE,
            "price": Decimal("1.25"),
            "rate": Decimal("3.10"),
            "day": date(2020, 2, 29),
            "settings": {"a": [1, None, "🤖"]},
            "parent_id": 2**31 - 1,
        }
        second = dict.fromkeys(first) | {"kind": Kind.SMALL, "price": Decimal("0.5")}
        changes = [insert(1, 0, **first), update(1, 1, **first), update(1, 2, **second), update(1, 3, **second)]
        assert import_changes(session, Item, [*changes, delete(1, 4)]) == 3
        versions = Timeline(session, Item, (1,)).versions()
        assert [{name: getattr(version, name) for name in first} for version in versions] == [first, second]

    def test_column_that_every_update_stamps_keeps_what_it_was(self, open_database: Callable[..., Session]) -> None:
        database = VersionedSQLAlchemy()
        columns = {"id": sa.Column(sa.Integer, primary_key=True), "text": sa.Column(sa.String)}
        model = define(database, "Thing", stamp=sa.Column(sa.String, onupdate=lambda: "today"), **columns)
        session = open_database(database)
        import_changes(session, model, [insert(1, stamp="then"), update(1, 1, text="a"), update(1, 2, text="b")])
        assert [row["stamp"] for row in live_rows(session, "thing")] == ["then"]
        assert [row["stamp"] for row in history_rows(session, "thing_history")] == [None, "then", "then"]

    def test_instants_are_in_utc_whatever_their_zone(self, session: Session) -> None:
        noon, zoned = datetime(2021, 1, 1, 12, tzinfo=UTC), datetime(2021, 1, 1, 14, tzinfo=BERLIN)
        naive = noon.replace(tzinfo=None)
        changes = [replace(insert("FR"), at=naive), replace(update("FR", name="a"), at=zoned)]
        import_changes(session, Country, changes)
        found = [row["changed"] for row in history_rows(session, "country_history")]
        assert found == [noon, zoned]

    def test_instant_before_1970_is_kept(self, session: Session) -> None:
        before = datetime(1969, 7, 20, 20, 17, 40, 5, tzinfo=UTC)
        import_changes(session, Country, [replace(insert("FR"), at=before)])
        (row,) = history_rows(session, "country_history")
        assert (row["changed"], row["transaction_id"].int >> 80) == (before, 0)

    def test_transaction_is_one_over_models_and_imports(self, session: Session) -> None:
        for model, key in ((Country, "FR"), (Release, ("p", "1"))):
            import_changes(session, model, [replace(insert(key), transaction="4711")])
        rows = [*history_rows(session, "country_history"), *history_rows(session, "release_history")]
        assert len({row["transaction_id"] for row in rows}) == 1

    def test_values_move_between_records_in_the_order_given(self, session: Session) -> None:
        """The constraint of the e-mail holds after each change, though not in every order."""
        changes = [insert(1, email="a"), insert(2, email="b"), update(2, 1, email="c")]
        changes += [update(1, 1, email="b"), delete(1, 2), update(2, 2, email="b", name="x"), update(2, 3, email="a")]
        assert import_changes(session, User, changes) == 7
        assert [row["email"] for row in live_rows(session, "appuser")] == ["a"]

    def test_suppression_makes_no_difference(self, session: Session) -> None:
        with suppress_versioning():
            assert import_changes(session, Country, [insert("FR"), update("FR", 1, name="a")]) == 2
        assert operations(history_rows(session, "country_history")) == [(-1, "insert"), (0, "update")]

    def test_row_that_says_who_changed_it_last_says_it_of_then(self, open_database: Callable[..., Session]) -> None:
        database = VersionedSQLAlchemy()
        model = define(
            database,
            "Note",
            Versioned,
            RecordChanges,
            id=sa.Column(sa.Integer, primary_key=True),
            text=sa.Column(sa.String),
        )
        session = open_database(database)
        info = {"user_id": "ada"}
        same = replace(update(1, 2, text="a"), info={"user_id": "nobody"})
        import_changes(session, model, [insert(1), replace(update(1, 1, text="a"), info=info), same])
        note = session.get_one(model, 1)
        assert (note.changed, note.change_info) == (at(1), {"remote_addr": None, **info})

    def test_models_in_one_table_are_imported_by_the_first(self, open_database: Callable[..., Session]) -> None:
        database = VersionedSQLAlchemy()
        pet = define(
            database,
            "Pet",
            __mapper_args__={"polymorphic_on": "kind", "polymorphic_identity": "pet"},
            id=sa.Column(sa.Integer, primary_key=True),
            kind=sa.Column(sa.String),
        )
        dog = type("Dog", (pet,), {"__mapper_args__": {"polymorphic_identity": "dog"}, "tricks": sa.Column(sa.String)})
        session = open_database(database)
        with pytest.raises(UnsupportedMappingError, match="Dog: its rows are in the table of Pet; import into that"):
            import_changes(session, dog, [])
        changes = [insert(1, kind="dog", tricks="sit"), insert(2), update(1, 1, tricks="roll"), delete(1, 2)]
        import_changes(session, pet, changes)
        rows = history_rows(session, "pet_history", id=1)
        assert [(row["kind"], row["tricks"]) for row in rows] == [(None, None), ("dog", "sit"), ("dog", "roll")]
        assert type(session.get_one(pet, 2)) is pet

    def test_model_with_rows_in_several_tables_is_refused(self, open_database: Callable[..., Session]) -> None:
        database = VersionedSQLAlchemy()
        pet = define(database, "Pet", id=sa.Column(sa.Integer, primary_key=True))
        cat = type("Cat", (pet,), {"id": sa.Column(sa.ForeignKey("pet.id"), primary_key=True)})
        session = open_database(database)
        for model in (pet, cat):
            with pytest.raises(UnsupportedMappingError, match="records have rows in several tables"):
                import_changes(session, model, [])

    def test_statements_are_as_many_as_runs_of_one_kind(self, session: Session) -> None:
        changes = [insert(number, email=f"{number}") for number in range(50)]
        changes += [update(number, 1, name="a") for number in range(50)]
        changes += [delete(number, 2) for number in range(50)]
        with recorded(db.engine) as statements:
            import_changes(session, User, changes)
        written = [statement for statement in statements.executed if not statement[0].startswith(("SELECT", "BEGIN"))]
        assert [count for _, count in written] == [50] * 6
        assert len(statements.matching("SELECT")) - len(statements.matching("INSERT", "SELECT")) == 2


@dataclass(frozen=True)
class Wrong:
    """A list of changes of countries, of which one is wrong."""

    changes: list[Any]
    position: int
    message: str


INSERTED = insert("FR", 1, name="a")
WRONG = {
    "no change": Wrong([INSERTED, "FR"], 1, "change 1, Country None: a change must be an ImportedChange, not str"),
    "operation": Wrong(
        [replace(INSERTED, operation="upsert")],  # type: ignore[arg-type]
        0,
        "change 0, Country 'FR': the operation must be one of insert, update, delete, not 'upsert'",
    ),
    "insert of a live record": Wrong(
        [INSERTED, insert("DE"), insert("FR", 1)],
        2,
        "change 2, Country 'FR': this insert finds the record there; "
        "it can only be the first change, or follow a delete",
    ),
    "update of none": Wrong([update("FR", name="a")], 0, "this update finds no record; insert it first"),
    "delete of a deleted one": Wrong(
        [INSERTED, delete("FR", 2), delete("FR", 3)], 2, "this delete finds no record; insert it first"
    ),
    "time that runs backwards": Wrong(
        [INSERTED, update("FR", 2, name="b"), update("FR", 1.5, name="c")],
        2,
        "2020-01-01T01:30:00+00:00 is earlier than the record's change before it, of 2020-01-01T02:00:00+00:00; "
        "give the changes of a record oldest first",
    ),
    "time to come": Wrong(
        [replace(INSERTED, at=datetime(9999, 1, 1, tzinfo=UTC))],
        0,
        "9999-01-01T00:00:00+00:00 is yet to come; history tells what has happened",
    ),
    "no instant": Wrong(
        [replace(INSERTED, at="2020-01-01")],  # type: ignore[arg-type]
        0,
        "at: an instant must be a datetime, not str",
    ),
    "instant beyond UTC": Wrong([replace(INSERTED, at=datetime(1, 1, 1, tzinfo=BERLIN))], 0, "at: date value out of"),
    "unknown attribute": Wrong([insert("FR", nome="a")], 0, "there is no attribute nome; there are name, secret"),
    "version": Wrong([insert("FR", version=3)], 0, "there is no attribute version; there are name, secret"),
    "key among the values": Wrong(
        [insert("FR", code="FR")], 0, "code stands in the key and cannot be among the values"
    ),
    "values of a delete": Wrong(
        [INSERTED, replace(delete("FR", 2), values={"name": "a"})], 1, "a delete has no values; leave them out"
    ),
    "values that are none": Wrong(
        [replace(INSERTED, values=["name"])],  # type: ignore[arg-type]
        0,
        "the values must be a mapping of attribute names, not list",
    ),
    "SQL expression": Wrong([insert("FR", name=sa.func.now())], 0, "name must be a value, not an SQL expression"),
    "key of two parts": Wrong([insert(("FR", "x"))], 0, "the key must have a value for code, in this order"),
    "key without value": Wrong([insert(None)], 0, "the key must have a value for code, in this order"),
    "key that is a list": Wrong([insert(["FR"])], 0, "the key must be hashable"),
    "transaction": Wrong(
        [replace(INSERTED, transaction=7)],  # type: ignore[arg-type]
        0,
        "the transaction must be named by a string, not int",
    ),
}
WRONG_INFO: dict[str, tuple[Any, str]] = {
    "no mapping": ("why", "info: must be a mapping with strings as keys"),
    "key that is no string": ({1: "a"}, "info: must be a mapping with strings as keys"),
    "erased": ({"erased": []}, "info: erased tells of this history; leave it out"),
    "purged": ({"purged": {}}, "info: purged tells of this history; leave it out"),
    "computed": ({"hidden_cols_changed": []}, "info: hidden_cols_changed is found out; leave it out"),
    "user": ({"user_id": 7}, "info: user_id must be a string or None, not int"),
    "address": ({"remote_addr": 7}, "info: remote_addr must be a string or None, not int"),
    "extra": ({"extra": "why"}, "info: extra must be a mapping of strings"),
    "extra value": ({"extra": {"ticket": 7}}, "info: change info 'ticket' must be a string, not int"),
    "extra that no database stores": ({"extra": {"a": "\0"}}, "info: change info 'a' holds a character that no"),
    "not JSON": ({"when": START}, "info: cannot be stored as JSON: Object of type datetime"),
    "no number": ({"share": float("nan")}, "info: cannot be stored as JSON: Out of range float"),
    "half a character": ({"tenant": "\ud800"}, "info: cannot be stored as JSON: 'utf-8' codec"),
    "NUL": ({"tenant": ["\\\0"]}, "info: holds NUL, which no database stores in JSON"),
}
WRONG |= {
    f"info: {name}": Wrong([INSERTED, replace(update("FR", 2, name="b"), info=info)], 1, message)
    for name, (info, message) in WRONG_INFO.items()
}


class TestRefused:
    @pytest.mark.parametrize("batch", [1, 1000])
    @pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
    def test_wrong_change_is_named_and_nothing_can_be_committed(
        self, session: Session, monkeypatch: pytest.MonkeyPatch, wrong: Wrong, batch: int
    ) -> None:
        monkeypatch.setattr(importing, "BATCH", batch)
        with pytest.raises(HistoryImportError) as refused:
            import_changes(session, Country, wrong.changes)
        assert wrong.message in str(refused.value)
        assert (refused.value.model, refused.value.position) == ("Country", wrong.position)
        with pytest.raises(UncapturedWriteError, match="roll the session back"):
            session.commit()
        session.rollback()
        for table in ("country", "country_history"):
            assert live_rows(session, table) == []

    def test_first_wrong_change_is_told(self, session: Session) -> None:
        with pytest.raises(HistoryImportError, match="change 1"):
            import_changes(session, Country, [INSERTED, INSERTED, insert("DE", nome="a")])

    @pytest.mark.parametrize(
        ("batch", "position", "message"),
        [
            (1, 2, "change 2, Country 'DE': the database refuses it ("),
            (3, 1, "change 1, Country 'IT': the database refuses one of the changes 1 to 2 ("),
        ],
    )
    def test_what_the_database_refuses_is_told_without_its_values(
        self, session: Session, monkeypatch: pytest.MonkeyPatch, batch: int, position: int, message: str
    ) -> None:
        monkeypatch.setattr(importing, "BATCH", batch)
        changes = [insert("FR"), insert("IT", secret="a"), insert("DE", secret={"no": "text"})]
        with pytest.raises(HistoryImportError) as refused:
            import_changes(session, Country, changes)
        assert message in str(refused.value)
        assert "text" not in str(refused.value)
        assert refused.value.position == position
        assert isinstance(refused.value.__cause__, sa.exc.StatementError)
        session.rollback()
        assert live_rows(session, "country") == []

    def test_iterable_that_fails_leaves_nothing(self, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importing, "BATCH", 1)

        def broken() -> Iterator[ImportedChange]:
            yield INSERTED
            raise OSError("the file is gone")

        with pytest.raises(OSError, match="the file is gone"):
            import_changes(session, Country, broken())
        with pytest.raises(UncapturedWriteError):
            session.commit()

    def test_savepoint_alone_may_be_rolled_back(self, session: Session) -> None:
        import_changes(session, Country, [INSERTED])
        with pytest.raises(HistoryImportError), session.begin_nested():
            import_changes(session, Country, [insert("DE", 1), insert("FR", 2)])
        session.commit()
        assert [row["code"] for row in live_rows(session, "country")] == ["FR"]

    def test_update_that_changes_nothing_holds_nobody_back(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It leaves no instant, in the same batch as little as in an earlier one."""
        changes = [INSERTED, update("FR", 9, name="a"), update("FR", 2, name="b")]
        assert import_changes(session, Country, changes) == 2
        session.rollback()
        monkeypatch.setattr(importing, "BATCH", 1)
        assert import_changes(session, Country, changes) == 2

    @pytest.mark.parametrize("change", [update("FR", 2, name="b"), delete("FR", 2)], ids=["update", "delete"])
    def test_record_that_goes_away_meanwhile_is_a_conflict(self, session: Session, change: ImportedChange) -> None:
        """Where reading locks nothing."""
        import_changes(session, Country, [INSERTED])
        session.commit()

        def delete_first(connection: Any, cursor: Any, statement: str, *_: object) -> None:
            if statement.startswith("INSERT INTO country_history"):
                cursor.connection.execute("DELETE FROM country")

        sa.event.listen(db.engine, "before_cursor_execute", delete_first)
        try:
            with pytest.raises(ConcurrentChangeError, match="Country 'FR'"):
                import_changes(session, Country, [change])
        finally:
            sa.event.remove(db.engine, "before_cursor_execute", delete_first)

    def test_change_beside_one_that_changes_nothing_counts(self, session: Session) -> None:
        changes = [INSERTED, insert("DE", 1, name="a"), update("DE", 9, name="a"), update("FR", 9, name="b")]
        assert import_changes(session, Country, [*changes, update("DE", 2, name="b")]) == 4
        session.rollback()
        with pytest.raises(HistoryImportError, match=r"change 4, Country 'FR': .* is earlier than"):
            import_changes(session, Country, [*changes, update("FR", 2, name="c")])

    def test_session_that_does_not_capture_is_refused(self, session: Session) -> None:
        with (
            Session(db.engine) as other,
            pytest.raises(UncapturedWriteError, match="an import by a session that does not capture"),
        ):
            import_changes(other, Country, [INSERTED])

    def test_autocommit_is_refused(self, session: Session) -> None:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        with pytest.raises(UncapturedWriteError, match="AUTOCOMMIT"):
            import_changes(session, Country, [INSERTED])

    def test_model_without_history_is_refused(self, session: Session) -> None:
        with pytest.raises(TypeError, match="str is no versioned model"):
            import_changes(session, str, [])


def test_changes_are_held_a_bounded_number_at_a_time(session: Session) -> None:
    alive = most = 0

    class Counted(ImportedChange):
        """Knows when it is gone."""

        __slots__ = ()

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def stream() -> Iterator[ImportedChange]:
        nonlocal alive, most
        for number in range(10_000):
            alive += 1
            most = max(most, alive)
            yield Counted("insert" if number == 0 else "update", "FR", at(number / 60), {"name": f"{number}"})

    assert import_changes(session, Country, stream()) == 10_000
    assert most <= 2 * importing.BATCH
    assert len(history_rows(session, "country_history")) == 10_000

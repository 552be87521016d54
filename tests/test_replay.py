"""The pure parts of the replay: the file, what it comes to, how it is spelled in HTTP, how histories are compared."""

from __future__ import annotations

import copy
import gzip
import json
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from app import create_app
from app.cli import create_tables
from app.db import db
from benchmarks.changes import (
    COLUMNS,
    Change,
    ChangeFileError,
    History,
    ImpossibleChangeError,
    Key,
    Living,
    Operation,
    Value,
    check_dated,
    fold,
    fold_until,
    parse,
    read,
)
from benchmarks.replay.__main__ import main
from benchmarks.replay.comparing import Answers, compare, compare_table
from benchmarks.replay.errors import RecordError
from benchmarks.replay.sending import Tally, milliseconds, starting_points
from benchmarks.replay.wire import entity_tag, header_value, key_segment, key_text
from benchmarks.replay.workers import shard

PYTHON = Key("python", "3.13")
DEMO_DATA = Path(__file__).parent.parent / "app" / "data" / "releases.ndjson"

encodable = st.text(st.characters(codec="utf-8"), min_size=1)


def insert(key: Key = PYTHON, rationale: str = "new", **values: Value) -> Change:
    return Change(Operation.INSERT, key, values, rationale)


def update(key: Key = PYTHON, rationale: str = "changed", **values: Value) -> Change:
    return Change(Operation.UPDATE, key, values, rationale)


def delete(key: Key = PYTHON, rationale: str = "gone") -> Change:
    return Change(Operation.DELETE, key, {}, rationale)


def line(**fields: Any) -> str:
    whole = {"op": "insert", "product": "python", "cycle": "3.13", "set": {"latest": "3.13.0"}, "rationale": "new"}
    return json.dumps({name: value for name, value in (whole | fields).items() if value is not ...})


def state(key: Key = PYTHON, **values: Value) -> dict[str, Value]:
    return {"product": key.product, "cycle": key.cycle, **dict.fromkeys(COLUMNS), **values}


def two_lives() -> History:
    """A record that is changed, deleted, inserted again and changed again."""
    changes = [
        insert(latest="3.13.0", lts=False),
        update(latest="3.13.1", rationale="🤖: Update"),
        delete(),
        insert(latest="3.13.2", rationale="back"),
        update(link="https://example.com/"),
    ]
    return fold(changes)[PYTHON]


class TestFold:
    def test_versions_are_numbered_from_the_insert_on(self) -> None:
        steps = list(fold([insert(latest="1"), update(latest="2"), update(latest=None)])[PYTHON].steps())
        assert [step.version for step in steps] == [-1, 0, 1]
        assert [step.before for step in steps] == [None, state(latest="1"), state(latest="2")]
        assert steps[-1].after == state()

    def test_a_key_used_again_goes_on_with_its_numbers(self) -> None:
        steps = list(two_lives().steps())
        assert [(step.version, step.change.operation.value) for step in steps] == [
            (-1, "insert"),
            (0, "update"),
            (1, "delete"),
            (2, "insert"),
            (3, "update"),
        ]
        assert steps[3].before is None
        assert steps[4].before == state(latest="3.13.2"), "nothing of the first life is left in the second"

    def test_a_deleted_record_has_no_state_at_the_end(self) -> None:
        *_, last = fold([insert(), delete()])[PYTHON].steps()
        assert last.after is None

    def test_false_differs_from_null(self) -> None:
        *_, last = fold([insert(lts=None), update(lts=False)])[PYTHON].steps()
        assert last.differences == {"lts": {"from": None, "to": False}}

    def test_records_are_kept_apart_and_in_the_order_of_the_file(self) -> None:
        other = Key("python", "3.14")
        histories = fold([insert(), insert(other), update(latest="1"), delete(other)])
        assert list(histories) == [PYTHON, other]
        assert [len(history.changes) for history in histories.values()] == [2, 2]

    @pytest.mark.parametrize(
        ("before", "change", "message"),
        [
            ([insert()], insert(), "already there"),
            ([], update(latest="1"), "not there"),
            ([], delete(), "not there"),
            ([insert(), delete()], update(latest="1"), "not there"),
            ([insert(latest="1")], update(latest="1"), "changes nothing"),
            ([insert()], update(latest=None), "changes nothing"),
        ],
    )
    def test_what_cannot_have_happened_is_refused(self, before: list[Change], change: Change, message: str) -> None:
        with pytest.raises(ImpossibleChangeError, match=message):
            list(History(PYTHON, (*before, change)).steps())

    @given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([None, "1", "2"])), max_size=30))
    def test_each_state_is_the_one_that_a_plain_replay_gives(self, wishes: list[tuple[str, str | None]]) -> None:
        live: dict[str, str | None] = {}
        changes, expected = [], []
        for cycle, latest in wishes:
            key = Key("p", cycle)
            if cycle not in live:
                changes.append(insert(key, latest=latest))
                live[cycle] = latest
            elif live[cycle] == latest:
                changes.append(delete(key))
                del live[cycle]
            else:
                changes.append(update(key, latest=latest))
                live[cycle] = latest
            expected.append((cycle, live.get(cycle, ...)))
        found: dict[str, list[Any]] = {
            key.cycle: [... if step.after is None else step.after["latest"] for step in history.steps()]
            for key, history in fold(changes).items()
        }
        assert found == {cycle: [latest for own, latest in expected if own == cycle] for cycle in found}


class TestFile:
    def test_a_line_becomes_a_change(self) -> None:
        assert parse(line(op="update", set={"lts": True, "link": None})) == Change(
            Operation.UPDATE, PYTHON, {"lts": True, "link": None}, "new"
        )

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"op": "ins', "not JSON"),
            ("[]", "not a JSON object"),
            (line(op="upsert"), "op must be one of insert, update, delete, not 'upsert'"),
            (line(product=...), "product must be a non-empty string"),
            (line(cycle=3.13), "cycle must be a non-empty string, not 3.13"),
            (line(rationale=""), "rationale must be a non-empty string"),
            (line(set=...), "set must be an object"),
            (line(set={"colour": "red"}), "'colour', which is no column"),
            (line(set={"latest": 3}), "latest must be a string, true, false or null, not 3"),
            (line(op="delete"), "a delete sets nothing"),
            (line(rationale="\ud800"), "half of a surrogate pair"),
            (line(at="2021-08-17"), "at must be an instant with an offset, not '2021-08-17'"),
            (line(at="yesterday"), "at must be an instant with an offset, not 'yesterday'"),
            (line(at=7), "at must be a non-empty string, not 7"),
            (line(ref=""), "ref must be a non-empty string"),
        ],
    )
    def test_a_malformed_line_is_refused(self, text: str, message: str) -> None:
        with pytest.raises(ImpossibleChangeError, match=re.escape(message)):
            parse(text)

    @pytest.mark.parametrize("name", ["changes.ndjson", "changes.ndjson.gz", "changes"])
    def test_plain_and_compressed_files_are_read(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        content = f"{line()}\n\n{line(op='delete', set=...)}\n".encode()
        path.write_bytes(gzip.compress(content, mtime=0) if "gz" in name else content)
        assert [change.operation.value for change in read(path)] == ["insert", "delete"]

    def test_a_limit_leaves_the_rest_unread(self, tmp_path: Path) -> None:
        path = tmp_path / "changes.ndjson"
        path.write_text(f"{line()}\nnot read\n")
        assert len(read(path, limit=1)) == 1

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (f"{line()}\n{line()}\n".encode(), ", line 2: inserts python 3.13, which is already there"),
            (f"{line()}\n\n{{\n".encode(), ", line 3: not JSON"),
            (b"\xff\n", ", line 1: not UTF-8"),
            (b"", " holds no changes"),
            (gzip.compress(b"x" * 1000, mtime=0)[:-4], " is a broken gzip file"),
        ],
    )
    def test_the_error_says_where(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "changes.ndjson"
        path.write_bytes(content)
        with pytest.raises(ChangeFileError, match=re.escape(f"{path}{message}")):
            read(path)

    def test_the_demo_data_is_whole_histories(self) -> None:
        changes = read(DEMO_DATA)
        assert len(changes) == 177
        last_states = [list(history.steps())[-1].after for history in fold(changes).values()]
        assert (len(last_states), last_states.count(None)) == (15, 2)


class TestWire:
    @pytest.mark.parametrize(
        ("key", "text", "segment"),
        [
            (Key("python", "3.13"), "python,3.13", "python,3.13"),
            (Key("freebsd", "stable/13"), "freebsd,stable~113", "freebsd,stable~113"),
            (Key("a~1", "b,c"), "a~01,b~2c", "a~01,b~2c"),
            (Key("ubuntu", "20.04 'Focal'"), "ubuntu,20.04 'Focal'", "ubuntu,20.04%20%27Focal%27"),
            (Key("é", "🤖?#%"), "é,🤖?#%", "%C3%A9,%F0%9F%A4%96%3F%23%25"),
        ],
    )
    def test_a_key_is_spelled_as_the_service_reads_it(self, key: Key, text: str, segment: str) -> None:
        assert key_text(key) == text
        assert key_segment(key) == segment

    @given(encodable, encodable)
    def test_every_key_comes_back_from_its_segment(self, product: str, cycle: str) -> None:
        segment = key_segment(Key(product, cycle))
        assert re.fullmatch(r"[A-Za-z0-9._~%-]+,[A-Za-z0-9._~%-]+", segment)
        escapes = {"~0": "~", "~1": "/", "~2": ","}
        parts = [re.sub("~[012]", lambda found: escapes[found[0]], part) for part in unquote(segment).split(",")]
        assert parts == [product, cycle]

    @given(encodable, st.integers(1, 64))
    def test_a_record_always_has_the_same_worker(self, cycle: str, count: int) -> None:
        assert 0 <= shard(Key("p", cycle), count) < count
        assert shard(Key("p", cycle), count) == shard(Key("p", cycle), count)

    def test_the_worker_of_a_record_is_the_same_in_every_process(self) -> None:
        assert [shard(Key("python", f"3.{minor}"), 4) for minor in range(8)] == [0, 2, 0, 2, 1, 3, 1, 3]

    def test_an_entity_tag_is_the_version(self) -> None:
        assert entity_tag(3) == '"v3"'

    @pytest.mark.parametrize("text", ["Add 3.13", "50% of 'these'", 'say "no"', "don't, won't", "~"])
    def test_plain_ascii_is_sent_as_it_is(self, text: str) -> None:
        assert header_value(text) == text

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("🤖: Update", "UTF-8''%F0%9F%A4%96%3A%20Update"),
            (" leading", "UTF-8''%20leading"),
            ("trailing ", "UTF-8''trailing%20"),
            ("UTF-8''%41", "UTF-8''UTF-8%27%27%2541"),
            ("utf-8' it is", "UTF-8''utf-8%27%20it%20is"),
            ("iso-8859-1'en'x", "UTF-8''iso-8859-1%27en%27x"),
            ("a\tb", "UTF-8''a%09b"),
            ("", "UTF-8''"),
        ],
    )
    def test_anything_else_is_an_ext_value(self, text: str, value: str) -> None:
        assert header_value(text) == value

    @given(st.one_of(encodable, st.from_regex(r"\A[Uu][Tt][Ff]-8'[a-z]*'.*"), st.text(" '%aU8-")))
    def test_every_rationale_comes_back(self, text: str) -> None:
        value = header_value(text)
        assert value.isascii()
        assert value.isprintable()
        assert value == value.strip()
        assert decoded(value) == text


def decoded(value: str) -> str:
    """Read a header value as RFC 8187 says; not with the code under test."""
    ext_value = re.fullmatch(r"utf-8'[A-Za-z0-9-]*'(.*)", value, re.IGNORECASE)
    if ext_value is None:
        return value
    assert re.fullmatch(r"(?:[A-Za-z0-9!#$&+.^_`|~-]|%[0-9A-F]{2})*", ext_value[1])
    return unquote(ext_value[1], errors="strict")


def answered(history: History) -> Answers:
    """Say about a record what a service without faults says."""
    start = datetime(2026, 3, 1, tzinfo=UTC)

    def instant(version: int) -> str:
        return (start + timedelta(minutes=version)).isoformat(timespec="microseconds").replace("+00:00", "Z")

    versions: list[dict[str, Any]] = []
    changes: list[dict[str, Any]] = []
    current: dict[str, Any] | None = None
    for number, change, before, after in history.steps():
        row: dict[str, Any] = {
            "version": number,
            "operation": change.operation.value,
            "changed": instant(number),
            "change_info": {
                "user_id": "u",
                "remote_addr": "127.0.0.1",
                "extra": {"change_rationale": change.rationale},
            },
            "transaction_id": f"t{number}",
        }
        changes.append({**row, "differences": {}})
        if change.operation is Operation.UPDATE:
            assert before is not None
            assert after is not None
            changes[-1]["differences"] = {
                name: {"from": before[name], "to": after[name]} for name in after if after[name] != before[name]
            }
        if change.operation is not Operation.INSERT:
            versions.append({**row, "valid_from": instant(number - 1), "state": before})
        current = None if after is None else {"version": number + 1, "valid_from": instant(number), "state": after}
    # States occur in several places; a copy has each of them for itself, so that a test can spoil one.
    return Answers(copy.deepcopy(current), copy.deepcopy(versions), copy.deepcopy(changes))


def differences(history: History, answers: Answers | None) -> list[str]:
    return [str(difference) for difference in compare(history, answers)]


class TestComparing:
    @pytest.mark.parametrize("length", range(1, 6))
    def test_a_service_without_faults_has_no_differences(self, length: int) -> None:
        history = History(PYTHON, two_lives().changes[:length])
        assert differences(history, answered(history)) == []

    def test_the_demo_data_compares_with_itself(self) -> None:
        for history in fold(read(DEMO_DATA)).values():
            assert differences(history, answered(history)) == []

    def test_a_record_that_the_service_does_not_know(self) -> None:
        assert differences(two_lives(), None) == ["python,3.13: record: expected a history of 5 changes, found nothing"]

    @pytest.mark.parametrize(
        ("spoil", "expected"),
        [
            pytest.param(
                lambda answers: answers.versions[0]["state"].update(latest="3.13.9"),
                'version 0: state.latest: expected "3.13.0", found "3.13.9"',
                id="state",
            ),
            pytest.param(
                lambda answers: answers.versions[0]["state"].update(lts=0),
                "version 0: state.lts: expected false, found 0",
                id="type",
            ),
            pytest.param(
                lambda answers: answers.versions[0]["state"].pop("label"),
                "version 0: state.label: expected null, found nothing",
                id="column missing",
            ),
            pytest.param(
                lambda answers: answers.versions[0]["state"].update(version=0),
                "version 0: state.version: expected nothing, found 0",
                id="column too many",
            ),
            pytest.param(
                lambda answers: answers.versions[1].update(operation="update"),
                'version 1: operation in versions: expected "delete", found "update"',
                id="operation",
            ),
            pytest.param(
                lambda answers: answers.changes[3]["change_info"]["extra"].clear(),
                'version 2: change_rationale in changes: expected "back", found nothing',
                id="rationale of an insert",
            ),
            pytest.param(
                lambda answers: answers.versions[0].update(valid_from="2026-03-01T00:00:00.000000Z"),
                "version 0: valid_from (changed of row -1):"
                ' expected "2026-02-28T23:59:00.000000Z", found "2026-03-01T00:00:00.000000Z"',
                id="valid_from",
            ),
            pytest.param(
                lambda answers: answers.versions[1].update(valid_from="2026-03-01T02:00:00+02:00"),
                None,
                id="the same instant with another offset",
            ),
            pytest.param(
                lambda answers: answers.versions[1].update(valid_from="2026-03-01T00:00:00"),
                "version 1: valid_from (changed of row 0):"
                ' expected "2026-03-01T00:00:00.000000Z", found "2026-03-01T00:00:00"',
                id="an instant without offset",
            ),
            pytest.param(
                lambda answers: answers.versions[0].update(transaction_id="t9"),
                'version 0: transaction_id in versions: expected "t0", found "t9"',
                id="transaction",
            ),
            pytest.param(
                lambda answers: answers.changes[1].update(differences={"latest": {"from": "3.13.0", "to": "4"}}),
                'version 0: differences.latest: expected {"from": "3.13.0", "to": "3.13.1"},'
                ' found {"from": "3.13.0", "to": "4"}',
                id="differences",
            ),
            pytest.param(
                lambda answers: answers.versions.pop(0),
                "version 0: versions: expected a row of update, found nothing",
                id="version missing",
            ),
            pytest.param(
                lambda answers: answers.versions.append(answers.versions[-1]),
                "version 3: versions: expected one row, found 2 rows",
                id="version twice",
            ),
            pytest.param(
                lambda answers: answers.versions.append(dict(answers.versions[-1], version=4)),
                ": versions: expected nothing, found a row of version 4",
                id="version too many",
            ),
            pytest.param(
                lambda answers: answers.versions.reverse(),
                ": order of versions: expected [0, 1, 3], found [3, 1, 0]",
                id="order",
            ),
            pytest.param(
                lambda answers: answers.current.update(version=5),
                "version 4: current.version: expected 4, found 5",
                id="live version",
            ),
            pytest.param(
                lambda answers: answers.current["state"].update(link=None),
                'version 4: current.state.link: expected "https://example.com/", found null',
                id="live state",
            ),
        ],
    )
    def test_one_fault_is_told_precisely(self, spoil: Callable[[Answers], object], expected: str | None) -> None:
        answers = answered(two_lives())
        spoil(answers)
        found = [text.removeprefix("python,3.13").strip() for text in differences(two_lives(), answers)]
        assert found == ([] if expected is None else [expected])

    def test_time_that_runs_backwards_is_found(self) -> None:
        answers = answered(two_lives())
        for row in (answers.changes[2], answers.versions[1]):
            row["changed"] = "2026-02-28T00:00:00.000000Z"  # type: ignore[index]
        assert (
            "python,3.13 version 1: changed:"
            ' expected not before 2026-03-01T00:00:00+00:00, found "2026-02-28T00:00:00.000000Z"'
        ) in differences(two_lives(), answers)

    def test_an_instant_that_is_not_the_files_is_found_where_that_is_asked_for(self) -> None:
        start = datetime(2026, 3, 1, tzinfo=UTC)
        moved = [
            replace(change, at=start + timedelta(minutes=version + (version == 1)))
            for version, change in enumerate(two_lives().changes, start=-1)
        ]
        history = History(PYTHON, tuple(moved))
        assert differences(history, answered(history)) == []
        assert [str(difference) for difference in compare(history, answered(history), dated=True)] == [
            'python,3.13 version 1: instant: expected "2026-03-01T00:02:00+00:00", found "2026-03-01T00:01:00.000000Z"'
        ]
        undated = compare(two_lives(), answered(two_lives()), dated=True)
        assert "version -1: instant: expected nothing" in str(next(undated))

    def test_a_deleted_record_that_is_still_there(self) -> None:
        history = fold([insert(), delete()])[PYTHON]
        answers = answered(history)
        alive = Answers({"version": 1}, answers.versions, answers.changes)
        assert differences(history, alive) == ['python,3.13: current: expected null, found {"version": 1}']

    def test_a_live_record_that_is_gone(self) -> None:
        answers = answered(two_lives())
        gone = Answers(None, answers.versions, answers.changes)
        assert differences(two_lives(), gone) == ["python,3.13 version 4: current: expected the live state, found null"]


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OTHER = Key("python", "3.14")


def dated(*changes: tuple[float, Change]) -> list[Change]:
    return [replace(change, at=NOON + timedelta(hours=hours)) for hours, change in changes]


class TestTable:
    """The table as of an instant."""

    CHANGES = dated(
        (0, insert(latest="1")),
        (1, insert(OTHER)),
        (1, update(latest="2")),
        (1, update(latest="3")),
        (2, delete(OTHER)),
        (3, insert(OTHER, lts=True)),
    )

    def at(self, *hours: float) -> list[dict[Key, Living]]:
        instants = [NOON + timedelta(hours=number) for number in hours]
        found = list(fold_until(self.CHANGES, instants))
        assert [at for at, _ in found] == instants
        return [living for _, living in found]

    def test_it_is_what_had_happened_by_then(self) -> None:
        assert self.at(-1, 0, 0.5, 1, 2, 9) == [
            {},
            {PYTHON: Living(0, NOON, state(latest="1"))},
            {PYTHON: Living(0, NOON, state(latest="1"))},
            {
                OTHER: Living(0, NOON + timedelta(hours=1), state(OTHER)),
                PYTHON: Living(2, NOON + timedelta(hours=1), state(latest="3")),
            },
            {PYTHON: Living(2, NOON + timedelta(hours=1), state(latest="3"))},
            {
                PYTHON: Living(2, NOON + timedelta(hours=1), state(latest="3")),
                OTHER: Living(2, NOON + timedelta(hours=3), state(OTHER, lts=True)),
            },
        ]

    def test_it_agrees_with_the_histories(self) -> None:
        changes = read(DEMO_DATA)
        ((_, living),) = fold_until(changes, [datetime(2100, 1, 1, tzinfo=UTC)])
        last = {key: list(history.steps())[-1] for key, history in fold(changes).items()}
        assert {key: (one.version, one.state, one.since) for key, one in living.items()} == {
            key: (step.version + 1, step.after, step.change.at) for key, step in last.items() if step.after is not None
        }

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ([*CHANGES, insert(Key("a", "b"))], ", change 7: has no instant (at), which an import needs"),
            (CHANGES[::-1], ", change 2: is earlier than the change before it"),
        ],
    )
    def test_changes_without_a_time_are_refused(self, changes: list[Change], message: str) -> None:
        with pytest.raises(ChangeFileError, match=re.escape(f"changes{message}")):
            check_dated(changes, Path("changes"))

    @pytest.mark.parametrize(
        ("spoil", "expected"),
        [
            (lambda rows: None, []),
            (lambda rows: rows.pop(), ["python,3.14 version 2: then: expected a record, found nothing"]),
            (lambda rows: rows.append(rows[0]), ["python,3.13 version 2: then: expected nothing, found twice"]),
            (
                lambda rows: rows.append((Key("a", "b"), 4, None, {})),
                ["a,b version 4: then: expected nothing, found a record"],
            ),
            (
                lambda rows: rows[1][3].update(lts=1),
                ["python,3.14 version 2: state then.lts: expected true, found 1"],
            ),
            (
                lambda rows: rows.append((rows[0][0], 1, *rows.pop(0)[2:])),
                ["python,3.13 version 2: version then: expected 2, found 1"],
            ),
            (
                lambda rows: rows.append((*rows.pop(0)[:2], "2026-03-01T00:00Z", state(latest="3"))),
                [
                    (
                        "python,3.13 version 2: valid_from then:"
                        ' expected "2026-03-01T13:00:00+00:00", found "2026-03-01T00:00Z"'
                    )
                ],
            ),
        ],
        ids=["none", "missing", "twice", "too many", "state", "version", "valid_from"],
    )
    def test_one_fault_is_told_precisely(self, spoil: Callable[[Any], object], expected: list[str]) -> None:
        (living,) = self.at(9)
        rows = [(key, one.version, one.since.isoformat(), dict(one.state)) for key, one in living.items()]
        spoil(rows)
        assert [str(difference) for difference in compare_table("then", living, rows)] == expected


class TestImport:
    """The demo's changes, written into a database of the service."""

    @pytest.fixture
    def environ(self, tmp_path: Path) -> dict[str, str]:
        return {"SECRET_KEY": "a key for tests only", "DATABASE_URL": f"sqlite:///{tmp_path / 'test.db'}"}

    @staticmethod
    def create(environ: dict[str, str]) -> None:
        app = create_app(environ)
        with app.app_context():
            create_tables(db)
            db.engine.dispose()

    def test_every_change_is_there_with_its_instant_and_part(
        self, environ: dict[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.create(environ)
        assert main([str(DEMO_DATA), "--import"], environ) == 0
        assert capsys.readouterr().out.startswith("imported: 177 changes in ")
        changes = read(DEMO_DATA)
        app = create_app(environ)
        with app.app_context():
            rows = db.session.execute(sa.text("SELECT * FROM release_history ORDER BY version")).mappings().all()
            db.session.remove()
            db.engine.dispose()
        parts: dict[tuple[datetime, str], set[str]] = {}
        for key, history in fold(changes).items():
            own = [row for row in rows if (row["product"], row["cycle"]) == key]
            for step, row in zip(history.steps(), own, strict=True):
                at = datetime.fromisoformat(row["changed"]).replace(tzinfo=UTC)
                assert (row["version"], row["operation"], at) == (step.version, step.change.operation, step.change.at)
                assert json.loads(row["change_info"])["extra"] == {"change_rationale": step.change.rationale}
                parts.setdefault((at, step.change.ref or ""), set()).add(row["transaction_id"])
        assert all(len(ids) == 1 for ids in parts.values()), "what was one change is one transaction"
        assert len(set[str]().union(*parts.values())) == len(parts)

    def test_a_second_import_is_refused_as_a_whole(
        self, environ: dict[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.create(environ)
        assert main([str(DEMO_DATA), "--import", "--limit", "1"], environ) == 0
        assert main([str(DEMO_DATA), "--import"], environ) == 1
        error = capsys.readouterr().err
        assert error.startswith("replay: nothing was imported: change 0, Release ('freebsd', 'stable/13'): this insert")

    def test_tables_are_not_created(self, environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main([str(DEMO_DATA), "--import"], environ) == 2
        assert "no tables yet; create the tables by flask --app app create-tables" in capsys.readouterr().err

    def test_settings_are_those_of_the_service(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([str(DEMO_DATA), "--import"], {}) == 2
        assert "SECRET_KEY is missing" in capsys.readouterr().err


class TestStartingPoints:
    def test_a_new_record_begins_at_its_first_change(self) -> None:
        assert starting_points({PYTHON: two_lives()}, {PYTHON: 0}, resume=False) == {PYTHON: 0}

    @pytest.mark.parametrize("standing", range(6))
    def test_resume_goes_on_where_the_service_is(self, standing: int) -> None:
        assert starting_points({PYTHON: two_lives()}, {PYTHON: standing}, resume=True) == {PYTHON: standing}

    @pytest.mark.parametrize(
        ("standing", "resume", "message"),
        [
            (3, False, "already there, with 3 changes; use --resume"),
            (6, True, "has 6 changes of it, more than the 5 to send"),
        ],
    )
    def test_a_record_that_does_not_fit_is_left_alone(self, standing: int, resume: bool, message: str) -> None:
        start = starting_points({PYTHON: two_lives()}, {PYTHON: standing}, resume=resume)[PYTHON]
        assert isinstance(start, RecordError)
        assert message in str(start)

    def test_a_record_that_could_not_be_asked_for_keeps_its_error(self) -> None:
        error = RecordError("answered 500")
        assert starting_points({PYTHON: two_lives()}, {PYTHON: error}, resume=True)[PYTHON] is error


class TestSummary:
    @pytest.mark.parametrize(("rank", "expected"), [(50, "50.0"), (95, "95.0"), (99, "99.0"), (100, "100.0")])
    def test_a_percentile_is_the_nearest_rank(self, rank: int, expected: str) -> None:
        assert milliseconds([number / 1000 for number in range(1, 101)], rank) == expected

    def test_a_percentile_of_nothing_is_a_dash(self) -> None:
        assert milliseconds([], 50) == "-"

    def test_workers_are_added_up(self) -> None:
        first, second = Tally(latencies=[0.1]), Tally(errors=["x"], already=2)
        first.sent[Operation.INSERT] += 3
        second.sent[Operation.DELETE] += 1
        summary = Tally.sum([first, second]).summary(seconds=2.0).splitlines()
        assert [" ".join(text.split()) for text in summary] == [
            "changes sent 4",
            "inserts 3",
            "updates 0",
            "deletes 1",
            "already there 2",
            "unclear, then found 0",
            "errors 1",
            "left out after errors 0",
            "seconds 2.0",
            "writes per second 2.0",
            "latency p50, ms 100.0",
            "latency p95, ms 100.0",
            "latency p99, ms 100.0",
        ]


class TestBadArguments:
    """Each gets one line and the status 2."""

    @staticmethod
    def complaint(capsys: pytest.CaptureFixture[str], *arguments: str, token: str | None = "t") -> str:
        assert main(arguments, {} if token is None else {"REPLAY_TOKEN": token}) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        return err

    def test_no_token(self, capsys: pytest.CaptureFixture[str]) -> None:
        error = self.complaint(capsys, str(DEMO_DATA), "http://localhost", token=None)
        assert error == "replay: no token: give --token or set REPLAY_TOKEN\n"

    @pytest.mark.parametrize("arguments", [[], ["--import", "--verify"], ["--import", "--verify-only"]])
    def test_no_url(self, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
        assert "no URL: give that of the running" in self.complaint(capsys, str(DEMO_DATA), *arguments)

    def test_missing_file(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        error = self.complaint(capsys, str(tmp_path / "none.gz"), "http://localhost")
        assert error == f"replay: cannot read {tmp_path}/none.gz: No such file or directory\n"

    def test_file_that_is_not_gzip(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = tmp_path / "changes.ndjson.gz"
        path.write_text(line())
        assert self.complaint(capsys, str(path), "http://localhost") == f"replay: {path} is not a gzip file\n"

    def test_malformed_line(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = tmp_path / "changes.ndjson"
        path.write_text(f"{line()}\n{line(op='delete')}\n")
        assert self.complaint(capsys, str(path), "http://localhost") == (
            f"replay: {path}, line 2: a delete sets nothing\n"
        )

    def test_unreachable_url(self, capsys: pytest.CaptureFixture[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        error = self.complaint(capsys, str(DEMO_DATA), f"http://127.0.0.1:{port}")
        assert error == f"replay: gave up on http://127.0.0.1:{port} after 3 tries: connection refused\n"

    @pytest.mark.parametrize("url", ["localhost:80", "ftp://localhost", "http://localhost/?a=1", "http://[", ""])
    def test_what_is_no_url(self, capsys: pytest.CaptureFixture[str], url: str) -> None:
        assert "URL" in self.complaint(capsys, str(DEMO_DATA), url)

    @pytest.mark.parametrize("token", ["a\nb", "a b", "é"])
    def test_token_that_no_header_can_hold(self, capsys: pytest.CaptureFixture[str], token: str) -> None:
        assert "token must be" in self.complaint(capsys, str(DEMO_DATA), "http://localhost", token=token)

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["--connections", "0"],
            ["--limit", "x"],
            ["--verify", "--verify-only"],
            ["--verify-only", "--resume"],
            ["--import", "--resume"],
            ["--colour"],
        ],
    )
    def test_arguments_that_make_no_sense(self, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
        where = [str(DEMO_DATA), "http://localhost"] if arguments else []
        assert self.complaint(capsys, *where, *arguments).startswith("replay: ")

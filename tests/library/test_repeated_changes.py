"""Changes of another system are imported once, however often, and however altered, their file is."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy.orm import Session

from chrononaut import HistoryFileError, Imported
from chrononaut.transfer.changes import ChangeFile, import_change_file
from tests.library.models import User, db
from tests.library.transferring import differences, exported

Changes = list[dict[str, Any]]

FIRST, SECOND = "2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"


def insert(key: int, at: str, transaction: str | None = None, **values: Any) -> dict[str, Any]:
    return {"id": key, "operation": "insert", "at": at, "transaction": transaction, "email": f"{key}", **values}


def update(key: int, at: str, transaction: str | None = None, **values: Any) -> dict[str, Any]:
    return {"id": key, "operation": "update", "at": at, "transaction": transaction, **values}


def run(session: Session, changes: Sequence[Any], batch: int = 1000) -> Imported:
    lines = [json.dumps(change).encode() + b"\n" for change in changes]
    return import_change_file(session, ChangeFile(User, {}, "ndjson"), lines, batch=batch)


def refusal(session: Session, changes: Sequence[Any]) -> str:
    with pytest.raises(HistoryFileError) as refused:
        run(session, changes)
    (problem,) = refused.value.problems
    return str(problem)


def test_change_that_was_put_between_is_made(session: Session) -> None:
    changes = [insert(1, FIRST, "a"), insert(2, "2020-01-03T00:00:00Z", "c")]
    assert run(session, changes) == Imported(2, 0)
    assert run(session, [changes[0], insert(9, SECOND, "b"), changes[1]]) == Imported(1, 2)
    assert session.get_one(User, 9).email == "9"


def test_change_of_a_record_that_was_put_before_its_others_is_refused(session: Session) -> None:
    changes = [insert(1, FIRST, "a"), update(1, "2020-01-03T00:00:00Z", "c", name="x")]
    run(session, changes)
    told = refusal(session, [changes[0], update(1, SECOND, "b", name="y"), changes[1]])
    assert told == "line 2: is not there, and its record has later changes, which are"


@pytest.mark.parametrize("place", [0, 1])
def test_change_that_says_something_else_is_refused(place: int, session: Session) -> None:
    changes = [insert(1, FIRST, "a", name="x"), update(1, SECOND, "b", name="y", logins=3)]
    run(session, changes)
    changes[place]["name"] = "z"
    assert refusal(session, changes) == f"line {place + 1}: is otherwise in the history that is there already"


@pytest.mark.parametrize("done", [1, 2, 3, 4])
def test_transaction_that_changes_a_record_again_is_made_whole(done: int, session: Session) -> None:
    changes = [
        insert(1, FIRST, "t"),
        insert(2, SECOND, "u"),
        update(1, FIRST, "t", name="x"),
        update(2, SECOND, "u", name="y"),
        update(2, SECOND, "u", name="z"),
    ]
    run(session, changes[:done])
    assert run(session, changes, batch=1) == Imported(5 - done, done)
    assert run(session, changes, batch=1) == Imported(0, 5)
    assert (session.get_one(User, 1).name, session.get_one(User, 2).name) == ("x", "z")
    assert differences(db.engine, User) == []


def test_update_that_changed_nothing_is_not_made_later(session: Session) -> None:
    changes = [
        insert(1, FIRST, "a", name="x"),
        update(1, SECOND, "b", name="x"),
        update(1, SECOND, "b", name="y"),
        update(1, "2020-01-03T00:00:00Z", name="y"),
        update(1, "2020-01-04T00:00:00Z", name="z"),
    ]
    run(session, changes)
    before = exported(db.engine, User)
    assert run(session, changes) == Imported(0, 5)
    assert run(session, changes, batch=1) == Imported(0, 5)
    assert exported(db.engine, User) == before


def test_changes_of_one_instant_go_in_several_batches_if_they_are_very_many(session: Session) -> None:
    told: list[int] = []
    changes = [json.dumps(insert(key, FIRST)).encode() + b"\n" for key in range(1, 31)]
    import_change_file(session, ChangeFile(User, {}, "ndjson"), changes, batch=1, advance=told.append)
    assert told == [10, 10, 10]
    assert run(session, [json.loads(change) for change in changes]) == Imported(0, 30)


@pytest.mark.parametrize("format_", ["ndjson", "csv"])
def test_file_without_changes_is_refused(format_: Any, session: Session) -> None:
    lines = [b"id,operation,at\n"] if format_ == "csv" else []
    with pytest.raises(HistoryFileError, match="line 1: the file has no changes"):
        import_change_file(session, ChangeFile(User, {}, format_), lines)

"""What the service answers of history that was purged."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from app import create_app
from app.db import db
from app.models import Release, User
from app.settings import SettingError
from chrononaut import ImportedChange, Retention, import_changes
from chrononaut.purging import Purge
from tests.service.api import Api, assert_problem


def _purge(app: Flask, model: type, versions: int) -> None:
    with app.app_context():
        purge = Purge(model, Retention(versions=versions), user_id="ada@example.com", extra={"rationale": "old"})
        list(purge.run(db.engine))


@pytest.fixture
def history(api: Api, app: Flask) -> str:
    """The path of a user's history: versions 0 to 2 were purged, 3 and 4 are prior, 5 is live."""
    created = api.post("/records/user", {"email": "ada@example.com", "name": "0"})
    for number in range(1, 6):
        api.patch(created["links"]["record"], {"name": f"{number}"})
    _purge(app, User, 2)
    path: str = created["links"]["history"]
    return path


def test_page_of_versions_says_what_was_purged(api: Api, history: str) -> None:
    page = api.get(history)
    assert [version["version"] for version in page["versions"]] == [3, 4]
    (cut,) = page["purged"]
    assert (cut["first"], cut["last"], cut["operation"]) == (-1, 2, "update")
    assert (cut["user_id"], cut["extra"]) == ("ada@example.com", {"rationale": "old"})
    assert cut["changed"] == page["versions"][0]["valid_from"]
    assert cut["purged_at"] > cut["changed"]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_what_was_purged_is_on_one_of_the_pages(api: Api, history: str, order: str) -> None:
    versions, purged, path = [], [], f"{history}?limit=1&order={order}"
    while path:
        page = api.get(path)
        versions += [version["version"] for version in page["versions"]]
        purged += [cut["last"] for cut in page["purged"]]
        path = page["next"] and f"{history}?limit=1&order={order}&cursor={page['next']}"
    assert (versions, purged) == ([3, 4] if order == "asc" else [4, 3], [2])


def test_version_that_was_purged_is_gone(api: Api, history: str) -> None:
    record = history.replace("/history", "/records")
    for path in (
        f"{history}/versions/0",
        f"{history}/versions/2",
        f"{history}/version_at?at=2020-01-01T00:00:00Z",
        f"{history}/diff?from=0",
        f"{history}/diff?from=2020-01-01T00:00:00Z&to=3",
        f"{record}?as_of=2020-01-01T00:00:00Z",
    ):
        problem = assert_problem(api.call("GET", path), 410, "purged")
        assert problem["detail"].startswith("User ")
        assert ": versions 0 to 2 were purged, the last of them at " in problem["detail"]
    assert_problem(api.call("POST", f"{record}/restore", {"version": 1}), 410, "purged")
    assert_problem(api.call("GET", f"{history}/versions/9"), 404, "unknown-version")
    assert api.get(f"{history}/versions/3")["state"]["name"] == "3"


def test_time_map_and_changes_say_what_was_purged(api: Api, history: str) -> None:
    answered = api.call("GET", f"{history}/timemap", headers={"Accept": "application/json"}).json
    assert [memento["version"] for memento in answered["mementos"]] == [3, 4, 5]
    assert [(cut["first"], cut["last"]) for cut in answered["purged"]] == [(-1, 2)]
    first = api.call("GET", f"{history}/timemap?limit=1", headers={"Accept": "application/json"}).json
    assert len(first["purged"]) == 1
    path = f"{history}/timemap?limit=1&cursor={first['next']}"
    assert api.call("GET", path, headers={"Accept": "application/json"}).json["purged"] == []
    changes = api.get(f"{history}/changes")["changes"]
    assert [(change["version"], change["operation"]) for change in changes] == [
        (2, "purge"),
        (3, "update"),
        (4, "update"),
    ]
    purged = changes[0]["change_info"]["purged"]
    assert (purged["first"], purged["user_id"]) == (-1, "ada@example.com")
    (change,) = api.get("/history/user?operation=purge")["changes"]
    assert change["version"] == 2
    assert api.get(f"{history}/blame")["columns"]["email"]["operation"] == "purge"


def test_time_gate_leads_to_the_nearest_version_that_is_left(api: Api, app: Flask, history: str) -> None:
    record = history.replace("/history", "/records")
    asked = {"Accept-Datetime": "Wed, 01 Jan 2020 00:00:00 GMT"}
    assert api.call("GET", record, headers=asked).headers["Location"].endswith("/versions/3")
    gone = api.post("/records/release", {"product": "python", "cycle": "3.12"})["links"]["record"]
    api.delete(gone)
    _purge(app, Release, 0)
    assert_problem(api.call("GET", gone, headers=asked), 410, "purged")
    assert_problem(api.call("GET", gone), 410, "deleted")
    page = api.get(gone.replace("/records", "/history"))
    assert (page["current"], page["versions"], page["purged"][0]["operation"]) == (None, [], "delete")


def test_record_is_left_out_of_lists_whose_state_was_purged(api: Api, history: str) -> None:
    assert api.get("/records/user?as_of=2020-01-01T00:00:00Z")["records"] == []
    at = api.get(history)["purged"][0]["changed"]
    assert [one["version"] for one in api.get(f"/records/user?as_of={at}")["records"]] == [3]


def test_setting_says_what_is_kept(api: Api, history: str, app_with: Callable[..., Flask]) -> None:
    app = app_with(CHRONONAUT_RETENTION='{"user": {"versions": 1}}')
    result = app.test_cli_runner().invoke(args=["history", "purge", "--rationale", "too many"])
    assert (result.exit_code, result.stdout.split(",")[0]) == (0, "User: 1 version of 1 record")
    assert [version["version"] for version in api.get(history)["versions"]] == [4]
    # By another one and for another reason: the two stand beside each other.
    first, second = api.get(history)["purged"]
    assert (first["first"], first["last"], first["user_id"]) == (-1, 2, "ada@example.com")
    assert (second["first"], second["last"], second["user_id"]) == (3, 3, None)
    assert second["extra"] == {"rationale": "too many"}


def test_diff_tells_what_was_purged_in_between_and_is_another_answer_then(api: Api, app: Flask) -> None:
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=9)
    # Of five versions, the first and the last but one were valid at midnights.
    instants = [noon + timedelta(hours=hours) for hours in (24, 25, 26, 48)]
    with app.app_context():
        changes = [ImportedChange("insert", 7, noon, {"email": "ada@example.com", "name": "0"})]
        changes += [ImportedChange("update", 7, at, {"name": f"{at:%d %H}"}) for at in instants]
        import_changes(db.session(), User, changes)
        db.session.commit()
    paths = [f"/history/user/7/diff?include_hidden=true&from=0{to}" for to in ("", "&to=3", "&to=1")]
    before = [api.call("GET", path) for path in paths]
    with app.app_context():
        list(Purge(User, Retention(versions=1, daily_after=0)).run(db.engine))
    after = [api.call("GET", path) for path in paths]
    assert_problem(after.pop(), 410, "purged")
    for earlier, later in zip(before, after, strict=False):
        assert (earlier.json["purged"], later.json["changes"]) == ([], earlier.json["changes"])
        assert [(cut["first"], cut["last"]) for cut in later.json["purged"]] == [(1, 2)]
        assert later.headers["ETag"] != earlier.headers["ETag"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "CHRONONAUT_RETENTION must have a policy for each"),
        ('{"users": {"versions": 1}}', "CHRONONAUT_RETENTION has a policy of users, which is not served; there are "),
        (
            '{"user": {"versions": 1, "held": "password_hash"}}',
            "CHRONONAUT_RETENTION has a policy of user that is wrong: held must name a tracked attribute, not 'pass",
        ),
    ],
)
def test_wrong_setting_ends_the_start(text: str, message: str) -> None:
    given: dict[str, Any] = {"SECRET_KEY": "0123456789abcdef", "DATABASE_URL": "sqlite://"}
    with pytest.raises(SettingError, match=message.replace("(", r"\(")):
        create_app(given | {"CHRONONAUT_RETENTION": text})

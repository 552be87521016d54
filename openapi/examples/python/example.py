"""A record and its history, by the client that openapi-python-client generates."""

import os
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from chrononaut_client import AuthenticatedClient
from chrononaut_client.api.user import (
    change_user,
    create_user,
    delete_user,
    diff_user_versions,
    get_user,
    get_user_version_at,
    list_user_versions,
    write_user_records,
)
from chrononaut_client.models import (
    BulkProblem,
    Diff,
    NewUser,
    Operation,
    Problem,
    User,
    UserBulk,
    UserBulkChange,
    UserBulkCreate,
    UserBulkDelete,
    UserBulkWritten,
    UserPatch,
    UserPriorVersion,
    UserVersion,
    UserWrittenOperation,
)
from chrononaut_client.types import UNSET, Response, Unset

T = TypeVar("T")


def header(text: str) -> str:
    """A reason as a header takes it; what is not ASCII goes as RFC 8187 has it."""
    return text if text.isascii() else f"UTF-8''{quote(text, safe='')}"


def expect(kind: type[T], response: Response[T | Problem]) -> T:
    """The answer, if it is what was asked for."""
    if not isinstance(response.parsed, kind):
        raise TypeError(f"{response.status_code}: {response.parsed}")
    return response.parsed


def kind_of(found: Problem | BulkProblem) -> tuple[int, str]:
    """Status and type of a problem, which is shown."""
    print(f"{found.status} {found.type_}: {found.detail}")
    return found.status, found.type_


def problem(status: int, type_: str, response: Response[T | Problem]) -> Problem:
    """The problem that a request must be answered with; a client decides by its status and its type."""
    found = response.parsed
    if not isinstance(found, Problem) or kind_of(found) != (status, type_):
        raise ValueError(f"expected {status} {type_}, got {found}")
    return found


def pages(client: AuthenticatedClient, key: str) -> list[UserPriorVersion]:
    """All prior versions of a user, page by page."""
    versions: list[UserPriorVersion] = []
    cursor: str | Unset = UNSET
    while True:
        answer = list_user_versions.sync(key, client=client, limit=1, cursor=cursor)
        if answer is None or isinstance(answer, Problem):
            raise TypeError(answer)
        versions += answer.versions
        if answer.next_ is None:
            return versions
        cursor = answer.next_


def write_many(client: AuthenticatedClient, key: str, stale: str) -> None:
    """Write several users in one transaction, all of them or none.

    :param key: of a user that is there
    :param stale: an ETag that it had
    """
    guest = NewUser(email=f"python-guest-{os.getpid()}@example.com", password_hash="$argon2id$of-guest")
    leaving = expect(User, create_user.sync_detailed(client=client, body=guest)).key

    bulk = UserBulk(
        [
            UserBulkCreate(
                "create", NewUser(email=f"python-new-{os.getpid()}@example.com", password_hash="$argon2id$new")
            ),
            UserBulkChange("change", key, UserPatch(name="Ada, Countess of Lovelace")),
            UserBulkDelete("delete", leaving),
        ]
    )
    written = write_user_records.sync(client=client, body=bulk, x_change_rationale="New term")
    assert isinstance(written, UserBulkWritten)
    made, changed, deleted = written.items
    assert made.operation is UserWrittenOperation.CREATE
    assert (changed.key, deleted.key, deleted.version) == (key, leaving, None)
    last = pages(client, key)[-1]
    assert last.operation is Operation.UPDATE
    assert last.change_info is not None
    assert not isinstance(last.change_info.extra, Unset)
    assert last.change_info.extra["change_rationale"] == "New term"

    failing = UserBulk(
        [
            UserBulkDelete("delete", made.key),
            UserBulkChange("change", key, UserPatch(name="Ada"), if_match=stale),
            UserBulkDelete("delete", leaving),
        ]
    )
    failed = write_user_records.sync(client=client, body=failing)
    assert isinstance(failed, BulkProblem)
    assert kind_of(failed) == (409, "/problems/bulk-failed")
    assert not isinstance(failed.items, Unset)
    assert [(item.index, *kind_of(item.problem)) for item in failed.items] == [
        (1, 412, "/problems/precondition-failed"),
        (2, 410, "/problems/deleted"),
    ]


def main() -> None:
    """Make a user, change it, and ask what it was, and why it changed."""
    client = AuthenticatedClient(os.environ["CHRONONAUT_URL"], os.environ["CHRONONAUT_TOKEN"])
    address = f"python-{os.getpid()}@example.com"

    new = NewUser(email=address, name="Ada Byron", password_hash="$argon2id$of-python")
    created = expect(User, create_user.sync_detailed(client=client, body=new, x_change_rationale="Signed up"))
    key = created.key

    read = get_user.sync_detailed(key, client=client)
    etag = read.headers["ETag"]
    reason = header("Name nach der Heirat geändert")
    patch = UserPatch(name="Ada King")
    changed = expect(
        User, change_user.sync_detailed(key, client=client, body=patch, if_match=etag, x_change_rationale=reason)
    )
    assert (changed.version, changed.state.name) == (created.version + 1, "Ada King")
    cleared = expect(User, change_user.sync_detailed(key, client=client, body=UserPatch(name=None)))
    assert cleared.state.name is None

    # A key that was used before has older versions, too.
    first, second = pages(client, key)[-2:]
    assert (first.version, second.version) == (created.version, changed.version)
    info = first.change_info
    assert info is not None
    assert not isinstance(info.extra, Unset)
    assert info.extra["change_rationale"] == "Name nach der Heirat geändert"

    ended = first.changed
    assert isinstance(ended, datetime)
    then = expect(UserVersion, get_user_version_at.sync_detailed(key, client=client, at=ended))
    assert (then.version, then.state.name) == (changed.version, "Ada King")

    difference = expect(Diff, diff_user_versions.sync_detailed(key, client=client, from_=str(created.version)))
    assert difference.changes["name"].from_ == "Ada Byron"
    assert difference.changes["name"].to is None

    problem(404, "/problems/unknown-record", get_user.sync_detailed("0", client=client))
    problem(409, "/problems/conflict", create_user.sync_detailed(client=client, body=new))
    problem(
        412, "/problems/precondition-failed", change_user.sync_detailed(key, client=client, body=patch, if_match=etag)
    )
    longest = 200
    too_long = UserPatch(name="A" * (longest + 1))
    invalid = problem(422, "/problems/invalid", change_user.sync_detailed(key, client=client, body=too_long))
    assert not isinstance(invalid.errors, Unset)
    assert "name" in invalid.errors["json"]

    if TYPE_CHECKING:
        # A hidden column is written and never read: no type of an answer has it.
        created.state.password_hash  # type: ignore[attr-defined]  # noqa: B018

    write_many(client, key, etag)

    delete_user.sync_detailed(key, client=client, x_change_rationale="Left")
    problem(410, "/problems/deleted", get_user.sync_detailed(key, client=client))


if __name__ == "__main__":
    main()

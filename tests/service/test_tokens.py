"""``flask tokens``: made, listed without the secret, revoked by their id; their last use is noted."""

import json
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from app.auth.grants import Grants
from app.auth.tables import tokens
from app.auth.tokens import create_token, list_tokens
from app.db import db
from app.models import Release, User
from chrononaut.types import now
from tests.service.api import Api, assert_problem


def _run(app: Flask, *arguments: str) -> Any:
    return app.test_cli_runner().invoke(args=["tokens", *arguments])


def _made(app: Flask, *arguments: str) -> tuple[str, str]:
    """A new token and its id."""
    token = _run(app, "create", "ada@example.com", *arguments).stdout.strip()
    return token, token.split("_")[1]


def _set(app: Flask, **values: Any) -> None:
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(sa.update(tokens).values(values))


def _last_used(app: Flask) -> Any:
    with app.app_context():
        return list_tokens(db)[0].last_used_at


def test_token_is_listed_without_its_secret(app: Flask) -> None:
    token, id_ = _made(app, "--scope", "read", "--scope", "release:write", "--days", "2", "--name", "the nightly job")
    listed = _run(app, "list").stdout
    heading, line = listed.splitlines()
    assert heading.split() == ["id", "name", "user", "grants", "created", "expires", "last", "used", "state"]
    for told in (id_, "the nightly job", "ada@example.com", "read release:write", "valid"):
        assert told in line
    (row,) = json.loads(_run(app, "list", "--json").stdout)
    assert row == {
        "id": id_,
        "name": "the nightly job",
        "user": "ada@example.com",
        "grants": "read release:write",
        "created": row["created"],
        "expires": row["expires"],
        "last_used": None,
        "state": "valid",
    }
    assert token.split("_", 2)[2] not in listed


def test_state_tells_why_a_token_is_refused(app: Flask) -> None:
    _, id_ = _made(app)
    with app.app_context():
        create_token(db, "late@example.com", Grants.parse(["read"]), timedelta(seconds=-1))
    _run(app, "revoke", id_)
    assert [row["state"] for row in json.loads(_run(app, "list", "--json").stdout)] == ["revoked", "expired"]


def test_revoked_token_is_refused(app: Flask, client: FlaskClient) -> None:
    token, id_ = _made(app)
    assert Api(client, token).get("/history")
    assert _run(app, "revoke", id_).stdout == f"{id_} is revoked\n"
    assert_problem(Api(client, token).call("GET", "/history"), 401, "unauthenticated")
    again = _run(app, "revoke", id_)
    assert (again.exit_code, again.stdout) == (0, f"{id_} was revoked before\n")


def test_unknown_id_is_an_error(app: Flask) -> None:
    result = _run(app, "revoke", "0123")
    assert result.exit_code == 1
    assert "there is no token 0123; flask tokens list shows" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scope", "nothing:read"], "there is no model nothing; there are release, user"),
        (["--scope", "all"], "'all' is no grant"),
        (["--name", "a" * 201], "1 to 200 characters"),
        (["--days", "0"], "not in the range"),
    ],
)
def test_token_that_makes_no_sense_is_not_made(app: Flask, arguments: list[str], message: str) -> None:
    result = _run(app, "create", "ada@example.com", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    with app.app_context():
        assert list_tokens(db) == []


def test_use_is_noted_once_in_a_minute(app: Flask, client: FlaskClient) -> None:
    api = Api(client, _made(app)[0])
    before = now()
    api.get("/history")
    noted = _last_used(app)
    assert before <= noted <= now()
    api.get("/history")
    assert _last_used(app) == noted
    _set(app, last_used_at=noted - timedelta(minutes=1))
    api.get("/history")
    assert _last_used(app) > noted


def test_reading_writes_nothing_when_its_use_was_just_noted(app: Flask, client: FlaskClient) -> None:
    api = Api(client, _made(app)[0])
    api.get("/records/user")
    said: list[str] = []

    def listen(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        said.append(statement.lstrip().split()[0])

    with app.app_context():
        engine = db.engine
    sa.event.listen(engine, "before_cursor_execute", listen)
    try:
        api.get("/records/user")
    finally:
        sa.event.remove(engine, "before_cursor_execute", listen)
    assert said.count("SELECT") == 2  # of the token, and of the records
    assert set(said) <= {"SELECT", "BEGIN"}


def test_reading_waits_for_no_writer_to_note_its_use(app: Flask, client: FlaskClient) -> None:
    api = Api(client, _made(app)[0])
    with app.app_context(), db.engine.begin() as connection:
        # It has the lock that noting takes: that of SQLite's only writer, or of the token's row.
        connection.execute(sa.update(tokens).values(name="held"))
        assert api.get("/history")
    assert _last_used(app) is None
    api.get("/history")
    assert _last_used(app) is not None


def test_list_of_models_tells_of_those_that_may_be_read(app: Flask, client: FlaskClient) -> None:
    def listed(*grants: str) -> list[str]:
        scopes = [part for grant in grants for part in ("--scope", grant)]
        return [model["name"] for model in Api(client, _made(app, *scopes)[0]).get("/history")["models"]]

    assert listed("release:write") == ["release"]
    assert listed("user:read") == ["user"]
    assert listed("user:read", "release:admin") == listed("read") == ["release", "user"]


def test_transaction_tells_of_models_that_may_be_read(app: Flask, client: FlaskClient) -> None:

    with app.app_context():
        db.session.add_all(
            [User(email="a@example.com"), Release(product="p", cycle="1"), Release(product="p", cycle="2")]
        )
        db.session.commit()
    everyone, reader = (Api(client, _made(app, "--scope", grant)[0]) for grant in ("read", "release:read"))
    path = f"/transactions/{everyone.get('/history/user')['changes'][0]['transaction_id']}"
    whole, part = everyone.call("GET", path), reader.call("GET", path)
    assert [change["model"] for change in whole.json["changes"]] == ["release", "release", "user"]
    assert part.json == whole.json | {"changes": whole.json["changes"][:2]}
    assert part.headers["ETag"] != whole.headers["ETag"]
    assert {"Authorization", "Cookie"} <= set(part.headers["Vary"].split(", "))
    last = reader.get(f"{path}?limit=2")
    assert last["next"] is None
    cursor = everyone.get(f"{path}?limit=2")["next"]
    assert [change["model"] for change in everyone.get(f"{path}?cursor={cursor}")["changes"]] == ["user"]
    assert_problem(reader.call("GET", f"{path}?cursor={cursor}"), 422, "invalid")


def test_transaction_of_other_models_is_as_unknown_as_one_that_is_not_there(app: Flask, client: FlaskClient) -> None:
    api = Api(client, _made(app, "--scope", "user:write", "--scope", "release:read")[0])
    api.post("/records/user", {"email": "a@example.com"})
    transaction_id = api.get("/history/user")["changes"][0]["transaction_id"]
    other = Api(client, _made(app, "--scope", "release:admin")[0])
    nowhere = "01990e5c-7d2a-7a31-9c1f-0d6a54b1f0ff"
    hidden, unknown = (
        assert_problem(other.call("GET", f"/transactions/{id_}"), 404, "unknown-transaction")
        for id_ in (transaction_id, nowhere)
    )
    assert hidden == {**unknown, "detail": unknown["detail"].replace(nowhere, transaction_id)}

"""Who may do what: every route, by every method, for everyone who may ask, has exactly the documented answer.

What is expected comes from the URL map, from the method and from the path, never from what checks it: a new route is
asked for by itself, and fails here until it is documented or listed as open to all.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from app.auth.grants import Grants
from app.auth.logins import create_login, disable_login
from app.auth.tables import logins
from app.auth.tokens import create_token, list_tokens, revoke_token
from app.db import db
from app.models import Release, User
from tests.service.api import assert_problem
from tests.service.contract import resolve

OPEN_TO_ALL = {"/openapi.json", "/docs/", "/docs/<path:path>"}
_METRICS = "/metrics"
"""Is for scrapers, with a grant of its own."""
"""What is no operation, and for everyone. What else is no operation fails here until somebody decides."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
_IMPLIED = {"read": {"read"}, "write": {"read", "write"}, "admin": {"read", "write", "admin"}}
# Of the operations that are not about records: whom they are for.
_ANYONE, _WHO_IS_KNOWN = "anyone", "who is known"
_OTHERS = {
    ("/problems/{kind}", "GET"): _ANYONE,
    ("/health/live", "GET"): _ANYONE,
    ("/health/ready", "GET"): _ANYONE,
    ("/session", "POST"): _ANYONE,
    ("/session", "GET"): _WHO_IS_KNOWN,
    ("/session", "DELETE"): _WHO_IS_KNOWN,
}
# No key that the database would number a record by meanwhile.
_KEYS = {"user": "1000000", "release": "python,3.13"}
_QUERY = {"at": "2100-01-01T00:00:00Z", "since": "2000-01-01T00:00:00Z", "from": "0"}
"""What the required parameters of queries are given."""


@dataclass(frozen=True)
class Caller:
    """Somebody who asks.

    :ivar scope: of whom is known
    :ivar model: is the scope for one model only, and for which, given the one that is asked about?
    """

    scope: str | None
    send: Callable[[FlaskClient, str | None], dict[str, str]]
    model: Callable[[str | None], str | None] = field(default=lambda model: None)
    in_session: bool = False
    sends_csrf: bool = False


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _token(client: FlaskClient, grant: str, lifetime: timedelta | None = None) -> dict[str, str]:
    with client.application.app_context():
        return _bearer(create_token(db, "caller@example.com", Grants.parse([grant]), lifetime))


def _revoked(client: FlaskClient) -> dict[str, str]:
    headers = _token(client, "admin")
    with client.application.app_context():
        for known in list_tokens(db):
            revoke_token(db, known.id)
    return headers


def _log_in(client: FlaskClient, *, csrf: bool) -> dict[str, str]:
    with client.application.app_context():
        create_login(db, _EMAIL, _PASSWORD, Grants.parse(["write"]))
    response = client.post("/session", json={"email": _EMAIL, "password": _PASSWORD})
    assert response.status_code == 201, response.text
    return {"X-CSRF-Token": response.json["csrf_token"]} if csrf and response.json else {}


def _disabled(client: FlaskClient) -> dict[str, str]:
    headers = _log_in(client, csrf=True)
    with client.application.app_context():
        disable_login(db, _EMAIL)
    return headers


def _other(model: str | None) -> str:
    return "release" if model == "user" else "user"


_EMAIL, _PASSWORD = "caller@example.com", "correct horse battery staple"
_EXAMPLE_EMAIL = "ada@example.com"
"""Who logs in with that password in the example of the document."""

CALLERS = {
    "no token": Caller(None, lambda client, model: {}),
    "unknown token": Caller(None, lambda client, model: _bearer("chrononaut_0123456789_unknown")),
    "token of nobody's form": Caller(None, lambda client, model: _bearer("abc")),
    "expired token": Caller(None, lambda client, model: _token(client, "admin", timedelta(days=-1))),
    "revoked token": Caller(None, lambda client, model: _revoked(client)),
    "unknown token in a session": Caller(
        None, lambda client, model: _log_in(client, csrf=True) | _bearer("chrononaut_0123456789_unknown")
    ),
    "token for another model": Caller(
        "admin", lambda client, model: _token(client, f"{_other(model)}:admin"), model=_other
    ),
    "token for this model": Caller(
        "write", lambda client, model: _token(client, f"{model}:write" if model else "write"), model=lambda model: model
    ),
    "read": Caller("read", lambda client, model: _token(client, "read")),
    "write": Caller("write", lambda client, model: _token(client, "write")),
    "admin": Caller("admin", lambda client, model: _token(client, "admin")),
    "read in a session": Caller("read", lambda client, model: _log_in(client, csrf=False) | _token(client, "read")),
    "session without CSRF": Caller("write", lambda client, model: _log_in(client, csrf=False), in_session=True),
    "session with a wrong CSRF": Caller(
        "write",
        lambda client, model: _log_in(client, csrf=False) | {"X-CSRF-Token": "ImEi.aR2yVA.0fS0mQ1T"},
        in_session=True,
    ),
    "session with CSRF": Caller(
        "write", lambda client, model: _log_in(client, csrf=True), in_session=True, sends_csrf=True
    ),
    "disabled login": Caller(None, lambda client, model: _disabled(client)),
}


@dataclass(frozen=True)
class Expected:
    """An answer; its kind if it is a problem."""

    status: int
    kind: str | None = None


def _needed(template: str, method: str) -> str:
    """What an operation takes, by its method and path alone."""
    if template.endswith("/erase"):
        return "admin"
    if template.split("/")[1] in {"bulk", "records", "history", "transactions"}:
        return "read" if method == "GET" else "write"
    return _OTHERS[template, method]


def _expected(caller: Caller, template: str, method: str, model: str | None, success: int) -> Expected:
    needed = _needed(template, method)
    if needed == _ANYONE:
        return Expected(success)
    if caller.scope is None:
        return Expected(401, "unauthenticated")
    if caller.in_session and not caller.sends_csrf and method != "GET":
        return Expected(403, "csrf-failed")
    of_model = caller.model(model)
    allowed = needed == _WHO_IS_KNOWN or (
        needed in _IMPLIED[caller.scope] and (model is None or of_model in {None, model})
    )
    return Expected(success) if allowed else Expected(403, "forbidden")


def _routes(app: Flask) -> dict[str, set[str]]:
    """Each address as the URL map has it, with the methods that it takes."""
    routes: dict[str, set[str]] = {}
    for rule in app.url_map.iter_rules():
        routes.setdefault(rule.rule, set()).update(rule.methods or ())
    return routes


def _template(rule: str) -> str:
    return re.sub(r"<(?:[^:>]+:)?(\w+)>", r"{\1}", rule)


def _model(template: str) -> str | None:
    section, *rest = template.strip("/").split("/")
    return rest[0] if section in {"bulk", "records", "history"} and rest else None


class World:
    """A record of each model, that one transaction made and another changed."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self._callers: dict[str | None, tuple[FlaskClient, dict[str, str]]] = {}
        self.renew()

    def renew(self) -> None:
        """Make everything anew."""
        with self.app.app_context():
            with db.engine.begin() as connection:
                for table in db.metadata.sorted_tables:
                    connection.execute(sa.delete(table))
            user = User(id=int(_KEYS["user"]), email="grace@example.com")
            release = Release(product="python", cycle="3.13")
            db.session.add_all([user, release])
            db.session.commit()
            user.name, release.latest = "Grace", "3.13.1"
            db.session.commit()
            self.transaction_id = str(user.versions()[0].transaction_id)

    def forget_callers(self) -> None:
        """Let whoever asks next begin anew."""
        self._callers.clear()

    def path(self, template: str) -> str:
        """The address of something that is there."""
        model = _model(template)
        key = _KEYS[model] if model else ""
        parts = {"key": key, "number": "0", "transaction_id": self.transaction_id, "kind": "deleted"}
        return template.format(**parts)

    def calling(self, caller: Caller, model: str | None) -> tuple[FlaskClient, dict[str, str]]:
        """A client of somebody who asks about a model, and the headers that it sends."""
        # A session is the same whatever is asked about.
        asked = None if caller.in_session else model
        if asked not in self._callers:
            client = self.app.test_client()
            with self.app.app_context(), db.engine.begin() as connection:
                connection.execute(sa.delete(logins).where(logins.c.email == _EMAIL))
            self._callers[asked] = client, caller.send(client, model)
        return self._callers[asked]


@pytest.fixture
def world(app: Flask) -> World:
    return World(app)


@pytest.fixture
def document(app: Flask) -> Any:
    return app.test_client().get("/openapi.json").json


def _success(operation: Any) -> int:
    """The status of an operation that does what it is asked for."""
    return min(int(status) for status in operation["responses"] if status.startswith("2"))


def _request(document: Any, operation: Any, template: str) -> dict[str, Any]:
    """A query and a body that an operation takes, as the document tells."""
    parameters = [resolve(document, one) for one in operation["parameters"]]
    required = [one["name"] for one in parameters if one["in"] == "query" and one.get("required")]
    request: dict[str, Any] = {"query_string": {name: _QUERY[name] for name in required}}
    if "requestBody" in operation:
        media_type, content = next(iter(operation["requestBody"]["content"].items()))
        request |= {"json": content["example"], "content_type": media_type}
    if template.startswith("/bulk/"):  # the example is of other records than there are
        request["json"] = {"items": [{"operation": "delete", "key": _KEYS[_model(template) or ""]}]}
    if any(one["name"] == "X-Change-Rationale" and one.get("required") for one in parameters):
        request["headers"] = {"X-Change-Rationale": "why"}
    return request


@pytest.mark.parametrize("name", CALLERS)
def test_every_operation_answers_a_caller_as_documented(name: str, app: Flask, world: World, document: Any) -> None:
    with app.app_context():
        create_login(db, _EXAMPLE_EMAIL, _PASSWORD, Grants.parse(["read"]))
    caller, wrong = CALLERS[name], []
    for rule in sorted(_routes(app)):
        template = _template(rule)
        for method, operation in sorted(document["paths"].get(template, {}).items()):
            if method == "parameters":
                continue
            for sent in (method.upper(), *(("HEAD",) if method == "get" else ())):
                answered, expected = _ask(
                    caller, world, template, sent, _success(operation), _request(document, operation, template)
                )
                if answered != expected or str(answered.status) not in operation["responses"]:
                    wrong.append(f"{sent} {template}: {answered}, not {expected}")
    assert not wrong


def _ask(
    caller: Caller, world: World, template: str, method: str, success: int, request: Any
) -> tuple[Expected, Expected]:
    """Ask for something: what is answered, and what is expected."""
    model = _model(template)
    declared = "GET" if method == "HEAD" else method
    expected = _expected(caller, template, declared, model, success)
    client, headers = world.calling(caller, model)
    sent = request | {"headers": headers | request.get("headers", {})}
    response = client.open(world.path(template), method=method, **sent)
    if declared != "GET" and response.status_code < 400:
        world.renew()
    if template == "/session":  # who logs in or out is another one from there on
        world.forget_callers()
    if method == "HEAD":
        assert response.data == b""
        return Expected(response.status_code), Expected(expected.status)
    if response.status_code < 400:
        return Expected(response.status_code), expected
    if response.status_code == 401:
        assert response.headers["WWW-Authenticate"].startswith("Bearer ")
    kind = response.json["type"].removeprefix("/problems/") if response.json else None
    return Expected(response.status_code, kind), expected


def test_every_route_is_documented_or_open_to_all(app: Flask, document: Any) -> None:
    assert {rule for rule in _routes(app) if _template(rule) not in document["paths"]} == OPEN_TO_ALL | {_METRICS}


def test_document_tells_what_every_operation_takes(document: Any) -> None:
    for template, item in document["paths"].items():
        for method in item.keys() - {"parameters"}:
            needed = _needed(template, method.upper())
            scopes = [] if needed == _WHO_IS_KNOWN else [needed]
            security = [] if needed == _ANYONE else [{"token": scopes}, {"session": scopes}]
            assert item[method]["security"] == security, f"{method} {template}"
            takes_csrf = any(resolve(document, one)["name"] == "X-CSRF-Token" for one in item[method]["parameters"])
            assert takes_csrf == (needed != _ANYONE and method != "get"), f"{method} {template}"


@pytest.mark.parametrize("name", ["no token", "read", "admin", "session without CSRF"])
def test_method_that_a_route_does_not_take_is_told_with_those_that_it_does(name: str, app: Flask, world: World) -> None:
    client, headers = world.calling(CALLERS[name], "user")
    for rule, taken in _routes(app).items():
        if rule in OPEN_TO_ALL:
            continue
        path = world.path(_template(rule))
        for method in set(METHODS) - taken:
            response = client.open(path, method=method, headers=headers)
            if method == "HEAD":
                assert response.status_code == 405
            else:
                assert_problem(response, 405, "method-not-allowed")
            assert set(response.headers["Allow"].split(", ")) == taken, f"{method} {rule}"
        response = client.open(path, method="OPTIONS", headers=headers)
        assert response.status_code in {200, 204}
        assert set(response.headers["Allow"].split(", ")) == taken, f"OPTIONS {rule}"


def test_needed_scope_is_named(app: Flask, world: World) -> None:
    def ask(grant: str) -> Any:
        with app.app_context():
            token = create_token(db, "caller@example.com", Grants.parse([grant]))
        return app.test_client().delete(f"/records/user/{_KEYS['user']}", headers=_bearer(token))

    problem = ask("release:admin")
    assert_problem(problem, 403, "forbidden")
    assert problem.headers["WWW-Authenticate"] == (
        'Bearer realm="chrononaut", error="insufficient_scope", scope="user:write"'
    )
    assert "write or user:write" in problem.json["detail"]
    assert ask("user:write").status_code == 204


def test_invalid_token_is_told_from_none(app: Flask, world: World) -> None:
    client = app.test_client()
    assert "error" not in client.get("/history").headers["WWW-Authenticate"]
    response = client.get("/history", headers=_bearer("wrong"))
    assert response.headers["WWW-Authenticate"] == (
        'Bearer realm="chrononaut", error="invalid_token", error_description="the token is unknown, expired or revoked"'
    )

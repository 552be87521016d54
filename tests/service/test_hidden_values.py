"""What is written into a hidden column is in no answer, in no log, and in no other cell of the database."""

import base64
import hashlib
import json
import logging
import re
import secrets
import sqlite3
import string
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import sqlalchemy as sa
from flask import Flask, request
from werkzeug import Response
from werkzeug.routing import Rule

from app.auth.grants import Grants
from app.auth.tokens import create_token
from app.registry import Resource
from tests.service.api import Api

_WRITING = {"POST", "PUT", "PATCH", "DELETE"}
_WHY = {"X-Change-Rationale": "why"}
_LETTERS = string.ascii_letters + string.digits

_KEY = "the key of the record"
_BODIES: Mapping[str, Callable[[dict[str, Any]], Any] | None] = {
    "create": lambda values: values,
    "replace": lambda values: values,
    "change": lambda values: values,
    "restore": lambda values: {"version": 0, "values": values},
    "write_records": lambda values: {"items": [{"operation": "change", "key": _KEY, "changes": values}]},
    "delete": None,
}
"""Each write of a record, in the order in which they are made: its body with some values of columns; none of some."""

_NOT_OF_RECORDS = frozenset({"session.log_in", "session.log_out"})
"""Endpoints that write no record."""

_VISIBLE = {"user": {"email": "ada@example.com", "name": "Ada"}, "account": {"label": "first"}}


class Secret:
    """A value that nobody has seen before."""

    def __init__(self) -> None:
        self.core = "".join(secrets.choice(_LETTERS) for _ in range(24))
        self.value = f'é"\\/ %+{self.core}<&'
        self.forms = {form.lower() for form in self._forms()}

    def _forms(self) -> Iterator[bytes]:
        """What the value may have become on its way; capitals are taken for small letters."""
        core = self.core.encode()
        yield from (core, core[::-1], core.hex().encode())
        yield from (json.dumps(self.value).encode()[1:-1], quote(self.value, safe="").encode())
        for shift in range(3):
            whole = base64.b64encode(b"\0" * shift + core)
            # Without what depends on the bytes before and after.
            yield whole[-(-shift * 8 // 6) + (shift > 0) : len(core) * 8 // 6 - 2]
        for text in (core, self.value.encode()):
            for algorithm in ("md5", "sha1", "sha256", "sha512"):
                digest = hashlib.new(algorithm, text).digest()
                yield digest.hex()[:12].encode()
                yield base64.b64encode(digest)[:16]

    def is_in(self, data: bytes) -> bool:
        lowered = data.lower()
        return any(form in lowered for form in self.forms)


def _unpacked(text: bytes) -> bytes:
    """The text, with what its signed texts hold (cursors, cookies) appended."""
    parts = [text]
    for packed, payload in re.findall(rb"(\.?)([\w-]{8,})\.[\w.-]{20,}", text):
        try:
            data = base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4))
            parts.append(zlib.decompress(data) if packed else data)
        except (ValueError, zlib.error):
            continue
    return b"\n".join(parts)


@dataclass
class Search:
    """Writes secrets into the hidden columns of a model, reads all that can be read, and looks for them."""

    api: Api
    app: Flask
    model: str
    secrets: list[Secret] = field(default_factory=list)
    heard: list[tuple[str, bytes]] = field(default_factory=list)
    key: str = ""

    @property
    def engine(self) -> sa.Engine:
        with self.app.app_context():
            engine: sa.Engine = self.app.extensions["sqlalchemy"].engine
        return engine

    @property
    def resource(self) -> Resource:
        resource: Resource = self.app.extensions["chrononaut"][self.model]
        return resource

    @property
    def hidden(self) -> tuple[str, ...]:
        return tuple(self.resource.versioning.hidden)

    def leaks(self) -> list[str]:
        """Where a secret was found in what was heard so far."""
        return sorted({where for where, what in self.heard if any(secret.is_in(what) for secret in self.secrets)})

    def hear(self, where: str, response: Response) -> Response:
        head = "\n".join(f"{name}: {value}" for name, value in response.headers)
        self.heard.append((where, _unpacked(head.encode() + b"\n" + response.get_data())))
        return response

    def call(
        self, method: str, path: str, name: str = "", body: Any = None, why: Mapping[str, str] = _WHY, **sent: Any
    ) -> Response:
        headers = {**why} | self.api.headers | sent.pop("headers", {})
        if body is not None:
            # By itself the client could not send a lone surrogate.
            sent |= {"data": json.dumps(body), "content_type": "application/json"}
        # In a context of its own: who asks would stay known otherwise.
        with self.app.app_context():
            response: Response = self.api.client.open(path, method=method, headers=headers, **sent)
        return self.hear(f"{method} {path} {name}".strip(), response)

    # Writing

    def writes(self) -> dict[str, Rule]:
        """The writes of the model's records, in the order in which they can be made."""
        found = {}
        for rule in self.app.url_map.iter_rules():
            blueprint, _, name = rule.endpoint.rpartition(".")
            if not rule.methods or not rule.methods & _WRITING or rule.endpoint in _NOT_OF_RECORDS:
                continue
            verb = name.replace(f"_{blueprint}", "")
            if verb == "erase_history":  # takes no value of a column
                continue
            assert verb in _BODIES, f"say in _BODIES how {rule.endpoint} is sent, or in _NOT_OF_RECORDS that it is none"
            if blueprint == self.model:
                found[verb] = rule
        return {verb: found[verb] for verb in _BODIES}

    def address(self, rule: Rule) -> tuple[str, str]:
        (method,) = (rule.methods or set()) & _WRITING
        return method, rule.rule.replace("<key>", self.key)

    def values(self) -> dict[str, Any]:
        """Values for all columns, with a new secret in the hidden ones."""
        self.secrets.append(Secret())
        return _VISIBLE[self.model] | dict.fromkeys(self.hidden, self.secrets[-1].value)

    def write_everything(self) -> None:
        """Write by each route: first what it refuses, then what it takes."""
        other = {"email": "taken@example.com"} if self.model == "user" else {}
        self.call("POST", f"/records/{self.model}", body=self.values() | other)
        for verb, rule in self.writes().items():
            body = _BODIES[verb]
            if body is not None:
                self._be_refused(verb, rule, body)
            response = self.call(*self.address(rule), body=body and self._with_key(body(self.values())))
            assert response.status_code in {200, 201, 204}, (verb, response.get_data(as_text=True))
            if verb == "create":
                self.key = json.loads(response.get_data())["key"]
            if body is not None:
                assert self.live_cells() == {self.secrets[-1].value}, verb
        # Of a deleted record, whose hidden values are gone.
        method, path = self.address(self.writes()["restore"])
        assert self.call(method, path, body={"values": self.values()}).status_code == 200

    def _be_refused(self, verb: str, rule: Rule, body: Callable[[dict[str, Any]], Any]) -> None:
        method, path = self.address(rule)
        before = self.rows()
        values = self.values()
        secret, (visible, *_) = values[self.hidden[0]], _VISIBLE[self.model]
        hiding = {name: dict.fromkeys(self.hidden, value) for name, value in _misfits(secret).items()}
        changed: dict[str, dict[str, Any]] = hiding | {
            "another field is wrong": {visible: 7},
            "another field has it": {visible: [secret]},
            "unknown field": {f"{self.hidden[0]}s": secret},
            "it names a field": {secret: 1},
        }
        if self.model == "user":
            changed |= {
                "too long": {self.hidden[0]: secret * 9},
                "conflict": {"email": "taken@example.com"},
                "it is no instant": {"last_seen_at": secret},
            }
        for name, wrong in changed.items():
            response = self.call(method, path, f"({name})", body=self._with_key(body(values | wrong)))
            assert response.status_code in {409, 422}, (verb, name, response.get_data(as_text=True))
        data = json.dumps(self._with_key(body(values))).encode()
        sent: dict[str, tuple[dict[str, str], bytes, int]] = {
            "malformed": ({}, data[:-1], 400),
            "unquoted": ({}, b'{"a": ' + secret.encode() + b"}", 400),
            "no UTF-8": ({}, data + b"\xff", 400),
            "an array": ({}, b"[" + data + b"]", 422),
            "too large": ({}, data + b" " * (2**23 if verb == "write_records" else 2**20), 413),
            "text": ({"Content-Type": "text/plain"}, data, 415),
            "encoded": ({"Content-Encoding": "gzip"}, data, 415),
            "no name of a reason": ({"X-Change-": "why"}, data, 400),
            "nobody": ({"Authorization": "Bearer none"}, data, 401),
            "a reader": ({"Authorization": f"Bearer {self._read_token()}"}, data, 403),
        }
        if verb not in {"create", "write_records"}:
            sent["another version"] = ({"If-Match": '"v99"'}, data, 412)
        for name, (headers, raw, status) in sent.items():
            given = {"Content-Type": "application/json"} | headers
            response = self.call(method, path, f"({name})", data=raw, headers=given)
            assert response.status_code == status, (verb, name)
        if verb not in {"create", "restore"}:
            self.app.config["CHRONONAUT_REQUIRE_EXTRA_CHANGE_INFO"] = True
            response = self.call(method, path, "(no reason)", body=self._with_key(body(values)), why={})
            self.app.config["CHRONONAUT_REQUIRE_EXTRA_CHANGE_INFO"] = False
            assert response.status_code == 400, verb
        # The secrets of what was refused are nowhere, not even in the live table.
        assert not any(Secret.is_in(self.secrets[-1], repr(rows).encode()) for rows in self.rows().values())
        assert {name: rows for name, rows in self.rows().items() if name != "chrononaut_access_token"} == {
            name: rows for name, rows in before.items() if name != "chrononaut_access_token"
        }

    def _with_key(self, body: Any) -> Any:
        return json.loads(json.dumps(body).replace(json.dumps(_KEY), json.dumps(self.key)))

    def _read_token(self) -> str:
        with self.app.app_context():
            return create_token(self.app.extensions["sqlalchemy"], "reader@example.com", Grants.parse(["read"]))

    # Reading

    def read_everything(self) -> Iterator[tuple[str, Response]]:
        """Ask by each route that can be read, with each parameter that it has."""
        document = json.loads(self.call("GET", "/openapi.json").get_data())
        for rule in self.app.url_map.iter_rules():
            if not rule.methods or "GET" not in rule.methods or rule.endpoint == "metrics":
                continue  # which `read_metrics` asks for: what it answers changes with each request
            blueprint = rule.endpoint.rpartition(".")[0]
            if blueprint in self.app.extensions["chrononaut"] and blueprint != self.model:
                continue
            for path in self._paths(rule):
                told = document["paths"].get(re.sub(r"<(?:[^<>:]*:)?(\w+)>", r"{\1}", rule.rule), {}).get("get", {})
                for query, headers in self._questions(_query_of(self.app.view_functions[rule.endpoint]), told):
                    yield from self._pages(path, query, headers)
        yield "head", self.call("HEAD", f"/records/{self.model}/{self.key}")

    def read_metrics(self) -> None:
        with self.app.app_context():
            token = create_token(self.app.extensions["sqlalchemy"], "scraper", Grants.parse(["metrics"]))
        response = self.call("GET", "/metrics", headers={"Authorization": f"Bearer {token}"})
        assert f'model="{self.model}"' in response.get_data(as_text=True)

    def _pages(self, path: str, query: dict[str, str], headers: dict[str, str]) -> Iterator[tuple[str, Response]]:
        while True:
            address = f"{path}?{urlencode(query)}" if query else path
            response = self.call("GET", address, str(headers), headers=headers)
            assert response.status_code in {200, 302, 304, 404}, (address, response.get_data(as_text=True))
            yield f"{address} {headers}", response
            page = response.get_json() if response.mimetype == "application/json" and response.data else None
            following = page and page.get("next")
            if not following:
                return
            query = query | {"cursor": following}

    def _paths(self, rule: Rule) -> list[str]:
        table = sa.inspect(self.resource.versioning.history).local_table
        with self.engine.connect() as connection:
            rows = connection.execute(sa.select(table.c.version, table.c.transaction_id)).all()
        arguments: Mapping[str, Iterable[Any]] = {
            "key": [self.key],
            "number": range(max(row.version for row in rows) + 1),
            "transaction_id": {row.transaction_id for row in rows},
            "kind": ["invalid"],
            "path": ["index.html"],
        }
        paths = [rule.rule]
        for name in rule.arguments:
            assert name in arguments, f"say what {name} in {rule.rule} can be"
            paths = [re.sub(rf"<(?:[^<>:]*:)?{name}>", str(value), path) for path in paths for value in arguments[name]]
        return paths

    def _questions(
        self, asked: dict[str, bool], told: dict[str, Any]
    ) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
        instants = ["2001-01-01T00:00:00Z", *self._instants(), "2100-01-01T00:00:00Z"]
        answers: Mapping[str, Iterable[str]] = {
            **dict.fromkeys(("as_of", "at", "since", "until", "before", "after"), instants),
            "from": ["0", "1"],
            "to": ["2"],
            "include_hidden": ["true"],
            "limit": ["1"],
            "order": ["desc"],
            "user_id": ["writer@example.com"],
            "operation": ["update"],
            "transaction_id": ["00000000-0000-7000-8000-000000000000"],
            "extra.change_rationale": ["why"],
            "attribute": self.hidden,
        }
        for name in asked:
            assert name in answers, f"say what to ask for by {name}"
        required = {name: next(iter(answers[name])) for name, is_required in asked.items() if is_required}
        yield required, {}
        for name in asked:
            for value in answers[name]:
                yield required | {name: value}, {}
        for media_type in told.get("responses", {}).get("200", {}).get("content", {}):
            yield required, {"Accept": media_type}
        if "302" in told.get("responses", {}):
            yield required, {"Accept-Datetime": "Sun, 01 Mar 2026 09:00:00 GMT"}

    def _instants(self) -> list[str]:
        page = json.loads(self.call("GET", f"/history/{self.model}/{self.key}").get_data())
        return [version["changed"] for version in page["versions"]]

    # The database

    def rows(self) -> dict[str, list[Any]]:
        """All rows of all tables that the database has."""
        metadata = sa.MetaData()
        with _unlogged(), self.engine.connect() as connection:
            metadata.reflect(connection)
            return {
                name: sorted((dict(row._mapping) for row in connection.execute(sa.select(table))), key=repr)
                for name, table in metadata.tables.items()
            }

    def live_cells(self) -> set[Any]:
        """The values in the live record's hidden columns."""
        rows = self.rows()[self.resource.model.__tablename__]
        return {row[name] for row in rows if str(row["id"]) == self.key for name in self.hidden}

    def look_into_database(self, tmp_path: Path) -> None:
        """Hear all rows but the live cells, and of SQLite also the bytes of the file."""
        for name, rows in self.rows().items():
            hidden = self.hidden if name == self.resource.model.__tablename__ else ()
            shown = [{column: value for column, value in row.items() if column not in hidden} for row in rows]
            self.heard.append((f"table {name}", repr(shown).encode()))
        if self.engine.dialect.name != "sqlite":
            return
        copy = tmp_path / "copy.db"
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # The write-ahead log and free pages still hold what the live cells were; a copy has what counts alone.
            connection.exec_driver_sql(f"VACUUM INTO '{copy}'")
        assignments = ", ".join(f"{name} = ''" for name in self.hidden)
        with closing(sqlite3.connect(copy, isolation_level=None)) as plain:
            plain.execute(f"UPDATE {self.resource.model.__tablename__} SET {assignments}")
            plain.execute("VACUUM")
        self.heard.append(("database file", copy.read_bytes()))


def _misfits(secret: str) -> dict[str, Any]:
    return {
        "in an array": [secret],
        "in an object": {"a": secret},
        "it names a member": {secret: "a"},
        "with NUL": f"{secret}\0",
        "with a lone surrogate": f"{secret}\ud800",
    }


def _query_of(view: Any) -> dict[str, bool]:
    """The parameters that a view takes in its query, but for the cursor: are they required?"""
    parameters = getattr(view, "_apidoc", {}).get("arguments", {}).get("parameters", [])
    schemas = [parameter["schema"]() for parameter in parameters if parameter["in"] == "query"]
    fields = {field.data_key or name: field for schema in schemas for name, field in schema.fields.items()}
    return {name: field.required for name, field in fields.items() if name != "cursor"}


@contextmanager
def _unlogged() -> Iterator[None]:
    """What we look at by ourselves is not in the log."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@pytest.fixture(params=["user", "account"])
def search(request: pytest.FixtureRequest, database_kind: str) -> Search:
    """A search in each model that has hidden columns."""
    api: Api = request.getfixturevalue("api" if request.param == "user" else "own_api")
    return Search(api, api.client.application, request.param)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """All that can be logged, rows and parameters of statements too."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "sqlalchemy.engine")
    return caplog


def _look_around(search: Search, log: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    search.read_metrics()
    search.look_into_database(tmp_path)
    assert "SELECT" in log.text
    search.heard.append(("log", log.text.encode(errors="backslashreplace")))


def test_value_of_a_hidden_column_is_nowhere_but_in_its_live_cell(
    search: Search, log: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    search.write_everything()
    asked = [address for address, _ in search.read_everything()]
    assert len(asked) > 30
    _look_around(search, log, tmp_path)
    assert search.leaks() == []


def test_no_answer_depends_on_the_value_of_a_hidden_column(search: Search) -> None:
    # Whatever is made of a value, a digest in an ETag say, would let it be guessed.
    search.write_everything()
    before = {address: _as_seen(response) for address, response in search.read_everything()}
    table = search.resource.model.__table__
    with search.engine.begin() as connection:
        connection.execute(sa.update(table).values(dict.fromkeys(search.hidden, Secret().value)))
    after = {address: _as_seen(response) for address, response in search.read_everything()}
    assert after == before


def _as_seen(response: Response) -> tuple[int, list[tuple[str, str]], bytes]:
    varying = {"Date", "X-Request-ID"}
    headers = [(name, value) for name, value in response.headers if name not in varying]
    return response.status_code, headers, response.get_data()


def test_no_message_repeats_the_value_that_it_refuses(own_api: Api) -> None:
    # Any type of column can be hidden.
    names = own_api.get("/openapi.json")["components"]["schemas"]["ParcelPatch"]["properties"]
    secret = Secret()
    for value in (secret.value, [secret.value], {secret.value: secret.value}):
        body = dict.fromkeys(names, value)
        response = own_api.call("PATCH", "/records/parcel/a,b,c", body)
        assert response.status_code == 422
        assert not secret.is_in(response.data)


def _leak_by_header(app: Flask, search: Search) -> None:
    app.after_request_funcs.setdefault(None, []).append(_tell_in_header)


def _tell_in_header(response: Response) -> Response:
    if request.method == "PATCH" and response.status_code == 422:
        response.headers["Cache-Control"] = base64.b64encode(request.get_data()).decode()
    return response


def _leak_by_log(app: Flask, search: Search) -> None:
    app.before_request_funcs.setdefault(None, []).append(
        lambda: app.logger.debug("body: %s", request.get_data().hex()) if request.method == "PUT" else None
    )


def _leak_by_history(app: Flask, search: Search) -> None:
    history = sa.inspect(search.resource.versioning.history).local_table
    name = "name" if search.model == "user" else "label"
    column = sa.select(search.resource.model.__table__.c[search.hidden[0]]).limit(1).scalar_subquery()

    def copy(response: Response) -> Response:
        if request.method == "PATCH" and response.status_code == 200:
            with search.engine.begin() as connection:
                connection.execute(sa.update(history).values({name: column}))
        return response

    app.after_request_funcs.setdefault(None, []).append(copy)


@pytest.mark.parametrize("search", ["user"], indirect=True)
@pytest.mark.parametrize(
    ("leak", "place"), [(_leak_by_header, "PATCH"), (_leak_by_log, "log"), (_leak_by_history, "table")]
)
def test_search_finds_what_leaks(
    leak: Callable[[Flask, Search], None],
    place: str,
    search: Search,
    log: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    hooks: list[dict[Any, Any]] = [search.app.before_request_funcs, search.app.after_request_funcs]
    kept = [dict(hook) | {None: list(hook.get(None, []))} for hook in hooks]
    leak(search.app, search)
    try:
        search.write_everything()
        _look_around(search, log, tmp_path)
        assert any(where.startswith(place) for where in search.leaks())
    finally:
        for hook, before in zip(hooks, kept, strict=True):
            hook.clear()
            hook.update(before)


def test_every_form_of_a_secret_is_found() -> None:
    secret = Secret()
    texts: list[bytes] = [
        secret.value.encode(),
        secret.core.swapcase().encode(),
        json.dumps(secret.value).encode(),
        quote(secret.value).encode(),
        secret.value.encode().hex().encode(),
        hashlib.sha256(secret.value.encode()).hexdigest().encode(),
        *(base64.urlsafe_b64encode(b"a" * shift + secret.value.encode()) for shift in range(3)),
    ]
    assert [text for text in texts if not secret.is_in(b"before" + text + b"after")] == []
    packed = b"." + base64.urlsafe_b64encode(zlib.compress(secret.value.encode())) + b"." + b"s" * 27
    assert secret.is_in(_unpacked(b'"next": "' + packed + b'"'))
    assert not secret.is_in(_unpacked(Secret().value.encode()))

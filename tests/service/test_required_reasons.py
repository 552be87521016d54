"""A model can require reasons: a write without them is refused before anything is read or written."""

import re
from typing import Any

import pytest
import sqlalchemy as sa

from app.headers import VISIBLE, change_parameters
from app.registry import RegistrationError, Registry
from chrononaut import VersionedSQLAlchemy
from chrononaut.change_info import says_something
from tests.library.models import define
from tests.service.api import Api, assert_problem
from tests.service.own_models import db

TICKET = r"^(?:[A-Z]+-\d+)$"
GOOD = {"X-Change-Ticket": "OPS-17", "X-Change-Rationale": "Kundenwunsch"}
WRITES: dict[str, tuple[str, str, Any]] = {
    "create": ("POST", "/records/invoice", {"amount": 1}),
    "replace": ("PUT", "/records/invoice/{key}", {"amount": 2}),
    "change": ("PATCH", "/records/invoice/{key}", {"amount": 2}),
    "restore": ("POST", "/records/invoice/{key}/restore", {"version": 0}),
    "delete": ("DELETE", "/records/invoice/{key}", None),
}


def _rows() -> Any:
    with db.engine.connect() as connection:
        tables = [db.metadata.tables[name] for name in ("invoice", "invoice_history")]
        return [connection.execute(sa.select(table)).all() for table in tables]


@pytest.fixture
def key(own_api: Api) -> str:
    """The key of an invoice that has two versions."""
    created = own_api.call("POST", "/records/invoice", {"amount": 1}, headers=GOOD).json
    changed = own_api.call("PATCH", created["links"]["record"], {"amount": 3}, headers=GOOD).json
    return str(changed["key"])


@pytest.mark.parametrize("write", WRITES)
def test_write_without_the_reasons_names_the_headers_and_writes_nothing(own_api: Api, key: str, write: str) -> None:
    method, path, body = WRITES[write]
    before = _rows()
    response = own_api.call(method, path.format(key=key), body)
    problem = assert_problem(response, 400, "change-info-required")
    assert problem["errors"] == {
        "headers": {
            "X-Change-Ticket": [f"missing or blank; send a text that matches {TICKET}"],
            "X-Change-Rationale": [r"missing or blank; send a text that matches ^(?:[\s\S]+)$"],
        }
    }
    assert "X-Change-Ticket, X-Change-Rationale" in problem["detail"]
    assert _rows() == before


@pytest.mark.parametrize("write", WRITES)
def test_write_with_the_reasons_keeps_them(own_api: Api, key: str, write: str) -> None:
    method, path, body = WRITES[write]
    assert own_api.call(method, path.format(key=key), body, headers=GOOD).status_code in {200, 201, 204}
    changes = own_api.get("/history/invoice?limit=1")["changes"]
    assert changes[0]["change_info"]["extra"] == {"change_ticket": "OPS-17", "change_rationale": "Kundenwunsch"}


@pytest.mark.parametrize("ticket", ["OPS-", "ops-17", "UTF-8''OPS-17%20", "OPS-" + "1" * 1000])
def test_value_that_does_not_match_is_refused(own_api: Api, key: str, ticket: str) -> None:
    before = _rows()
    response = own_api.call(
        "PATCH", f"/records/invoice/{key}", {"amount": 2}, headers=GOOD | {"X-Change-Ticket": ticket}
    )
    problem = assert_problem(response, 400, "change-info-required")
    assert problem["errors"] == {"headers": {"X-Change-Ticket": [f"does not match {TICKET}"]}}
    assert _rows() == before


def test_encoded_value_is_matched_as_it_is_kept(own_api: Api, key: str) -> None:
    encoded = {"X-Change-Ticket": "UTF-8''OPS%2D17", "X-Change-Rationale": "UTF-8''%F0%9F%90%9B"}
    assert own_api.call("DELETE", f"/records/invoice/{key}", headers=encoded).status_code == 204


@pytest.mark.parametrize("blank", ["", " ", "UTF-8''%20", "UTF-8''%C2%A0", "UTF-8''%E2%80%8B", "UTF-8''%E3%85%A4"])
def test_blank_text_is_no_reason_even_where_any_text_will_do(own_api: Api, key: str, blank: str) -> None:
    before = _rows()
    for method, path, body in WRITES.values():
        response = own_api.call(method, path.format(key=key), body, headers=GOOD | {"X-Change-Rationale": blank})
        problem = assert_problem(response, 400, "change-info-required")
        assert "missing or blank" in problem["errors"]["headers"]["X-Change-Rationale"][0]
    assert _rows() == before


def test_document_takes_all_texts_for_reasons_that_are_taken_and_hardly_any_others() -> None:
    told, taken = re.compile(VISIBLE), {chr(code) for code in range(0x110000) if says_something(chr(code))}
    assert [character for character in taken if not told.search(character)] == []
    for blank in " \t\n\xa0\xad\u115f\u1160\u2002\u200b\u200d\u2028\u2060\u2800\u3000\u3164\ufe0f\ufeff\uffa0":
        assert not told.search(blank)
        assert blank not in taken


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/records/invoice/2147483647", {"amount": 2}),
        ("/records/invoice/no-number", {"amount": 2}),
        ("/records/invoice/{key}?unknown=1", {"amount": 2}),
        ("/records/invoice/{key}", {"amount": "many"}),
    ],
)
def test_reasons_are_asked_for_before_all_but_who_asks(own_api: Api, key: str, path: str, body: Any) -> None:
    response = own_api.call("PATCH", path.format(key=key), body, headers={"If-Match": '"v99"'})
    assert_problem(response, 400, "change-info-required")
    own_api.headers = {}
    assert_problem(own_api.call("PATCH", path.format(key=key), body), 401, "unauthenticated")


def test_change_that_changes_nothing_needs_the_headers_as_well(own_api: Api, key: str) -> None:
    assert_problem(own_api.call("PATCH", f"/records/invoice/{key}", {}), 400, "change-info-required")


def test_model_that_requires_nothing_takes_writes_without(own_api: Api) -> None:
    own_api.post("/records/account", {"pin": "1", "pass_phrase": "x"})


def test_document_shows_the_headers_as_required_with_their_patterns(own_api: Api) -> None:
    document = own_api.get("/openapi.json")
    for write, (method, path, _) in WRITES.items():
        operation = document["paths"][path][method.lower()]
        given = [_resolved(document, parameter) for parameter in operation["parameters"]]
        shown = {one["name"]: one for one in given if one["in"] == "header"}
        assert shown["X-Change-Ticket"]["required"] is True, write
        assert shown["X-Change-Ticket"]["schema"] == {"type": "string", "pattern": TICKET, "maxLength": 1000}
        assert shown["X-Change-Rationale"]["required"] is True
        assert shown["X-Change-Rationale"]["schema"] == {"type": "string", "pattern": VISIBLE}
        assert "ChangeInfoRequired" in str(operation["responses"]["400"]), write
    others = [_resolved(document, one) for one in document["paths"]["/records/account"]["post"]["parameters"]]
    assert [one.get("required", False) for one in others if one["name"] == "X-Change-Rationale"] == [False]


def _resolved(document: Any, parameter: Any) -> Any:
    if "$ref" in parameter:
        return document["components"]["parameters"][parameter["$ref"].rpartition("/")[2]]
    return parameter


@pytest.mark.parametrize(
    ("required", "message"),
    [
        ({"ticket": "x"}, "book requires a reason that nobody can give: no header sets 'ticket'"),
        ({"change_Ticket": "x"}, "no header sets 'change_Ticket'"),
        ({"change_": "x"}, "no header sets 'change_'"),
        ({"change_ticket": r"(?P<id>\d+)"}, r"the pattern of change_ticket that book requires, .* has '\(\?', which"),
        ({"change_ticket": r"\d+\Z"}, r"has '\\\\Z', which only Python reads so"),
        ({"change_ticket": r"(?i)t-\d"}, "which only Python reads so"),
    ],
)
def test_reason_that_no_client_can_give_is_refused_at_registration(required: Any, message: str) -> None:
    database = VersionedSQLAlchemy()
    define(database, "Book", id=sa.Column(sa.Integer, primary_key=True), __chrononaut_required__=required)
    with pytest.raises(RegistrationError, match=message):
        Registry(database)


def test_reason_that_a_subclass_requires_is_one_of_its_operations_only() -> None:
    database = VersionedSQLAlchemy()
    kind = {"polymorphic_on": "kind", "polymorphic_identity": "book"}
    columns = {"id": sa.Column(sa.Integer, primary_key=True), "kind": sa.Column(sa.String)}
    book = define(database, "Book", **columns, __mapper_args__=kind)
    required = {"__mapper_args__": {"polymorphic_identity": "atlas"}, "__chrononaut_required__": ["change_ticket"]}
    type("Atlas", (book,), required)
    registry = Registry(database)
    assert [*registry["book"].required] == []
    assert [*registry["atlas"].required] == ["X-Change-Ticket"]


@pytest.mark.parametrize("pattern", [r"(?:a|b)+", r"(?=.*\d).+", r"(?<!x)y", r"a\\Ab"])
def test_pattern_that_all_languages_read_is_registered(pattern: str) -> None:
    database = VersionedSQLAlchemy()
    define(
        database,
        "Book",
        id=sa.Column(sa.Integer, primary_key=True),
        __chrononaut_required__={"change_ticket": pattern},
    )
    (resource,) = Registry(database).values()
    parameter: Any = change_parameters(resource.required)[0]
    assert parameter["schema"]["pattern"] == f"^(?:{pattern})$"

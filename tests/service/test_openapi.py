"""The OpenAPI document, and the page that shows it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from flask import current_app
from flask.testing import FlaskClient
from openapi_spec_validator import validate

from app import create_app
from app.auth.grants import Grants
from app.auth.tokens import create_token
from tests.service import own_models
from tests.service.api import Api
from tests.service.conftest import SECRET_KEY
from tests.service.contract import PROBLEM, examples_of, misfits, resolve

_ROOT = Path(__file__).parents[2]


def _client(settings: dict[str, str] | None = None) -> FlaskClient:
    return create_app({"SECRET_KEY": SECRET_KEY, "DATABASE_URL": "sqlite://", **(settings or {})}).test_client()


def _document() -> Any:
    return _client().get("/openapi.json").json


def test_document_is_valid_openapi_3_1() -> None:
    document = _document()
    assert document["openapi"] == "3.1.0"
    validate(document)


def test_document_in_the_repository_is_current() -> None:
    assert json.loads((_ROOT / "openapi" / "openapi.json").read_text()) == _document()


def test_every_operation_is_documented_with_a_unique_id_and_its_errors() -> None:
    client = _client()
    document = _document()
    rules = {
        (re.sub(r"<(?:[^:>]+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in client.application.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith(("/bulk", "/health", "/history", "/problems", "/records", "/session", "/transactions"))
    }
    operations = {
        (path, method): item[method]
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert operations.keys() == rules
    ids = [operation["operationId"] for operation in operations.values()]
    assert len(set(ids)) == len(ids)
    assert "list_user_versions" in ids
    for (path, _), operation in operations.items():
        assert operation["summary"]
        told = {
            "400",
            "422",
            "500",
            "503",
            "default",
            *(() if path.startswith(("/problems/", "/health/")) else ("401",)),
        }
        told |= set() if path == "/session" or path.startswith(("/problems/", "/health/")) else {"403"}
        assert told <= operation["responses"].keys()
        for status, response in operation["responses"].items():
            if status >= "400":
                assert response.keys() == {"$ref"}
                assert resolve(document, response)["content"].keys() == {PROBLEM}


@pytest.mark.parametrize("module", ["app.models", own_models.__name__])
def test_every_body_has_examples_that_fit_its_schema(module: str) -> None:
    database = "app.db:db" if module == "app.models" else f"{module}:db"
    settings = {"CHRONONAUT_MODELS": module, "CHRONONAUT_DB": database}
    document: Any = _client(settings).get("/openapi.json").json
    validate(document)
    bodies: dict[str, dict[str, Any]] = {}
    for path, item in document["paths"].items():
        for method in item.keys() - {"parameters"}:
            operation = item[method]
            if "requestBody" in operation:
                bodies[f"{method} {path}"] = operation["requestBody"]["content"]
            for status in operation["responses"].keys() - {"204", "302", "304", "default"}:
                bodies[f"{method} {path} {status}"] = resolve(document, operation["responses"][status])["content"]
    assert len(bodies) > 50
    for where, content in bodies.items():
        for media_type, told in content.items():
            assert told.keys() & {"example", "examples"}, f"{where} as {media_type} has no example"
            for example in examples_of(told):
                assert not misfits(document, told["schema"], example), f"{where} as {media_type}"


def _check_examples_are_taken(api: Api, name: str) -> None:
    document = api.get("/openapi.json")
    bodies = {
        item[method]["operationId"]: next(told["example"] for told in item[method]["requestBody"]["content"].values())
        for path, item in document["paths"].items()
        for method in item.keys() - {"parameters"}
        if path.split("/")[2:3] == [name] and "requestBody" in item[method]
    }
    bulk = document["paths"][f"/bulk/{name}"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
    answer = document["paths"][f"/records/{name}/{{key}}"]["get"]["responses"]["200"]["content"]["application/json"]
    example = answer["examples"]["now"]["value"]
    created = api.post(f"/records/{name}", bodies.pop(f"create_{name}"))
    path = created["links"]["record"]
    identity = {"key": created["key"]}
    sent = bodies.pop(f"write_{name}_records")
    written = api.post(
        f"/bulk/{name}", {"items": [item | (identity if "key" in item else {}) for item in sent["items"]]}
    )
    assert [item["operation"] for item in written["items"]] == [item["operation"] for item in bulk["items"]]
    assert [item["key"] for item in bulk["items"]][1] == example["key"]
    assert len({item["key"] for item in bulk["items"]}) == len({item["key"] for item in written["items"]}) == 2
    if created["key"] == example["key"]:
        assert [item["key"] for item in written["items"]] == [item["key"] for item in bulk["items"]]
    assert len({len(item["items"][0]["etag"]) for item in (bulk, written)}) == 1
    restoration = bodies.pop(f"restore_{name}")
    answers = [created, api.post(f"{path}/restore", restoration)]
    api.delete(path)
    answers += [
        api.post(f"{path}/restore", restoration),
        api.put(path, bodies.pop(f"replace_{name}")),
        api.patch(path, bodies.pop(f"change_{name}")),
    ]
    with api.client.application.app_context():
        token = create_token(current_app.extensions["sqlalchemy"], "admin@example.com", Grants.parse(["admin"]))
    admin = type(api)(api.client, token)
    admin.headers = api.headers | admin.headers
    erasing = bodies.pop(f"erase_{name}_history")
    erased = admin.post(f"{created['links']['history']}/erase", erasing, why="why")
    assert erased["erased"]["columns"] == erasing["columns"]
    assert not bodies
    for given in answers:
        assert given.keys() == example.keys()
        assert given["state"].keys() == example["state"].keys()


@pytest.mark.parametrize("name", ["user", "release"])
def test_examples_of_bodies_are_taken(api: Api, name: str) -> None:
    _check_examples_are_taken(api, name)


@pytest.mark.parametrize("name", ["account", "article", "invoice", "parcel", "specimen"])
def test_examples_of_bodies_of_other_models_are_taken(own_api: Api, name: str) -> None:
    own_api.headers |= {"X-Change-Ticket": "OPS-1", "X-Change-Rationale": "why"}
    _check_examples_are_taken(own_api, name)


def test_examples_are_of_the_model_that_they_stand_at() -> None:
    document = _document()
    for name in ("user", "release"):
        for path, item in document["paths"].items():
            if not path.startswith((f"/history/{name}", f"/records/{name}")):
                continue
            for method in item.keys() - {"parameters"}:
                answers = item[method]["responses"]
                for status in answers.keys() & {"200", "201"}:
                    for media_type, told in answers[status]["content"].items():
                        for example in examples_of(told):
                            if media_type == "application/json":
                                assert example["model"] == name
                            other = {"user": "release", "release": "user"}[name]
                            assert f"/{other}/" not in json.dumps(example)


def test_hidden_columns_are_only_in_documents_that_are_written() -> None:
    schemas = _document()["components"]["schemas"]
    assert {name for name, schema in schemas.items() if "password_hash" in schema.get("properties", {})} == {
        "NewUser",
        "UserReplacement",
        "UserPatch",
    }


def test_docs_page_asks_no_other_host() -> None:
    client = _client()
    page = client.get("/docs/")
    assert page.status_code == 200
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
    assert addresses
    for address in addresses:
        assert "//" not in address
        with client.get(f"/docs/{address.removeprefix('/docs/')}") as response:
            assert response.status_code == 200, address
    assert "/openapi.json" in page.text

"""The OpenAPI document, and the page that shows it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from openapi_spec_validator import validate

from app import create_app
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
        if rule.rule.startswith(("/bulk", "/history", "/problems", "/records", "/session", "/transactions"))
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
        told = {"400", "422", "500", "503", "default", *(() if path.startswith("/problems/") else ("401",))}
        told |= set() if path == "/session" or path.startswith("/problems/") else {"403"}
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
    of_all, of_one = document["paths"][f"/records/{name}"], document["paths"][f"/records/{name}/{{key}}"]
    answer = of_one["get"]["responses"]["200"]["content"]["application/json"]

    def sent(operation: Any) -> Any:
        return next(content["example"] for content in operation["requestBody"]["content"].values())

    restoration = sent(document["paths"][f"/records/{name}/{{key}}/restore"]["post"])
    created = api.post(f"/records/{name}", sent(of_all["post"]))
    path = created["links"]["record"]
    answers = [created, api.post(f"{path}/restore", restoration)]
    api.delete(path)
    answers += [
        api.post(f"{path}/restore", restoration),
        api.put(path, sent(of_one["put"])),
        api.patch(path, sent(of_one["patch"])),
    ]
    for given in answers:
        assert given.keys() == answer["examples"]["now"]["value"].keys()
        assert given["state"].keys() == answer["examples"]["now"]["value"]["state"].keys()


@pytest.mark.parametrize("name", ["user", "release"])
def test_examples_of_bodies_are_taken(api: Api, name: str) -> None:
    _check_examples_are_taken(api, name)


@pytest.mark.parametrize("name", ["account", "parcel"])
def test_examples_of_bodies_of_other_models_are_taken(own_api: Api, name: str) -> None:
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

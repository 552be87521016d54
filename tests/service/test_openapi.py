"""The OpenAPI document, and the page that shows it."""

import json
import re
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from openapi_spec_validator import validate

from app import create_app
from tests.service.conftest import SECRET_KEY

_ROOT = Path(__file__).parents[2]


def _client() -> FlaskClient:
    return create_app({"SECRET_KEY": SECRET_KEY, "DATABASE_URL": "sqlite://"}).test_client()


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
        if rule.rule.startswith(("/history", "/records"))
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
    for (_, method), operation in operations.items():
        assert operation["summary"]
        assert {"401", "422", *(() if method == "get" else ("400", "403"))} <= operation["responses"].keys()
        for status, response in operation["responses"].items():
            if status >= "400" and status != "default":
                assert response["content"].keys() == {"application/problem+json"}


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

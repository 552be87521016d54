"""What the parts of the OpenAPI document say of each other."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonpointer import resolve_pointer
from openapi_spec_validator import validate

from app import create_app
from app.problems import KINDS
from tests.service import own_models
from tests.service.api import Api
from tests.service.conftest import SECRET_KEY
from tests.service.contract import PROBLEM, breaches, document_of, examples_of, resolve

_ROOT = Path(__file__).parents[2]
_OWN = {"CHRONONAUT_MODELS": own_models.__name__, "CHRONONAUT_DB": f"{own_models.__name__}:db"}


def _document(**settings: str) -> Any:
    app = create_app({"SECRET_KEY": SECRET_KEY, "DATABASE_URL": "sqlite://", **settings})
    return app.test_client().get("/openapi.json").json


def _operations(document: Any) -> Iterator[tuple[str, Any]]:
    """Each operation with its path; the parameters of the path are among its own."""
    for path, item in document["paths"].items():
        for method in item.keys() - {"parameters"}:
            parameters = [*item.get("parameters", []), *item[method].get("parameters", [])]
            yield path, item[method] | {"parameters": [resolve(document, told) for told in parameters]}


@pytest.fixture(params=["bundled", "own"])
def document(request: pytest.FixtureRequest) -> Any:
    return _document(**(_OWN if request.param == "own" else {}))


def test_operations_say_what_they_are_for_in_one_sentence_and_in_full(document: Any) -> None:
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    for _, operation in _operations(document):
        assert operation["summary"][-1] not in ".\n"
        assert operation["description"].startswith(operation["summary"])
        assert set(operation["tags"]) <= tags


def test_parameters_and_headers_are_described(document: Any) -> None:
    for path, operation in _operations(document):
        for parameter in operation["parameters"]:
            assert parameter["description"], f"{parameter['name']} of {path}"
            assert "schema" in parameter
    for shared in (*document["components"]["parameters"].values(), *document["components"]["headers"].values()):
        assert shared["description"]
        assert shared["example"]


def test_queries_are_told_of(document: Any) -> None:
    of_query = {
        operation["operationId"]: {told["name"] for told in operation["parameters"] if told["in"] == "query"}
        for _, operation in _operations(document)
    }
    name = "user" if "get_user" in of_query else "parcel"
    assert of_query["list_models"] == set()
    assert of_query[f"list_{name}_records"] == {"as_of", "limit", "cursor"}
    assert of_query[f"list_{name}_versions"] == {"before", "after", "limit", "cursor", "order"}
    assert of_query[f"diff_{name}_versions"] == {"from", "to", "include_hidden"}


def test_errors_headers_and_header_parameters_are_references(document: Any) -> None:
    for path, item in document["paths"].items():
        for method in item.keys() - {"parameters"}:
            for parameter in item[method].get("parameters", []):
                # A header that one model requires is told of where it is.
                is_required = parameter.get("required") and parameter["name"].startswith("X-Change-")
                assert parameter.keys() == {"$ref"} or parameter["in"] == "query" or is_required
            for status, told in item[method]["responses"].items():
                if status >= "400":
                    assert told.keys() == {"$ref"}, f"{status} of {path}"
                assert all(header.keys() == {"$ref"} for header in told.get("headers", {}).values())


def test_error_responses_show_each_kind_of_problem_that_they_can_be(document: Any) -> None:
    for _, operation in _operations(document):
        for status, reference in operation["responses"].items():
            if not "400" <= status < "600":
                continue
            told = resolve(document, reference)
            examples = told["content"][PROBLEM]["examples"]
            for kind, example in examples.items():
                assert example["value"]["type"] == f"/problems/{kind}"
                assert example["value"]["status"] == KINDS[kind].status == int(status)
                assert set(KINDS[kind].headers) <= told["headers"].keys()


def test_problem_names_every_kind_and_is_open_to_more(document: Any) -> None:
    problem = document["components"]["schemas"]["Problem"]
    assert problem["properties"]["type"]["x-extensible-enum"] == [f"/problems/{kind}" for kind in KINDS]
    assert "enum" not in problem["properties"]["type"]
    assert "additionalProperties" not in problem


def test_what_replaced_a_state_is_one_component(document: Any) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["Operation"] == {"type": "string", "enum": ["insert", "update", "delete", "purge"]}
    reference = {"$ref": "#/components/schemas/Operation"}
    title = "User" if "User" in schemas else "Parcel"
    assert schemas[f"{title}PriorVersion"]["properties"]["operation"]["anyOf"] == [reference, {"type": "null"}]
    for name in ("Blame", "Change", "RecordChange"):
        assert schemas[name]["properties"]["operation"] == reference
    feed = next(told for _, told in _operations(document) if told["operationId"].endswith("_feed"))
    (parameter,) = (told for told in feed["parameters"] if told["name"] == "operation")
    assert parameter["schema"] == reference


def test_item_of_a_bulk_is_a_component_whose_kinds_each_have_one_operation(document: Any) -> None:
    schemas = document["components"]["schemas"]
    bulks = [name for name in schemas if name.endswith("Bulk")]
    assert bulks
    for bulk in bulks:
        assert schemas[bulk]["properties"]["items"]["items"] == {"$ref": f"#/components/schemas/{bulk}Item"}
        mapping = schemas[f"{bulk}Item"]["discriminator"]["mapping"]
        assert [*mapping] == ["create", "replace", "change", "delete"]
        assert schemas[f"{bulk}Item"]["oneOf"] == [{"$ref": target} for target in mapping.values()]
        for operation, target in mapping.items():
            told = resolve(document, {"$ref": target})["properties"]["operation"]
            assert told == {"type": "string", "const": operation}


def test_writes_tell_of_the_open_set_of_change_headers(document: Any) -> None:
    for _, operation in _operations(document):
        headers = {told["name"]: told for told in operation["parameters"] if told["in"] == "header"}
        scopes = [scope for security in operation["security"] for scope in security.get("token", ())]
        assert ("X-Change-Rationale" in headers) == bool({"write", "admin"} & {*scopes})
    open_set = document["components"]["parameters"]["X-Change-Rationale"]["x-open-set"]
    assert (open_set["in"], open_set["maxCount"], open_set["maxBytes"]) == ("header", 16, 8192)


def test_preconditions_are_told_of_where_they_are_honoured(document: Any) -> None:
    name = "user" if "/records/user" in document["paths"] else "parcel"
    taken = {
        operation["operationId"]: {told["name"] for told in operation["parameters"]} & {"If-Match", "If-None-Match"}
        for _, operation in _operations(document)
    }
    honouring = [f"{verb}_{name}" for verb in ("get", "replace", "change", "delete", "restore")]
    honouring += [f"get_{name}_version", f"diff_{name}_versions", "get_transaction"]
    for operation_id in honouring:
        assert taken[operation_id] == {"If-Match", "If-None-Match"}, operation_id
    assert all(len(headers) != 1 for headers in taken.values())
    assert taken[f"create_{name}"] == taken[f"write_{name}_records"] == set()
    assert "If-None-Match: *" in document["info"]["description"]


def test_entity_tags_are_told_of_in_each_form(api: Api) -> None:
    created = api.post("/records/user", {"email": "a@example.com"})
    etag = api.call("GET", created["links"]["record"]).headers["ETag"]
    assert re.fullmatch(r'"v0\.[0-9a-f]{12}"', etag)
    told = api.get("/openapi.json")["components"]["headers"]["ETag"]["description"]
    assert re.search(r'"v3\.[0-9a-f]{12}"', told)
    assert '"v3:gzip"' in told


def test_open_reading_needs_no_token_and_writing_does() -> None:
    securities = {
        operation["operationId"]: operation["security"]
        for _, operation in _operations(_document(CHRONONAUT_OPEN_READING="true"))
    }
    assert securities["get_user"] == securities["list_models"] == [{}, {"token": ["read"]}, {"session": ["read"]}]
    assert securities["create_user"] == [{"token": ["write"]}, {"session": ["write"]}]
    assert all({} not in operation["security"] for _, operation in _operations(_document()))


def test_links_lead_to_operations_by_values_that_the_examples_have(document: Any) -> None:
    operations = {operation["operationId"]: operation for _, operation in _operations(document)}
    linked = set()
    for _, operation in _operations(document):
        own = {told["name"] for told in operation["parameters"]}
        for told in operation["responses"].values():
            for name, link in told.get("links", {}).items():
                linked.add(link["operationId"])
                where = f"{name} of {operation['operationId']}"
                target = {parameter["name"]: parameter for parameter in operations[link["operationId"]]["parameters"]}
                # A reason is nothing that an answer could give.
                required = {
                    name
                    for name, parameter in target.items()
                    if parameter.get("required") and not name.startswith("X-Change-")
                }
                assert required <= link["parameters"].keys() <= target.keys(), where
                for expression in link["parameters"].values():
                    source, _, rest = expression.partition("#")
                    if source == "$response.body":
                        for example in examples_of(told["content"]["application/json"]):
                            resolve_pointer(example, rest)
                    elif source.startswith("$response.header."):
                        assert source.removeprefix("$response.header.") in told["headers"], where
                    else:
                        assert source.split(".", 2)[2] in own, where
    writes = {"change", "replace", "delete", "restore"}
    assert {id_ for id_ in linked if id_.split("_")[0] in writes} == {
        id_ for id_ in operations if id_.split("_")[0] in writes
    }


def test_link_to_the_next_page_is_followed(api: Api) -> None:
    for name in "abc":
        api.post("/records/user", {"email": f"{name}@example.com"})
    document = api.get("/openapi.json")
    link = document["paths"]["/records/user"]["get"]["responses"]["200"]["links"]["next"]
    assert link["operationId"] == "list_user_records"
    assert link["parameters"]["limit"] == "$request.query.limit"

    first = api.get("/records/user?limit=2")
    pointer = link["parameters"]["cursor"].removeprefix("$response.body#")
    second = api.get(f"/records/user?limit=2&cursor={resolve_pointer(first, pointer)}")

    emails = [record["state"]["email"] for page in (first, second) for record in page["records"]]
    assert emails == ["a@example.com", "b@example.com", "c@example.com"]
    assert resolve_pointer(second, pointer) is None


@pytest.mark.parametrize(
    ("change", "breach"),
    [
        (lambda answer: answer.pop("version"), "required property"),
        (lambda answer: answer.update(more=1), "'more' was unexpected"),
        (lambda answer: answer["state"].update(email=1), "is not of type 'string'"),
        (lambda answer: answer.update(valid_from="yesterday"), "is not a 'date-time'"),
    ],
)
def test_answer_that_breaks_the_contract_is_found_out(api: Api, change: Any, breach: str) -> None:
    created = api.post("/records/user", {"email": "a@example.com"})
    response = api.call("GET", created["links"]["record"])
    document = document_of(api.client.application)
    assert not list(breaches(document, "/records/user/{key}", "GET", response))
    change(created)
    response.data = json.dumps(created)

    assert any(breach in told for told in breaches(document, "/records/user/{key}", "GET", response))


def test_status_header_and_media_type_that_break_the_contract_are_found_out(api: Api) -> None:
    response = api.call("GET", "/records/user")
    document = document_of(api.client.application)

    for attribute, value in (("status", "418 I am a teapot"), ("mimetype", "text/html")):
        spoilt = api.call("GET", "/records/user")
        setattr(spoilt, attribute, value)
        assert list(breaches(document, "/records/user", "GET", spoilt))
    response.headers["X-Secret"] = "1"
    assert list(breaches(document, "/records/user", "GET", response)) == [
        "the headers ['X-Secret'] of 200 are not told of"
    ]


def test_make_writes_the_document_of_other_models(tmp_path: Path) -> None:
    environment = Path(sys.prefix)
    command = ["make", "-s", "openapi", f"VENV={environment}", f"OPENAPI={tmp_path / 'own.json'}"]
    # What is installed is what is tested: nothing is installed anew.
    command += ["-o", f"{environment}/dev"]

    subprocess.run(command, cwd=_ROOT, env={"PATH": "/usr/local/bin:/usr/bin:/bin", **_OWN}, check=True, timeout=120)

    written = json.loads((tmp_path / "own.json").read_text())
    validate(written)
    assert written == _document(**_OWN)

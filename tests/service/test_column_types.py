"""Columns of every type: how the OpenAPI document tells of them, and that their values are taken and answered so."""

from typing import Any

import pytest

from tests.service.api import Api, assert_problem

_INT64 = {"format": "int64", "minimum": -(2**63), "maximum": 2**63 - 1}
_LOCAL_TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?"
_SPECIMEN: dict[str, dict[str, Any]] = {
    "id": {**_INT64, "type": "integer", "readOnly": True},
    "label": {"type": "string", "maxLength": 20, "description": "what is written on it"},
    "grade": {"type": ["string", "null"], "enum": ["first", "second", None]},
    "cells": {**_INT64, "type": ["integer", "null"], "description": "how many cells were counted"},
    "mass": {"type": "number", "format": "double"},
    "share": {"type": ["string", "null"], "format": "decimal", "pattern": r"^-?0(\.\d{1,3})?$"},
    "found_at": {
        "type": ["string", "null"],
        "format": "date-time-local",
        "pattern": rf"^\d{{4}}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T{_LOCAL_TIME}$",
    },
    "found_on": {"type": ["string", "null"], "format": "date"},
    "box": {"type": ["string", "null"], "format": "uuid"},
    "image": {
        "type": ["string", "null"],
        "format": "byte",
        "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    },
    "notes": {},
}
_PARCEL: dict[str, dict[str, Any]] = {
    "code": {"type": "string", "format": "uuid"},
    "day": {"type": "string", "format": "date"},
    "initials": {"type": "string", "minLength": 1, "maxLength": 2},
    "size": {"type": "string", "enum": ["SMALL", "LARGE"]},
    "speed": {"type": "string", "enum": ["slow", "fast"]},
    "count": {"type": "integer", "format": "int32", "minimum": -(2**15), "maximum": 2**15 - 1},
    "weight": {"type": "number", "format": "double"},
    "price": {"type": "string", "format": "decimal", "pattern": r"^-?\d{1,6}(\.\d{1,2})?$"},
    "fragile": {"type": "boolean"},
    "arrived_at": {"type": "string", "format": "date-time"},
    "opens_at": {"type": "string", "format": "time-local", "pattern": f"^{_LOCAL_TIME}$"},
    "travelled": {
        "type": "number",
        "format": "double",
        "x-unit": "seconds",
        "minimum": -62_135_596_800,
        "maximum": 62_135_596_800,
    },
    "content": {},
    "note": {"type": "string"},
}

_KEYS = {"id", "code", "day", "initials"}


@pytest.mark.parametrize(("title", "expected"), [("Specimen", _SPECIMEN), ("Parcel", _PARCEL)])
def test_states_are_typed_by_their_columns(own_api: Api, title: str, expected: dict[str, Any]) -> None:
    schemas = own_api.get("/openapi.json")["components"]["schemas"]
    # What was erased is NULL in a state, whatever the column takes; a key cannot be.
    columns = {name: column if name in _KEYS else _or_null(column) for name, column in expected.items()}

    for schema in (schemas[f"{title}State"], schemas[f"{title}Fields"]):
        told = {
            name: {key: value for key, value in column.items() if key != "example"}
            for name, column in schema["properties"].items()
        }
        assert told == columns
        assert set(schema["required"]) == columns.keys()


def _or_null(column: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(column.get("type"), str):
        return column
    values = {"enum": [*column["enum"], None]} if "enum" in column else {}
    return {**column, "type": [column["type"], "null"], **values}


def test_bodies_tell_defaults_and_what_is_only_written(own_api: Api) -> None:
    schemas = own_api.get("/openapi.json")["components"]["schemas"]

    for title in ("NewSpecimen", "SpecimenReplacement"):
        columns = schemas[title]["properties"]
        assert {name: column["default"] for name, column in columns.items() if "default" in column} == {
            "label": "unknown",
            "mass": 0.5,
        }
        assert [name for name, column in columns.items() if "writeOnly" in column] == ["origin"]
        assert "required" not in schemas[title]
        assert schemas[title]["additionalProperties"] is False
    assert not any("default" in column for column in schemas["SpecimenPatch"]["properties"].values())
    assert schemas["SpecimenPatch"]["properties"]["origin"]["writeOnly"] is True


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("grade", "second"),
        ("cells", 2**63 - 1),
        ("mass", 2),
        ("share", "-0.125"),
        ("found_at", "2026-03-01T09:00:00.123456"),
        ("found_on", "2024-02-29"),
        ("box", "01990e5c-7d2a-7a31-9c1f-0d6a54b1f0aa"),
        ("image", "AAH/"),
        ("notes", [1, {"a": None}, "b"]),
        ("notes", False),
        ("notes", None),
    ],
)
def test_value_is_answered_as_it_was_sent(own_api: Api, column: str, value: Any) -> None:
    created = own_api.post("/records/specimen", {column: value})
    own_api.patch(created["links"]["record"], {"label": "another"})

    history = own_api.get(created["links"]["history"])

    assert created["state"][column] == value
    assert history["current"]["state"][column] == history["versions"][0]["state"][column] == value


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("label", 1),
        ("label", "x" * 21),
        ("grade", "FIRST"),
        ("cells", 2**63),
        ("cells", "1"),
        ("cells", True),
        ("mass", "0.5"),
        ("mass", True),
        ("share", 0.5),
        ("share", "0.1234"),
        ("share", "1.5"),
        ("share", "NaN"),
        ("found_at", "2026-03-01T09:00:00Z"),
        ("found_at", "2026-03-01"),
        ("found_at", "2026-02-30T09:00:00"),
        ("found_on", "20260301"),
        ("found_on", "2026-02-29"),
        ("box", "01990e5c7d2a7a319c1f0d6a54b1f0aa"),
        ("image", "AA"),
        ("image", "AA==\n"),
        ("label", None),
    ],
)
def test_value_that_the_document_does_not_tell_of_is_refused(own_api: Api, column: str, value: Any) -> None:
    problem = assert_problem(own_api.call("POST", "/records/specimen", {column: value}), 422, "invalid")

    assert problem["errors"]["json"].keys() == {column}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("fragile", 1),
        ("fragile", "true"),
        ("opens_at", "09:00"),
        ("opens_at", "09:00:00Z"),
        ("travelled", "1"),
        ("travelled", 1000000000000.0),
        ("travelled", True),
        ("arrived_at", "2026-03-01T09:00:00"),
        ("size", "s"),
        ("price", 1),
    ],
)
def test_other_value_that_the_document_does_not_tell_of_is_refused(own_api: Api, column: str, value: Any) -> None:
    document = own_api.get("/openapi.json")
    body = document["paths"]["/records/parcel"]["post"]["requestBody"]["content"]["application/json"]["example"]

    response = own_api.call("POST", "/records/parcel", body | {column: value})

    assert assert_problem(response, 422, "invalid")["errors"]["json"].keys() == {column}


def test_integers_are_numbers_without_a_fraction_however_they_are_written(api: Api) -> None:
    record = api.post("/records/user", {"email": "a@example.com", "name": "A"})["links"]["record"]
    api.patch(record, {"name": "B"})

    assert api.post(f"{record}/restore", {"version": 0.0})["state"]["name"] == "A"

    for wrong in (0.5, "0", True):
        problem = assert_problem(api.call("POST", f"{record}/restore", {"version": wrong}), 422, "invalid")
        assert "version" in problem["errors"]["json"]

"""What the database gives by itself: values that nobody can write, and defaults of what a write leaves out."""

from typing import Any

import pytest
import sqlalchemy as sa

from app.columns import new_schema, patch_schema, replacement_schema
from app.records.live import replacing
from app.registry import Registry
from chrononaut import VersionedSQLAlchemy
from tests.library.models import define
from tests.service.api import Api, assert_problem

_DEFAULTS = {
    "pages": 5,
    "genre": "it's 100%",
    "motto": "it's 100%",
    "shown": True,
    "rating": 3,
    "words": 42,
    "printed_at": "2026-03-01T00:00:00.000000Z",
    "note": None,
}
_OTHERS = {
    "pages": 6,
    "genre": "essay",
    "motto": "none",
    "shown": False,
    "rating": 4,
    "words": 1,
    "printed_at": "2027-03-01T00:00:00.000000Z",
    "note": "n",
    "loud": "quiet",
}


def _replaced(api: Api, how: str, record: Any, values: Any) -> Any:
    """Replace a record, by an operation of its own or among others, and return it."""
    path = record["links"]["record"]
    if how == "put":
        return api.put(path, values)
    item = {"operation": "replace", "key": record["key"], "record": values}
    (written,) = api.post("/bulk/article", {"items": [item]})["items"]
    found = api.get(path)
    assert (written["key"], written["version"]) == (record["key"], found["version"])
    return found


def test_generated_columns_are_answered_and_read_only(own_api: Api) -> None:
    made = own_api.post("/records/article", {"slug": "a", "title": "ab"})
    assert (made["state"]["twice"], made["state"]["letters"]) == ("abab", 2)
    changed = own_api.patch(made["links"]["record"], {"title": "abc"})
    assert (changed["state"]["twice"], changed["state"]["letters"]) == ("abcabc", 3)
    schemas = own_api.get("/openapi.json")["components"]["schemas"]
    for name in ("twice", "letters"):
        assert schemas["ArticleFields"]["properties"][name]["readOnly"] is True
        for written in ("NewArticle", "ArticleReplacement", "ArticlePatch"):
            assert name not in schemas[written]["properties"]


@pytest.mark.parametrize("name", ["twice", "letters"])
def test_generated_columns_cannot_be_written(own_api: Api, name: str) -> None:
    made = own_api.post("/records/article", {"slug": "a", "title": "ab"})
    path, wrong = made["links"]["record"], {"title": "ab", name: None}
    for method, where, body in (
        ("POST", "/records/article", wrong | {"slug": "b"}),
        ("PUT", path, wrong),
        ("PATCH", path, wrong),
        ("POST", f"{path}/restore", {"version": 0, "values": wrong}),
    ):
        problem = assert_problem(own_api.call(method, where, body), 422, "invalid")
        assert name in str(problem["errors"])


def test_identities_are_written_only_where_they_may_be() -> None:
    database = VersionedSQLAlchemy()
    define(
        database,
        "Ticket",
        code=sa.Column(sa.String, primary_key=True),
        number=sa.Column(sa.Integer, sa.Identity(always=True)),
        place=sa.Column(sa.Integer, sa.Identity(always=False)),
    )
    (resource,) = Registry(database).values()
    assert [*new_schema(resource)().fields] == ["code", "place"]
    assert [*replacement_schema(resource)().fields] == [*patch_schema(resource)().fields] == ["place"]
    # A number that is left out is not given back: no expression says which comes next.
    assert replacing(resource, {}) == {}
    assert replacing(resource, {"place": 3}) == {"place": 3}


@pytest.mark.parametrize("how", ["put", "bulk"])
def test_what_a_replacement_leaves_out_gets_its_default(own_api: Api, how: str) -> None:
    made = own_api.post("/records/article", {"slug": "a", "title": "ab", **_OTHERS})
    assert made["state"].items() >= _OTHERS.items()
    replaced = _replaced(own_api, how, made, {"title": "cd"})
    assert replaced["state"].items() >= (_DEFAULTS | {"title": "cd", "loud": "CD", "twice": "cdcd"}).items()
    assert replaced["version"] == 1


@pytest.mark.parametrize("how", ["put", "bulk"])
def test_replacement_by_defaults_that_it_has_makes_no_version(own_api: Api, how: str) -> None:
    made = own_api.post("/records/article", {"slug": "a", "title": "ab"})
    assert made["state"].items() >= _DEFAULTS.items()
    replaced = _replaced(own_api, how, made, {"title": "ab"})
    assert (replaced["version"], replaced["state"]) == (0, made["state"])


@pytest.mark.parametrize("how", ["put", "bulk"])
def test_what_every_change_stamps_is_stamped_by_a_replacement(own_api: Api, how: str) -> None:
    made = own_api.post("/records/article", {"slug": "a", "title": "ab", "proofs": 1})
    assert _replaced(own_api, how, made, {"title": "cd"})["state"]["proofs"] == 7

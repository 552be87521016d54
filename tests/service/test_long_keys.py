"""Keys have so many characters at the most that their addresses can be asked for, and indexes take them."""

import random
from typing import Any

import pytest
import sqlalchemy as sa

from app.registry import LONGEST_KEY, Registry, longest_part
from chrononaut import VersionedSQLAlchemy
from tests.library.models import define
from tests.service.api import Api, assert_problem
from tests.service.own_models import db

_CHARACTERS = [*map(chr, range(0x1F300, 0x1F600))]


def _key(length: int) -> str:
    """A key that no index can compress, of characters of four bytes each."""
    return "".join(random.Random(length).choices(_CHARACTERS, k=length))


def test_record_with_the_longest_key_can_be_asked_for(own_api: Api) -> None:
    made = own_api.post("/records/article", {"slug": _key(LONGEST_KEY), "title": "a"})
    assert own_api.get(made["links"]["record"])["key"] == made["key"]
    assert own_api.get(f"{made['links']['history']}/changes?limit=1")["key"] == made["key"]
    own_api.patch(made["links"]["record"], {"title": "b"})
    assert own_api.get(f"{made['links']['history']}/versions/0")["state"]["title"] == "a"
    own_api.delete(made["links"]["record"])


@pytest.mark.parametrize("length", [LONGEST_KEY + 1, 900_000])
def test_longer_key_is_refused(own_api: Api, length: int) -> None:
    record = {"slug": "k" * length, "title": "a"}
    problem = assert_problem(own_api.call("POST", "/records/article", record), 422, "invalid")
    assert str(LONGEST_KEY) in problem["errors"]["json"]["slug"][0]
    item: dict[str, Any] = {"operation": "create", "record": record}
    assert_problem(own_api.call("POST", "/bulk/article", {"items": [item]}), 422, "bulk-invalid")


def test_address_of_a_longer_key_is_unknown(own_api: Api) -> None:
    assert_problem(own_api.call("GET", f"/records/article/{'k' * (LONGEST_KEY + 1)}"), 404, "unknown-record")


def test_record_that_another_program_made_with_a_longer_key_is_listed(own_api: Api) -> None:
    slugs = [f"{number}{'k' * LONGEST_KEY}" for number in range(3)]
    with db.engine.begin() as connection:
        table, values = db.metadata.tables["article"], {"title": "t", "loud": "T"}
        for slug in slugs:
            connection.execute(sa.insert(table).values(slug=slug, **values))
    path, found = "/records/article?limit=1", []
    while path:
        page = own_api.get(path)
        found += [record["key"] for record in page["records"]]
        path = f"/records/article?limit=1&cursor={page['next']}" if page["next"] else ""
    assert found == slugs


def test_bounds_of_keys_are_documented(own_api: Api) -> None:
    document = own_api.get("/openapi.json")
    new, there = (
        document["components"]["schemas"][name]["properties"]["slug"] for name in ("NewArticle", "ArticleFields")
    )
    assert (new["minLength"], new["maxLength"]) == (1, LONGEST_KEY)
    # Other programs may make longer ones.
    assert "maxLength" not in there
    for name, longest in (("article", 2 * LONGEST_KEY), ("parcel", 36 + 10 + 4 + 2), ("account", 20)):
        (parameter,) = document["paths"][f"/records/{name}/{{key}}"]["parameters"]
        assert parameter["schema"] == {"type": "string", "minLength": 1, "maxLength": longest}
        of_item = document["components"]["schemas"][f"{name.title()}BulkDelete"]["properties"]["key"]
        assert of_item["maxLength"] == longest


@pytest.mark.parametrize(
    ("types", "longest"),
    [
        ([sa.Text()], [600]),
        ([sa.String(40)], [40]),
        ([sa.String(2000)], [600]),
        ([sa.Text(), sa.Integer(), sa.String(20)], [300, None, 20]),
        ([sa.Uuid(as_uuid=False), sa.Text()], [None, 600]),
    ],
)
def test_text_parts_of_a_key_share_its_length(types: list[Any], longest: list[int | None]) -> None:
    database = VersionedSQLAlchemy()
    columns = {f"part{place}": sa.Column(type_, primary_key=True) for place, type_ in enumerate(types)}
    define(database, "Book", **columns)
    (resource,) = Registry(database).values()
    assert [longest_part(column) for column in resource.versioning.key_columns] == longest

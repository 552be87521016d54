"""A grant for a model is one for the records of the models that inherit from it, and never the other way round."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import DeclarativeBase

from app import create_app
from app.auth.grants import Grants
from app.auth.tables import metadata as token_metadata
from app.auth.tokens import create_token
from app.cli import create_tables
from chrononaut import VersionedSQLAlchemy
from tests.library.models import define
from tests.service.api import Api, assert_problem
from tests.service.conftest import SECRET_KEY

As = Callable[[str], Api]


class Base(DeclarativeBase):
    pass


db = VersionedSQLAlchemy(model_class=Base)


def _column(type_: Any, *args: Any, **kwargs: Any) -> Any:
    return sa.orm.mapped_column(type_, *args, **kwargs)


def _below(parent: Any, name: str, **attributes: Any) -> Any:
    """A model that inherits from another."""
    return type(name, (parent,), {"__mapper_args__": {"polymorphic_identity": name.lower()}} | attributes)


Animal = define(
    db,
    "Animal",
    __tablename__="animal",
    __mapper_args__={"polymorphic_on": "kind", "polymorphic_identity": "animal"},
    id=_column(sa.Integer, primary_key=True),
    kind=_column(sa.String(20), default="animal"),
    name=_column(sa.String(20)),
)
Dog = _below(
    Animal,
    "Dog",
    __tablename__="dog",
    __chrononaut_hidden__=("chip",),
    id=_column(sa.ForeignKey("animal.id"), primary_key=True),
    chip=_column(sa.String(20)),
)
Cat = _below(Animal, "Cat", lives=_column(sa.Integer, nullable=True))
Puppy = _below(
    Dog,
    "Puppy",
    __tablename__="puppy",
    id=_column(sa.ForeignKey("dog.id"), primary_key=True),
)
Robot = type(
    "Robot",
    (Animal,),
    {
        "__tablename__": "robot",
        "__mapper_args__": {"concrete": True, "polymorphic_identity": "robot"},
        "id": _column(sa.Integer, primary_key=True),
        "kind": _column(sa.String(20), default="robot"),
        "name": _column(sa.String(20)),
    },
)
"""A model with a table of its own: its records are none of the animals."""


@pytest.fixture
def zoo(database_url: str) -> Iterator[Flask]:
    app = create_app(
        {
            "SECRET_KEY": SECRET_KEY,
            "DATABASE_URL": database_url,
            "CHRONONAUT_MODELS": __name__,
            "CHRONONAUT_DB": f"{__name__}:db",
        }
    )
    with app.app_context():
        create_tables(db)
        with db.engine.begin() as connection:
            for table in (*reversed(db.metadata.sorted_tables), *token_metadata.sorted_tables):
                connection.execute(sa.delete(table))
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def calling(zoo: Flask) -> As:
    """Calls the service as who has a grant."""

    def calling(grant: str) -> Api:
        with zoo.app_context():
            return Api(zoo.test_client(), create_token(db, "keeper@example.com", Grants.parse([grant])))

    return calling


@pytest.fixture
def keys(calling: As) -> dict[str, str]:
    """The key of one record of each model."""
    api = calling("write")
    names = ("animal", "dog", "cat", "puppy", "robot")
    return {name: api.post(f"/records/{name}", {"kind": name, "name": name} | _chip(name))["key"] for name in names}


def _chip(model: str) -> dict[str, str]:
    return {"chip": "4711"} if model in {"dog", "puppy"} else {}


COVERED = {
    "animal": {"animal", "dog", "cat", "puppy"},
    "dog": {"dog", "puppy"},
    "cat": {"cat"},
    "puppy": {"puppy"},
    "robot": {"robot"},
}
"""Model → those whose records are its own."""


@pytest.mark.parametrize(("granted", "asked"), [*itertools.product(COVERED, COVERED)])
def test_grant_for_a_model_covers_the_models_that_inherit_from_it(
    calling: As, keys: dict[str, str], granted: str, asked: str
) -> None:
    is_covered = asked in COVERED[granted]
    reader, writer = calling(f"{granted}:read"), calling(f"{granted}:write")
    record, history = f"/records/{asked}/{keys[asked]}", f"/history/{asked}/{keys[asked]}"
    for path in (record, f"/records/{asked}", history, f"{history}/changes", f"/history/{asked}"):
        response = reader.call("GET", path)
        assert response.status_code == (200 if is_covered else 403), path
    assert reader.call("PATCH", record, {"name": "x"}).status_code == 403
    expected = 200 if is_covered else 403
    assert writer.call("PATCH", record, {"name": "y"}).status_code == expected
    item = {"operation": "change", "key": keys[asked], "changes": {"name": "z"}}
    assert writer.call("POST", f"/bulk/{asked}", {"items": [item]}).status_code == expected
    assert writer.call("DELETE", record).status_code == (204 if is_covered else 403)
    assert writer.call("POST", f"{record}/restore", {"values": _chip(asked)}).status_code == expected


@pytest.mark.parametrize("granted", COVERED)
def test_models_that_a_grant_covers_are_listed(calling: As, keys: dict[str, str], granted: str) -> None:
    listed = {model["name"] for model in calling(f"{granted}:read").get("/history")["models"]}
    assert listed == COVERED[granted]


@pytest.mark.parametrize(("granted", "changed"), [*itertools.product(COVERED, COVERED)])
def test_transaction_tells_who_may_read_the_history_of_what_it_changed(
    calling: As, keys: dict[str, str], granted: str, changed: str
) -> None:
    (change,) = calling("read").get(f"/history/{changed}/{keys[changed]}/changes")["changes"]
    path = f"/transactions/{change['transaction_id']}"
    response = calling(f"{granted}:read").call("GET", path)
    if changed not in COVERED[granted]:
        assert_problem(response, 404, "unknown-transaction")
        return
    (told,) = response.json["changes"]
    assert (told["model"], told["key"]) == (changed, keys[changed])
    # What it links to can be read.
    calling(f"{granted}:read").get(told["links"]["record"])


@pytest.mark.parametrize(("asked", "other"), [("dog", "animal"), ("dog", "cat"), ("cat", "animal"), ("cat", "dog")])
def test_record_of_another_model_is_unknown_to_a_bulk_write_too(
    calling: As, keys: dict[str, str], asked: str, other: str
) -> None:
    items = [{"operation": "delete", "key": keys[other]}]
    problem = assert_problem(calling("write").call("POST", f"/bulk/{asked}", {"items": items}), 409, "bulk-failed")
    assert problem["items"][0]["problem"]["type"] == "/problems/unknown-record"


def test_grant_for_a_model_tells_nothing_of_the_other_records_of_its_parent(
    zoo: Flask, calling: As, keys: dict[str, str]
) -> None:
    reader = calling("dog:read")
    for path in (f"/records/animal/{keys['animal']}", "/records/animal", "/history/animal", "/records/cat"):
        assert_problem(reader.call("GET", path), 403, "forbidden")
    assert_problem(reader.call("GET", f"/records/dog/{keys['animal']}"), 404, "unknown-record")
    assert_problem(reader.call("GET", f"/history/dog/{keys['cat']}"), 404, "unknown-record")
    # Cats are in the table of the animals.
    cats = calling("cat:read")
    for path in (
        f"/records/cat/{keys['animal']}",
        f"/history/cat/{keys['dog']}",
        f"/history/cat/{keys['dog']}/changes",
    ):
        assert_problem(cats.call("GET", path), 404, "unknown-record")
    since = "since=2026-01-01T00:00:00Z"
    calling("write").patch(f"/records/animal/{keys['animal']}", {"name": "renamed"})
    for api, model in ((reader, "dog"), (cats, "cat")):
        changed = api.call("GET", f"/history/{model}/{keys['animal']}/has_changed_since?{since}")
        assert_problem(changed, 404, "unknown-record")
    assert {record["key"] for record in reader.get("/records/dog")["records"]} == {keys["dog"], keys["puppy"]}
    with zoo.app_context():
        for record in db.session.scalars(sa.select(Animal)):
            record.name = "renamed"
        db.session.commit()
        transaction_id = db.session.get_one(Animal, int(keys["dog"])).versions()[0].transaction_id
    told = reader.get(f"/transactions/{transaction_id}")["changes"]
    assert {(change["model"], change["key"]) for change in told} == {
        ("dog", keys["dog"]),
        ("puppy", keys["puppy"]),
    }

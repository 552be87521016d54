"""Relationships by which a versioned row would change without history are refused when mappings are configured."""

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import relationship

from chrononaut import UnsupportedMappingError, VersionedSQLAlchemy
from tests.library.models import define


def _configure(**options: Any) -> None:
    db: Any = VersionedSQLAlchemy()
    child = define(
        db, "Child", id=sa.Column(sa.Integer, primary_key=True), parent_id=sa.Column(sa.ForeignKey("parent.id"))
    )
    attributes = {"id": sa.Column(sa.Integer, primary_key=True), "children": relationship(child, **options)}
    type("Parent", (db.Model,), attributes)
    try:
        db.Model.registry.configure()
    finally:
        db.Model.registry.dispose()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"passive_deletes": True}, "passive_deletes=True"),
        ({"passive_deletes": "all"}, "passive_deletes='all'"),
        ({"passive_deletes": True, "cascade": "all, delete-orphan"}, "passive_deletes=True"),
        ({"post_update": True}, "post_update=True"),
    ],
)
def test_cascade_that_the_session_does_not_see_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedMappingError, match=rf"^Child: Parent\.children has {named}") as error:
        _configure(**options)
    assert error.value.model == "Child"


def test_post_update_from_the_versioned_side_is_refused() -> None:
    db: Any = VersionedSQLAlchemy()
    parent = type("Parent", (db.Model,), {"id": sa.Column(sa.Integer, primary_key=True)})
    define(
        db,
        "Child",
        id=sa.Column(sa.Integer, primary_key=True),
        parent_id=sa.Column(sa.ForeignKey("parent.id")),
        parent=relationship(parent, post_update=True),
    )
    try:
        with pytest.raises(UnsupportedMappingError, match=r"post_update=True"):
            db.Model.registry.configure()
    finally:
        db.Model.registry.dispose()


@pytest.mark.parametrize("options", [{}, {"cascade": "all, delete-orphan"}, {"lazy": "selectin"}, {"viewonly": True}])
def test_ordinary_relationships_are_taken(options: dict[str, Any]) -> None:
    _configure(**options)

"""Mappings by which a versioned row would change without history are refused, before they can lose any."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import backref, relationship

from chrononaut import UnsupportedMappingError, VersionedSQLAlchemy
from tests.library.models import define


class Upper(sa.types.TypeDecorator[str]):
    """Is written by one expression and read by none."""

    impl = sa.String
    cache_ok = True

    def bind_expression(self, bindvalue: sa.BindParameter[str]) -> sa.ColumnElement[str]:
        return sa.func.upper(bindvalue, type_=sa.String())


class Lower(sa.types.TypeDecorator[str]):
    """Is read by an expression."""

    impl = sa.String
    cache_ok = True

    def column_expression(self, column: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
        return sa.func.lower(column, type_=sa.String())


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


@pytest.mark.parametrize("options", [{"post_update": True}, {"passive_deletes": True}])
def test_relationship_that_writes_only_rows_without_versioning_is_taken(options: dict[str, Any]) -> None:
    db: Any = VersionedSQLAlchemy()
    parent = define(db, "Parent", id=sa.Column(sa.Integer, primary_key=True))
    attributes = {
        "id": sa.Column(sa.Integer, primary_key=True),
        "parent_id": sa.Column(sa.ForeignKey("parent.id")),
        "parent": relationship(parent, **options),
    }
    child = type("Child", (db.Model,), attributes)
    try:
        db.Model.registry.configure()
        assert sa.inspect(child).configured
    finally:
        db.Model.registry.dispose()


@pytest.mark.parametrize("options", [{}, {"cascade": "all, delete-orphan"}, {"lazy": "selectin"}, {"viewonly": True}])
def test_ordinary_relationships_are_taken(options: dict[str, Any]) -> None:
    _configure(**options)


@pytest.mark.parametrize(
    "actions", [{"ondelete": "CASCADE"}, {"ondelete": "set null"}, {"onupdate": "CASCADE"}, {"ondelete": "SET DEFAULT"}]
)
@pytest.mark.parametrize("as_constraint", [True, False])
def test_foreign_key_by_which_the_database_changes_rows_is_refused(
    actions: dict[str, str], as_constraint: bool
) -> None:
    key, *arguments = _foreign_key(actions, as_constraint)
    with pytest.raises(UnsupportedMappingError, match=r"^Child: the foreign key of parent_id lets the database"):
        define(
            VersionedSQLAlchemy(),
            "Child",
            __table_args__=(*arguments,),
            id=sa.Column(sa.Integer, primary_key=True),
            parent_id=key,
        )


@pytest.mark.parametrize("actions", [{}, {"ondelete": "RESTRICT"}, {"onupdate": "no action", "ondelete": "restrict"}])
@pytest.mark.parametrize("as_constraint", [True, False])
def test_foreign_key_by_which_the_database_only_refuses_is_taken(actions: dict[str, str], as_constraint: bool) -> None:
    key, *arguments = _foreign_key(actions, as_constraint)
    db = VersionedSQLAlchemy()
    define(db, "Child", __table_args__=(*arguments,), id=sa.Column(sa.Integer, primary_key=True), parent_id=key)
    assert "child_history" in db.metadata.tables


def _foreign_key(actions: dict[str, str], as_constraint: bool) -> list[Any]:
    """The column, and what else stands in the table's arguments."""
    if as_constraint:
        constraint = sa.ForeignKeyConstraint(["parent_id"], ["parent.id"], **actions)  # type: ignore[arg-type]
        return [sa.Column(sa.Integer), constraint]
    return [sa.Column(sa.Integer, sa.ForeignKey("parent.id", **actions))]  # type: ignore[arg-type]


@pytest.mark.parametrize("clause", ["REPLACE", "ignore"])
def test_conflict_clause_by_which_the_database_drops_rows_is_refused(clause: str) -> None:
    with pytest.raises(UnsupportedMappingError, match="conflict clause"):
        define(
            VersionedSQLAlchemy(),
            "Person",
            id=sa.Column(sa.Integer, primary_key=True),
            email=sa.Column(sa.String, unique=True, sqlite_on_conflict_unique=clause),
        )


def test_column_that_comes_after_the_class_is_refused() -> None:
    db: Any = VersionedSQLAlchemy()
    person = define(db, "Person", id=sa.Column(sa.Integer, primary_key=True))
    person.late = sa.Column(sa.String)
    try:
        with pytest.raises(UnsupportedMappingError, match=r"Person: late came after"):
            db.Model.registry.configure()
    finally:
        db.Model.registry.dispose()


def _key() -> sa.Column[Any]:
    return sa.Column(sa.Integer, primary_key=True)


def _refused(db: Any, problem: str, *models: Any) -> None:
    """The mapping is refused, and again when it is used once more.

    :param models: what the registry holds weakly
    """
    assert models
    try:
        with pytest.raises(UnsupportedMappingError, match=problem):
            db.Model.registry.configure()
        with pytest.raises(sa.exc.InvalidRequestError, match=problem.removeprefix("^")):
            db.Model.registry.configure()
    finally:
        db.Model.registry.dispose()


@pytest.mark.parametrize("configured", [True, False], ids=["configured before", "at once"])
@pytest.mark.parametrize("option", ["passive_deletes", "post_update"])
def test_backref_to_a_versioned_model_is_refused(option: str, configured: bool) -> None:
    """Whichever of the two models is configured first."""
    db: Any = VersionedSQLAlchemy()
    parent = type("Parent", (db.Model,), {"id": _key()})
    if configured:
        db.Model.registry.configure()
    children = backref("children", **{option: True})
    columns = {"id": _key(), "parent_id": sa.Column(sa.ForeignKey("parent.id"))}
    child = define(db, "Child", **columns, parent=relationship(parent, backref=children))
    _refused(db, rf"^Child: Parent\.children has {option}=True", parent, child)


@pytest.mark.parametrize("configured", [True, False], ids=["configured before", "at once"])
def test_backref_of_a_versioned_model_is_refused(configured: bool) -> None:
    db: Any = VersionedSQLAlchemy()
    child = define(db, "Child", id=_key(), parent_id=sa.Column(sa.Integer))
    if configured:
        db.Model.registry.configure()
    children = relationship(
        child, primaryjoin="foreign(Child.parent_id) == Parent.id", backref=backref("parent", post_update=True)
    )
    parent = type("Parent", (db.Model,), {"id": _key(), "children": children})
    _refused(db, r"^Child: Child\.parent has post_update=True", parent, child)


@pytest.mark.parametrize("side", ["own", "backref"])
@pytest.mark.parametrize("last", ["Link", "Left", "Right"])
def test_passive_deletes_over_a_versioned_secondary_table_is_refused(side: str, last: str) -> None:
    """Whichever model is configured last."""
    db: Any = VersionedSQLAlchemy()
    link = sa.Table(
        "link",
        db.metadata,
        sa.Column("left_id", sa.ForeignKey("left.id"), primary_key=True),
        sa.Column("right_id", sa.ForeignKey("right.id"), primary_key=True),
    )
    options: dict[str, Any] = {"passive_deletes": True} if side == "own" else {}
    options["backref"] = backref("lefts", passive_deletes=side == "backref")
    models: dict[str, Callable[[], Any]] = {
        "Link": lambda: define(db, "Link", __table__=link),
        "Left": lambda: type("Left", (db.Model,), {"id": _key(), "rights": relationship("Right", link, **options)}),
        "Right": lambda: type("Right", (db.Model,), {"id": _key()}),
    }
    defined = []
    for name in sorted(models, key=last.__eq__):
        if name == last == "Link":
            db.Model.registry.configure()
        defined.append(models[name]())
    named = r"Left\.rights" if side == "own" else r"Right\.lefts"
    _refused(db, rf"^Link: {named} has passive_deletes=True", *defined)


@pytest.mark.parametrize("options", [{}, {"post_update": True}])
def test_versioned_secondary_table_is_taken(options: dict[str, Any]) -> None:
    db: Any = VersionedSQLAlchemy()
    link = define(
        db,
        "Link",
        left_id=sa.Column(sa.ForeignKey("left.id"), primary_key=True),
        right_id=sa.Column(sa.ForeignKey("right.id"), primary_key=True),
    )
    right = type("Right", (db.Model,), {"id": _key()})
    left = type("Left", (db.Model,), {"id": _key(), "rights": relationship(right, "link", **options)})
    try:
        db.Model.registry.configure()
        assert all(sa.inspect(model).configured for model in (left, link, right))
    finally:
        db.Model.registry.dispose()


@pytest.mark.parametrize("type_", [Upper(), Lower(), sa.String().with_variant(Upper(), "postgresql")])
def test_key_that_an_expression_makes_another_one_is_refused(type_: Any) -> None:
    with pytest.raises(UnsupportedMappingError, match=r"^Page: the type of the key column code has a bind_expression"):
        define(VersionedSQLAlchemy(), "Page", code=sa.Column(type_, primary_key=True))
    define(VersionedSQLAlchemy(), "Page", id=sa.Column(sa.Integer, primary_key=True), code=sa.Column(type_))


def test_key_whose_type_comes_with_a_later_table_is_refused() -> None:
    db: Any = VersionedSQLAlchemy()
    define(db, "Page", code=sa.Column(sa.ForeignKey("book.code"), primary_key=True))
    type("Book", (db.Model,), {"code": sa.Column(Upper, primary_key=True)})
    try:
        with pytest.raises(UnsupportedMappingError, match=r"^Page: the type of the key column code"):
            db.Model.registry.configure()
    finally:
        db.Model.registry.dispose()

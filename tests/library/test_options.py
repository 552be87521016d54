"""A wrong option is refused when the class is defined, by the names of model and option."""

from typing import Any

import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase

from chrononaut import ChrononautException, OptionError, Versioned, VersionedSQLAlchemy
from tests.library.models import define

OWN = ["version", "operation", "changed", "change_info", "transaction_id", "valid_from"]


@pytest.mark.parametrize("option", ["__chrononaut_hidden__", "__chrononaut_untracked__"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["passwort"], r"no such columns: passwort; there are id, name, password"),
        (["password", "a", "b"], r"no such columns: a, b; there are"),
        ("password", r"must be a list of attribute names, not the string 'password'"),
        (["id"], r"a key column cannot be left out of history: id"),
    ],
)
def test_wrong_hidden_or_untracked_columns_are_refused(option: str, value: object, message: str) -> None:
    with pytest.raises(OptionError, match=rf"^Person\.{option}: {message}") as error:
        _define(**{option: value})
    assert (error.value.model, error.value.option) == ("Person", option)


def test_column_that_is_hidden_and_untracked_at_once_is_refused() -> None:
    with pytest.raises(OptionError, match=r"^Person\.__chrononaut_untracked__: hidden and untracked at once: password"):
        _define(__chrononaut_hidden__=["password", "name"], __chrononaut_untracked__=["password"])


@pytest.mark.parametrize("value", ["", 7, ["a"]])
def test_wrong_name_of_the_history_table_is_refused(value: object) -> None:
    with pytest.raises(OptionError, match=r"^Person\.__chrononaut_tablename__: must be a table name, not"):
        _define(__chrononaut_tablename__=value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["version"], "must be a mapping of names"),
        ({"version": ""}, "must be a mapping of names"),
        ({"version": 3}, "must be a mapping of names"),
        ({"versoin": "x"}, "no such names of ours: versoin; there are version, operation, changed, change_info"),
        ({"version": "changed"}, "two of ours would have one name: changed"),
        ({"version": "x", "operation": "x"}, "two of ours would have one name: x"),
    ],
)
def test_wrong_renaming_is_refused(value: object, message: str) -> None:
    with pytest.raises(OptionError, match=rf"^Person\.__chrononaut_rename__: {message}"):
        _define(__chrononaut_rename__=value)


@pytest.mark.parametrize("own", OWN)
def test_column_in_the_place_of_ours_is_refused_with_the_option_that_renames_ours(own: str) -> None:
    with pytest.raises(OptionError, match=rf'^Person\.{own}: .*__chrononaut_rename__ = {{"{own}": "another_name"}}'):
        _define(**{own: sa.Column(sa.String)})


@pytest.mark.parametrize("own", OWN)
def test_attribute_in_the_place_of_ours_is_refused(own: str) -> None:
    with pytest.raises(OptionError, match=rf"^Person\.{own}: the model has this attribute already"):
        _define(**{own: property(lambda self: 1)})


def test_column_whose_name_in_the_table_is_ours_is_refused() -> None:
    with pytest.raises(OptionError, match=r"^Person\.changed: "):
        _define(altered=sa.Column("changed", sa.DateTime))


def test_renaming_ours_to_a_column_of_the_model_is_refused() -> None:
    with pytest.raises(OptionError, match=r'^Person\.name: .*__chrononaut_rename__ = {"version": "another_name"}'):
        _define(__chrononaut_rename__={"version": "name"})


def test_option_error_is_a_chrononaut_exception_and_a_type_error() -> None:
    assert issubclass(OptionError, ChrononautException)
    assert issubclass(OptionError, TypeError)


@pytest.mark.parametrize("value", [[], (), {"password"}, {"password": 1}.keys(), frozenset({"password"})])
def test_any_collection_of_names_is_taken(value: object) -> None:
    assert set(_define(__chrononaut_hidden__=value).__chrononaut__.options.hidden) == set(value)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"__chrononaut_hiden__": ["name"]}, r"Person\.__chrononaut_hiden__: there is no such option; there are"),
        ({"__chrononaut_hidden__": None}, r"__chrononaut_hidden__: must be a list of attribute names, not None"),
        ({"__chrononaut_tablename__": "person"}, r"__chrononaut_tablename__: there is a table person already"),
        ({"__chrononaut_rename__": {"operation": "__dict__"}}, r"must be a mapping of names"),
    ],
)
def test_options_that_could_only_be_mistakes_are_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        _define(**attributes)


def test_model_of_a_plain_sqlalchemy_is_refused() -> None:
    db = SQLAlchemy()
    with pytest.raises(OptionError, match=r"^Person\.Versioned: needs db\.Model of a VersionedSQLAlchemy"):
        define(db, "Person", id=sa.Column(sa.Integer, primary_key=True))


class Base(DeclarativeBase):
    """A declarative base that belongs to no `VersionedSQLAlchemy`."""


@pytest.mark.parametrize("bases", [(), (Base,)], ids=["no_base", "plain_base"])
def test_model_without_db_model_is_refused(bases: tuple[type, ...]) -> None:
    attributes = {"__tablename__": "person", "id": sa.Column(sa.Integer, primary_key=True)}
    with pytest.raises(OptionError, match=r"needs db\.Model"):
        type("Person", (Versioned, *bases), attributes)


def test_mixin_of_the_callers_own_needs_no_table() -> None:
    class Audited(Versioned):
        note = sa.Column(sa.String)

    assert "note" in _define_with(Audited).__chrononaut__.tracked


def _define_with(mixin: type) -> Any:
    return define(VersionedSQLAlchemy(), "Person", mixin, id=sa.Column(sa.Integer, primary_key=True))


def _define(**attributes: Any) -> Any:
    return define(
        VersionedSQLAlchemy(),
        "Person",
        __tablename__="person",
        id=sa.Column(sa.Integer, primary_key=True),
        name=sa.Column(sa.String),
        password=sa.Column(sa.String),
        **attributes,
    )


@pytest.mark.parametrize(
    "method",
    ["versions", "version_at", "as_of", "has_changed_since", "previous_version", "diff", "changes", "erase", "cuts"],
)
def test_column_that_would_hide_a_method_is_refused(method: str) -> None:
    with pytest.raises(OptionError, match=rf"^Person\.{method}: the attribute would hide a method"):
        _define(**{method: sa.Column(sa.String)})

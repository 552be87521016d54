"""Policies: what they take, where they are declared, and what goes before what."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from chrononaut import OptionError, Retention, Versioned, VersionedSQLAlchemy
from chrononaut.history import Versioning, versioned_models, versioning_of
from chrononaut.policies import policies
from chrononaut.purging import Purge
from chrononaut.retention import read_setting
from tests.library.models import define

TEN = Retention(versions=10)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, ValueError, "says nothing of what is kept; give versions, days, daily_after, or some of them"),
        ({"held": "name"}, ValueError, "says nothing"),
        ({"versions": -1}, ValueError, "versions must be 0 to 2147483647, not -1"),
        ({"days": 365_001}, ValueError, "days must be 0 to 365000, not 365001"),
        ({"days": 1.5}, TypeError, "days must be a whole number, not 1.5"),
        ({"versions": True}, TypeError, "versions must be a whole number, not True"),
        ({"days": 30, "daily_after": 30}, ValueError, "daily_after must be less than days, 30"),
        ({"versions": 1, "held": 1}, TypeError, "held must be the name of an attribute, or a function, not 1"),
    ],
)
def test_wrong_policy_is_refused(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Retention(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{", "is no JSON: "),
        ("[]", "must have a policy for each of some models"),
        ('{"User": 10}', 'the policy of User: must be a Retention, or a mapping as {"versions": 10}, not 10'),
        (
            '{"User": {"version": 10}}',
            "the policy of User: has no 'version'; there are versions, days, daily_after, held",
        ),
        ('{"User": {"versions": "10"}}', "the policy of User: versions must be a whole number, not '10'"),
        ({"User": {}}, "the policy of User: says nothing of what is kept"),
    ],
)
def test_wrong_setting_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        read_setting(given)
    assert str(refused.value).startswith(message)
    database, app = VersionedSQLAlchemy(), Flask("retention")
    app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://", CHRONONAUT_RETENTION=given)
    with pytest.raises(ValueError, match=r"^CHRONONAUT_RETENTION "):
        database.init_app(app)


def test_setting_is_text_or_a_mapping() -> None:
    assert read_setting('{"User": {"versions": 10}}') == read_setting({"User": TEN}) == {"User": TEN}


def _models(database: VersionedSQLAlchemy) -> list[Versioning]:
    base: Any = database.Model
    return [*versioned_models(base.registry)]


def test_setting_goes_before_what_a_model_declares() -> None:
    database = VersionedSQLAlchemy()
    columns: Any = {"id": sa.Column(sa.Integer, primary_key=True)}
    note = define(database, "Note", __tablename__="note", __chrononaut_retention__=TEN, **columns)
    columns = {"id": sa.Column(sa.Integer, primary_key=True)}
    page = define(database, "Page", __tablename__="page", **columns)
    assert policies(_models(database), {}) == {versioning_of(note): TEN}
    setting = {"Page": Retention(days=1), "Note": Retention(days=2)}
    found = policies(_models(database), setting)
    assert found == {versioning_of(note): Retention(days=2), versioning_of(page): Retention(days=1)}
    with pytest.raises(
        OptionError, match=r"Nothing.CHRONONAUT_RETENTION: no model of this name .*; there are Note, Page"
    ):
        policies(_models(database), {"Nothing": TEN})
    with pytest.raises(OptionError, match=r"Page.CHRONONAUT_RETENTION: held must name a tracked attribute, not 'hold'"):
        policies(_models(database), {"Page": Retention(versions=1, held="hold")})


def test_setting_lets_what_a_model_holds_be_held() -> None:
    database = VersionedSQLAlchemy()
    columns: Any = {name: sa.Column(sa.Integer, primary_key=name == "id") for name in ("id", "hold", "case")}
    held = Retention(versions=5, held="hold")
    note = define(database, "Note", __tablename__="note", __chrononaut_retention__=held, **columns)
    for given, expected in (
        (Retention(versions=0), Retention(versions=0, held="hold")),
        (Retention(versions=0, held="case"), Retention(versions=0, held="case")),
    ):
        assert policies(_models(database), {"Note": given}) == {versioning_of(note): expected}


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (lambda _: None, "held must make a criterion of SQL of Note, as .*, not None"),
        (lambda _: True, "held must make a criterion of SQL of Note"),
        (lambda note: note.nope, "held cannot be told of Note: .*nope"),
        # What only the model has holds no deleted record.
        (lambda note: note.secret == "x", "held cannot be told of NoteHistory: "),
    ],
)
def test_what_is_held_must_be_told_by_sql(held: Any, message: str) -> None:
    database = VersionedSQLAlchemy()
    columns: Any = {"id": sa.Column(sa.Integer, primary_key=True), "secret": sa.Column(sa.String)}
    note = define(database, "Note", __tablename__="note", __chrononaut_hidden__=["secret"], **columns)
    retention = Retention(versions=1, held=held)
    with pytest.raises(OptionError, match=message):
        policies(_models(database), {"Note": retention})
    with pytest.raises(OptionError, match=message):
        Purge(note, retention)


def test_policy_of_a_purge_is_a_retention() -> None:
    database = VersionedSQLAlchemy()
    note: Any = define(database, "Note", __tablename__="note", id=sa.Column(sa.Integer, primary_key=True))
    for given in ({"versions": 1}, None):
        with pytest.raises(TypeError, match="what is kept is said by a Retention, not by "):
            Purge(note, given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"versions": 10}, r"Note.__chrononaut_retention__: must be a Retention, as Retention\(versions=10\), not {"),
        (Retention(versions=1, held="secret"), "held must name a tracked attribute, not 'secret'; there are id"),
    ],
)
def test_wrong_option_is_refused_when_the_class_is_defined(option: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        define(
            VersionedSQLAlchemy(),
            "Note",
            __tablename__="note",
            __chrononaut_retention__=option,
            __chrononaut_hidden__=["secret"],
            id=sa.Column(sa.Integer, primary_key=True),
            secret=sa.Column(sa.String),
        )


def _hierarchy(**options: Any) -> VersionedSQLAlchemy:
    database: Any = VersionedSQLAlchemy()
    root = define(
        database,
        "Root",
        __tablename__="root",
        __chrononaut_retention__=TEN,
        __mapper_args__={"polymorphic_on": "kind", "polymorphic_identity": "root"},
        id=sa.Column(sa.Integer, primary_key=True),
        kind=sa.Column(sa.String),
    )
    joined = {"__tablename__": "joined", "id": sa.Column(sa.ForeignKey("root.id"), primary_key=True)}
    type("Joined", (root,), {"__mapper_args__": {"polymorphic_identity": "joined"}, **joined})
    type("Single", (root,), {"__mapper_args__": {"polymorphic_identity": "single"}, **options})
    versioned: VersionedSQLAlchemy = database
    return versioned


def test_records_of_one_table_have_one_policy() -> None:
    database = _hierarchy()
    assert {one.name: policy for one, policy in policies(_models(database), {}).items()} == {"Root": TEN}
    for name in ("Joined", "Single"):
        with pytest.raises(OptionError, match="it is purged with Root, which it inherits from"):
            policies(_models(database), {name: TEN})
    with pytest.raises(OptionError, match=r"Single.__chrononaut_retention__: its records are purged as those of"):
        _hierarchy(__chrononaut_retention__=Retention(versions=1))


def test_concrete_models_each_have_a_policy_and_are_purged_by_themselves(
    open_database: Callable[..., Session],
) -> None:
    database: Any = VersionedSQLAlchemy()

    class Root(database.Model, Versioned):  # type: ignore[misc]
        __tablename__ = "root"
        __chrononaut_retention__ = TEN
        id = sa.Column(sa.Integer, primary_key=True)
        name = sa.Column(sa.String)

    class Leaf(Root):
        __tablename__ = "leaf"
        __chrononaut_retention__ = Retention(versions=1)
        __mapper_args__ = {"concrete": True}  # noqa: RUF012
        id = sa.Column(sa.Integer, primary_key=True)
        name = sa.Column(sa.String)

    session = open_database(database)
    pair: list[Any] = [Root(id=1), Leaf(id=1)]
    session.add_all(pair)
    session.commit()
    for name in "abc":
        for one in pair:
            one.name = name
        session.commit()
    found = policies(_models(database), {})
    assert {one.name: policy for one, policy in found.items()} == {"Root": TEN, "Leaf": Retention(versions=1)}
    for one, policy in found.items():
        list(Purge(one.model, policy).run(database.engine))
    assert [[version.version for version in one.versions()] for one in pair] == [[0, 1, 2], [2]]

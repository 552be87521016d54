"""Compiled dumpers give what the schemas give that they are made of."""

from datetime import UTC
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from marshmallow import Schema, fields, post_dump, pre_dump

from app import create_app
from app.dumping import dumper
from app.fields import Text
from app.instants import Instant
from tests.service import own_models

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_OF_FORM: dict[str, st.SearchStrategy[Any]] = {
    "date-time-local": st.datetimes(),
    "date": st.dates(),
    "time-local": st.times(),
    "uuid": st.uuids(),
    "decimal": st.decimals(allow_nan=False, allow_infinity=False) | st.integers(),
    "byte": st.binary(),
}
_OF_FIELD: tuple[tuple[type[fields.Field[Any]], st.SearchStrategy[Any]], ...] = (
    (Instant, st.datetimes(timezones=st.just(UTC))),
    (fields.TimeDelta, st.timedeltas()),
    (fields.UUID, st.uuids() | st.text()),
    (fields.Boolean, st.booleans()),
    (fields.Integer, st.integers() | st.booleans() | st.just(Decimal(3)) | st.just("7")),
    (fields.Number, st.floats() | st.integers() | st.just(Decimal("1.5"))),
    (fields.String, st.text() | st.just(b"bytes") | st.integers() | st.booleans()),
)


def _values(field: Any) -> st.SearchStrategy[Any]:
    """Values that a field may have to dump."""
    values: st.SearchStrategy[Any]
    match field:
        case fields.Nested() if type(field) is fields.Nested:
            values = _documents(field.schema)
        case fields.List():
            values = st.lists(_values(field.inner), max_size=3)
        case fields.Dict(value_field=None):
            values = st.dictionaries(st.text(), _JSON, max_size=2)
        case fields.Dict():
            values = st.dictionaries(_values(field.key_field), _values(field.value_field), max_size=2)
        case fields.Enum():
            values = st.sampled_from(field.enum)
        case Text():
            values = _OF_FORM[field.form.format]
        case _:
            values = next((values for kind, values in _OF_FIELD if isinstance(field, kind)), _JSON)
    return st.none() | values


def _documents(schema: Schema) -> st.SearchStrategy[dict[str, Any]]:
    """Documents for a schema to dump; fields may be missing."""
    values = {field.attribute or name: _values(field) for name, field in schema.fields.items()}
    # In the place of those, marshmallow dumps the method of that name.
    required = {name: values[name] for name in values if hasattr(dict, name)}
    optional = {name: values[name] for name in values if name not in required}
    return st.fixed_dictionaries(required, optional=optional) | st.fixed_dictionaries(values)


def _answers(app: Flask) -> dict[str, Schema]:
    """The schemas of all that an application answers with, by the names of its operations."""
    told = {name: getattr(view, "_apidoc", {}) for name, view in app.view_functions.items()}
    return {
        name: one["schema"]
        for name, of_view in told.items()
        for answers in of_view.get("response", {}).get("responses", {}).values()
        for one in answers
        if isinstance(one.get("schema"), Schema)
    }


@pytest.fixture(scope="module")
def schemas() -> dict[str, Schema]:
    environment = {"SECRET_KEY": "a key for tests only", "DATABASE_URL": "sqlite://"}
    own = {"CHRONONAUT_MODELS": own_models.__name__, "CHRONONAUT_DB": f"{own_models.__name__}:db"}
    return _answers(create_app(environment)) | _answers(create_app(environment | own))


def test_answers_of_all_operations_are_dumped_as_their_schemas_dump_them(schemas: dict[str, Schema]) -> None:
    dumps = {name: dumper(type(schema)) for name, schema in schemas.items()}
    documents = {name: _documents(schema) for name, schema in schemas.items()}
    assert {"user.list_user_versions", "specimen.diff_specimen_versions", "parcel.change_parcel"} <= dumps.keys()

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(data=st.data(), name=st.sampled_from(sorted(dumps)))
    def dumped_alike(data: Any, name: str) -> None:
        document = data.draw(documents[name])

        # By their texts: 1 and True, or 0.0 and -0.0, are equal, and the order of the keys would not count.
        assert repr(dumps[name](document)) == repr(schemas[name].dump(document))

    dumped_alike()


class _Loud(fields.String):
    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        return f"{value}! of {sorted(obj)}"


class _Doubled(fields.Integer):
    def _format_num(self, value: Any) -> int:
        return 2 * int(value)


class _Hooked(Schema):
    text = fields.String()

    @pre_dump
    def before(self, data: Any, **kwargs: Any) -> Any:
        return {"text": data}

    @post_dump
    def after(self, data: Any, **kwargs: Any) -> Any:
        return data | {"hooked": True}


class _Simple(Schema):
    text = fields.String()


class _Odd(Schema):
    """Fields that see more than a value, or dump it in another way than the kind of field that they are of."""

    loud = _Loud()
    doubled = _Doubled()
    text = fields.Integer(as_string=True)
    method = fields.Method("of_document")
    function = fields.Function(sorted)
    constant = fields.Constant("always")
    default = fields.String(dump_default="by default")
    made = fields.Integer(dump_default=lambda: 7)
    renamed = fields.String(attribute="other", data_key="told")
    deep = fields.String(attribute="inner.loud")
    secret = fields.String(load_only=True)
    items = fields.String()
    plucked = fields.Pluck(_Hooked, "text")
    again = fields.Nested(lambda: _Odd(only=("loud", "again")))
    lists = fields.List(fields.List(_Loud()))
    several = fields.Nested(_Hooked, many=True)
    some = fields.Nested(_Simple, many=True)
    others = fields.Nested(_Simple(many=True))
    named = fields.Dict(keys=fields.Integer(), values=fields.Nested(_Hooked))
    bare = fields.Dict()

    def of_document(self, document: Any) -> int:
        return len(document)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"loud": "a", "doubled": 3, "text": 4, "default": "given", "made": None, "other": "b", "secret": "c"},
        {"inner": {"loud": "deep"}, "items": "d", "again": {"loud": "e", "again": {"loud": "f", "again": None}}},
        {
            "plucked": "l",
            "lists": [["g", "h"], None],
            "several": ["i", "j"],
            "bare": {1: 2},
            "named": {"1": "k"},
        },
        {"some": [{"text": "m"}, {}], "others": [{"text": 1}]},
        {"lists": None, "several": None, "some": None, "others": None, "named": None, "again": None},
    ],
)
def test_odd_fields_are_dumped_as_their_schema_dumps_them(document: dict[str, Any]) -> None:
    assert repr(dumper(_Odd)(document)) == repr(_Odd().dump(document))

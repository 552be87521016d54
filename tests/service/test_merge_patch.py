"""``PATCH`` is a JSON merge patch (RFC 7396)."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.merge_patch import is_same, merged
from tests.service.api import Api, assert_problem

# Appendix A of RFC 7396: the original, the patch, the result.
RFC_7396 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]
WHY = {"X-Change-Ticket": "OPS-1", "X-Change-Rationale": "why"}

_SCALARS = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a"])
JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396)
def test_examples_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merged(target, patch) == result


def _leaves(value: Any, *path: str) -> dict[tuple[str, ...], Any]:
    """Path → what is there, of all that is no object with members."""
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {leaf: found for name in value for leaf, found in _leaves(value[name], *path, name).items()}


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


@given(JSON, JSON)
def test_result_has_what_the_patch_says_and_else_what_was_there(target: Any, patch: Any) -> None:
    before, sent = deepcopy(target), deepcopy(patch)
    result = merged(target, patch)
    assert (target, patch) == (before, sent)
    if not isinstance(patch, dict):
        assert is_same(result, patch)
        return
    for path, value in _leaves(patch).items():
        found = _at(result, path)
        if value == {}:
            assert isinstance(found, dict) or not path
        else:
            assert is_same(found, value)
            assert value is not None or path[-1] not in _at(result, path[:-1])
    touched = [*_leaves(patch)]
    for path, value in _leaves(result).items():
        said = any(path[: len(one)] == one or one[: len(path)] == path for one in touched)
        assert said or is_same(value, _at(target, path))
    for path, value in _leaves(target if isinstance(target, dict) else {}).items():
        if not any(path[: len(one)] == one or one[: len(path)] == path for one in touched):
            is_replaced = any(not isinstance(_at(patch, path[:end]), dict | None) for end in range(len(path)))
            assert is_replaced or is_same(_at(result, path), value)


@given(JSON, JSON)
def test_values_are_the_same_if_their_documents_are(one: Any, other: Any) -> None:
    assert is_same(one, other) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


@pytest.fixture
def invoice(own_api: Api) -> Api:
    """The service, with an invoice of the key 1."""
    own_api.headers |= WHY
    own_api.post("/records/invoice", {"amount": 5, "number": "n", "details": {"a": {"b": 1, "c": [1, {"d": 2}]}}})
    (found,) = own_api.get("/records/invoice")["records"]
    own_api.invoice = f"/records/invoice/{found['key']}"  # type: ignore[attr-defined]
    return own_api


def _patched(invoice: Any, patch: Any) -> Any:
    answer = invoice.patch(invoice.invoice, patch)
    assert invoice.get(invoice.invoice) == answer
    return answer


def test_objects_in_a_column_are_merged(invoice: Api) -> None:
    answer = _patched(invoice, {"details": {"a": {"b": None, "e": {"f": None}}, "g": 1}})
    assert answer["state"]["details"] == {"a": {"c": [1, {"d": 2}], "e": {}}, "g": 1}
    assert (answer["version"], answer["state"]["amount"]) == (1, 5)


def test_arrays_and_scalars_in_a_column_are_replaced(invoice: Api) -> None:
    assert _patched(invoice, {"details": {"a": {"c": [{"x": None}]}}})["state"]["details"]["a"]["c"] == [{"x": None}]
    assert _patched(invoice, {"details": 7})["state"]["details"] == 7
    assert _patched(invoice, {"details": {"a": None, "b": 1}})["state"]["details"] == {"b": 1}


def test_null_clears_a_column_and_an_object_fills_it_again(invoice: Api) -> None:
    assert _patched(invoice, {"details": None})["state"]["details"] is None
    assert _patched(invoice, {"details": {"a": {"b": None}}})["state"]["details"] == {"a": {}}


def test_null_for_a_column_that_cannot_be_empty_is_refused(invoice: Any) -> None:
    problem = assert_problem(invoice.call("PATCH", invoice.invoice, {"amount": None}), 422, "invalid")
    assert "amount" in problem["errors"]["json"]


@pytest.mark.parametrize("patch", [{}, {"amount": 5}, {"details": {}}, {"details": {"a": {"b": 1, "x": None}}}])
def test_patch_that_changes_nothing_makes_no_version(invoice: Api, patch: Any) -> None:
    assert _patched(invoice, patch)["version"] == 0


def test_true_is_another_value_than_1(invoice: Api) -> None:
    answer = _patched(invoice, {"details": {"a": {"b": True}}})
    assert answer["version"] == 1
    assert answer["state"]["details"]["a"]["b"] is True


def test_replacement_merges_nothing(invoice: Any) -> None:
    answer = invoice.put(invoice.invoice, {"amount": 5, "details": {"z": None}})
    assert answer["state"]["details"] == {"z": None}
    assert answer["state"]["number"] is None


def test_each_version_keeps_what_the_patch_replaced(invoice: Any) -> None:
    _patched(invoice, {"details": {"a": {"b": 2}}})
    _patched(invoice, {"details": {"a": None}})
    versions = invoice.get(invoice.invoice.replace("records", "history"))["versions"]
    assert [version["state"]["details"] for version in versions] == [
        {"a": {"b": 1, "c": [1, {"d": 2}]}},
        {"a": {"b": 2, "c": [1, {"d": 2}]}},
    ]

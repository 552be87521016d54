"""Diffs as JSON Patch (RFC 6902)."""

import json
from itertools import combinations_with_replacement, count
from typing import Any

import jsonpatch
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.api import Api, assert_problem

_PATCH = "application/json-patch+json"
_NUMBERS = count()


def _patch(api: Api, path: str) -> Any:
    response = api.call("GET", path, headers={"Accept": _PATCH})
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == _PATCH
    assert "Accept" in response.vary
    return json.loads(response.text)


@pytest.fixture
def history(api: Api) -> str:
    """The path of a user's history of three versions; with the last one only the password changed."""
    created = api.post("/records/user", {"email": "ada@exmaple.com", "name": "Ada", "password_hash": "secret-one"})
    api.patch(created["links"]["record"], {"email": "ada@example.com", "active": False})
    api.patch(created["links"]["record"], {"password_hash": "secret-two"})
    path: str = created["links"]["history"]
    return path


_STATES = st.fixed_dictionaries(
    {
        "end_of_life": st.none() | st.booleans() | st.sampled_from(["1", "0", "True", "~1/0"]),
        "label": st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=5),
        "lts": st.none() | st.booleans(),
    }
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=st.lists(_STATES, min_size=1, max_size=4), deleted=st.booleans())
def test_patch_makes_every_state_into_every_later_one(api: Api, states: list[dict[str, Any]], deleted: bool) -> None:
    key = {"product": f"product {next(_NUMBERS)}", "cycle": "1"}
    links = api.post("/records/release", key | states[0])["links"]
    for state in states[1:]:
        api.patch(links["record"], state)
    last = api.get(links["record"])["version"]
    if deleted:
        api.delete(links["record"])
    served = [api.get(f"{links['history']}/versions/{number}")["state"] for number in range(last + 1)]
    for from_, to in combinations_with_replacement(range(last + 1), 2):
        patch = _patch(api, f"{links['history']}/diff?from={from_}&to={to}")
        made = jsonpatch.apply_patch(served[from_], patch)
        # As JSON: True equals 1 in Python.
        assert json.dumps(made, sort_keys=True) == json.dumps(served[to], sort_keys=True)
        assert bool(patch) is (from_ != to and served[from_] != served[to])


def test_patch_to_the_live_state_and_from_an_instant(api: Api, history: str) -> None:
    page = api.get(history)
    first, live = page["versions"][0], page["current"]
    for query in ("from=0", f"from={first['valid_from']}", "from=0&to=2"):
        assert jsonpatch.apply_patch(first["state"], _patch(api, f"{history}/diff?{query}")) == live["state"]


def test_hidden_column_is_never_in_a_patch(api: Api, history: str) -> None:
    assert _patch(api, f"{history}/diff?from=1&to=2&include_hidden=true") == []
    response = api.call("GET", f"{history}/diff?from=0&include_hidden=true", headers={"Accept": _PATCH})
    assert "password" not in response.text
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("application/json;charset=utf-8", "application/json"),
        ("application/json-patch+json; charset=utf-8", _PATCH),
        ("application/json;charset=utf-8;q=0.5, application/json-patch+json ; charset=utf-8;q=0.6", _PATCH),
        ("application/*;charset=utf-8;q=0.1, application/json-patch+json", _PATCH),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/json-patch+json;q=0.5, application/json", "application/json"),
        ("application/json;q=0.5, application/json-patch+json", _PATCH),
        ("application/json-patch+json, */*;q=0.1", _PATCH),
        ("application/json;q=0, */*", _PATCH),
    ],
)
def test_answer_is_of_the_type_that_the_client_prefers(
    api: Api, history: str, accept: str | None, media_type: str
) -> None:
    response = api.call("GET", f"{history}/diff?from=0", headers={} if accept is None else {"Accept": accept})
    assert (response.status_code, response.mimetype) == (200, media_type)
    assert "Accept" in response.vary


@pytest.mark.parametrize(
    "accept",
    ["text/html", "application/json;q=0", "application/json;charset=utf-8;q=0", "no/type", "application/link-format"],
)
def test_other_types_are_not_acceptable(api: Api, history: str, accept: str) -> None:
    response = api.call("GET", f"{history}/diff?from=0", headers={"Accept": accept})
    problem = assert_problem(response, 406, "not-acceptable")
    assert _PATCH in problem["detail"]
    assert "Accept" in response.vary


def test_wrong_patch_is_refused_as_a_wrong_diff(api: Api, history: str) -> None:
    accept = {"Accept": _PATCH}
    assert_problem(api.call("GET", f"{history}/diff?from=1&to=0", headers=accept), 422, "invalid")
    assert_problem(api.call("GET", f"{history}/diff?from=9", headers=accept), 404, "unknown-version")
    assert_problem(api.call("GET", "/history/user/2147483647/diff?from=0", headers=accept), 404, "unknown-record")

"""What is too much is refused by its size, and what is just not too much is taken."""

import pytest
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin

from app.bounds import LONGEST_ADDRESS, LONGEST_BODY, MOST_PARAMETERS
from app.pages import LONGEST_CURSOR, MOST, cursor_field, limit_field
from tests.service.api import Api, assert_problem

_HUGE = "9" * 1024 * 1024


@pytest.mark.parametrize(
    "path",
    [
        f"/records/user/{_HUGE}",
        f"/history/release/{_HUGE},1",
        f"/history/user/1/versions/{_HUGE}",
        f"/records/user?cursor={_HUGE}",
        f"/records/user?as_of={_HUGE}",
        f"/records/user?{'&'.join(f'a{n}=1' for n in range(10_000))}",
        f"/{_HUGE}",
    ],
)
def test_address_that_is_too_long_is_refused(api: Api, path: str) -> None:
    problem = assert_problem(api.call("GET", path), 414, "uri-too-long")
    assert str(LONGEST_ADDRESS) in problem["detail"]
    assert len(str(problem)) < 500


def test_address_of_the_greatest_length_is_taken(api: Api) -> None:
    path = "/records/release/"
    longest = path + "a" * (LONGEST_ADDRESS - len(path))
    assert_problem(api.call("GET", longest), 404, "unknown-record")
    assert_problem(api.call("GET", longest + "a"), 414, "uri-too-long")


@pytest.mark.parametrize("form", ["extra.a{}=1", "a=1"])
def test_query_has_so_many_parameters_at_the_most(api: Api, form: str) -> None:
    query = "&".join(form.format(number) for number in range(MOST_PARAMETERS + 1))
    problem = assert_problem(api.call("GET", f"/history/user?{query}"), 422, "invalid")
    assert f"at most {MOST_PARAMETERS}" in problem["detail"]
    assert "errors" not in problem


def test_query_of_as_many_parameters_as_may_be_is_taken(api: Api) -> None:
    query = "&".join(f"extra.a{number}=1" for number in range(MOST_PARAMETERS))
    assert api.get(f"/history/user?{query}")["changes"] == []


def test_cursor_that_is_too_long_is_refused(api: Api) -> None:
    problem = assert_problem(api.call("GET", f"/records/user?cursor={'a' * (LONGEST_CURSOR + 1)}"), 422, "invalid")
    assert "Longer than maximum length" in problem["errors"]["query"]["cursor"][0]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/history/user/1/versions/{'9' * 5000}", 404),
        (f"/records/user/{'9' * 5000}", 404),
        (f"/records/user?limit={'9' * 5000}", 422),
        (f"/history/user/1/diff?from={'9' * 5000}", 422),
        (f"/transactions/{'9' * 5000}", 404),
    ],
)
def test_number_of_more_digits_than_are_read_is_a_problem(api: Api, path: str, status: int) -> None:
    response = api.call("GET", path)
    assert_problem(response, status, response.json["type"].removeprefix("/problems/"))


def test_body_of_the_greatest_length_is_taken(api: Api) -> None:
    created = api.post("/records/user", {"email": "ada@example.com"})
    headers = {**api.headers, "Content-Type": "application/json"}
    for length, status in ((LONGEST_BODY, 200), (LONGEST_BODY + 1, 413)):
        body = b'{"name": "Ada"' + b" " * (length - 15) + b"}"
        assert len(body) == length
        assert api.client.patch(created["links"]["record"], data=body, headers=headers).status_code == status


def test_bounds_of_parameters_are_documented() -> None:
    plugin = MarshmallowPlugin()
    APISpec("bounds", "1", "3.1.0", plugins=[plugin])
    assert plugin.converter is not None
    limit, cursor = (plugin.converter.field2property(field) for field in (limit_field(), cursor_field()))
    assert (limit["minimum"], limit["maximum"]) == (1, MOST)
    assert cursor["maxLength"] == LONGEST_CURSOR

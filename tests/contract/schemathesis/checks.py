"""What schemathesis checks besides its own: that requests are taken that fit the document."""

import json
from datetime import UTC, datetime
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance

# Requests that fit the schemas of their parts and are refused for what the parts are together, or for what no schema can
# say of text. Each is named by the kind of the problem and where it is; whatever else is refused is a failure.
_BEYOND_SCHEMAS: dict[tuple[str, str, str], str] = {
    ("/problems/invalid", "query", "cursor"): "a cursor is signed, and of the list that gave it",
    ("/problems/invalid", "query", "to"): "the later state of a difference is the second",
    ("/problems/invalid", "query", "as_of"): "as_of and Accept-Datetime both say of when",
    ("/problems/invalid", "json", "version"): "of a record that is not deleted, a restoration names the version",
}
# Of headers, which are bytes to HTTP and text to OpenAPI.
_OF_HEADERS = {
    "/problems/change-header-invalid": "a reason that is no UTF-8, or holds a control character",
    "/problems/malformed-request": "an Accept-Datetime that is no date",
}


def _is_beyond_schemas(response: Any) -> bool:
    try:
        problem = json.loads(response.content)
    except ValueError:
        return False
    if not isinstance(problem, dict):
        return False
    kind = problem.get("type")
    if kind == "/problems/malformed-request":
        return str(problem["detail"]).startswith("Accept-Datetime cannot be read")
    if kind in _OF_HEADERS:
        return True
    errors = problem.get("errors", {})
    named = {(kind, place, name) for place, wrong in errors.items() for name in wrong}
    return bool(named) and named <= _BEYOND_SCHEMAS.keys()

# A format of our own, of which a tool knows nothing: a version number or an instant.
schemathesis.openapi.format(
    "version-or-instant",
    st.integers(0, 10).map(str)
    | st.datetimes(datetime(2020, 1, 1), timezones=st.just(UTC)).map(datetime.isoformat),  # noqa: DTZ001
)


@schemathesis.check
def valid_requests_are_taken(context: Any, response: Any, case: Any) -> bool | None:
    """Is a request that fits the document taken?"""
    if _is_beyond_schemas(response):
        return None
    return bool(positive_data_acceptance(context, response, case))

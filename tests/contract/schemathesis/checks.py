"""What schemathesis checks besides its own: that requests are taken that fit the document."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance

# Requests that fit the schemas of their parts, and are refused for what no such schema can say. Each is known by what
# the answer says of it; whatever else is refused is a failure.
_BEYOND_SCHEMAS = {
    r"not a cursor of this list": "a cursor is signed, and of the list and the parameters that gave it",
    r"version -?\d+ is older than version -?\d+; swap them": "of two states, the second is the later one",
    r"given together with Accept-Datetime": "a query and a header that both say of when",
    r"missing, as the record is not deleted": "what to restore need not be said of a record that is deleted",
    r"holds NUL or a lone surrogate, which cannot be stored": "JSON has them in every text",
}
# Of headers, which are bytes to HTTP and text to OpenAPI.
_OF_HEADERS = {
    r"Accept-Datetime cannot be read: .*": "a date of HTTP is no format of JSON Schema",
    r"x-change-[a-z-]+ (is not UTF-8|holds a control character|begins as an RFC 8187 value and is none); .*": "bytes",
}


# Of items of a bulk write, which are refused as the same writes of single records are.
_OF_RECORDS = frozenset({404, 409, 410, 412})


def _is_beyond_schemas(response: Any) -> bool:
    try:
        problem = json.loads(response.content)
    except ValueError:
        return False
    if isinstance(problem, dict) and problem.get("type") == "/problems/bulk-invalid":
        problems = [item["problem"] for item in problem["items"]]
        return all(one["status"] in _OF_RECORDS or _tells_of_such(one) for one in problems)
    return _tells_of_such(problem)


def _tells_of_such(problem: Any) -> bool:
    if not isinstance(problem, dict):
        return False
    if any(re.fullmatch(detail, str(problem.get("detail"))) for detail in _OF_HEADERS):
        return True
    messages = list(_messages(problem.get("errors")))
    return bool(messages) and all(any(re.fullmatch(known, text) for known in _BEYOND_SCHEMAS) for text in messages)


def _messages(errors: Any) -> Iterator[str]:
    """What is said of each part of a request that is wrong, however deep it is."""
    if isinstance(errors, dict | list):
        for part in errors.values() if isinstance(errors, dict) else errors:
            yield from _messages(part)
    elif errors is not None:
        yield str(errors)


_NUMBERS = st.integers(0, 10).map(str)
_INSTANTS = st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
# A format of our own, of which no tool knows what fits it.
schemathesis.openapi.format("version-or-instant", _NUMBERS | _INSTANTS)


def valid_requests_are_taken(context: Any, response: Any, case: Any) -> bool | None:
    """Is a request that fits the document taken?"""
    if _is_beyond_schemas(response):
        return None
    return bool(positive_data_acceptance(context, response, case))


schemathesis.check(valid_requests_are_taken)

"""``X-Change-*`` headers → extra change info."""

import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.change_headers import ChangeHeaderError, change_info_of
from tests.service.api import Api, assert_problem

_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60)


def _wsgi(text: str) -> str:
    """A header value as WSGI hands it over (PEP 3333)."""
    return text.encode().decode("latin-1")


@given(_TEXT)
def test_every_text_arrives_by_rfc_8187(text: str) -> None:
    assert change_info_of([("X-Change-Rationale", f"UTF-8''{quote(text, safe='')}")]) == {"change_rationale": text}


@given(_TEXT.filter(lambda text: not text.lower().startswith("utf-8'")))
def test_every_text_arrives_as_raw_utf_8(text: str) -> None:
    assert change_info_of([("X-Change-Rationale", _wsgi(text))]) == {"change_rationale": text}


def test_any_name_is_taken_and_other_headers_are_not() -> None:
    headers = [("X-CHANGE-Ticket-No", "7"), ("X-Changes", "a"), ("X-Change", "b"), ("User-Agent", "c")]
    assert change_info_of(headers) == {"change_ticket_no": "7"}


@pytest.mark.parametrize("value", ["utf-8'en'%E2%82%AC", "UTF-8''%e2%82%ac"])
def test_language_and_case_of_an_ext_value_do_not_matter(value: str) -> None:
    assert change_info_of([("X-Change-Rationale", value)]) == {"change_rationale": "€"}


@pytest.mark.parametrize("value", ["a\nb", "a\x7fb", "UTF-8''%C2%85", "UTF-8''%FF", "UTF-8'a b", "UTF-8''a b", "\xff"])
def test_what_cannot_be_taken_is_refused(value: str) -> None:
    with pytest.raises(ChangeHeaderError, match="x-change-rationale"):
        change_info_of([("X-Change-Rationale", value)])


@pytest.mark.parametrize("name", ["X-Change-", "X-Change---", "X-Change-Foo.Bar", "X-Change-Foo!", "X-Change-a_b"])
def test_name_of_other_characters_is_refused(name: str) -> None:
    with pytest.raises(ChangeHeaderError, match="a name of letters, digits and hyphens"):
        change_info_of([(name, "why")])


def test_document_says_which_names_are_taken(api: Api) -> None:
    told = api.get("/openapi.json")["components"]["parameters"]["X-Change-Rationale"]["x-open-set"]["namePattern"]
    for name, status in (("X-Change-Foo-1", 201), ("X-Change-Foo.Bar", 400), ("X-Change---", 400)):
        assert bool(re.search(told, name)) == (status == 201)
        sent = {name: "why"}
        response = api.call("POST", "/records/user", {"email": "a@example.com"}, headers=sent)
        assert response.status_code == status, response.text
    assert_problem(response, 400, "change-header-invalid")
    assert [one["change_info"]["extra"] for one in api.get("/history/user?extra.change_foo_1=why")["changes"]] == [
        {"change_foo_1": "why"}
    ]


def test_limits_are_inclusive() -> None:
    assert len(change_info_of([(f"X-Change-{number}", "") for number in range(16)])) == 16
    name = "X-Change-A"
    assert change_info_of([(name, "a" * (8192 - len(name)))])
    with pytest.raises(ChangeHeaderError, match="8193 bytes"):
        change_info_of([(name, "a" * (8193 - len(name)))])


def test_header_never_sets_user_or_address(api: Api) -> None:
    headers = {
        "X-Change-User-Id": "mallory",
        "X-User-Id": "mallory",
        "X-Forwarded-For": "6.6.6.6",
        "X-Request-ID": "r-1",
    }
    created = api.call("POST", "/records/user", {"email": "a@example.com"}, headers=headers)
    (change,) = api.get(f"{created.json['links']['history']}/changes")["changes"]
    assert change["change_info"] == {
        "user_id": "writer@example.com",
        "remote_addr": "127.0.0.1",
        "request_id": "r-1",
        "extra": {"change_user_id": "mallory"},
    }


def test_reason_of_one_request_is_not_in_the_next(api: Api) -> None:
    record = api.post("/records/user", {"email": "a@example.com"}, why="first")["links"]["record"]
    assert api.call("PATCH", record, {"nothing": 1}, why="refused").status_code == 422
    api.patch(record, {"name": "B"})
    (version,) = api.get(record.replace("/records", "/history"))["versions"]
    assert "extra" not in version["change_info"]

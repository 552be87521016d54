"""Memento (RFC 7089): the record is its own TimeGate, and each version a Memento. And links of versions (RFC 5829)."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.db import db
from app.instants import parse_instant
from app.memento import parse_accept_datetime
from app.models import Release
from chrononaut import history_model
from tests.service.api import Api, assert_problem
from tests.service.links import Link, links_by_relation, parse_link_document, parse_links

_BEGIN = datetime(2026, 3, 1, 9, 0, 0, 400_000, tzinfo=UTC)
_LINK_FORMAT = "application/link-format"
_NUMBERS = count()


@dataclass(frozen=True)
class _Life:
    """A release, and when each of its versions began; ``None`` if that is unknown."""

    record: str
    history: str
    began: dict[int, datetime | None]

    def memento(self, number: int) -> str:
        return f"{self.history}/versions/{number}"

    def date(self, number: int) -> str:
        began = self.began[number] or datetime(1970, 1, 1, tzinfo=UTC)
        return format_datetime(began.replace(microsecond=0), usegmt=True)

    def chosen(self, at: datetime) -> int:
        """The version that a TimeGate must choose: the last one whose datetime is not later, else the first."""
        second = at.replace(microsecond=0)
        begun = [number for number in self.began if parsedate_to_datetime(self.date(number)) <= second]
        return max(begun, default=min(self.began))


def _live(app: Flask, api: Api, operations: str, ends: list[datetime], *, unknown: bool = False) -> _Life:
    """A release whose changes were at given instants.

    :param operations: of each change the first letter: ``i``\\ nsert, ``u``\\ pdate, ``d``\\ elete
    :param unknown: was it there before it was versioned?
    """
    body = {"product": f"product {next(_NUMBERS)}", "cycle": "1, 2"}
    links: dict[str, str] = {}
    for number, operation in enumerate(operations):
        if operation == "i":
            links = api.post("/records/release", body)["links"]
        elif operation == "u":
            api.patch(links["record"], {"label": str(number)})
        else:
            api.delete(links["record"])
    rows: sa.Table = history_model(Release).__table__  # type: ignore[attr-defined]  # a mapped class has one
    of_record = rows.c.product == body["product"]
    with app.app_context(), db.engine.begin() as connection:
        for number, end in enumerate(ends, start=-1):
            connection.execute(sa.update(rows).where(of_record, rows.c.version == number).values(changed=end))
        if unknown:
            connection.execute(sa.delete(rows).where(of_record, rows.c.version == -1))
    began = {
        number: None if unknown and number == 0 else end
        for number, (operation, end) in enumerate(zip(operations, ends, strict=True))
        if operation != "d"
    }
    return _Life(links["record"], links["history"], began)


def _seconds(*after: float) -> list[datetime]:
    return [_BEGIN + timedelta(seconds=seconds) for seconds in after]


@pytest.fixture
def life(app: Flask, api: Api) -> _Life:
    """Four versions; the second and third began in one second."""
    return _live(app, api, "iuuu", _seconds(0, 10, 10.5, 20))


def _go(api: Api, life: _Life, at: str | datetime, method: str = "GET") -> Any:
    text = at if isinstance(at, str) else format_datetime(at, usegmt=True)
    return api.call(method, life.record, headers={"Accept-Datetime": text})


def _mementos(links: list[Link]) -> dict[str, tuple[str, str | None]]:
    """Of each relation that is one of a Memento: where it leads, and to which datetime."""
    return {
        " ".join(sorted(link.relations)): (link.target, link.datetime) for link in links if "memento" in link.relations
    }


@pytest.mark.parametrize(
    ("after", "chosen"), [(-3600, 0), (-1, 0), (0, 0), (9, 0), (10, 2), (11, 2), (19, 2), (20, 3), (10**8, 3)]
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_timegate_sends_to_what_was_valid_when_the_second_ended(
    api: Api, life: _Life, after: int, chosen: int, method: str
) -> None:
    response = _go(api, life, _BEGIN.replace(microsecond=0) + timedelta(seconds=after), method)
    assert (response.status_code, response.data) == (302, b"")
    assert response.headers["Location"] == life.memento(chosen)
    assert "Accept-Datetime" in response.vary
    assert "Memento-Datetime" not in response.headers  # only a Memento has one
    assert api.call("GET", life.memento(chosen)).headers["Memento-Datetime"] == life.date(chosen)


_STEPS = st.lists(
    st.tuples(st.sampled_from("uuud"), st.integers(0, 1_500_000)), max_size=6
)  # each a change and the microseconds before it


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS, unknown=st.booleans(), before=st.integers(0, 10**6))
def test_timegate_and_timemap_agree_with_the_changes(
    app: Flask, api: Api, steps: list[tuple[str, int]], unknown: bool, before: int
) -> None:
    """Also of a record that is deleted, or was and is there again; and for every second of its life."""
    operations, at = ["i"], _BEGIN + timedelta(microseconds=before)
    ends = [at]
    for operation, pause in steps:
        at += timedelta(microseconds=pause)
        operations.append("i" if operations[-1] == "d" else operation)
        ends.append(at)
    life = _live(app, api, "".join(operations), ends, unknown=unknown)
    numbers = list(life.began)

    timemap = api.call("GET", f"{life.history}/timemap", headers={"Accept": "application/json"}).json
    assert [memento["version"] for memento in timemap["mementos"]] == numbers
    valid_from = [memento["valid_from"] for memento in timemap["mementos"]]
    assert [text and parse_instant(text) for text in valid_from] == list(life.began.values())

    second = ends[0].replace(microsecond=0) - timedelta(seconds=2)
    while second <= ends[-1] + timedelta(seconds=2):
        chosen = life.chosen(second)
        response = _go(api, life, second)
        assert response.headers["Location"] == life.memento(chosen), second
        _check_mementos_around(life, chosen, parse_links(response.headers["Link"]))
        second += timedelta(seconds=1)
    for number in numbers:
        memento = api.call("GET", life.memento(number))
        assert memento.headers["Memento-Datetime"] == life.date(number)
        links = parse_links(memento.headers["Link"])
        _check_mementos_around(life, number, links)
        earlier = [life.memento(one) for one in numbers if one < number][-1:]
        later = [life.memento(one) for one in numbers if one > number][:1]
        for relation, expected in (
            ("predecessor-version", earlier),
            ("successor-version", later),
            ("latest-version", [life.memento(numbers[-1])]),
            ("version-history", [life.history]),
            ("original", [life.record]),
            ("timegate", [life.record]),
            ("timemap", [f"{life.history}/timemap"]),
        ):
            assert [link.target for link in links if relation in link.relations] == expected, relation


def _check_mementos_around(life: _Life, number: int, links: list[Link]) -> None:
    numbers = list(life.began)
    place = numbers.index(number)
    expected = {"first memento": 0, "memento prev": place - 1, "memento": place, "memento next": place + 1}
    expected["last memento"] = len(numbers) - 1
    assert _mementos(links) == {
        relation: (life.memento(numbers[index]), life.date(numbers[index]))
        for relation, index in expected.items()
        if 0 <= index < len(numbers)
    }


def test_record_tells_of_its_mementos_and_versions(api: Api, life: _Life) -> None:
    response = api.call("GET", life.record)
    assert response.status_code == 200
    assert "Accept-Datetime" in response.vary
    assert "Memento-Datetime" not in response.headers
    assert links_by_relation(response) == {
        "original": life.record,
        "timegate": life.record,
        "timemap": f"{life.history}/timemap",
        "version-history": life.history,
        "first memento": life.memento(0),
        "memento prev": life.memento(2),
        "memento": life.memento(3),
        "last memento": life.memento(3),
        "predecessor-version": life.memento(2),
        "latest-version": life.memento(3),
    }
    for target in set(links_by_relation(response).values()):
        assert api.call("GET", target).status_code == 200


def test_deleted_record_is_still_a_timegate(app: Flask, api: Api) -> None:
    life = _live(app, api, "iud", _seconds(0, 10, 20))
    gone = api.call("GET", life.record)
    assert_problem(gone, 410, "deleted")
    assert "Accept-Datetime" in gone.vary
    links = links_by_relation(gone)
    assert (links["timegate"], links["timemap"]) == (life.record, f"{life.history}/timemap")
    assert _go(api, life, _BEGIN).headers["Location"] == life.memento(0)
    last = _go(api, life, _BEGIN + timedelta(days=1))
    assert last.headers["Location"] == life.memento(1)  # the last one
    assert api.get(last.headers["Location"])["operation"] == "delete"


def test_version_from_before_versioning_is_taken_to_have_always_been(app: Flask, api: Api) -> None:
    life = _live(app, api, "iu", _seconds(0, 10), unknown=True)
    response = _go(api, life, datetime(1970, 1, 1, tzinfo=UTC))
    assert response.headers["Location"] == life.memento(0)
    memento = api.call("GET", life.memento(0))
    assert memento.headers["Memento-Datetime"] == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert memento.json["valid_from"] is None
    # As by the resource that tells the state of an instant exactly.
    assert api.get(f"{life.history}/version_at?at=1970-01-01T00:00:00Z")["version"] == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-03-01T09:00:00Z",
        "Sun, 1 Mar 2026 09:00:00 GMT",
        "Mon, 01 Mar 2026 09:00:00 GMT",  # a Sunday
        "Sun, 01 Mar 2026 09:00:00 +0000",
        "Sun, 01 Mar 2026 09:00:00",
        "sun, 01 mar 2026 09:00:00 gmt",
        "Sunday, 01-Mar-26 09:00:00 GMT",
        "Sun Mar  1 09:00:00 2026",
        "Sun, 30 Feb 2026 09:00:00 GMT",
        "Sun, 01 Mar 2026 24:00:00 GMT",
        "Sat, 01 Jan 0000 00:00:00 GMT",
        "Sun, 01 Mar 2026 09:00:00 GMT, Sun, 01 Mar 2026 09:00:00 GMT",
        "Sun, \u0660\u0661 Mar 2026 09:00:00 GMT".encode().decode("latin-1"),
    ],
)
def test_malformed_datetime_is_refused(api: Api, life: _Life, text: str) -> None:
    problem = assert_problem(_go(api, life, text), 400, "malformed-request")
    assert "Tue, 20 Mar 2001 20:35:00 GMT" in problem["detail"]


def test_timegate_of_what_never_was_is_unknown(api: Api) -> None:
    headers = {"Accept-Datetime": "Sun, 01 Mar 2026 09:00:00 GMT"}
    assert_problem(api.call("GET", "/records/release/never,was", headers=headers), 404, "unknown-record")
    assert_problem(api.call("GET", "/history/release/never,was/timemap"), 404, "unknown-record")


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_datetime_is_read_as_the_end_of_its_second(at: datetime) -> None:
    # Written by the standard library, read by us.
    assert parse_accept_datetime(format_datetime(at, usegmt=True)) == at.replace(microsecond=999_999)


@given(st.text(max_size=40) | st.from_regex(r"\A\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\Z"))
def test_every_text_is_read_as_written_or_refused(text: str) -> None:
    try:
        at = parse_accept_datetime(text)
    except ValueError:
        return
    assert format_datetime(at, usegmt=True) == text


def test_timemap_in_link_format(api: Api, life: _Life) -> None:
    path = f"{life.history}/timemap"
    response = api.call("GET", path)
    assert response.headers["Content-Type"] == _LINK_FORMAT
    assert "Accept" in response.vary
    links = parse_link_document(response.text)
    of_resources = {"original": life.record, "timegate": life.record, "self": path}
    assert {" ".join(link.relations): link.target for link in links[:3]} == of_resources
    assert links[2].parameters == {"type": _LINK_FORMAT, "from": life.date(0), "until": life.date(3)}
    assert [(link.target, link.datetime, sorted(link.relations)) for link in links[3:]] == [
        (life.memento(0), life.date(0), ["first", "memento"]),
        (life.memento(1), life.date(1), ["memento"]),
        (life.memento(2), life.date(2), ["memento"]),
        (life.memento(3), life.date(3), ["last", "memento"]),
    ]


def test_timemap_of_one_version_is_of_the_first_and_last_one(app: Flask, api: Api) -> None:
    life = _live(app, api, "i", _seconds(0))
    *_, only = parse_link_document(api.call("GET", f"{life.history}/timemap").text)
    assert (only.target, sorted(only.relations)) == (life.memento(0), ["first", "last", "memento"])


def test_timemap_in_json(api: Api, life: _Life) -> None:
    response = api.call("GET", f"{life.history}/timemap?limit=2", headers={"Accept": "application/json"})
    timemap = response.json
    assert "Accept" in response.vary
    assert (timemap["original"], timemap["timegate"]) == (life.record, life.record)
    assert timemap["self"] == f"{life.history}/timemap?limit=2"
    assert (timemap["from"], timemap["until"]) == ("2026-03-01T09:00:00.000000Z", "2026-03-01T09:00:10.000000Z")
    assert timemap["mementos"][1] == {
        "version": 1,
        "datetime": "2026-03-01T09:00:10.000000Z",
        "valid_from": "2026-03-01T09:00:10.400000Z",
        "changed": "2026-03-01T09:00:10.900000Z",
        "link": life.memento(1),
    }


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_pages_of_a_timemap_lead_to_each_memento_once(api: Api, life: _Life, limit: int) -> None:
    path: str | None = f"{life.history}/timemap?limit={limit}"
    announced: dict[str, str] | None = None
    mementos: list[Link] = []
    while path:
        response = api.call("GET", path)
        links = parse_link_document(response.text)
        (self,) = (link for link in links if "self" in link.relations)
        assert self.target == path
        page = [link for link in links if "memento" in link.relations]
        assert len(page) <= limit
        period = {"from": page[0].datetime, "until": page[-1].datetime}
        assert self.parameters == {"type": _LINK_FORMAT, **period}
        assert announced in (None, self.parameters)
        following = [link for link in links if "timemap" in link.relations]
        announced = following[0].parameters if following else None
        path = following[0].target if following else None
        assert [link.target for link in following] == (
            [links_by_relation(response)["next"]] if "Link" in response.headers else []
        )
        mementos += page
    assert [link.target for link in mementos] == [life.memento(number) for number in range(4)]
    assert [link.relations - {"memento"} for link in mementos] == [{"first"}, set(), set(), {"last"}]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", _LINK_FORMAT),
        ("application/link-format; charset=utf-8", _LINK_FORMAT),
        ("application/json;charset=utf-8", "application/json"),
    ],
)
def test_parameters_of_an_accepted_type_are_passed_over(api: Api, life: _Life, accept: str, media_type: str) -> None:
    response = api.call("GET", f"{life.history}/timemap", headers={"Accept": accept})
    assert (response.status_code, response.mimetype) == (200, media_type)


def test_timemap_of_another_type_is_not_acceptable(api: Api, life: _Life) -> None:
    response = api.call("GET", f"{life.history}/timemap", headers={"Accept": "text/html"})
    assert_problem(response, 406, "not-acceptable")
    assert "Accept" in response.vary


def test_datetime_is_given_once(api: Api, life: _Life) -> None:
    sent = {"Accept-Datetime": life.date(0)}
    response = api.call("GET", f"{life.record}?as_of=2026-03-01T09:00:00Z", headers=sent)
    problem = assert_problem(response, 422, "invalid")
    assert "one of the two" in problem["detail"]
    assert problem["errors"]["query"].keys() == {"as_of"}


def test_cursor_of_another_timemap_is_refused(app: Flask, api: Api, life: _Life) -> None:
    other = _live(app, api, "iu", _seconds(0, 1))
    path = f"{other.history}/timemap?limit=1"
    cursor = api.call("GET", path, headers={"Accept": "application/json"}).json["next"]
    assert_problem(api.call("GET", f"{life.history}/timemap?cursor={cursor}"), 422, "invalid")

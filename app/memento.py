"""Memento (RFC 7089) and links between versions (RFC 5829): datetimes and links. Pure.

A datetime of Memento has seconds only, the validity of a version microseconds. A version's datetime is its beginning
cut to the second, and a client that asks for a datetime gets the last version whose datetime is not later: what was
valid when that second ended. So the datetime of a Memento leads back to it, or to the last one of the same second; the
others of that second are reached by the TimeMap and by the links between them.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime

from app.links import LINK_FORMAT, Link
from chrononaut import Place, Span

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_RFC_1123 = re.compile(rf"\w{{3}}, (\d\d) ({'|'.join(_MONTHS)}) (\d{{4}}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII)
# The datetime of a version that was there before its record was versioned, and is taken to have always been.
_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)


def http_datetime(at: datetime) -> str:
    """An instant in UTC as Memento's headers have it: ``Tue, 20 Mar 2001 20:35:00 GMT``."""
    return format_datetime(at, usegmt=True)


def parse_accept_datetime(text: str) -> datetime:
    """Read the header ``Accept-Datetime`` (RFC 7089, section 2.1.1).

    :return: the last microsecond of the second that it names, in UTC
    :raises ValueError: it is not written as ``http_datetime`` writes, or its weekday is not that of its date
    """
    match = _RFC_1123.fullmatch(text)
    right = "it must be a date as Tue, 20 Mar 2001 20:35:00 GMT"
    if match is None:
        raise ValueError(f"{right}; not {text[:60]!r}")
    day, month, *rest = match.groups()
    year, hour, minute, second = map(int, rest)
    try:
        at = datetime(year, _MONTHS.index(month) + 1, int(day), hour, minute, second, tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{right}; there is no {text!r}") from None
    if http_datetime(at) != text:
        raise ValueError(f"{right}; {text!r} is {http_datetime(at)!r}")
    return at.replace(microsecond=999_999)


def memento_datetime(span: Span) -> datetime:
    """The datetime of a version, as a Memento has one: its beginning, cut to the second.

    A version that was there before its record was versioned is taken to have always been, and gets 1970-01-01.
    """
    return _ALWAYS if span.valid_from is None else span.valid_from.replace(microsecond=0)


def resource_links(paths: Mapping[str, str]) -> list[Link]:
    """The links of a record and of its versions that are always the same.

    :param paths: those of the record and of its history, as `Resource.links` gives them
    """
    return [
        Link(paths["record"], "original"),
        Link(paths["record"], "timegate"),
        Link(timemap_path(paths), "timemap", {"type": LINK_FORMAT}),
        Link(paths["history"], "version-history"),
    ]


def memento_links(paths: Mapping[str, str], place: Place) -> list[Link]:
    """The links to a version and to those around it, as Mementos (RFC 7089, section 2.2.4)."""
    relations = {
        "first memento": place.first,
        "prev memento": place.before,
        "memento": place.this,
        "next memento": place.after,
        "last memento": place.last,
    }
    return [memento_link(paths, span, relation) for relation, span in relations.items() if span is not None]


def version_links(paths: Mapping[str, str], place: Place) -> list[Link]:
    """The links from a version, or from the record while it is at that version, to other versions (RFC 5829)."""
    relations = {
        "predecessor-version": place.before,
        "successor-version": place.after,
        "latest-version": place.last,
    }
    return [
        Link(version_path(paths, span.version), relation) for relation, span in relations.items() if span is not None
    ]


def memento_link(paths: Mapping[str, str], span: Span, relation: str) -> Link:
    """A link to a version as a Memento."""
    return Link(version_path(paths, span.version), relation, {"datetime": http_datetime(memento_datetime(span))})


def version_path(paths: Mapping[str, str], number: int) -> str:
    """The path of a version: the URI of a Memento."""
    return f"{paths['history']}/versions/{number}"


def timemap_path(paths: Mapping[str, str]) -> str:
    """The path of a record's TimeMap."""
    return f"{paths['history']}/timemap"

"""Records and versions as Memento's resources (RFC 7089): the record is its own TimeGate, each version a Memento.

The TimeGate sends to the Memento (section 4.1.1) and does not answer with it in the record's place (4.1.2): what the
record's address answers with is then always its current state, which its ``ETag`` is for, and the answer that never
changes is kept under one address.
"""

from collections.abc import Mapping

from flask import request
from werkzeug import Response

from app.links import Link, link_header
from app.memento import (
    http_datetime,
    memento_datetime,
    memento_links,
    parse_accept_datetime,
    resource_links,
    version_links,
    version_path,
)
from app.problems import Problem
from chrononaut import Place, Timeline
from chrononaut.history import NEVER


def links_of(paths: Mapping[str, str], place: Place) -> list[Link]:
    """All links of a version, or of the record while it is at that version."""
    return [*resource_links(paths), *memento_links(paths, place), *version_links(paths, place)]


def describe_memento(response: Response, paths: Mapping[str, str], place: Place) -> None:
    """Say in a version's answer when it began, and what is around it."""
    if place.this is not None:
        response.headers["Memento-Datetime"] = http_datetime(memento_datetime(place.this))
    response.headers["Link"] = link_header(links_of(paths, place))


def send_to_memento(timeline: Timeline, paths: Mapping[str, str]) -> Response:
    """Answer as the record's TimeGate: with where its state of the datetime is that the client asks for.

    A record that was deleted by then has its last state before as its Memento, and one that was not yet made its first.
    Where the state of then was purged, the last one before that is left is the Memento, or else the first one after.

    :raises Problem: 400: the datetime cannot be read; 404: the record has no version at all
    :raises PurgedError: all its versions were purged
    """
    try:
        at = parse_accept_datetime(request.headers["Accept-Datetime"])
    except ValueError as error:
        raise Problem("malformed-request", f"Accept-Datetime cannot be read: {error}") from error
    number = timeline.number_at(at)
    place = timeline.place(NEVER if number is None else number)
    chosen = place.this or place.before or place.first
    if chosen is None:
        if cuts := timeline.cuts():
            raise cuts[0].error(timeline.model.__name__, timeline.key)
        raise Problem("unknown-version", "the record has no version that could be gone to")
    if chosen is not place.this:
        place = timeline.place(chosen.version)
    response = Response(status=302)
    response.headers.remove("Content-Type")
    response.headers["Location"] = version_path(paths, chosen.version)
    response.headers["Link"] = link_header([*resource_links(paths), *memento_links(paths, place)])
    return response

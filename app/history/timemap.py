"""The TimeMap of a record (RFC 7089, section 5): all its states as Mementos."""

from collections.abc import Mapping, Sequence
from typing import Any

from flask import jsonify
from werkzeug import Response

from app.api import Blueprint
from app.db import session
from app.document import links_to_version
from app.dumping import dumper
from app.history.examples import SPANS, Document, Examples
from app.history.finding import timeline_of
from app.history.routes import cut_document
from app.history.schemas import TimeMapQuery, TimeMapSchema
from app.links import LINK_FORMAT, Link, link_document
from app.media import JSON, acceptable
from app.memento import http_datetime, memento_datetime, memento_link, timemap_path, version_path
from app.pages import make_cursor, next_link, page_path, read_cursor
from app.registry import Resource
from chrononaut import Cut, Span, Timeline, queries
from chrononaut.history import NEVER

_dump = dumper(TimeMapSchema)


def add_timemap(blueprint: Blueprint, resource: Resource) -> None:
    """Add the TimeMap of a model's records."""
    key_text = Examples(resource).key_text
    path = timemap_path(resource.links(key_text))
    example = _dump(_document(resource, key_text, path, SPANS, [], None))
    links = link_document(_links(resource.links(key_text), path, SPANS))

    @blueprint.operation(
        "GET",
        f"/history/{resource.name}/<key>/timemap",
        f"get_{resource.name}_timemap",
        scope="read",
        answer=TimeMapSchema,
        query=TimeMapQuery,
        example=example,
        media={LINK_FORMAT: {"schema": {"type": "string"}, "example": links}},
        problems=["unknown-record"],
        links=links_to_version(resource.name, "/mementos/0"),
    )
    def get_timemap(query: Document, key: str) -> Response:
        """All states of the record as Mementos (RFC 7089), oldest first. In `application/link-format` by default."""
        media_type = acceptable(LINK_FORMAT, JSON)
        timeline = timeline_of(resource, key)
        what = f"timemap {resource.name} {key}"
        (after,) = read_cursor(what, query["cursor"]) if "cursor" in query else (NEVER,)
        # The page that follows as well: the link to it tells which time it is of.
        spans = _spans(timeline, after, 2 * query["limit"])
        page, following = spans[: query["limit"]], spans[query["limit"] :]
        cursor = make_cursor(what, [page[-1].version]) if following else None
        response: Response
        if media_type == JSON:
            cuts = timeline.cuts(after, page[-1].version if following else None)
            response = jsonify(_dump(_document(resource, key, page_path(), page, cuts, cursor)))
        else:
            next_page = [_timemap_link(page_path(cursor), "next timemap", following)] if cursor else []
            shown = _links(resource.links(key), page_path(), page, next_page, begins=after == NEVER)
            response = Response(link_document(shown), content_type=LINK_FORMAT)
        response.headers.extend(next_link(cursor))
        return response


def _spans(timeline: Timeline, after: int, limit: int) -> list[Span]:
    """The spans of the versions after one, the live one's too, oldest first."""
    select = queries.spans(timeline.model, timeline.key, after).limit(limit)
    spans = [Span(*row) for row in session().execute(select)]
    live = timeline.span()
    if live is not None and live.version > after and len(spans) < limit:
        spans.append(live)
    return spans


def _document(
    resource: Resource, key_text: str, path: str, page: Sequence[Span], cuts: Sequence[Cut], cursor: str | None
) -> Document:
    """A page of a TimeMap as JSON.

    :param path: that of the page
    :param cuts: what was purged between the versions of the page
    """
    paths = resource.links(key_text)
    return {
        **resource.identified(key_text),
        "original": paths["record"],
        "timegate": paths["record"],
        "self": path,
        "from_": memento_datetime(page[0]) if page else None,
        "until": memento_datetime(page[-1]) if page else None,
        "mementos": [
            {
                "version": span.version,
                "datetime": memento_datetime(span),
                "valid_from": span.valid_from,
                "changed": span.changed,
                "link": version_path(paths, span.version),
            }
            for span in page
        ],
        "purged": [cut_document(cut) for cut in cuts],
        "next": cursor,
    }


def _links(
    paths: Mapping[str, str], path: str, page: Sequence[Span], following: Sequence[Link] = (), *, begins: bool = True
) -> list[Link]:
    """A page of a TimeMap as links.

    :param path: that of the page
    :param following: the link to the page that follows, if one does
    :param begins: is it the first page?
    """
    return [
        Link(paths["record"], "original"),
        Link(paths["record"], "timegate"),
        _timemap_link(path, "self", page),
        *following,
        *_memento_links(paths, page, begins=begins, ends=not following),
    ]


def _memento_links(paths: Mapping[str, str], page: Sequence[Span], *, begins: bool, ends: bool) -> list[Link]:
    """The links to the versions of a page that begins or ends the TimeMap, or does not."""
    relations = ["memento"] * len(page)
    if page and begins:
        relations[0] = f"first {relations[0]}"
    if page and ends:
        relations[-1] = "first last memento" if begins and len(page) == 1 else "last memento"
    return [memento_link(paths, span, relation) for span, relation in zip(page, relations, strict=True)]


def _timemap_link(path: str, relation: str, spans: Sequence[Span]) -> Link:
    times: dict[str, Any] = {}
    if spans:
        times = {
            name: http_datetime(memento_datetime(span)) for name, span in (("from", spans[0]), ("until", spans[-1]))
        }
    return Link(path, relation, {"type": LINK_FORMAT, **times})

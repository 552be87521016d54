"""The operations of ``/history``."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flask import jsonify
from sqlalchemy.orm import undefer
from werkzeug import Response

from app.api import Blueprint
from app.auth.access import may
from app.conditional import cacheable
from app.db import session
from app.document import link_to_transaction, links_to_record, links_to_version
from app.dumping import Dump, dumper
from app.history.examples import Document, Examples
from app.history.mementos import describe_memento
from app.history.schemas import (
    AtQuery,
    ChangedSinceSchema,
    DiffQuery,
    DiffSchema,
    ModelListSchema,
    SinceQuery,
    VersionsQuery,
    history_schemas,
)
from app.instants import instant_text
from app.json_patch import JSON_PATCH, patch_answer, patch_between
from app.media import JSON, acceptable
from app.pages import make_cursor, read_cursor
from app.problems import Problem
from app.registry import Registry, Resource, UnknownKeyError
from chrononaut import History, Timeline, queries
from chrononaut.history import Key


def add_list_of_models(blueprint: Blueprint, registry: Registry) -> None:
    """Add ``GET /history``."""

    models = {resource.name: _model(resource) for resource in registry.values()}
    example = {"models": [*models.values()]}

    @blueprint.operation("GET", "/history", "list_models", scope="read", answer=ModelListSchema, example=example)
    def list_models(query: Document) -> Document:
        """The registered models that may be read."""
        return {"models": [model for name, model in models.items() if may("read", name)]}


def _model(resource: Resource) -> Document:
    versioning = resource.versioning
    return {
        "name": resource.name,
        "key": versioning.key,
        "tracked": list(versioning.tracked),
        "hidden": list(versioning.hidden),
        "untracked": list(versioning.untracked),
        "links": {
            "records": f"/records/{resource.name}",
            "record": f"/records/{resource.name}/{{key}}",
            "history": f"/history/{resource.name}/{{key}}",
            "changes": f"/history/{resource.name}",
        },
    }


def add_history(blueprint: Blueprint, resource: Resource) -> None:
    """Add the operations of ``/history`` of a model."""
    name = resource.name
    path = f"/history/{name}/<key>"
    schemas = history_schemas(resource)
    dump_state, dump_version, dump_diff = dumper(schemas.state), dumper(schemas.version), dumper(DiffSchema)
    examples = Examples(resource)
    common: Document = {"scope": "read", "problems": ["unknown-record"]}
    of_version: Document = common | {"problems": ["unknown-record", "unknown-version"]}

    @blueprint.operation(
        "GET",
        path,
        f"list_{name}_versions",
        answer=schemas.versions,
        query=VersionsQuery,
        example=examples.versions,
        links=links_to_version(name, "/versions/0") | link_to_transaction("/versions/0") | _link_to_diff(name),
        **common,
    )
    def list_versions(query: Document, key: str) -> Document:
        """The current state and the prior versions."""
        timeline = timeline_of(resource, key)
        select = queries.versions(timeline.model, timeline.key, query.get("before"), query.get("after"))
        rows, following = page_of(
            resource, "versions", key, select.options(undefer(resource.versioning.valid_from)), query
        )
        live = timeline.live
        return resource.identified(key) | {
            "current": None if live is None else _version(timeline, live),
            "versions": [_version(timeline, row) for row in rows],
            "next": following,
        }

    @blueprint.operation(
        "GET",
        f"{path}/versions/<int(max=2147483647):number>",
        f"get_{name}_version",
        answer=schemas.version,
        example=examples.version,
        links=links_to_record(name) | link_to_transaction(),
        headers=["Link", "Memento-Datetime"],
        cacheable=True,
        **of_version,
    )
    def get_version(query: Document, key: str, number: int) -> Response:
        """One version, a prior one or the current one: a Memento of the record (RFC 7089). A prior one never changes.

        Its links may be followed by newer ones: a later version's `last memento` is later.
        """
        timeline = timeline_of(resource, key)
        found = numbered(timeline, number)
        response = jsonify(dump_version(resource.identified(key) | _version(timeline, found)))
        describe_memento(response, resource.links(key), timeline.place(number))
        return cacheable(response, _etag(timeline, found), immutable=isinstance(found, History))

    @blueprint.operation(
        "GET",
        f"{path}/version_at",
        f"get_{name}_version_at",
        answer=schemas.version,
        query=AtQuery,
        example=examples.version,
        links=links_to_record(name) | link_to_transaction(),
        **of_version,
    )
    def get_version_at(query: Document, key: str) -> Document:
        """The state that was valid at an instant. A state is valid from its beginning until just before its end."""
        timeline = timeline_of(resource, key)
        return resource.identified(key) | _version(timeline, valid_at(timeline, query["at"]))

    @blueprint.operation(
        "GET",
        f"{path}/has_changed_since",
        f"has_{name}_changed_since",
        answer=ChangedSinceSchema,
        example=examples.changed_since,
        links=links_to_record(name),
        query=SinceQuery,
        **common,
    )
    def has_changed_since(query: Document, key: str) -> Document:
        """Whether the record was updated or deleted later than an instant."""
        last = timeline_of(resource, key).last_changed()
        return resource.identified(key) | {
            "has_changed": last is not None and last > query["since"],
            "since": query["since"],
            "last_changed": last,
        }

    @blueprint.operation(
        "GET",
        f"{path}/diff",
        f"diff_{name}_versions",
        answer=DiffSchema,
        example=examples.diff,
        links=links_to_version(name, "/from"),
        query=DiffQuery,
        media={JSON_PATCH: patch_answer(examples.patch)},
        cacheable=True,
        **of_version,
    )
    def diff_versions(query: Document, key: str) -> Response:
        """What differs between two states, each given by its version number or by an instant.

        As a JSON Patch (RFC 6902) it makes the `state` of the one into that of the other. Between prior versions that
        are given by their numbers it never changes.
        """
        media_type = acceptable(JSON, JSON_PATCH)
        timeline = timeline_of(resource, key)
        from_ = _find(timeline, query["from_"])
        to = _find(timeline, query["to"]) if "to" in query else _live(timeline)
        if timeline.number(to) < timeline.number(from_):
            raise _invalid(
                "to", f"version {timeline.number(to)} is older than version {timeline.number(from_)}; swap them"
            )
        etag = f"{_etag(timeline, from_)}.{_etag(timeline, to)}"
        if media_type == JSON_PATCH:
            response = patch_between(dump_state(timeline.state(from_)), dump_state(timeline.state(to)))
            etag += ".patch"
        else:
            # The live state against itself has no differences, and is no history object.
            changed = timeline.diff(from_, to) if isinstance(from_, History) else {}
            hidden = timeline.hidden_changes(from_, to) if query["include_hidden"] else []
            document = resource.identified(key) | {
                "from_": _version(timeline, from_),
                "to": _version(timeline, to),
                "changes": differences_of(dump_state, changed),
                "hidden_changed": hidden,
            }
            response = jsonify(dump_diff(document))
        fixed = isinstance(query["from_"], int) and isinstance(query.get("to"), int) and isinstance(to, History)
        return cacheable(response, etag, immutable=fixed)


def _link_to_diff(name: str) -> Document:
    """The link from a page of versions to what has changed since the first of them."""
    parameters = {"key": "$response.body#/key", "from": "$response.body#/versions/0/version"}
    return {"diff": {"operationId": f"diff_{name}_versions", "parameters": parameters}}


def timeline_of(resource: Resource, key_text: str, *, to_write: bool = False) -> Timeline:
    """The history of the record that a text is the key of.

    :param to_write: lock the record, if it is live, so that nobody changes it before it is written
    :raises Problem: 404: there never was such a record
    """
    try:
        key = resource.parse_key(key_text)
    except UnknownKeyError:
        raise unknown_record(resource, key_text) from None
    live = find_live(resource, key, to_write=to_write)
    timeline = Timeline(session(), resource.model, key, live)
    if not timeline.exists():
        raise unknown_record(resource, key_text)
    return timeline


def find_live(resource: Resource, key: Key, *, to_write: bool = False) -> Any:
    """The live object of a record; ``None`` if there is none.

    :param to_write: lock it, so that nobody changes it before it is written
    """
    locking = {"key_share": True} if to_write else None
    return session().get(resource.model, key, options=resource.shown, with_for_update=locking)


def unknown_record(resource: Resource, key_text: str) -> Problem:
    """There never was such a record."""
    parts = ",".join(f"{{{name}}}" for name in resource.versioning.key)
    return Problem(
        "unknown-record", f"there never was a {resource.name} with the key {key_text[:200]!r}; a key is {parts}"
    )


def _version(timeline: Timeline, obj: Any) -> Document:
    if isinstance(obj, History):
        return timeline.own(obj) | {"state": timeline.state(obj)}
    return {
        "version": timeline.number(obj),
        "valid_from": timeline.valid_from(),
        "changed": None,
        "operation": None,
        "change_info": None,
        "transaction_id": None,
        "state": timeline.state(obj),
    }


def page_of(
    resource: Resource, what: str, key_text: str, select: queries.HistorySelect, query: Document
) -> tuple[list[History], str | None]:
    """A page of the history rows of a record, and the cursor of the page that follows.

    :param what: what is listed, so that a cursor is good for nothing else
    """
    number = resource.versioning.column("version")
    ascending = query["order"] == "asc"
    what = f"{what} {resource.name} {key_text} {query['order']}"
    if "cursor" in query:
        (position,) = read_cursor(what, query["cursor"])
        select = select.where(number > position if ascending else number < position)
    select = select.order_by(None).order_by(number if ascending else number.desc()).limit(query["limit"] + 1)
    rows = list(session().scalars(select))
    if len(rows) <= query["limit"]:
        return rows, None
    rows.pop()
    return rows, make_cursor(what, [getattr(rows[-1], resource.versioning.options.names.version)])


def _etag(timeline: Timeline, obj: Any) -> str:
    """What identifies a version as it is answered: the current one is another answer once it is a prior one."""
    number = timeline.number(obj)
    return f"v{number}" if isinstance(obj, History) else f"v{number}-current"


def _live(timeline: Timeline) -> Any:
    if timeline.live is None:
        raise Problem(
            "unknown-version", "the record was deleted and has no live state; say which version to compare to"
        )
    return timeline.live


def _find(timeline: Timeline, which: int | datetime) -> Any:
    return numbered(timeline, which) if isinstance(which, int) else valid_at(timeline, which)


def numbered(timeline: Timeline, number: int) -> Any:
    """The state that has a number: a history object or the live object.

    :raises Problem: 404: there is none
    """
    if timeline.live is not None and timeline.number(timeline.live) == number:
        return timeline.live
    found = timeline.version(number)
    if found is None:
        raise Problem("unknown-version", f"the record has no version {number}")
    return found


def valid_at(timeline: Timeline, at: datetime) -> Any:
    """The state that was valid at an instant: a history object or the live object.

    :raises Problem: 404: the record did not exist then
    """
    found = timeline.version_at(at)
    if found is None:
        raise Problem("unknown-version", f"the record did not exist at {instant_text(at)}")
    return found


def _invalid(parameter: str, problem: str) -> Problem:
    return Problem("invalid", f"{parameter} does not fit: {problem}", errors={"query": {parameter: [problem]}})


def differences_of(dump_state: Dump, changed: Mapping[str, tuple[Any, Any]]) -> Document:
    """Differences as they stand in a document.

    :param dump_state: what dumps states of the model
    """
    before = dump_state({name: values[0] for name, values in changed.items()})
    after = dump_state({name: values[1] for name, values in changed.items()})
    return {name: {"from_": before[name], "to": after[name]} for name in changed}

"""The operations of ``/history``."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

from flask import jsonify
from werkzeug import Response

from app.api import Blueprint
from app.auth.access import may
from app.conditional import cacheable
from app.document import link_to_transaction, links_to_record, links_to_version
from app.dumping import Dump, dumper
from app.history.examples import Document, Examples
from app.history.finding import Found
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
from app.registry import Registry, Resource
from chrononaut import Cut, State, States
from chrononaut.diff import differences
from chrononaut.history import marks_of


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
    schemas, states = history_schemas(resource), States(resource.model)
    dump_state, dump_version, dump_diff = dumper(schemas.state), dumper(schemas.version), dumper(DiffSchema)
    examples = Examples(resource)
    common: Document = {"scope": "read", "problems": ["unknown-record"]}
    of_version: Document = common | {"problems": ["unknown-record", "unknown-version", "purged"]}

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
        """The current state and the prior versions; `purged` says which there were besides.

        What was purged counts as one more item for `limit`; to `before` and `after` it is its last version.
        """
        record = Found.by_key(resource, states, key)
        live = record.states.live
        if live is None:
            record.refuse_unknown()
        bounds = {name: query[name] for name in ("before", "after") if name in query}

        def read(limit: int, **place: int) -> list[State | Cut]:
            return record.states.versions_and_cuts(query["order"], limit, **bounds, **place)

        page, following = page_of(f"versions {name} {key}", query, read)
        return resource.identified(key) | {
            "current": live and _version(live),
            "versions": [_version(state) for state in page if isinstance(state, State)],
            "purged": [cut_document(cut) for cut in page if isinstance(cut, Cut)],
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
        """One version, a prior one or the current one: a Memento of the record (RFC 7089).

        A prior one never changes, unless values are erased from it: then its `ETag` does. Its links may be followed by
        newer ones: a later version's `last memento` is later.
        """
        record = Found.by_key(resource, states, key)
        found = record.numbered(number)
        response = jsonify(dump_version(resource.identified(key) | _version(found)))
        describe_memento(response, resource.links(key), record.states.place(number))
        return cacheable(response, version_etag(found))

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
        return resource.identified(key) | _version(Found.by_key(resource, states, key).valid_at(query["at"]))

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
        record = Found.by_key(resource, states, key)
        last = record.states.last_changed()
        if last is None:
            record.refuse_unknown()
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

        As a JSON Patch (RFC 6902) it makes the `state` of the one into that of the other. What was erased from one of
        the two is not among the `changes`, and `null` in its state. Where versions between the two were purged, which
        `purged` tells, nobody knows which hidden columns they changed.
        """
        media_type = acceptable(JSON, JSON_PATCH)
        record = Found.by_key(resource, states, key)
        from_ = _find(record, query["from_"])
        to = _find(record, query["to"]) if "to" in query else record.live()
        if to.version < from_.version:
            raise _invalid("to", f"version {to.version} is older than version {from_.version}; swap them")
        cuts = record.states.cuts(from_.version, to.version)
        etag = f"{version_etag(from_)}.{version_etag(to)}{_cuts_etag(cuts)}"
        if media_type == JSON_PATCH:
            response = patch_between(dump_state(_state(from_)), dump_state(_state(to)))
            etag += ".patch"
        else:
            hidden = record.states.hidden_changes(from_.version, to.version) if query["include_hidden"] else []
            document = resource.identified(key) | {
                "from_": _version(from_),
                "to": _version(to),
                "changes": differences_of(dump_state, differences(from_.known, to.known)),
                "hidden_changed": hidden,
                "purged": [cut_document(cut) for cut in cuts],
            }
            response = jsonify(dump_diff(document))
        return cacheable(response, etag)


def _link_to_diff(name: str) -> Document:
    """The link from a page of versions to what has changed since the first of them."""
    parameters = {"key": "$response.body#/key", "from": "$response.body#/versions/0/version"}
    return {"diff": {"operationId": f"diff_{name}_versions", "parameters": parameters}}


def _version(state: State) -> Document:
    return erased_from(state) | {
        "version": state.version,
        "valid_from": state.valid_from,
        "changed": state.changed,
        "operation": state.operation,
        "change_info": state.change_info,
        "transaction_id": state.transaction_id,
        "state": _state(state),
    }


def _state(state: State) -> Mapping[str, Any]:
    return {**state.values, **state.dropped} if state.dropped else state.values


def cut_document(cut: Cut) -> Document:
    """What was purged, as it stands in a document."""
    return {
        "first": cut.first,
        "last": cut.last,
        "changed": cut.changed,
        "purged_at": cut.purged_at,
        "user_id": cut.user_id,
        "extra": cut.extra,
        "operation": cut.operation,
    }


class _Numbered(Protocol):
    """A state, a cut or a change."""

    @property
    def version(self) -> int: ...


_N = TypeVar("_N", bound=_Numbered)


def page_of(what: str, query: Document, read: Callable[..., list[_N]]) -> tuple[list[_N], str | None]:
    """A page of what the history of a record has by numbers, and the cursor of the page that follows.

    :param what: what is listed, so that a cursor is good for nothing else
    :param read: reads at most as many as it is told, in the query's order, of those ``above`` or ``below`` a number
    """
    what = f"{what} {query['order']}"
    place = {}
    if "cursor" in query:
        (place["above" if query["order"] == "asc" else "below"],) = read_cursor(what, query["cursor"])
    page = read(query["limit"] + 1, **place)
    if len(page) <= query["limit"]:
        return page, None
    page.pop()
    return page, make_cursor(what, [page[-1].version])


def erased_from(state: State) -> Document:
    """What a document says of a state, besides its values, if some of these were erased."""
    return {"erased": state.erased} if state.erased else {}


def version_etag(state: State) -> str:
    """What identifies a version as it is answered: the current one is another answer once it is a prior one, and so is
    a prior one from which something was erased.
    """
    if state.change_info is None:
        return f"v{state.version}-current"
    marks = marks_of(state.change_info)
    return f"v{state.version}-erased-{marks[-1]['at']}" if marks else f"v{state.version}"


def _cuts_etag(cuts: Sequence[Cut]) -> str:
    """What tells an answer from those before some of what lies in between was purged."""
    if not cuts:
        return ""
    rows = sum(cut.last - cut.first + 1 for cut in cuts)
    return f"-purged-{rows}-{instant_text(max(cut.purged_at for cut in cuts))}"


def _find(record: Found, which: int | datetime) -> State:
    return record.numbered(which) if isinstance(which, int) else record.valid_at(which)


def _invalid(parameter: str, problem: str) -> Problem:
    return Problem("invalid", f"{parameter} does not fit: {problem}", errors={"query": {parameter: [problem]}})


def differences_of(dump_state: Dump, changed: Mapping[str, tuple[Any, Any]]) -> Document:
    """Differences as they stand in a document.

    :param dump_state: what dumps states of the model
    """
    before = dump_state({name: values[0] for name, values in changed.items()})
    after = dump_state({name: values[1] for name, values in changed.items()})
    return {name: {"from_": before[name], "to": after[name]} for name in changed}

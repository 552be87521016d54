"""The operations that tell of changes: of one record, of all records of a model, and of one transaction."""

import hashlib
from typing import Any
from uuid import UUID

from flask import jsonify, request
from werkzeug import Response

from app.api import Blueprint
from app.auth.access import may
from app.columns import state_schema
from app.conditional import cacheable
from app.db import session
from app.document import link_to_transaction, links_to_record
from app.dumping import Dump, dumper
from app.history.change_schemas import (
    EXTRA,
    BlamesSchema,
    ChangeListSchema,
    ChangePageQuery,
    FeedSchema,
    TransactionSchema,
    feed_query,
)
from app.history.examples import TRANSACTION_ID, Document, Examples
from app.history.finding import timeline_of
from app.history.routes import differences_of, page_of
from app.history.schemas import PageQuery
from app.instants import instant_text, parse_instant
from app.pages import make_cursor, next_link, read_cursor
from app.problems import Problem
from app.registry import Registry, Resource
from chrononaut import Change, ChangeFilter, Position, queries
from chrononaut.feed import feed, place_of, transaction


def add_changes(blueprint: Blueprint, resource: Resource) -> None:
    """Add the operations that tell of the changes of a model's records."""
    name, dump_state = resource.name, dumper(state_schema(resource))
    path, number = f"/history/{name}/<key>", resource.versioning.column("version")
    common: Document = {"scope": "read", "problems": ["unknown-record"]}
    examples = Examples(resource)

    @blueprint.operation(
        "GET",
        f"{path}/changes",
        f"list_{name}_changes",
        answer=ChangeListSchema,
        query=PageQuery,
        example=examples.changes,
        links=link_to_transaction("/changes/0"),
        **common,
    )
    def list_changes(query: Document, key: str) -> Document:
        """What happened to the record, its creation and deletion included: when, who, why, and what changed."""
        timeline = timeline_of(resource, key)

        def read(limit: int, above: int | None = None, below: int | None = None) -> list[Change]:
            select = queries.changes(timeline.model, timeline.key)
            select = select if above is None else select.where(number > above)
            select = select if below is None else select.where(number < below)
            order = number if query["order"] == "asc" else number.desc()
            return timeline.changes([*session().scalars(select.order_by(None).order_by(order).limit(limit))])

        page, following = page_of(f"changes {name} {key}", query, read)
        changes = [_document(dump_state, change) for change in page]
        return resource.identified(key) | {"changes": changes, "next": following}

    @blueprint.operation(
        "GET",
        f"{path}/blame",
        f"get_{name}_blame",
        answer=BlamesSchema,
        example=examples.blame,
        links=links_to_record(name),
        **common,
    )
    def get_blame(query: Document, key: str) -> Document:
        """For each column the change that last set it: when, who, why, and the value before.

        Of a deleted record the columns are told of as they were when it was deleted.
        """
        blame = timeline_of(resource, key).blame()
        columns = {column: change and _blame(dump_state, column, change) for column, change in blame.items()}
        return resource.identified(key) | {"columns": columns}

    @blueprint.operation(
        "GET",
        f"/history/{name}",
        f"list_{name}_feed",
        scope="read",
        answer=FeedSchema,
        query=feed_query(resource),
        example={"model": name, "changes": [examples.change_of_record], "next": None},
        links=links_to_record(name, "$response.body#/changes/0/key") | link_to_transaction("/changes/0"),
    )
    def list_feed(query: Document) -> Document:
        """What happened to all records of the model, newest first."""
        which = ChangeFilter(
            since=query.get("since"),
            until=query.get("until"),
            user_id=query.get("user_id"),
            operation=query.get("operation"),
            transaction_id=query.get("transaction_id"),
            extra={name.removeprefix(EXTRA): text for name, text in request.args.items() if name.startswith(EXTRA)},
            attribute=query.get("attribute"),
        )
        what = f"feed {name} {which!r}"
        position = _position({resource.name: resource}, what, query.get("cursor"))
        page = feed(session(), resource.model, which, query["limit"], position)
        changes = [_of_record(resource, dump_state, change) for change in page.changes]
        return {"model": name, "changes": changes, "next": page.next and _cursor(resource, what, page.next)}


def add_transactions(blueprint: Blueprint, registry: Registry) -> None:
    """Add ``GET /transactions/{transaction_id}``."""
    resources = {resource.model: resource for resource in registry.values()}
    dump_states = {resource.name: dumper(state_schema(resource)) for resource in registry.values()}
    dump = dumper(TransactionSchema)
    examples = [Examples(resource).change_of_record for resource in registry.values()]

    @blueprint.operation(
        "GET",
        "/transactions/<uuid:transaction_id>",
        "get_transaction",
        scope="read",
        answer=TransactionSchema,
        query=ChangePageQuery,
        problems=["unknown-transaction"],
        example={"transaction_id": TRANSACTION_ID, "changes": examples, "next": None},
        cacheable=True,
    )
    def get_transaction(query: Document, transaction_id: UUID) -> Response:
        """Everything that one transaction changed, over all models that may be read, by model and key.

        It is asked for again: `delete_with_history` takes from it, and history that is imported may add to it.
        """
        readable = {name: resource for name, resource in registry.items() if may("read", name)}
        # A cursor is of one list: with other grants it is another one.
        what = f"transaction {transaction_id} {' '.join(readable)}"
        position = _position(readable, what, query.get("cursor"))
        models = [resource.versioning for resource in readable.values()]
        page = transaction(session(), models, transaction_id, query["limit"], position)
        if not page.changes:
            raise Problem("unknown-transaction", f"no transaction {transaction_id} has changed what may be read")
        following = None if page.next is None else _cursor(resources[page.changes[-1].model], what, page.next)
        changed = [(resources[change.model], change) for change in page.changes]
        changes = [_of_record(resource, dump_states[resource.name], change) for resource, change in changed]
        document = {"transaction_id": transaction_id, "changes": changes, "next": following}
        response = jsonify(dump(document))
        response.headers.extend(next_link(following))
        return cacheable(response, hashlib.sha256(response.get_data()).hexdigest())


def _cause(change: Change) -> Document:
    return {
        "version": change.version,
        "operation": change.operation,
        "changed": change.at,
        "change_info": change.info,
        "transaction_id": change.transaction_id,
    }


def _document(dump_state: Dump, change: Change) -> Document:
    differences = differences_of(dump_state, change.differences)
    document = _cause(change) | {"differences": differences, "hidden_changed": change.hidden}
    return document | {"erased": change.erased} if change.erased else document


def _of_record(resource: Resource, dump_state: Dump, change: Change) -> Document:
    return resource.identified(resource.key_text(change.key)) | _document(dump_state, change)


def _blame(dump_state: Dump, column: str, change: Change) -> Document:
    """A column's cause. Of a hidden column, and of one that was NULL from the beginning, there are no values."""
    differences = {name: values for name, values in change.differences.items() if name == column}
    values: Document = differences_of(dump_state, differences).get(column, {"from_": None, "to": None})
    return _cause(change) | values


def _cursor(resource: Resource, what: str, position: Position) -> str:
    return make_cursor(
        what, [resource.name, instant_text(position.at), resource.key_text(position.key), position.version]
    )


def _position(resources: Any, what: str, cursor: str | None) -> Position | None:
    if cursor is None:
        return None
    name, at, key_text, version = read_cursor(what, cursor)
    resource = resources[name]
    key = resource.parse_key(key_text, is_stored=True)
    return Position(place_of(resource.versioning), parse_instant(at), key, version)

"""The operation of ``/bulk``: many records of a model, written in one transaction."""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from marshmallow import Schema, ValidationError
from sqlalchemy.exc import StatementError
from werkzeug.http import parse_etags, quote_etag

from app.api import Blueprint
from app.conditional import precondition_failed
from app.db import session
from app.examples import example_of
from app.history.examples import Document, Examples
from app.history.routes import unknown_record
from app.problems import Problem, problem_document, problem_of, repeatable
from app.records.live import (
    assign,
    deleted_record,
    etags_of,
    existing_record,
    key_text_of,
    number_of,
    patching,
    replacing,
)
from app.records.schemas import BulkSchemas, bulk_schemas
from app.registry import Resource, UnknownKeyError
from chrononaut.history import Key
from chrononaut.types import is_among

_LARGEST_BODY = 8 * 1024 * 1024

Refusals = MutableMapping[int, Problem]
"""Place of an item in the request → what is wrong with it."""


@dataclass(frozen=True, slots=True)
class _Item:
    """One write.

    :ivar index: its place in the request
    :ivar key: the record key; ``None`` where the database makes it
    :ivar body: what a write of one record takes
    """

    index: int
    operation: str
    key: Key | None
    body: Document
    if_match: str | None


def add_bulk(blueprint: Blueprint, resource: Resource) -> None:
    """Add the operation of ``/bulk`` of a model."""
    schemas = bulk_schemas(resource)
    loading = {operation: schema() for operation, schema in schemas.items.items()}
    examples = Examples(resource)
    sent, answered = _examples(resource, examples, schemas)

    @blueprint.operation(
        "POST",
        f"/bulk/{resource.name}",
        f"write_{resource.name}_records",
        scope="write",
        body=schemas.body,
        body_example=sent,
        largest_body=_LARGEST_BODY,
        answer=schemas.answer,
        example=answered,
        problems=["bulk-failed", "bulk-invalid"],
    )
    def write_records(query: Document, body: Document) -> Document:
        """Write up to 1000 records in one transaction: all of them, or none.

        Each item is what the operation on one record takes: `create` a new one, `replace` as `PUT` does, `change` as
        `PATCH` does (RFC 7396), `delete`. An item may say in `if_match` at which version the record must be, as the
        header `If-Match` does. The headers `X-Change-*` are kept with all the changes, which share one `transaction_id`
        and one instant. The answer tells of each item in the order sent. If one of them cannot be written, none is,
        and `items` of the problem tell what is wrong with each one that cannot. There is at most one item for a record.
        The items are written together; only where they conflict so, in the order sent. The body
        may have 8 MiB.
        """
        refusals: Refusals = {}
        items = [*_read(resource, loading, body["items"], refusals)]
        try:
            with session().no_autoflush:
                records = _write(resource, items, refusals)
        except StatementError as error:
            _problem_of_item(error)
            session().rollback()
            with session().no_autoflush:
                # All are locked first, in the order of their keys: the parts are in another.
                _find(resource, items, refusals)
                records = _write_in_parts(resource, items, refusals)
        if refusals:
            session().rollback()
            raise _refused(refusals, len(body["items"]))
        written = [_written(resource, item, records[item.index]) for item in items]
        session().commit()
        return {"model": resource.name, "items": written}


def _read(
    resource: Resource, schemas: Mapping[str, Schema], given: Iterable[Any], refusals: Refusals
) -> Iterable[_Item]:
    """The items that fit their schemas and have a key of their own."""
    places: dict[Key, int] = {}
    for index, one in enumerate(given):
        try:
            item = _item(resource, schemas, index, one)
        except Problem as problem:
            refusals[index] = problem
            continue
        if item.key is not None and item.key in places:
            refusals[index] = Problem(
                "conflict", f"item {places[item.key]} writes the same record; send one item for each record"
            )
            continue
        if item.key is not None:
            places[item.key] = index
        yield item


def _item(resource: Resource, schemas: Mapping[str, Schema], index: int, given: Any) -> _Item:
    operation = given.get("operation") if isinstance(given, Mapping) else None
    schema = schemas.get(operation) if isinstance(operation, str) else None
    if schema is None:
        said = f"must be one of {', '.join(schemas)}"
        raise Problem("invalid", f"its operation {said}", errors={"json": {"operation": [said]}})
    try:
        loaded = schema.load(given)
    except ValidationError as error:
        messages = repeatable(error.messages)
        raise Problem("invalid", f"not as it must be: {', '.join(messages)}", errors={"json": messages}) from None
    body = loaded.get("record", loaded.get("changes", {}))
    if operation == "create":
        key = tuple(body.get(name) for name in resource.versioning.key)
        return _Item(index, operation, None if None in key else key, body, None)
    try:
        key = resource.parse_key(loaded["key"])
    except UnknownKeyError:
        raise unknown_record(resource, loaded["key"]) from None
    return _Item(index, str(operation), key, body, loaded.get("if_match"))


def _write(resource: Resource, items: Sequence[_Item], refusals: Refusals) -> Mapping[int, Any]:
    """Write all items by one flush, but those that what is there does not allow.

    :return: place of an item → its record
    """
    records = _find(resource, items, refusals)
    # In the order of their keys, so that two requests that make records of the same ones do not wait for one another.
    writable = sorted(
        (item for item in items if item.index not in refusals), key=lambda item: (item.key is None, item.key or ())
    )
    written = {item.index: _apply(resource, item, records.get(item.key)) for item in writable}
    session().flush()
    return written


def _write_in_parts(resource: Resource, items: Sequence[_Item], refusals: Refusals) -> Mapping[int, Any]:
    """Write items in the order sent, in as large parts as the database takes, to find those that it refuses by itself.

    It may refuse none of them.
    """
    try:
        with session().begin_nested():
            return _write(resource, items, refusals)
    except StatementError as error:
        problem = _problem_of_item(error)
        if len(items) == 1:
            refusals[items[0].index] = problem
            return {}
    half = len(items) // 2
    first = _write_in_parts(resource, items[:half], refusals)
    return {**first, **_write_in_parts(resource, items[half:], refusals)}


def _problem_of_item(error: StatementError) -> Problem:
    """What the database refuses of an item.

    :raises StatementError: it refuses none, but all of them together
    """
    problem = problem_of(error)
    if problem is None or problem.kind not in {"conflict", "invalid"}:
        raise error
    return problem


def _find(resource: Resource, items: Sequence[_Item], refusals: Refusals) -> Mapping[Key | None, Any]:
    """Lock and load the records of items, and refuse the items that what is there does not allow."""
    keys = [item.key for item in items if item.key is not None]
    columns, dialect = resource.versioning.key_columns, session().get_bind().dialect.name
    select = (
        sa.select(resource.model)
        .where(is_among(columns, keys, dialect))
        # Two requests lock what both want in one order.
        .options(*resource.shown)
        .order_by(*columns)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    records: dict[Key | None, Any] = {
        resource.versioning.key_of(record): record for record in (session().scalars(select) if keys else ())
    }
    missing = [item for item in items if item.operation != "create" and item.key not in records]
    deleted = _deleted(resource, [item.key for item in missing if item.key is not None])
    for item in items:
        problem = _problem(resource, item, records.get(item.key), deleted)
        if problem is not None:
            refusals[item.index] = problem
    return records


def _problem(resource: Resource, item: _Item, record: Any, deleted: set[Key]) -> Problem | None:
    """What does not let an item be written."""
    key_text = "" if item.key is None else resource.key_text(item.key)
    if item.operation == "create":
        return None if record is None else existing_record(resource, key_text)
    if record is None:
        return (deleted_record if item.key in deleted else unknown_record)(resource, key_text)
    etags = etags_of(resource, record)
    if item.if_match is not None and not any(parse_etags(item.if_match).contains(etag) for etag in etags):
        return precondition_failed(etags)
    return None


def _deleted(resource: Resource, keys: Sequence[Key]) -> set[Key]:
    """Those of some keys that have history."""
    if not keys:
        return set()
    versioning = resource.versioning
    columns = [versioning.history_table.c[column.key] for column in versioning.key_columns]
    select = sa.select(*columns).where(is_among(columns, keys, session().get_bind().dialect.name)).distinct()
    return {tuple(key) for key in session().execute(select)}


def _apply(resource: Resource, item: _Item, record: Any) -> Any:
    if item.operation == "create":
        record = resource.model(**item.body)
        session().add(record)
    elif item.operation == "delete":
        session().delete(record)
    elif item.operation == "change":
        assign(resource, record, patching(resource, record, item.body))
    else:
        assign(resource, record, replacing(resource, item.body))
    return record


def _written(resource: Resource, item: _Item, record: Any) -> Document:
    key_text = key_text_of(resource, record)
    is_there = item.operation != "delete"
    return {
        "operation": item.operation,
        "key": key_text,
        "version": number_of(resource, record) if is_there else None,
        "etag": quote_etag(etags_of(resource, record)[0]) if is_there else None,
        "links": resource.links(key_text),
    }


def _refused(refusals: Refusals, sent: int) -> Problem:
    """The problem of a request some of whose items cannot be written."""
    described = [{"index": index, "problem": problem_document(refusals[index])} for index in sorted(refusals)]
    unfit = any(problem.kind == "invalid" for problem in refusals.values())
    return Problem(
        "bulk-invalid" if unfit else "bulk-failed",
        f"{len(described)} of {sent} items cannot be written, so none was; items say what is wrong with each",
        items=described,
    )


def _examples(resource: Resource, examples: Examples, schemas: BulkSchemas) -> tuple[Document, Document]:
    """A request that makes one record and changes another, and its answer."""
    made = example_of(schemas.items["create"]())
    changed = {
        "operation": "change",
        "key": examples.key_text,
        "if_match": '"v0"',
        "changes": examples.values,
    }
    identified = {"key": examples.key_text, "links": resource.links(examples.key_text)}
    answered = [
        identified | {"operation": "create", "version": 0, "etag": '"v0"'},
        identified | {"operation": "change", "version": 1, "etag": '"v1"'},
    ]
    return {"items": [made, changed]}, {"model": resource.name, "items": answered}

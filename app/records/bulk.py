"""The operation of ``/bulk``: many records of a model, written in one transaction."""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from marshmallow import Schema, ValidationError
from sqlalchemy.exc import StatementError
from werkzeug.http import quote_etag

from app.api import Blueprint
from app.conditional import matches, precondition_failed
from app.db import commit, session
from app.history.examples import Document, Examples
from app.history.finding import unknown_record
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
from app.records.schemas import bulk_schemas
from app.registry import Resource, UnknownKeyError
from chrononaut import queries
from chrononaut.history import Key
from chrononaut.types import is_among

_MOST_REFUSALS = 100
_LARGEST_BODY = 8 * 1024 * 1024

Refusals = MutableMapping[int, Problem]
"""Place of an item in the request → what is wrong with it."""

_Records = Mapping[Key | None, Any]
"""Key → live object."""


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
    sent, answered = _examples(resource, examples)

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
        The items are written together; only where they conflict so, in the order sent: then those that cannot be
        written are looked for until 100 are found. The body may have 8 MiB.
        """
        refusals: Refusals = {}
        items = [*_read(resource, loading, body["items"], refusals)]
        try:
            with session().no_autoflush:
                found = _find(resource, items, refusals)
                records = _write(resource, _writable(items, refusals), found)
        except StatementError as error:
            _problem_of_item(error)
            session().rollback()
            with session().no_autoflush:
                # All are locked first, in the order of their keys: the parts are in another.
                found = _find(resource, items, refusals)
                records = _write_in_parts(resource, _writable(items, refusals), found, refusals)
        if refusals:
            session().rollback()
            raise _refused(refusals, len(body["items"]))
        written = [_written(resource, item, records[item.index]) for item in items]
        commit()
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


def _writable(items: Sequence[_Item], refusals: Refusals) -> Sequence[_Item]:
    return [item for item in items if item.index not in refusals]


def _write(resource: Resource, items: Sequence[_Item], found: _Records) -> Mapping[int, Any]:
    """Write items by one flush.

    :param found: the records that are there
    :return: place of an item → its record
    """
    # In the order of their keys, so that two requests that make records of the same ones do not wait for one another.
    ordered = sorted(items, key=lambda item: (item.key is None, item.key or ()))
    written = {item.index: _apply(resource, item, found.get(item.key)) for item in ordered}
    session().flush()
    return written


def _write_in_parts(
    resource: Resource, items: Sequence[_Item], found: _Records, refusals: Refusals
) -> Mapping[int, Any]:
    """Write items in the order sent, in as large parts as the database takes, to find those that it refuses by itself.

    It may refuse none of them. Others wait meanwhile for the locks: it ends when as many are refused as are told of.

    :param found: the records that are there, which are locked
    """
    if not items or len(refusals) >= _MOST_REFUSALS:
        return {}
    try:
        with session().begin_nested():
            return _write(resource, items, found)
    except StatementError as error:
        problem = _problem_of_item(error)
        if len(items) == 1:
            refusals[items[0].index] = problem
            return {}
    # What was to be changed is expired, and would be loaded one by one.
    _load(resource, _select(resource, [item.key for item in items if item.key in found]))
    half = len(items) // 2
    first = _write_in_parts(resource, items[:half], found, refusals)
    return {**first, **_write_in_parts(resource, items[half:], found, refusals)}


def _problem_of_item(error: StatementError) -> Problem:
    """What the database refuses of an item.

    :raises StatementError: it refuses none, but all of them together
    """
    problem = problem_of(error)
    if problem is None or problem.kind not in {"conflict", "invalid"}:
        raise error
    return problem


def _select(resource: Resource, keys: Sequence[Key | None]) -> sa.Select[Any] | None:
    """The records that have some keys; ``None`` where there are no keys."""
    given = [key for key in keys if key is not None]
    if not given:
        return None
    among = is_among(resource.versioning.key_columns, given, session().get_bind().dialect.name)
    return sa.select(resource.model).where(among).options(*resource.shown)


def _load(resource: Resource, select: sa.Select[Any] | None) -> _Records:
    """The records that are selected, as the database has them."""
    if select is None:
        return {}
    records = session().scalars(select.execution_options(populate_existing=True))
    return {resource.versioning.key_of(record): record for record in records}


def _find(resource: Resource, items: Sequence[_Item], refusals: Refusals) -> _Records:
    """Lock and load the records of items, and refuse the items that what is there does not allow."""
    select = _select(resource, [item.key for item in items])
    if select is not None:
        # Two requests lock what both want in one order.
        select = select.order_by(*resource.versioning.key_columns).with_for_update(key_share=True)
    records = _load(resource, select)
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
    if item.if_match is not None and not matches(item.if_match, etags):
        return precondition_failed(etags)
    return None


def _deleted(resource: Resource, keys: Sequence[Key]) -> set[Key]:
    """Those of some keys that have history."""
    if not keys:
        return set()
    select = queries.known(resource.model, keys, session().get_bind().dialect)
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
    # Of more it was not asked whether the database takes them.
    at_least = "at least " if _MOST_REFUSALS <= len(described) < sent else ""
    unfit = any(problem.kind == "invalid" for problem in refusals.values())
    return Problem(
        "bulk-invalid" if unfit else "bulk-failed",
        f"{at_least}{len(described)} of {sent} items cannot be written, so none was; items say what is wrong with each",
        items=described,
    )


def _examples(resource: Resource, examples: Examples) -> tuple[Document, Document]:
    """A request that makes one record and changes another, and its answer."""
    digest = ".4f0d6a54b1f0" if resource.versioning.untracked else ""
    other, changed_to = examples.another, 1 if examples.values else 0
    made = {"operation": "create", "record": other.new}
    changed = {
        "operation": "change",
        "key": examples.key_text,
        "if_match": '"v0"',
        "changes": examples.values,
    }
    answered = [
        {"operation": operation, "key": key, "version": version, "etag": quote_etag(f"v{version}{digest}")}
        | {"links": resource.links(key)}
        for operation, key, version in (("create", other.key_text, 0), ("change", examples.key_text, changed_to))
    ]
    return {"items": [made, changed]}, {"model": resource.name, "items": answered}

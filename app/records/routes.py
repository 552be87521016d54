"""The operations of ``/records``."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from flask import jsonify, request
from werkzeug import Response

from app.answers import no_content
from app.api import Blueprint
from app.conditional import cacheable, check_preconditions
from app.db import commit, session
from app.document import links_to_deleted, links_to_record, links_to_version, links_to_writes
from app.dumping import Dump, dumper
from app.examples import example_of
from app.history.examples import Document, Examples
from app.history.finding import Found, timeline_of, unknown_version
from app.history.mementos import links_of, send_to_memento
from app.instants import instant_text
from app.links import link_header
from app.pages import make_cursor, read_cursor
from app.problems import Problem
from app.records.live import assign, etags_of, existing_record, find, key_text_of, number_of, patching, replacing
from app.records.schemas import RecordQuery, RecordSchemas, RecordsQuery, record_schemas
from app.registry import Resource
from chrononaut import History, States, Timeline, queries


def add_records(blueprint: Blueprint, resource: Resource) -> None:
    """Add the operations of ``/records`` of a model."""
    schemas = record_schemas(resource)
    examples = Examples(resource)
    record = examples.record(example_of(schemas.state()))
    _add_reads(blueprint, resource, schemas, {"now": record, "as_of": examples.past_record})
    _add_writes(blueprint, resource, schemas, record, examples)


def _add_reads(
    blueprint: Blueprint, resource: Resource, schemas: RecordSchemas, examples: Mapping[str, Document]
) -> None:
    name, dump, states = resource.name, dumper(schemas.record), States(resource.model)
    pages = {which: {"model": name, "records": [record], "next": None} for which, record in examples.items()}

    @blueprint.operation(
        "GET",
        f"/records/{name}",
        f"list_{name}_records",
        scope="read",
        answer=schemas.records,
        query=RecordsQuery,
        examples=pages,
        links=links_to_record(name, "$response.body#/records/0/key"),
    )
    def list_records(query: Document) -> Document:
        """The records, in the order of their keys: as they are, or as they were at an instant.

        As of an instant those that were deleted since are listed too, and those are left out whose state of then was
        purged.
        """
        at: datetime | None = query.get("as_of")
        what = f"records {name}" if at is None else f"records {name} {instant_text(at)}"
        columns = resource.versioning.key_columns
        select: sa.Select[Any] = (
            sa.select(resource.model, queries.began(resource.model)).options(*resource.shown)
            if at is None
            else resource.model.as_of(at)
        )
        select = select.order_by(*columns).limit(query["limit"] + 1)
        if "cursor" in query:
            (last,) = read_cursor(what, query["cursor"])
            select = select.where(
                sa.tuple_(*columns) > sa.tuple_(*_bound(columns, resource.parse_key(last, is_stored=True)))
            )
        rows = list(session().execute(select))
        following = None
        if len(rows) > query["limit"]:
            rows.pop()
            following = make_cursor(what, [key_text_of(resource, rows[-1][0])])
        return {"model": name, "records": [_document(resource, *row) for row in rows], "next": following}

    @blueprint.operation(
        "GET",
        f"/records/{name}/<key>",
        f"get_{name}",
        scope="read",
        answer=schemas.record,
        query=RecordQuery,
        examples=examples,
        problems=["unknown-record", "unknown-version", "deleted", "purged", "precondition-failed"],
        conditional=True,
        cacheable=True,
        timegate=True,
        links=links_to_record(name) | links_to_writes(name),
    )
    def get_record(query: Document, key: str) -> Response:
        """A record as it is now, or as it was at an instant.

        With `Accept-Datetime` it is its own TimeGate (RFC 7089), also while it is deleted.
        """
        if "as_of" in query and "Accept-Datetime" in request.headers:
            raise Problem(
                "invalid",
                "as_of and Accept-Datetime both say of when; give one of the two",
                errors={"query": {"as_of": ["given together with Accept-Datetime"]}},
            )
        if "as_of" in query:
            return _get_past(resource, states, dump, key, query["as_of"])
        if "Accept-Datetime" in request.headers:
            return send_to_memento(timeline_of(resource, key), resource.links(key))
        timeline = find(resource, key)
        response = _answer(dump, resource, timeline)
        place = timeline.place(number_of(resource, timeline.live))
        response.headers["Link"] = link_header(links_of(resource.links(key), place))
        return cacheable(response, *etags_of(resource, timeline.live))


def _get_past(resource: Resource, states: States, dump: Dump, key_text: str, at: datetime) -> Response:
    state = Found.by_key(resource, states, key_text).valid_at(at)
    # The record's own key: to the database a text may be the same key that is another address.
    own_key = resource.key_text(tuple(state.values[name] for name in resource.versioning.key))
    # What is live says nothing more of itself than what is not, so that it stays the same answer.
    document = resource.identified(own_key) | {
        "version": state.version,
        "valid_from": state.valid_from,
        "state": state.values,
    }
    return cacheable(jsonify(dump(document)), f"v{state.version}")


def _refuse_unknown_version(timeline: Timeline, number: int) -> None:
    is_live = timeline.live is not None and timeline.number(timeline.live) == number
    if not is_live and timeline.version(number) is None:
        raise unknown_version(number)


def _add_writes(
    blueprint: Blueprint, resource: Resource, schemas: RecordSchemas, example: Document, examples: Examples
) -> None:
    name, dump = resource.name, dumper(schemas.record)
    path = f"/records/{name}/<key>"
    columns = example_of(schemas.patch())
    restoration = {
        "version": 0,
        "values": {name: columns[name] for name in resource.versioning.hidden if name in columns},
    }
    common: Document = {
        "scope": "write",
        "answer": schemas.record,
        "example": example,
        "headers": ["ETag"],
        "links": links_to_record(name) | links_to_writes(name) | links_to_version(name),
    }
    changing: Document = common | {
        "problems": ["unknown-record", "deleted"],
        "conditional": True,
    }

    @blueprint.operation(
        "POST",
        f"/records/{name}",
        f"create_{name}",
        status=201,
        body=schemas.new,
        problems=["record-exists"],
        **common | {"headers": ["ETag", "Location"]},
    )
    def create_record(query: Document, body: Document) -> Response:
        """Make a record."""
        record = resource.model(**body)
        _refuse_existing(resource, record)
        session().add(record)
        session().flush()
        location = resource.links(key_text_of(resource, record))["record"]
        response = _written(dump, resource, _timeline(resource, record))
        response.status_code = 201
        response.headers["Location"] = location
        return response

    @blueprint.operation("PUT", path, f"replace_{name}", body=schemas.replacement, **changing)
    def replace_record(query: Document, body: Document, key: str) -> Response:
        """Replace a record: what is left out gets its default.

        Left alone where they are left out are hidden columns, what the database numbers, and what every change stamps.
        """
        return _change(dump, resource, key, lambda record: replacing(resource, body))

    @blueprint.operation("PATCH", path, f"change_{name}", body=schemas.patch, body_example=examples.values, **changing)
    def change_record(query: Document, body: Document, key: str) -> Response:
        """Change the columns that the body names, as a JSON merge patch does (RFC 7396).

        `null` clears a column. An object in a column that holds JSON is merged with the one that is there: its members
        are set, and removed by `null`. Equal values change nothing.
        """
        return _change(dump, resource, key, lambda record: patching(resource, record, body))

    @blueprint.operation(
        "POST",
        f"{path}/restore",
        f"restore_{name}",
        body=schemas.restoration,
        body_example=restoration,
        **changing | {"problems": ["unknown-record", "unknown-version", "purged"]},
    )
    def restore_record(query: Document, body: Document, key: str) -> Response:
        """Give a record the state of a prior version, as a new version; a deleted record is made again.

        Hidden columns keep their values. Those of a deleted record are gone: what cannot be empty must be given.
        """
        timeline = timeline_of(resource, key, to_write=True)
        check_preconditions(() if timeline.live is None else etags_of(resource, timeline.live))
        if "version" in body:
            _refuse_unknown_version(timeline, body["version"])
        if timeline.live is None:
            record = timeline.restore(body.get("version"), **body["values"])
        elif "version" in body:
            record = timeline.revert_to(body["version"], **body["values"])
        else:
            raise Problem(
                "invalid",
                f"the {name} is not deleted; say which version to go back to",
                errors={"json": {"version": ["missing, as the record is not deleted"]}},
            )
        session().flush()
        return _written(dump, resource, _timeline(resource, record))

    @blueprint.operation(
        "DELETE",
        path,
        f"delete_{name}",
        status=204,
        **changing | {"answer": None, "example": None, "headers": [], "links": links_to_deleted(name)},
    )
    def delete_record(query: Document, key: str) -> Response:
        """Delete a record. Its history stays readable."""
        record = find(resource, key, to_write=True).live
        check_preconditions(etags_of(resource, record))
        session().delete(record)
        commit()
        return no_content()


def _change(dump: Dump, resource: Resource, key_text: str, values_for: Callable[[Any], Document]) -> Response:
    timeline = find(resource, key_text, to_write=True)
    check_preconditions(etags_of(resource, timeline.live))
    assign(resource, timeline.live, values_for(timeline.live))
    return _written(dump, resource, timeline)


def _timeline(resource: Resource, record: Any) -> Timeline:
    return Timeline(session(), resource.model, resource.versioning.key_of(record), record)


def _written(dump: Dump, resource: Resource, timeline: Timeline) -> Response:
    """Commit, and answer with the record as it was committed."""
    session().flush()
    response = _answer(dump, resource, timeline)
    commit()
    return response


def _refuse_existing(resource: Resource, record: Any) -> None:
    key = resource.versioning.key_of(record)
    if None not in key and session().get(resource.model, key, options=resource.shown) is not None:
        raise existing_record(resource, resource.key_text(key))


def _answer(dump: Dump, resource: Resource, timeline: Timeline) -> Response:
    response: Response = jsonify(dump(_document(resource, timeline.live, timeline.valid_from())))
    response.set_etag(etags_of(resource, timeline.live)[0])
    return response


def _document(resource: Resource, record: Any, valid_from: datetime | None = None) -> Document:
    """A record as it is now, or as it was.

    :param record: the live object; or a history object, which knows by itself since when it was valid
    """
    versioning = resource.versioning
    key_text = key_text_of(resource, record)
    is_past = isinstance(record, History)
    names = versioning.tracked if is_past else (*versioning.tracked, *versioning.untracked)
    return {
        "model": resource.name,
        "key": key_text,
        "version": number_of(resource, record),
        "valid_from": versioning.own(record, "valid_from") if is_past else valid_from,
        "state": {name: getattr(record, name) for name in names},
        "links": resource.links(key_text),
    }


def _bound(columns: Any, key: Any) -> list[Any]:
    return [sa.literal(part, column.type) for column, part in zip(columns, key, strict=True)]

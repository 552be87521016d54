"""Live records: how they are found, what identifies them, and how they are given values."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm.attributes import flag_modified

from app.columns import changeable
from app.db import session
from app.history.examples import Document
from app.history.finding import timeline_of
from app.links import link_header
from app.memento import resource_links
from app.merge_patch import is_same, merged
from app.problems import Problem
from app.registry import Resource
from chrononaut import Timeline


def find(resource: Resource, key_text: str, *, to_write: bool = False) -> Timeline:
    """The history of a record that is live.

    :param to_write: lock it before it is compared with If-Match, so that nobody can come between
    :raises Problem: 404 or 410
    """
    timeline = timeline_of(resource, key_text, to_write=to_write)
    if timeline.live is None:
        raise deleted_record(resource, key_text)
    return timeline


def deleted_record(resource: Resource, key_text: str) -> Problem:
    """There was such a record."""
    paths = resource.links(key_text)
    return Problem(
        "deleted",
        f"the {resource.name} was deleted; {paths['history']} tells its history",
        headers={"Link": link_header(resource_links(paths))},
    )


def existing_record(resource: Resource, key_text: str) -> Problem:
    """There is such a record already."""
    return Problem("record-exists", f"there is a {resource.name} with the key {key_text!r} already")


def replacing(resource: Resource, body: Document) -> Document:
    """The values that a record is replaced by: what is left out gets its default.

    Not so hidden columns, numbers that the database gives, and what every UPDATE stamps: they are left alone.

    :return: attribute name → value, or the SQL expression of one
    """
    columns, versioning = changeable(resource), resource.versioning
    left_alone = versioning.stamped.union(versioning.hidden)
    row = _Row({columns[name].key: value for name, value in body.items()})
    return {
        name: body[name] if name in body else _default(column, row)
        for name, column in columns.items()
        if name in body or not (name in left_alone or _is_numbered(column))
    }


def patching(resource: Resource, record: Any, patch: Document) -> Document:
    """The values that a merge patch gives to a record's columns. Those of JSON are merged with what is there."""
    columns = resource.versioning.columns
    return {
        name: merged(_value(resource, record, name), value) if _is_json(columns[name].type) else value
        for name, value in patch.items()
    }


def _value(resource: Resource, record: Any, name: str) -> Any:
    if name not in resource.versioning.hidden:
        return getattr(record, name)
    # Objects never hold it; what is merged does for a moment.
    key = zip(resource.versioning.key_columns, resource.versioning.key_of(record), strict=True)
    select = sa.select(getattr(resource.model, name)).where(*(column == part for column, part in key))
    return session().scalar(select)


def assign(resource: Resource, record: Any, values: Document) -> None:
    """Give a record values. One that it has already makes no change."""
    for name, value in values.items():
        if name in resource.versioning.hidden:
            # Its value is never loaded: the database compares it.
            setattr(record, name, value)
            continue
        before = getattr(record, name)
        setattr(record, name, value)
        if isinstance(value, sa.ClauseElement) or not _is_json(resource.versioning.columns[name].type):
            continue
        if before == value and not is_same(before, value):
            # Python takes them for equal, and would not write what JSON tells apart.
            flag_modified(record, name)


def etags_of(resource: Resource, record: Any) -> tuple[str, ...]:
    """What identifies a record's representation: the version.

    Untracked columns are shown, and change without one: with them the tag that identifies the representation has their
    digest. The version alone is enough for ``If-Match``.
    """
    version = f"v{number_of(resource, record)}"
    if not resource.versioning.untracked:
        return (version,)
    untracked = [getattr(record, name) for name in resource.versioning.untracked]
    return f"{version}.{hashlib.sha256(repr(untracked).encode()).hexdigest()[:12]}", version


def number_of(resource: Resource, record: Any) -> int:
    """The version of a live object or of a history object."""
    number: int = resource.versioning.own(record, "version")
    return number


def key_text_of(resource: Resource, record: Any) -> str:
    """The key, as text, of a live object or of a history object."""
    return resource.key_text(resource.versioning.key_of(record))


def _is_json(type_: sa.types.TypeEngine[Any]) -> bool:
    return isinstance(type_.impl_instance if isinstance(type_, sa.TypeDecorator) else type_, sa.JSON)


@dataclass(frozen=True, slots=True)
class _Row:
    """What a default is called with that depends on the other values of its row, as SQLAlchemy's context."""

    values: Mapping[str, Any]

    def get_current_parameters(self, isolate_multiinsert_params: bool = True) -> Mapping[str, Any]:
        return self.values


def _default(column: sa.Column[Any], row: _Row) -> Any:
    """The default of a column: a value, or the SQL expression of one."""
    default, server_default = column.default, column.server_default
    if isinstance(default, sa.ColumnDefault):
        return default.arg(row) if default.is_callable else default.arg
    if not isinstance(server_default, sa.DefaultClause):
        return None
    if isinstance(server_default.arg, str):
        # As it stands in CREATE TABLE: a literal whose type is the column's.
        escaped = server_default.arg.replace("'", "''")
        return sa.literal_column(f"'{escaped}'")
    return server_default.arg


def _is_numbered(column: sa.Column[Any]) -> bool:
    """Does a sequence or a trigger of the database give the column its value, so that no expression says which?"""
    is_fetched = column.server_default is not None and not isinstance(column.server_default, sa.DefaultClause)
    return is_fetched or isinstance(column.default, sa.Sequence)

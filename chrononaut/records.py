"""The records that a statement of ours is about, as a table in it that its parameters fill."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.elements import Grouping

from chrononaut.history import Key, Versioning
from chrononaut.types import JSONDocument, JSONObject

OWN = "chrononaut_"
"""How the names begin that we put into a statement besides those of columns."""


@dataclass(frozen=True, slots=True)
class Records:
    """Records that history is written of, in lists beside each other: thousands of objects, each with one more beside
    it, make the garbage collector run again and again.

    :ivar change_infos: why, of each
    :ivar versions: the version of each that is about to be replaced, where it is known
    """

    keys: Sequence[Key]
    change_infos: Sequence[JSONObject]
    versions: Sequence[int | None]

    def batches(self, size: int) -> Iterator["Records"]:
        """The same records, some at a time."""
        for start in range(0, len(self.keys), size):
            part = slice(start, start + size)
            yield Records(self.keys[part], self.change_infos[part], self.versions[part])


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Records as a table in a statement, and what its columns are."""

    rows: sa.FromClause
    key: Sequence[sa.ColumnElement[Any]]
    version: sa.ColumnElement[int | None]
    change_info: sa.ColumnElement[Any]

    def is_in(self, versioning: Versioning, rows: sa.FromClause) -> list[sa.ColumnElement[bool]]:
        """Is a row of a table that has the key columns one of a record given?"""
        return [rows.c[column.key] == part for column, part in zip(versioning.key_columns, self.key, strict=True)]


def given(versioning: Versioning, records: Records, dialect: Dialect) -> tuple[Given, dict[str, Any]]:
    """Records as a table in a statement, and the parameters that fill it.

    One record, as most transactions change, is given as it is: the database keeps the plan for it.
    """
    if len(records.keys) == 1:
        (key,), (change_info,), (version,) = records.keys, records.change_infos, records.versions
        own = {f"{OWN}version": version, f"{OWN}change_info": change_info}
        return _one(versioning, dialect.name), key_parameters(versioning, key) | own
    if dialect.name == "postgresql":
        return _arrays(versioning), _array_parameters(versioning, records)
    return _listed(versioning), {"rows": _listed_rows(records, dialect)}


def key_parameters(versioning: Versioning, key: Key) -> dict[str, Any]:
    return {_key(name): part for name, part in zip(versioning.key, key, strict=True)}


def key_binds(versioning: Versioning) -> Iterator[tuple[sa.Column[Any], sa.BindParameter[Any]]]:
    for name, column in zip(versioning.key, versioning.key_columns, strict=True):
        yield column, bindparam(_key(name), type_=column.type)


def _key(name: str) -> str:
    return f"{OWN}key_{name}"


@cache
def _one(versioning: Versioning, dialect: str) -> Given:
    binds = [
        *(bind for _, bind in key_binds(versioning)),
        bindparam(f"{OWN}version", type_=sa.Integer()),
        bindparam(f"{OWN}change_info", type_=JSONDocument),
    ]
    # PostgreSQL takes a parameter whose type it is not told for a text.
    typed = [sa.cast(bind, bind.type) if dialect == "postgresql" else bind for bind in binds]
    rows = sa.select(*(value.label(bind.key) for value, bind in zip(typed, binds, strict=True))).subquery()
    *parts, version, change_info = rows.c
    return Given(rows, parts, version, change_info)


@cache
def _arrays(versioning: Versioning) -> Given:
    """On PostgreSQL: an array for each column."""
    typed = {
        **{bind.key: column.type for column, bind in key_binds(versioning)},
        f"{OWN}version": sa.Integer(),
        f"{OWN}number": sa.Integer(),
    }
    binds = [bindparam(name, type_=postgresql.ARRAY(type_)) for name, type_ in typed.items()]
    columns = [sa.column(name, type_) for name, type_ in typed.items()]
    rows = sa.func.unnest(*binds).table_valued(*columns).render_derived()
    *parts, version, number = rows.c
    change_infos: Any = Grouping(bindparam(f"{OWN}change_infos", type_=postgresql.ARRAY(JSONDocument)))
    # A shorter array is filled up with NULL.
    return Given(rows, parts, version, change_infos[sa.func.coalesce(number, 1)])


def _array_parameters(versioning: Versioning, records: Records) -> dict[str, Any]:
    documents = _documents(records)
    numbers = {identity: number for number, identity in enumerate(documents, start=1)}
    return {
        **{_key(name): [key[place] for key in records.keys] for place, name in enumerate(versioning.key)},
        f"{OWN}version": list(records.versions),
        f"{OWN}number": [numbers[id(info)] for info in records.change_infos] if len(documents) > 1 else [],
        f"{OWN}change_infos": list(documents.values()),
    }


@cache
def _listed(versioning: Versioning) -> Given:
    """On SQLite: a list of rows."""
    types = [*(column.type for column in versioning.key_columns), sa.Integer(), sa.Text()]
    # The names that SQLite gives to the columns of VALUES.
    columns = [sa.column(f"column{number}", type_) for number, type_ in enumerate(types, start=1)]
    values = bindparam("rows", expanding=True, type_=sa.tuple_(*columns).type)
    rows = sa.text("SELECT * FROM :rows").bindparams(values).columns(*columns).subquery()
    *parts, version, change_info = rows.c
    return Given(rows, parts, version, sa.type_coerce(change_info, JSONDocument))


def _listed_rows(records: Records, dialect: Dialect) -> list[tuple[Any, ...]]:
    dump = JSONDocument.dialect_impl(dialect).bind_processor(dialect)
    assert dump is not None
    texts = {identity: dump(document) for identity, document in _documents(records).items()}
    rows = zip(records.keys, records.versions, records.change_infos, strict=True)
    return [(*key, version, texts[id(info)]) for key, version, info in rows]


def _documents(records: Records) -> Mapping[int, JSONObject]:
    """The change infos, each once: usually all changes of a flush share one."""
    return {id(info): info for info in records.change_infos}

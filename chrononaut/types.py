"""UTC instants and JSON documents: the only place where databases differ in types."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, UserDefinedType

_MIDNIGHT = " 00:00:00.000000"  # as SQLAlchemy writes it for SQLite

JSONDocument = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
"""A JSON document: JSONB on PostgreSQL, text on SQLite."""


def utc(at: datetime) -> datetime:
    """The same instant, aware and in UTC.

    :param at: an instant; a naive one is read as UTC
    :raises TypeError: it is no datetime
    """
    if not isinstance(at, datetime):
        raise TypeError(f"an instant must be a datetime, not {type(at).__name__}")
    if at.tzinfo is UTC:
        return at
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def instant_text(at: datetime) -> str:
    """An instant as RFC 3339 text in UTC with microseconds: ``2026-03-01T09:00:00.000000Z``.

    :param at: a naive one is read as UTC
    """
    return f"{utc(at).isoformat(timespec='microseconds').removesuffix('+00:00')}Z"


def now() -> datetime:
    """This process's clock, in UTC with microseconds."""
    return datetime.now(UTC)


class Instant(TypeDecorator[datetime]):
    """An instant in UTC with microseconds, aware on every database.

    SQLite has no such type: there it is text in UTC, whose order is the order of time.
    """

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else utc(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else utc(value)


JSONObject = dict[str, Any]
"""A JSON object as Python has it."""


def is_distinct(column: sa.ColumnElement[Any], value: object, dialect: Dialect) -> sa.ColumnElement[bool]:
    """Does a column hold another value than this one? NULL is a value here.

    Texts are the same where their characters are, whatever the column's collation says, and JSON where its values are.

    :param value: a value of the column's type, or an SQL expression
    """
    if not (isinstance(value, sa.ClauseElement) or hasattr(value, "__clause_element__")):
        value = sa.bindparam(None, value, type_=column.type)
    declared = implementation(column.type)
    if dialect.name == "postgresql" and isinstance(declared, sa.Float):
        # A parameter has more digits than a column of single precision.
        value = sa.cast(value, declared)
    comparable = _comparable(column.type.dialect_impl(dialect), dialect.name)
    return comparable(column).is_distinct_from(comparable(value))


def as_loaded(column: Any, dialect: Dialect) -> Any:
    """A column as Python sees it: the null of JSON and NULL are both ``None``."""
    if not isinstance(implementation(column.type.dialect_impl(dialect)), sa.JSON):
        return column
    return sa.type_coerce(sa.case((sa.cast(column, sa.Text) == "null", sa.null()), else_=column), column.type)


_Comparable = Callable[[Any], sa.ColumnElement[Any]]


def _comparable(type_: Any, dialect: str) -> _Comparable:
    """How the values of a type are compared exactly."""
    type_ = implementation(type_)
    return _on_postgresql(type_) if dialect == "postgresql" else _on_sqlite(type_)


def implementation(type_: Any) -> Any:
    """The type that a type of the application's is made of."""
    while isinstance(type_, TypeDecorator):
        type_ = type_.impl_instance
    return type_


def _on_sqlite(type_: Any) -> _Comparable:
    if isinstance(type_, sa.JSON):
        return _sorted_json
    if isinstance(type_, sa.String):
        return lambda value: sa.collate(value, "BINARY")
    return _as_it_is


def _on_postgresql(type_: Any) -> _Comparable:
    if isinstance(type_, sa.JSON):
        # There is no equality for the type json.
        return lambda value: sa.cast(value, postgresql.JSONB)
    if isinstance(type_, postgresql.ARRAY) and isinstance(type_.item_type, sa.JSON):
        return lambda value: sa.cast(value, postgresql.ARRAY(postgresql.JSONB))
    if isinstance(type_, UserDefinedType):
        # Nor for some types that SQLAlchemy does not know.
        return lambda value: sa.cast(sa.cast(value, type_), sa.Text)
    if isinstance(type_, postgresql.CITEXT):
        return lambda value: sa.cast(value, sa.Text)
    if isinstance(type_, sa.String) and type_.collation is not None:
        return lambda value: sa.collate(value, "C")
    return _as_it_is


def _as_it_is(value: Any) -> sa.ColumnElement[Any]:
    return value  # type: ignore[no-any-return]


def _sorted_json(document: Any) -> sa.ColumnElement[Any]:
    """All values of a JSON document with their paths, in the order of these, as text."""
    nodes = sa.func.json_tree(document).table_valued("fullkey", "type", "atom")
    node = nodes.c.fullkey + sa.literal(" ") + nodes.c.type + sa.literal(" ") + sa.func.quote(nodes.c.atom)
    ordered = sa.select(node.label("node")).order_by(nodes.c.fullkey).subquery()
    return sa.select(sa.func.group_concat(ordered.c.node, sa.text("char(10)"))).scalar_subquery()


def is_among(
    columns: Sequence[sa.ColumnElement[Any]], rows: Sequence[tuple[Any, ...]], dialect: str
) -> sa.ColumnElement[bool]:
    """Do columns together have one of several rows of values? An index on them finds it.

    :param dialect: the name of the dialect
    """
    row = sa.tuple_(*columns)
    if dialect != "sqlite":
        return row.in_(rows)
    # It looks the rows of a subquery up in an index, but reads a whole table for a list of them.
    listed = sa.bindparam("listed_rows", rows, expanding=True, type_=row.type)
    return row.in_(sa.text("SELECT * FROM :listed_rows").bindparams(listed))


def lists_name(document: sa.ColumnElement[Any], key: str, name: str, dialect: str) -> sa.ColumnElement[bool]:
    """Does a JSON object have, under a key, a list that holds a name?

    :param dialect: the name of the dialect
    """
    if dialect == "postgresql":
        return document.op("@>", return_type=sa.Boolean())(sa.literal({key: [name]}, JSONDocument))
    listed = sa.func.json_each(document, f"$.{key}").table_valued("value")
    return sa.exists().select_from(listed).where(listed.c.value == name)


def has_text(document: sa.ColumnElement[Any], key: str, name: str, text: str, dialect: str) -> sa.ColumnElement[bool]:
    """Does a JSON object have, under a key, an object that has a text under a name?

    :param dialect: the name of the dialect
    """
    if dialect == "postgresql":
        return document.op("@>", return_type=sa.Boolean())(sa.literal({key: {name: text}}, JSONDocument))
    # Not by a path, in which SQLite knows no way to write a quotation mark.
    member = sa.func.json_each(document, f"$.{key}").table_valued("key", "value")
    return sa.exists().select_from(member).where(member.c.key == name, member.c.value == text)


def marks_name(
    document: sa.ColumnElement[Any], key: str, list_key: str, name: str, dialect: str
) -> sa.ColumnElement[bool]:
    """Does a JSON object have, under a key, a list with an object that has, under a key, a list that holds a name?

    :param dialect: the name of the dialect
    """
    if dialect == "postgresql":
        return document.op("@>", return_type=sa.Boolean())(sa.literal({key: [{list_key: [name]}]}, JSONDocument))
    mark = sa.func.json_each(document, f"$.{key}").table_valued("value", "type")
    # A text is taken for JSON, and is wrong then.
    an_object = sa.case((mark.c.type == "object", mark.c.value), else_="{}")
    listed = sa.func.json_each(an_object, f"$.{list_key}").table_valued("value")
    return sa.exists().select_from(mark.join(listed, sa.true())).where(listed.c.value == name)


def has_key(document: sa.ColumnElement[Any], key: str) -> sa.ColumnElement[bool]:
    """Does a JSON object have a key with another value than null?"""
    found: sa.ColumnElement[bool] = document[key].as_string().is_not(None)
    return found


def is_text(type_: Any) -> bool:
    """Are the values of a type texts of any content?"""
    made_of = implementation(type_)
    return isinstance(made_of, sa.String) and not isinstance(made_of, sa.Enum)


def with_null(document: sa.ColumnElement[Any], key: str, dialect: str) -> sa.ColumnElement[Any]:
    """A JSON object that has null under a key.

    :param dialect: the name of the dialect
    """
    if dialect == "postgresql":
        return document.op("||")(sa.literal({key: None}, JSONDocument))
    return sa.func.json_set(document, f"$.{key}", sa.null())


def with_mark(
    document: sa.ColumnElement[Any], key: str, mark: JSONObject, without: Sequence[str], dialect: str
) -> sa.ColumnElement[Any]:
    """A JSON object whose list under a key, which is made where there is none, ends with one object more.

    What is no list gives way.

    :param without: keys of the object that go
    :param dialect: the name of the dialect
    """
    added, marked = sa.literal(mark, JSONDocument), document
    marks: sa.ColumnElement[Any]
    if dialect == "postgresql":
        for name in without:
            marked = marked.op("-")(sa.cast(name, sa.Text))
        there = document.op("->")(sa.cast(key, sa.Text))
        marks = sa.case((sa.func.jsonb_typeof(there) == "array", there), else_=sa.literal([], JSONDocument))
        marks = marks.op("||")(sa.func.jsonb_build_array(added))
        return marked.op("||")(sa.func.jsonb_build_object(sa.cast(key, sa.Text), marks))
    path = f"$.{key}"
    marks = sa.case((sa.func.json_type(document, path) == "array", sa.func.json_extract(document, path)), else_="[]")
    marks = sa.func.json_insert(marks, "$[#]", sa.func.json(added))
    removed = sa.func.json_remove(document, *(f"$.{name}" for name in without))
    return sa.func.json_set(removed, path, sa.func.json(marks))


def last_midnight_before(instant: sa.ColumnElement[Any], dialect: str) -> sa.ColumnElement[Any]:
    """The last midnight in UTC before an instant, and not at it.

    :param dialect: the name of the dialect
    """
    midnight: sa.ColumnElement[Any]
    if dialect == "postgresql":
        just_before = instant - sa.text("INTERVAL '1 microsecond'")
        midnight = sa.func.timezone("UTC", sa.func.date_trunc("day", sa.func.timezone("UTC", just_before)))
    else:
        # There it is text, of which only the date is of use to SQLite's functions: they know no microseconds.
        text = sa.type_coerce(instant, sa.Text)
        day, time = sa.func.substr(text, 1, 10), sa.func.substr(text, 11)
        before = sa.func.date(day, sa.case((time == _MIDNIGHT, "-1 day"), else_="+0 day"))
        midnight = before.op("||", return_type=sa.Text())(_MIDNIGHT)
    return sa.type_coerce(midnight, Instant)


def with_values(
    document: sa.ColumnElement[Any], values: Mapping[tuple[str, ...], sa.ColumnElement[Any]], dialect: str
) -> sa.ColumnElement[Any]:
    """A JSON object with other values at some paths.

    :param values: path → value, a text or a number
    :param dialect: the name of the dialect
    """
    for path, value in values.items():
        if dialect == "postgresql":
            given: Any = sa.cast(value, sa.Text) if isinstance(value.type, sa.String) else value
            document = sa.func.jsonb_set(document, postgresql.array(path), sa.func.to_jsonb(given), type_=JSONDocument)
        else:
            document = sa.func.json_set(document, f"$.{'.'.join(path)}", value, type_=JSONDocument)
    return document


def with_key_of(
    document: sa.ColumnElement[Any], other: sa.ColumnElement[Any], key: str, dialect: str
) -> sa.ColumnElement[Any]:
    """A JSON object with what another one has under a key, where it has that.

    :param document: a JSON object without that key
    :param dialect: the name of the dialect
    """
    added: sa.ColumnElement[Any]
    value: sa.ColumnElement[Any]
    if dialect == "postgresql":
        value = other.op("->")(sa.cast(key, sa.Text))
        added = document.op("||")(sa.func.jsonb_build_object(sa.cast(key, sa.Text), value))
    else:
        value = sa.func.json_extract(other, f"$.{key}")
        added = sa.func.json_set(document, f"$.{key}", sa.func.json(value))
    return sa.case((has_key(other, key), sa.type_coerce(added, document.type)), else_=document)


def with_names(
    document: sa.ColumnElement[Any], key: str, names: Mapping[str, sa.ColumnElement[bool]], dialect: str
) -> sa.ColumnElement[Any]:
    """A JSON object that has, under a key, a list of the names whose condition is true; as it is where none is.

    :param document: a JSON object without that key
    :param dialect: the name of the dialect
    """
    if not names:
        return document
    added: sa.ColumnElement[Any]
    if dialect == "postgresql":
        listed: Any = [sa.case((condition, name)) for name, condition in names.items()]
        chosen: sa.ColumnElement[Any] = sa.func.array_remove(postgresql.array(listed, type_=sa.Text), None)
        added = document.op("||")(sa.func.jsonb_build_object(sa.cast(key, sa.Text), sa.func.to_jsonb(chosen)))
    else:
        chosen = sa.func.json_array()
        for name, condition in names.items():
            chosen = sa.case((condition, sa.func.json_insert(chosen, "$[#]", name)), else_=chosen)
        added = sa.func.json_set(document, f"$.{key}", sa.func.json(chosen))
    return sa.case((sa.or_(*names.values()), sa.type_coerce(added, document.type)), else_=document)

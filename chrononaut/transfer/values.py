"""The values of columns in a file, exactly: between what a database holds and what JSON and CSV can say.

Values pass by the types of the models, whose Python may be anything: what stands in a file is what the database holds.
So a value that a `TypeDecorator` encrypts stays encrypted. Between them there are three forms of a value:

- the one of the file: an integer, a float, true or false, or a text, which is a JSON value and, as text, a cell of CSV;
- the one that is selected (`Codec.select`) and written to the file by `Codec.write`;
- the one that is a statement's parameter, made by `Codec.read`: on PostgreSQL a text, which it reads itself.
"""

import json
import math
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, UserDefinedType

Value = int | float | bool | str
"""A value as it stands in a file; ``None`` stands for NULL beside it."""

NULL = r"\N"
"""NULL in a cell of CSV. A text that begins with a backslash has one more there."""

_FLOATS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?|NaN|-?Infinity", re.ASCII)
_DAY, _HOUR = r"\d{4,6}-\d\d-\d\d", r"\d\d:\d\d:\d\d(\.\d{1,6})?"
_MOMENTS = {
    "instant": re.compile(rf"-?infinity|{_DAY}T{_HOUR}(Z|[+-]\d\d:\d\d)( BC)?", re.ASCII),
    "datetime": re.compile(rf"-?infinity|{_DAY}T{_HOUR}( BC)?", re.ASCII),
    "date": re.compile(rf"-?infinity|{_DAY}( BC)?", re.ASCII),
}
_TIME = re.compile(rf"{_HOUR}(Z|[+-]\d\d(:\d\d){{0,2}})?", re.ASCII)
_SPAN = re.compile(
    r"P(?=.)(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)D)?(?:T(?=.)(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?)(\d+)(?:\.(\d{1,6}))?S)?)?",
    re.ASCII,
)
_LARGEST = 2**63


class WrongValueError(ValueError):
    """A value of a file is none of the column's; the message says what would be right, and no value."""


class Raw(UserDefinedType[Any]):
    """A value as the driver has it."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        raise NotImplementedError("no column has this type")


@dataclass(frozen=True, slots=True)
class Codec:
    """How the values of one column stand in a file.

    :ivar kind: what the file calls the type: a name that is the same for every database
    :ivar select: column → what is selected for it
    :ivar write: what is selected → the file's value; ``None`` where they are the same
    :ivar read: the file's value → the parameter of a statement; raises `WrongValueError`
    :ivar is_cast: does the parameter need a cast to the column's type?
    :ivar is_same: do two values of the file say the same?
    """

    kind: str
    select: Callable[[sa.ColumnElement[Any]], sa.ColumnElement[Any]]
    write: Callable[[Any], Value] | None
    read: Callable[[Any], Any]
    is_cast: bool = True
    is_same: Callable[[Any, Any], bool] = lambda one, other: one == other


def codec_of(type_: Any, dialect: Dialect) -> Codec:
    """How values of a type stand in a file."""
    # As it is declared: what a dialect makes of a type may no longer say whether it is a float.
    impl = _declared(type_, dialect)
    if dialect.name == "postgresql":
        return _on_postgresql(impl, dialect)
    return _on_sqlite(impl, dialect)


def _declared(type_: Any, dialect: Dialect) -> Any:
    """The type that a dialect is given, without the `TypeDecorator` around it."""
    type_ = type_._variant_mapping.get(dialect.name, type_)
    # An interval is one itself, on databases that have no type for it.
    if not isinstance(type_, TypeDecorator) or isinstance(type_, sa.Interval):
        return type_
    return _declared(type_.load_dialect_impl(dialect), dialect)


def to_cell(value: Value | None) -> str:
    """A value as a cell of CSV."""
    if value is None:
        return NULL
    if isinstance(value, str):
        return f"\\{value}" if value.startswith("\\") else value
    return json.dumps(value)


def from_cell(cell: str, kind: str) -> Value | None:
    """The value that a cell of CSV stands for."""
    if cell == NULL:
        return None
    return from_text(cell.removeprefix("\\"), kind)


def from_text(text: str, kind: str) -> Value:
    """The value that a text stands for, or the text itself, if it is none of this kind."""
    if kind not in ("integer", "float", "boolean"):
        return text
    try:
        value: Value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value


def _as_selected(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.type_coerce(column, Raw())


def _as_text(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.cast(column, sa.Text)


def kind_of(impl: Any) -> str | None:  # noqa: PLR0911  one kind of column after the other
    """What a file calls a type; ``None`` for one that only a single database has."""
    if isinstance(impl, sa.Boolean):
        return "boolean"
    if isinstance(impl, sa.Integer):
        return "integer"
    if isinstance(impl, sa.Float):
        return "float"
    if isinstance(impl, sa.Numeric):
        return "decimal"
    if isinstance(impl, sa.LargeBinary):
        return "bytes"
    if isinstance(impl, sa.Uuid):
        return "uuid"
    if isinstance(impl, sa.JSON):
        return "json"
    # Before the type of a date and time, which is that of an interval on databases that have none.
    if isinstance(impl, sa.Interval | postgresql.INTERVAL):
        return "interval"
    if isinstance(impl, sa.DateTime):
        return "instant" if impl.timezone else "datetime"
    if isinstance(impl, sa.Date):
        return "date"
    if isinstance(impl, sa.Time):
        return "time"
    return "text" if isinstance(impl, sa.String) else None


def _on_postgresql(impl: Any, dialect: Dialect) -> Codec:  # noqa: PLR0911  one kind of column after the other
    kind = kind_of(impl)
    if kind == "integer":
        read_number = integers(impl, dialect)
        return Codec(kind, _as_selected, None, lambda value: str(read_number(value)))
    if kind == "boolean":
        return Codec(kind, _as_selected, None, lambda value: "true" if read_boolean(value) else "false")
    if kind == "float":
        return Codec(kind, _as_selected, _float_written, lambda value: repr(read_float(value)), is_same=_same_floats)
    if kind == "decimal":
        return Codec(kind, _as_text, None, lambda value: _number_within(value, impl), is_same=_same_numbers)
    if kind == "bytes":
        return Codec(
            kind,
            _as_selected,
            lambda value: b64encode(value).decode(),
            lambda value: f"\\x{read_bytes(value).hex()}",
        )
    if kind == "uuid":
        if impl.native_uuid:
            return Codec(kind, _as_text, None, lambda value: str(read_uuid(value)))
        return Codec(kind, _as_selected, _uuid_written, lambda value: read_uuid(value).hex, is_cast=False)
    if kind == "json":
        return Codec(kind, _as_text, None, _json_without_nul, is_same=_same_json)
    if kind in ("instant", "datetime", "date"):
        return Codec(kind, _as_text, _moment_written, lambda value: _matching(_MOMENTS[kind], value, kind))
    if kind == "time":
        return Codec(kind, _as_text, None, lambda value: _matching(_TIME, value, kind))
    if kind == "interval":
        return Codec(kind, _as_text, None, lambda value: _matching(_SPAN, value, kind))
    if kind == "text":
        # Of a text that is too long, a cast would take the beginning.
        is_cast = isinstance(impl, sa.Enum) and bool(impl.native_enum)
        return Codec(kind, _as_text if is_cast else _as_selected, None, texts(impl, dialect), is_cast)
    return Codec(str(impl.compile(dialect)).lower(), _as_text, None, _text_without_nul)


def _on_sqlite(impl: Any, dialect: Dialect) -> Codec:  # noqa: PLR0911  one kind of column after the other
    kind = kind_of(impl)
    if kind == "integer":
        return Codec(kind, _as_selected, None, integers(impl, dialect))
    if kind == "boolean":
        return Codec(kind, _as_selected, bool, lambda value: int(read_boolean(value)))
    if kind == "float":
        return Codec(kind, _as_selected, _float_written, _sqlite_float, is_same=_same_floats)
    if kind == "decimal":
        scale = impl.scale
        return Codec(
            kind, _as_selected, lambda value: _number_written(value, scale), _sqlite_number, is_same=_same_numbers
        )
    if kind == "bytes":
        return Codec(kind, _as_selected, lambda value: b64encode(value).decode(), read_bytes)
    if kind == "uuid":
        return Codec(kind, _as_selected, _uuid_written, lambda value: read_uuid(value).hex)
    if kind == "json":
        # In a column of this type, SQLite holds the text of a number as that number.
        return Codec(
            kind,
            _as_selected,
            lambda value: value if isinstance(value, str) else json.dumps(value),
            _json,
            is_same=_same_json,
        )
    if kind in ("instant", "datetime", "date", "time", "interval"):
        return _moments_on_sqlite(kind, impl, dialect)
    return Codec(kind or str(impl.compile(dialect)).lower(), _as_selected, None, read_text if kind == "text" else _any)


def _moments_on_sqlite(kind: str, impl: Any, dialect: Dialect) -> Codec:
    """Dates and times, which are text in a form that the type may say."""
    impl = impl.dialect_impl(dialect)
    load, store = impl.result_processor(dialect, None), impl.bind_processor(dialect)
    forms: dict[str, tuple[Callable[[Any], str], Callable[[object], Any]]] = {
        "instant": (lambda value: f"{_short(value.isoformat())}Z", read_instant),
        "datetime": (lambda value: _short(value.isoformat()), read_datetime),
        "date": (lambda value: value.isoformat(), read_date),
        "time": (lambda value: _short(value.isoformat()), read_time),
        "interval": (_span_written, read_span),
    }
    text, parse = forms[kind]
    return Codec(kind, _as_selected, lambda value: text(load(value)), lambda value: store(parse(value)))


def _short(text: str) -> str:
    """A time without the zeros at its end, as PostgreSQL writes it."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def _moment_written(text: str) -> str:
    """From the form ``2026-03-01 09:00:00.5+00`` to that of ISO 8601."""
    return text.replace(" ", "T", 1).replace("+00", "Z", 1) if ":" in text else text


def read_integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise WrongValueError(f"must be an integer, not {_shown(value)}")
    return value


def integers(type_: Any, dialect: Dialect) -> Callable[[object], int]:
    """What reads the integers that a column can hold."""
    bits = 64
    if dialect.name == "postgresql" and not isinstance(type_, sa.BigInteger):
        bits = 16 if isinstance(type_, sa.SmallInteger) else 32

    def read(value: object) -> int:
        number = read_integer(value)
        if not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
            raise WrongValueError(f"is beyond what the column can hold, {bits} bits")
        return number

    return read


def read_boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise WrongValueError(f"must be true or false, not {_shown(value)}")
    return value


def read_float(value: object) -> float:
    if isinstance(value, str) and value in _FLOATS:
        return _FLOATS[value]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise WrongValueError(f"must be a number, or one of the texts inf, -inf and nan, not {_shown(value)}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if math.isinf(found):
        raise WrongValueError("is beyond what a float can hold")
    return found


def _float_written(value: float) -> Value:
    return float(value) if math.isfinite(value) else repr(float(value))


def _same_floats(one: Any, other: Any) -> bool:
    return bool(_float_key(one) == _float_key(other))


def _float_key(value: Any) -> Any:
    # -0.0 is another value than 0.0, and nan the same as nan.
    return None if value is None else repr(read_float(value))


def decimals(type_: Any, dialect: Dialect) -> Callable[[object], Decimal]:
    """What reads the numbers that a column holds as they are, of a change."""

    def read(value: object) -> Decimal:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        text = _number_within(str(value) if is_number else value, type_)
        if dialect.name == "sqlite":
            _sqlite_number(text)
        return Decimal(text)

    return read


def _number(value: object) -> str:
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        raise WrongValueError(f"must be a decimal number as a text, as 1.50, not {_shown(value)}")
    return value


def _number_within(value: object, type_: Any) -> str:
    text = _number(value)
    number = Decimal(text)
    if type_.precision is None or not number.is_finite():
        return text
    scale = type_.scale or 0
    if -_exponent(number) > scale:
        raise WrongValueError(f"has more than the {scale} digits after the point that the column holds")
    if number and number.adjusted() >= type_.precision - scale:
        raise WrongValueError(
            f"has more than the {type_.precision - scale} digits before the point that the column holds"
        )
    return text


def _exponent(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    return exponent


def _sqlite_number(value: object) -> int | float:
    number = Decimal(_number(value))
    whole = number.is_finite() and number.adjusted() <= len(str(_LARGEST)) and number == number.to_integral_value()
    if whole and -_LARGEST <= number < _LARGEST:
        return int(number)
    found = float(number)
    if Decimal(repr(found)) != number:
        raise WrongValueError("is a number that SQLite cannot hold exactly, as it keeps a float")
    return found


def _sqlite_float(value: object) -> float:
    number = read_float(value)
    if math.isnan(number):
        raise WrongValueError("is no number (nan), in place of which SQLite would hold NULL")
    return number


def _number_written(value: Any, scale: int | None) -> str:
    """A number with the digits after the point that the type says, or more where the database holds more."""
    number = Decimal(repr(value) if isinstance(value, float) else value)
    if not number.is_finite():
        return str(number)
    digits = max(-_exponent(number), 0) if scale is None else max(-_exponent(number.normalize()), scale)
    return f"{number:.{digits}f}"


def _same_numbers(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    return one == other or Decimal(one) == Decimal(other)


def read_text(value: object) -> str:
    if not isinstance(value, str):
        raise WrongValueError(f"must be a text, not {_shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise WrongValueError("holds half a character (a surrogate), which no database stores") from None
    return value


def _text_without_nul(value: object) -> str:
    text = read_text(value)
    if "\0" in text:
        raise WrongValueError("holds NUL, which PostgreSQL does not store")
    return text


def texts(type_: Any, dialect: Dialect) -> Callable[[object], str]:
    """What reads the texts that a column can hold."""
    if dialect.name != "postgresql":
        return read_text
    length = None if isinstance(type_, sa.Enum) else type_.length

    def read(value: object) -> str:
        text = _text_without_nul(value)
        if length is not None and len(text) > length:
            raise WrongValueError(f"is longer than the {length} characters that the column holds")
        return text

    return read


def _any(value: object) -> Any:
    return value if isinstance(value, int | float) else read_text(value)


def _json(value: object) -> str:
    text = read_text(value)
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WrongValueError(f"must be the text of a JSON document: {error}") from None
    return text


def _json_without_nul(value: object) -> str:
    return _text_without_nul(_json(value))


def _same_json(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    return bool(one == other or json.loads(one) == json.loads(other))


def read_bytes(value: object) -> bytes:
    try:
        return b64decode(read_text(value), validate=True)
    except ValueError:
        raise WrongValueError(f"must be base64, not {_shown(value)}") from None


def read_uuid(value: object) -> UUID:
    try:
        return UUID(read_text(value))
    except ValueError:
        raise WrongValueError(f"must be a UUID, not {_shown(value)}") from None


def _uuid_written(value: str) -> str:
    return str(UUID(value))


def _matching(pattern: re.Pattern[str], value: object, kind: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise WrongValueError(f"must be {_EXAMPLES[kind]}, not {_shown(value)}")
    return value


_EXAMPLES = {
    "instant": "an instant, as 2026-03-01T09:00:00Z",
    "datetime": "a date and time, as 2026-03-01T09:00:00",
    "date": "a date, as 2026-03-01",
    "time": "a time, as 09:00:00",
    "interval": "a span of time, as P1DT2H30M",
}


def read_instant(value: object) -> datetime:
    try:
        at = datetime.fromisoformat(_matching(_MOMENTS["instant"], value, "instant"))
    except ValueError:
        raise WrongValueError(f"must be {_EXAMPLES['instant']}, not {_shown(value)}") from None
    return (at if at.tzinfo is None else at.astimezone(UTC)).replace(tzinfo=None)


def read_datetime(value: object) -> datetime:
    try:
        at = datetime.fromisoformat(_matching(_MOMENTS["datetime"], value, "datetime"))
    except ValueError:
        at = None
    if at is None or at.tzinfo is not None:
        raise WrongValueError(f"must be {_EXAMPLES['datetime']}, not {_shown(value)}")
    return at


def read_date(value: object) -> date:
    try:
        return date.fromisoformat(_matching(_MOMENTS["date"], value, "date"))
    except ValueError:
        raise WrongValueError(f"must be {_EXAMPLES['date']}, not {_shown(value)}") from None


def read_time(value: object) -> time:
    try:
        return time.fromisoformat(_matching(_TIME, value, "time"))
    except ValueError:
        raise WrongValueError(f"must be {_EXAMPLES['time']}, not {_shown(value)}") from None


def read_span(value: object) -> timedelta:
    found = _SPAN.fullmatch(_matching(_SPAN, value, "interval"))
    assert found is not None
    years, months, days, hours, minutes = (int(part or 0) for part in found.groups()[:5])
    if years or months:
        raise WrongValueError("has years or months, of which this database knows no length")
    sign, seconds, fraction = found.groups()[5:]
    microseconds = int(seconds or 0) * 1_000_000 + int((fraction or "").ljust(6, "0"))
    try:
        return timedelta(days, hours=hours, minutes=minutes, microseconds=-microseconds if sign else microseconds)
    except OverflowError:
        raise WrongValueError("is beyond what the database can hold") from None


def _span_written(value: timedelta) -> str:
    """As PostgreSQL writes it: ``P1DT2H30M``."""
    minutes, seconds = divmod(value.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    second = _short(f"{seconds}.{value.microseconds:06}")
    days = f"{value.days}D" if value.days else ""
    rest = "".join(
        f"{number}{unit}" for number, unit in ((hours, "H"), (minutes, "M"), (second, "S")) if number not in (0, "0")
    )
    return f"P{days}T{rest}" if rest else f"P{days or 'T0S'}"


def _shown(value: object) -> str:
    """The kind of a wrong value and no more: it may be what nobody is to read in a log."""
    names = {str: "a text that is none", bool: "true or false", int: "an integer", float: "a float", dict: "an object"}
    return names.get(type(value), "a list" if isinstance(value, list) else type(value).__name__)

"""What an operator sets: one frozen `Settings`, read from the environment, each value checked.

Each setting is declared once, with the field that holds its value; README's table of settings is held to that.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from limits import parse_many
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo, timeout_from_conninfo

from app.proxies import Proxies, ProxyError
from app.threads import SLOW_THREADS
from chrononaut import Retention
from chrononaut.retention import read_setting

_PREFIX = "CHRONONAUT_"
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")

T = TypeVar("T")


class SettingError(Exception):
    """Settings are missing, unknown or wrong; the message says which, one a line, and what would be right."""


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """What is declared of a setting.

    :ivar name: of the environment's variable
    :ivar read: makes the value of a text, or raises a `ValueError` that goes on after the name: what would be right
    :ivar default: the text that an empty or missing one stands for; None where one must be given, in a group that may
        be left out: with the others of it
    :ivar allowed: what may be set, for README
    :ivar meaning: what it does, for README
    """

    name: str
    read: Callable[[str], T]
    default: str | None
    allowed: str
    meaning: str

    def value(self, environment: Mapping[str, str]) -> T:
        """What an environment sets.

        :raises SettingError: it is missing or wrong
        """
        try:
            return self.read(environment.get(self.name) or self.default or "")
        except ValueError as error:
            raise SettingError(f"{self.name} {error}") from None


def _optional(
    name: str,
    read: Callable[[str], T],
    *,
    allowed: str,
    meaning: str,
    default: str = "",
) -> T:
    declared: T = field(default=read(default), metadata={"setting": Setting(name, read, default, allowed, meaning)})
    return declared


def _required(name: str, read: Callable[[str], T], *, allowed: str, meaning: str) -> T:
    declared: T = field(metadata={"setting": Setting(name, read, None, allowed, meaning)})
    return declared


_SHORTEST_KEY = 16
_CONNECTIONS_BESIDES = SLOW_THREADS + 4


def _secret_key(text: str) -> str:
    if not text:
        raise ValueError(f"is missing; set it to a random text of at least {_SHORTEST_KEY} characters")
    if len(text) < _SHORTEST_KEY:
        raise ValueError(f"must be a random text of at least {_SHORTEST_KEY} characters, not {len(text)}")
    return text


def _database_url(text: str) -> str:
    example = "as sqlite:////var/lib/service/history.db or postgresql+psycopg://user@host/database"
    if not text:
        raise ValueError(f"is missing; set it to the database's URL, {example}")
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise ValueError(f"is no URL of a database; write it {example}") from None
    if url.drivername in {"postgres", "postgresql"}:
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in {"sqlite", "postgresql+psycopg"}:
        raise ValueError(f"names the driver {url.drivername}; write it {example}")
    if url.drivername != "sqlite":
        _check_options(url)
    return url.render_as_string(hide_password=False)


def _check_options(url: sa.URL) -> None:
    dialect: Any = url.get_dialect()()
    args, options = dialect.create_connect_args(url)
    try:
        timeout_from_conninfo(conninfo_to_dict(make_conninfo(*args, **options)))
    except ProgrammingError as error:
        raise ValueError(f"has an option that PostgreSQL does not take: {str(error).strip()}") from None


def _modules(text: str) -> tuple[str, ...]:
    modules = tuple(part.strip() for part in text.split(","))
    if not all(all(name.isidentifier() for name in module.split(".")) for module in modules):
        raise ValueError(f"must be module names separated by commas, not {text!r}")
    return modules


def _reference(text: str) -> str:
    module, _, name = text.partition(":")
    if not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ValueError(f"must be module:name, as app.db:db, not {text!r}")
    return text


_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


def _origins(text: str) -> tuple[str, ...]:
    """Origins as browsers write them (RFC 6454, section 6.2), or ``*`` alone."""
    origins = tuple(part.strip() for part in text.split(",")) if text.strip() else ()
    if origins == ("*",):
        return origins
    for origin in origins:
        implied_port = ":443" if origin.startswith("https:") else ":80"
        if not _ORIGIN.fullmatch(origin) or origin.endswith(implied_port):
            raise ValueError(
                "must be origins as browsers send them, separated by commas, or * alone: "
                f"https://example.com, lower-case, without a path or the port that is implied; not {origin!r}"
            )
    return origins


def _proxies(text: str) -> Proxies:
    try:
        return Proxies.parse(text)
    except ProxyError as error:
        raise ValueError(f"must be IP networks, separated by commas: {error}") from None


_ADDRESS = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})|unix:/.+")
_LAST_PORT = 65535


def _addresses(text: str) -> tuple[str, ...]:
    addresses = tuple(part.strip() for part in text.split(","))
    for address in addresses:
        written = _ADDRESS.fullmatch(address)
        if written is None or not 1 <= int(written["port"] or 1) <= _LAST_PORT:
            raise ValueError(
                "must be addresses with ports, or unix: and a path, separated by commas: 127.0.0.1:8000, "
                f"[::1]:8000, unix:/run/chrononaut.sock; not {address!r}"
            )
    return addresses


_CLAIM = re.compile(r"[A-Za-z0-9_.:/#~-]+")


def _retention(text: str) -> tuple[tuple[str, Retention], ...]:
    return tuple(read_setting(text).items()) if text else ()


def _claim(text: str) -> str:
    if not _CLAIM.fullmatch(text):
        raise ValueError("must be the name of a claim, as preferred_username")
    return text


def _optional_claim(text: str) -> str | None:
    return _claim(text) if text else None


def _rate_limits(text: str) -> str:
    if not text.strip():
        return ""
    try:
        items = parse_many(text)
    except ValueError:
        items = []
    if not items or not all(item.amount for item in items):
        raise ValueError(f"must be as 100 per minute; 5000 per hour, not {text!r}")
    return text


def _storage(text: str) -> str:
    return text  # what can be opened is found out when it is: `app.limits`


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}, not {text!r}")
        return int(text)

    return read


def _word(words: Sequence[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"must be {', '.join(words[:-1])} or {words[-1]}, not {text!r}")
        return text.lower()

    return read


def _optional_whole(least: int, most: int) -> Callable[[str], int | None]:
    read = _whole(least, most)
    return lambda text: read(text) if text else None


def _flag(text: str) -> bool:
    if text.lower() not in (*_TRUE, *_FALSE):
        raise ValueError(f"must be true or false, not {text!r}")
    return text.lower() in _TRUE


_LOG_FORMATS = ("json", "text")
_LOG_LEVELS = ("info", "warning", "error")
_TRUTHS = "`true` or `false`"


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """What is set of an identity provider whose tokens are taken."""

    issuer: str = _required(
        "CHRONONAUT_JWT_ISSUER",
        str,
        allowed="a text",
        meaning="the identity provider whose JWTs are taken as bearer tokens: their `iss`; with the next two, or none "
        "of them",
    )
    audience: str = _required("CHRONONAUT_JWT_AUDIENCE", str, allowed="a text", meaning="what their `aud` holds")
    jwks: str = _required(
        "CHRONONAUT_JWT_JWKS",
        str,
        allowed="a path or an `https` URL",
        meaning="the provider's public keys (a JWK Set with a `kid` for each), as the path of a file or its URL",
    )
    user_claim: str | None = _optional(
        "CHRONONAUT_JWT_USER_CLAIM",
        _optional_claim,
        allowed="a claim's name",
        meaning="the claim that names the user; by default `email` where the token says `email_verified: true`, else "
        "`sub`",
    )
    scope_claim: str = _optional(
        "CHRONONAUT_JWT_SCOPE_CLAIM",
        _claim,
        default="scope",
        allowed="a claim's name",
        meaning="the claim with the grants, as `read release:write` or a list; words of other services are passed over",
    )


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What is set of gunicorn, and of its log."""

    bind: tuple[str, ...] = _optional(
        "CHRONONAUT_BIND",
        _addresses,
        default="127.0.0.1:8000",
        allowed="addresses, separated by commas, as `0.0.0.0:8000`, `[::]:8000`, `unix:/run/chrononaut.sock`",
        meaning="where the server listens",
    )
    workers: int = _optional(
        "CHRONONAUT_WORKERS", _whole(1, 100), default="4", allowed="1 to 100", meaning="processes that answer requests"
    )
    threads: int = _optional(
        "CHRONONAUT_THREADS",
        _whole(1, 200),
        default="12",
        allowed="1 to 200",
        meaning="requests that each worker answers at once, besides those whose large bodies it waits for",
    )
    timeout: int = _optional(
        "CHRONONAUT_TIMEOUT",
        _whole(10, 3600),
        default="30",
        allowed="10 to 3600 seconds",
        meaning="how long a worker may show no life before it is replaced, and a large body take to arrive",
    )
    graceful_timeout: int = _optional(
        "CHRONONAUT_GRACEFUL_TIMEOUT",
        _whole(1, 3600),
        default="30",
        allowed="1 to 3600 seconds",
        meaning="how long a worker that is told to end has for the requests that it has begun",
    )
    max_requests: int = _optional(
        "CHRONONAUT_MAX_REQUESTS",
        _whole(0, 100_000_000),
        default="0",
        allowed="0 to 100000000",
        meaning="requests after which a worker is replaced, up to a tenth more so that not all are at once; 0 is never",
    )
    preload: bool = _optional(
        "CHRONONAUT_PRELOAD",
        _flag,
        default="false",
        allowed=_TRUTHS,
        meaning="is the application loaded once, before there are workers? They start faster and share its memory; new "
        "models then take a new start, where a reload (`SIGHUP`) is enough otherwise",
    )
    log_format: str = _optional(
        "CHRONONAUT_LOG_FORMAT",
        _word(_LOG_FORMATS),
        default=_LOG_FORMATS[0],
        allowed=" or ".join(f"`{word}`" for word in _LOG_FORMATS),
        meaning="the form of each line of the server's log",
    )
    log_level: str = _optional(
        "CHRONONAUT_LOG_LEVEL",
        _word(_LOG_LEVELS),
        default="info",
        allowed=", ".join(f"`{word}`" for word in _LOG_LEVELS),
        meaning="the least that is logged",
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "ServerSettings":
        """Read these settings alone: the server has no others before it loads the application.

        :raises SettingError: some are wrong; what is wrong with others is named as well
        """
        wrong: list[str] = []
        values = _values(cls, environment, wrong)
        if wrong:
            Settings.from_environment(environment)
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Settings:
    """The service's settings."""

    secret_key: str = _required(
        "SECRET_KEY",
        _secret_key,
        allowed=f"at least {_SHORTEST_KEY} characters",
        meaning="signs cursors, sessions and CSRF tokens, and another one ends them all",
    )
    database_url: str = _required(
        "DATABASE_URL",
        _database_url,
        allowed="SQLite or PostgreSQL",
        meaning="an SQLAlchemy URL; a relative path of SQLite lies in `instance/`",
    )
    connect_timeout: int = _optional(
        "CHRONONAUT_CONNECT_TIMEOUT",
        _whole(2, 60),
        default="5",
        allowed="2 to 60 seconds",
        meaning="how long PostgreSQL may take to answer a new connection, and one that has been idle",
    )
    pool_size: int | None = _optional(
        "CHRONONAUT_POOL_SIZE",
        _optional_whole(1, 1000),
        allowed="1 to 1000",
        meaning="connections to the database that each worker has at the most; a request takes one at a time; by "
        f"default {_CONNECTIONS_BESIDES} more than `CHRONONAUT_THREADS`: each thread has one",
    )
    pool_timeout: int = _optional(
        "CHRONONAUT_POOL_TIMEOUT",
        _whole(1, 60),
        default="10",
        allowed="1 to 60 seconds",
        meaning="how long a request waits for one of them, before it is 503",
    )
    statement_timeout: int = _optional(
        "CHRONONAUT_STATEMENT_TIMEOUT",
        _whole(1, 3600),
        default="30",
        allowed="1 to 3600 seconds",
        meaning="how long PostgreSQL may take for a statement of a request, before it is 503; commands have no limit",
    )
    lock_timeout: int = _optional(
        "CHRONONAUT_LOCK_TIMEOUT",
        _whole(1, 3600),
        default="10",
        allowed="1 to 3600 seconds",
        meaning="how long a request waits in PostgreSQL for what others are changing, before it is 503",
    )
    transaction_pooling: bool = _optional(
        "CHRONONAUT_TRANSACTION_POOLING",
        _flag,
        default="false",
        allowed=_TRUTHS,
        meaning="does `DATABASE_URL` lead to a pooler that lends a connection for a transaction only, as PgBouncer in "
        "transaction mode?",
    )
    models: tuple[str, ...] = _optional(
        "CHRONONAUT_MODELS",
        _modules,
        default="app.models",
        allowed="modules, separated by commas",
        meaning="modules whose versioned models are served",
    )
    db: str = _optional(
        "CHRONONAUT_DB",
        _reference,
        default="app.db:db",
        allowed="`module:name`",
        meaning="the `VersionedSQLAlchemy` that they belong to",
    )
    retention: tuple[tuple[str, Retention], ...] = _optional(
        "CHRONONAUT_RETENTION",
        _retention,
        allowed='JSON, as `{"user": {"versions": 10, "days": 365, "daily_after": 30, "held": "legal_hold"}}`',
        meaning="what `flask history purge` keeps of models by their public names, in the place of what they declare; "
        "`docs/retention.md` says what it means",
    )
    open_reading: bool = _optional(
        "CHRONONAUT_OPEN_READING", _flag, default="false", allowed=_TRUTHS, meaning="may anyone read without a token?"
    )
    open_metrics: bool = _optional(
        "CHRONONAUT_OPEN_METRICS",
        _flag,
        default="false",
        allowed=_TRUTHS,
        meaning="may anyone read `/metrics` without a token?",
    )
    cors_origins: tuple[str, ...] = _optional(
        "CHRONONAUT_CORS_ORIGINS",
        _origins,
        allowed="origins, separated by commas, as `https://example.com`; or `*`",
        meaning="whose pages may use the service from a browser; `*` is all, without cookies. The cookie of a session "
        "is `SameSite=Lax`: a page of another site sends a token",
    )
    trusted_proxies: Proxies = _optional(  # noqa: RUF009  # it is frozen
        "CHRONONAUT_TRUSTED_PROXIES",
        _proxies,
        allowed="IP networks, separated by commas, as `10.0.0.0/8, 2001:db8::/32`; `unix`",
        meaning="the proxies from whose `X-Forwarded-For` and `X-Forwarded-Proto` the client's address and scheme are "
        "taken; `unix` is whoever connects to a Unix socket",
    )
    provider: ProviderSettings | None = field(default=None, metadata={"group": ProviderSettings})
    rate_limits: str = _optional(
        "CHRONONAUT_RATE_LIMITS",
        _rate_limits,
        allowed="as `100 per minute; 5000 per hour`",
        meaning="how often one user, or one address without a user, may ask",
    )
    rate_limit_storage: str = _optional(
        "CHRONONAUT_RATE_LIMIT_STORAGE",
        _storage,
        default="memory://",
        allowed="`memory://` or a URL as `redis://host:6379`",
        meaning="where it is counted: in the memory of each worker, so that four workers allow four times as much, or "
        "for all together in Redis, which takes the package `redis`. While it does not answer, each worker counts for "
        "itself",
    )
    secure_cookies: bool = _optional(
        "CHRONONAUT_SECURE_COOKIES",
        _flag,
        default="true",
        allowed=_TRUTHS,
        meaning="do browsers send a session's cookie by HTTPS only?",
    )
    server: ServerSettings = field(default_factory=ServerSettings, metadata={"group": ServerSettings})

    @property
    def most_connections(self) -> int:
        """Connections to the database that each worker has at the most."""
        return self.pool_size or self.server.threads + _CONNECTIONS_BESIDES

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the settings.

        :raises SettingError: some are missing, unknown or wrong; all of them are named
        """
        wrong = _unknown(environment)
        values = _values(cls, environment, wrong)
        if wrong:
            raise SettingError("\n".join(wrong))
        return cls(**values)


def declared(settings: type[Any] = Settings) -> Iterator[Setting[Any]]:
    """All settings, in the order in which README lists them."""
    for each in fields(settings):
        if "setting" in each.metadata:
            yield each.metadata["setting"]
        else:
            yield from declared(each.metadata["group"])


def _unknown(environment: Mapping[str, str]) -> list[str]:
    known = {setting.name.removeprefix(_PREFIX) for setting in declared() if setting.name.startswith(_PREFIX)}
    lines = []
    for name in sorted(name for name in environment if name.startswith(_PREFIX)):
        if (word := name.removeprefix(_PREFIX)) not in known:
            meant = get_close_matches(word, sorted(known), 1)
            lines.append(f"{name} is no setting" + (f"; did you mean {_PREFIX}{meant[0]}?" if meant else ""))
    return lines


def _values(settings: type[Any], environment: Mapping[str, str], wrong: list[str]) -> dict[str, Any]:
    """The values by their attributes; what is said of those that cannot be read is added to a list."""
    values: dict[str, Any] = {}
    for each in fields(settings):
        try:
            if "setting" in each.metadata:
                values[each.name] = each.metadata["setting"].value(environment)
            else:
                values[each.name] = _group(each.metadata["group"], environment, wrong)
        except SettingError as error:
            wrong.append(str(error))
    return values


def _group(settings: type[Any], environment: Mapping[str, str], wrong: list[str]) -> Any:
    """Settings that are of one matter; of which some must be given, all of those are, or none."""
    group = [*declared(settings)]
    needed = [setting.name for setting in group if setting.default is None]
    if needed and not any(environment.get(setting.name) for setting in group):
        return None
    if missing := [name for name in needed if not environment.get(name)]:
        raise SettingError(f"{' and '.join(missing)} missing; an identity provider takes {', '.join(needed)}")
    before = len(wrong)
    values = _values(settings, environment, wrong)
    return settings(**values) if len(wrong) == before else None

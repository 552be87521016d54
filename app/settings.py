"""What an operator sets: one frozen `Settings`, read from the environment, each value checked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa
from limits import parse_many

from app.proxies import Proxies, ProxyError

_PREFIX = "CHRONONAUT_"
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


class SettingError(Exception):
    """A setting is missing, unknown or wrong; the message says which, and what would be right."""


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """What is set of an identity provider whose tokens are taken.

    :ivar issuer: the ``iss`` of its tokens
    :ivar audience: what the ``aud`` of those that are for us holds
    :ivar jwks: the path of the file with its public keys, or their URL
    :ivar user_claim: the claim that names the user; by default ``email`` where the provider says that it is verified
        (``email_verified``), else ``sub``
    :ivar scope_claim: the claim with the grants: a text separated by spaces, or a list of texts
    """

    issuer: str
    audience: str
    jwks: str
    user_claim: str | None = None
    scope_claim: str = "scope"


@dataclass(frozen=True, slots=True)
class Settings:
    """The service's settings.

    :ivar secret_key: ``SECRET_KEY``: signs cursors, sessions and CSRF tokens; at least 16 characters, no default
    :ivar database_url: ``DATABASE_URL``: an SQLAlchemy URL of SQLite or PostgreSQL, no default
    :ivar models: ``CHRONONAUT_MODELS``: modules whose versioned models are served, separated by commas
    :ivar db: ``CHRONONAUT_DB``: ``module:name`` of the `VersionedSQLAlchemy` that the models belong to
    :ivar open_reading: ``CHRONONAUT_OPEN_READING``: may anyone read without a token?
    :ivar cors_origins: ``CHRONONAUT_CORS_ORIGINS``: origins whose pages may use the service, separated by commas; or
        ``*`` alone for all, which may not send cookies
    :ivar trusted_proxies: ``CHRONONAUT_TRUSTED_PROXIES``: IP networks of the proxies whose word is taken for whom they
        ask; none by default
    :ivar provider: ``CHRONONAUT_JWT_ISSUER``, ``CHRONONAUT_JWT_AUDIENCE``, ``CHRONONAUT_JWT_JWKS``, and how to read its
        tokens ``CHRONONAUT_JWT_USER_CLAIM`` and ``CHRONONAUT_JWT_SCOPE_CLAIM``: the identity provider whose tokens are
        taken; none by default
    :ivar rate_limits: ``CHRONONAUT_RATE_LIMITS``: how often one user, or one address without a user, may ask, in
        Flask-Limiter's notation; as often as they like by default
    :ivar rate_limit_storage: ``CHRONONAUT_RATE_LIMIT_STORAGE``: where it is counted, as a URL of Flask-Limiter's; by
        default in the memory of each worker, so that several workers allow as many times as much
    :ivar secure_cookies: ``CHRONONAUT_SECURE_COOKIES``: do browsers send a session's cookie by HTTPS only?
    """

    secret_key: str
    database_url: str
    models: tuple[str, ...] = ("app.models",)
    db: str = "app.db:db"
    open_reading: bool = False
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: Proxies = field(default_factory=Proxies)
    provider: ProviderSettings | None = None
    rate_limits: str = ""
    rate_limit_storage: str = "memory://"
    secure_cookies: bool = True

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the settings.

        :raises SettingError: one is missing, unknown or wrong
        """
        known = {
            "CHRONONAUT_MODELS",
            "CHRONONAUT_DB",
            "CHRONONAUT_OPEN_READING",
            "CHRONONAUT_CORS_ORIGINS",
            "CHRONONAUT_TRUSTED_PROXIES",
            "CHRONONAUT_SECURE_COOKIES",
            *_PROVIDER,
            *_CLAIMS,
            "CHRONONAUT_RATE_LIMITS",
            "CHRONONAUT_RATE_LIMIT_STORAGE",
        }
        if unknown := sorted(name for name in environment if name.startswith(_PREFIX) and name not in known):
            raise SettingError(f"unknown settings: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        return cls(
            secret_key=_secret_key(environment),
            database_url=_database_url(environment),
            models=_modules(environment.get("CHRONONAUT_MODELS", "app.models")),
            db=_reference(environment.get("CHRONONAUT_DB", "app.db:db")),
            open_reading=_flag(environment, "CHRONONAUT_OPEN_READING"),
            cors_origins=_origins(environment.get("CHRONONAUT_CORS_ORIGINS", "")),
            trusted_proxies=_proxies(environment.get("CHRONONAUT_TRUSTED_PROXIES", "")),
            provider=_provider(environment),
            rate_limits=_rate_limits(environment.get("CHRONONAUT_RATE_LIMITS", "")),
            rate_limit_storage=environment.get("CHRONONAUT_RATE_LIMIT_STORAGE") or "memory://",
            secure_cookies=_flag(environment, "CHRONONAUT_SECURE_COOKIES", default="true"),
        )


_SHORTEST_KEY = 16


def _secret_key(environment: Mapping[str, str]) -> str:
    key = environment.get("SECRET_KEY", "")
    if len(key) < _SHORTEST_KEY:
        raise SettingError(f"SECRET_KEY must be a random text of at least {_SHORTEST_KEY} characters, not {len(key)}")
    return key


def _database_url(environment: Mapping[str, str]) -> str:
    text = environment.get("DATABASE_URL", "")
    example = "as sqlite:////var/lib/service/history.db or postgresql+psycopg://user@host/database"
    if not text:
        raise SettingError(f"DATABASE_URL is missing; set it to the database's URL, {example}")
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise SettingError(f"DATABASE_URL is no URL of a database; write it {example}") from None
    if url.drivername in {"postgres", "postgresql"}:
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in {"sqlite", "postgresql+psycopg"}:
        raise SettingError(f"DATABASE_URL names the driver {url.drivername}; write it {example}")
    return url.render_as_string(hide_password=False)


def _modules(text: str) -> tuple[str, ...]:
    modules = tuple(part.strip() for part in text.split(","))
    if not all(all(name.isidentifier() for name in module.split(".")) for module in modules):
        raise SettingError(f"CHRONONAUT_MODELS must be module names separated by commas, not {text!r}")
    return modules


def _reference(text: str) -> str:
    module, _, name = text.partition(":")
    if not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise SettingError(f"CHRONONAUT_DB must be module:name, as app.db:db, not {text!r}")
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
            raise SettingError(
                "CHRONONAUT_CORS_ORIGINS must be origins as browsers send them, separated by commas, or * alone: "
                f"https://example.com, lower-case, without a path or the port that is implied; not {origin!r}"
            )
    return origins


def _proxies(text: str) -> Proxies:
    try:
        return Proxies.parse(text)
    except ProxyError as error:
        raise SettingError(f"CHRONONAUT_TRUSTED_PROXIES: {error}") from None


_PROVIDER = ("CHRONONAUT_JWT_ISSUER", "CHRONONAUT_JWT_AUDIENCE", "CHRONONAUT_JWT_JWKS")
_CLAIM = re.compile(r"[A-Za-z0-9_.:/#~-]*")
_CLAIMS = ("CHRONONAUT_JWT_USER_CLAIM", "CHRONONAUT_JWT_SCOPE_CLAIM")


def _provider(environment: Mapping[str, str]) -> ProviderSettings | None:
    issuer, audience, place = (environment.get(name, "") for name in _PROVIDER)
    user_claim, scope_claim = (environment.get(name, "") for name in _CLAIMS)
    if not any((issuer, audience, place, user_claim, scope_claim)):
        return None
    if missing := [name for name in _PROVIDER if not environment.get(name)]:
        raise SettingError(f"{' and '.join(missing)} missing; an identity provider takes {', '.join(_PROVIDER)}")
    for name in _CLAIMS:
        if not _CLAIM.fullmatch(environment.get(name, "")):
            raise SettingError(f"{name} must be the name of a claim, as preferred_username")
    return ProviderSettings(issuer, audience, place, user_claim or None, scope_claim or "scope")


def _rate_limits(text: str) -> str:
    if not text.strip():
        return ""
    try:
        items = parse_many(text)
    except ValueError:
        items = []
    if not items or not all(item.amount for item in items):
        raise SettingError(f"CHRONONAUT_RATE_LIMITS must be as 100 per minute; 5000 per hour, not {text!r}")
    return text


def _flag(environment: Mapping[str, str], name: str, default: str = "false") -> bool:
    text = (environment.get(name) or default).lower()
    if text not in (*_TRUE, *_FALSE):
        raise SettingError(f"{name} must be true or false, not {text!r}")
    return text in _TRUE

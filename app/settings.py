"""What an operator sets: one frozen `Settings`, read from the environment, each value checked."""

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

_PREFIX = "CHRONONAUT_"
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


class SettingError(Exception):
    """A setting is missing, unknown or wrong; the message says which, and what would be right."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The service's settings.

    :ivar secret_key: ``SECRET_KEY``: signs cursors and sessions; at least 16 characters, no default
    :ivar database_url: ``DATABASE_URL``: an SQLAlchemy URL of SQLite or PostgreSQL, no default
    :ivar models: ``CHRONONAUT_MODELS``: modules whose versioned models are served, separated by commas
    :ivar db: ``CHRONONAUT_DB``: ``module:name`` of the `VersionedSQLAlchemy` that the models belong to
    :ivar open_reading: ``CHRONONAUT_OPEN_READING``: may anyone read without a token?
    :ivar secure_cookies: ``CHRONONAUT_SECURE_COOKIES``: do browsers send a session's cookie by HTTPS only?
    """

    secret_key: str
    database_url: str
    models: tuple[str, ...] = ("app.models",)
    db: str = "app.db:db"
    open_reading: bool = False
    secure_cookies: bool = True

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the settings.

        :raises SettingError: one is missing, unknown or wrong
        """
        known = {"CHRONONAUT_MODELS", "CHRONONAUT_DB", "CHRONONAUT_OPEN_READING", "CHRONONAUT_SECURE_COOKIES"}
        if unknown := sorted(name for name in environment if name.startswith(_PREFIX) and name not in known):
            raise SettingError(f"unknown settings: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        return cls(
            secret_key=_secret_key(environment),
            database_url=_database_url(environment),
            models=_modules(environment.get("CHRONONAUT_MODELS", "app.models")),
            db=_reference(environment.get("CHRONONAUT_DB", "app.db:db")),
            open_reading=_flag(environment, "CHRONONAUT_OPEN_READING"),
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


def _flag(environment: Mapping[str, str], name: str, default: str = "false") -> bool:
    text = (environment.get(name) or default).lower()
    if text not in (*_TRUE, *_FALSE):
        raise SettingError(f"{name} must be true or false, not {text!r}")
    return text in _TRUE

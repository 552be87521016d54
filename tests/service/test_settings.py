"""Settings are read from the environment, and each is checked."""

from pathlib import Path

import pytest

from app import create_app
from app.settings import ServerSettings, SettingError, Settings

_GIVEN = {"SECRET_KEY": "0123456789abcdef", "DATABASE_URL": "sqlite://"}

_PROVIDER = {
    "CHRONONAUT_JWT_ISSUER": "https://id.example.com",
    "CHRONONAUT_JWT_AUDIENCE": "chrononaut",
    "CHRONONAUT_JWT_JWKS": "https://id.example.com/keys",
}


def test_what_must_be_given_is_enough() -> None:
    settings = Settings.from_environment(_GIVEN | {"PATH": "/bin"})
    assert settings == Settings(
        "0123456789abcdef", "sqlite://", models=("app.models",), db="app.db:db", open_reading=False
    )


@pytest.mark.parametrize("url", ["postgres://a:b@h/d", "postgresql://a:b@h/d", "postgresql+psycopg://a:b@h/d"])
def test_every_spelling_of_postgresql_is_taken(url: str) -> None:
    assert Settings.from_environment(_GIVEN | {"DATABASE_URL": url}).database_url == "postgresql+psycopg://a:b@h/d"


def test_origins_are_listed() -> None:
    for text, origins in {
        "": (),
        "*": ("*",),
        "https://a.org, http://localhost:3000,http://[::1]:8080": (
            "https://a.org",
            "http://localhost:3000",
            "http://[::1]:8080",
        ),
    }.items():
        assert Settings.from_environment(_GIVEN | {"CHRONONAUT_CORS_ORIGINS": text}).cors_origins == origins


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY is missing; set it to a random text of at least 16 characters"),
        ({"SECRET_KEY": "short"}, "SECRET_KEY must be a random text of at least 16 characters, not 5"),
        ({"DATABASE_URL": ""}, "DATABASE_URL is missing"),
        ({"DATABASE_URL": "nonsense"}, "DATABASE_URL is no URL"),
        ({"DATABASE_URL": "mysql://h/d"}, "names the driver mysql"),
        ({"DATABASE_URL": "postgresql://h/d?nosuch=1"}, 'DATABASE_URL has an option .*: invalid .* "nosuch"'),
        ({"DATABASE_URL": "postgresql://h/d?connect_timeout=soon"}, "does not take: bad value for connect_timeout"),
        ({"CHRONONAUT_MODELS": "a,,b"}, "CHRONONAUT_MODELS must be module names"),
        ({"CHRONONAUT_DB": "app.db"}, "CHRONONAUT_DB must be module:name"),
        ({"CHRONONAUT_OPEN_READING": "perhaps"}, "CHRONONAUT_OPEN_READING must be true or false"),
        *(
            ({"CHRONONAUT_CORS_ORIGINS": origins}, "CHRONONAUT_CORS_ORIGINS must be origins as browsers send them")
            for origins in (
                "example.com",
                "https://example.com/",
                "https://Example.com",
                "https://example.com:443",
                "http://example.com:80",
                "https://*.example.com",
                "https://a.org,*",
                "https://a.org,",
                "null",
            )
        ),
        (
            {"CHRONONAUT_TRUSTED_PROXIES": "10.0.0.1/8"},
            "CHRONONAUT_TRUSTED_PROXIES must be .*: '10.0.0.1/8' is no IP network",
        ),
        ({"CHRONONAUT_TRUSTED_PROXIES": "10.0.0.0/8,"}, "'' is no IP network"),
        ({"CHRONONAUT_TRUSTED_PROXIES": "0.0.0.0/0"}, "is every address"),
        ({"CHRONONAUT_TRUSTED_PROXIES": "::ffff:10.0.0.0/104"}, "write it as IPv4"),
        (
            {"CHRONONAUT_JWT_ISSUER": "https://id.example.com"},
            "CHRONONAUT_JWT_AUDIENCE and CHRONONAUT_JWT_JWKS missing",
        ),
        ({"CHRONONAUT_JWT_USER_CLAIM": "sub"}, "an identity provider takes CHRONONAUT_JWT_ISSUER"),
        (_PROVIDER | {"CHRONONAUT_JWT_SCOPE_CLAIM": "a claim"}, "SCOPE_CLAIM must be the name of a claim"),
        ({"CHRONONAUT_RATE_LIMITS": "100 per fortnight"}, "CHRONONAUT_RATE_LIMITS must be as 100 per minute"),
        ({"CHRONONAUT_RATE_LIMITS": "100 per minute; often"}, "CHRONONAUT_RATE_LIMITS must be as 100 per minute"),
        ({"CHRONONAUT_LOCK_TIMEOUT": "0"}, "LOCK_TIMEOUT must be a whole number from 1 to 3600, not '0'"),
        ({"CHRONONAUT_POOL_SIZE": "many"}, "POOL_SIZE must be a whole number from 1 to 1000, not 'many'"),
        ({"CHRONONAUT_THREADS": "0"}, "THREADS must be a whole number from 1 to 200, not '0'"),
        *(
            ({"CHRONONAUT_BIND": bind}, "CHRONONAUT_BIND must be addresses with ports")
            for bind in ("8000", "localhost", "127.0.0.1:0", "[::1]:65536", "::1:8000", "127.0.0.1:8000,", "unix:a")
        ),
        ({"CHRONONAUT_RATE_LIMITS": "0 per minute"}, "CHRONONAUT_RATE_LIMITS must be as 100 per minute"),
        ({"CHRONONAUT_SECURE_COOKIES": "perhaps"}, "CHRONONAUT_SECURE_COOKIES must be true or false"),
        ({"CHRONONAUT_OPEN_READINGS": "true"}, "READINGS is no setting; did you mean CHRONONAUT_OPEN_READING\\?"),
    ],
)
def test_wrong_setting_is_refused_by_name(changed: dict[str, str], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Settings.from_environment(_GIVEN | changed)


def test_server_listens_at_each_address() -> None:
    bind = "0.0.0.0:80, [::]:8000,unix:/run/chrononaut.sock,history.example.com:443"
    assert ServerSettings.from_environment({"CHRONONAUT_BIND": bind}).bind == (
        "0.0.0.0:80",
        "[::]:8000",
        "unix:/run/chrononaut.sock",
        "history.example.com:443",
    )


@pytest.mark.parametrize(
    ("setting", "named", "message"),
    [
        ("CHRONONAUT_MODELS", "app.models,nowhere.models", "names nowhere.models, but there is no module nowhere"),
        ("CHRONONAUT_MODELS", "app.nothing", "names app.nothing, but there is no module app.nothing"),
        ("CHRONONAUT_DB", "app.db:nothing", "must name a VersionedSQLAlchemy, and app.db:nothing is none"),
        ("CHRONONAUT_DB", "nowhere:db", "names nowhere, but there is no module nowhere"),
    ],
)
def test_setting_that_names_nothing_is_refused(setting: str, named: str, message: str) -> None:
    with pytest.raises(SettingError, match=f"^{setting} {message}$"):
        create_app(_GIVEN | {setting: named})


def test_error_of_a_module_that_is_named_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mistaken.py").write_text("import nowhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        create_app(_GIVEN | {"CHRONONAUT_MODELS": "mistaken"})


@pytest.mark.parametrize(
    ("given", "secure"),
    [({}, True), ({"CHRONONAUT_SECURE_COOKIES": ""}, True), ({"CHRONONAUT_SECURE_COOKIES": "no"}, False)],
)
def test_cookies_are_secure_unless_said_otherwise(given: dict[str, str], secure: bool) -> None:
    assert Settings.from_environment(_GIVEN | given).secure_cookies is secure


def test_all_that_is_wrong_is_said_at_once() -> None:
    given = {
        "SECRET_KEY": "short",
        "CHRONONAUT_OPEN_READING": "perhaps",
        "CHRONONAUT_SECURE_COOKIE": "no",
        "CHRONONAUT_JWT_ISSUER": "https://id.example.com",
        "CHRONONAUT_ZZZ": "",
    }
    with pytest.raises(SettingError) as refused:
        Settings.from_environment(given)
    lines = str(refused.value).splitlines()
    assert [line.split()[0] for line in lines] == [
        "CHRONONAUT_SECURE_COOKIE",
        "CHRONONAUT_ZZZ",
        "SECRET_KEY",
        "DATABASE_URL",
        "CHRONONAUT_OPEN_READING",
        "CHRONONAUT_JWT_AUDIENCE",
    ]
    assert lines[0].endswith("is no setting; did you mean CHRONONAUT_SECURE_COOKIES?")
    assert lines[1].endswith("is no setting")


def test_service_of_no_models_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "without_models.py").write_text(
        "from chrononaut import VersionedSQLAlchemy\ndb = VersionedSQLAlchemy()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    message = "CHRONONAUT_MODELS=app.models has no versioned model of CHRONONAUT_DB=without_models:db"
    with pytest.raises(SettingError, match=message):
        create_app(_GIVEN | {"CHRONONAUT_DB": "without_models:db"})

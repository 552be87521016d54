"""Settings are read from the environment, and each is checked."""

import pytest

from app.settings import SettingError, Settings

_GIVEN = {"SECRET_KEY": "0123456789abcdef", "DATABASE_URL": "sqlite://"}


def test_what_must_be_given_is_enough() -> None:
    settings = Settings.from_environment(_GIVEN | {"PATH": "/bin"})
    assert settings == Settings("0123456789abcdef", "sqlite://", ("app.models",), "app.db:db", open_reading=False)


@pytest.mark.parametrize("url", ["postgres://a:b@h/d", "postgresql://a:b@h/d", "postgresql+psycopg://a:b@h/d"])
def test_every_spelling_of_postgresql_is_taken(url: str) -> None:
    assert Settings.from_environment(_GIVEN | {"DATABASE_URL": url}).database_url == "postgresql+psycopg://a:b@h/d"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY must be a random text of at least 16"),
        ({"SECRET_KEY": "short"}, "not 5"),
        ({"DATABASE_URL": ""}, "DATABASE_URL is missing"),
        ({"DATABASE_URL": "nonsense"}, "DATABASE_URL is no URL"),
        ({"DATABASE_URL": "mysql://h/d"}, "names the driver mysql"),
        ({"CHRONONAUT_MODELS": "a,,b"}, "CHRONONAUT_MODELS must be module names"),
        ({"CHRONONAUT_DB": "app.db"}, "CHRONONAUT_DB must be module:name"),
        ({"CHRONONAUT_OPEN_READING": "perhaps"}, "CHRONONAUT_OPEN_READING must be true or false"),
        ({"CHRONONAUT_SECURE_COOKIES": "perhaps"}, "CHRONONAUT_SECURE_COOKIES must be true or false"),
        ({"CHRONONAUT_OPEN_READINGS": "true"}, "unknown settings: CHRONONAUT_OPEN_READINGS"),
    ],
)
def test_wrong_setting_is_refused_by_name(changed: dict[str, str], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Settings.from_environment(_GIVEN | changed)


@pytest.mark.parametrize(
    ("given", "secure"),
    [({}, True), ({"CHRONONAUT_SECURE_COOKIES": ""}, True), ({"CHRONONAUT_SECURE_COOKIES": "no"}, False)],
)
def test_cookies_are_secure_unless_said_otherwise(given: dict[str, str], secure: bool) -> None:
    assert Settings.from_environment(_GIVEN | given).secure_cookies is secure

"""The Dockerfile and docker-compose.yml fit the service and each other. `make test-image` builds and runs them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.settings import Settings
from tests.composing import UnsetError, services
from tests.service.serving import running

_DOCKERFILE = (Path(__file__).parents[1] / "Dockerfile").read_text()
_SECRETS = {"SECRET_KEY": "a key for tests only", "POSTGRES_PASSWORD": "p@ss/word:%20"}


@pytest.fixture
def composed() -> dict[str, Any]:
    return services(_SECRETS)


@pytest.mark.parametrize("name", _SECRETS)
def test_nothing_starts_without_secrets(name: str) -> None:
    for environment in ({**_SECRETS, name: ""}, {other: _SECRETS[other] for other in _SECRETS if other != name}):
        with pytest.raises(UnsetError, match=name):
            services(environment)


def test_settings_are_those_of_the_service(composed: dict[str, Any]) -> None:
    for name in ("migrate", "service"):
        settings = Settings.from_environment(composed[name]["environment"])
        url = sa.make_url(settings.database_url)
        assert (url.host, url.password) == ("postgres", None)
        assert settings.secret_key == _SECRETS["SECRET_KEY"]
        assert composed[name]["environment"]["PGPASSWORD"] == _SECRETS["POSTGRES_PASSWORD"]
        database = composed["postgres"]["environment"]
        assert (url.username, url.database) == (database["POSTGRES_USER"], database["POSTGRES_DB"])


def test_service_waits_until_the_database_is_migrated(composed: dict[str, Any]) -> None:
    healthy = {"condition": "service_healthy"}
    assert composed["migrate"]["depends_on"] == {"postgres": healthy}
    assert composed["migrate"]["restart"] == "no"
    assert composed["service"]["depends_on"] == {
        "postgres": healthy,
        "migrate": {"condition": "service_completed_successfully"},
    }
    assert composed["service"]["restart"] == composed["postgres"]["restart"] == "unless-stopped"
    assert composed["migrate"]["image"] == composed["service"]["image"]


def test_only_the_service_is_reached_and_only_from_this_machine(composed: dict[str, Any]) -> None:
    assert composed["service"]["ports"] == ["127.0.0.1:8000:8000"]
    assert services({**_SECRETS, "PORT": "9000"})["service"]["ports"] == ["127.0.0.1:9000:8000"]
    for name in ("postgres", "migrate"):
        assert "ports" not in composed[name]
        assert composed[name]["networks"] == ["database"]


def test_containers_may_do_no_more_than_they_need(composed: dict[str, Any]) -> None:
    for service in composed.values():
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    for name in ("migrate", "service"):
        assert composed[name]["read_only"]
        assert composed[name]["cap_drop"] == ["ALL"]
        assert composed[name]["tmpfs"] == ["/tmp"]


def _healthcheck(port: int) -> int:
    """The exit status of what the image's healthcheck runs, here."""
    command = re.search(r"^HEALTHCHECK [^\[]*CMD (\[.*\])$", _DOCKERFILE, re.MULTILINE)
    assert command is not None
    program, *arguments = json.loads(command[1].replace("8000", str(port)))
    assert program == "python"
    # A proxy is not asked, where there is one.
    environment = {"http_proxy": "http://127.0.0.1:1", "PATH": "/usr/bin:/bin"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, check=False).returncode


def test_healthcheck_asks_the_service(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'test.db'}"
    with running(database, "", tmp_path / "log") as server:
        assert _healthcheck(server.port) == 0
    assert _healthcheck(server.port) == 1

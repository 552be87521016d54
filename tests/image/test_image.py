"""The image, built and run as an engine would, on a PostgreSQL."""

import os
import re
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.composing import services
from tests.image.building import CANARY, Buildah, Image
from tests.image.running import Container, container, run

pytestmark = pytest.mark.image

_USER = 10001
_SOCKET = "/run/postgresql/.s.PGSQL.5432"
_SECRETS = {"SECRET_KEY": "a key for tests only", "POSTGRES_PASSWORD": "p@ss/word:%20"}


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    buildah = Buildah(tmp_path_factory.mktemp("image"))
    try:
        yield buildah.build(os.environ.get("BASE"))
    finally:
        buildah.clean()


@pytest.fixture(scope="session")
def database(postgres_url: str) -> Path:
    """The socket of a PostgreSQL with the database and the user of docker-compose.yml."""
    engine = sa.create_engine(postgres_url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE ROLE chrononaut LOGIN")
        connection.exec_driver_sql("CREATE DATABASE chrononaut OWNER chrononaut")
    return Path(str(sa.make_url(postgres_url).query["host"])) / Path(_SOCKET).name


@pytest.fixture
def composed() -> dict[str, Any]:
    """The services of docker-compose.yml, whose database is reached by a socket."""
    composed = services(_SECRETS)
    for name in ("migrate", "service"):
        environment = composed[name]["environment"]
        url = sa.make_url(environment["DATABASE_URL"]).set(host=None, query={"host": str(Path(_SOCKET).parent)})
        environment["DATABASE_URL"] = url.render_as_string(hide_password=False)
    return composed


def _until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; a minute is for ever."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_config_says_how_it_is_run(image: Image) -> None:
    config = image.config
    assert config["User"] == f"{_USER}:{_USER}"
    assert config["Cmd"][0] == "gunicorn"
    assert not config.get("Entrypoint")
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert list(config["ExposedPorts"]) == ["8000/tcp"]
    assert config["Labels"]["org.opencontainers.image.licenses"] == "MIT"


def test_no_secret_is_in_it(image: Image) -> None:
    assert not [line for line in image.config["Env"] if re.match(r"SECRET|DATABASE|POSTGRES|PG|PIP", line)]
    assert CANARY.encode() not in image.archive.read_bytes()


def test_what_is_pushed_holds_the_service(image: Image) -> None:
    # Or else what is looked for in it would never be found.
    with tarfile.open(image.archive) as archive:
        layers = [name for name in archive.getnames() if name.endswith(".tar")]
    assert layers
    assert b"class VersionedSQLAlchemy" in image.archive.read_bytes()


def test_it_holds_no_compiler_and_nothing_but_the_service(image: Image) -> None:
    programs = {
        path.name for folder in ("bin", "sbin", "local/bin") for path in (image.root / "usr" / folder).iterdir()
    }
    programs |= {path.name for path in (image.root / "opt/venv/bin").iterdir()}
    assert {"gunicorn", "flask"} <= programs
    assert not [
        name for name in programs if re.fullmatch(r"(.*-)?(gcc|g\+\+|cc|c\+\+|cpp|ld|as|clang|rustc|make)(-\d+)?", name)
    ]
    assert not programs & {"curl", "wget", "git"}
    assert {path.name for path in (image.root / "srv").iterdir()} == {"LICENSE", "app", "chrononaut"}
    assert not list((image.root / "opt/venv").glob("lib/python3*/site-packages/pip"))


def test_its_user_can_read_all_of_it_and_write_none(image: Image) -> None:
    for folder in ("srv", "opt/venv"):
        for path in (image.root / folder).rglob("*"):
            if not path.is_symlink():
                status = path.stat()
                assert status.st_uid == 0
                assert status.st_mode & 0o022 == 0
                assert status.st_mode & 0o004


def test_modules_are_compiled(image: Image) -> None:
    modules = [path for path in (image.root / "srv").rglob("*.py") if "versions" not in path.parts]
    for module in modules:
        assert list((module.parent / "__pycache__").glob(f"{module.stem}.*.pyc"))


def test_it_serves_and_ends_as_composed(
    image: Image, database: Path, composed: Mapping[str, Any], tmp_path: Path
) -> None:
    volumes, settings, log = {database: _SOCKET}, composed["service"]["environment"], tmp_path / "service.log"
    health = image.config["Healthcheck"]["Test"][1:]

    def run_flask(*command: str) -> str:
        status, printed = run(image, ["flask", *command], settings, volumes)
        assert status == 0, printed
        return printed

    status, printed = run(image, composed["migrate"]["command"], composed["migrate"]["environment"], volumes)
    assert status == 0, printed
    token = run_flask("tokens", "create", "ada@example.com", "--scope", "write").split()[-1]
    with container(image, image.config["Cmd"], settings, log, volumes) as service:
        _until(lambda: service.execute(*health)[0] == 0)
        _assert_unprivileged(service)
        user = service.ask("POST", "/records/user", token, {"email": "ada@exmaple.com", "name": "Ada"})
        service.ask("PATCH", f"/records/user/{user['key']}", token, {"email": "ada@example.com"})
        (version,) = service.ask("GET", f"/history/user/{user['key']}", token)["versions"]
        assert version["state"]["email"] == "ada@exmaple.com"
        assert version["change_info"]["extra"] == {"change_rationale": "As asked"}
        seconds = int(composed["service"]["stop_grace_period"].removesuffix("s"))
        assert service.stop(seconds) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    assert "records that do not agree" not in run_flask("history", "verify")


def _assert_unprivileged(service: Container) -> None:
    processes = service.processes
    assert len(processes) > 1
    for number, pid in enumerate(processes, 1):
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert status["Uid"].split() == status["Gid"].split() == [str(_USER)] * 4
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert (status["NSpid"].split()[-1] == "1") == (number == 1)
    assert b"gunicorn" in Path(f"/proc/{processes[0]}/cmdline").read_bytes()
    for path in ("/srv/new", "/new", "/var/tmp/new"):
        assert service.execute("touch", path)[0] != 0
    assert service.execute("touch", "/tmp/new")[0] == 0


def test_healthcheck_fails_where_nothing_answers(image: Image, tmp_path: Path) -> None:
    with container(image, ["sleep", "60"], {}, tmp_path / "log") as idle:
        assert idle.execute(*image.config["Healthcheck"]["Test"][1:])[0] == 1


def test_without_settings_it_says_what_is_missing(image: Image) -> None:
    status, printed = run(image, image.config["Cmd"], {})
    assert status != 0
    assert "SECRET_KEY is missing" in printed


def test_own_models_are_mounted(image: Image, tmp_path: Path) -> None:
    own = tmp_path / "inventory"
    own.mkdir()
    own.chmod(0o755)
    (own / "__init__.py").write_text(
        "from sqlalchemy.orm import Mapped, mapped_column\n"
        "from app.db import Model\n"
        "from chrononaut import Versioned\n"
        "class Product(Model, Versioned):\n"
        "    id: Mapped[int] = mapped_column(primary_key=True)\n"
    )
    settings = {"SECRET_KEY": "a key for tests only", "DATABASE_URL": "sqlite://", "CHRONONAUT_MODELS": "inventory"}
    status, printed = run(image, ["flask", "openapi", "print"], settings, {own: "/srv/inventory"})
    assert status == 0, printed
    assert "/records/product" in printed

"""The guides of docs/ lead where they say: their commands run in order, and print what is shown."""

import socket
import sys
from pathlib import Path

import pytest

from tests.guides import follow

_ROOT = Path(__file__).parents[1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# The guide is for PostgreSQL.
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_own_models_are_served(database_url: str, tmp_path: Path) -> None:
    environment = {
        "CHECKOUT": str(_ROOT),
        "DATABASE_URL": database_url,
        "PORT": str(_free_port()),
        # In place of what the guide installs.
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": str(_ROOT),
    }
    follow(_ROOT / "docs" / "own-models.md", tmp_path, environment)
    for name in ("__init__.py", "models.py"):
        assert (tmp_path / "inventory" / name).read_text() == (_ROOT / "examples" / "inventory" / name).read_text()

"""The guides of docs/ lead where they say: their commands run in order, and print what is shown."""

import socket
import sys
from pathlib import Path

import pytest

from tests.guides import GuideError, follow

_ROOT = Path(__file__).parents[1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# The guide is for PostgreSQL.
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize("names", [(), pytest.param(("install", "client"), marks=pytest.mark.contract)])
def test_own_models_are_served(names: tuple[str, ...], database_url: str, tmp_path: Path) -> None:
    programs = "/usr/local/bin:/usr/bin:/bin"
    environment = {"CHECKOUT": str(_ROOT), "DATABASE_URL": database_url, "PORT": str(_free_port()), "PATH": programs}
    if "install" not in names:
        environment |= {"PATH": f"{Path(sys.executable).parent}:{programs}", "PYTHONPATH": str(_ROOT)}
    follow(_ROOT / "docs" / "own-models.md", tmp_path, environment, *names)
    for name in ("__init__.py", "models.py"):
        assert (tmp_path / "inventory" / name).read_text() == (_ROOT / "examples" / "inventory" / name).read_text()


def test_history_is_exported_and_imported(tmp_path: Path) -> None:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": str(_ROOT),
        "RELEASES": str(_ROOT / "app" / "data" / "releases.ndjson"),
    }
    follow(_ROOT / "docs" / "transfer.md", tmp_path, environment)


def test_history_is_kept_for_a_time(tmp_path: Path) -> None:
    programs = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    follow(_ROOT / "docs" / "retention.md", tmp_path, {"PATH": programs, "PYTHONPATH": str(_ROOT)})


def _follow(page: str, folder: Path, **environment: str) -> None:
    (folder / "page.md").write_text(page)
    follow(folder / "page.md", folder, {"PATH": "/usr/bin:/bin", **environment})


def test_commands_share_a_shell_and_print_what_is_shown(tmp_path: Path) -> None:
    _follow(
        """
```python kept/note.py
one
two
```

```diff kept/note.py
 one
-two
+three
```

```console
$ export NAME=…
$ sleep 1000 &
$ cat kept/note.py; echo "$NAME" \\
       and on
one
th…
and on
$ kill $!
$ export LATER=$NAME
```

```console elsewhere
$ false
```
""",
        tmp_path,
        NAME="given ",
    )


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ("console\n$ echo 1\n2\n", r"page.md, line 4: echo 1\nprints\n1\nand not, as shown,\n2"),
        ("console\n$ true\n$ ls nowhere\n", r"line 5: ls nowhere\nends with 2\nls: cannot access"),
        ("console\n$ false | true\n", r"line 4: false \| true\nends with 1"),
        ("console\n$ exit 0\n", "ends with the shell"),
        ("diff page.md\n-nothing\n+something\n", "page.md has 2 times"),
        ("diff page.md\n absent \n+something\n", "page.md has 0 times"),
    ],
)
def test_page_that_leads_elsewhere_is_told_of(block: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(GuideError, match=told):
        _follow(f"nothing\nnothing\n```{block}```\n", tmp_path)

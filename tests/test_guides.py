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


def _leads(page: Path) -> bool:
    """Does it have commands to follow?"""
    return "```console\n" in page.read_text()


_PAGES = sorted(filter(_leads, (_ROOT / "docs").rglob("*.md")))


# Where a page leaves the database to its reader, as `user@host`, it is PostgreSQL.
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("page", "names"),
    [
        *(pytest.param(page, (), id=page.stem) for page in _PAGES),
        pytest.param(
            _ROOT / "docs" / "own-models.md", ("install", "client"), marks=pytest.mark.contract, id="own-models, all"
        ),
    ],
)
def test_page_leads_where_it_says(page: Path, names: tuple[str, ...], database_url: str, tmp_path: Path) -> None:
    programs = "/usr/local/bin:/usr/bin:/bin"
    environment = {"CHECKOUT": str(_ROOT), "PORT": str(_free_port()), "PATH": programs}
    if "://user@host/" in page.read_text():
        environment["DATABASE_URL"] = database_url
    if "install" not in names:
        environment |= {"PATH": f"{Path(sys.executable).parent}:{programs}", "PYTHONPATH": str(_ROOT)}
    follow(page, tmp_path, environment, *names)
    for example in (_ROOT / "examples" / "inventory").glob("*.py") if page.stem == "own-models" else ():
        assert (tmp_path / "inventory" / example.name).read_text() == example.read_text()


@pytest.mark.contract
def test_pages_of_the_library_lead_where_the_guide_has_installed_it(tmp_path: Path) -> None:
    programs = "/usr/local/bin:/usr/bin:/bin"
    follow(_ROOT / "docs" / "guide.md", tmp_path, {"CHECKOUT": str(_ROOT), "PATH": programs}, "install")
    for name in ("retention", "erasure", "transfer"):
        (tmp_path / name).mkdir()
        page = _ROOT / "docs" / f"{name}.md"
        follow(page, tmp_path / name, {"PATH": f"{tmp_path / '.venv' / 'bin'}:{programs}"})


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

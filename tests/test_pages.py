"""What README and the pages of docs/ show is true, and no code on them is left without a test.

A block of code without a name is run: of Python, as a part of its page's module; of commands, by `test_guides`. So are
the files and changes of pages with such commands, and requests to the demo.
"""

import json
import re
import shlex
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import chrononaut
import chrononaut.migrations
from app import create_app
from app.auth.grants import Grants
from app.auth.tokens import create_token
from app.cli import create_tables
from app.db import db
from app.demo import fill
from app.settings import Setting, SettingError, Settings, declared
from docs.extensions.file_names import with_captions
from docs.extensions.offline import loaded_from_elsewhere
from docs.extensions.rest_reference import operations, problems, schemas

_ROOT = Path(__file__).parents[1]
_DOCS = _ROOT / "docs"
_PAGES = [
    _ROOT / "README.md",
    *sorted(page for page in _DOCS.rglob("*.md") if "_build" not in page.relative_to(_DOCS).parts),
]
_BLOCK = re.compile(r"^```(python|console|diff)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_RUN_ELSEWHERE = {
    "demo": "by `test_requests_are_answered_as_printed`",
    "install": "by `make test-clients`: takes a registry",
    "client": "by `make test-clients`: takes a registry",
}
_RUN_BY_NONE = {
    "checkout": "make installs the environment in which the tests are",
    "docker": "takes Docker; `make test-image` builds and runs the same image without it",
    "replay": "takes the file of real changes, and an hour; `test_replay` runs it on some of them",
    "telemetry": "takes a collector; `test_telemetry` sends to one",
}
_ADOPTING = _DOCS / "adopting.md"
"""Its files are those of an application that there is not: `library.test_adopting` makes it."""


def _blocks(page: Path, language: str, name: str | None = None) -> list[str]:
    """The text of the blocks of a page that are of a language and have that name, or none."""
    return [
        text for lang, called, text in _BLOCK.findall(page.read_text()) if lang == language and called == (name or "")
    ]


def _relative(page: Path) -> str:
    return str(page.relative_to(_ROOT))


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Flask]:
    """The service with the demo's data."""
    app = create_app({"SECRET_KEY": "0123456789abcdef", "DATABASE_URL": f"sqlite:///{tmp_path / 'demo.db'}"})
    with app.app_context():
        create_tables(db)
        fill(db.session())
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.mark.parametrize("page", [page for page in _PAGES if _blocks(page, "python")], ids=_relative)
def test_python_examples_run(page: Path) -> None:
    # Each block at its own lines, so that what fails is found on the page.
    text = page.read_text()
    module = ""
    for block in _BLOCK.finditer(text):
        if (block[1], block[2]) == ("python", None):
            module += "\n" * (text.count("\n", 0, block.start(3)) - module.count("\n")) + block[3]
    names: dict[str, Any] = {"__name__": page.stem.replace("-", "_")}
    try:
        # What a page pushes is a context of its own, and no other test's.
        copy_context().run(exec, compile(module, page, "exec"), names)
    finally:
        # From Python 3.13 on, SQLite's connections warn where nobody closes them.
        with names["app"].app_context():
            names["db"].engine.dispose()


@pytest.mark.parametrize("page", _PAGES[1:], ids=_relative)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    for language, name, text in _BLOCK.findall(page.read_text()):
        if language == "console" and name:
            assert name in _RUN_ELSEWHERE | _RUN_BY_NONE, text
        elif language == "diff" or (language == "python" and name):
            assert name, f"no file is said to change:\n{text}"
            assert page == _ADOPTING or _blocks(page, "console"), f"nobody follows this page:\n{text}"


@pytest.mark.parametrize(
    "page", [page for page in _PAGES if "Versioned, VersionedSQLAlchemy" in page.read_text()], ids=_relative
)
def test_page_of_the_library_says_how_it_is_installed(page: Path) -> None:
    assert "guide.md#installing" in page.read_text() or _blocks(page, "console", "install")


def test_few_blocks_are_run_by_none() -> None:
    left = [text for page in _PAGES for name in _RUN_BY_NONE for text in _blocks(page, "console", name)]
    assert len(left) <= len(_RUN_BY_NONE)


def test_every_public_name_is_in_the_reference_of_the_library() -> None:
    reference = (_DOCS / "reference" / "library.rst").read_text()
    described = set(re.findall(r"^\.\. auto\w+:: chrononaut\.(\w+)$", reference, re.MULTILINE))
    public = {
        name
        for name, thing in vars(chrononaut).items()
        if not name.startswith("_") and getattr(thing, "__module__", "").startswith("chrononaut.")
    } | {"versions_committed"}
    assert described - {"migrations", "exceptions"} == public


def test_every_public_name_of_migrations_has_a_docstring() -> None:
    public = [thing for name, thing in vars(chrononaut.migrations).items() if not name.startswith("_")]
    own = [thing for thing in public if getattr(thing, "__module__", None) == "chrononaut.migrations"]
    assert len(own) > 2
    assert all(thing.__doc__ for thing in own)


def test_every_operation_schema_and_problem_is_in_the_reference_of_rest() -> None:
    document = json.loads((_ROOT / "openapi" / "openapi.json").read_text())
    told, described = operations(document), schemas(document)
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                assert f"### `{method.upper()} {path}`\n" in told
                assert f"Operation `{operation['operationId']}`." in told
    for name in document["components"]["schemas"]:
        assert f"## {name}\n" in described
    for kind in document["components"]["schemas"]["Problem"]["properties"]["type"]["x-extensible-enum"]:
        assert f"| `{kind}` |" in problems(document)


def test_built_page_shows_the_name_of_a_file() -> None:
    page = "Save:\n\n```python make.py\nmake()\n```\n\n```python\nrun()\n```\n"
    captioned = "Save:\n\n```{code-block} python\n:caption: make.py\n\nmake()\n```\n\n```python\nrun()\n```\n"
    assert with_captions(page) == captioned


def test_what_a_built_page_would_load_from_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(
        """<link rel="stylesheet" href="style.css"><script src="https://example.com/a.js"></script>
        <a href="https://example.com/followed-by-the-reader">a</a><img src="//example.com/b.png"><img src="c.png">
        <style>@import "https://example.com/d.css";</style><p style="background: url(http://example.com/e.png)"></p>"""
    )
    (tmp_path / "style.css").write_text("@font-face { src: url('https://example.com/f.woff2'), url(g.woff2) }")
    assert {address.rpartition("/")[2] for address in loaded_from_elsewhere(tmp_path)} == {
        *("a.js", "b.png", "d.css", "e.png", "f.woff2")
    }


def test_settings_are_those_of_the_code() -> None:
    page = (_DOCS / "settings.md").read_text()
    table = page.partition("| setting | default | range | meaning |\n|---|---|---|---|\n")[2].partition("\n\n")[0]
    with pytest.raises(SettingError) as refused:
        Settings.from_environment({})
    missing = {line.split()[0] for line in str(refused.value).splitlines()}
    assert table.splitlines() == [_row(setting, must_be_set=setting.name in missing) for setting in declared()]


def _row(setting: Setting[Any], *, must_be_set: bool) -> str:
    default = "must be set" if must_be_set else f"`{setting.default}`" if setting.default else "none"
    return f"| `{setting.name}` | {default} | {setting.allowed} | {setting.meaning} |"


def _as_pattern(answer: str) -> str:
    """An answer as a page prints it: with line breaks, and with a `…` for what is left out."""
    in_one_line = re.sub(r"\n *", "", answer.strip())
    return ".*".join(map(re.escape, in_one_line.split("…")))


@pytest.mark.parametrize("page", [page for page in _PAGES if _blocks(page, "console", "demo")], ids=_relative)
def test_requests_are_answered_as_printed(page: Path, demo: Flask) -> None:
    text = "\n".join(_blocks(page, "console", "demo"))
    examples = re.findall(r"\$ (curl .*?[^\\])\n({.*?)(?=\n\n|\n\$|\Z)", text.rstrip(), re.DOTALL)
    assert len(examples) == text.count("$ ") > 1
    with demo.app_context():
        token = create_token(db, "demo@example.com", Grants.parse(["write"]))
    for command, answer in examples:
        options = iter(shlex.split(command.replace("\\\n", " ").replace("$TOKEN", token))[1:])
        sent: dict[str, Any] = {"method": "GET", "headers": {"Authorization": f"Bearer {token}"}}
        for option in options:
            match option:
                case "-s":
                    pass
                case "-X":
                    sent["method"] = next(options)
                case "-H":
                    name, _, value = next(options).partition(": ")
                    sent["headers"][name] = value
                case "-d":
                    sent["data"] = next(options)
                case url:
                    sent["path"] = url.removeprefix("http://127.0.0.1:8000")
        response = demo.test_client().open(**sent)
        assert re.fullmatch(_as_pattern(answer), response.text.strip()), f"{command}\n{response.text}"

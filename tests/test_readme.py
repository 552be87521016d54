"""What README and the pages of docs/ show is true."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app import create_app
from app.auth.grants import Grants
from app.auth.tokens import create_token
from app.cli import create_tables
from app.db import db
from app.demo import fill
from app.settings import Setting, SettingError, Settings, declared

_ROOT = Path(__file__).parents[1]
_README = (_ROOT / "README.md").read_text()


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


@pytest.mark.parametrize("page", ["README.md", "docs/importing.md"])
def test_python_examples_run(page: str) -> None:
    examples = re.findall(r"```python\n(.*?)```", (_ROOT / page).read_text(), re.DOTALL)
    assert len(examples) > 1
    names: dict[str, Any] = {"__name__": Path(page).stem}
    try:
        exec(compile("\n".join(examples), page, "exec"), names)
    finally:
        # From Python 3.13 on, SQLite's connections warn where nobody closes them.
        with names["app"].app_context():
            names["db"].engine.dispose()


def test_settings_are_those_of_the_code() -> None:
    table = _README.partition("| setting | default | range | meaning |\n|---|---|---|---|\n")[2].partition("\n\n")[0]
    with pytest.raises(SettingError) as refused:
        Settings.from_environment({})
    missing = {line.split()[0] for line in str(refused.value).splitlines()}
    assert table.splitlines() == [_row(setting, must_be_set=setting.name in missing) for setting in declared()]


def _row(setting: Setting[Any], *, must_be_set: bool) -> str:
    default = "must be set" if must_be_set else f"`{setting.default}`" if setting.default else "none"
    return f"| `{setting.name}` | {default} | {setting.allowed} | {setting.meaning} |"


def _as_pattern(answer: str) -> str:
    """An answer as README prints it: with line breaks, and with a `…` for what is left out."""
    in_one_line = re.sub(r"\n *", "", answer.strip())
    return ".*".join(map(re.escape, in_one_line.split("…")))


def test_requests_are_answered_as_printed(demo: Flask) -> None:
    examples = [
        example
        for block in re.findall(r"```console\n(.*?)```", _README, re.DOTALL)
        for example in re.findall(r"\$ (curl .*?[^\\])\n({.*?)(?=\n\n|\Z)", block.rstrip(), re.DOTALL)
    ]
    assert len(examples) == 7
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
        text = json.dumps(response.json, ensure_ascii=False, separators=(",", ":"))
        assert re.fullmatch(_as_pattern(answer), text), f"{command}\n{text}"

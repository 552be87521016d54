"""What README and the pages of docs/ show is true."""

import re
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings

_ROOT = Path(__file__).parents[1]
_README = (_ROOT / "README.md").read_text()


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
    documented = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", _README, re.MULTILINE)
    assert {name for name, _ in documented} == set(re.findall(r"``([A-Z_]+)``", Settings.__doc__ or ""))
    defaults = {name: default.strip("`") for name, default in documented}
    settings = Settings.from_environment({"SECRET_KEY": "0123456789abcdef", "DATABASE_URL": "sqlite://"})
    assert defaults["CHRONONAUT_MODELS"] == ",".join(settings.models)
    assert defaults["CHRONONAUT_DB"] == settings.db
    assert defaults["CHRONONAUT_OPEN_READING"] == str(settings.open_reading).lower()

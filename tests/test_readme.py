"""What README shows is true."""

import re
from pathlib import Path
from typing import Any

from app.settings import Settings

_README = (Path(__file__).parents[1] / "README.md").read_text()


def test_python_examples_run() -> None:
    examples = re.findall(r"```python\n(.*?)```", _README, re.DOTALL)
    assert len(examples) > 1
    names: dict[str, Any] = {"__name__": "readme"}
    try:
        exec(compile("\n".join(examples), "README.md", "exec"), names)
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

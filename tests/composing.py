"""What docker-compose.yml says, as an engine reads it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_FILE = Path(__file__).parents[1] / "docker-compose.yml"
_VARIABLE = re.compile(r"\$\{(\w+)(:[?-])([^}]*)\}")


class UnsetError(Exception):
    """A variable without a default is not set, or empty."""


def services(environment: Mapping[str, str]) -> dict[str, Any]:
    """The services, with the variables of an environment.

    :raises UnsetError: one is missing that must be set
    """

    def value(match: re.Match[str]) -> str:
        name, kind, otherwise = match.groups()
        if not environment.get(name) and kind == ":?":
            raise UnsetError(name)
        return environment.get(name) or otherwise

    composed: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(value, _FILE.read_text()))
    return composed["services"]  # type: ignore[no-any-return]

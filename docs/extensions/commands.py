"""The group ``flask history`` as an application has it, for the reference of its commands."""

from typing import Any

from flask import Flask

from chrononaut.commands import register_commands

_app = Flask(__name__)
register_commands(_app)
history: Any = _app.cli.commands["history"]

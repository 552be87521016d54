"""The commands that every application with versioned models has: ``flask history …``."""

from typing import Any

import click
from flask import Flask
from flask.cli import AppGroup

from chrononaut.commands.checking import doctor, verify
from chrononaut.commands.purging import purge
from chrononaut.commands.transferring import export, import_

_COMMANDS = (verify, doctor, purge, export, import_)


def register_commands(app: Flask) -> None:
    """Add the group ``history``. What the application has under its names already stays as it is."""
    group: Any = app.cli.commands.get("history")
    if group is None:
        group = AppGroup("history", help="The history of versioned models.")
        app.cli.add_command(group)
    for command in _COMMANDS:
        if isinstance(group, click.Group) and command.name not in group.commands:
            group.add_command(command)

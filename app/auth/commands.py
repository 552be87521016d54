"""The commands that say who may use the service: ``flask tokens`` and ``flask logins``."""

import json
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import click
from flask import Flask
from flask.cli import AppGroup
from flask_sqlalchemy import SQLAlchemy
from marshmallow import ValidationError, validate
from sqlalchemy.exc import DBAPIError

from app.auth import logins as accounts
from app.auth import tokens as access_tokens
from app.auth.grants import GrantError, Grants
from app.auth.tables import LONGEST_NAME, LONGEST_USER
from app.database_errors import NOT_MIGRATED, reason_of, refusal_of
from app.instants import instant_text

_Command = Callable[..., Any]


@contextmanager
def database_errors() -> Iterator[None]:
    """One line for what the database does not take from a command."""
    try:
        yield
    except DBAPIError as error:
        hint = "; run flask --app app db upgrade" if refusal_of(error) is NOT_MIGRATED else ""
        raise click.ClickException(f"the database does not take it: {reason_of(error)}{hint}") from error


class _Group(AppGroup):
    """Commands that use the database."""

    def invoke(self, ctx: click.Context) -> Any:
        with database_errors():
            return super().invoke(ctx)


def register_commands(app: Flask, db: SQLAlchemy) -> None:
    """Add the groups ``tokens`` and ``logins``."""
    models: Collection[str] = app.extensions["chrononaut"]
    app.cli.add_command(_tokens(db, models))
    app.cli.add_command(_logins(db, models))


def _scopes(served: Collection[str]) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], Grants]:
    def check(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> Grants:
        try:
            grants = Grants.parse(texts)
        except GrantError as error:
            raise click.BadParameter(str(error)) from error
        if unknown := sorted(grants.models - set(served)):
            raise click.BadParameter(f"there is no model {', '.join(unknown)}; there are {', '.join(served)}")
        return grants

    return check


def _text(longest: int) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    def check(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
        if text is not None and not (0 < len(text) <= longest and text.isprintable()):
            raise click.BadParameter(f"it must have 1 to {longest} characters that can be printed")
        return text

    return check


def _email(context: click.Context, parameter: click.Parameter, text: str) -> str:
    try:
        validate.And(validate.Email(), validate.Length(max=LONGEST_USER))(text)
    except ValidationError as error:
        raise click.BadParameter(f"{text!r} is no e-mail address") from error
    return text


def _scope_option(models: Collection[str]) -> Callable[[_Command], _Command]:
    return click.option(
        "--scope",
        "grants",
        multiple=True,
        default=["read"],
        show_default=True,
        callback=_scopes(models),
        help="read, write or admin, of one model as release:write; or metrics. Can be given several times.",
    )


def _tokens(db: SQLAlchemy, models: Collection[str]) -> AppGroup:
    group = _Group("tokens", help="Tokens that let programs use the service.")

    @group.command("create")
    @click.argument("user", callback=_text(LONGEST_USER))
    @_scope_option(models)
    @click.option(
        "--days", type=click.IntRange(1, 36_500), help="After this many days it is refused; never by default."
    )
    @click.option("--name", callback=_text(LONGEST_NAME), help="What it is for.")
    def create(user: str, grants: Grants, days: int | None, name: str | None) -> None:
        """Make a token whose writes are recorded as USER's, and print it. It cannot be read again."""
        lifetime = None if days is None else timedelta(days=days)
        click.echo(access_tokens.create_token(db, user, grants, lifetime, name=name))

    @group.command("list")
    @click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
    def list_(as_json: bool) -> None:
        """Show all tokens but what nobody may know of them. The last use is noted once in a minute."""
        _show(
            [
                {
                    "id": token.id,
                    "name": token.name,
                    "user": token.user,
                    "grants": str(token.grants),
                    "created": token.created_at,
                    "expires": token.expires_at,
                    "last used": token.last_used_at,
                    "state": token.state,
                }
                for token in access_tokens.list_tokens(db)
            ],
            as_json,
        )

    @group.command("revoke")
    @click.argument("id_", metavar="ID")
    def revoke(id_: str) -> None:
        """Refuse a token from now on; `list` shows its ID."""
        try:
            was_taken = access_tokens.revoke_token(db, id_)
        except access_tokens.UnknownTokenError as error:
            raise click.ClickException(f"there is no token {id_}; flask tokens list shows which there are") from error
        click.echo(f"{id_} is revoked" if was_taken else f"{id_} was revoked before")

    return group


def _logins(db: SQLAlchemy, models: Collection[str]) -> AppGroup:
    group = _Group("logins", help="People who log in with a password.")
    email_argument = click.argument("email", callback=_email)
    password_option = click.option(
        "--password-stdin", is_flag=True, help="Read the password from the first line of the standard input."
    )

    @group.command("create")
    @email_argument
    @_scope_option(models)
    @password_option
    def create(email: str, grants: Grants, password_stdin: bool) -> None:
        """Let EMAIL log in, with a password that is asked for."""
        _do(accounts.create_login, db, email, _password(password_stdin), grants)

    @group.command("list")
    @click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
    def list_(as_json: bool) -> None:
        """Show who may log in, and who no longer may."""
        _show(
            [
                {
                    "email": login.email,
                    "grants": str(login.grants),
                    "created": login.created_at,
                    "disabled": login.disabled_at,
                }
                for login in accounts.list_logins(db)
            ],
            as_json,
        )

    @group.command("set-password")
    @email_argument
    @password_option
    def set_password(email: str, password_stdin: bool) -> None:
        """Give EMAIL another password. All sessions end; a disabled login is enabled."""
        _do(accounts.set_password, db, email, _password(password_stdin))

    @group.command("disable")
    @email_argument
    def disable(email: str) -> None:
        """Let EMAIL log in no more, and end all sessions."""
        _do(accounts.disable_login, db, email)

    @group.command("delete")
    @email_argument
    def delete(email: str) -> None:
        """Forget EMAIL, and end all sessions."""
        _do(accounts.delete_login, db, email)

    return group


def _do(change: Callable[..., None], *arguments: object) -> None:
    try:
        change(*arguments)
    except accounts.LoginError as error:
        raise click.ClickException(str(error)) from error


def _password(from_stdin: bool) -> str:
    # Never an argument: other programs can see those.
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return password


def _show(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        named = [{name.replace(" ", "_"): _shown(value) for name, value in row.items()} for row in rows]
        click.echo(json.dumps(named, indent=2, ensure_ascii=False))
    elif rows:
        lines = [[*rows[0]], *([_shown(value) or "-" for value in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            click.echo("  ".join(map(str.ljust, line, widths)).rstrip())


def _shown(value: str | datetime | None) -> str | None:
    return instant_text(value) if isinstance(value, datetime) else value

"""The operations of ``/health``, for who starts workers and sends requests to them.

``live`` says that a worker answers: it takes nothing but the worker, so that none is ended because of what ending it
does not mend. ``ready`` says that it can serve: its database answers, and has the tables that it needs.
"""

from typing import Any, Final

import sqlalchemy as sa
from flask import current_app, request
from flask_limiter import Limiter
from flask_sqlalchemy import SQLAlchemy
from marshmallow import fields, validate
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from app.answers import Answer
from app.api import Blueprint
from app.auth import tables
from app.database_errors import NOT_MIGRATED, refusal_of
from app.db import autocommitting
from app.migrations import is_behind, parts_of
from app.problems import LATER, Problem
from app.registry import Registry
from chrononaut.history import full_name

LIVE_PATH: Final = "/health/live"
_LIVE: Final = "live"
_READY: Final = "ready"
_FRESH: Final = {"Cache-Control": "no-store"}


class LiveSchema(Answer):
    """That the service answers."""

    status = fields.String(required=True, validate=validate.Equal(_LIVE), metadata={"description": "always `live`"})


class ReadySchema(Answer):
    """That the service can serve."""

    status = fields.String(required=True, validate=validate.Equal(_READY), metadata={"description": "always `ready`"})


def add_health(blueprint: Blueprint, db: SQLAlchemy, registry: Registry, limiter: Limiter) -> None:
    """Add ``GET /health/live`` and ``GET /health/ready``, which no limit counts."""
    needed = [
        *tables.metadata.sorted_tables,
        *(
            table
            for resource in registry.values()
            for one in resource.versioning.tables
            for table in (one.live, one.history)
        ),
    ]
    # What they have once is not taken away from a service that runs.
    is_migrated = False
    names = {f"{blueprint.name}.{operation}" for operation in ("tell_live", "tell_ready")}

    @limiter.request_filter
    def is_about_health() -> bool:
        return request.endpoint in names

    @blueprint.operation(
        "GET", LIVE_PATH, "tell_live", scope=None, public=True, answer=LiveSchema, example={"status": _LIVE}
    )
    def tell_live(query: dict[str, Any]) -> Any:
        """Is there a worker that answers? It is asked for nothing else, not even its database."""
        return {"status": _LIVE}, _FRESH

    @blueprint.operation(
        "GET", "/health/ready", "tell_ready", scope=None, public=True, answer=ReadySchema, example={"status": _READY}
    )
    def tell_ready(query: dict[str, Any]) -> Any:
        """Can requests be served? Its database answers and its tables are migrated; 503 says what is not so."""
        nonlocal is_migrated
        with autocommitting(db.engine) as connection:
            # Of PostgreSQL one that stands by for another answers as well. It has to be asked anything.
            is_postgresql = connection.dialect.name == "postgresql"
            read_only = sa.func.current_setting("transaction_read_only") if is_postgresql else sa.literal("off")
            if connection.execute(sa.select(read_only)).scalar_one() != "off":
                raise _not_ready("the database takes no changes")
            if not is_migrated:
                _check_tables(connection, needed)
                is_migrated = True
        return {"status": _READY}, _FRESH


def _check_tables(connection: Connection, needed: list[sa.Table]) -> None:
    """:raises Problem: tables are not as the service needs them"""
    behind = [part.name for part in parts_of(current_app) if is_behind(connection, part)]
    if behind:
        raise _not_ready(f"the tables of the {' and the '.join(behind)} are behind: run flask --app app db upgrade")
    for table in needed:
        try:
            connection.execute(sa.select(*table.columns).where(sa.false()))
        except DBAPIError as error:
            if refusal_of(error) not in {None, NOT_MIGRATED}:
                raise
            raise _not_ready(f"the table {full_name(table)} is missing, lacks a column or may not be read") from None


def _not_ready(detail: str) -> Problem:
    current_app.logger.error("not ready: %s", detail)
    return Problem("unavailable", detail, headers=LATER)

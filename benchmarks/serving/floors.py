"""The service with the floors beside it: views that do no more than they must.

They are views of the same application, so that they pass all that the service does before and after a request, and they
are for who may read or write users, as the service's are. So what they are faster by, the service's views take longer.

constant
    The bytes that the service answers, kept in memory.
hand-written
    What a developer would write who serves this one model and nothing else: select the rows, put them into a
    dictionary. The statements go past the session, which captures, and do not share a snapshot. That for ``PATCH``
    changes a table that has neither history nor versions.
unversioned
    The service's own view, with capture suppressed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from flask import Blueprint, Flask, Response, abort, current_app, jsonify, request

from app import create_app as create_service
from app.auth.access import requires
from app.db import db
from app.models import User
from chrononaut import suppress_versioning
from chrononaut.history import versioning_of

_Document = dict[str, Any]
_View = Callable[..., Any]
# How its type is written depends on SQLAlchemy's release.
_Row = Any

twin: Final = sa.Table(
    "unversioned_user",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("email", sa.String(254), nullable=False, unique=True),
    sa.Column("name", sa.String(200)),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("password_hash", sa.String(200)),
    sa.Column("last_seen_at", sa.DateTime(timezone=True)),
)
"""The table of users as it is without versioning."""

_PAGE: Final = 50
_live: Final[Any] = User.__table__
_history: Final = versioning_of(User).history_table
_key: Final = sa.bindparam("key", type_=sa.Integer)
_select_live: Final = sa.select(_live.c.id, _live.c.version, _live.c.email, _live.c.name, _live.c.active).where(
    _live.c.id == _key
)
_select_history: Final = sa.select(
    _history.c.version,
    _history.c.changed,
    _history.c.operation,
    _history.c.change_info,
    _history.c.transaction_id,
    _history.c.id,
    _history.c.email,
    _history.c.name,
    _history.c.active,
).where(_history.c.id == _key)
# A page, what is before its first version, and whether another one follows.
_select_page: Final = _select_history.order_by(_history.c.version).limit(_PAGE + 2)
_before: Final = _history.alias()
_began: Final = (
    sa.select(_before.c.changed)
    .where(_before.c.id == _history.c.id, _before.c.version == _history.c.version - 1)
    .scalar_subquery()
)
_select_at: Final = (
    _select_history.add_columns(_began.label("began"))
    .where(_history.c.changed > sa.bindparam("at", type_=_history.c.changed.type))
    .order_by(_history.c.changed, _history.c.version)
    .limit(1)
)
_select_began: Final = sa.select(sa.func.max(_history.c.changed)).where(_history.c.id == _key)
_select_two: Final = (
    _select_history.add_columns(_began.label("began"))
    .where(_history.c.version.in_([sa.bindparam("from"), sa.bindparam("to")]), _history.c.operation != "insert")
    .order_by(_history.c.version)
)


def create_app(environment: Mapping[str, str] = os.environ) -> Flask:
    """The service with the floors, as a WSGI application."""
    app = create_service(environment)
    floors = Blueprint("floors", __name__)
    _add_constants(floors, app)
    _add_hand_written(floors)
    _add_unversioned(floors, app)
    app.register_blueprint(floors)
    return app


def _add_constants(floors: Blueprint, app: Flask) -> None:
    for operation_id in ("list_user_versions", "get_user_version_at", "diff_user_versions"):
        endpoint = f"user.{operation_id}"
        (rule,) = app.url_map.iter_rules(endpoint)
        view = _constant(app.view_functions[endpoint])
        floors.add_url_rule(f"/constant{rule.rule}", f"constant_{operation_id}", view)


def _constant(view: _View) -> _View:
    """A view that answers always what another one answered first."""
    kept: list[bytes] = []

    @requires("read", "user")
    def constant(**parts: Any) -> Response:
        if not kept:
            kept.append(current_app.make_response(view(**parts)).get_data())
        return Response(kept[0], content_type="application/json")

    return constant


def _add_unversioned(floors: Blueprint, app: Flask) -> None:
    change_user = app.view_functions["user.change_user"]

    @floors.patch("/unversioned/records/user/<key>")
    def unversioned(key: str) -> Any:
        with suppress_versioning():
            return change_user(key=key)


def _add_hand_written(floors: Blueprint) -> None:
    path = "/hand-written/history/user/<int:key>"

    @floors.get(path)
    @requires("read", "user")
    def list_versions(key: int) -> Response:
        with db.engine.connect() as connection:
            live = connection.execute(_select_live, {"key": key}).one_or_none()
            rows = connection.execute(_select_page, {"key": key}).all()
        if live is None and not rows:
            abort(404)
        versions, began = [], None
        for row in rows:
            if row.operation != "insert":
                versions.append(_version(row, began))
            began = row.changed
        following = versions[_PAGE - 1]["version"] if len(versions) > _PAGE else None
        current = live and {"version": live.version, "valid_from": _text(began), "state": _state(live)}
        page = {"current": current, "versions": versions[:_PAGE], "purged": [], "next": following}
        return jsonify(_identified(key) | page)

    @floors.get(f"{path}/version_at")
    @requires("read", "user")
    def get_version_at(key: int) -> Response:
        at = datetime.fromisoformat(request.args["at"])
        with db.engine.connect() as connection:
            row = connection.execute(_select_at, {"key": key, "at": at}).one_or_none()
            if row is not None and row.operation != "insert":
                return jsonify(_identified(key) | _version(row, row.began))
            live = connection.execute(_select_live, {"key": key}).one_or_none()
            began = connection.scalar(_select_began, {"key": key})
        if live is None or row is not None:
            abort(404)
        ended = dict.fromkeys(("changed", "operation", "change_info", "transaction_id"))
        current = {"version": live.version, "valid_from": _text(began), **ended, "state": _state(live)}
        return jsonify(_identified(key) | current)

    @floors.get(f"{path}/diff")
    @requires("read", "user")
    def diff_versions(key: int) -> Response:
        numbers = {"from": int(request.args["from"]), "to": int(request.args["to"])}
        with db.engine.connect() as connection:
            rows = connection.execute(_select_two, {"key": key, **numbers}).all()
        if len(rows) != len(numbers):
            abort(404)
        one, other = rows
        before, after = _state(one), _state(other)
        return jsonify(
            {
                "model": "user",
                "key": str(key),
                "from": _span(one, one.began),
                "to": _span(other, other.began),
                "changes": {
                    name: {"from": before[name], "to": after[name]} for name in before if before[name] != after[name]
                },
                "hidden_changed": [],
                "purged": [],
                "links": _links(key),
            }
        )

    @floors.patch("/hand-written/records/user/<int:key>")
    @requires("write", "user")
    def change_user(key: int) -> Response:
        values = {name: value for name, value in request.get_json().items() if name in {"email", "name", "active"}}
        change = sa.update(twin).where(twin.c.id == key).values(values)
        with db.engine.begin() as connection:
            row = connection.execute(change.returning(*twin.c)).one_or_none()
        if row is None:
            abort(404)
        state = _state(row) | {"last_seen_at": _text(row.last_seen_at)}
        return jsonify({"model": "user", "key": str(key), "state": state, "links": _links(key)})


def _identified(key: int) -> _Document:
    return {"model": "user", "key": str(key), "links": _links(key)}


def _links(key: int) -> _Document:
    return {"record": f"/records/user/{key}", "history": f"/history/user/{key}"}


def _version(row: _Row, began: datetime | None) -> _Document:
    return {
        **_span(row, began),
        "operation": row.operation,
        "change_info": row.change_info,
        "transaction_id": str(row.transaction_id),
        "state": _state(row),
    }


def _span(row: _Row, began: datetime | None) -> _Document:
    return {"version": row.version, "valid_from": _text(began), "changed": _text(row.changed)}


def _state(row: _Row) -> _Document:
    return {"id": row.id, "email": row.email, "name": row.name, "active": row.active}


def _text(at: datetime | None) -> str | None:
    return None if at is None else f"{at.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"

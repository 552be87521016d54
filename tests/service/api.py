"""The API as its users call it."""

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from flask.testing import FlaskClient

from app.auth.tables import metadata as token_metadata
from app.db import db


class Api:
    """Calls the API with a token and expects success."""

    def __init__(self, client: FlaskClient, token: str | None) -> None:
        self.client = client
        self.headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        why: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Call it and return the response, whatever it is."""
        sent = self.headers | ({"X-Change-Rationale": why} if why is not None else {}) | dict(headers or {})
        return self.client.open(path, method=method, json=body, headers=sent)

    def get(self, path: str) -> Any:
        return self._succeed("GET", path)

    def post(self, path: str, body: Any, why: str | None = None) -> Any:
        return self._succeed("POST", path, body, why)

    def put(self, path: str, body: Any, why: str | None = None) -> Any:
        return self._succeed("PUT", path, body, why)

    def patch(self, path: str, body: Any, why: str | None = None) -> Any:
        return self._succeed("PATCH", path, body, why)

    def delete(self, path: str, why: str | None = None) -> None:
        response = self.call("DELETE", path, why=why)
        assert (response.status_code, response.data) == (204, b""), response.text

    def _succeed(self, method: str, path: str, body: Any = None, why: str | None = None) -> Any:
        response = self.call(method, path, body, why=why)
        assert response.status_code in {200, 201}, response.text
        assert response.mimetype == "application/json"
        return response.json


def assert_problem(response: Any, status: int, kind: str) -> dict[str, Any]:
    """Is a response this problem, as RFC 9457 wants it, and says nothing of our inside?

    :return: the problem
    """
    problem: dict[str, Any] = response.json
    assert (response.status_code, problem["type"]) == (status, f"/problems/{kind}"), response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    for inside in ("Traceback", "sqlalchemy", "psycopg", "sqlite3", "SELECT ", "INSERT "):
        assert inside not in response.text
    return problem


def all_rows() -> dict[str, list[tuple[Any, ...]]]:
    """All that the database holds, table by table, but for when a token was used last."""
    tables: Iterable[sa.Table] = [*db.metadata.sorted_tables, *token_metadata.sorted_tables]
    with db.engine.connect() as connection:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(_select(table))), key=repr) for table in tables
        }


def _select(table: sa.Table) -> sa.Select[Any]:
    return sa.select(*(column for column in table.columns if column.name != "last_used_at"))

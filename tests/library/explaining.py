"""What PostgreSQL plans for all statements that an engine executes, those that write too."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event


@dataclass(frozen=True, slots=True)
class Explained:
    """A statement with its plan.

    :ivar text: the plan as PostgreSQL prints it
    :ivar root: the plan's uppermost node
    """

    statement: str
    text: str
    root: Mapping[str, Any]

    def reads(self, table: str) -> Iterator[Mapping[str, Any]]:
        """The nodes that read a table."""
        for node in nodes(self.root):
            if node.get("Relation Name") == table and "Scan" in node["Node Type"]:
                yield node


def nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A node of a plan, and all below it."""
    yield node
    for below in node.get("Plans", ()):
        yield from nodes(below)


@contextmanager
def explained(engine: sa.Engine, table: str) -> Iterator[list[Explained]]:
    """The statements on a table that are executed inside the block, each with the plan that it has then."""
    found: list[Explained] = []

    def explain(
        connection: sa.Connection, cursor: object, statement: str, parameters: Any, context: object, many: bool
    ) -> None:
        if table not in statement or many:
            return
        asked = connection.connection.cursor()
        asked.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
        ((plan,),) = asked.fetchall()
        asked.execute(f"EXPLAIN {statement}", parameters)
        text = "\n".join(line for (line,) in asked.fetchall())
        asked.close()
        found.append(Explained(statement, text, plan[0]["Plan"]))

    event.listen(engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", explain)

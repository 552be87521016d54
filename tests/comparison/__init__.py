"""What docs/comparison.md says of other tools, tried on the tools: each keeps the history of the same model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping

import sqlalchemy as sa


class Tool(ABC):
    """A tool that keeps the history of a table ``id, name``, as it comes.

    :ivar table: the table's name
    :ivar history: the name of the table that has its history
    :ivar refusals: the errors by which it refuses what it does not do; none if it refuses nothing
    :ivar instants: a select of when something was kept, in the order in which it was
    """

    table: str
    history: str
    instants: str
    refusals: tuple[type[Exception], ...] = ()

    def __init__(self, engine: sa.Engine) -> None:
        """:param engine: of the same database, by which it is looked at past the tool"""
        self.engine = engine

    @abstractmethod
    def insert(self, key: int, name: str) -> None:
        """Make a record: an object, committed."""

    @abstractmethod
    def rename(self, keys: Iterable[int], name: str, between: Callable[[], None] = lambda: None) -> None:
        """Change objects, each written by itself, in one transaction.

        :param between: is called when each is loaded, before it is changed
        """

    @abstractmethod
    def undo_rename(self, key: int, name: str) -> None:
        """Change an object in a savepoint that is rolled back, and commit."""

    @abstractmethod
    def bulk_insert(self, names: Mapping[int, str]) -> None:
        """Make records by the ORM's statement for many."""

    @abstractmethod
    def bulk_rename(self, name: str) -> None:
        """Change all records by the ORM's statement for many."""

    @abstractmethod
    def bulk_delete(self) -> None:
        """Delete all records by the ORM's statement for many."""

    @abstractmethod
    def execute(self, statement: str) -> None:
        """Execute text SQL on the ORM's connection, and commit."""

    @abstractmethod
    def alter_history(self, name: str) -> None:
        """Give an object of history another name, and commit."""

    @abstractmethod
    def end(self) -> None:
        """Leave nothing open, also after an error."""

    def past_it(self, statement: str) -> None:
        """Execute text SQL on a connection of our own, on which nothing keeps history."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
            connection.exec_driver_sql(statement)

    def kept(self) -> list[str | None]:
        """The names in the history."""
        with self.engine.connect() as connection:
            return list(connection.exec_driver_sql(f"SELECT name FROM {self.history}").scalars())

    def times(self) -> list[object]:
        """When what is in the history was kept."""
        with self.engine.connect() as connection:
            return list(connection.exec_driver_sql(self.instants).scalars())

    def now(self, key: int) -> str:
        """The name that a record has."""
        with self.engine.connect() as connection:
            name: str = connection.exec_driver_sql(f"SELECT name FROM {self.table} WHERE id = {key}").scalar_one()
            return name

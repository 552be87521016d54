"""How many versions a transaction has written, as far as they are not rolled back to a savepoint."""

from collections import Counter
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from chrononaut.archive import OPTIONS, Transaction
from chrononaut.history import Operation, Versioning

Versions = Counter[tuple[Versioning, Operation]]


@dataclass(slots=True)
class Written:
    """What a session has written into history on one connection, while its transaction lasts.

    :ivar versions: how many, as far as they were counted
    :ivar uncounted: models of whose rows statements have written versions
    :ivar before: what `versions` was when each savepoint was set
    """

    versions: Versions = field(default_factory=Counter)
    uncounted: set[Versioning] = field(default_factory=set)
    before: list[Versions] = field(default_factory=list)

    def count(self, connection: Connection, transaction: Transaction) -> None:
        """Count what statements have written.

        They do not tell: an UPDATE matches rows that it leaves as they were. One question for each of the models does.
        """
        for versioning in self.uncounted:
            operation = versioning.column("operation")
            written = (
                sa.select(operation, sa.func.count())
                .where(versioning.column("transaction_id") == transaction.id)
                .group_by(operation)
            )
            for name, found in connection.execute(written, execution_options=OPTIONS).all():
                self.versions[versioning, name] += found - self._counted(versioning.history_table, name)
        self.uncounted.clear()

    def _counted(self, history: sa.Table, operation: Operation) -> int:
        return sum(
            count for (one, name), count in self.versions.items() if one.history_table is history and name == operation
        )

    def keep(self) -> None:
        """A savepoint is set. They end in the order in which they nest."""
        self.before.append(self.versions.copy())

    def roll_back(self) -> None:
        # One that was set before the session used the connection is before all that it has written.
        self.versions = self.before.pop() if self.before else Counter()

    def release(self) -> None:
        if self.before:
            self.before.pop()

"""Signals, of blinker as Flask's own are: who receives them is told of what has happened."""

from blinker import Namespace

versions_committed = Namespace().signal(
    "versions-committed",
    doc="""Versions were written, and the transaction that wrote them has been committed.

    The sender is the `VersionedSQLAlchemy` of the session that committed. A receiver also gets:

    :param transaction_id: as history rows and changes have it
    :param versions: (model, operation) → how many history rows, one or more. What a flush writes counts for the model
        of its objects, what a statement writes for the model that its table is of. Imported history does not count.

    Nothing is sent of what was rolled back, to a savepoint too, nor by a session that has joined a transaction of the
    caller's, which it does not commit. What a receiver raises is logged: the commit is done, and is not to be repeated.
    """,
)

"""Write the changes into the service's database with their own instants, and read its table as of some instants."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session
from tqdm import tqdm

from app import create_app
from app.settings import SettingError
from benchmarks.changes import Change, Key, fold_until
from benchmarks.replay.comparing import ABSENT, Difference, compare_table
from benchmarks.replay.errors import RecordError, ReplayError, UnusableError
from benchmarks.replay.service import Service
from benchmarks.replay.verifying import SHOWN
from benchmarks.replay.wire import MODEL
from chrononaut import ChrononautException, ImportedChange, import_changes

NEW_YEARS: Final = tuple(datetime(year, 1, 1, tzinfo=UTC) for year in range(2022, 2027))
"""As of when the table is compared."""

_CREATE: Final = "create the tables by flask --app app create-tables"


class Database:
    """The service's database, by its own session."""

    def __init__(self, session: Session, model: Any) -> None:
        self._session = session
        self._model = model

    def write(self, changes: Sequence[Change]) -> tuple[int, float]:
        """Write all changes in one transaction: none where it fails.

        :param changes: in the order of the file, with their instants
        :return: how many it were, and how many seconds it took
        :raises ReplayError: the library refuses one
        """
        started = time.perf_counter()
        with tqdm(changes, desc="importing", unit="change", file=sys.stderr, disable=None) as bar:
            try:
                written = import_changes(self._session, self._model, map(_imported, bar))
                self._session.commit()
            except ChrononautException as error:
                self._session.rollback()
                raise ReplayError(f"nothing was imported: {error}") from error
        return written, time.perf_counter() - started

    def as_of(self, at: datetime) -> Iterator[tuple[Key, int, Any, Any]]:
        """Read the table as of an instant: the key, version and state of each record."""
        names = self._model.__chrononaut__.tracked
        for record in self._session.scalars(self._model.as_of(at)):
            state = {name: getattr(record, name) for name in names}
            yield Key(record.product, record.cycle), record.version, ABSENT, state
        self._session.rollback()


@contextmanager
def database(environ: Mapping[str, str]) -> Iterator[Database]:
    """Open the database that the service's settings name.

    :raises UnusableError: a setting is wrong, or the tables are not there
    """
    try:
        app = create_app(environ)
    except SettingError as error:
        raise UnusableError(f"{error} (the settings are those of the service)") from error
    resource = app.extensions["chrononaut"].get(MODEL)
    if resource is None:
        raise UnusableError(f"the service has no model {MODEL}; leave CHRONONAUT_MODELS as it is")
    with app.app_context():
        db = app.extensions["sqlalchemy"]
        try:
            if not sa.inspect(db.engine).has_table(resource.versioning.history_table.name):
                raise UnusableError(f"the database has no tables yet; {_CREATE}")
            yield Database(db.session(), resource.model)
        except sa.exc.OperationalError as error:
            raise UnusableError(f"the database cannot be used: {str(error.orig).partition(chr(10))[0]}") from error
        finally:
            db.session.remove()
            db.engine.dispose()


@dataclass(frozen=True, slots=True)
class Compared:
    """What comparing the table as of an instant found.

    :ivar view: as of when, and how it was read
    :ivar records: how many there must be
    :ivar differences: how many differences
    :ivar first: the first of them
    :ivar error: why it could not be read; empty where it could
    """

    view: str
    records: int
    differences: int = 0
    first: Sequence[Difference] = ()
    error: str = ""

    def summary(self) -> str:
        """Word it for a person."""
        if self.error:
            return f"{self.view}: could not be read: {self.error}"
        return f"{self.view}: {self.records:,} records compared, {self.differences:,} differences"


def compare_years(service: Service, changes: Iterable[Change], own: Database) -> Iterator[Compared]:
    """Hold the table as of each first of January against the file, as the library and as the service tell it."""
    for at, expected in fold_until(changes, NEW_YEARS):
        for way, read in (("by the library", own.as_of), ("over HTTP", partial(_over_http, service))):
            view = f"as of {at:%Y-%m-%d} {way}"
            try:
                differences = list(compare_table(view, expected, read(at)))
            except RecordError as error:
                yield Compared(view, len(expected), error=str(error))
            else:
                yield Compared(view, len(expected), len(differences), differences[:SHOWN])


def _over_http(service: Service, at: datetime) -> Iterator[tuple[Key, int, Any, Any]]:
    for row in service.records_as_of(at):
        state: Any = row.get("state")
        key = state if isinstance(state, Mapping) else {}
        yield (
            Key(str(key.get("product")), str(key.get("cycle"))),
            row.get("version", ABSENT),
            row.get("valid_from"),
            state,
        )


def _imported(change: Change) -> ImportedChange:
    assert change.at is not None
    return ImportedChange(
        operation=change.operation.value,
        key=tuple(change.key),
        at=change.at,
        values=change.values,
        info={"extra": {"change_rationale": change.rationale}},
        transaction=change.ref,
    )

"""django-simple-history and django-pghistory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import django
import pgtrigger
import sqlalchemy as sa
from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.db import ProgrammingError, connection, transaction

from tests.comparison import Tool


def set_up(url: sa.URL) -> None:
    """Point Django to a database; once, as that is how often it can be told."""
    settings.configure(
        INSTALLED_APPS=[
            *("django.contrib.contenttypes", "django.contrib.auth"),
            *("simple_history", "pgtrigger", "pghistory", "tests.comparison.django_app"),
        ],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": url.database,
                "USER": url.username,
                "HOST": url.query["host"],
            }
        },
        USE_TZ=True,
    )
    django.setup()


def make_tables() -> None:
    """Make the tables of all applications, and the triggers."""
    # First those that others refer to: applications without migrations, as ours, get their tables before all others.
    for application in ("auth", "pghistory"):
        call_command("migrate", application, verbosity=0)
    call_command("migrate", run_syncdb=True, verbosity=0)
    pgtrigger.install()


class _OfDjango(Tool):
    """What both do in the same way."""

    name: str

    @property
    def model(self) -> Any:
        """Django has models when it is set up, and not before."""
        return apps.get_model("django_app", self.name)

    def end(self) -> None:
        connection.close()

    def insert(self, key: int, name: str) -> None:
        self.model.objects.create(id=key, name=name)

    def rename(self, keys: Iterable[int], name: str, between: Callable[[], None] = lambda: None) -> None:
        with transaction.atomic():
            for key in keys:
                record = self.model.objects.get(id=key)
                between()
                record.name = name
                record.save()

    def undo_rename(self, key: int, name: str) -> None:
        with transaction.atomic(), transaction.atomic():
            record = self.model.objects.get(id=key)
            record.name = name
            record.save()
            # The inner block's, which is a savepoint.
            transaction.set_rollback(True)

    def bulk_insert(self, names: Mapping[int, str]) -> None:
        self.model.objects.bulk_create([self.model(id=key, name=name) for key, name in names.items()])

    def bulk_rename(self, name: str) -> None:
        self.model.objects.update(name=name)

    def bulk_delete(self) -> None:
        self.model.objects.all().delete()

    def execute(self, statement: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)


class SimpleHistory(_OfDjango):
    """django-simple-history."""

    name, table, history = "Simple", "simple", "simple_history"
    instants = "SELECT history_date FROM simple_history ORDER BY history_id"

    def alter_history(self, name: str) -> None:
        kept = self.model.history.first()
        kept.name = name
        kept.save()


class PgHistory(_OfDjango):
    """django-pghistory."""

    name, table, history = "Tracked", "tracked", "tracked_event"
    instants = "SELECT pgh_created_at FROM tracked_event ORDER BY pgh_id"

    def alter_history(self, name: str) -> None:
        kept = self.model.pgh_event_model.objects.first()
        kept.name = name
        kept.save()


class StrictPgHistory(PgHistory):
    """django-pghistory with options."""

    name, table, history = "Strict", "strict", "strict_event"
    refusals = (ProgrammingError,)

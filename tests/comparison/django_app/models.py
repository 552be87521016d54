"""The models: imported by Django when it is set up."""

import pghistory
from django.db import models
from simple_history.models import HistoricalRecords


class Simple(models.Model):  # type: ignore[misc]  # Django has no types here
    """A record with history by django-simple-history."""

    id = models.IntegerField(primary_key=True)
    name = models.TextField()
    history = HistoricalRecords(table_name="simple_history")

    class Meta:
        db_table = "simple"


@pghistory.track(
    pghistory.InsertEvent(),
    pghistory.UpdateEvent(row=pghistory.Old),
    pghistory.DeleteEvent(),
    append_only=True,
    meta={"db_table": "strict_event"},
)
class Strict(models.Model):  # type: ignore[misc]
    """A record with history by django-pghistory that also keeps deletes, and that nobody alters."""

    id = models.IntegerField(primary_key=True)
    name = models.TextField()

    class Meta:
        db_table = "strict"


@pghistory.track(meta={"db_table": "tracked_event"})
class Tracked(models.Model):  # type: ignore[misc]
    """A record with history by django-pghistory."""

    id = models.IntegerField(primary_key=True)
    name = models.TextField()

    class Meta:
        db_table = "tracked"

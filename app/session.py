"""The session of a request."""

from typing import Any

from flask import current_app
from sqlalchemy.orm import Session


def session() -> Session:
    """The session of the database object that the service's models belong to."""
    database: Any = current_app.extensions["sqlalchemy"]
    current: Session = database.session()
    return current

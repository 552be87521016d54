"""Flask-SQLAlchemy whose sessions capture."""

import warnings
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session, sessionmaker

from chrononaut.capture import capture_sessions
from chrononaut.changes import Change
from chrononaut.commands import register_commands
from chrononaut.feed import transaction
from chrononaut.history import versioned_models
from chrononaut.options import SESSION
from chrononaut.policies import SETTING
from chrononaut.retention import read_setting


class VersionedSQLAlchemy(SQLAlchemy):
    """Flask-SQLAlchemy's ``SQLAlchemy``; its sessions write the history of models that have the mixin ``Versioned``.

    It takes all that ``SQLAlchemy`` takes, and is bound at once (``VersionedSQLAlchemy(app)``) or later (``init_app``).

    :param use_native_unicode: accepted from older releases, and without effect; goes with 1.0
    """

    def __init__(self, app: Flask | None = None, *, use_native_unicode: bool | None = None, **options: Any) -> None:
        if use_native_unicode is not None:
            warnings.warn(
                "use_native_unicode has no effect: every driver speaks Unicode; it will be refused by Chrononaut 1.0",
                DeprecationWarning,
                stacklevel=2,
            )
        super().__init__(app, **options)

    def init_app(self, app: Flask) -> None:
        """Bind to an application, which gets the commands ``flask history …``.

        :raises ValueError: the config ``CHRONONAUT_RETENTION`` is wrong
        """
        try:
            read_setting(app.config.get(SETTING) or {})
        except ValueError as error:
            raise ValueError(f"{SETTING} {error}") from None
        super().init_app(app)
        register_commands(app)

    def transaction(self, transaction_id: UUID) -> list[Change]:
        """Everything that one transaction changed, over all versioned models: by the models' names, keys and versions.

        :param transaction_id: as history rows and changes have it
        """
        base: Any = self.Model
        return transaction(self.session(), versioned_models(base.registry), transaction_id).changes

    def _make_declarative_base(self, *args: Any, **options: Any) -> Any:
        def current_session() -> Session:
            session: Session = self.session()
            return session

        model = super()._make_declarative_base(*args, **options)
        setattr(model, SESSION, staticmethod(current_session))
        return model

    def _versioned_metadatas(self) -> Iterable[sa.MetaData]:
        return self.metadatas.values()

    def _make_session_factory(self, options: dict[str, Any]) -> sessionmaker[Any]:
        factory = super()._make_session_factory(options)
        capture_sessions(factory, self._versioned_metadatas, sender=self)
        return factory

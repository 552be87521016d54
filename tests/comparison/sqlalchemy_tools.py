"""Chrononaut and SQLAlchemy-Continuum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session
from sqlalchemy_continuum import make_versioned, version_class

import chrononaut
from tests.comparison import Tool

make_versioned(user_cls=None)
_chrononaut, _continuum = chrononaut.VersionedSQLAlchemy(), SQLAlchemy()


class _Captured(_chrononaut.Model, chrononaut.Versioned):  # type: ignore[name-defined,misc]
    __tablename__ = "captured"

    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.String)


class _Continued(_continuum.Model):  # type: ignore[name-defined,misc]
    __tablename__ = "continued"
    __versioned__: dict[str, Any] = {}  # noqa: RUF012

    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.String)


sa.orm.configure_mappers()


class _OfSQLAlchemy(Tool):
    """What both do in the same way: by Flask-SQLAlchemy's session."""

    db: SQLAlchemy
    model: Any
    kept_model: Any

    def __init__(self, engine: sa.Engine) -> None:
        super().__init__(engine)
        app = Flask(__name__)
        app.config["SQLALCHEMY_DATABASE_URI"] = engine.url.render_as_string(hide_password=False)
        self.db.init_app(app)
        self._context = app.app_context()
        self._context.push()
        self.db.create_all()

    def end(self) -> None:
        self.session.rollback()
        self.db.engine.dispose()
        self._context.pop()

    @property
    def session(self) -> Session:
        return self.db.session()

    def insert(self, key: int, name: str) -> None:
        self.session.add(self.model(id=key, name=name))
        self.session.commit()

    def rename(self, keys: Iterable[int], name: str, between: Callable[[], None] = lambda: None) -> None:
        for key in keys:
            record = self.session.get_one(self.model, key)
            between()
            record.name = name
            self.session.flush()
        self.session.commit()

    def undo_rename(self, key: int, name: str) -> None:
        savepoint = self.session.begin_nested()
        self.session.get_one(self.model, key).name = name
        self.session.flush()
        savepoint.rollback()
        self.session.commit()

    def bulk_insert(self, names: Mapping[int, str]) -> None:
        rows = [{"id": key, "name": name} for key, name in names.items()]
        self.session.execute(sa.insert(self.model), rows)
        self.session.commit()

    def bulk_rename(self, name: str) -> None:
        self.session.execute(sa.update(self.model).values(name=name))
        self.session.commit()

    def bulk_delete(self) -> None:
        self.session.execute(sa.delete(self.model))
        self.session.commit()

    def execute(self, statement: str) -> None:
        self.session.execute(sa.text(statement))
        self.session.commit()

    def alter_history(self, name: str) -> None:
        self.session.scalars(sa.select(self.kept_model).limit(1)).one().name = name
        self.session.commit()


class Chrononaut(_OfSQLAlchemy):
    """This library."""

    db, model, kept_model = _chrononaut, _Captured, chrononaut.history_model(_Captured)
    table, history = "captured", "captured_history"
    refusals = (chrononaut.ConcurrentChangeError, chrononaut.HistoryImmutableError)
    instants = "SELECT changed FROM captured_history ORDER BY changed, id, version"


class Continuum(_OfSQLAlchemy):
    """SQLAlchemy-Continuum."""

    db, model, kept_model = _continuum, _Continued, version_class(_Continued)
    table, history = "continued", "continued_version"
    instants = "SELECT issued_at FROM continued_version JOIN transaction ON transaction_id = transaction.id ORDER BY 1"

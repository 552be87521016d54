"""Models of a hierarchy: a root, one model in its table and two in tables of their own."""

from typing import Any

import sqlalchemy as sa

from chrononaut import VersionedSQLAlchemy
from tests.library.models import define


class Staff:
    """A root, one model in its table and two in tables of their own, one below the other."""

    def __init__(self) -> None:
        self.db: Any = VersionedSQLAlchemy()
        self.employee: Any = define(
            self.db,
            "Employee",
            __tablename__="employee",
            __chrononaut_hidden__=["pin"],
            __mapper_args__={"polymorphic_on": "kind", "polymorphic_identity": "employee"},
            id=sa.Column(sa.Integer, primary_key=True),
            kind=sa.Column(sa.String),
            name=sa.Column(sa.String),
            pin=sa.Column(sa.String),
        )
        self.clerk: Any = self._below(
            "Clerk",
            self.employee,
            __chrononaut_untracked__=["seen"],
            desk=sa.Column(sa.String),
            seen=sa.Column(sa.String),
        )
        self.manager: Any = self._below(
            "Manager",
            self.employee,
            __tablename__="manager",
            __chrononaut_hidden__=["bonus"],
            id=sa.Column(sa.ForeignKey("employee.id"), primary_key=True),
            budget=sa.Column(sa.Integer),
            bonus=sa.Column(sa.Integer),
        )
        self.director: Any = self._below(
            "Director",
            self.manager,
            __tablename__="director",
            number=sa.Column(sa.ForeignKey("manager.id"), primary_key=True),
            car=sa.Column(sa.String),
        )

    def _below(self, name: str, parent: Any, **attributes: Any) -> Any:
        return type(name, (parent,), {"__mapper_args__": {"polymorphic_identity": name.lower()}, **attributes})

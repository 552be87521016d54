"""The first tables: of who may use the service, and of the bundled models and their histories.

``flask create-tables`` made the same before there were migrations: what is there already stays.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

_Column = sa.Column[Any]


def upgrade(part: str) -> None:
    {"service": _upgrade_service, "models": _upgrade_models}[part]()


def downgrade(part: str) -> None:
    {"service": _downgrade_service, "models": _downgrade_models}[part]()


def _upgrade_service() -> None:
    op.create_table(
        "chrononaut_access_token",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column("user_id", sa.String(254), nullable=False),
        sa.Column("grants", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("last_used_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
        if_not_exists=True,
    )
    op.create_table(
        "chrononaut_login",
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("grants", sa.Text, nullable=False),
        sa.Column("session_id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("email"),
        sa.UniqueConstraint("session_id"),
        if_not_exists=True,
    )


def _downgrade_service() -> None:
    op.drop_table("chrononaut_login")
    op.drop_table("chrononaut_access_token")


def _upgrade_models() -> None:
    op.create_table(
        "appuser",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("password_hash", sa.String(200)),
        sa.Column("last_seen_at", sa.DateTime(timezone=True)),
        _version(),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("email"),
        if_not_exists=True,
    )
    _create_history(
        "appuser",
        [sa.Column("id", sa.Integer, autoincrement=False, nullable=False)],
        [sa.Column("email", sa.String(254)), sa.Column("name", sa.String(200)), sa.Column("active", sa.Boolean)],
    )
    op.create_table(
        "release",
        *_key_of_release(),
        *_state_of_release(),
        _version(),
        sa.PrimaryKeyConstraint("product", "cycle"),
        if_not_exists=True,
    )
    _create_history("release", _key_of_release(), _state_of_release())


def _downgrade_models() -> None:
    for table in ("release", "appuser"):
        op.drop_table(f"{table}_history")
        op.drop_table(table)


def _key_of_release() -> list[_Column]:
    return [sa.Column("product", sa.String(80), nullable=False), sa.Column("cycle", sa.String(120), nullable=False)]


def _state_of_release() -> list[_Column]:
    return [
        sa.Column("released_on", sa.String(40)),
        sa.Column("end_of_life", sa.String(40)),
        sa.Column("active_support", sa.String(40)),
        sa.Column("extended_support", sa.String(40)),
        sa.Column("lts", sa.String(40)),
        sa.Column("latest", sa.String(80)),
        sa.Column("latest_released_on", sa.String(40)),
        sa.Column("codename", sa.String(120)),
        sa.Column("label", sa.String(120)),
        sa.Column("link", sa.String(400)),
        sa.Column("discontinued", sa.String(40)),
    ]


def _version() -> _Column:
    return sa.Column("version", sa.Integer, server_default="0", nullable=False)


def _create_history(table: str, key: list[_Column], state: list[_Column]) -> None:
    history, names = f"{table}_history", [column.name for column in key]
    op.create_table(
        history,
        *key,
        sa.Column("version", sa.Integer, autoincrement=False, nullable=False),
        *state,
        sa.Column("operation", sa.String(6), nullable=False),
        sa.Column("changed", sa.DateTime(timezone=True), nullable=False),
        sa.Column("change_info", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("transaction_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint(*names, "version"),
        if_not_exists=True,
    )
    for what, columns in (
        ("changed", [*names, "changed", "version"]),
        ("feed", ["changed", *names, "version"]),
        ("transaction", ["transaction_id"]),
    ):
        op.create_index(f"ix_{history}_{what}", history, columns, if_not_exists=True)

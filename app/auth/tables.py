"""The tables that say who may use the service.

They are no models: no route of ``/records`` or ``/history`` serves them, so that somebody who may write records can
never raise their own rights.
"""

import sqlalchemy as sa

from chrononaut.types import Instant

LONGEST_USER = 254
"""Characters of whom a change is recorded as: those that an e-mail address can have (RFC 5321)."""
LONGEST_NAME = 200

metadata = sa.MetaData()

tokens = sa.Table(
    "chrononaut_access_token",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("name", sa.String(LONGEST_NAME)),
    sa.Column("user_id", sa.String(LONGEST_USER), nullable=False),
    sa.Column("grants", sa.Text, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant),
    sa.Column("last_used_at", Instant),
    sa.Column("revoked_at", Instant),
)

logins = sa.Table(
    "chrononaut_login",
    metadata,
    sa.Column("email", sa.String(LONGEST_USER), primary_key=True),
    sa.Column("password_hash", sa.String(255), nullable=False),
    sa.Column("grants", sa.Text, nullable=False),
    # What the cookies of its sessions name it by; a new one ends them all.
    sa.Column("session_id", sa.String(64), nullable=False, unique=True),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("disabled_at", Instant),
)

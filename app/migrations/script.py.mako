"""${message}"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade(part: str) -> None:
    {"service": _upgrade_service, "models": _upgrade_models}[part]()


def downgrade(part: str) -> None:
    {"service": _downgrade_service, "models": _downgrade_models}[part]()

% for part in ("service", "models"):

def _upgrade_${part}() -> None:
    ${context.get(f"{part}_upgrades", "pass")}


def _downgrade_${part}() -> None:
    ${context.get(f"{part}_downgrades", "pass")}

% endfor

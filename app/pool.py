"""Pools of connections to the database that know who had to wait."""

from threading import Lock
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import PoolProxiedConnection


class Pool(sa.QueuePool):
    """SQLAlchemy's pool, which also counts.

    :ivar waits: how often no connection was free
    :ivar timeouts: how often none became free in time
    """

    # The name of its logger: what it tells of connections is for who wants to hear SQLAlchemy's, not the service's.
    _sqla_logger_namespace = "sqlalchemy.pool.QueuePool"

    def __init__(self, creator: Any, pool_size: int = 5, max_overflow: int = 10, **options: Any) -> None:
        super().__init__(creator, pool_size, max_overflow, **options)
        self.most = pool_size + max_overflow
        """Connections that it has at the most."""
        self.waits = self.timeouts = 0
        self._counting = Lock()

    def connect(self) -> PoolProxiedConnection:
        if self.checkedout() >= self.most:
            with self._counting:
                self.waits += 1
        try:
            return super().connect()
        except sa.exc.TimeoutError:
            with self._counting:
                self.timeouts += 1
            raise

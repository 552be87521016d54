"""The connections to the database that the threads of a worker share."""

import gc
from collections.abc import Callable
from contextlib import ExitStack

import pytest
import sqlalchemy as sa
from flask import Flask

from app.connections import engine_options
from app.db import db
from app.settings import ServerSettings, Settings
from app.threads import SLOW_THREADS
from tests.service.api import assert_problem


@pytest.mark.parametrize("url", ["sqlite:////tmp/history.db", "postgresql+psycopg://user@host/database"])
@pytest.mark.parametrize("threads", [1, 12, 200])
def test_every_thread_of_a_worker_has_a_connection(url: str, threads: int) -> None:
    settings = Settings("0123456789abcdef", url, server=ServerSettings(threads=threads))
    assert engine_options(settings)["pool_size"] >= threads + SLOW_THREADS


def test_pool_is_as_large_as_it_is_set() -> None:
    settings = Settings("0123456789abcdef", "sqlite:////tmp/history.db", pool_size=3)
    assert engine_options(settings)["pool_size"] == 3


def test_database_in_memory_has_no_pool_to_be_sized() -> None:
    assert "pool_size" not in engine_options(Settings("0123456789abcdef", "sqlite://"))


def test_request_without_a_connection_is_told_to_come_again(app_with: Callable[..., Flask], read_token: str) -> None:
    app = app_with(CHRONONAUT_POOL_SIZE="2", CHRONONAUT_POOL_TIMEOUT="1")
    with app.app_context(), ExitStack() as held:
        pool = db.engine.pool
        assert isinstance(pool, sa.QueuePool)
        assert pool.timeout() == 1
        for _ in range(2):
            held.enter_context(db.engine.connect())
        response = app.test_client().get("/records/user", headers={"Authorization": f"Bearer {read_token}"})
        assert_problem(response, 503, "unavailable")
        assert response.headers["Retry-After"] == "1"


def test_connection_is_given_back_with_the_answer(app_with: Callable[..., Flask], read_token: str) -> None:
    app = app_with()
    with app.app_context():
        pool = db.engine.pool
    assert isinstance(pool, sa.QueuePool)
    bearer = {"Authorization": f"Bearer {read_token}"}
    gc.disable()
    try:
        for path in (
            "/history/user/1",
            "/history/user/1/diff?from=0",
            "/records/user/1",
            "/records/user",
            "/history/user",
        ):
            app.test_client().get(path, headers=bearer)
            assert pool.checkedout() == 0, path
    finally:
        gc.enable()

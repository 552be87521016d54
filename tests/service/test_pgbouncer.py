"""The service through PgBouncer, which lends a connection of the server for one transaction, then to somebody else."""

import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy as sa
from flask import Flask

from app.db import db
from tests.service.api import Api, assert_problem
from tests.service.serving import running

pytestmark = [pytest.mark.pgbouncer, pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)]

_POOLING = {"CHRONONAUT_TRANSACTION_POOLING": "true"}
_SERVER_CONNECTIONS = 2
_CONFIGURATION = """
[databases]
* = host={host}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = {connections}
"""


@pytest.fixture
def pooled_url(database_url: str) -> Iterator[str]:
    """The URL of the database by a PgBouncer that has fewer connections than the service."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "there is no pgbouncer; install it (on Debian: apt-get install pgbouncer)"
    url = sa.make_url(database_url)
    host = Path(str(url.query["host"]))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    with TemporaryDirectory(prefix="pgbouncer") as name:
        folder = Path(name)
        users, configuration = folder / "users.txt", folder / "pgbouncer.ini"
        users.write_text(f'"{url.username}" ""\n')
        configuration.write_text(
            _CONFIGURATION.format(host=host, port=port, users=users, connections=_SERVER_CONNECTIONS)
        )
        command = [program, str(configuration)]
        if os.geteuid() == 0:
            # It does not run as root, nor does PostgreSQL.
            user = (host / ".s.PGSQL.5432").owner()
            for path in (users, configuration, folder):
                shutil.chown(path, user)
            command[1:1] = ["-u", user]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_for(port, process)
            yield url.set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)
        finally:
            process.terminate()
            process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("pgbouncer does not listen")


@pytest.fixture
def pooled_api(app_with: Callable[..., Flask], pooled_url: str, write_token: str) -> Api:
    app = app_with(DATABASE_URL=pooled_url, CHRONONAUT_LOCK_TIMEOUT="1", **_POOLING)
    return Api(app.test_client(), write_token)


def test_writers_of_several_workers_lose_and_double_nothing(
    app: Flask, pooled_url: str, write_token: str, tmp_path: Path
) -> None:
    with running(pooled_url, write_token, tmp_path / "gunicorn.log", settings=_POOLING) as server:
        paths = [server.call("POST", "/records/user", {"email": email})[1]["links"]["record"] for email in "abc"]

        def write(number: int) -> int:
            path = paths[number % 3]
            if number % 2:
                return server.call("GET", f"{path.replace('records', 'history')}?limit=10")[0]
            return server.call("PATCH", path, {"name": f"name {number}"}, **{"X-Change-Rationale": str(number)})[0]

        # More often than psycopg by itself waits before it prepares a statement.
        with ThreadPoolExecutor(8) as threads:
            assert Counter(threads.map(write, range(400))) == {200: 400}
        reasons: list[str] = []
        for path in paths:
            page = server.call("GET", f"{path.replace('records', 'history')}?limit=500")[1]
            assert [row["version"] for row in page["versions"]] == list(range(page["current"]["version"]))
            reasons += [row["change_info"]["extra"]["change_rationale"] for row in page["versions"]]
        assert sorted(map(int, reasons)) == list(range(0, 400, 2))


def test_limits_hold_in_each_transaction_and_are_nobody_elses(app: Flask, pooled_url: str, pooled_api: Api) -> None:
    record = pooled_api.post("/records/user", {"email": "a@example.com"})["links"]["record"]
    with app.app_context(), db.engine.connect() as blocking:
        blocking.exec_driver_sql("SELECT * FROM appuser FOR UPDATE")
        response = pooled_api.call("PATCH", record, {"name": "a"})
    assert_problem(response, 503, "unavailable")
    assert pooled_api.patch(record, {"name": "b"})["version"] == 1
    pooled_api.get(record)
    engine = sa.create_engine(pooled_url, poolclass=sa.NullPool)
    names = ("statement_timeout", "lock_timeout", "transaction_isolation", "transaction_read_only")
    # In all connections of the server, which are held at once.
    held = [engine.connect() for _ in range(_SERVER_CONNECTIONS)]
    try:
        for connection in held:
            shown = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]
            assert shown == ["0", "0", "read committed", "off"]
            assert connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar() == 0
    finally:
        for connection in held:
            connection.close()


def test_requests_that_read_have_one_snapshot(pooled_api: Api) -> None:
    shown = []
    with pooled_api.client.application.app_context():
        engine = db.engine

    def before(connection: sa.Connection, *_: object) -> None:
        if connection.get_execution_options().get("isolation_level") == "REPEATABLE READ":
            shown.append(connection.exec_driver_sql("SHOW transaction_isolation").scalar())

    sa.event.listen(engine, "before_execute", before)
    try:
        pooled_api.get("/records/user")
        pooled_api.get("/history/user")
    finally:
        sa.event.remove(engine, "before_execute", before)
    assert set(shown) == {"repeatable read"}


def test_history_is_verified_through_it(pooled_api: Api) -> None:
    record = pooled_api.post("/records/user", {"email": "a@example.com"})["links"]["record"]
    pooled_api.patch(record, {"name": "a"})
    verified = pooled_api.client.application.test_cli_runner().invoke(args=["history", "verify"])
    assert verified.exit_code == 0, verified.output


def test_without_the_setting_it_is_refused(app_with: Callable[..., Flask], pooled_url: str, write_token: str) -> None:
    """The limits are told when a connection begins, which PgBouncer does not take."""
    api = Api(app_with(DATABASE_URL=pooled_url).test_client(), write_token)
    assert_problem(api.call("GET", "/records/user"), 503, "unavailable")

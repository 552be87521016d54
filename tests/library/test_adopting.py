"""What docs/adopting.md says is true: its migration, run on tables that hold rows, and what history says of them."""

import ast
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations

from tests.library.conftest import opened, prepare_sqlite, recorded
from tests.library.rows import changes, history_rows

_GUIDE = (Path(__file__).parents[2] / "docs" / "adopting.md").read_text()
(_MODEL,) = re.findall(r"```diff models.py\n(.*?)```", _GUIDE, re.DOTALL)
(_MIGRATION,) = re.findall(r"```python migrations\S+\n(.*?)```", _GUIDE, re.DOTALL)

_FILL = """
    WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < :rows)
    INSERT INTO customer (email, name, password_hash, last_seen_at)
    SELECT 'customer' || number || '@example.com', 'Customer ' || number, 'x', NULL FROM numbers
"""
_ROWS = "SELECT id, email, name, password_hash, last_seen_at FROM customer ORDER BY id"
_STORAGE = {
    "postgresql": "SELECT pg_relation_filenode('customer'), pg_relation_size('customer')",
    "sqlite": "SELECT rootpage FROM sqlite_schema WHERE name = 'customer'",
}
_LOCKS = "SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'customer'::regclass"
_MISSING = "SELECT atthasmissing, attmissingval::text FROM pg_attribute WHERE attname = 'version' AND attrelid = 'customer'::regclass"  # noqa: E501

Names = dict[str, Any]


def _names(source: str) -> Names:
    names: Names = {"__name__": "adopting"}
    exec(compile(source, "adopting.md", "exec"), names)
    return names


def _application(without: str) -> Names:
    """The models of the guide, as they are before (without its lines ``+``) or after it (without ``-``)."""
    return _names("".join(line[1:] for line in _MODEL.splitlines(keepends=True) if line[0] != without))


@pytest.fixture(params=[10_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def engine(request: pytest.FixtureRequest, database_url: str) -> Iterator[sa.Engine]:
    """A database with the table as it is before, filled."""
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    prepare_sqlite(engine)
    with engine.begin() as connection:
        before().metadata.create_all(connection)
        connection.execute(sa.text(_FILL), {"rows": request.param})
    yield engine
    engine.dispose()


def before() -> Any:
    """The ``SQLAlchemy`` of an application that does not know of versions."""
    return _application(without="+")["db"]


def after() -> Any:
    """The ``VersionedSQLAlchemy`` of the same application."""
    return _application(without="-")["db"]


def migrate(engine: sa.Engine, step: str, source: str = _MIGRATION, then: Callable[..., None] | None = None) -> None:
    """Run the guide's migration in one transaction, as Alembic does.

    :param step: ``upgrade`` or ``downgrade``
    :param then: called with the connection before it commits
    """
    migration = _names(source)
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        migration[step]()
        if then is not None:
            then(connection)


def differences(engine: sa.Engine, database: Any) -> list[Any]:
    """What `alembic revision --autogenerate` would change."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return list(compare_metadata(context, database.metadata))


def digest(engine: sa.Engine) -> tuple[int, str]:
    """How many customers there are, and what they are."""
    count, sha = 0, hashlib.sha256()
    with engine.connect() as connection:
        for row in connection.execution_options(stream_results=True).exec_driver_sql(_ROWS):
            count += 1
            sha.update(repr(tuple(row)).encode())
    return count, sha.hexdigest()


def storage(engine: sa.Engine) -> Any:
    """Where the database keeps the table, and how large it is: another place if it is rewritten."""
    with engine.connect() as connection:
        return connection.exec_driver_sql(_STORAGE[engine.dialect.name]).one()


def test_migration_rewrites_no_row(engine: sa.Engine) -> None:
    rows, place = digest(engine), storage(engine)
    migrate(engine, "upgrade")
    assert storage(engine) == place
    assert digest(engine) == rows
    assert differences(engine, after()) == []
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT DISTINCT version FROM customer").scalars().all() == [0]
        if engine.dialect.name == "postgresql":
            # The server keeps the value beside the table, for the rows that lack it.
            assert connection.exec_driver_sql(_MISSING).one() == (True, "{0}")


def test_table_is_locked_by_the_last_statement_only(engine: sa.Engine) -> None:
    locks: list[str] = []

    def look(connection: sa.Connection) -> None:
        if engine.dialect.name == "postgresql":
            locks.extend(connection.exec_driver_sql(_LOCKS).scalars())

    with recorded(engine) as statements:
        migrate(engine, "upgrade", then=look)
    written = [statement for statement, _ in statements.executed if "pg_locks" not in statement]
    assert written[-1].startswith("ALTER TABLE customer ADD COLUMN version")
    assert not any(re.search(r"\bcustomer\b", statement) for statement in written[:-1])
    assert locks == (["AccessExclusiveLock"] if engine.dialect.name == "postgresql" else [])


# SQLite has no locks on tables.
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_migration_of_a_table_in_use_gives_up_soon_and_can_be_repeated(engine: sa.Engine) -> None:
    soon = _MIGRATION.replace("'2s'", "'20ms'")
    assert soon != _MIGRATION
    with engine.connect() as reader:
        reader.exec_driver_sql("SELECT 1 FROM customer LIMIT 1")
        with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
            migrate(engine, "upgrade", soon)
    assert differences(engine, before()) == []
    migrate(engine, "upgrade", soon)
    assert differences(engine, after()) == []


def test_records_from_before_get_history_from_their_first_change_on(engine: sa.Engine, database_url: str) -> None:
    migrate(engine, "upgrade")
    application = _application(without="-")
    db, customer = application["db"], application["Customer"]
    with opened(db, database_url):
        first, second = db.session.get_one(customer, 1), db.session.get_one(customer, 2)
        assert first.versions() == first.changes() == []
        first.name, first.password_hash = "Ada", "y"
        db.session.delete(second)
        new = customer(email="new@example.com")
        db.session.add(new)
        db.session.commit()
        rows = history_rows(db.session, "customer_history")
        assert changes([row for row in rows if row["id"] == 1]) == [(0, "update")]
        assert changes([row for row in rows if row["id"] == 2]) == [(0, "delete")]
        assert changes([row for row in rows if row["id"] == new.id]) == [(-1, "insert")]
        assert len(rows) == 3
        (version,) = first.versions()
        assert (version.version, version.name, version.valid_from) == (0, "Customer 1", None)
        assert version.change_info["hidden_cols_changed"] == ["password_hash"]
        assert (first.version, new.version) == (1, 0)


def test_application_of_before_runs_on_the_migrated_table(engine: sa.Engine, database_url: str) -> None:
    migrate(engine, "upgrade")
    old, new = _application(without="+"), _application(without="-")
    with opened(old["db"], database_url):
        session = old["db"].session
        session.get_one(old["Customer"], 1).name = "unseen"
        session.delete(session.get_one(old["Customer"], 2))
        session.add(old["Customer"](email="old@example.com"))
        session.commit()
    with opened(new["db"], database_url):
        session = new["db"].session
        assert history_rows(session, "customer_history") == []
        for customer in session.scalars(
            sa.select(new["Customer"]).where(new["Customer"].email.in_(["customer1@example.com", "old@example.com"]))
        ):
            assert customer.version == 0
            customer.name = "seen"
        session.commit()
        rows = history_rows(session, "customer_history")
        # What history holds is what the table held.
        assert [(row["version"], row["operation"], row["name"]) for row in rows] == [
            (0, "update", "unseen"),
            (0, "update", None),
        ]


def test_downgrade_gives_back_what_was(engine: sa.Engine, database_url: str) -> None:
    migrate(engine, "upgrade")
    application = _application(without="-")
    with opened(application["db"], database_url):
        session = application["db"].session
        session.get_one(application["Customer"], 1).name = "Ada"
        session.commit()
    rows, place = digest(engine), storage(engine)
    migrate(engine, "downgrade")
    assert digest(engine) == rows
    assert storage(engine) == place
    assert differences(engine, before()) == []
    migrate(engine, "upgrade")
    assert differences(engine, after()) == []


def test_autogenerate_sees_the_same(engine: sa.Engine) -> None:
    found = differences(engine, after())
    assert [operation for operation, *_ in found] == ["add_table", *["add_index"] * 3, "add_column"]


def test_autogenerate_writes_a_migration_that_runs(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        found = produce_migrations(MigrationContext.configure(connection), after().metadata).upgrade_ops
    assert found is not None
    ast.parse(f"def upgrade():\n    {render_python_code(found)}")

"""What docs/comparison.md says that tools do, they do, and what it says that they do not, they do not.

Its table is compared with what is seen: a claim is a function that tries it on a tool. All run on one PostgreSQL.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.comparison import Tool

_PAGE = (Path(__file__).parents[1] / "docs" / "comparison.md").read_text()

_TOOLS = ["Chrononaut", "Continuum", "SimpleHistory", "PgHistory"]

pytestmark = [
    pytest.mark.comparison,
    # What SQLAlchemy says of Continuum's savepoints; their changes are undone nevertheless.
    pytest.mark.filterwarnings("ignore:nested transaction already deassociated:sqlalchemy.exc.SAWarning"),
]


def _keeps_a_change_of_an_object(tool: Tool) -> bool:
    tool.insert(1, "Byzantium")
    tool.rename([1], "Constantinople")
    return "Byzantium" in tool.kept()


def _keeps_a_bulk_insert(tool: Tool) -> bool:
    tool.bulk_insert({1: "Byzantium", 2: "Lutetia"})
    return len(tool.kept()) == 2


def _keeps_a_bulk_update(tool: Tool) -> bool:
    tool.insert(1, "Byzantium")
    before = len(tool.kept())
    tool.bulk_rename("Constantinople")
    return len(tool.kept()) > before


def _keeps_a_bulk_delete(tool: Tool) -> bool:
    tool.insert(1, "Byzantium")
    before = len(tool.kept())
    tool.bulk_delete()
    return len(tool.kept()) > before


def _keeps_what_text_sql_changes(tool: Tool) -> bool:
    tool.insert(1, "Byzantium")
    before = len(tool.kept())
    tool.execute(f"UPDATE {tool.table} SET name = 'Constantinople'")
    return len(tool.kept()) > before


def _leaves_nothing_where_nothing_changes(tool: Tool) -> bool:
    tool.insert(1, "Byzantium")
    before = len(tool.kept())
    tool.rename([1], "Byzantium")
    return len(tool.kept()) == before


def _leaves_nothing_of_a_savepoint_that_is_rolled_back(tool: Tool) -> bool:
    tool.insert(1, "Byzantium")
    before = len(tool.kept())
    tool.undo_rename(1, "Constantinople")
    assert tool.now(1) == "Byzantium"
    return len(tool.kept()) == before


def _keeps_what_was_there_before_history_was(tool: Tool) -> bool:
    tool.past_it(f"INSERT INTO {tool.table} (id, name) VALUES (1, 'Byzantium')")
    tool.rename([1], "Constantinople")
    return "Byzantium" in tool.kept()


def _gives_one_instant_to_one_transaction(tool: Tool) -> bool:
    tool.insert(1, "Byzantium")
    tool.insert(2, "Lutetia")
    before = len(tool.times())
    tool.rename([1, 2], "Paris", between=lambda: time.sleep(0.01))
    after = tool.times()[before:]
    assert len(after) == 2
    return len({*after}) == 1


def _refuses_to_overwrite_what_another_has_changed(tool: Tool) -> bool:
    tool.insert(1, "Byzantium")

    def interfere() -> None:
        # As another process of the same application would, whose history the trigger or the library writes.
        version = ", version = version + 1" if "version" in _columns(tool) else ""
        tool.past_it(f"UPDATE {tool.table} SET name = 'Nova Roma'{version}")

    with suppress(*tool.refusals):
        tool.rename([1], "Constantinople", between=interfere)
    return tool.now(1) == "Nova Roma"


def _refuses_to_alter_history(tool: Tool) -> bool:
    tool.insert(1, "Byzantium")
    tool.rename([1], "Constantinople")
    with suppress(*tool.refusals):
        tool.alter_history("Nova Roma")
    return "Nova Roma" not in tool.kept()


def _columns(tool: Tool) -> set[str]:
    return {column["name"] for column in sa.inspect(tool.engine).get_columns(tool.table)}


_CLAIMS: dict[str, Callable[[Tool], bool]] = {
    "the change of an object is kept": _keeps_a_change_of_an_object,
    "so is what the ORM inserts in bulk": _keeps_a_bulk_insert,
    "what it updates in bulk": _keeps_a_bulk_update,
    "what it deletes in bulk": _keeps_a_bulk_delete,
    "what text SQL and other programs change": _keeps_what_text_sql_changes,
    "the state from before there was history, once it is changed": _keeps_what_was_there_before_history_was,
    "a write that changes nothing leaves nothing": _leaves_nothing_where_nothing_changes,
    "nor does a savepoint that is rolled back": _leaves_nothing_of_a_savepoint_that_is_rolled_back,
    "all changes of one transaction have one instant": _gives_one_instant_to_one_transaction,
    "a change of what somebody else has changed meanwhile is refused": _refuses_to_overwrite_what_another_has_changed,
    "history cannot be altered through the ORM": _refuses_to_alter_history,
}


def _table() -> dict[str, list[str]]:
    """What the page says: claim → ``yes`` or ``no`` of each tool."""
    text = _PAGE.partition("| claim | ")[2].partition("\n\n")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines()[2:]]
    return {claim.strip(): [cell.strip() for cell in cells] for claim, *cells in rows}


@pytest.fixture(scope="session")
def engine(postgres_url: str) -> Iterator[sa.Engine]:
    from tests.comparison import django_tools  # noqa: PLC0415

    url = sa.make_url(postgres_url)
    django_tools.set_up(url)
    django_tools.make_tables()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    yield engine
    engine.dispose()


@pytest.fixture(params=_TOOLS)
def tool(request: pytest.FixtureRequest, engine: sa.Engine) -> Iterator[Tool]:
    from tests.comparison import django_tools, sqlalchemy_tools  # noqa: PLC0415

    kind = getattr(sqlalchemy_tools, request.param, None) or getattr(django_tools, request.param)
    tool: Tool = kind(engine)
    tool.past_it(f"DELETE FROM {tool.table}")
    tool.past_it(f"DELETE FROM {tool.history}")
    yield tool
    tool.end()


@pytest.mark.parametrize("claim", _CLAIMS)
def test_claim_is_as_the_page_says(claim: str, tool: Tool) -> None:
    assert ("yes" if _CLAIMS[claim](tool) else "no") == _table()[claim][_TOOLS.index(type(tool).__name__)]


@pytest.mark.parametrize("tool", ["StrictPgHistory"], indirect=True)
@pytest.mark.parametrize(
    "holds",
    [_keeps_a_bulk_delete, _keeps_what_was_there_before_history_was, _refuses_to_alter_history],
)
def test_options_of_pghistory_change_what_the_page_says_they_do(holds: Callable[[Tool], bool], tool: Tool) -> None:
    assert holds(tool)


def test_every_claim_of_the_table_is_tried() -> None:
    assert list(_table()) == list(_CLAIMS)


def test_tools_are_of_the_releases_that_the_page_names() -> None:
    for tool in ("SQLAlchemy-Continuum", "django-simple-history", "django-pghistory"):
        assert f"{tool} {version(tool)}" in " ".join(_PAGE.split())


@pytest.mark.parametrize("module", ["simple_history.admin", "pghistory.admin"])
def test_history_is_browsed_in_the_admin_of_django(module: str) -> None:
    assert find_spec(module) is not None


def test_postgresql_has_no_system_versioned_tables(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        supported = connection.exec_driver_sql(
            "SELECT is_supported FROM information_schema.sql_features WHERE feature_id = 'T180'"
        ).scalar_one()
    assert supported == "NO"

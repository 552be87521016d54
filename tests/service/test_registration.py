"""Models whose names cannot be had are refused when the service starts, and nothing is renamed silently."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app import create_app
from app.registry import RegistrationError
from tests.service.conftest import SECRET_KEY

_ROOT = Path(__file__).parents[2]
_MODELS = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chrononaut import Versioned, VersionedSQLAlchemy


class Base(DeclarativeBase):
    pass


db = VersionedSQLAlchemy(model_class=Base)
"""
_MODEL = """

class {name}(db.Model, Versioned):
    {option}
    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str | None]
"""


@pytest.fixture
def settings_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a module of models, and says how it is served.

    It takes class name → public name; ``None`` for the one that the class gives.
    """

    def write(models: dict[str, str | None], option: str = "") -> dict[str, str]:
        module = f"models_{tmp_path.name}"
        options = {name: f"__resource_name__ = {told!r}" if told else option for name, told in models.items()}
        text = "".join(_MODEL.format(name=name, option=option) for name, option in options.items())
        (tmp_path / f"{module}.py").write_text(_MODELS + text)
        monkeypatch.syspath_prepend(tmp_path)
        # The same names come again in another test, in a module of another name.
        return {
            "SECRET_KEY": SECRET_KEY,
            "DATABASE_URL": "sqlite://",
            "CHRONONAUT_MODELS": module,
            "CHRONONAUT_DB": f"{module}:db",
        }

    return write


def _names(app: Flask) -> tuple[list[str], set[str]]:
    """The operation ids and the names of the schemas of a service."""
    document: Any = app.test_client().get("/openapi.json").json
    items = document["paths"].values()
    ids = [told["operationId"] for item in items for method, told in item.items() if method != "parameters"]
    return ids, set(document["components"]["schemas"])


@pytest.mark.parametrize(
    ("models", "refused", "there_is"),
    [
        (["Transaction"], "transaction", "an operation get_transaction"),
        (["Order", "OrderVersion"], "order_version", "an operation get_order_version"),
        (["Session"], "session", "a group of operations session"),
        (["Service"], "service", "a group of operations service"),
        (["SwaggerUi"], "swagger_ui", "a group of operations swagger_ui"),
        (["Order", "Problem"], "problem", "a schema Problem"),
        (["BulkProblem"], "bulk_problem", "a schema BulkProblem"),
        (["Change"], "change", "a schema ChangeList"),
        (["Model"], "model", "a schema ModelList"),
        (["NewOrder", "Order"], "order", "a schema NewOrder"),
        (["Operation"], "operation", "a schema Operation"),
        (["Order", "OrderBulkItem"], "order_bulk_item", "a schema OrderBulkItem"),
        (["Order", "OrderState"], "order_state", "a schema OrderState"),
        (["OrderV2", "OrderV_2"], "order_v_2", "a schema OrderV2Versions"),
    ],
)
def test_model_whose_name_is_taken_is_refused(settings_of: Any, models: list[str], refused: str, there_is: str) -> None:
    with pytest.raises(RegistrationError) as raised:
        create_app(settings_of(dict.fromkeys(models)))
    assert str(raised.value) == (
        f"the model {refused} cannot have its name: there is {there_is} already; "
        "register it under another name by __resource_name__"
    )


def test_refused_models_are_served_under_other_names(settings_of: Any) -> None:
    models = {"Transaction": "payment", "Order": None, "OrderVersion": "order_draft", "Session": "visit"}
    models |= {"Problem": "trouble", "Change": "coin", "Model": "car", "NewOrder": "wish"}

    ids, schemas = _names(create_app(settings_of(models)))

    assert len(set(ids)) == len(ids)
    assert {"get_payment", "get_order", "get_order_draft", "get_visit", "get_wish"} <= set(ids)
    assert {"Payment", "NewPayment", "Order", "OrderDraft", "NewWish", "Problem", "Change"} <= schemas
    assert not {name for name in schemas if name[-1].isdigit()}


def test_names_do_not_depend_on_what_else_is_served(settings_of: Any, tmp_path: Path) -> None:
    alone = _names(create_app(settings_of({"Order": None})))
    (tmp_path / f"models_{tmp_path.name}.py").unlink()
    del sys.modules[f"models_{tmp_path.name}"]
    among_others = _names(create_app(settings_of({"Abacus": None, "Order": None, "OrderLine": None})))
    assert set(alone[0]) <= set(among_others[0])
    assert alone[1] <= among_others[1]


@pytest.mark.parametrize("name", ["Größe", "user-group", "User", "a/b", "user__group", "_user", "1user", "a" * 61])
def test_name_that_is_none_is_refused(settings_of: Any, name: str) -> None:
    with pytest.raises(RegistrationError, match="register it under another name by __resource_name__") as raised:
        create_app(settings_of({"Order": name}))
    assert f"Order would be served as {name!r}" in str(raised.value)


def test_class_whose_name_no_address_can_have_is_refused(settings_of: Any) -> None:
    with pytest.raises(RegistrationError, match="Größe would be served as 'größe'"):
        create_app(settings_of({"Größe": None}))


def _flask(settings: dict[str, str], path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "app", "openapi", "print"],
        cwd=_ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(path), **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def test_commands_say_in_one_line_what_is_wrong(settings_of: Any, tmp_path: Path) -> None:
    wrong_option = settings_of({"Order": None}, option='__chrononaut_hidden__ = ("nope",)')
    wrongs = {
        "Error: Order.__chrononaut_hidden__: no such columns: nope; there are id, label\n": wrong_option,
        "Error: SECRET_KEY must be a random text of at least 16 characters, not 1\n": wrong_option
        | {"SECRET_KEY": "a"},
    }
    for said, settings in wrongs.items():
        done = _flask(settings, tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
    done = _flask(settings_of({"Transaction": None}), tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the model transaction cannot have its name: ")
    assert done.stderr.count("\n") == 1

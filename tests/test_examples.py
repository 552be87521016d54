"""The examples, served without a change in the service: a shop on its database object, an application on its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import create_app
from app.auth.grants import Grants
from app.auth.tokens import create_token
from app.cli import create_tables
from examples.inventory import create_app as create_inventory
from examples.inventory.models import db as inventory_db
from tests.service.api import Api, assert_problem
from tests.service.conftest import SECRET_KEY
from tests.service.serving import Server, running

_ROOT = Path(__file__).parents[1]
_TICKET = {"X-Change-Ticket": "SHOP-7"}


def _flask(settings: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "app", *command],
        cwd=_ROOT,
        env={"PATH": os.environ["PATH"], **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def settings(database_url: str) -> dict[str, str]:
    """The service's settings for the shop, as an operator sets them."""
    return {"SECRET_KEY": SECRET_KEY, "DATABASE_URL": database_url, "CHRONONAUT_MODELS": "examples.shop"}


@pytest.fixture
def shop(settings: dict[str, str], tmp_path: Path) -> Iterator[Server]:
    """The service with the shop, as it is run."""
    # Its models are on the service's own database object, where all other tests would see them.
    _flask(settings, "create-tables")
    token = _flask(settings, "tokens", "create", "ada@example.com", "--scope", "write")
    with running(settings["DATABASE_URL"], token, tmp_path / "log", settings=settings) as server:
        yield server


def _succeed(server: Server, method: str, path: str, body: Any = None, **headers: str) -> Any:
    status, answer = server.call(method, path, body, **headers)
    assert status < 300, answer
    return answer


def test_shop_keeps_what_prices_and_orders_were(shop: Server, settings: dict[str, str]) -> None:
    tea = {"sku": "TEA-250", "name": "Green tea, 250 g", "price": "8.50", "purchase_price": "4.10"}
    status, refused = shop.call("POST", "/records/product", tea)
    assert (status, refused["type"]) == (400, "/problems/change-info-required")
    product = _succeed(shop, "POST", "/records/product", tea, **_TICKET)
    assert (product["key"], product["state"]["in_stock"]) == ("1", 0)
    for wrong, expected in ({"name": "the same sku"}, 409), ({"sku": "TEA-500", "price": "-1.00"}, 422):
        assert shop.call("POST", "/records/product", tea | wrong, **_TICKET)[0] == expected

    order = _succeed(shop, "POST", "/records/order", {"customer": "bob@example.com"})
    assert order["state"]["status"] == "OPEN"
    line = {"order_id": 1, "product_id": 1, "quantity": 2, "unit_price": "8.50"}
    lines = [{"operation": "create", "record": line | {"position": position}} for position in (1, 2)]
    without_product = {"operation": "create", "record": line | {"position": 3, "product_id": 9}}
    status, problem = shop.call("POST", "/bulk/order_line", {"items": [*lines, without_product]})
    assert (status, problem["type"]) == (409, "/problems/bulk-failed")
    _succeed(shop, "POST", "/bulk/order_line", {"items": lines})
    assert [line["key"] for line in _succeed(shop, "GET", "/records/order_line")["records"]] == ["1,1", "1,2"]

    dearer = {"price": "9.20", "purchase_price": "4.70"}
    assert shop.call("PATCH", "/records/product/1", dearer)[0] == 400
    _succeed(shop, "PATCH", "/records/product/1", dearer, **_TICKET)
    assert _succeed(shop, "PATCH", "/records/product/1", {"in_stock": 40}, **_TICKET)["version"] == 1
    page = _succeed(shop, "GET", "/history/product/1")
    (before,) = page["versions"]
    assert before["change_info"]["extra"] == {"change_ticket": "SHOP-7"}
    assert before["change_info"]["hidden_cols_changed"] == ["purchase_price"]
    assert before["state"] == {"id": 1, "sku": "TEA-250", "name": "Green tea, 250 g", "price": "8.50"}
    assert "4.10" not in str(page)
    assert "4.70" not in str(page)

    assert shop.call("DELETE", "/records/order/1", None)[0] == 204
    deletion = _succeed(shop, "GET", "/history/order?operation=delete")["changes"][0]["transaction_id"]
    together = _succeed(shop, "GET", f"/transactions/{deletion}")["changes"]
    assert [(change["model"], change["key"]) for change in together] == [
        ("order", "1"),
        ("order_line", "1,1"),
        ("order_line", "1,2"),
    ]
    _succeed(shop, "POST", "/records/order/1/restore", {})
    _succeed(shop, "POST", "/records/order_line/1,2/restore", {})
    restored = _succeed(shop, "GET", "/records/order_line/1,2")
    assert (restored["version"], restored["state"]["unit_price"]) == (2, "8.50")
    _succeed(shop, "POST", "/records/product/1/restore", {"version": 0}, **_TICKET)
    assert _succeed(shop, "GET", "/records/product/1")["state"]["price"] == "8.50"
    assert "no differences" in _flask(settings, "history", "verify")


def test_application_and_service_write_one_history(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    database = {"DATABASE_URL": database_url, "CHRONONAUT_DB": "examples.inventory.models:db"}
    service = create_app({"SECRET_KEY": SECRET_KEY, "CHRONONAUT_MODELS": "examples.inventory.models", **database})
    application = create_inventory()
    run = application.test_cli_runner().invoke
    with service.app_context():
        create_tables(inventory_db)
        token = create_token(inventory_db, "ada@example.com", Grants.parse(["write"]))
    api = Api(service.test_client(), token)
    run(args=["add", "Boards & Co", "OAK-20=14.50"], catch_exceptions=False)
    api.patch("/records/item/1", {"price": "15.90", "status": "ON_SALE"}, why="Oak has become dearer")
    run(args=["set-price", "OAK-20", "16.90", "--reason", "And dearer"], catch_exceptions=False)
    assert_problem(api.call("PATCH", "/records/item/1", {"price": "1.00"}), 400, "change-info-required")
    assert [
        (change["operation"], change["change_info"]["user_id"], change["change_info"]["extra"]["change_rationale"])
        for change in api.get("/history/item/1/changes")["changes"]
    ] == [
        ("insert", None, "Added"),
        ("update", "ada@example.com", "Oak has become dearer"),
        ("update", None, "And dearer"),
    ]
    assert api.get("/records/item/1")["state"]["price"] == "16.90"
    # A model of the application without the mixin is not served.
    assert_problem(api.call("GET", "/records/supplier/1"), 404, "unknown-model")
    for app in (service, application):
        with app.app_context():
            inventory_db.engine.dispose()

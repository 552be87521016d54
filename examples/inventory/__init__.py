"""The inventory of a warehouse: an application of Flask-SQLAlchemy."""

import os
from decimal import Decimal

import click
import sqlalchemy as sa
from flask import Flask
from flask_migrate import Migrate

from chrononaut import extra_change_info
from chrononaut.migrations import autogenerate_options

from .models import Item, Supplier, db


def create_app() -> Flask:
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
    db.init_app(app)
    Migrate(app, db, **autogenerate_options(db.metadata))

    @app.cli.command("add")
    @click.argument("supplier")
    @click.argument("items", nargs=-1, metavar="SKU=PRICE...")
    def add(supplier: str, items: tuple[str, ...]) -> None:
        """Add a supplier and its items."""
        pairs = (item.split("=") for item in items)
        with extra_change_info(change_rationale="Added"):
            db.session.add(Supplier(name=supplier, items=[Item(sku=sku, price=Decimal(price)) for sku, price in pairs]))
            db.session.commit()

    @app.cli.command("set-price")
    @click.argument("sku")
    @click.argument("price", type=Decimal)
    @click.option("--reason", required=True)
    def set_price(sku: str, price: Decimal, reason: str) -> None:
        """Change the price of an item."""
        with extra_change_info(change_rationale=reason):
            db.session.scalars(sa.select(Item).filter_by(sku=sku)).one().price = price
            db.session.commit()

    return app

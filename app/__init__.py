"""The service: version history over HTTP."""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from flask import Flask

from app.api import Api, Blueprint
from app.auth.authentication import init_authentication
from app.auth.sessions import add_session
from app.cli import register_commands
from app.db import engine_options, prepare_engine
from app.document import key_parameter
from app.history.changes import add_changes, add_transactions
from app.history.examples import Examples
from app.history.routes import add_history, add_list_of_models
from app.history.timemap import add_timemap
from app.problems import register_problems
from app.records.routes import add_records
from app.registry import Registry
from app.settings import Settings

_LONGEST_BODY = 1024 * 1024


def create_app(environment: Mapping[str, str] = os.environ) -> Flask:
    """The service as a WSGI application.

    :param environment: where `Settings` are read from
    :raises SettingError: a setting is missing, unknown or wrong
    :raises RegistrationError: a model cannot be served
    """
    settings = Settings.from_environment(environment)
    app = Flask(__name__, static_folder=None)
    app.config.update(
        SECRET_KEY=settings.secret_key,
        MAX_CONTENT_LENGTH=_LONGEST_BODY,
        OPEN_READING=settings.open_reading,
        SQLALCHEMY_DATABASE_URI=settings.database_url,
        SQLALCHEMY_ENGINE_OPTIONS=engine_options(settings.database_url),
    )
    app.json.sort_keys = app.json.ensure_ascii = False  # type: ignore[attr-defined]  # of Flask's default provider
    module, _, name = settings.db.partition(":")
    db: Any = getattr(import_module(module), name)
    for module in settings.models:
        import_module(module)
    db.init_app(app)
    with app.app_context():
        for engine in db.engines.values():
            prepare_engine(engine)
    registry: Registry = Registry(db)
    app.extensions["chrononaut"] = registry
    register_problems(app)
    init_authentication(app, db, settings)
    register_commands(app, db)
    api = Api(app, settings)
    models = Blueprint("service", __name__, description="What is served")
    add_list_of_models(models, registry)
    add_transactions(models, registry)
    api.register_blueprint(models)
    login = Blueprint("session", __name__, description="A browser's login")
    add_session(login, db)
    api.register_blueprint(login)
    for resource in registry.values():
        key = key_parameter(resource, Examples(resource).key_text)
        blueprint = Blueprint(resource.name, __name__, model=resource.name, key=key, description=resource.description)
        add_history(blueprint, resource)
        add_changes(blueprint, resource)
        add_timemap(blueprint, resource)
        add_records(blueprint, resource)
        api.register_blueprint(blueprint)
    return app

"""The service: version history over HTTP."""

import os
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import Final

import click
from flask import Flask

from app.api import Api, Blueprint
from app.auth.authentication import init_authentication
from app.auth.identity import Provider
from app.auth.sessions import add_session
from app.bounds import LONGEST_BODY
from app.cli import register_commands
from app.compression import init_compression
from app.connections import bound_waits, engine_options
from app.cors import init_cors
from app.db import close_snapshot, prepare_engine
from app.document import key_parameter
from app.facts import init_facts
from app.health import add_health
from app.history.changes import add_changes, add_transactions
from app.history.erasing import add_erasing
from app.history.examples import Examples
from app.history.routes import add_history, add_list_of_models
from app.history.timemap import add_timemap
from app.limits import init_limits
from app.logs import init_logs
from app.methods import init_methods
from app.migrations import init_migrations
from app.problem_kinds import add_problem_kinds
from app.problems import register_problems
from app.proxies import TrustedProxies
from app.records.bulk import add_bulk
from app.records.routes import add_records
from app.registry import RegistrationError, Registry, Resource
from app.request_id import init_request_ids
from app.settings import SettingError, Settings
from app.telemetry import init_telemetry
from chrononaut import OptionError, Retention, VersionedSQLAlchemy
from chrononaut.policies import SETTING, policies

UNSTARTABLE: Final = (SettingError, OptionError, RegistrationError)
"""Errors of settings and models, which the service cannot start with; the message says all that mends them."""


def create_app(environment: Mapping[str, str] = os.environ) -> Flask:
    """The service as a WSGI application.

    :param environment: where `Settings` are read from
    :raises SettingError: a setting is missing, unknown or wrong
    :raises OptionError: the options of a model are wrong
    :raises RegistrationError: a model cannot be served
    :raises ClickException: one of these, in a command of ``flask``, which prints the message alone
    """
    try:
        return _create_app(environment)
    except UNSTARTABLE as error:
        if click.get_current_context(silent=True) is None:
            raise
        raise click.ClickException(str(error)) from error


def _create_app(environment: Mapping[str, str]) -> Flask:
    settings = Settings.from_environment(environment)
    if click.get_current_context(silent=True) is not None:
        # A command may take as long as it takes.
        settings = replace(settings, statement_timeout=0, lock_timeout=0)
    init_logs()
    app = Flask(__name__, static_folder=None)
    app.wsgi_app = TrustedProxies(app.wsgi_app, settings.trusted_proxies)  # type: ignore[method-assign]  # as Flask wants it
    app.config.update(
        SECRET_KEY=settings.secret_key,
        MAX_CONTENT_LENGTH=LONGEST_BODY,
        OPEN_READING=settings.open_reading,
        SQLALCHEMY_DATABASE_URI=settings.database_url,
        SQLALCHEMY_ENGINE_OPTIONS=engine_options(settings),
    )
    app.json.sort_keys = app.json.ensure_ascii = False  # type: ignore[attr-defined]  # of Flask's default provider
    db = _database(settings.db)
    for module in settings.models:
        _imported(module, "CHRONONAUT_MODELS")
    db.init_app(app)
    with app.app_context():
        for engine in db.engines.values():
            prepare_engine(engine)
            bound_waits(engine, settings)
    app.teardown_appcontext(close_snapshot)
    registry = _registry(db, settings)
    app.extensions["chrononaut"] = registry
    app.config[SETTING] = _policies(registry, settings)
    # What it imports decides then whether it counts for this process or for all workers of the server that it is in.
    metrics = import_module("app.metrics")
    metrics.init_metrics(app, db, are_open=settings.open_metrics)
    init_facts(app)
    init_telemetry(app, db, environment)
    init_request_ids(app)
    register_problems(app)
    init_compression(app)
    init_cors(app, settings.cors_origins)
    init_methods(app)
    init_authentication(app, db, settings, Provider.of(settings.provider) if settings.provider else None)
    limiter = init_limits(app, settings)
    register_commands(app, db)
    init_migrations(app, db, registry)
    api = Api(app, settings)
    models = Blueprint("service", __name__, description="What is served")
    add_list_of_models(models, registry)
    add_transactions(models, registry)
    add_problem_kinds(models)
    add_health(models, db, registry, limiter)
    api.register_blueprint(models)
    login = Blueprint("session", __name__, description="A browser's login")
    add_session(login, db, limiter)
    api.register_blueprint(login)
    for resource in registry.values():
        api.register_blueprint(_operations_of(resource))
    return app


def _operations_of(resource: Resource) -> Blueprint:
    key = key_parameter(resource, Examples(resource).key_text)
    blueprint = Blueprint(resource.name, __name__, resource=resource, key=key, description=resource.description)
    add_history(blueprint, resource)
    add_changes(blueprint, resource)
    add_timemap(blueprint, resource)
    add_erasing(blueprint, resource)
    add_records(blueprint, resource)
    add_bulk(blueprint, resource)
    return blueprint


def _registry(db: VersionedSQLAlchemy, settings: Settings) -> Registry:
    registry = Registry(db)
    if not registry:
        raise SettingError(
            f"CHRONONAUT_MODELS={','.join(settings.models)} has no versioned model of CHRONONAUT_DB={settings.db}; "
            "name the modules of the models, and the VersionedSQLAlchemy that they belong to"
        )
    return registry


def _policies(registry: Registry, settings: Settings) -> Mapping[str, Retention]:
    """What is kept of models, by the names of their classes.

    :raises SettingError: there is no such model, or none that is purged by itself
    """
    if unknown := [name for name, _ in settings.retention if name not in registry]:
        raise SettingError(
            f"{SETTING} has a policy of {unknown[0]}, which is not served; there are {', '.join(registry)}"
        )
    given = {registry[name].versioning.name: policy for name, policy in settings.retention}
    names = {resource.versioning.name: name for name, resource in registry.items()}
    try:
        policies([resource.versioning for resource in registry.values()], given)
    except OptionError as error:
        raise SettingError(
            f"{SETTING} has a policy of {names.get(error.model)} that is wrong: {error.problem}"
        ) from None
    return given


def _database(reference: str) -> VersionedSQLAlchemy:
    module, _, name = reference.partition(":")
    db = getattr(_imported(module, "CHRONONAUT_DB"), name, None)
    if not isinstance(db, VersionedSQLAlchemy):
        raise SettingError(f"CHRONONAUT_DB must name a VersionedSQLAlchemy, and {reference} is none")
    return db


def _imported(name: str, setting: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        # What a module that is there imports in vain is told with where it does so.
        if f"{name}.".startswith(f"{error.name}."):
            raise SettingError(f"{setting} names {name}, but there is no module {error.name}") from None
        raise

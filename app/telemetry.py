"""Whether requests and statements are traced by OpenTelemetry: where its packages are, and somebody takes the spans."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def init_telemetry(app: Flask, db: SQLAlchemy, environment: Mapping[str, str]) -> None:
    """Trace what the application does, if that is wanted and can be; else nothing of OpenTelemetry is loaded."""
    if not _is_wanted(environment):
        return
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        app.logger.warning("nothing is traced: OTEL_ variables are set, but the extra telemetry is not installed")
        return
    with app.app_context():
        engines = [*db.engines.values()]
    tracing = import_module("app.tracing")
    tracing.instrument(app, engines, tracing.provider(environment, app.logger))


def _is_wanted(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER") or ("otlp" if any(map(environment.get, _ENDPOINTS)) else "none")
    return exporter != "none"

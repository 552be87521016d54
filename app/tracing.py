"""Spans of requests and of statements, after OpenTelemetry's semantic conventions for HTTP and databases.

The packages that instrument Flask and SQLAlchemy would do it, but put queries, and the texts of databases' errors, into
the spans: those can hold values.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from logging import Logger
from typing import Any

import sqlalchemy as sa
from flask import Flask
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from sqlalchemy import event
from sqlalchemy.engine import Connection, ExceptionContext

from app.facts import facts_of
from app.request_id import request_id_of

_NAME = "chrononaut"
_SPAN = "_chrononaut_span"
_EXPORTERS: Mapping[str, Callable[[], SpanExporter]] = {"otlp": OTLPSpanExporter, "console": ConsoleSpanExporter}
_SERVER_ERROR = 500


def provider(environment: Mapping[str, str], logger: Logger) -> trace.TracerProvider:
    """Who takes the spans: who was told to this process before, or else whom the environment's variables name.

    ``OTEL_TRACES_EXPORTER`` is ``otlp``, over HTTP, or ``console``, or both; the SDK reads the others by itself.

    :param logger: is told which names are of nobody
    """
    known = trace.get_tracer_provider()
    if not isinstance(known, trace.ProxyTracerProvider):
        return known
    named = OTELResourceDetector().detect()
    made = TracerProvider(resource=Resource.create({SERVICE_NAME: _NAME} | dict(named.attributes)))
    for name in map(str.strip, (environment.get("OTEL_TRACES_EXPORTER") or "otlp").split(",")):
        if name in _EXPORTERS:
            made.add_span_processor(BatchSpanProcessor(_EXPORTERS[name]()))
        else:
            names = " and ".join(_EXPORTERS)
            logger.warning("no spans go to %r, which OTEL_TRACES_EXPORTER names: it may name %s", name, names)
    trace.set_tracer_provider(made)
    return made


def trace_requests(app: Flask, tracer: Tracer) -> None:
    """Make a span of each request; it goes on with the trace that a client tells of by ``traceparent`` (W3C)."""
    app.wsgi_app = _Traced(app.wsgi_app, tracer)  # type: ignore[method-assign]  # as Flask says to wrap it


def trace_statements(engine: sa.Engine, tracer: Tracer) -> None:
    """Make a span of each statement, with its text, but not what is sent with it."""
    system = engine.dialect.name

    def begin(
        connection: Connection, cursor: object, statement: str, parameters: object, context: Any, many: bool
    ) -> None:
        verb = statement.split(None, 1)[0].upper() if statement.strip() else system
        told = {"db.system.name": system, "db.operation.name": verb, "db.query.text": statement}
        setattr(context, _SPAN, tracer.start_span(verb, kind=SpanKind.CLIENT, attributes=told))

    def end(
        connection: Connection, cursor: object, statement: str, parameters: object, context: Any, many: bool
    ) -> None:
        span: Span | None = getattr(context, _SPAN, None)
        if span is not None:
            span.end()

    def fail(failed: ExceptionContext) -> None:
        span: Span | None = getattr(failed.execution_context, _SPAN, None)
        if span is None:
            return
        span.set_attribute("error.type", type(failed.original_exception).__qualname__)
        span.set_status(StatusCode.ERROR)
        span.end()

    event.listen(engine, "before_cursor_execute", begin)
    event.listen(engine, "after_cursor_execute", end)
    event.listen(engine, "handle_error", fail)


def instrument(app: Flask, engines: Sequence[sa.Engine], told: trace.TracerProvider) -> None:
    """Make spans of the requests of an application, and of the statements on its databases."""
    tracer = told.get_tracer(_NAME)
    trace_requests(app, tracer)
    for engine in engines:
        trace_statements(engine, tracer)


class _Traced:
    """A WSGI application, each request to which is a span."""

    def __init__(self, application: Callable[..., Iterable[bytes]], tracer: Tracer) -> None:
        self._application, self._tracer = application, tracer

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        fields = propagate.get_global_textmap().fields
        sent = {name: environ.get(f"HTTP_{name.upper().replace('-', '_')}") for name in fields}
        parent = propagate.extract({name: value for name, value in sent.items() if value})
        with self._tracer.start_as_current_span(
            "HTTP",
            parent,
            SpanKind.SERVER,
            {"url.scheme": environ["wsgi.url_scheme"], "chrononaut.request_id": request_id_of(environ)},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:

            def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
                number = int(status.split(None, 1)[0])
                span.set_attribute("http.response.status_code", number)
                if number >= _SERVER_ERROR:
                    span.set_status(StatusCode.ERROR)
                return start_response(status, headers, *error)

            answer = self._application(environ, start)
            facts = facts_of(environ)
            if facts is not None:
                span.update_name(f"{facts.method} {facts.route}" if facts.route else facts.method)
                told = {
                    "http.request.method": facts.method,
                    "http.route": facts.route,
                    "chrononaut.model": facts.model,
                    "chrononaut.key": facts.key,
                    "chrononaut.problem": facts.problem,
                }
                span.set_attributes({name: value for name, value in told.items() if value is not None})
            return answer

"""Spans of requests and statements, by OpenTelemetry: without any value, and only where somebody takes them."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from flask import Flask
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from app import telemetry
from app.auth.grants import Grants
from app.auth.tokens import create_token
from app.db import db
from tests.service.api import Api

_SECRET = "Wq7Zk3Vx9"
_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
_PARENT = "00f067aa0ba902b7"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What is told to the provider that somebody has given to this process."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


@pytest.fixture
def traced(spans: InMemorySpanExporter, app_with: Callable[..., Flask]) -> Api:
    app = app_with(OTEL_TRACES_EXPORTER="otlp")
    with app.app_context():
        token = create_token(db, "writer@example.com", Grants.parse(["write"]))
    spans.clear()
    return Api(app.test_client(), token)


def _told(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


def _of(spans: InMemorySpanExporter, kind: SpanKind) -> list[ReadableSpan]:
    # By the document each answer is checked.
    found = [span for span in spans.get_finished_spans() if span.kind is kind]
    return [span for span in found if _told(span).get("http.route") != "/openapi.json"]


def test_request_is_a_span_with_its_statements_below_it(
    traced: Api, spans: InMemorySpanExporter, database_kind: str
) -> None:
    headers = {"X-Request-ID": "r-1", "traceparent": f"00-{_TRACE}-{_PARENT}-01"}
    created = traced.call("POST", "/records/user", {"email": "ada@example.com"}, headers=headers)
    assert created.status_code == 201
    (span,) = _of(spans, SpanKind.SERVER)
    assert span.name == "POST /records/user"
    assert span.parent is not None
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (_TRACE, _PARENT)
    told = {**_told(span)}
    assert told.pop("url.scheme") == "http"
    assert told == {
        "chrononaut.request_id": "r-1",
        "chrononaut.model": "user",
        "http.request.method": "POST",
        "http.route": "/records/user",
        "http.response.status_code": 201,
    }
    statements = _of(spans, SpanKind.CLIENT)
    assert {"SELECT", "INSERT"} <= {statement.name for statement in statements}
    for statement in statements:
        assert statement.parent is not None
        assert statement.parent.span_id == span.context.span_id
        assert _told(statement)["db.system.name"] == database_kind
        assert _told(statement)["db.operation.name"] == statement.name


def test_no_span_has_a_value(traced: Api, spans: InMemorySpanExporter) -> None:
    secret = {"email": f"{_SECRET}@example.com", "name": _SECRET, "password_hash": _SECRET}
    record = traced.post("/records/user", secret)["links"]["record"]
    assert traced.call("POST", "/records/user", secret).status_code == 409
    traced.call("PATCH", record, {"password_hash": f"{_SECRET}\0", "name": [_SECRET]})
    traced.call("GET", f"/records/user?name={_SECRET}", headers={"Referer": _SECRET, "User-Agent": _SECRET})
    traced.call("GET", f"/nothing/{_SECRET}")
    traced.call(_SECRET.upper(), f"/{_SECRET}")
    told = [span.to_json() for span in spans.get_finished_spans()]
    assert len(told) > 10
    assert [text for text in told if _SECRET.lower() in text.lower()] == []
    failed = [span for span in _of(spans, SpanKind.CLIENT) if span.status.status_code is StatusCode.ERROR]
    assert [_told(span)["error.type"] for span in failed] in (["UniqueViolation"], ["IntegrityError"])
    assert all(span.end_time for span in spans.get_finished_spans())


def test_failure_of_the_service_is_one_of_the_span(
    traced: Api, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(_SECRET)

    monkeypatch.setattr("app.records.routes.find", fail)
    traced.call("GET", "/records/user/1")
    (span,) = _of(spans, SpanKind.SERVER)
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert not span.events
    assert {**_told(span)}.items() >= {"chrononaut.key": "1", "chrononaut.problem": "internal-error"}.items()


_LOADED = """
import sys
from app import create_app
told = dict(part.split("=") for part in sys.argv[1:])
create_app({"SECRET_KEY": "a key for tests only", "DATABASE_URL": "sqlite://", **told})
print(sorted({name.partition(".")[0] for name in sys.modules} & {"opentelemetry", "requests"}))
"""


@pytest.mark.parametrize(
    "variables", [["OTEL_SERVICE_NAME=history"], ["OTEL_TRACES_EXPORTER=otlp", "OTEL_SDK_DISABLED=true"]]
)
def test_nothing_is_loaded_where_nobody_takes_it(variables: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, *variables], capture_output=True, text=True, check=True, env={"PATH": ""}
    )
    assert done.stdout == "[]\n"


def test_without_the_packages_it_is_said_once(
    app_with: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(telemetry, "find_spec", lambda name: None)
    app = app_with(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318")
    assert app.test_client().get("/openapi.json").status_code == 200
    assert [record.message for record in caplog.records] == [
        "nothing is traced: OTEL_ variables are set, but the extra telemetry is not installed"
    ]


_PROVIDED = """
import logging
from app.tracing import provider
made = provider({"OTEL_TRACES_EXPORTER": "otlp, console"}, logging.getLogger())
assert made is provider({}, logging.getLogger())
processors = made._active_span_processor._span_processors
print(made.resource.attributes["service.name"], len(processors))
made.shutdown()
"""


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "chrononaut"),
        ({"OTEL_SERVICE_NAME": "history"}, "history"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=past"}, "past"),
    ],
)
def test_provider_is_made_as_the_variables_say(variables: dict[str, str], name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROVIDED], capture_output=True, text=True, check=True, env={"PATH": "", **variables}
    )
    assert done.stdout == f"{name} 2\n"


def test_exporter_that_is_not_known_is_told() -> None:
    command = [sys.executable, "-c", _LOADED, "OTEL_TRACES_EXPORTER=zipkin,console"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": ""})
    (line,) = done.stderr.splitlines()
    assert line.endswith("no spans go to 'zipkin', which OTEL_TRACES_EXPORTER names: it may name otlp and console")
    assert "WARNING" in line

"""OpenTelemetry tracing (optional: `ras-triage[otel]`).

Exporter and sampling are configured by OpenTelemetry's variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, ...). If disabled,
nothing of the extra is imported. A W3C trace context is propagated either way.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI

from ras_triage.service.api.version import installed_version
from ras_triage.service.config.settings import InvalidSetting
from ras_triage.service.telemetry import trace_context
from ras_triage.service.telemetry.redaction import redact

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

_NOT_TRACED: Final = "/healthz$,/readyz$,/metrics$"
_WITH_QUERY: Final = ("http.url", "http.target", "url.full", "url.query")
_NOTHING: Final = nullcontext()

_tracer: Tracer | None = None


def start(app: FastAPI) -> TracerProvider:
    """Enable tracing of the application. Return the provider, whose shutdown sends the remaining spans. Raises InvalidSetting."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - optional dependency
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise InvalidSetting("`otel` requires `pip install ras-triage[otel]`") from None
    named = {"service.name": os.environ.get("OTEL_SERVICE_NAME", "ras-triage"), "service.version": installed_version()}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    instrument(app, provider)
    return provider


def instrument(app: FastAPI, provider: TracerProvider) -> None:
    """Create spans for requests and for `span`. Spans of `span` go to the application that was instrumented last in the process."""
    global _tracer  # noqa: PLW0603 - `span` has no reference to the application
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor  # noqa: PLC0415 - optional dependency

    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=provider, excluded_urls=_NOT_TRACED, exclude_spans=["send", "receive"], server_request_hook=_redact_urls
    )
    _tracer = provider.get_tracer("ras-triage", installed_version())


def _redact_urls(span: Span, _: Mapping[str, Any]) -> None:
    """Redact secrets in the attributes of a span that have the query."""
    attributes = getattr(span, "attributes", None) or {}
    for name in _WITH_QUERY:
        if name in attributes:
            span.set_attribute(name, redact(str(attributes[name])))


def stop() -> None:
    """Disable `span`."""
    global _tracer  # noqa: PLW0603
    _tracer = None


def span(name: str, **attributes: str | int | bool) -> AbstractContextManager[Any]:
    """Return a context manager for a span; no-op if tracing is disabled. Exception texts are not recorded: they may quote an event."""
    if _tracer is None:
        return _NOTHING
    return _tracer.start_as_current_span(name, attributes=attributes, record_exception=False, set_status_on_exception=False)


def trace_id() -> str | None:
    """Return the trace id of the current span; None: tracing is disabled."""
    if _tracer is None:
        return None
    from opentelemetry.trace import format_trace_id, get_current_span  # noqa: PLC0415 - optional dependency

    context = get_current_span().get_span_context()
    return format_trace_id(context.trace_id) if context.is_valid else None


def outgoing_headers() -> dict[str, str]:
    """Return headers that propagate the trace context to other services."""
    if trace_id() is not None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415 - optional dependency

        headers: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(headers)
        return headers
    context = trace_context.CURRENT.get()
    if context is None:
        return {}
    return {"traceparent": context.traceparent} | ({"tracestate": context.tracestate} if context.tracestate else {})

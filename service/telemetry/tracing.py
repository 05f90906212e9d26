"""Tracing by OpenTelemetry, for those who install `ras-triage[otel]` and switch it on.

Where traces go and which are kept is said by OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, ...).
Switched off, nothing of the extra is imported. A caller's W3C trace context is passed on either way.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI

from ras_triage.service.api.version import installed_version
from ras_triage.service.config.settings import InvalidSetting
from ras_triage.service.telemetry import trace_context

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

_NOT_TRACED: Final = "/healthz$,/readyz$,/metrics$"
_NOTHING: Final = nullcontext()

_tracer: Tracer | None = None


def start(app: FastAPI) -> TracerProvider:
    """Trace the application's requests. What is returned is to be shut down: that sends what is left. Raises InvalidSetting."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - only where it is on
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise InvalidSetting("`otel` needs what `pip install ras-triage[otel]` brings") from None
    named = {"service.name": os.environ.get("OTEL_SERVICE_NAME", "ras-triage"), "service.version": installed_version()}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    instrument(app, provider)
    return provider


def instrument(app: FastAPI, provider: TracerProvider) -> None:
    """A span for each request, and for what `span` wraps. Of the process, the last application that was instrumented has the latter."""
    global _tracer  # noqa: PLW0603 - spans are opened in places that know of no application
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor  # noqa: PLC0415 - only where it is on

    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider, excluded_urls=_NOT_TRACED, exclude_spans=["send", "receive"])
    _tracer = provider.get_tracer("ras-triage", installed_version())


def stop() -> None:
    """Open no more spans."""
    global _tracer  # noqa: PLW0603
    _tracer = None


def span(name: str, **attributes: str | int | bool) -> AbstractContextManager[Any]:
    """A part of the request under way; nothing where nothing is traced. An error's text stays out of it: it may quote an event."""
    if _tracer is None:
        return _NOTHING
    return _tracer.start_as_current_span(name, attributes=attributes, record_exception=False, set_status_on_exception=False)


def trace_id() -> str | None:
    """The trace that the current span belongs to; None where nothing is traced."""
    if _tracer is None:
        return None
    from opentelemetry.trace import format_trace_id, get_current_span  # noqa: PLC0415 - only where it is on

    context = get_current_span().get_span_context()
    return format_trace_id(context.trace_id) if context.is_valid else None


def outgoing_headers() -> dict[str, str]:
    """Headers that pass the trace of the request under way on to whom it makes us call."""
    if trace_id() is not None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415 - only where it is on

        headers: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(headers)
        return headers
    context = trace_context.CURRENT.get()
    if context is None:
        return {}
    return {"traceparent": context.traceparent} | ({"tracestate": context.tracestate} if context.tracestate else {})

"""OpenTelemetry spans."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ras_triage.service.http.app import create_app
from ras_triage.service.telemetry import logs, tracing
from tests.paths import ROOT
from tests.service.support.application import EVENT, client

trace = pytest.importorskip("opentelemetry.sdk.trace", reason="`ras-triage[otel]` is not installed")

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "congo=1"}


class Traced:
    """An application whose spans are kept in memory."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415 - only where it is installed
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: PLC0415

        self.exporter = InMemorySpanExporter()
        self.seen: dict[str, Any] = {}
        provider = trace.TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.app = create_app()
        tracing.instrument(self.app, provider)

        @self.app.post("/traced/{name}")
        async def traced(name: str) -> None:
            with tracing.span("decide", policy=name):
                await asyncio.sleep(0)
            with tracing.span("commit"):
                self.seen = {**logs.bound(), **tracing.outgoing_headers()}

        @self.app.post("/defect")
        async def defect() -> None:
            with tracing.span("decide"):
                raise ValueError("AQAAAA==")

    def ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        with client(self.app) as call:
            return call(method, path, **arguments)

    @property
    def spans(self) -> dict[str, Any]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def traced() -> Iterator[Traced]:
    yield Traced()
    tracing.stop()


def test_a_request_is_a_span_under_its_callers_with_a_span_for_each_part(traced: Traced) -> None:
    assert traced.ask("POST", "/traced/uniform", headers=HEADERS).status_code == 200

    spans = traced.spans
    assert set(spans) == {"POST /traced/{name}", "decide", "commit"}
    request = spans["POST /traced/{name}"]
    assert f"{request.context.trace_id:032x}" == TRACE
    assert f"{request.parent.span_id:016x}" == CALLER
    assert spans["decide"].parent.span_id == spans["commit"].parent.span_id == request.context.span_id
    assert spans["decide"].attributes == {"policy": "uniform"}


def test_a_span_has_the_query_without_the_ticket_of_an_event_stream(traced: Traced) -> None:
    secret = "x" * 43
    traced.ask("POST", f"/traced/uniform?action=panic&ticket=rtt_{secret}")

    attributes = traced.spans["POST /traced/{name}"].attributes
    assert any("action=panic" in str(value) for value in attributes.values()), "the query is an attribute"
    assert not any(secret in str(value) for value in attributes.values())


def test_the_trace_is_in_the_log_and_goes_on_from_our_span(traced: Traced) -> None:
    traced.ask("POST", "/traced/uniform", headers=HEADERS)

    commit = traced.spans["commit"].context
    assert traced.seen["trace_id"] == TRACE
    assert traced.seen["traceparent"] == f"00-{TRACE}-{commit.span_id:016x}-01"
    assert traced.seen["tracestate"] == "congo=1"


def test_a_request_without_a_trace_begins_one(traced: Traced) -> None:
    traced.ask("POST", "/traced/uniform")

    request = traced.spans["POST /traced/{name}"]
    assert request.parent is None
    assert traced.seen["trace_id"] == f"{request.context.trace_id:032x}"


def test_probes_and_scrapes_are_not_traced(traced: Traced) -> None:
    for path in ("/healthz", "/metrics"):
        assert traced.ask("GET", path).status_code == 200

    assert traced.spans == {}


def test_nothing_of_an_event_or_a_secret_is_in_a_span(traced: Traced) -> None:
    for path in ("/v1/decisions?dry_run=true", "/defect"):
        traced.ask("POST", path, json=EVENT, headers={"authorization": "Bearer c2VjcmV0"})

    written = "".join(span.to_json() for span in traced.exporter.get_finished_spans())
    assert len(traced.spans) == 3
    assert not [word for word in ("AQAAAA==", "c2VjcmV0", EVENT["status_block"][:12]) if word in written]


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_switched_off_nothing_of_the_extra_is_imported() -> None:
    """FastAPI may import OpenTelemetry's API, which does nothing by itself."""
    done = run(
        "import sys\nfrom ras_triage.service.http.server.run import create_app\ncreate_app()\n"
        "from ras_triage.service.telemetry import tracing\nwith tracing.span('decide'): pass\nassert tracing.outgoing_headers() == {}\n"
        "extra = ('opentelemetry.sdk', 'opentelemetry.exporter', 'opentelemetry.instrumentation')\n"
        "sys.exit(', '.join(name for name in sys.modules if name.startswith(extra)) or None)"
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_switched_on_without_the_extra_it_says_what_is_missing() -> None:
    done = run(
        "import sys\nsys.modules['opentelemetry.sdk'] = None\n"
        "from ras_triage.service.http.app import create_app\nfrom ras_triage.service.telemetry import tracing\n"
        "from ras_triage.service.config.settings import InvalidSetting\n"
        "try: tracing.start(create_app())\nexcept InvalidSetting as error: print(error)"
    )

    assert done.stdout == "`otel` requires `pip install ras-triage[otel]`\n"

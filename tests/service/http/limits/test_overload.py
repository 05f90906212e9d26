"""Overload of a service process: probes and single requests succeed, batches are refused.

`bench/overload.py` makes the load, and measures what this test only bounds loosely.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.service.support.application import EVENT
from tests.service.support.raw_connections import connect, head, metric, received, wait_until
from tests.service.support.server_process import serving

LOAD_S = 2.0
PROBE = head("/healthz", "Connection: close", method="GET")
READINESS = head("/readyz", "Connection: close", method="GET")
BODY = json.dumps(EVENT).encode()
SINGLE = head("/v1/decisions", "Connection: close", f"Content-Length: {len(BODY)}") + BODY


def ask(url: str, request: bytes) -> tuple[str, float]:
    """Return the status of an answer, and the seconds that it took, on a connection of its own."""
    began = time.monotonic()
    with connect(url) as connection:
        connection.sendall(request)
        status = received(connection).split(b" ")[1].decode()
    return status, time.monotonic() - began


@pytest.mark.parametrize(("load", "refused"), [("batches-900", "busy"), ("stalled", "request-timeout")])
def test_probes_and_single_requests_are_answered_under_load(
    load: str, refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is ten times what is promised: the machine that tests has other things to do. Without admission it was 5 to 30 s."""
    monkeypatch.setenv("RAS_TRIAGE_MAX_BATCH_WAIT_S", "1")
    told: dict[bytes, Counter[str]] = {request: Counter() for request in (PROBE, READINESS, SINGLE)}
    waited: list[float] = []
    with serving("--store", f"sqlite:///{tmp_path / 'store.db'}") as service:
        command = [sys.executable, "bench/overload.py", "--load", load, "--port", service.port, "--until", str(time.time() + 100)]
        loading = subprocess.Popen(command, cwd=ROOT)
        try:
            wait_until(lambda: metric(service.url, "problems_total", type="busy") > 0)
            until = time.monotonic() + LOAD_S
            while time.monotonic() < until:
                for request, statuses in told.items():
                    status, seconds = ask(service.url, request)
                    statuses[status] += 1
                    waited.append(seconds)
            wait_until(lambda: metric(service.url, "problems_total", type=refused) > 0)
        finally:
            loading.kill()
            loading.wait()

    assert set(told[PROBE]) == {"200"}
    assert set(told[READINESS]) <= {"200", "503"}
    assert told[SINGLE]["201"] > 0
    assert statistics.median(waited) < 1.0
    assert len(service.log) < len(waited) + 200, "the load fills no log"

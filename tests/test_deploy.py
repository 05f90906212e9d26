"""The files under deploy/ fit the service."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.server import GRACE_S

ROOT = Path(__file__).parent.parent
MANIFESTS = ROOT / "deploy" / "kubernetes" / "statefulset.yaml"
COMPOSE = ROOT / "deploy" / "compose.yaml"
UNIT = ROOT / "deploy" / "systemd" / "ras-triage.service"


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        (MANIFESTS, r"terminationGracePeriodSeconds: (\d+)"),
        (COMPOSE, r"stop_grace_period: (\d+)s"),
        (UNIT, r"TimeoutStopSec=(\d+)"),
    ],
)
def test_whoever_stops_the_service_waits_longer_than_it_takes(path: Path, pattern: str) -> None:
    found = re.search(pattern, path.read_text(encoding="utf-8"))

    assert found is not None
    assert int(found[1]) >= GRACE_S + 10


@pytest.mark.parametrize("path", [MANIFESTS, COMPOSE, UNIT, ROOT / "Dockerfile"])
def test_nothing_runs_as_root(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert not re.search(r"^\s*(user|runAsUser):?\s*=?\s*(0|root)\b", text, re.IGNORECASE | re.MULTILINE)


def test_a_reload_is_a_signal_to_the_service() -> None:
    assert "\nExecReload=/bin/kill -HUP $MAINPID\n" in UNIT.read_text(encoding="utf-8")


def test_a_service_of_this_name_does_not_set_its_port() -> None:
    assert "enableServiceLinks: false" in MANIFESTS.read_text(encoding="utf-8")

"""Benchmarks run with today's code."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.paths import ROOT

BENCHMARKS = sorted(path.name for path in (ROOT / "bench").glob("*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_can_be_imported(name: str) -> None:
    program = f"import sys; sys.path.insert(0, 'bench'); import {name.removesuffix('.py')}"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr

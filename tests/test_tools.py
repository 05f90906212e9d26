"""What a test does where a program or header is missing."""

from __future__ import annotations

import pytest
from _pytest.outcomes import Failed, Skipped

from tests.paths import ROOT
from tests.tools import REQUIRED, missing_headers, require


def test_a_missing_tool_is_named_and_the_test_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(Skipped, match=r"missing: curl/curl\.h; expected Debian's libcurl4-openssl-dev"):
        require(["curl/curl.h"], "libcurl4-openssl-dev")
    require([], "libcurl4-openssl-dev")


def test_nothing_is_skipped_by_ci_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(Failed, match="missing: curl/curl"):
        require(["curl/curl.h"], "libcurl4-openssl-dev")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert f"export {REQUIRED}=1" in script
    assert {"npm", "g++", "libcurl4-openssl-dev", "nlohmann-json3-dev", "prometheus", "nats-server"} <= set(script.split())


def test_the_compiler_finds_the_headers_that_are_there_and_names_the_others() -> None:
    require(missing_headers(), "g++")
    assert missing_headers("vector", "no/such.h") == ["no/such.h"]


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert missing_headers("vector") == ["g++"]

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ras_triage.service.http.app import create_app
from tests.service.support.application import BLOCK, EVENT, Call, caller, client
from tests.service.support.certificates import CertificateAuthority


@pytest.fixture(scope="session", autouse=True)
def _few_authorities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let clients trust one authority in place of the machine's, which each new client takes 17 ms to read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(CertificateAuthority(tmp_path_factory.mktemp("authorities"), "nobody").file))
        yield


@pytest.fixture(scope="session")
def call() -> Call:
    return caller()


@pytest.fixture(scope="session")
def shared_call() -> Iterator[Call]:
    """Call one application that runs for all tests, for large requests that leave nothing behind: it starts its worker once."""
    with client(create_app()) as calling:
        yield calling


@pytest.fixture
def event() -> dict[str, Any]:
    return EVENT


@pytest.fixture
def block() -> bytes:
    return BLOCK

from __future__ import annotations

from typing import Any

import pytest

from tests.service.support.application import BLOCK, EVENT, Call, caller


@pytest.fixture(scope="session")
def call() -> Call:
    return caller()


@pytest.fixture
def event() -> dict[str, Any]:
    return EVENT


@pytest.fixture
def block() -> bytes:
    return BLOCK

"""Test application with API keys."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from fastapi import Depends, FastAPI

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from ras_triage.service.security.guard import Security, requires
from ras_triage.service.security.keys import create
from ras_triage.service.security.principal import Scope
from ras_triage.service.store.port import ApiKey
from ras_triage.service.store.temporary import TemporaryStore

URL = "http://127.0.0.1:8080"


class SecuredApplication:
    """The application, and the store that its keys are in."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.store = TemporaryStore()
        settings = settings or Settings()
        self.app: FastAPI = create_app(settings)
        self.app.state.security = Security(settings, self._keys)

        @self.app.delete("/v1/everything", dependencies=[Depends(requires("admin"))])
        async def administer() -> None:
            """Something that only who administers may do."""

    async def _keys(self) -> list[ApiKey]:
        return self.store.api_keys()

    def key(self, *scopes: Scope) -> str:
        """A new key with these scopes."""
        key, shown = create("somebody", scopes, 0)
        self.store.add_api_key(key)
        return shown

    def request(self, method: str, path: str, bearer: str | None = None, **arguments: Any) -> httpx.Response:
        """Ask for something."""
        headers = httpx.Headers(arguments.pop("headers", None))
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with self.app.router.lifespan_context(self.app), httpx.AsyncClient(transport=transport, base_url=URL) as client:
                return await client.request(method, path, headers=headers, **arguments)

        return asyncio.run(ask())


def kind(answer: httpx.Response) -> tuple[int, str]:
    """A problem's status, and the end of its type."""
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == answer.status_code
    assert document["title"]
    assert document["detail"]
    return answer.status_code, document["type"].rpartition(":")[2]

"""Client thread that sends each event until it has a final answer."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from threading import Event, Thread

import httpx

PAUSE_S = 0.03


class PersistentSender(Thread, ABC):
    """Sends its events in groups of `lines`, and those without a final answer again."""

    def __init__(self, name: str, url: str, enough: Event, lines: int) -> None:
        """`enough`: set when no new events are to be sent."""
        super().__init__(daemon=True)
        self.sent: set[str] = set()
        self._names = (f"{name}-{number}" for number in count())
        self._url = url
        self._enough = enough
        self._lines = lines

    def run(self) -> None:
        waiting: list[str] = []
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while waiting or not self._enough.is_set():
                while len(waiting) < self._lines and not self._enough.is_set():
                    waiting.append(next(self._names))
                self.sent.update(waiting)
                with suppress(httpx.HTTPError):
                    self._send(client, list(waiting))
                waiting = [name for name in waiting if not self._is_final(name)]
                if waiting:
                    time.sleep(PAUSE_S)

    @abstractmethod
    def _send(self, client: httpx.Client, names: list[str]) -> None:
        """Send events, and note their answers."""

    @abstractmethod
    def _is_final(self, name: str) -> bool:
        """Return whether an event has its final answer."""


def list_decisions(client: httpx.Client) -> Iterator[tuple[str, str]]:
    """Yield the ids of all decisions: the service's and the sender's."""
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/v1/decisions", params={"limit": 1000, **cursor}).raise_for_status().json()
        yield from ((decision["id"], decision["event_id"]) for decision in page["decisions"])
        if page["next"] is None:
            return
        cursor = {"cursor": page["next"]}

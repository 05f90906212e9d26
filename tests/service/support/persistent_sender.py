"""Client thread that sends events until each has a final answer, whatever happens to the service."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
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

"""Other processes that decide the events of large batches beforehand, on processors that this one cannot use.

A worker starts when the first large batch comes, holds nothing that has to be kept, and ends with the service, however that ends: its
standard input closes. Where workers cannot be had, events are decided here.
"""

from __future__ import annotations

import logging
import pickle
import signal
from collections.abc import Sequence
from functools import lru_cache
from time import monotonic
from typing import Final

from anyio import BrokenWorkerProcess, CapacityLimiter, to_process

from service import logs
from service.collecting import collect_seldom
from service.deciding import Conclusion, Document, Foreseen, Gist, foresee
from service.intake import Item
from service.problems import Problem, Refused
from service.settings import Settings

Answer = tuple[Gist, Conclusion | Problem] | Problem

ALONE: Final = 512
"""Events of a batch that are decided without workers that do not run yet: it may be a small one, and a worker takes a second to start."""

ALONE_BESIDE: Final = 64
"""And without workers that do."""

REST_S: Final = 60.0
"""Seconds without workers after one could not be started, or died."""


class Workers:
    """As many as the settings say, shared by all batches."""

    def __init__(self, settings: Settings) -> None:
        self.number = settings.batch_workers
        self._limiter = CapacityLimiter(max(self.number, 1))
        self._settings = pickle.dumps(Settings(settings.default_policy, settings.custom, max_workload=settings.max_workload))
        """What decides; the rest, secrets among it, is no concern of theirs."""
        self._back_at = 0.0
        self.alone = ALONE
        """Events of each batch that are decided without them."""

    @property
    def at_work(self) -> bool:
        """Whether it is of use to ask them."""
        return self.number > 0 and monotonic() >= self._back_at

    async def foresee(self, items: Sequence[Document | Refused]) -> Sequence[Item]:
        """Events decided beforehand, in order; as they came, where that cannot be had."""
        documents = [item for item in items if isinstance(item, Document)]
        try:
            answers = await to_process.run_sync(_foresee, self._settings, documents, limiter=self._limiter)
        except (BrokenWorkerProcess, KeyboardInterrupt, OSError) as error:  # the interrupt was the worker's: here, the server hears of it
            self._back_at, self.alone = monotonic() + REST_S, ALONE
            logs.log(logging.WARNING, "no workers", error=type(error).__name__, seconds=REST_S)
            return items
        self.alone = ALONE_BESIDE
        found = map(_foreseen, documents, answers)
        return [next(found) if isinstance(item, Document) else item for item in items]


def _foreseen(document: Document, answer: Answer) -> Item:
    return Refused(answer) if isinstance(answer, Problem) else Foreseen(document, *answer)


# In the worker.


def _foresee(pickled: bytes, documents: list[Document]) -> list[Answer]:
    settings = _begin(pickled)
    return [foresee(document, settings) for document in documents]


@lru_cache(maxsize=1)
def _begin(pickled: bytes) -> Settings:
    """The worker's first work: it leaves the terminal's interrupt to the service, which has it finish what it took."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    collect_seldom()
    settings: Settings = pickle.loads(pickled)
    return settings

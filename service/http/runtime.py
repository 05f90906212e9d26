"""What an application has while it runs: its store, the thread that writes it, and what takes events in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from threading import Semaphore
from typing import TypeVar

from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.batch.workers import Workers
from ras_triage.service.engine.defects import Defects
from ras_triage.service.engine.intake import Intake
from ras_triage.service.engine.retention import Retention
from ras_triage.service.engine.sources import Sources
from ras_triage.service.http.streaming.subscriptions import Streams
from ras_triage.service.store.port import Store, StoreError
from ras_triage.service.store.writer import Writer
from ras_triage.service.telemetry.allocator import MemoryReturn

T = TypeVar("T")

READERS = 4
"""Threads that read the store for questions."""

IMPORTERS_AT_WORK = 2
"""Those of them that do not wait for their client: more would take the interpreter from the event loop."""


@dataclass(slots=True)
class Runtime:
    """A running application's parts."""

    settings: Settings
    store: Store
    writer: Writer
    sources: Sources
    intake: Intake
    retention: Retention
    workers: Workers
    defects: Defects
    clock_ms: Callable[[], int]
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the service was told to stop: what never ends by itself ends now."""
    unread: list[Callable[[StoreError], None]] = field(default_factory=list)
    """Called with why, where the store gave no answer."""
    importers: ThreadPoolExecutor = field(init=False)
    importing: Semaphore = field(default_factory=lambda: Semaphore(IMPORTERS_AT_WORK))
    readers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(READERS, "store-reader"))
    streams: Streams = field(init=False)
    memory: MemoryReturn = field(init=False)

    def __post_init__(self) -> None:
        self.importers = ThreadPoolExecutor(self.settings.max_imports, "importer")
        self.streams = Streams(self.read, self.settings.max_streams, self.settings.max_stream_filters)
        self.memory = MemoryReturn(self.store.release_memory)

    def use(self, settings: Settings) -> None:
        """Use other settings for what is decided from now on. What is decided already keeps the policies that it was decided under."""
        self.workers.use(settings)
        self.intake.use(settings)
        self.retention.use(settings)
        self.settings = settings

    def stop(self) -> None:
        """End what never ends by itself."""
        self.stopping.set()
        self.streams.stop()

    async def read(self, ask: Callable[[Store], T]) -> T:
        """Ask the store in a thread. Raises StoreError."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self.readers, ask, self.store)
        except StoreError as error:
            for hear in self.unread:
                hear(error)
            raise


@asynccontextmanager
async def running(settings: Settings, kept: Store, clock_ms: Callable[[], int]) -> AsyncIterator[Runtime]:
    """The parts, for as long as the context lasts; at its end what waits is written first. Raises StoreError."""
    sources = Sources(kept)
    writer = Writer(kept, max_entries=settings.queue_entries, max_bytes=settings.queue_bytes)
    defects = Defects()
    workers = Workers(settings, defects)
    intake = Intake(settings, kept, writer, sources, workers, defects, clock_ms)
    retention = Retention(settings, writer, kept, clock_ms)
    runtime = Runtime(settings, kept, writer, sources, intake, retention, workers, defects, clock_ms)
    writer.committed.append(lambda _entries, _seconds: runtime.streams.tell())
    writer.failed.append(lambda _error: sources.forget_everything())
    background = (runtime.retention.run(), runtime.streams.supervise(), runtime.memory.run())
    in_the_background = [asyncio.create_task(work) for work in background]
    try:
        with intake.limit.installed():
            yield runtime
    finally:
        runtime.stop()
        for task in in_the_background:
            task.cancel()
        runtime.streams.close()
        workers.close()
        await writer.close()
        runtime.importers.shutdown(wait=False, cancel_futures=True)
        runtime.readers.shutdown()
        kept.close()

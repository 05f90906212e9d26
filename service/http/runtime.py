"""Parts of a running application: store, writer, intake, workers, streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Semaphore
from typing import TypeVar

from ras_triage.models.event import Event
from ras_triage.models.records.block_fields import StructuredBlock
from ras_triage.policies.catalog.policies import Policy
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.batch.workers import Workers
from ras_triage.service.engine.defects import Defects
from ras_triage.service.engine.intake import Intake
from ras_triage.service.engine.replays.runner import Replays
from ras_triage.service.engine.retention import Retention
from ras_triage.service.engine.sources import Sources
from ras_triage.service.engine.stored.policies import DefinedPolicy, read_policies, with_stored
from ras_triage.service.http.streaming.subscriptions import Streams
from ras_triage.service.store.port import Store, StoreError
from ras_triage.service.store.writer import Writer
from ras_triage.service.telemetry.memory_return import MemoryReturn

T = TypeVar("T")

READERS = 4
"""Threads that read the store."""

IMPORTERS_AT_WORK = 2
"""Importer threads that run at once: more would take the interpreter from the event loop."""


@dataclass(slots=True)
class Runtime:
    """The parts of a running application."""

    settings: Settings
    """Those in use: as configured, with the stored policies."""
    store: Store
    writer: Writer
    sources: Sources
    intake: Intake
    retention: Retention
    workers: Workers
    defects: Defects
    clock_ms: Callable[[], int]
    configured: Settings
    policies: dict[str, DefinedPolicy]
    """Stored policies by name."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the service stops."""
    unread: list[Callable[[StoreError], None]] = field(default_factory=list)
    """Called with the error when a read of the store failed."""
    importers: ThreadPoolExecutor = field(init=False)
    importing: Semaphore = field(default_factory=lambda: Semaphore(IMPORTERS_AT_WORK))
    readers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(READERS, "store-reader"))
    streams: Streams = field(init=False)
    replays: Replays = field(init=False)
    memory: MemoryReturn = field(init=False)

    def __post_init__(self) -> None:
        self.importers = ThreadPoolExecutor(self.settings.max_imports, "importer")
        self.streams = Streams(self.read, self.settings.max_streams, self.settings.max_stream_filters)
        self.replays = Replays(self.store, self.writer, self.workers, self.read, self.clock_ms)
        self.memory = MemoryReturn(self.store.release_memory)

    def use(self, settings: Settings) -> None:
        """Apply other configured settings to future decisions. Stored policies stay."""
        self.configured = settings
        self._apply()

    async def put_policy(self, name: str, policy: Policy, definition: bytes) -> bool:
        """Store a policy and use it from now on, unless it is unchanged. Return whether its name is new. Raises StoreError."""
        before = self.policies.get(name)
        if before is not None and before.definition == definition:
            return False
        await self.writer.call(partial(self.store.put_policy, name, definition, self.clock_ms()))
        self.policies[name] = DefinedPolicy(policy, definition)
        self._apply()
        return before is None

    def _apply(self) -> None:
        self.settings = with_stored(self.configured, self.policies)
        self.workers.use(self.settings)
        self.intake.use(self.settings)
        self.retention.use(self.settings)

    def stop(self) -> None:
        """End the streams."""
        self.stopping.set()
        self.streams.stop()

    async def read(self, query: Callable[[Store], T]) -> T:
        """Call `query` with the store in a thread. Raises StoreError."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self.readers, query, self.store)
        except StoreError as error:
            for callback in self.unread:
                callback(error)
            raise


@asynccontextmanager
async def open_runtime(configured: Settings, store: Store, clock_ms: Callable[[], int]) -> AsyncIterator[Runtime]:
    """Run the parts for the duration of the context; at its end the write queue is drained. Raises StoreError."""
    for model in (Event, StructuredBlock):
        model.model_rebuild()  # pydantic would build it with the first event, which waited 0.1 s for it
    policies = read_policies(store)
    settings = with_stored(configured, policies)
    sources = Sources(store)
    writer = Writer(store, max_entries=settings.queue_entries, max_bytes=settings.queue_bytes)
    defects = Defects()
    workers = Workers(settings, defects)
    intake = Intake(settings, store, writer, sources, workers, defects, clock_ms)
    retention = Retention(settings, writer, store, clock_ms)
    runtime = Runtime(settings, store, writer, sources, intake, retention, workers, defects, clock_ms, configured, policies)
    writer.committed.append(lambda _entries, _seconds: runtime.streams.notify())
    writer.failed.append(lambda _error: sources.forget_everything())
    background = (runtime.retention.run(), runtime.streams.supervise(), runtime.memory.run(), runtime.replays.run())
    tasks = [asyncio.create_task(work) for work in background]
    try:
        with intake.limit.installed():
            yield runtime
    finally:
        runtime.stop()
        for task in tasks:
            task.cancel()
        runtime.streams.close()
        workers.close()
        await writer.close()
        runtime.importers.shutdown(wait=False, cancel_futures=True)
        runtime.readers.shutdown()
        store.close()

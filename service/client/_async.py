"""Asynchronous client (asyncio or any other event loop that anyio supports)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import aclosing, closing
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import anyio
import httpx
from httpx_sse import ServerSentEvent

from ras_triage.models.host import Host
from ras_triage.service.api.decision_response import AlternativesResponse, BatchSummary, BatchView, DecisionResponse
from ras_triage.service.api.policy_pages import Difference, PolicyList, PolicyPage
from ras_triage.service.api.problems import Problem
from ras_triage.service.api.replays.replays import Replay, ReplayEntry
from ras_triage.service.api.syndromes import SyndromeResponse
from ras_triage.service.client._base import BaseClient
from ras_triage.service.client._calls import Filters, HostFilters, PoisonFilters, new_key, read_result, read_summary
from ras_triage.service.client._protocol import Effect, Emit, FlowExecution, NextEvent, OpenRequest, Pause, ProtocolFlow, ReadBytes
from ras_triage.service.client._request import RequestDefaults
from ras_triage.service.client.chunks import AnyEvent, SentEvent, chunks_async
from ras_triage.service.client.limits import ResponseLimits, decoded_body_async, event_source
from ras_triage.service.client.results import (
    DecodeResult,
    Health,
    HostEntry,
    PoisonedEntry,
    PoisonedPages,
    Stats,
    StoredHost,
    StoreState,
    StreamItem,
    Summary,
)

T = TypeVar("T")

_Events = AsyncIterable[SentEvent] | Iterable[SentEvent]


class _Connection:
    """Performs the effects of a flow, over one connection at a time."""

    def __init__(self, http: httpx.AsyncClient, defaults: RequestDefaults, limits: ResponseLimits) -> None:
        self._http = http
        self._limits = limits
        self._defaults = defaults
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._events: AsyncIterator[ServerSentEvent] | None = None

    async def perform(self, effect: Effect) -> Any:
        match effect:
            case OpenRequest():
                return await self._open(effect)
            case ReadBytes():
                assert self._chunks is not None
                return await anext(self._chunks, None)
            case NextEvent():
                assert self._events is not None
                return await anext(self._events, None)
            case Pause():
                await self.aclose()
                self._defaults.on_retry(effect.failure, effect.seconds)
                await anyio.sleep(effect.seconds)
                return None

    async def _open(self, effect: OpenRequest) -> httpx.Response:
        await self.aclose()
        request = self._defaults.build_request(self._http, effect.request)
        self._response = response = await self._http.send(request, stream=True)
        self._chunks = decoded_body_async(response)
        self._events = event_source(decoded_body_async(response), self._limits).aiter_sse()
        return response

    async def aclose(self) -> None:
        if self._response is not None:
            await self._response.aclose()


class AsyncClient(BaseClient[httpx.AsyncClient, httpx.AsyncBaseTransport]):
    """Asynchronous client of the service, with the calls of `Client`. Belongs to one event loop.

    Every method raises ProblemResponse, Unreachable and UnexpectedResponse; transient failures are retried first, as `retry` says.
    """

    def _open_http(self, transport: httpx.AsyncBaseTransport | None, socket: str | None, **options: Any) -> httpx.AsyncClient:
        if transport is None and socket is not None:
            transport = httpx.AsyncHTTPTransport(uds=socket)
        return httpx.AsyncClient(transport=transport, **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _run(self, flow: ProtocolFlow[T]) -> AsyncGenerator[T, None]:
        connection = _Connection(self._http, self._defaults, self._calls.limits)
        with closing(flow):
            async with aclosing(connection):
                execution = FlowExecution(flow)
                while (effect := execution.resume()) is not None:
                    if isinstance(effect, Emit):
                        yield effect.result
                        continue
                    try:
                        execution.reply = await connection.perform(effect)
                    except httpx.RequestError as error:
                        execution.error = error

    async def _result(self, flow: ProtocolFlow[T]) -> T:
        async with aclosing(self._run(flow)) as results:
            return await anext(results)

    async def decide(self, event: AnyEvent, *, dry_run: bool = False, idempotency_key: str | None = None) -> DecisionResponse:
        """Decide one event. With `dry_run` nothing is stored: `id` and `decided_at` are None."""
        return await self._result(self._calls.decide(event, dry_run, idempotency_key))

    async def decide_many(
        self, events: _Events, *, idempotency_key: str | None = None, answered: int = 0, dry_run: bool = False
    ) -> AsyncIterator[DecisionResponse | Problem]:
        """Yield the decision of each event in order, or its Problem. With `dry_run` nothing is stored, as by `decide`.

        Events are sent in groups of up to 500 events or 1 MiB; at most one group is held in memory.
        `FLUSH` among the events sends those before it at once.
        To resume after a crash, pass the same events, the same `idempotency_key` and the number of results received (`answered`).
        """
        async for line in self.decide_lines(events, idempotency_key=idempotency_key, answered=answered, dry_run=dry_run):
            yield read_result(line)

    async def decide_summaries(
        self, events: _Events, *, idempotency_key: str | None = None, answered: int = 0, dry_run: bool = False
    ) -> AsyncIterator[BatchSummary | Problem]:
        """Yield of each decision only what is needed to count and find it, else as `decide_many`."""
        lines = self.decide_lines(events, idempotency_key=idempotency_key, answered=answered, dry_run=dry_run, view="summary")
        async for line in lines:
            yield read_summary(line)

    async def decide_lines(
        self,
        events: _Events,
        *,
        idempotency_key: str | None = None,
        answered: int = 0,
        dry_run: bool = False,
        view: BatchView = "full",
    ) -> AsyncIterator[bytes]:
        """Yield the results of `decide_many` as the JSON that the service wrote, with the `index` of each event among all of them."""
        key = idempotency_key or new_key()
        async for chunk in chunks_async(events):
            async with aclosing(self._run(self._calls.decide_chunk(chunk, key, answered, dry_run, view))) as lines:
                async for line in lines:
                    yield line

    async def get(self, identity: str) -> DecisionResponse:
        """Return one decision."""
        return await self._result(self._calls.get(identity))

    async def get_json(self, identity: str) -> bytes:
        """Return one decision as the JSON that the service writes."""
        return await self._result(self._calls.get_json(identity))

    async def alternatives(self, identity: str) -> AlternativesResponse:
        """Return what an unknown fact or another input would change about a decision."""
        return await self._result(self._calls.alternatives(identity))

    async def event(self, identity: str) -> bytes:
        """Return the event of a decision, byte for byte as received by the service."""
        return await self._result(self._calls.event(identity))

    def decisions(self, *, page_size: int = 100, **filters: Unpack[Filters]) -> AsyncIterator[Summary]:
        """Yield decisions, newest first. Pages of `page_size` (1 to 1000) are requested as they are needed."""
        return self._run(self._calls.decisions(filters, page_size))

    async def stats(
        self,
        *,
        group_by: str | Iterable[str] = ("action",),
        bucket: str | int = "hour",
        fill: bool = False,
        **filters: Unpack[Filters],
    ) -> Stats:
        """Return counts for each `bucket` of time: `minute`, `hour`, `day` or a number of seconds; with `fill` also the empty ones."""
        return await self._result(self._calls.stats(group_by, bucket, fill, filters))

    def watch(self, *, last_event_id: str | None = None, **filters: Unpack[Filters]) -> AsyncIterator[StreamItem]:
        """Yield decisions as they are made, after `last_event_id` or from now on. Reconnects when the stream ends."""
        return self._run(self._calls.watch(filters, last_event_id))

    async def put_host(self, source: str, host: Host | Mapping[str, Any], *, if_version: int | None = None) -> StoredHost:
        """Store host facts for a source; with `if_version` only if that is the newest version (0: there are none)."""
        return await self._result(self._calls.put_host(source, host, if_version))

    def hosts(self, *, page_size: int = 100, **filters: Unpack[HostFilters]) -> AsyncIterator[HostEntry]:
        """Yield the sources that have host facts, by name."""
        return self._run(self._calls.hosts(filters, page_size))

    async def host(self, source: str, *, version: int | None = None) -> StoredHost:
        """Return the host facts of a source: the newest version, or `version`."""
        return await self._result(self._calls.host(source, version))

    async def delete_host(self, source: str, *, if_version: int | None = None) -> None:
        """Delete the host facts of a source. Not retried if the response was lost."""
        await self._result(self._calls.delete_host(source, if_version))

    async def poisoned_pages(self, source: str) -> PoisonedPages:
        """Return the pages of a machine that decisions poisoned."""
        return await self._result(self._calls.poisoned_pages(source))

    def all_poisoned_pages(self, *, page_size: int = 100, **filters: Unpack[PoisonFilters]) -> AsyncIterator[PoisonedEntry]:
        """Yield the poisoned pages of all machines, by source and address."""
        return self._run(self._calls.all_poisoned_pages(filters, page_size))

    async def forget_poisoned_pages(self, source: str) -> None:
        """Forget the poisoned pages of a machine, after it was restarted."""
        await self._result(self._calls.forget_poisoned_pages(source))

    async def store(self) -> StoreState:
        """Return size, retention and purges of the store."""
        return await self._result(self._calls.store())

    async def decode(self, data: bytes) -> DecodeResult:
        """Decode a status block or CPER record."""
        return await self._result(self._calls.decode(data))

    async def syndromes(self, **fields: Any) -> SyndromeResponse:
        """Decode `value` or `values`, or predict what KVM does with `vcpu_events`; the fields of `POST /v1/syndromes`."""
        return await self._result(self._calls.syndromes(fields))

    async def create_replay(self, after: str, *, before: str | None = None, **filters: Unpack[Filters]) -> Replay:
        """Have stored events decided again under the policy `after`, and compare with `before`, by default with the stored decisions.

        The replay runs in the service; `replay` returns its progress and results. Not retried if the response was lost.
        """
        return await self._result(self._calls.create_replay(after, before, filters))

    async def replay(self, identity: str) -> Replay:
        """Return a replay with what changes so far."""
        return await self._result(self._calls.replay(identity))

    async def replays(self) -> tuple[ReplayEntry, ...]:
        """Return all replays, newest first."""
        return await self._result(self._calls.replays())

    async def remove_replay(self, identity: str) -> None:
        """Cancel a replay that has not ended, or delete one that has. Not retried if the response was lost."""
        await self._result(self._calls.remove_replay(identity))

    async def policies(self) -> PolicyList:
        """Return all named policies."""
        return await self._result(self._calls.policies())

    async def policy(self, name: str) -> PolicyPage:
        """Return a policy, flag by flag."""
        return await self._result(self._calls.policy(name))

    async def put_policy(self, name: str, definition: Mapping[str, Any]) -> PolicyPage:
        """Store a custom policy: `base`, and optional `notes` and `flags` that differ (docs/policies.md)."""
        return await self._result(self._calls.put_policy(name, definition))

    async def policy_diff(self, a: str, b: str) -> Difference:
        """Return the flags in which two policies differ."""
        return await self._result(self._calls.policy_diff(a, b))

    async def health(self) -> Health:
        """Return whether the service accepts events. Not retried."""
        return await self._result(self._calls.health())

"""Synchronous client."""

# Generated from _async.py by `make client`; do not edit.

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

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
from ras_triage.service.client.chunks import AnyEvent, SentEvent, chunks
from ras_triage.service.client.limits import ResponseLimits, decoded_body, event_source
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

_Events = Iterable[SentEvent]


class _Connection:
    """Performs the effects of a flow, over one connection at a time."""

    def __init__(self, http: httpx.Client, defaults: RequestDefaults, limits: ResponseLimits) -> None:
        self._http = http
        self._limits = limits
        self._defaults = defaults
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] | None = None
        self._events: Iterator[ServerSentEvent] | None = None

    def perform(self, effect: Effect) -> Any:
        match effect:
            case OpenRequest():
                return self._open(effect)
            case ReadBytes():
                assert self._chunks is not None
                return next(self._chunks, None)
            case NextEvent():
                assert self._events is not None
                return next(self._events, None)
            case Pause():
                self.close()
                self._defaults.on_retry(effect.failure, effect.seconds)
                time.sleep(effect.seconds)
                return None

    def _open(self, effect: OpenRequest) -> httpx.Response:
        self.close()
        request = self._defaults.build_request(self._http, effect.request)
        self._response = response = self._http.send(request, stream=True)
        self._chunks = decoded_body(response)
        self._events = event_source(decoded_body(response), self._limits).iter_sse()
        return response

    def close(self) -> None:
        if self._response is not None:
            self._response.close()


class Client(BaseClient[httpx.Client, httpx.BaseTransport]):
    """Synchronous client of the service. Safe to share between threads.

    Every method raises ProblemResponse, Unreachable and UnexpectedResponse; transient failures are retried first, as `retry` says.
    """

    def _open_http(self, transport: httpx.BaseTransport | None, socket: str | None, **options: Any) -> httpx.Client:
        if transport is None and socket is not None:
            transport = httpx.HTTPTransport(uds=socket)
        return httpx.Client(transport=transport, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _run(self, flow: ProtocolFlow[T]) -> Generator[T, None, None]:
        connection = _Connection(self._http, self._defaults, self._calls.limits)
        with closing(flow):
            with closing(connection):
                execution = FlowExecution(flow)
                while (effect := execution.resume()) is not None:
                    if isinstance(effect, Emit):
                        yield effect.result
                        continue
                    try:
                        execution.reply = connection.perform(effect)
                    except httpx.RequestError as error:
                        execution.error = error

    def _result(self, flow: ProtocolFlow[T]) -> T:
        with closing(self._run(flow)) as results:
            return next(results)

    def decide(self, event: AnyEvent, *, dry_run: bool = False, idempotency_key: str | None = None) -> DecisionResponse:
        """Decide one event. With `dry_run` nothing is stored: `id` and `decided_at` are None."""
        return self._result(self._calls.decide(event, dry_run, idempotency_key))

    def decide_many(
        self, events: _Events, *, idempotency_key: str | None = None, answered: int = 0, dry_run: bool = False
    ) -> Iterator[DecisionResponse | Problem]:
        """Yield the decision of each event in order, or its Problem. With `dry_run` nothing is stored, as by `decide`.

        Events are sent in groups of up to 500 events or 1 MiB; at most one group is held in memory.
        `FLUSH` among the events sends those before it at once.
        To resume after a crash, pass the same events, the same `idempotency_key` and the number of results received (`answered`).
        """
        for line in self.decide_lines(events, idempotency_key=idempotency_key, answered=answered, dry_run=dry_run):
            yield read_result(line)

    def decide_summaries(
        self, events: _Events, *, idempotency_key: str | None = None, answered: int = 0, dry_run: bool = False
    ) -> Iterator[BatchSummary | Problem]:
        """Yield of each decision only what is needed to count and find it, else as `decide_many`."""
        lines = self.decide_lines(events, idempotency_key=idempotency_key, answered=answered, dry_run=dry_run, view="summary")
        for line in lines:
            yield read_summary(line)

    def decide_lines(
        self,
        events: _Events,
        *,
        idempotency_key: str | None = None,
        answered: int = 0,
        dry_run: bool = False,
        view: BatchView = "full",
    ) -> Iterator[bytes]:
        """Yield the results of `decide_many` as the JSON that the service wrote, with the `index` of each event among all of them."""
        key = idempotency_key or new_key()
        for chunk in chunks(events):
            with closing(self._run(self._calls.decide_chunk(chunk, key, answered, dry_run, view))) as lines:
                for line in lines:
                    yield line

    def get(self, identity: str) -> DecisionResponse:
        """Return one decision."""
        return self._result(self._calls.get(identity))

    def get_json(self, identity: str) -> bytes:
        """Return one decision as the JSON that the service writes."""
        return self._result(self._calls.get_json(identity))

    def alternatives(self, identity: str) -> AlternativesResponse:
        """Return what an unknown fact or another input would change about a decision."""
        return self._result(self._calls.alternatives(identity))

    def event(self, identity: str) -> bytes:
        """Return the event of a decision, byte for byte as received by the service."""
        return self._result(self._calls.event(identity))

    def decisions(self, *, page_size: int = 100, **filters: Unpack[Filters]) -> Iterator[Summary]:
        """Yield decisions, newest first. Pages of `page_size` (1 to 1000) are requested as they are needed."""
        return self._run(self._calls.decisions(filters, page_size))

    def stats(
        self,
        *,
        group_by: str | Iterable[str] = ("action",),
        bucket: str | int = "hour",
        fill: bool = False,
        **filters: Unpack[Filters],
    ) -> Stats:
        """Return counts for each `bucket` of time: `minute`, `hour`, `day` or a number of seconds; with `fill` also the empty ones."""
        return self._result(self._calls.stats(group_by, bucket, fill, filters))

    def watch(self, *, last_event_id: str | None = None, **filters: Unpack[Filters]) -> Iterator[StreamItem]:
        """Yield decisions as they are made, after `last_event_id` or from now on. Reconnects when the stream ends."""
        return self._run(self._calls.watch(filters, last_event_id))

    def put_host(self, source: str, host: Host | Mapping[str, Any], *, if_version: int | None = None) -> StoredHost:
        """Store host facts for a source; with `if_version` only if that is the newest version (0: there are none)."""
        return self._result(self._calls.put_host(source, host, if_version))

    def hosts(self, *, page_size: int = 100, **filters: Unpack[HostFilters]) -> Iterator[HostEntry]:
        """Yield the sources that have host facts, by name."""
        return self._run(self._calls.hosts(filters, page_size))

    def host(self, source: str, *, version: int | None = None) -> StoredHost:
        """Return the host facts of a source: the newest version, or `version`."""
        return self._result(self._calls.host(source, version))

    def delete_host(self, source: str, *, if_version: int | None = None) -> None:
        """Delete the host facts of a source. Not retried if the response was lost."""
        self._result(self._calls.delete_host(source, if_version))

    def poisoned_pages(self, source: str) -> PoisonedPages:
        """Return the pages of a machine that decisions poisoned."""
        return self._result(self._calls.poisoned_pages(source))

    def all_poisoned_pages(self, *, page_size: int = 100, **filters: Unpack[PoisonFilters]) -> Iterator[PoisonedEntry]:
        """Yield the poisoned pages of all machines, by source and address."""
        return self._run(self._calls.all_poisoned_pages(filters, page_size))

    def forget_poisoned_pages(self, source: str) -> None:
        """Forget the poisoned pages of a machine, after it was restarted."""
        self._result(self._calls.forget_poisoned_pages(source))

    def store(self) -> StoreState:
        """Return size, retention and purges of the store."""
        return self._result(self._calls.store())

    def decode(self, data: bytes) -> DecodeResult:
        """Decode a status block or CPER record."""
        return self._result(self._calls.decode(data))

    def syndromes(self, **fields: Any) -> SyndromeResponse:
        """Decode `value` or `values`, or predict what KVM does with `vcpu_events`; the fields of `POST /v1/syndromes`."""
        return self._result(self._calls.syndromes(fields))

    def create_replay(self, after: str, *, before: str | None = None, **filters: Unpack[Filters]) -> Replay:
        """Have stored events decided again under the policy `after`, and compare with `before`, by default with the stored decisions.

        The replay runs in the service; `replay` returns its progress and results. Not retried if the response was lost.
        """
        return self._result(self._calls.create_replay(after, before, filters))

    def replay(self, identity: str) -> Replay:
        """Return a replay with what changes so far."""
        return self._result(self._calls.replay(identity))

    def replays(self) -> tuple[ReplayEntry, ...]:
        """Return all replays, newest first."""
        return self._result(self._calls.replays())

    def remove_replay(self, identity: str) -> None:
        """Cancel a replay that has not ended, or delete one that has. Not retried if the response was lost."""
        self._result(self._calls.remove_replay(identity))

    def policies(self) -> PolicyList:
        """Return all named policies."""
        return self._result(self._calls.policies())

    def policy(self, name: str) -> PolicyPage:
        """Return a policy, flag by flag."""
        return self._result(self._calls.policy(name))

    def put_policy(self, name: str, definition: Mapping[str, Any]) -> PolicyPage:
        """Store a custom policy: `base`, and optional `notes` and `flags` that differ (docs/policies.md)."""
        return self._result(self._calls.put_policy(name, definition))

    def policy_diff(self, a: str, b: str) -> Difference:
        """Return the flags in which two policies differ."""
        return self._result(self._calls.policy_diff(a, b))

    def health(self) -> Health:
        """Return whether the service accepts events. Not retried."""
        return self._result(self._calls.health())

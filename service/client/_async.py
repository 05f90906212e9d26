"""The client for asyncio, and for whatever else anyio runs on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import aclosing, closing
from copy import copy
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import anyio
import httpx
from httpx_sse import ServerSentEvent

from ras_triage.models.host import Host
from ras_triage.service.api.decision_response import DecisionResponse
from ras_triage.service.api.policy_pages import Difference, PolicyList, PolicyPage
from ras_triage.service.api.problems import Problem
from ras_triage.service.api.syndromes import SyndromeAnswer
from ras_triage.service.client._calls import Calls, Filters, new_key, read_answer
from ras_triage.service.client._protocol import Effect, Emit, NextEvent, OpenRequest, Pause, ProtocolFlow, ReadBytes
from ras_triage.service.client._request import DEFAULT_URL, OnRetry, RequestDefaults, Token, ignore_retry, tls
from ras_triage.service.client.chunks import AnyEvent, chunks_async
from ras_triage.service.client.limits import AnswerLimits, event_source, no_cookies, unpacked_async
from ras_triage.service.client.results import Decoded, Health, KeptHost, PoisonedPages, Stats, StoreState, Summary, Watched
from ras_triage.service.client.retry import Retry

T = TypeVar("T")


class _Wire:
    """Does what a flow wants done, over one connection at a time."""

    def __init__(self, http: httpx.AsyncClient, outgoing: RequestDefaults, limits: AnswerLimits) -> None:
        self._http = http
        self._limits = limits
        self._outgoing = outgoing
        self._response: httpx.Response | None = None
        self._parts: AsyncIterator[bytes] | None = None
        self._events: AsyncIterator[ServerSentEvent] | None = None

    async def do(self, effect: Effect) -> Any:
        match effect:
            case OpenRequest():
                return await self._open(effect)
            case ReadBytes():
                assert self._parts is not None
                return await anext(self._parts, None)
            case NextEvent():
                assert self._events is not None
                return await anext(self._events, None)
            case Pause():
                await self.aclose()
                self._outgoing.on_retry(effect.failure, effect.seconds)
                await anyio.sleep(effect.seconds)
                return None

    async def _open(self, effect: OpenRequest) -> httpx.Response:
        await self.aclose()
        asked, out = effect.request, self._outgoing
        request = self._http.build_request(
            asked.method,
            asked.path,
            params=asked.params,
            headers=out.headers_of(asked),
            content=asked.content,
            timeout=out.timeout_of(asked),
        )
        self._response = response = await self._http.send(request, stream=True)
        self._parts = unpacked_async(response)
        self._events = event_source(unpacked_async(response), self._limits).aiter_sse()
        return response

    async def aclose(self) -> None:
        if self._response is not None:
            await self._response.aclose()


class AsyncClient:
    """The calls of `Client`, to be awaited; what is an iterator there is an asynchronous one here. Belongs to one event loop.

    Every method raises ProblemAnswer, Unreachable and UnexpectedAnswer; what asking again can mend is asked again first, as `retry` says.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        token: Token | None = None,
        ca_file: Path | str | None = None,
        timeout_s: float = 30.0,
        retry: Retry | None = None,
        limits: AnswerLimits | None = None,
        headers: Mapping[str, str] | None = None,
        on_retry: OnRetry = ignore_retry,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`token`: an API key or JWT, or what gives one, asked before every request. `timeout_s`: seconds without a byte.

        `limits`: how much of an answer is read (default: AnswerLimits()). Redirects are not followed, and cookies are not kept.
        `on_retry` hears of every failure that is made up for by asking again, and after how many seconds.
        """
        self._http = httpx.AsyncClient(
            base_url=base_url, verify=tls(ca_file), transport=transport, follow_redirects=False, cookies=no_cookies()
        )
        self._outgoing = RequestDefaults(timeout_s, on_retry, token, headers or {})
        self._ask = Calls(retry or Retry(), limits or AnswerLimits())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    def with_headers(self, headers: Mapping[str, str]) -> Self:
        """This client, over the same connections, with more headers: a `traceparent`, an `X-Request-Id`."""
        other = copy(self)
        other._outgoing = self._outgoing.extended(headers)
        return other

    async def _all(self, flow: ProtocolFlow[T]) -> AsyncGenerator[T, None]:
        wire = _Wire(self._http, self._outgoing, self._ask.limits)
        with closing(flow):
            async with aclosing(wire):
                reply: Any = None
                error: httpx.RequestError | None = None
                while True:
                    try:
                        effect = flow.send(reply) if error is None else flow.throw(error)
                    except StopIteration:
                        return
                    reply = error = None
                    if isinstance(effect, Emit):
                        yield effect.result
                        continue
                    try:
                        reply = await wire.do(effect)
                    except httpx.RequestError as failed:
                        error = failed

    async def _one(self, flow: ProtocolFlow[T]) -> T:
        async with aclosing(self._all(flow)) as results:
            return await anext(results)

    async def decide(self, event: AnyEvent, *, dry_run: bool = False, idempotency_key: str | None = None) -> DecisionResponse:
        """Decide one event. With `dry_run` nothing is kept: `id` and `decided_at` are None."""
        return await self._one(self._ask.decide(event, dry_run, idempotency_key))

    async def decide_many(
        self, events: AsyncIterable[AnyEvent] | Iterable[AnyEvent], *, idempotency_key: str | None = None, answered: int = 0
    ) -> AsyncIterator[DecisionResponse | Problem]:
        """The answer to each event, in order; a Problem in the place of one that was refused.

        Events are taken, sent and answered in groups of up to 500 events or 1 MiB, and no more than one group is held.
        To go on after a crash, give the same events, the same `idempotency_key` and how many were `answered`: those are passed over.
        """
        async for line in self.decide_lines(events, idempotency_key=idempotency_key, answered=answered):
            yield read_answer(line)

    async def decide_lines(
        self, events: AsyncIterable[AnyEvent] | Iterable[AnyEvent], *, idempotency_key: str | None = None, answered: int = 0
    ) -> AsyncIterator[bytes]:
        """`decide_many`, with answers and problems as the service wrote them."""
        key = idempotency_key or new_key()
        async for chunk in chunks_async(events):
            async with aclosing(self._all(self._ask.decide_chunk(chunk, key, answered))) as lines:
                async for line in lines:
                    yield line

    async def get(self, identity: str) -> DecisionResponse:
        """One decision, whole."""
        return await self._one(self._ask.get(identity))

    async def get_json(self, identity: str) -> bytes:
        """One decision as the service writes it."""
        return await self._one(self._ask.get_json(identity))

    async def event(self, identity: str) -> bytes:
        """The event that a decision was made for, as it was sent."""
        return await self._one(self._ask.event(identity))

    def decisions(self, *, page_size: int = 100, **filters: Unpack[Filters]) -> AsyncIterator[Summary]:
        """Decisions, newest first. Pages of `page_size` (1 to 1000) are asked for as they are needed."""
        return self._all(self._ask.decisions(filters, page_size))

    async def stats(self, *, group_by: Iterable[str] = ("action",), bucket: str | int = "hour", **filters: Unpack[Filters]) -> Stats:
        """Counts over spans of time: `minute`, `hour`, `day` or a number of seconds."""
        return await self._one(self._ask.stats(group_by, bucket, filters))

    def watch(self, *, last_event_id: str | None = None, **filters: Unpack[Filters]) -> AsyncIterator[Watched]:
        """Decisions as they are made, from behind `last_event_id` on or from now; where the stream ends it is taken up again."""
        return self._all(self._ask.watch(filters, last_event_id))

    async def put_host(self, source: str, host: Host | Mapping[str, Any], *, if_version: int | None = None) -> KeptHost:
        """Keep facts for a source; with `if_version` only where that is the newest version, 0 where there are none."""
        return await self._one(self._ask.put_host(source, host, if_version))

    async def host(self, source: str, *, version: int | None = None) -> KeptHost:
        """The facts kept for a source: the newest, or a version."""
        return await self._one(self._ask.host(source, version))

    async def delete_host(self, source: str, *, if_version: int | None = None) -> None:
        """Keep no facts for a source any more. Not asked again where the answer was lost."""
        await self._one(self._ask.delete_host(source, if_version))

    async def poisoned_pages(self, source: str) -> PoisonedPages:
        """The pages that decisions poisoned on a machine."""
        return await self._one(self._ask.poisoned_pages(source))

    async def forget_poisoned_pages(self, source: str) -> None:
        """The machine was started again: its pages are good."""
        await self._one(self._ask.forget_poisoned_pages(source))

    async def store(self) -> StoreState:
        """How much is kept, for how long, and what was purged."""
        return await self._one(self._ask.store())

    async def decode(self, data: bytes) -> Decoded:
        """A status block or CPER record as fields."""
        return await self._one(self._ask.decode(data))

    async def syndromes(self, **question: Any) -> SyndromeAnswer:
        """`value` or `values` explained, or what KVM makes of `vcpu_events`; the fields of `POST /v1/syndromes`."""
        return await self._one(self._ask.syndromes(question))

    async def policies(self) -> PolicyList:
        """Every policy with a name of its own."""
        return await self._one(self._ask.policies())

    async def policy(self, name: str) -> PolicyPage:
        """A policy, flag by flag."""
        return await self._one(self._ask.policy(name))

    async def policy_diff(self, a: str, b: str) -> Difference:
        """The flags in which two policies differ."""
        return await self._one(self._ask.policy_diff(a, b))

    async def health(self) -> Health:
        """Whether the service takes decisions. Asked once."""
        return await self._one(self._ask.health())

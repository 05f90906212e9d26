"""Response with an event stream, closed if its client does not read."""

from __future__ import annotations

from time import monotonic

from fastapi.sse import EventSourceResponse
from starlette.types import Message, Receive, Scope, Send

from ras_triage.service.http.limits.concurrency import ActiveRequest
from ras_triage.service.http.streamed_response import UNBUFFERED
from ras_triage.service.http.streaming.subscriptions import Subscription
from ras_triage.service.telemetry import logs


class EventStream(EventSourceResponse):
    """Response with the events of one subscription.

    FastAPI can encode what a route yields, but one event and one subscriber at a time. Here subscribers of a filter share rendered events,
    a heartbeat has the current `id`, and the connection of a client that does not read is closed.
    """

    def __init__(self, subscription: Subscription) -> None:
        super().__init__(subscription.events(), headers={"cache-control": "no-store", **UNBUFFERED})
        self._subscription = subscription

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        subscription = self._subscription

        async def send_and_watch(message: Message) -> None:
            subscription.waiting_since = monotonic()
            await send(message)
            subscription.waiting_since = None

        request: ActiveRequest | None = scope.get("active_request")
        if request is not None and request.connection is not None:
            request.connection.shrink_send_buffers()
            subscription.disconnect = request.connection.abort
        try:
            await super().__call__(scope, receive, send_and_watch)
        finally:
            subscription.close()
            if subscription.stalled:
                logs.bind(dropped="client does not read")

"""Bridge from NATS JetStream to ras-triage: acknowledges messages when their decisions are durable.

Needs `pip install nats-py` and ras-triage. A key for the service is in RAS_TRIAGE_TOKEN.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from argparse import Namespace

import nats
from messages import connection, identified, is_refused, parser
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from ras_triage import AsyncClient


async def read_batch(subscription: JetStreamContext.PullSubscription) -> list[Msg]:
    """Return the next messages, none after a second without one."""
    try:
        return await subscription.fetch(500, timeout=1.0)
    except nats.errors.TimeoutError:
        return []


def position_of(message: Msg) -> str:
    """Return where a message is, with its time: a stream that is made anew counts from 1 again."""
    position = message.metadata
    return f"{position.stream}/{position.sequence.stream}@{position.timestamp.isoformat()}"


async def forward(messages: list[Msg], client: AsyncClient, stream: JetStreamContext, options: Namespace) -> None:
    """Have messages decided, and acknowledge each when the streams have its result."""
    events = [identified(message.data, position_of(message)) for message in messages]
    waiting = iter(messages)
    async for result in client.decide_lines(events):
        message = next(waiting)
        if is_refused(result):
            await stream.publish(options.rejected, message.data, headers={"problem": result.decode()})
        elif options.decisions:
            await stream.publish(options.decisions, result)
        await message.ack()


async def main() -> int:
    """Forward messages until SIGTERM or SIGINT. A failure ends the program; what was not acknowledged is delivered again."""
    options_of = parser("Have ras-triage decide the events of a NATS JetStream stream.")
    options_of.add_argument("--nats", default="nats://127.0.0.1:4222", metavar="URL", help="NATS server (default: %(default)s)")
    options_of.add_argument("--credentials", metavar="FILE", help="credentials for NATS")
    options_of.add_argument("--stream", required=True)
    options_of.add_argument("--subject", required=True, help="subject of the stream with the events")
    options_of.add_argument("--consumer", default="ras-triage", help="durable consumer (default: %(default)s)")
    options = options_of.parse_args()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)

    queue = await nats.connect(options.nats, user_credentials=options.credentials)
    stream = queue.jetstream()
    subscription = await stream.pull_subscribe(options.subject, durable=options.consumer, stream=options.stream)
    async with AsyncClient(**connection(options)) as client:
        while not stopping.is_set():
            await forward(await read_batch(subscription), client, stream, options)
    await queue.flush()
    await queue.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

"""Bridges of deploy/: messages of a queue are decided, and acknowledged only when their decisions are durable."""

from __future__ import annotations

import asyncio
import json
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import httpx
import nats
import pytest
from confluent_kafka import OFFSET_INVALID, Consumer, Producer, TopicPartition
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from tests.paths import ROOT
from tests.service.support.server_process import Service, serving
from tests.tools import missing_programs, require

T = TypeVar("T")

MESSAGES: Final = (
    b'{"source": "node-1", "notification": "polled"}',
    b'{"source": "node-1", "notification": "seax"}',
    b'{"source": "node-1", "notification": "sea", "id": "e-7"}',
    b"no JSON",
)
REFUSED: Final = {MESSAGES[1]: "invalid-event", MESSAGES[3]: "invalid-json"}


@pytest.mark.parametrize(
    ("message", "identity"),
    [
        (b'{"notification": "polled"}', "ras/0/7"),
        (b'{"notification": "polled", "id": null}', "ras/0/7"),
        (b'{"notification": "polled", "id": "e-7"}', "e-7"),
    ],
)
def test_an_event_without_an_id_gets_the_position_of_its_message(message: bytes, identity: str) -> None:
    identified = runpy.run_path(str(ROOT / "deploy" / "bridges" / "messages.py"))["identified"]
    assert json.loads(identified(message, "ras/0/7"))["id"] == identity


@pytest.fixture
def stopped_service(tmp_path: Path) -> Iterator[Service]:
    """A service that does not run; it has an address of its own."""
    with serving("--store", f"sqlite:///{tmp_path}/store.db") as service:
        service.kill()
        yield service


@contextmanager
def bridge(name: str, service: Service, *options: str) -> Iterator[IO[str]]:
    """A bridge that runs for as long as the context lasts: its standard error."""
    command = [sys.executable, f"deploy/bridges/{name}_bridge.py", "--service", service.url, "--rejected", "rejected", *options]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        yield process.stderr
        process.terminate()
        assert process.wait(timeout=30) == 0, process.stderr.read()
    finally:
        process.kill()
        process.stderr.close()


def wait_for(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)


def decided(service: Service) -> list[str]:
    """Return the ids of the events that the service has decided."""
    listed = httpx.get(f"{service.url}/v1/decisions").json()["decisions"]
    return [httpx.get(f"{service.url}/v1/decisions/{row['id']}/event").json().get("id", "") for row in listed]


def event_keys(service: Service) -> set[str]:
    listed = httpx.get(f"{service.url}/v1/decisions").json()["decisions"]
    return {httpx.get(f"{service.url}/v1/decisions/{row['id']}").json()["event_key"] for row in listed}


def kind_of(problem: str | bytes) -> str:
    """Return the type of a problem without its prefix."""
    return str(json.loads(problem)["type"]).rpartition(":")[2]


# Kafka


@pytest.fixture
def brokers() -> Iterator[str]:
    """Address of a broker that librdkafka mocks for as long as the producer exists, with the messages."""
    cluster = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 1, "log_level": 0})
    for message in MESSAGES:
        cluster.produce("events", message, partition=0)
    assert cluster.flush(30) == 0
    (broker,) = cluster.list_topics().brokers.values()
    yield f"{broker.host}:{broker.port}"
    del cluster


def committed(brokers: str, group: str) -> int:
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": group})
    (partition,) = consumer.committed([TopicPartition("events", 0)], timeout=10)
    consumer.close()
    return int(partition.offset)


def read(brokers: str, topic: str, count: int) -> list[Any]:
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "reader"})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(4)])
    messages = consumer.consume(count, timeout=30)
    consumer.close()
    return messages


def test_an_offset_of_kafka_is_committed_when_the_decisions_before_it_are_durable(stopped_service: Service, brokers: str) -> None:
    options = ("--brokers", brokers, "--topic", "events", "--decisions", "decisions", "--option", "client.id=bridge-1")
    with bridge("kafka", stopped_service, *options) as log:
        assert log.readline().startswith("retry in ")
        assert committed(brokers, "ras-triage") == OFFSET_INVALID
        stopped_service.start()
        wait_for(lambda: committed(brokers, "ras-triage") == len(MESSAGES))
    assert {identity.partition("@")[0] for identity in decided(stopped_service)} == {"events/0/0", "e-7"}

    rejected = {message.value(): dict(message.headers())["problem"] for message in read(brokers, "rejected", 2)}
    assert {message: kind_of(problem) for message, problem in rejected.items()} == REFUSED
    assert {json.loads(message.value())["event_key"] for message in read(brokers, "decisions", 2)} == event_keys(stopped_service)


# NATS


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Address of a NATS server with JetStream."""
    require(missing_programs("nats-server"), "nats-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["nats-server", "-js", "-a", "127.0.0.1", "-p", str(port), "-sd", str(tmp_path / "jetstream")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "Server is ready" not in process.stderr.readline():
        assert process.poll() is None
    yield f"nats://127.0.0.1:{port}"
    process.kill()
    process.wait()
    process.stderr.close()


def ask(server: str, question: Callable[[JetStreamContext], Awaitable[T]]) -> T:
    """Return what a JetStream answers."""

    async def asked() -> T:
        connection = await nats.connect(server)
        try:
            return await question(connection.jetstream())
        finally:
            await connection.close()

    return asyncio.run(asked())


async def publish_messages(stream: JetStreamContext) -> None:
    await stream.add_stream(name="events", subjects=["events"])
    await stream.add_stream(name="results", subjects=["decisions", "rejected"])
    for message in MESSAGES:
        await stream.publish("events", message)


def unacknowledged(server: str, consumer: str) -> int:
    async def count(stream: JetStreamContext) -> int:
        try:
            info = await stream.consumer_info("events", consumer)
        except NotFoundError:
            return len(MESSAGES)
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    return ask(server, count)


async def results(stream: JetStreamContext) -> list[tuple[str, bytes, dict[str, str]]]:
    """Return subject, content and headers of all results."""
    subscription = await stream.pull_subscribe("", stream="results", durable="reader")
    return [(message.subject, message.data, message.headers or {}) for message in await subscription.fetch(4, timeout=10)]


def test_a_message_of_nats_is_acknowledged_when_its_decision_is_durable(stopped_service: Service, server: str) -> None:
    ask(server, publish_messages)
    options = ("--nats", server, "--stream", "events", "--subject", "events", "--decisions", "decisions")
    with bridge("nats", stopped_service, *options) as log:
        assert log.readline().startswith("retry in ")
        assert unacknowledged(server, "ras-triage") == len(MESSAGES)
        stopped_service.start()
        wait_for(lambda: unacknowledged(server, "ras-triage") == 0)
    assert {identity.partition("@")[0] for identity in decided(stopped_service)} == {"events/1", "e-7"}

    found = ask(server, results)
    assert {data: kind_of(headers["problem"]) for subject, data, headers in found if subject == "rejected"} == REFUSED
    assert {json.loads(data)["event_key"] for subject, data, _ in found if subject == "decisions"} == event_keys(stopped_service)

    with bridge("nats", stopped_service, *options, "--consumer", "again"):
        wait_for(lambda: unacknowledged(server, "again") == 0)
    assert len(decided(stopped_service)) == 2, "a message that is delivered again is decided once"

"""Bridge from Kafka to ras-triage: commits offsets when the decisions of their messages are durable.

Needs `pip install confluent-kafka` and ras-triage. A key for the service is in RAS_TRIAGE_TOKEN.
"""

from __future__ import annotations

import signal
import sys
from argparse import Namespace

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from messages import connection, identified, is_refused, parser

from ras_triage import Client


def read_batch(consumer: Consumer) -> list[Message]:
    """Return the next messages, none after a second without one."""
    messages = consumer.consume(num_messages=500, timeout=1.0)
    for message in messages:
        if message.error() is not None:
            raise KafkaException(message.error())
    return messages


def position_of(message: Message) -> str:
    """Return where a message is, with its time: a topic that is made anew counts from 0 again."""
    return f"{message.topic()}/{message.partition()}/{message.offset()}@{message.timestamp()[1]}"


def forward(messages: list[Message], client: Client, producer: Producer, options: Namespace) -> None:
    """Have messages decided, and return when the brokers have all results."""
    events = [identified(message.value() or b"", position_of(message)) for message in messages]
    failures: list[KafkaError] = []

    def note(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    for message, result in zip(messages, client.decide_lines(events), strict=True):
        if is_refused(result):
            producer.produce(options.rejected, message.value(), message.key(), on_delivery=note, headers=[("problem", result)])
        elif options.decisions:
            producer.produce(options.decisions, result, message.key(), on_delivery=note)
    if producer.flush(60) or failures:
        raise KafkaException(*failures[:1])


def main() -> int:
    """Forward messages until SIGTERM or SIGINT. A failure ends the program; a restart continues after the last commit."""
    options_of = parser("Have ras-triage decide the events of a Kafka topic.")
    options_of.add_argument("--brokers", required=True, metavar="HOST:PORT[,...]")
    options_of.add_argument("--topic", required=True)
    options_of.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of librdkafka; may be repeated")
    options_of.add_argument("--group", default="ras-triage", help="consumer group (default: %(default)s)")
    options = options_of.parse_args()
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stopping.append(received))

    brokers = {"bootstrap.servers": options.brokers} | dict(option.split("=", 1) for option in options.option)
    consumer = Consumer({**brokers, "group.id": options.group, "auto.offset.reset": "earliest", "enable.auto.commit": False})
    producer = Producer({**brokers, "enable.idempotence": True})
    consumer.subscribe([options.topic])
    with Client(**connection(options)) as client:
        while not stopping:
            if messages := read_batch(consumer):
                forward(messages, client, producer, options)
                consumer.commit(asynchronous=False)
    consumer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

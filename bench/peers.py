"""The same errors through this service and through other decision servers, in turns: rate, processor time and response times.

usage: python bench/peers.py [--seconds S] [--turns N] [--server NAME URL TEMPLATE]... [servers] [engines]

servers: this service (single and dry run at 64 connections; batches of 50 and of 20,000), Cerbos if `cerbos` is on the path
         (`npm install cerbos@0.51`), and each `--server`: a URL that takes a POST, and a file with the JSON body in which `$event` stands
         for the event and `$id` for its number.
engines: `ras_triage.decide` and the engines that are installed of `zen-engine` and `cedarpy`, in this process (bench/engines.py).

The policies in bench/peer_policies/ decide only what these events need, without a reason, and keep nothing. It is checked first that they
come to the same actions. Processor time is that of the server with all its processes; the load is sent from this process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count, cycle, islice
from pathlib import Path
from string import Template
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
from engines import compare_engines
from error_stream import error_stream
from http_load import Address, post_request, send_load
from processes import listener, machine, processor_time
from ratios import keep

POLICIES = Path(__file__).parent / "peer_policies"
LOCAL = "127.0.0.1"
CONNECTIONS, BATCH_CONNECTIONS = 64, 16
EVENTS = 2000
SMALL_BATCH, LARGE_BATCH = 50, 20_000
"""Cerbos takes 50 resources in a request unless it is told otherwise."""
OURS = ("single", "dry run", "batches of 50", "batch of 20,000")


@dataclass(frozen=True)
class Side:
    """One way to have decisions made."""

    name: str
    address: Address
    requests: Iterator[bytes]
    pid: int | None
    decisions: int = 1
    """Of each request."""
    connections: int = CONNECTIONS


class Turn(NamedTuple):
    """What one turn of a side came to."""

    rate: float
    processor_us: float
    """Microseconds of processor time for each decision; NaN where the process is on another machine."""
    p50_ms: float
    p99_ms: float


def run_turn(side: Side, seconds: float) -> Turn:
    before = processor_time(side.pid) if side.pid else float("nan")
    load = send_load(side.address, side.requests, side.connections, seconds)
    spent = processor_time(side.pid) - before if side.pid else float("nan")
    decisions = len(load.latencies) * side.decisions
    return Turn(decisions / load.seconds, spent / decisions * 1e6, load.percentile(50) * 1e3, load.percentile(99) * 1e3)


# The servers


def started(stack: ExitStack, command: list[str], folder: Path, port: int, health: str) -> int:
    """Start a server that ends with the stack, and return its process id when it answers."""
    log = stack.enter_context((folder / f"{port}.log").open("w"))
    process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, process_group=0)
    stack.callback(process.wait)
    stack.callback(os.killpg, process.pid, signal.SIGTERM)  # npm's `cerbos` does not pass a signal on to the server
    for _ in range(300):
        try:
            httpx.get(f"http://{LOCAL}:{port}{health}")
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return process.pid
    raise SystemExit(f"{command[0]} does not answer: {(folder / f'{port}.log').read_text()}")


def free_port() -> int:
    with socket.create_server((LOCAL, 0)) as free:
        return int(free.getsockname()[1])


_NUMBERS = count()


def named(event: bytes) -> bytes:
    """Return the event with an id that no other has: it is new to the service."""
    return b'{"id":"e-%d",' % next(_NUMBERS) + event[1:]


def our_sides(stack: ExitStack, folder: Path, events: list[bytes]) -> list[Side]:
    port = free_port()
    command = [sys.executable, "-m", "ras_triage.service.cli.main", "serve", "--port", str(port), "--store", f"sqlite:///{folder / 's.db'}"]
    pid = started(stack, command, folder, port, "/healthz")
    stream = cycle(events)

    def singles(path: str) -> Iterator[bytes]:
        return (post_request(path, named(event)) for event in stream)

    def batches(size: int) -> Iterator[bytes]:
        path, media_type = "/v1/decisions/batch", "application/x-ndjson"
        return (post_request(path, b"\n".join(map(named, islice(stream, size))), media_type) for _ in count())

    address = (LOCAL, port)
    single, dry_run, small, large = (f"ras-triage, {name}" for name in OURS)
    return [
        Side(single, address, singles("/v1/decisions"), pid),
        Side(dry_run, address, singles("/v1/decisions?dry_run=true"), pid),
        Side(small, address, batches(SMALL_BATCH), pid, SMALL_BATCH, BATCH_CONNECTIONS),
        Side(large, address, batches(LARGE_BATCH), pid, LARGE_BATCH, 1),
    ]


def cerbos_sides(stack: ExitStack, folder: Path, events: list[dict[str, Any]]) -> list[Side]:
    program = shutil.which("cerbos")
    if program is None:
        print("Cerbos: not measured, `cerbos` is not on the path (`npm install cerbos@0.51` has it)", flush=True)
        return []
    port = free_port()
    policies = folder / "cerbos"
    policies.mkdir()
    shutil.copy(POLICIES / "cerbos.yaml", policies)
    config = {
        "server": {"httpListenAddr": f"{LOCAL}:{port}", "grpcListenAddr": f"{LOCAL}:{free_port()}"},
        "storage": {"driver": "disk", "disk": {"directory": str(policies)}},
        "telemetry": {"disabled": True},
    }
    (folder / "cerbos.json").write_text(json.dumps(config))
    pid = started(stack, [program, "server", f"--config={folder / 'cerbos.json'}"], folder, port, "/_cerbos/health")

    def requests(size: int) -> Iterator[bytes]:
        return cycle([post_request("/api/check/resources", cerbos_body(events[at : at + size])) for at in range(0, len(events), size)])

    address = (LOCAL, port)
    return [
        Side("Cerbos, one a request", address, requests(1), pid),
        Side("Cerbos, 50 a request", address, requests(SMALL_BATCH), pid, SMALL_BATCH, BATCH_CONNECTIONS),
    ]


def cerbos_body(events: list[dict[str, Any]]) -> bytes:
    resources = [
        {"actions": ["panic", "inject", "signal"], "resource": {"kind": "hardware_error", "id": str(number), "attr": event}}
        for number, event in enumerate(events)
    ]
    return compact({"requestId": "r", "principal": {"id": "s", "roles": ["service"]}, "resources": resources})


def other_side(name: str, url: str, template: str, events: list[bytes]) -> Side:
    """A server that is running already; `template` is a file."""
    parts = urlsplit(url)
    address = (parts.hostname or LOCAL, parts.port or 80)
    body = Template(Path(template).read_text(encoding="utf-8"))
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    bodies = [body.substitute(event=event.decode(), id=number).encode() for number, event in enumerate(events)]
    pid = listener(address[1]) if address[0] in {LOCAL, "localhost", "::1"} else None
    return Side(f"{name}, one a request", address, cycle([post_request(path, body) for body in bodies]), pid)


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# Whether they decide the same


def our_actions(side: Side, events: list[dict[str, Any]]) -> list[str]:
    with httpx.Client(base_url=f"http://{LOCAL}:{side.address[1]}") as client:
        return [client.post("/v1/decisions?dry_run=true", json=event).raise_for_status().json()["action"] for event in events]


def cerbos_actions(side: Side, events: list[dict[str, Any]]) -> list[str]:
    bodies = [cerbos_body(events[start : start + SMALL_BATCH]) for start in range(0, len(events), SMALL_BATCH)]
    with httpx.Client(base_url=f"http://{LOCAL}:{side.address[1]}") as client:
        answers = [client.post("/api/check/resources", content=body).raise_for_status().json() for body in bodies]
    return [allowed_action(result["actions"]) for answer in answers for result in answer["results"]]


def allowed_action(effects: dict[str, str]) -> str:
    return next((action for action, effect in effects.items() if effect == "EFFECT_ALLOW"), "handled")


def require_agreement(ours: list[Side], cerbos: list[Side], events: list[dict[str, Any]]) -> None:
    if not cerbos:
        return
    pairs = list(zip(our_actions(ours[0], events), cerbos_actions(cerbos[0], events), strict=True))
    if apart := [pair for pair in pairs if pair[0] != pair[1]]:
        raise SystemExit(f"Cerbos decides {len(apart)} of {len(pairs)} events otherwise, such as {apart[0]}")
    print(f"Cerbos comes to the same action for each of {len(pairs)} events", flush=True)


# What comes of it


def report(turns: dict[str, list[Turn]]) -> None:
    print(f"{'':29} {'decisions/s':>12} {'processor time each':>20} {'p50':>11} {'p99':>11}")
    for name, taken in turns.items():
        rate, processor, p50, p99 = (statistics.median(column) for column in zip(*taken, strict=True))
        print(f"{name:29} {rate:>12,.0f} {processor:>17,.0f} us {p50:>8,.1f} ms {p99:>8,.1f} ms")


def keep_ratios(turns: dict[str, list[Turn]]) -> None:
    """Keep our processor time against that of the others for the same size of request, and print it."""
    for ours, theirs in ((ours, theirs) for theirs in turns for ours in turns if is_ours(ours) and not is_ours(theirs)):
        if ("batch" in ours) == ("50 a request" in theirs):
            pairs = zip(turns[ours], turns[theirs], strict=True)
            ratio = statistics.median(one.processor_us / other.processor_us for one, other in pairs)
            keep(f"{ours}: processor time of a decision", f"{theirs}, a simplified policy, kept nowhere", ratio)
            print(f"  {ours} takes {ratio:.2f} of the processor time of {theirs}", flush=True)


def is_ours(name: str) -> bool:
    return name.startswith("ras-triage")


def compare_servers(seconds: float, number_of_turns: int, others: list[list[str]]) -> None:
    events = list(error_stream(EVENTS))
    lines = list(map(compact, events))
    print(f"{machine()}; events of {statistics.mean(map(len, lines)):.0f} bytes", flush=True)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ours, cerbos = our_sides(stack, Path(folder), lines), cerbos_sides(stack, Path(folder), events)
        require_agreement(ours, cerbos, events)
        sides = [*ours, *cerbos, *(other_side(name, url, template, lines) for name, url, template in others)]
        for side in sides:
            run_turn(side, 0.5)
        turns = [[run_turn(side, seconds) for side in sides] for _ in range(number_of_turns)]
    by_side = {side.name: [turn[index] for turn in turns] for index, side in enumerate(sides)}
    report(by_side)
    keep_ratios(by_side)


def main() -> None:
    parts: dict[str, Callable[[argparse.Namespace], None]] = {
        "servers": lambda options: compare_servers(options.seconds, options.turns, options.server),
        "engines": lambda options: compare_engines(options.turns),
    }
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("what", nargs="*", metavar="servers|engines")
    arguments.add_argument("--seconds", type=float, default=4)
    arguments.add_argument("--turns", type=int, default=5)
    arguments.add_argument("--server", nargs=3, action="append", default=[], metavar=("NAME", "URL", "TEMPLATE"))
    chosen = arguments.parse_args()
    for name in chosen.what or parts:
        parts[name](chosen)


if __name__ == "__main__":
    main()

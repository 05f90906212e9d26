"""The service under load, as ratios within one run: single decisions, batches, and what it comes to with many decisions kept.

usage: python bench/load.py [--seconds S] [--events N] [--folder PATH] [singles] [batches] [growth]

(a) singles: `POST /v1/decisions` at 64 connections, durable, against an endpoint of the same server that reads, validates and echoes the
    same body.
(b) batches: events per second of an NDJSON batch, durable, against a plain loop that validates each event and serialises its decision, with
    the workers that this machine's processors allow and without.
(c) growth: memory of the server with 100,000 decisions kept and with N (2 million),
(d)         and the time of a point read and of a filtered page over 20,000 and over N.

Machines differ and drift, so each side of a ratio is measured in turns with the other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, cycle, islice
from pathlib import Path

import httpx
from decide import on_fleet_hosts, recorded
from fastapi import Depends, FastAPI, Response
from ratios import keep

from ras_triage.models.event import Event
from ras_triage.policies.catalog.choice import choose_policy
from ras_triage.policies.catalog.policies import uniform_policy
from ras_triage.policies.decide import decide
from ras_triage.service.api.event_json import read_event
from ras_triage.service.config.settings import Settings, default_workers
from ras_triage.service.engine.responses import decision_json
from ras_triage.service.http.app import create_app
from ras_triage.service.http.dependencies import Body
from ras_triage.service.http.server.run import run_server
from ras_triage.service.security.guard import require_request_scope

CONNECTIONS = 64
TURNS = 5
CHUNK = 256 << 10
SMALL, MIDDLE = 20_000, 100_000
ECHO = "/bench/echo"
DECIDE = "/v1/decisions"
BATCH = "/v1/decisions/batch"


def with_echo(settings: Settings) -> FastAPI:
    """The application, with one endpoint more that does all that a decision's does, who asks included, but decide and keep."""
    app = create_app(settings)

    @app.post(ECHO, dependencies=[Depends(require_request_scope)])
    async def echo(body: Body) -> Response:
        return Response(read_event(body).model_dump_json(), media_type="application/json")

    return app


def serve(port: int, folder: Path, workers: int) -> None:
    settings = Settings(store=f"sqlite:///{folder / 'bench.db'}", port=port, log_level="warning", batch_workers=workers)
    run_server(with_echo(settings), settings)


class Server:
    """The service in a process of its own."""

    def __init__(self, folder: Path, workers: int = default_workers()) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [sys.executable, __file__, "--serve", str(self.port), "--workers", str(workers), "--folder", str(folder)]
        self.process = subprocess.Popen(command)
        self.url = f"http://127.0.0.1:{self.port}"
        for _ in range(200):
            try:
                httpx.get(f"{self.url}/healthz")
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return
        raise SystemExit("the server does not answer")

    def memory(self) -> int:
        """Resident memory in KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


@contextmanager
def serving(folder: Path, workers: int = default_workers()) -> Iterator[Server]:
    """The service, with a store of its own in a new folder."""
    folder.mkdir()
    server = Server(folder, workers)
    try:
        yield server
    finally:
        server.stop()


_NUMBERS = count()


def named(event: bytes) -> bytes:
    """The event with an id that no other has: it is new to the service."""
    return b'{"id":"e-%d",' % next(_NUMBERS) + event[1:]


def mixed() -> list[bytes]:
    """Every other host with a fleet's facts, as in bench/decide.py."""
    bare = recorded()
    full = on_fleet_hosts(bare)
    pairs = zip(bare[::2], full[1::2], strict=False)
    return [from_machine(number, line) for number, line in enumerate(line for pair in pairs for line in pair)]


def from_machine(number: int, event: bytes) -> bytes:
    """Of a fleet, not all from one."""
    return json.dumps(json.loads(event) | {"source": f"node-{number % 1000}"}).encode()


# (a)


def request(path: str, event: bytes) -> bytes:
    body = named(event)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def one_connection(port: int, path: str, events: Iterator[bytes], until: float, expected: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    done = 0
    while time.perf_counter() < until:
        writer.write(request(path, next(events)))
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))
        if not head.startswith(b"HTTP/1.1 " + expected):
            raise SystemExit(head.decode())
        done += 1
    writer.close()
    return done


async def rate(port: int, path: str, bodies: list[bytes], seconds: float, expected: bytes) -> float:
    events = cycle(bodies)
    began = time.perf_counter()
    counts = await asyncio.gather(*(one_connection(port, path, events, began + seconds, expected) for _ in range(CONNECTIONS)))
    return sum(counts) / (time.perf_counter() - began)


def compare_singles(server: Server, title: str, bodies: list[bytes], seconds: float) -> None:
    rates: list[tuple[float, float]] = []
    for _ in range(TURNS):
        echoed = asyncio.run(rate(server.port, ECHO, bodies, seconds, b"200"))
        rates.append((asyncio.run(rate(server.port, DECIDE, bodies, seconds, b"201")), echoed))
    decided, echoed = (statistics.median(column) for column in zip(*rates, strict=True))
    ratio = statistics.median(one / other for one, other in rates)
    print(f"(a) {title}: {decided:,.0f} durable decisions a second, {echoed:,.0f} echoes: {ratio:.2f}", flush=True)
    keep(f"a durable single decision, {CONNECTIONS} connections ({title})", "validating and echoing it in the same server", 1 / ratio)


# (b)


def timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def plain_loop(lines: list[bytes]) -> float:
    """Seconds to validate every event and serialise its decision, which is made beforehand."""
    default = uniform_policy()
    decisions = [decide(event, choose_policy(event, default, {})) for event in map(Event.model_validate_json, lines)]

    def loop() -> None:
        for line, decision in zip(lines, decisions, strict=True):
            Event.model_validate_json(line)
            decision_json(decision)

    return timed(loop)


async def send_batch(port: int, lines: Iterator[bytes]) -> int:
    """Stream a batch and count the results."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(
        f"POST {BATCH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )

    async def send() -> None:
        chunk = bytearray()
        for line in lines:
            chunk += line + b"\n"
            if len(chunk) >= CHUNK:
                writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                await writer.drain()
                chunk.clear()
        writer.write((b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b"") + b"0\r\n\r\n")
        await writer.drain()

    sending = asyncio.create_task(send())
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(head.decode())
    done = 0
    while length := int(await reader.readuntil(b"\r\n"), 16):
        done += (await reader.readexactly(length + 2))[:-2].count(b"\n")
    await sending
    writer.close()
    return done


def compare_batches(server: Server, title: str, lines: list[bytes]) -> None:
    spent: list[tuple[float, float]] = []
    for _ in range(TURNS):
        plain = plain_loop(lines)
        spent.append((plain, timed(lambda: asyncio.run(send_batch(server.port, map(named, lines))))))
    plain, durable = (statistics.median(column) for column in zip(*spent, strict=True))
    ratio = statistics.median(one / other for one, other in spent)
    print(
        f"(b) {title}: {len(lines) / durable:,.0f} durable events a second, {len(lines) / plain:,.0f} in the plain loop: {ratio:.2f}",
        flush=True,
    )
    keep(f"a durable decision in a batch ({title})", "validating the event and serialising its decision in a loop", 1 / ratio)


# (c) and (d)


def numbered(first: int, number_of: int) -> Iterator[bytes]:
    """Recorded events as from many machines, each event once."""
    events = [json.loads(line) for line in recorded()]
    for number in range(first, first + number_of):
        event = events[number % len(events)]
        yield json.dumps(event | {"id": f"e-{number}", "source": f"node-{number % 1000}"}).encode()


def read_times(server: Server) -> tuple[float, float]:
    """Seconds of a point read and of a filtered page, medians; each asks for something else."""
    chance = random.Random(0)
    points, pages = [], []
    with httpx.Client(base_url=server.url) as client:
        for _ in range(200):
            source = f"node-{chance.randrange(1000)}"
            page: list[httpx.Response] = []
            pages.append(timed(lambda: page.append(client.get(DECIDE, params={"source": source, "action": "signal", "limit": 20}))))  # noqa: B023
            found = page[0].raise_for_status().json()["decisions"]
            if found:
                points.append(timed(lambda: client.get(f"{DECIDE}/{found[-1]['id']}").raise_for_status()))  # noqa: B023
    return statistics.median(points), statistics.median(pages)


def fill(server: Server, first: int, up_to: int) -> None:
    for start in range(first, up_to, 50_000):
        asyncio.run(send_batch(server.port, numbered(start, min(50_000, up_to - start))))


def grow(small: Server, large: Server, events: int) -> None:
    fill(small, 0, SMALL)
    fill(large, 0, MIDDLE)
    before = large.memory()
    fill(large, MIDDLE, events)
    after = large.memory()
    print(f"(c) memory: {before:,} KiB with {MIDDLE:,} decisions, {after:,} KiB with {events:,}: {after / before:.2f}", flush=True)
    times = [(read_times(small), read_times(large)) for _ in range(TURNS)]
    for which, title in enumerate(("point read", "filtered page")):
        few, many = (statistics.median(pair[side][which] for pair in times) for side in (0, 1))
        ratio = statistics.median(pair[1][which] / pair[0][which] for pair in times)
        print(f"(d) {title}: {few * 1e3:.2f} ms over {SMALL:,}, {many * 1e3:.2f} ms over {events:,}: {ratio:.2f}", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("what", nargs="*", metavar="singles|batches|growth")
    arguments.add_argument("--seconds", type=float, default=4)
    arguments.add_argument("--events", type=int, default=2_000_000)
    arguments.add_argument("--folder", type=Path, help="where the store is made (default: the folder for temporary files)")
    arguments.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    arguments.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.serve is not None:
        serve(chosen.serve, chosen.folder, chosen.workers)
        return
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        run(chosen.what or ["singles", "batches", "growth"], chosen.seconds, chosen.events, Path(folder))


def run(what: list[str], seconds: float, events: int, folder: Path) -> None:
    bare, mix = recorded(), mixed()
    bare_title, mixed_title = "recorded cases only, hosts with hardly any facts", "mixed stream"
    for name in what:
        if name == "singles":
            with serving(folder / name) as server:
                compare_singles(server, mixed_title, mix, seconds)
                compare_singles(server, bare_title, bare, seconds)
        elif name == "batches":
            for workers in sorted({default_workers(), 0}, reverse=True):
                with serving(folder / f"{name}-{workers}", workers) as server:
                    with_workers = f"{workers} workers" if workers else "no workers"
                    compare_batches(server, f"{mixed_title}, {with_workers}", list(islice(cycle(mix), 10_000)))
                    compare_batches(server, f"{bare_title}, {with_workers}", list(islice(cycle(bare), 30_000)))
        else:
            with serving(folder / f"{name}-small") as small, serving(folder / f"{name}-large") as large:
                grow(small, large, events)


if __name__ == "__main__":
    main()

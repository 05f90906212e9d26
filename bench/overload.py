"""Response times and refusals of the service under hostile or excessive load.

usage: python bench/overload.py [--seconds S] [batches-300] [batches-900] [stalled] [idle] [drip] [unread]

batches-N: N connections that send batches of 100 events, one after the other
stalled:   1,024 requests whose body never comes
idle:      1,024 connections that never send a byte, with 1,024 file descriptors
drip:      8 imports that send one byte each 5 s
unread:    64 batches whose answer is never read

The load comes from a process of its own; service, load and prober have a session each, so that Linux's autogroup scheduling divides the
processors between them. Meanwhile a prober opens a connection for each request, as a load balancer does, and measures
`POST /v1/decisions`, `GET /healthz` and `GET /readyz`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

from decide import recorded
from load import named

from ras_triage.service.http.server.connections import raise_descriptor_limit

STALLED = 1024
IMPORTS = 8
UNREAD = 64
EVENTS = 100
TIMEOUT_S = 30.0
PAUSE_S = 0.05
SETTLE_S = 2.0

Address = tuple[str, int]


def head(path: str, length: int, media_type: str = "application/json") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n".encode()


# The load, in a process of its own.


async def open_patiently(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await asyncio.open_connection(*address, limit=1 << 20)
        except OSError:
            await asyncio.sleep(0.1)


async def batch(address: Address, body: bytes) -> str:
    """Send one batch and return how it ended: its status, or what happened to the connection."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await open_patiently(address)
            try:
                writer.write(head("/v1/decisions/batch", len(body), "application/x-ndjson") + body)
                status = (await reader.readline()).split(b" ")[1].decode()
                answer = await reader.readuntil(b"\r\n\r\n")
                if status == "503":
                    after = re.search(rb"(?i)retry-after: (\d+)", answer)
                    await asyncio.sleep(int(after[1]) if after else 1)
                elif b"chunked" in answer:
                    while length := int(await reader.readline(), 16):
                        await reader.readexactly(length + 2)
                return status
            finally:
                writer.close()
    except TimeoutError:
        return "timeout"
    except (OSError, EOFError, IndexError, ValueError):
        return "broken"


async def send_batches(address: Address, connections: int, until: float) -> Counter[str]:
    ended: Counter[str] = Counter()
    events = recorded()[:EVENTS]

    async def one() -> None:
        while time.time() < until:
            ended[await batch(address, b"".join(named(event) + b"\n" for event in events))] += 1

    await asyncio.gather(*(one() for _ in range(connections)))
    return ended


async def hold(address: Address, connections: int, first: bytes, drip: bytes, until: float) -> Counter[str]:
    """Open connections, send `first` and then `drip` each 5 s, never read before the end; return what each got by then."""
    outcomes: Counter[str] = Counter()

    async def one() -> None:
        reader, writer = await open_patiently(address)
        writer.write(first)
        while time.time() < until:
            await asyncio.sleep(min(5.0, max(0.0, until - time.time())))
            writer.write(drip)
        try:
            async with asyncio.timeout(1):
                line = await reader.readline()
            outcomes[line.split(b" ")[1].decode() if line else "closed"] += 1
        except TimeoutError:
            outcomes["nothing"] += 1
        except (OSError, IndexError):
            outcomes["reset"] += 1
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return outcomes


def load(kind: str, address: Address, until: float) -> Counter[str]:
    if kind.startswith("batches-"):
        return asyncio.run(send_batches(address, int(kind.partition("-")[2]), until))
    if kind == "stalled":
        return asyncio.run(hold(address, STALLED, head("/v1/decisions", 1000), b"", until))
    if kind == "idle":
        return asyncio.run(hold(address, STALLED, b"", b"", until))
    if kind == "drip":
        return asyncio.run(hold(address, IMPORTS, head("/v1/import", 1_000_000), b"x", until))
    body = b"".join(named(event) + b"\n" for event in recorded()[:EVENTS] * 20)
    return asyncio.run(hold(address, UNREAD, head("/v1/decisions/batch", len(body), "application/x-ndjson") + body, b"", until))


# The prober.


async def ask(address: Address, request: bytes) -> str:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(*address)
            try:
                writer.write(request)
                answer = await reader.read()
                return answer.split(b" ")[1].decode()
            finally:
                writer.close()
    except TimeoutError:
        return "timeout"
    except (OSError, IndexError):
        return "broken"


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()


async def probe(address: Address, request: Callable[[], bytes], until: float) -> tuple[list[float], Counter[str]]:
    times: list[float] = []
    ended: Counter[str] = Counter()
    while time.time() < until:
        began = time.perf_counter()
        ended[await ask(address, request())] += 1
        times.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE_S)
    return times, ended


async def measure(address: Address, until: float, kind: str) -> None:
    events = recorded()
    numbers = count()

    def single() -> bytes:
        body = b'{"id":"single-%s-%d",' % (kind.encode(), next(numbers)) + events[next(numbers) % len(events)][1:]
        return head("/v1/decisions", len(body)).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + body

    asked: dict[str, Awaitable[tuple[list[float], Counter[str]]]] = {
        "single": probe(address, single, until),
        "/healthz": probe(address, lambda: get("/healthz"), until),
        "/readyz": probe(address, lambda: get("/readyz"), until),
    }
    for name, (times, ended) in zip(asked, await asyncio.gather(*asked.values()), strict=True):
        ordered = sorted(times)
        p50, p99 = ordered[len(ordered) // 2], ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)]
        figures = f"p50 {p50 * 1e3:,.0f} ms, p99 {p99 * 1e3:,.0f} ms, longest {ordered[-1] * 1e3:,.0f} ms"
        print(f"  {name:9} {figures}; {dict(ended)}", flush=True)


async def time_import(address: Address) -> None:
    body = b"x\n"
    request = head("/v1/import", len(body)).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + body
    began = time.perf_counter()
    ended = await ask(address, request)
    print(f"  one more import: {ended} after {(time.perf_counter() - began) * 1e3:,.0f} ms", flush=True)


# The service.


def start(folder: Path, descriptors: int) -> tuple[subprocess.Popen[str], Address]:
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "ras_triage.service.cli.main", "serve", "--port", "0", "--store", f"sqlite:///{folder / 'store.db'}"],
        stderr=log,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors)),  # noqa: PLW1509
    )
    while not (found := re.search(r"http://([\d.]+):(\d+)", (folder / "log").read_text())):
        time.sleep(0.05)
    return process, (found[1], int(found[2]))


def run(kind: str, seconds: float, folder: Path) -> None:
    folder.mkdir()
    process, address = start(folder, 1024 if kind == "idle" else 8192)
    try:
        until = time.time() + SETTLE_S + seconds
        command = [sys.executable, __file__, "--load", kind, "--port", str(address[1]), "--until", str(until + 1)]
        loading = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        time.sleep(SETTLE_S)
        print(kind, flush=True)
        asyncio.run(measure(address, until, kind))
        if kind == "drip":
            asyncio.run(time_import(address))
        responses, _ = loading.communicate()
        print(f"  the load got: {responses.strip()}", flush=True)
        log = (folder / "log").read_text().splitlines()
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        print(f"  log lines: {len(log):,}; memory: {int(status.partition('VmHWM:')[2].split()[0]) >> 10} MiB at most", flush=True)
    finally:
        process.kill()
        process.wait()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("what", nargs="*", metavar="batches-300|batches-900|stalled|idle|drip|unread")
    arguments.add_argument("--seconds", type=float, default=15)
    arguments.add_argument("--load", help=argparse.SUPPRESS)
    arguments.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments.add_argument("--until", type=float, help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    raise_descriptor_limit()
    if chosen.load is not None:
        print(json.dumps(load(chosen.load, ("127.0.0.1", chosen.port), chosen.until)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind in chosen.what or ["batches-300", "batches-900", "stalled", "idle", "drip", "unread"]:
            run(kind, chosen.seconds, Path(folder) / kind)


if __name__ == "__main__":
    main()

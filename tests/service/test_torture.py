"""Service under hostile clients, defects, disk faults, stopped workers and kills.

By hand, for longer: python -m tests.service.test_torture --seconds 600
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event, Thread

import httpx

from ras_triage.service.cli.commands.store import read_stored_event
from ras_triage.service.store.maintenance.offline import check
from tests.effort import effort
from tests.service.support.acknowledged import require_served, require_stored
from tests.service.support.application import EVENT
from tests.service.support.disk_faults import Disk
from tests.service.support.persistent_sender import PersistentSender, list_decisions
from tests.service.support.planted_defects import ACTIONS, RAISING, hang, marked, spin
from tests.service.support.raw_connections import connect, head, is_closed, received
from tests.service.support.server_process import Service
from tests.service.support.worker_processes import wait_until_ended

SECONDS = float(effort(2, 180))
LINES = 40
MEMORY_MIB = 768
"""The service with its workers: events of hostile clients are held up to `max_in_flight_bytes`, 256 MiB."""

STOP_S = 25.0
"""Longest time from SIGTERM to the end: what is under way has 10 s to come to an end, and is then told that the service stops."""

SETTINGS: dict[str, object] = {
    "batch_workers": 2,
    "worker_timeout_s": 1.0,
    "head_timeout_s": 2.0,
    "body_timeout_s": 10.0,
    "line_timeout_s": 2.0,
    "answer_timeout_s": 5.0,
}

SINGLE = json.dumps(EVENT).encode()
STREAMED = "Content-Type: application/x-ndjson"
JSON = "Content-Type: application/json"


ODD: list[bytes] = [
    *(json.dumps(marked(number)).encode() for number in RAISING),
    json.dumps({**EVENT, "source": "unkept"}).encode(),
    json.dumps({**EVENT, "host": {**EVENT["host"], "pages": 3}}).encode(),
    json.dumps({**EVENT, "time": "9999-12-31T23:59:59-14:00"}).encode(),
    b'{"source": "node-1", ',
    b"[" * 100_000,
    b'{"source": "' + b"x" * 100_000 + b'"}',
]
"""Events that are refused, each for itself; what they cost is theirs."""

STALLING: list[bytes] = [json.dumps(marked(number)).encode() for number, act in ACTIONS.items() if act in (hang, spin)]
"""Sent in batches, which workers decide: alone they hold the event loop, probes too, until the limit on one event."""


def sound(name: str) -> bytes:
    return json.dumps({**EVENT, "id": name, "source": f"node-{len(name) % 7}"}).encode()


class Sender(PersistentSender):
    """Sends sound events, with odd ones among them, and notes what was answered for good."""

    def __init__(self, name: str, url: str, enough: Event, lines: int) -> None:
        super().__init__(name, url, enough, lines)
        self.acknowledged: dict[str, bytes] = {}
        self.refused: dict[str, bytes] = {}
        self.odd: Counter[str] = Counter()
        self._chance = random.Random(name)

    def _is_final(self, name: str) -> bool:
        return name in self.acknowledged or name in self.refused

    def _send(self, client: httpx.Client, names: list[str]) -> None:
        if self._lines == 1:
            answer = client.post("/v1/decisions", content=sound(names[0]))
            self._take(names[0], answer.status_code, answer.content)
            return
        lines: list[tuple[str | None, bytes]] = [(name, sound(name)) for name in names]
        lines.insert(self._chance.randrange(len(lines)), (None, self._chance.choice([*ODD, *STALLING])))
        body = b"\n".join(line for _, line in lines)
        with client.stream("POST", "/v1/decisions/batch", content=body, headers={"content-type": "application/x-ndjson"}) as answer:
            if answer.is_error:
                return
            for (name, _), line in zip(lines, answer.iter_lines(), strict=False):
                content = json.loads(line)  # a line without its end is the last of an answer that broke off
                self._take(name, 201 if "event_key" in content else content["status"], line.encode())

    def _take(self, name: str | None, status: int, answer: bytes) -> None:
        if name is None:
            self.odd[json.loads(answer).get("type", "").rpartition(":")[2] or "decided"] += 1
        elif status in (200, 201):
            self.acknowledged[name] = answer
        elif status not in (503, 429, 408):
            self.refused[name] = answer


# Clients that nobody would wish for. Each does one thing once; a service that is down or hangs up is no concern of theirs.


def stall(url: str, _: random.Random) -> None:
    """Send heads whose bodies never come."""
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(url)) for _ in range(60)]
        for connection in connections:
            connection.sendall(head("/v1/decisions", JSON, "Content-Length: 500"))
        time.sleep(2)


def idle(url: str, _: random.Random) -> None:
    """Open connections and send nothing."""
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(url))
        time.sleep(2)


def drip(url: str, _: random.Random) -> None:
    """Import one byte at a time."""
    with connect(url) as connection:
        connection.sendall(head("/v1/import?format=kernel-log", "Transfer-Encoding: chunked"))
        for _ in range(20):
            if is_closed(connection):
                return
            connection.sendall(b"1\r\nx\r\n")
            time.sleep(0.2)


def hang_up(url: str, chance: random.Random) -> None:
    """Hang up in the middle of requests, and before their answers."""
    for _ in range(20):
        with connect(url) as connection:
            request = head("/v1/decisions", JSON, f"Content-Length: {len(SINGLE)}") + SINGLE
            connection.sendall(request[: chance.randrange(len(request) // 2, len(request) + 1)])


def never_read(url: str, _: random.Random) -> None:
    """Send a large batch, and read no byte of its answer."""
    body = b"\n".join([SINGLE] * 500)
    with connect(url, receive_buffer=4096) as connection:
        connection.sendall(head("/v1/decisions/batch", STREAMED, f"Content-Length: {len(body)}") + body)
        time.sleep(2)


def never_listen(url: str, chance: random.Random) -> None:
    """Subscribe to events, and read none."""
    with ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(connect(url, receive_buffer=4096))
            connection.sendall(head(f"/v1/decisions/stream?source=node-{chance.randrange(7)}", method="GET"))
        time.sleep(2)


def smuggle(url: str, chance: random.Random) -> None:
    """Send heads that two readers would read differently."""
    fields = ["Content-Length: 3", "Content-Length: 4", "Transfer-Encoding: chunked", " folded", "Transfer-Encoding: xchunked", "a\x00b: c"]
    with connect(url) as connection:
        connection.sendall(head("/v1/decisions", *chance.sample(fields, 3)) + b"0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n")
        received(connection)


def garble(url: str, chance: random.Random) -> None:
    """Send bytes that mean nothing."""
    with connect(url) as connection:
        connection.sendall(chance.randbytes(chance.randrange(1, 20_000)))
        received(connection)


def inflate(url: str, _: random.Random) -> None:
    """Send a small body that unpacks to a large one."""
    body = gzip.compress(bytes(64 << 20))
    with connect(url) as connection:
        connection.sendall(
            head("/v1/decisions", JSON, "Content-Encoding: gzip", f"Content-Length: {len(body)}", "Connection: close") + body
        )
        received(connection)


def overwork(url: str, _: random.Random) -> None:
    """Send an event of 200 KB whose pages, mappings and sections multiply."""
    pages = [{"physical_address": hex(number << 12), "state": "anonymous"} for number in range(2_000)]
    tasks = [{"pid": number} for number in range(100, 900)]
    sections = [{"type": "memory", "physical_address": hex(number << 12)} for number in range(300)]
    host = {**EVENT["host"], "pages": pages, "tasks": tasks}
    body = json.dumps({**EVENT, "host": host, "status_block": {"severity": "recoverable", "sections": sections}}).encode()
    with connect(url) as connection:
        connection.sendall(head("/v1/decisions", JSON, f"Content-Length: {len(body)}", "Connection: close") + body)
        received(connection)


def ask_odd(url: str, chance: random.Random) -> None:
    """Send odd events alone."""
    body = chance.choice(ODD)
    with connect(url) as connection:
        connection.sendall(head("/v1/decisions", JSON, f"Content-Length: {len(body)}", "Connection: close") + body)
        received(connection)


HOSTILE = (stall, idle, drip, hang_up, never_read, never_listen, smuggle, garble, inflate, overwork, ask_odd)


class Hostile(Thread):
    """A client that does its worst, over and over."""

    def __init__(self, act: Callable[[str, random.Random], None], url: str, enough: Event) -> None:
        super().__init__(daemon=True)
        self.times = 0
        self._act, self._url, self._enough = act, url, enough
        self._chance = random.Random(act.__name__)

    def run(self) -> None:
        while not self._enough.is_set():
            with suppress(OSError):
                self._act(self._url, self._chance)
                self.times += 1
            time.sleep(0.05)


class Watch(Thread):
    """Asks for the health of the service ten times a second, on a connection each time, and looks at its memory."""

    def __init__(self, service: Service, up: Event, enough: Event) -> None:
        super().__init__(daemon=True)
        self.waited_s: list[float] = []
        self.unanswered: list[str] = []
        self.most_mib = 0
        self._service, self._up, self._enough = service, up, enough

    def run(self) -> None:
        request = head("/healthz", "Connection: close", method="GET")
        while not self._enough.wait(0.1):
            process, began = self._service.process, time.monotonic()
            answer = b""
            with suppress(OSError), connect(self._service.url) as connection:
                connection.sendall(request)
                answer = received(connection)
            if self._up.is_set() and self._service.process is process:  # else it was being stopped
                self.waited_s.append(time.monotonic() - began)
                if not answer.startswith(b"HTTP/1.1 200 "):
                    self.unanswered.append(answer[:200].decode(errors="replace") or "nothing")
                self.most_mib = max(self.most_mib, sum(map(resident_mib, [process.pid, *children(process.pid)])))


def children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def resident_mib(pid: int) -> int:
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) >> 10
    return 0


class Chaos:
    """What happens to the service itself."""

    def __init__(self, service: Service, disk: Disk, up: Event, seed: int) -> None:
        self.happened: Counter[str] = Counter()
        self._service, self._disk, self._up = service, disk, up
        self._chance = random.Random(seed)
        self._acts = (self.fail_disk, self.fail_disk, self.signal_worker, self.signal_worker, self.reload, self.kill, self.stop)

    def go_on(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for act in self._chance.sample(self._acts, len(self._acts)):
                time.sleep(self._chance.uniform(0.2, 1.0))
                act()
                self.happened[act.__name__] += 1

    def fail_disk(self) -> None:
        self._disk.fail(self._chance.choice(["read", "write", "sync", "short", "full", "truncate"]), self._chance.choice([1, 2, 5]))
        time.sleep(self._chance.uniform(0.1, 0.6))
        self._disk.fail("none")

    def signal_worker(self) -> None:
        """Stop or kill a worker, while it may be at work."""
        if workers := [child for child in children(self._service.process.pid) if b"to_process" in command_line(child)]:
            with suppress(ProcessLookupError):
                os.kill(self._chance.choice(workers), self._chance.choice([signal.SIGSTOP, signal.SIGKILL]))

    def reload(self) -> None:
        self._service.process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        self._up.clear()
        workers = children(self._service.process.pid)
        self._service.kill()
        wait_until_ended(workers)
        self._restart()

    def stop(self) -> None:
        self._up.clear()
        self.end()
        self._restart()

    def end(self) -> None:
        """Have the service end as an init system does."""
        workers = children(self._service.process.pid)
        self._service.process.send_signal(signal.SIGTERM)
        status = self._service.process.wait(STOP_S)
        assert status == 0, f"status {status} at the end: {self._service.log[-10:]}"
        wait_until_ended(workers)

    def _restart(self) -> None:
        self._service.start()
        self._up.set()


def command_line(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


class Outcome:
    """What was seen from outside."""

    def __init__(self, senders: list[Sender], hostile: list[Hostile], watch: Watch, chaos: Chaos) -> None:
        self.acknowledged = {name: answer for sender in senders for name, answer in sender.acknowledged.items()}
        self.sent = {name for sender in senders for name in sender.sent}
        self.refused = {name: answer for sender in senders for name, answer in sender.refused.items()}
        self.odd = sum((sender.odd for sender in senders), Counter())
        self.attacks = {client._act.__name__: client.times for client in hostile}
        self.watch = watch
        self.happened = chaos.happened


def torture(folder: Path, seconds: float, seed: int) -> Outcome:
    """Do all of it to a service for so long, and then look at what it kept."""
    settings = folder / "settings.toml"
    settings.write_text("".join(f"{name} = {json.dumps(setting)}\n" for name, setting in SETTINGS.items()))
    store = folder / "store.db"
    disk = Disk(folder / "control")
    program = ("-m", "tests.service.support.torture_program", str(folder / "control"))
    service = Service("--config", str(settings), "--store", f"sqlite:///{store}", program=program)
    try:
        up, calm, enough = Event(), Event(), Event()
        up.set()
        senders = [Sender(f"batch{number}", service.url, enough, LINES) for number in range(3)] + [Sender("single", service.url, enough, 1)]
        hostile = [Hostile(act, service.url, calm) for act in HOSTILE]
        watch = Watch(service, up, calm)
        chaos = Chaos(service, disk, up, seed)
        for thread in (*senders, *hostile, watch):
            thread.start()
        chaos.go_on(seconds)
        calm.set()
        enough.set()
        for thread in (*senders, *hostile, watch):
            thread.join(60)
            assert not thread.is_alive(), f"{thread} still waits"
        outcome = Outcome(senders, hostile, watch, chaos)
        look_at(service.url, outcome)
        chaos.end()
    finally:
        service.kill()
        sys.stderr.write("".join(line for line in service.log if "Traceback" in line))
    require_stored(store, outcome.acknowledged)
    assert check(store, read_stored_event, repair=False, at_ms=0).findings == ()
    return outcome


def look_at(url: str, outcome: Outcome) -> None:
    """What was acknowledged is kept, as it was answered, and everything once."""
    with httpx.Client(base_url=url, timeout=30) as asking:
        identities, names = zip(*list_decisions(asking), strict=True)
        assert len(set(identities)) == len(identities)
        kept = Counter(name for name in names if name in outcome.sent)
        assert kept == Counter(outcome.sent)
        require_served(asking, outcome.acknowledged)


def test_a_service_under_everything_at_once_keeps_what_it_acknowledged_and_answers_probes(tmp_path: Path) -> None:
    outcome = torture(tmp_path, SECONDS, seed=1)

    assert outcome.refused == {}, "sound events are decided, whatever came beside them"
    assert outcome.acknowledged.keys() == outcome.sent
    assert outcome.odd["internal"], "the defects are felt"
    assert min(outcome.attacks.values()) > 0, outcome.attacks
    assert min(outcome.happened.values()) > 0, outcome.happened
    assert outcome.watch.unanswered == []
    assert statistics.median(outcome.watch.waited_s) < 0.5, "five times what is promised: the machine that tests has other things to do"
    assert 0 < outcome.watch.most_mib < MEMORY_MIB


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as made:
        seen = torture(Path(made), arguments.seconds, arguments.seed)
    waits = statistics.quantiles(seen.watch.waited_s, n=1000)
    print(f"{len(seen.acknowledged)} events acknowledged and kept once; odd events: {dict(seen.odd)}")
    print(f"attacks: {seen.attacks}; {dict(seen.happened)}")
    print(f"/healthz: median {waits[499]:.3f} s, 99 % {waits[989]:.3f} s, longest {max(seen.watch.waited_s):.3f} s")
    print(
        f"unanswered probes: {seen.watch.unanswered}; sound events refused: {len(seen.refused)}; memory at most {seen.watch.most_mib} MiB"
    )
    sys.exit(bool(seen.watch.unanswered or seen.refused or waits[989] >= 0.25))

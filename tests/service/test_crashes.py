"""Service killed again and again under load: every answered event stored once.

By hand, for longer: python -m tests.service.test_crashes --kills 5000
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from threading import Event

import httpx

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.server.run import serve
from ras_triage.service.store.sqlite import SqliteStore
from tests.effort import effort
from tests.paths import ROOT
from tests.service.support.acknowledged import require_served, require_stored
from tests.service.support.forked import FORK
from tests.service.support.persistent_sender import PersistentSender, list_decisions

KILLS = effort(8, 300)
STREAMS = 3
LINES = 40
"""Events that one batch holds."""

LONGEST_LIFE_S = 0.9
"""A service forked from a process that has everything loaded listens after about 0.2 s."""


def event(name: str) -> bytes:
    number = hash_of(name)
    section = {"type": "memory", "physical_address": hex(number << 12)}
    content = {
        "id": name,
        "source": f"node-{number % 7}",
        "notification": "polled",
        "status_block": {"severity": "recoverable", "sections": [section]},
    }
    return json.dumps(content).encode()


def hash_of(name: str) -> int:
    return sum(name.encode()) * 31 + len(name)


class Client(PersistentSender):
    """Notes the answers that say that an event was decided."""

    def __init__(self, name: str, url: str, enough: Event, lines: int) -> None:
        super().__init__(name, url, enough, lines)
        self.answers: dict[str, bytes] = {}
        self.statuses: Counter[int] = Counter()

    def _is_final(self, name: str) -> bool:
        return name in self.answers

    def _send(self, client: httpx.Client, names: list[str]) -> None:
        """Every line that has its end was answered."""
        if self._lines == 1:
            answer = client.post("/v1/decisions", content=event(names[0]))
            self.statuses[answer.status_code] += 1
            if answer.is_success:
                self.answers[names[0]] = answer.content
            return
        body = b"\n".join(map(event, names))
        with client.stream("POST", "/v1/decisions/batch", content=body, headers={"content-type": "application/x-ndjson"}) as answer:
            self.statuses[answer.status_code] += 1
            rest = b""
            for data in answer.iter_bytes():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    name = names.pop(0)
                    if b'"event_key"' in line:
                        self.answers[name] = line


class Lives:
    """A service that lives many times, on one port and one store."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store.db"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = Settings(store=f"sqlite:///{self.store}", port=self.port, log_level="error")

    def kill_after(self, seconds: float) -> None:
        process = FORK.Process(target=serve, args=(self._settings,), daemon=True)
        process.start()
        process.join(seconds)
        assert process.exitcode is None, f"the service ended by itself: {process.exitcode}"
        process.kill()
        process.join()

    def kill_at_birth(self, seconds: float) -> None:
        """As a user starts it, interpreter and all."""
        process = self.start()
        time.sleep(seconds)
        assert process.poll() is None, f"the service ended by itself: {process.returncode}"
        process.kill()
        process.wait()

    def start(self) -> subprocess.Popen[bytes]:
        options = ["--port", str(self.port), "--store", f"sqlite:///{self.store}"]
        environment = {**os.environ, "RAS_TRIAGE_LOG_LEVEL": "error"}
        return subprocess.Popen([sys.executable, "-m", "ras_triage.service.cli.main", "serve", *options], cwd=ROOT, env=environment)


def survive(folder: Path, kills: int, seed: int) -> tuple[int, int, Counter[int]]:
    """Kill a service that many times under load, then look at what is left; events answered, with a repeat, and statuses."""
    chance = random.Random(seed)
    lives = Lives(folder)
    enough = Event()
    clients = [Client(f"stream{number}", lives.url, enough, LINES) for number in range(STREAMS)]
    clients.append(Client("single", lives.url, enough, 1))
    for client in clients:
        client.start()
    for number in range(kills):
        if number % 20 == 5:
            lives.kill_at_birth(chance.uniform(0, 2))
        else:
            lives.kill_after(chance.uniform(0, LONGEST_LIFE_S))
    enough.set()
    last = lives.start()
    for client in clients:
        client.join(60)
        assert not client.is_alive(), "a client still waits for answers"
    check(lives, clients)
    last.send_signal(signal.SIGTERM)
    assert last.wait(20) == 0
    for client in clients:
        require_stored(lives.store, client.answers)
    store = SqliteStore(lives.store)
    assert store.check() == []
    store.close()
    answers = [answer for client in clients for answer in client.answers.values()]
    statuses = sum((client.statuses for client in clients), Counter())
    return len(answers), sum(b'"repeat":true' in answer for answer in answers), statuses


def check(lives: Lives, clients: list[Client]) -> None:
    with httpx.Client(base_url=lives.url, timeout=30) as asking:
        identities, events = zip(*list_decisions(asking), strict=True)
        assert len(set(identities)) == len(identities)
        assert Counter(events) == Counter(name for client in clients for name in client.sent)
        for client in clients:
            require_served(asking, client.answers)


def test_what_was_answered_is_kept_once_and_as_it_was_answered_however_often_the_service_is_killed(tmp_path: Path) -> None:
    answered, repeated, statuses = survive(tmp_path, KILLS, seed=1)

    assert answered > 1000
    assert repeated, "no kill came between a commit and its answer: the test is too gentle"
    assert set(statuses) <= {200, 201}


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--kills", type=int, default=5000)
    arguments.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"seed {chosen.seed}: {survive(Path(folder), chosen.kills, chosen.seed)}")


if __name__ == "__main__":
    main()

"""The files under deploy/ fit the service."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ras_triage.service.http.server.run import GRACE_S
from tests.paths import ROOT

MANIFESTS = ROOT / "deploy" / "kubernetes" / "statefulset.yaml"
COMPOSE = ROOT / "deploy" / "compose.yaml"
UNIT = ROOT / "deploy" / "systemd" / "ras-triage.service"


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        (MANIFESTS, r"terminationGracePeriodSeconds: (\d+)"),
        (COMPOSE, r"stop_grace_period: (\d+)s"),
        (UNIT, r"TimeoutStopSec=(\d+)"),
    ],
)
def test_whoever_stops_the_service_waits_longer_than_it_takes(path: Path, pattern: str) -> None:
    found = re.search(pattern, path.read_text(encoding="utf-8"))

    assert found is not None
    assert int(found[1]) >= GRACE_S + 10


@pytest.mark.parametrize("path", [MANIFESTS, COMPOSE, UNIT, ROOT / "Dockerfile"])
def test_nothing_runs_as_root(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert not re.search(r"^\s*(user|runAsUser):?\s*=?\s*(0|root)\b", text, re.IGNORECASE | re.MULTILINE)


def test_a_reload_is_a_signal_to_the_service() -> None:
    assert "\nExecReload=/bin/kill -HUP $MAINPID\n" in UNIT.read_text(encoding="utf-8")


def test_a_service_of_this_name_does_not_set_its_port() -> None:
    assert "enableServiceLinks: false" in MANIFESTS.read_text(encoding="utf-8")


# Locked dependencies

LOCKS = {"requirements.lock": (), "requirements-otel.lock": ("otel",), "build.lock": None}
"""By file: the extras that it holds beside the dependencies; None: it holds what the build needs."""


def required(extras: tuple[str, ...] | None) -> list[Requirement]:
    """What pyproject.toml wants."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if extras is None:
        return [Requirement(line) for line in project["build-system"]["requires"]]
    lines = [
        *project["project"]["dependencies"],
        *(line for extra in extras for line in project["project"]["optional-dependencies"][extra]),
    ]
    return [Requirement(line) for line in lines]


def locked(name: str) -> list[tuple[Requirement, int]]:
    """What a lock file has: each requirement, and how many hashes it has."""
    text = (ROOT / "deploy" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.partition(" #")[0] for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return [
        (Requirement(line.partition("--hash=")[0].strip()), len(re.findall(r"--hash=sha256:[0-9a-f]{64}(?!\S)", line))) for line in lines
    ]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_has_one_version_of_everything_that_is_needed(name: str) -> None:
    pins: dict[str, list[Requirement]] = {}
    for pin, _ in locked(name):
        pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    for wanted in required(LOCKS[name]):
        found = [pin for pin in pins.get(canonicalize_name(wanted.name), []) if pin.marker is None or pin.marker.evaluate()]
        assert len(found) == (wanted.marker is None or wanted.marker.evaluate()), f"{wanted}: run `make lock`"
        for pin in found:
            (specifier,) = pin.specifier
            assert wanted.specifier.contains(specifier.version, prereleases=True), f"{pin} is not {wanted}: run `make lock`"


@pytest.mark.parametrize("name", LOCKS)
def test_everything_that_is_locked_has_one_version_and_hashes(name: str) -> None:
    pins = locked(name)
    assert pins
    for pin, hashes in pins:
        assert [specifier.operator for specifier in pin.specifier] == ["=="], pin
        assert pin.url is None, pin
        assert hashes, pin


def test_the_lock_file_of_an_extra_has_the_versions_of_the_other_one() -> None:
    assert {str(pin) for pin, _ in locked("requirements.lock")} <= {str(pin) for pin, _ in locked("requirements-otel.lock")}


def test_what_the_build_needs_is_said_alike_in_both_places() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["dependency-groups"]["build"] == project["build-system"]["requires"]


def test_every_dependency_has_an_upper_bound() -> None:
    for wanted in (*required(("otel",)), *required(None)):
        assert {specifier.operator for specifier in wanted.specifier} == {">=", "<"}, wanted


def test_the_image_installs_only_what_is_locked() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    installs = re.findall(r"pip (install|wheel) ([^\n]*)", dockerfile)
    assert [("--require-hashes" in options, "--no-deps" in options) for _, options in installs] == [
        (True, False), (True, False), (False, True), (False, True),
    ]  # fmt: skip
    assert "--no-build-isolation" in installs[2][1]
    assert "--no-index" in installs[3][1]
    assert "!deploy/*.lock" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def test_the_base_image_is_pinned_by_its_digest() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE) == ["${BASE}", "${BASE}"]
    assert re.findall(r"^ARG BASE=python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}$", dockerfile, re.MULTILINE)


def test_the_image_is_built_from_every_folder_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    folders = {*project["packages"], *project["force-include"]}
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert folders == set(re.findall(r"^COPY (\w+) \1$", dockerfile, re.MULTILINE))
    files = set(project["shared-data"])
    assert files == {f"{folder}{name}" for name, folder in re.findall(r"^COPY docs/(\S+) (docs/)$", dockerfile, re.MULTILINE)}
    assert {f"!{name}" for name in (*folders, *files)} <= set((ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines())


# Auditing them

ADVISORY = {
    "id": "GHSA-g3rq-g295-4j3m",
    "aliases": ["CVE-2020-28493"],
    "summary": "Regular Expression Denial of Service in Jinja2",
    "affected": [
        {
            "package": {"name": "jinja2", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.11.3"}]}],
        }
    ],
}
VULNERABLE = {("jinja2", "2.11.1"), ("jinja2", "2.11.2")}


@contextmanager
def vulnerability_service(vulnerable: set[tuple[str, str]], unknown: str = "") -> Iterator[str]:
    """A service with the interface of OSV that knows these releases, and fails for the package `unknown`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["content-length"])))
            name = query["package"]["name"]
            found = [ADVISORY] if (name, query["version"]) in vulnerable else []
            self.send_response(500 if name == unknown else 200)
            self.end_headers()
            self.wfile.write(json.dumps({"vulns": found} if found else {}).encode())

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


def audit(lock: Path, url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "deploy/audit.py", "--service", "osv", "--osv-url", url, str(lock)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """Two packages that are fine."""
    path = tmp_path / "requirements.lock"
    path.write_text("h11==0.16.0 \\\n    --hash=sha256:00\nidna==3.20 ; python_version < '3'\n", encoding="utf-8")
    return path


def test_an_audit_that_finds_nothing_says_of_how_many(lock: Path) -> None:
    with vulnerability_service(VULNERABLE) as url:
        done = audit(lock, url)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "audit: 2 packages looked up, 0 with known vulnerabilities\n"


def test_an_audit_finds_a_release_that_is_known_to_be_vulnerable(lock: Path) -> None:
    lock.write_text(lock.read_text(encoding="utf-8") + "jinja2==2.11.2\n", encoding="utf-8")
    with vulnerability_service(VULNERABLE) as url:
        done = audit(lock, url)
    assert (done.returncode, done.stdout) == (1, "jinja2 2.11.2: CVE-2020-28493\n")


def test_an_audit_fails_where_the_service_knows_nothing(lock: Path) -> None:
    with vulnerability_service(set()) as url:
        done = audit(lock, url)
    assert done.returncode == 2
    assert done.stderr.startswith("audit: failed, 2 packages are not audited: the service knows no vulnerability of jinja2 2.11.1")


def test_an_audit_fails_where_a_package_cannot_be_looked_up(lock: Path) -> None:
    with vulnerability_service(VULNERABLE, unknown="idna") as url:
        done = audit(lock, url)
    assert done.returncode == 2
    assert done.stderr.startswith("audit: failed, 2 packages are not audited: ")


def test_an_audit_fails_where_there_is_no_service(lock: Path) -> None:
    done = audit(lock, "http://127.0.0.1:9/v1/query")
    assert done.returncode == 2
    assert done.stderr.startswith("audit: failed, 2 packages are not audited: ")


def load_audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "deploy" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_package_that_was_skipped_or_left_out_fails_an_audit() -> None:
    module = load_audit()
    pins = [module.Pin("h11", "0.16.0"), module.Pin("idna", "3.20")]
    fine = {"name": "h11", "version": "0.16.0", "vulns": []}

    with pytest.raises(module.NotAudited, match="1 of 2 skipped, the first: idna: not found"):
        module.read_report([fine, {"name": "idna", "skip_reason": "not found"}], pins)
    with pytest.raises(module.NotAudited, match="nothing of idna"):
        module.read_report([fine], pins)


def test_every_version_of_a_package_is_audited() -> None:
    module = load_audit()
    pins = module.read_pins("idna==3.20 ; python_version < '3' \\\n    --hash=sha256:0\nidna==3.19\nH11==0.16.0\n# h12==1\n")

    assert [[str(pin) for pin in group] for group in module.group_by_version(pins)] == [["h11 0.16.0", "idna 3.19"], ["idna 3.20"]]

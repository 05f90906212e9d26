"""Audit of locked dependencies that counts skipped packages as failures.

    python deploy/audit.py [--service pypi|osv] [--osv-url URL] LOCK...

pip-audit skips packages that the vulnerability service does not know and ends with success, even where it skipped all of them. This also
looks up a release with known vulnerabilities: a service that finds nothing wrong with it is no evidence for the others.
Exit status: 0 every package was looked up and none is vulnerable; 1 vulnerabilities were found; 2 a package could not be looked up.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

FOUND: Final = 1
NOT_AUDITED: Final = 2

_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)==([A-Za-z0-9.!+_-]+)", re.MULTILINE)


class Pin(NamedTuple):
    """A package and its locked version."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


CONTROL: Final = Pin("jinja2", "2.11.1")
"""A release with known vulnerabilities, CVE-2020-28493 among them."""


class NotAudited(Exception):
    """The vulnerability service could not be asked; the text says why."""


def main(arguments: list[str] | None = None) -> int:
    """Audit lock files and return the exit status."""
    parser = ArgumentParser(description="Look the packages of lock files up in a vulnerability database.")
    parser.add_argument("locks", nargs="+", type=Path, metavar="LOCK")
    parser.add_argument("--service", choices=["pypi", "osv"], default="pypi", help="the vulnerability service (default: pypi)")
    parser.add_argument("--osv-url", metavar="URL", help="another URL of the service osv")
    options = parser.parse_args(arguments)
    service = ["--vulnerability-service", options.service, *(["--osv-url", options.osv_url] if options.osv_url else [])]
    pins = {pin for lock in options.locks for pin in read_pins(lock.read_text(encoding="utf-8"))}
    try:
        vulnerable = dict(find_vulnerable(pins | {CONTROL}, service))
        if CONTROL not in vulnerable:
            raise NotAudited(f"the service knows no vulnerability of {CONTROL}, which has several")
    except NotAudited as error:
        print(f"audit: failed, {len(pins)} packages are not audited: {error}", file=sys.stderr)
        return NOT_AUDITED
    found = {pin: names for pin, names in vulnerable.items() if pin in pins}
    for pin, names in sorted(found.items()):
        print(f"{pin}: {', '.join(names)}")
    print(f"audit: {len(pins)} packages looked up, {len(found)} with known vulnerabilities", file=sys.stderr)
    return FOUND if found else 0


def read_pins(lock: str) -> list[Pin]:
    """Return the packages of a lock file, for all platforms."""
    return [Pin(name.lower(), version) for name, version in _PIN.findall(lock)]


def find_vulnerable(pins: Iterable[Pin], service: list[str]) -> Iterator[tuple[Pin, list[str]]]:
    """Return the vulnerable packages with their vulnerabilities. Raises NotAudited where one cannot be looked up."""
    for group in group_by_version(pins):
        looked_up = read_report(run_pip_audit(group, service), group)
        yield from ((pin, names) for pin, names in looked_up.items() if names)


def read_report(dependencies: list[dict[str, Any]], pins: list[Pin]) -> dict[Pin, list[str]]:
    """Return the vulnerabilities of each package. Raises NotAudited where one was skipped or left out."""
    skipped = [one for one in dependencies if "skip_reason" in one]
    if skipped:
        raise NotAudited(f"{len(skipped)} of {len(pins)} skipped, the first: {skipped[0]['name']}: {skipped[0]['skip_reason']}")
    looked_up = {Pin(one["name"].lower(), one["version"]): [known["id"] for known in one["vulns"]] for one in dependencies}
    if missing := set(pins) - looked_up.keys():
        raise NotAudited(f"pip-audit says nothing of {min(missing)}")
    return looked_up


def group_by_version(pins: Iterable[Pin]) -> list[list[Pin]]:
    """Return the packages in groups that have each name once: pip-audit takes no two versions of one package."""
    groups: list[dict[str, Pin]] = []
    for pin in sorted(pins):
        group = next((group for group in groups if pin.name not in group), None)
        if group is None:
            groups.append(group := {})
        group[pin.name] = pin
    return [list(group.values()) for group in groups]


def run_pip_audit(pins: list[Pin], service: list[str]) -> list[dict[str, Any]]:
    """Return what pip-audit says of each package. Raises NotAudited."""
    command = [sys.executable, "-m", "pip_audit", *service, "--disable-pip", "--no-deps", "--progress-spinner", "off", "--format", "json"]
    with TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in pins), encoding="utf-8")
        done = subprocess.run([*command, "--requirement", str(requirements)], capture_output=True, text=True, check=False)
    try:
        dependencies: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        lines = done.stderr.strip().splitlines()
        raise NotAudited(lines[-1] if lines else f"pip-audit ended with status {done.returncode}") from None
    return dependencies


if __name__ == "__main__":
    sys.exit(main())

"""Apply the guest's part of a decision to a running QEMU over QMP.

ras-triage decide --json EVENT | python apply_to_qemu.py QMP_SOCKET

Exit status: 0 every step of the guest was applied, 1 QEMU failed, 2 the input is not a decision, 3 some steps cannot be applied over QMP.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from qemu.qmp import ExecuteError, QMPClient, QMPError

COMMAND = "inject-ghes-v2-error"
FIRST_VERSION = (10, 2)
"""Of QEMU with the command, and of its machine types with a source for it."""
NOTIFICATION = "gpio"
"""How QEMU notifies the guest of an injected record, whatever the plan says."""

WITHOUT_COMMAND = {
    "inject_abort": "QEMU injects an abort only for a SIGBUS of its own, under KVM",
    "inject_serror": "QEMU has no QMP command for an SError; a VMM passes `vcpu_events` to KVM_SET_VCPU_EVENTS",
    "exit_to_vmm": "KVM returns to QEMU; no QMP command replaces that",
    "vmm_exits": "this QEMU dies of the signal; `quit` would end it in its place",
}
"""Steps of a guest that no QMP command applies, with the reason."""

CONNECT_S = 2.0
ACKNOWLEDGE_S = 5.0
"""How long a record waits for the guest to acknowledge the one before it."""
PAUSE_S = 0.1

Step = Mapping[str, Any]


class NotUsable(Exception):
    """A QEMU that cannot inject; the text is the reason."""


def steps_of_guest(decision: Mapping[str, Any], vm: str | None) -> list[Step]:
    """Return the steps for one guest. Raises ValueError if the plan has several and none was chosen, or the input is not a decision."""
    if not isinstance(decision, Mapping) or not isinstance(decision.get("plan"), list):
        raise ValueError("not a decision: no `plan`; expected the output of `ras-triage decide --json` or of POST /v1/decisions")
    steps = [step for step in decision["plan"] if step["kind"] == "record_guest_error" or step["kind"] in WITHOUT_COMMAND]
    guests = sorted({str(step["vm"]) for step in steps})
    if vm is None and len(guests) > 1:
        raise ValueError(f"the plan has steps for several guests; expected --vm with one of {', '.join(guests)}")
    chosen = [step for step in steps if vm is None or step["vm"] == vm]
    for step in chosen:
        check_base64(step.get("status_block", ""))
    return chosen


def check_base64(text: str) -> None:
    """Raise ValueError for invalid base64: QEMU 11.1 aborts on such a `cper`."""
    try:
        base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f"`status_block` is not base64: {error}") from None


async def check(qmp: QMPClient) -> None:
    """Raise NotUsable where QEMU would refuse the command, or answer with success and inject nothing."""
    commands: Any = await qmp.execute("query-commands")
    if COMMAND not in {command["name"] for command in commands}:
        answer: Any = await qmp.execute("query-version")
        version = answer["qemu"]
        raise NotUsable(f"QEMU {version['major']}.{version['minor']} has no `{COMMAND}`; expected 10.2 or later")
    machine = str(await property_of_machine(qmp, "type"))
    version_of = re.fullmatch(r"virt-(\d+)\.(\d+)-machine", machine)
    if version_of is None or (int(version_of[1]), int(version_of[2])) < FIRST_VERSION:
        raise NotUsable(f"the machine is `{machine}`; expected -machine virt of 10.2 or later: others have no source for injected records")
    if not await property_of_machine(qmp, "ras"):
        raise NotUsable("the guest has no error source; expected -machine virt,ras=on")


async def property_of_machine(qmp: QMPClient, name: str) -> object:
    return await qmp.execute("qom-get", {"path": "/machine", "property": name})


async def inject(qmp: QMPClient, cper: str) -> None:
    """Write a record to the guest's source, after the guest has acknowledged the one before it. Raises ExecuteError if it does not."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + ACKNOWLEDGE_S
    while True:
        try:
            await qmp.execute(COMMAND, {"cper": cper})
        except ExecuteError as error:
            if "acknowledge" not in str(error) or loop.time() > deadline:
                raise
            await asyncio.sleep(PAUSE_S)
        else:
            return


async def apply(qmp: QMPClient, step: Step) -> bool:
    """Apply a step; return whether the guest now sees what the plan says."""
    kind = step["kind"]
    if kind in WITHOUT_COMMAND:
        print(f"{kind}: not applied: {WITHOUT_COMMAND[kind]}")
        return False
    await inject(qmp, step["status_block"])
    as_decided = bool(step["notification"] == NOTIFICATION)
    note = "" if as_decided else f"; the plan says `{step['notification']}`, QEMU notifies by `{NOTIFICATION}`"
    print(f"{kind}: record for {step['ipa']} injected{note}")
    return as_decided


async def run(socket: str, steps: Sequence[Step]) -> bool:
    """Apply the steps in order; return whether all are as decided."""
    qmp = QMPClient("apply_to_qemu")
    try:
        async with asyncio.timeout(CONNECT_S):
            await qmp.connect(socket)
    except TimeoutError:
        raise NotUsable("no QMP greeting; expected a QMP socket that no other client uses") from None
    try:
        await check(qmp)
        return all([await apply(qmp, step) for step in steps])
    finally:
        await qmp.disconnect()


def main() -> int:
    parser = argparse.ArgumentParser(description="Apply the guest's part of a decision (JSON on standard input) to a QEMU over QMP.")
    parser.add_argument("socket", help="Unix socket of `-qmp unix:PATH,server=on,wait=off`")
    parser.add_argument("--vm", help="guest of the plan that this QEMU is; default: the only one")
    options = parser.parse_args()
    try:
        steps = steps_of_guest(json.load(sys.stdin), options.vm)
    except ValueError as error:
        print(f"standard input: {error}", file=sys.stderr)
        return 2
    try:
        return 0 if asyncio.run(run(options.socket, steps)) else 3
    except (QMPError, NotUsable) as error:
        print(f"{options.socket}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

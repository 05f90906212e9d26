"""What a kernel log says that the kernel did about hardware errors: pages taken away, signals sent, panics.

Only what is there is evidence. A line may be missing because of a rate limit, of the console's log level, or of a log that ends too early,
so from a line that is not there nothing follows.

Sources: mm/memory-failure.c, drivers/acpi/apei/ghes.c, arch/arm64/mm/fault.c and kernel/traps.c, kernel/panic.c, Linux 5.4 to 7.3.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from ras_triage.models.observed import (
    Cause,
    ObservedAction,
    ObservedMemoryFailure,
    ObservedMessage,
    ObservedOops,
    ObservedPanic,
    ObservedSerror,
    ObservedSignal,
    ObservedSoftOffline,
    Result,
)

KEYWORDS: Final = (
    b"Memory failure: ",
    b": Sending SIGBUS to ",
    b"synchronous ",
    b"Kernel panic - not syncing: ",
    b"SError Interrupt on CPU",
    b"oft offline: ",
    b"soft_offline",
    b"[Firmware Warn]",
    b"ghes_print_estatus: ",
)
"""One of them is on every line that is read here, but for a note before a panic. Looking for each takes its time, for long ones less."""

NOTE_KEYWORD: Final = b"Fatal hardware error"
"""On that note, which never comes alone."""

_PFN = "0x(?P<pfn>[0-9a-f]{1,16})"
_TASK = r"(?P<comm>.{1,15}):(?P<pid>\d{1,10})"
_ACTION = re.compile(rf"(?:Memory failure: )?{_PFN}: recovery action for (?P<type>.+): (?P<result>Recovered|Delayed|Failed|Ignored)")
_SIGBUS = re.compile(rf"(?:.*: )?{_PFN}: (?:Sending SIGBUS to|Killing) {_TASK}(?: early)? due to hardware memory corruption")
_SIGKILL = re.compile(rf"(?:Memory failure: )?{_PFN}: forcibly killing {_TASK} because of failure to unmap corrupted page")
_UNHANDLED_ABORT = re.compile(rf"(?:.*)GHES: {_TASK}: synchronous unrecoverable error \(SIGBUS\)")
_SOFT_OFFLINE = re.compile(rf"[Ss]oft[ _]offline(?:_page)?: {_PFN}:? (?P<what>.+)")
_PANIC = re.compile(r"Kernel panic - not syncing: (?P<why>.+)")
_OOPS = re.compile(r"Internal error: synchronous external abort[^:]*: (?:0x)?(?P<syndrome>[0-9a-f]{8,16})\b.*")
_SERROR = re.compile(r"SError Interrupt on CPU(?P<cpu>\d{1,5}), code (?:0x)?(?P<syndrome>[0-9a-f]{8,16})\b.*")
_PAGE = re.compile(rf"Memory failure: {_PFN}: .+")
_ERROR_TYPE = re.compile(r"(?:\[Firmware Warn\]: ?)?GHES: Unhandled processor error type:? (?:0x(?P<type>[0-9a-f]{2}):|(?!0x)).*")
_ADDRESS = re.compile(r"(?:\[Firmware Warn\]: ?)?GHES: Invalid address in generic error data: 0x(?P<address>[0-9a-f]{1,16})")
_PANIC_NOTE = re.compile(r"GHES: Fatal hardware error.*")
_OTHER = re.compile(r"Soft offline: disabled .*|Memory failure: .+|ghes_print_estatus: \d{1,10} callbacks suppressed")
"""The last: a rate limit has left out records."""

_PANICS: Final[tuple[tuple[re.Pattern[str], Cause], ...]] = (
    (re.compile(r"(?:GHES: )?Fatal hardware error!?"), "ghes"),
    (re.compile(r"Memory failure on page (?P<bare>[0-9a-f]{1,16})"), "memory_failure"),
    (re.compile(rf"Memory failure: {_PFN}: unrecoverable page"), "memory_failure"),
    (re.compile(r"Asynchronous SError Interrupt"), "serror"),
    (re.compile(r"(?:.*: )?Fatal exception.*"), "oops"),
)


def read_action(text: str, line: int) -> ObservedAction | None:
    """What a line says that the kernel did; None for a line that says nothing of the kind.

    `text` is the kernel's own, without what stands before it.
    """
    for pattern, make in _READERS:
        if found := pattern.fullmatch(text):
            return make(found, line)
    return None


def _memory_failure(found: re.Match[str], line: int) -> ObservedAction:
    result: dict[str, Result] = {"Recovered": "recovered", "Delayed": "delayed", "Failed": "failed", "Ignored": "ignored"}
    return ObservedMemoryFailure(line, found[0], int(found["pfn"], 16), found["type"], result[found["result"]])


def _signal(found: re.Match[str], line: int, *, signal: Literal["SIGBUS", "SIGKILL"] = "SIGBUS") -> ObservedAction:
    pfn = found.groupdict().get("pfn")
    comm = found["comm"].encode("latin-1").decode("utf-8", "replace")
    return ObservedSignal(line, found[0], signal, int(found["pid"]), comm, int(pfn, 16) if pfn else None)


def _kill(found: re.Match[str], line: int) -> ObservedAction:
    return _signal(found, line, signal="SIGKILL")


def _soft_offline(found: re.Match[str], line: int) -> ObservedAction:
    pfn, what = int(found["pfn"], 16), found["what"]
    if what == "invalidated" or what.endswith("page already poisoned"):
        return ObservedSoftOffline(line, found[0], pfn, "recovered")
    if "failed" in what:
        return ObservedSoftOffline(line, found[0], pfn, "failed")
    return ObservedMessage(line, found[0], "page", pfn)


def _panic(found: re.Match[str], line: int) -> ObservedAction:
    for pattern, cause in _PANICS:
        if why := pattern.fullmatch(found["why"].strip()):
            groups = why.groupdict()
            pfn = groups.get("pfn") or groups.get("bare")
            return ObservedPanic(line, found[0], cause, int(pfn, 16) if pfn else None)
    return ObservedPanic(line, found[0], None)


def _oops(found: re.Match[str], line: int) -> ObservedAction:
    return ObservedOops(line, found[0], int(found["syndrome"], 16))


def _serror(found: re.Match[str], line: int) -> ObservedAction:
    return ObservedSerror(line, found[0], int(found["cpu"]), int(found["syndrome"], 16))


def _page(found: re.Match[str], line: int) -> ObservedAction:
    return ObservedMessage(line, found[0], "page", pfn=int(found["pfn"], 16))


def _error_type(found: re.Match[str], line: int) -> ObservedAction:
    return ObservedMessage(line, found[0], "error_type", error_type=int(found["type"], 16) if found["type"] else None)


def _address(found: re.Match[str], line: int) -> ObservedAction:
    return ObservedMessage(line, found[0], "address", address=int(found["address"], 16))


def _panic_note(found: re.Match[str], line: int) -> ObservedAction:
    return ObservedMessage(line, found[0], "panic")


def _other(found: re.Match[str], line: int) -> ObservedAction:
    return ObservedMessage(line, found[0], "other")


_READERS: Final = (
    (_ACTION, _memory_failure),
    (_SIGBUS, _signal),
    (_SIGKILL, _kill),
    (_UNHANDLED_ABORT, _signal),
    (_SOFT_OFFLINE, _soft_offline),
    (_PANIC, _panic),
    (_OOPS, _oops),
    (_SERROR, _serror),
    (_PAGE, _page),
    (_ERROR_TYPE, _error_type),
    (_ADDRESS, _address),
    (_PANIC_NOTE, _panic_note),
    (_OTHER, _other),
)
"""In this order: the more general ones last."""

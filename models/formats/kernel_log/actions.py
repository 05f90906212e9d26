"""Kernel log messages about error handling: page recovery, signals, panics.

Only printed lines are evidence. A line can be missing because of a rate limit, the console log level or a truncated log, so a missing
line proves nothing.

Sources: mm/memory-failure.c, drivers/acpi/apei/ghes.c, arch/arm64/mm/fault.c and kernel/traps.c, kernel/panic.c, Linux 5.4 to 7.3.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from ras_triage.models.observed import (
    RESULTS,
    Cause,
    ObservedAction,
    ObservedMemoryFailure,
    ObservedMessage,
    ObservedPanic,
    ObservedSignal,
    ObservedSoftOffline,
)

KEYWORDS: Final = (
    b"Memory failure: ",
    b": Sending SIGBUS to ",
    b"Kernel panic - not syncing: ",
    b"oft offline: ",
    b"soft_offline",
    b"[Firmware Warn]",
    b"ghes_print_estatus: ",
    b"Machine ",
)
"""Every line parsed here contains one of these, except the note before a panic. Each search costs time; longer keywords are faster."""

NOTE_KEYWORD: Final = b"Fatal hardware error"
"""Keyword of the note before a panic, which is always followed by a line with one of `KEYWORDS`."""

_PFN = "0x(?P<pfn>[0-9a-f]{1,16})"
_TASK = r"(?P<comm>.{1,15}):(?P<pid>\d{1,10})"
_ACTION = re.compile(rf"(?:Memory failure: )?{_PFN}: recovery action for (?P<type>.+): (?P<result>Recovered|Delayed|Failed|Ignored)")
_PLAIN_RESULT = re.compile(rf"Memory failure: {_PFN}: recovery action for (?P<type>[\w -]+): (?P<result>Recovered|Delayed|Failed|Ignored)")
"""The same line as the kernel prints it, without what any other message has in it."""
_SIGBUS = re.compile(rf"(?:.*: )?{_PFN}: (?:Sending SIGBUS to|Killing) {_TASK}(?: early)? due to hardware memory corruption")
_SIGKILL = re.compile(rf"(?:Memory failure: )?{_PFN}: forcibly killing {_TASK} because of failure to unmap corrupted page")
_SOFT_OFFLINE = re.compile(rf"[Ss]oft[ _]offline(?:_page)?: {_PFN}:? (?P<what>.+)")
_PANIC = re.compile(r"Kernel panic - not syncing: (?P<why>.+)")
_PAGE = re.compile(rf"Memory failure: {_PFN}: .+")
_ERROR_TYPE = re.compile(r"(?:\[Firmware Warn\]: ?)?GHES: Unhandled processor error type:? (?:0x(?P<type>[0-9a-f]{2}):|(?!0x)).*")
_ADDRESS = re.compile(r"(?:\[Firmware Warn\]: ?)?GHES: Invalid address in generic error data: 0x(?P<address>[0-9a-f]{1,16})")
_PANIC_NOTE = re.compile(r"GHES: Fatal hardware error.*")
_OTHER = re.compile(
    r"Soft offline: disabled .*|Memory failure: .+|ghes_print_estatus: \d{1,10} callbacks suppressed"
    r"|(?:mce: )?(?:\[Hardware Error\]: )?(?:CPU \d{1,5}: Machine Check\b.*|Machine check events logged)"
)
"""The third alternative: a rate limit suppressed records. The last one: x86 machine checks."""

_PANICS: Final[tuple[tuple[re.Pattern[str], Cause], ...]] = (
    (re.compile(r"(?:GHES: )?Fatal hardware error!?"), "ghes"),
    (re.compile(r"Memory failure on page (?P<bare>[0-9a-f]{1,16})"), "memory_failure"),
    (re.compile(rf"Memory failure: {_PFN}: unrecoverable page"), "memory_failure"),
    (re.compile(r"Asynchronous SError Interrupt"), "serror"),
    (re.compile(r"(?:.*: )?Fatal exception.*"), "oops"),
)


def read_action(text: str, line: int) -> ObservedAction | None:
    """Return the action that a line reports; None for any other line.

    `text` is the kernel's message without the log prefix.
    """
    for pattern, make in _READERS:
        if match := pattern.fullmatch(text):
            return make(match, line)
    return None


def read_page_result(text: str, line: int) -> ObservedAction | None:
    """Return the result of `memory_failure()` that a line reports, as `read_action` does; None for any other line."""
    match = _PLAIN_RESULT.fullmatch(text)
    return None if match is None else _memory_failure(match, line)


def _memory_failure(match: re.Match[str], line: int) -> ObservedAction:
    return ObservedMemoryFailure(line, match[0], int(match["pfn"], 16), match["type"], RESULTS[match["result"]])


def _signal(match: re.Match[str], line: int, *, signal: Literal["SIGBUS", "SIGKILL"] = "SIGBUS") -> ObservedAction:
    pfn = match.groupdict().get("pfn")
    comm = match["comm"].encode("latin-1").decode("utf-8", "replace")
    return ObservedSignal(line, match[0], signal, int(match["pid"]), comm, int(pfn, 16) if pfn else None)


def _kill(match: re.Match[str], line: int) -> ObservedAction:
    return _signal(match, line, signal="SIGKILL")


def _soft_offline(match: re.Match[str], line: int) -> ObservedAction:
    pfn, what = int(match["pfn"], 16), match["what"]
    if what == "invalidated" or what.endswith("page already poisoned"):
        return ObservedSoftOffline(line, match[0], pfn, "recovered")
    if "failed" in what:
        return ObservedSoftOffline(line, match[0], pfn, "failed")
    return ObservedMessage(line, match[0], "page", pfn)


def _panic(match: re.Match[str], line: int) -> ObservedAction:
    for pattern, cause in _PANICS:
        if why := pattern.fullmatch(match["why"].strip()):
            groups = why.groupdict()
            pfn = groups.get("pfn") or groups.get("bare")
            return ObservedPanic(line, match[0], cause, int(pfn, 16) if pfn else None)
    return ObservedPanic(line, match[0], None)


def _page(match: re.Match[str], line: int) -> ObservedAction:
    return ObservedMessage(line, match[0], "page", pfn=int(match["pfn"], 16))


def _error_type(match: re.Match[str], line: int) -> ObservedAction:
    return ObservedMessage(line, match[0], "error_type", error_type=int(match["type"], 16) if match["type"] else None)


def _address(match: re.Match[str], line: int) -> ObservedAction:
    return ObservedMessage(line, match[0], "address", address=int(match["address"], 16))


def _panic_note(match: re.Match[str], line: int) -> ObservedAction:
    return ObservedMessage(line, match[0], "panic")


def _other(match: re.Match[str], line: int) -> ObservedAction:
    return ObservedMessage(line, match[0], "other")


_READERS: Final = (
    (_ACTION, _memory_failure),
    (_SIGBUS, _signal),
    (_SIGKILL, _kill),
    (_SOFT_OFFLINE, _soft_offline),
    (_PANIC, _panic),
    (_PAGE, _page),
    (_ERROR_TYPE, _error_type),
    (_ADDRESS, _address),
    (_PANIC_NOTE, _panic_note),
    (_OTHER, _other),
)
"""Tried in this order: more general patterns last."""

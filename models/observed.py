"""Observed actions of a kernel, for comparison with decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any, Final, Literal

from ras_triage.models.frozen import frozen

ObservedResult = Literal["recovered", "delayed", "failed", "ignored"]

RESULTS: Final[dict[str, ObservedResult]] = {"Recovered": "recovered", "Delayed": "delayed", "Failed": "failed", "Ignored": "ignored"}
"""Results by the word that the kernel prints (`action_name` in mm/memory-failure.c)."""

RecoveryResult = Literal["queued", "recovered", "failed"]

Cause = Literal["ghes", "serror", "oops", "memory_failure"]


@frozen
class ObservedMemoryFailure:
    """A result of `memory_failure()` (`action_result`)."""

    line: int
    """Line number in the log, from 1; 0 in a database."""
    said: str
    """The kernel message."""
    pfn: int
    """Page frame number."""
    page_type: str
    """Type of the page in the kernel's words."""
    result: ObservedResult
    """Result that the kernel printed."""


@frozen
class ObservedSoftOffline:
    """A message of `soft_offline_page()`; it logs nothing if it only migrates the page."""

    line: int
    """Line number in the log, from 1; 0 in a database."""
    said: str
    """The kernel message."""
    pfn: int
    """Page frame number."""
    result: Literal["recovered", "failed"]
    """A page that was poisoned before counts as recovered."""


@frozen
class ObservedSignal:
    """A signal to a thread."""

    line: int
    """Line number in the log, from 1; 0 in a database."""
    said: str
    """The kernel message."""
    signal: Literal["SIGBUS", "SIGKILL"]
    """Name of the signal."""
    pid: int
    """Id of the thread, as printed by the kernel."""
    comm: str
    """Name of the thread."""
    pfn: int | None
    """Page frame number; null: the message has none."""


@frozen
class ObservedPanic:
    """A kernel panic."""

    line: int
    """Line number in the log, from 1; 0 in a database."""
    said: str
    """The kernel message."""
    cause: Cause | None
    """What panicked; null: the message does not mention a hardware error."""
    pfn: int | None = None
    """Page frame number; null: the message has none."""


@frozen
class ObservedOops:
    """A synchronous external abort taken in kernel mode (`arm64_notify_die`)."""

    line: int
    """Line number in the log, from 1; 0 in a database."""
    said: str
    """The kernel message."""
    syndrome: int
    """ESR_ELx"""


@frozen
class ObservedSerror:
    """An SError that panics the kernel (`arm64_serror_panic`)."""

    line: int
    """Line number in the log, from 1; 0 in a database."""
    said: str
    """The kernel message."""
    cpu: int
    """Number of the CPU."""
    syndrome: int
    """ESR_ELx"""


@frozen
class ObservedRecovery:
    """A message of PCIe error recovery (`aer_recover_work_func`, `pcie_do_recovery`)."""

    line: int
    """Line number in the log, from 1; 0 in a database."""
    said: str
    """The kernel message."""
    device: str
    """`segment:bus:device.function` of the function, or of the port above it."""
    result: RecoveryResult
    """`queued`: the record was handed to AER recovery."""


@frozen
class ObservedMessage:
    """Any other message about a page or a record."""

    line: int
    """Line number in the log, from 1; 0 in a database."""
    said: str
    """The kernel message."""
    about: Literal["page", "error_type", "address", "panic", "driver", "other"]
    """`driver`: an error that another driver prints, such as a machine check; `other`: anything else."""
    pfn: int | None = None
    """Page frame number; null: the message has none."""
    address: int | None = None
    """Physical address without a struct page, bytes."""
    error_type: int | None = None
    """ARM error type that the kernel does not handle; null: only its name is printed."""


ObservedAction = (
    ObservedMemoryFailure
    | ObservedSoftOffline
    | ObservedSignal
    | ObservedPanic
    | ObservedOops
    | ObservedSerror
    | ObservedRecovery
    | ObservedMessage
)


@frozen
class ObservedActions:
    """The logged actions for one error, by kind and in log order."""

    memory_failures: tuple[ObservedMemoryFailure, ...] = ()
    """Results of `memory_failure()`."""
    soft_offlines: tuple[ObservedSoftOffline, ...] = ()
    """Messages of `soft_offline_page()`."""
    signals: tuple[ObservedSignal, ...] = ()
    """Signals to threads."""
    panics: tuple[ObservedPanic, ...] = ()
    """Kernel panics."""
    oopses: tuple[ObservedOops, ...] = ()
    """Synchronous external aborts taken in kernel mode."""
    serrors: tuple[ObservedSerror, ...] = ()
    """SErrors that panicked the kernel."""
    notes: tuple[ObservedMessage, ...] = ()
    """Other messages about a page or a record."""
    recoveries: tuple[ObservedRecovery, ...] = ()
    """Messages of PCIe error recovery."""

    def moved(self, number: Callable[[int], int]) -> ObservedActions:
        """Return the actions with other line numbers."""
        groups = {one.name: getattr(self, one.name) for one in fields(self)}
        return ObservedActions(**{name: tuple(replace(item, line=number(item.line)) for item in items) for name, items in groups.items()})


def is_of_drivers(observed: ObservedActions) -> bool:
    """Return whether all of the actions are messages of other drivers."""
    notes = observed.notes
    return observed == ObservedActions(notes=notes) and all(note.about == "driver" for note in notes)


def group_actions(actions: Iterable[ObservedAction]) -> ObservedActions:
    """Group actions by kind."""
    groups: dict[str, list[Any]] = {}
    for action in actions:
        groups.setdefault(_GROUPS[type(action)], []).append(action)
    return ObservedActions(**{name: tuple(group) for name, group in groups.items()})


_GROUPS: Final[dict[type[ObservedAction], str]] = {
    ObservedMemoryFailure: "memory_failures",
    ObservedSoftOffline: "soft_offlines",
    ObservedSignal: "signals",
    ObservedPanic: "panics",
    ObservedOops: "oopses",
    ObservedSerror: "serrors",
    ObservedMessage: "notes",
    ObservedRecovery: "recoveries",
}


@frozen
class AssumedField:
    """A field of the event that the source does not contain, and the value used instead."""

    field: str
    """JSON pointer into the event, such as `/notification/type`."""
    assumed: str
    """The value."""
    because: str
    """Why the source does not contain it."""

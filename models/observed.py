"""Actions of a kernel, as observed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from ras_triage.models.frozen import frozen

Result = Literal["recovered", "delayed", "failed", "ignored"]


Cause = Literal["ghes", "serror", "oops", "memory_failure"]


@frozen
class ObservedMemoryFailure:
    """`memory_failure()` came to an end (`action_result`)."""

    line: int
    """In the log, from 1."""
    said: str
    """The kernel's own words."""
    pfn: int
    page_type: str
    result: Result


@frozen
class ObservedSoftOffline:
    """`soft_offline_page()` said something; it says nothing where a page was simply migrated."""

    line: int
    said: str
    pfn: int
    result: Literal["recovered", "failed"]
    """A page that was taken away before counts as recovered."""


@frozen
class ObservedSignal:
    """A process was signalled."""

    line: int
    said: str
    signal: Literal["SIGBUS", "SIGKILL"]
    pid: int
    """Of the thread, as the kernel prints it."""
    comm: str
    """The thread's name."""
    pfn: int | None
    """None where the line names none."""


@frozen
class ObservedPanic:
    """The machine went down."""

    line: int
    said: str
    cause: Cause | None
    """None for a cause that has nothing to do with hardware errors as far as the line tells."""
    pfn: int | None = None


@frozen
class ObservedOops:
    """A synchronous external abort was taken in the kernel (`arm64_notify_die`)."""

    line: int
    said: str
    syndrome: int
    """ESR_ELx"""


@frozen
class ObservedSerror:
    """An SError that the kernel does not survive (`arm64_serror_panic`)."""

    line: int
    said: str
    cpu: int
    syndrome: int
    """ESR_ELx"""


@frozen
class ObservedMessage:
    """Anything else that it said of a page or a record."""

    line: int
    said: str
    about: Literal["page", "error_type", "address", "panic", "other"]
    pfn: int | None = None
    address: int | None = None
    """Bytes; of an address that has no page."""
    error_type: int | None = None
    """ARM error type that the kernel does nothing about; None where only its name is printed."""


ObservedAction = (
    ObservedMemoryFailure | ObservedSoftOffline | ObservedSignal | ObservedPanic | ObservedOops | ObservedSerror | ObservedMessage
)


@frozen
class ObservedActions:
    """What the kernel said it did about one error, in the order of the log."""

    memory_failures: tuple[ObservedMemoryFailure, ...] = ()
    soft_offlines: tuple[ObservedSoftOffline, ...] = ()
    signals: tuple[ObservedSignal, ...] = ()
    panics: tuple[ObservedPanic, ...] = ()
    oopses: tuple[ObservedOops, ...] = ()
    serrors: tuple[ObservedSerror, ...] = ()
    notes: tuple[ObservedMessage, ...] = ()


def group_actions(seen: Iterable[ObservedAction]) -> ObservedActions:
    """All of them by what they are."""
    items = tuple(seen)
    return ObservedActions(
        memory_failures=tuple(item for item in items if isinstance(item, ObservedMemoryFailure)),
        soft_offlines=tuple(item for item in items if isinstance(item, ObservedSoftOffline)),
        signals=tuple(item for item in items if isinstance(item, ObservedSignal)),
        panics=tuple(item for item in items if isinstance(item, ObservedPanic)),
        oopses=tuple(item for item in items if isinstance(item, ObservedOops)),
        serrors=tuple(item for item in items if isinstance(item, ObservedSerror)),
        notes=tuple(item for item in items if isinstance(item, ObservedMessage)),
    )


@frozen
class AssumedField:
    """A field of the event that the source does not tell, and what was taken instead."""

    field: str
    """JSON pointer into the event, such as `/notification/type`."""
    assumed: str
    because: str

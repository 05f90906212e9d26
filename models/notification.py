"""Notification of an error (ACPI 6.5 18.3.2.9): type, source, registers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from ras_triage.models.scalars import U16, U32, Hex64, WireModel


class NotificationType(StrEnum):
    """HEST notification types, in the order of their numbers, 0 to 11 (ACPI 6.5 table 18.14), and the boot error source."""

    POLLED = "polled"
    EXTERNAL = "external"
    LOCAL = "local"
    SCI = "sci"
    NMI = "nmi"
    CMCI = "cmci"
    MCE = "mce"
    GPIO = "gpio"
    SEA = "sea"
    SEI = "sei"
    GSIV = "gsiv"
    SDEI = "sdei"
    BERT = "bert"
    """Not notified: a record of the previous boot, from the boot error record table (ACPI 6.5 18.3.1)."""


HEST_TYPES: tuple[NotificationType, ...] = tuple(kind for kind in NotificationType if kind is not NotificationType.BERT)
"""The types of a HEST error source, by number."""


class Delivery(StrEnum):
    """The context in which the operating system first reads the record."""

    SYNCHRONOUS = "synchronous"  # taken by the thread that consumed the error
    NMI_LIKE = "nmi_like"
    IRQ_LIKE = "irq_like"
    SERROR = "serror"
    POLLED = "polled"
    BOOT = "boot"  # once, while it boots


DELIVERY = {
    NotificationType.POLLED: Delivery.POLLED,
    NotificationType.EXTERNAL: Delivery.IRQ_LIKE,
    NotificationType.LOCAL: Delivery.IRQ_LIKE,
    NotificationType.SCI: Delivery.IRQ_LIKE,
    NotificationType.NMI: Delivery.NMI_LIKE,
    NotificationType.CMCI: Delivery.IRQ_LIKE,
    NotificationType.MCE: Delivery.NMI_LIKE,
    NotificationType.GPIO: Delivery.IRQ_LIKE,
    NotificationType.SEA: Delivery.SYNCHRONOUS,
    NotificationType.SEI: Delivery.SERROR,
    NotificationType.GSIV: Delivery.IRQ_LIKE,
    NotificationType.SDEI: Delivery.NMI_LIKE,
    NotificationType.BERT: Delivery.BOOT,
}
"""Delivery of each notification type to an arm64 operating system (`ghes_probe`, `bert_init`, Linux 5.10 to 7.3)."""

ALIASES = {"irq": "external", "boot": "bert"}
"""Other names of notification types: the interrupt controller's, and UEFI's for the boot error record (UEFI 2.10 N.2.1.1)."""


_NAMES = frozenset(kind.value for kind in NotificationType)


def resolve_name(value: Any) -> Any:
    """Return the notification type that a name or alias in any letter case stands for; other values unchanged."""
    if type(value) is not str:
        return value
    name = value.lower()
    return ALIASES.get(name) or (name if name in _NAMES else value)


NotificationName = Annotated[
    NotificationType, BeforeValidator(resolve_name, json_schema_input_type=NotificationType | Literal["irq", "boot"])
]
"""A notification type, or an alias of it, in any letter case."""


def _expand_short_form(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


class Notification(WireModel):
    """One notification: its type and error source, and the registers of the exception, if any."""

    type: NotificationName
    """HEST notification type, in any letter case; `irq` is `external`, `boot` is `bert`."""
    source_id: U16 | None = None
    """HEST source id."""
    ghes_version: Literal[1, 2] = 2
    """2: the source has a read-acknowledge register (GHESv2, ACPI 6.5 18.3.2.8)."""
    error_block_length: U32 = 65536
    """Size of the source's status block buffer, bytes (ACPI 6.5 18.3.2.7)."""
    poll_interval_ms: U32 | None = None
    """Polling interval in milliseconds; polled sources only. 0: never."""
    syndrome: Hex64 | None = None
    """ESR_ELx of the abort or SError; SEA and SEI only."""
    fault_address: Hex64 | None = None
    """FAR_ELx of an abort. Not meaningful for an SError, where it is ignored with a warning."""
    taken_from: Literal["user", "kernel", "guest"] = "user"
    """What the CPU was executing when it took the exception."""


NotificationInput = Annotated[
    Notification,
    BeforeValidator(_expand_short_form, json_schema_input_type=Notification | NotificationType | Literal["irq", "boot"]),
]
"""A notification, or only its type (`"sea"`)."""

__all__ = [
    "ALIASES",
    "DELIVERY",
    "HEST_TYPES",
    "Delivery",
    "Notification",
    "NotificationInput",
    "NotificationName",
    "NotificationType",
    "resolve_name",
]

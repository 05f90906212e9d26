"""Writer of command lines for QEMU's scripts/ghes_inject.py (QEMU 10.2).

Only what the script sends counts, not what its options promise: an event is written if the script builds exactly its status block.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.event import Event
from ras_triage.models.formats.qemu.injection import NotInjectable, require_status_block
from ras_triage.models.records.block_fields import StructuredBlock, decode_structured, encode_structured
from ras_triage.models.records.guid import guid_text
from ras_triage.models.sections.arm_processor import ArmContext, ArmErrorInfo, ArmProcessor
from ras_triage.models.sections.fields import encode_timestamp, read_timestamp
from ras_triage.models.sections.section import ENTRY_REVISION

ARM_VALID = {"mpidr": 1 << 0, "affinity": 1 << 1, "running": 1 << 2, "vendor": 1 << 3}
INFO_FLAGS = {"first": 1 << 0, "last": 1 << 1, "propagated": 1 << 2, "overflow": 1 << 3}
INFO_TYPES = {"cache": 1 << 1, "tlb": 1 << 2, "bus": 1 << 3, "micro-arch": 1 << 4}
INFO_VALID = {"multiple-error": 1 << 0, "flags": 1 << 1, "error-info": 1 << 2, "virt-addr": 1 << 3, "phy-addr": 1 << 4}
BLOCK_STATUS = {"uncorrectable": 1 << 0, "correctable": 1 << 1, "multi-uncorrectable": 1 << 2, "multi-correctable": 1 << 3}
SEVERITIES = {"recoverable": 0, "fatal": 1, "corrected": 2, "none": 3}
ENTRY_VALID = {"fru-id": 1 << 0, "fru-text": 1 << 1, "timestamp": 1 << 2}

_FRU_TEXT = 20
"""Length of a FRU text: the script does not pad a shorter one, which shifts all bytes after it."""
_WORD = struct.Struct("<Q")


def to_arguments(event: Event) -> tuple[str, ...]:
    """Return the arguments, from `arm` on, with which the script injects exactly the event's status block.

    Raises NotInjectable if there are none: the script injects one ARM processor section, and writes no MPIDR, MIDR or affinity level.
    """
    data = require_status_block(event)
    try:
        block = decode_structured(data)
    except MalformedBytes as error:
        raise NotInjectable(f"the status block is malformed: {error.detail}") from None
    section = block.sections[0] if len(block.sections) == 1 else None
    if not isinstance(section, ArmProcessor):
        raise NotInjectable("the script injects a single ARM processor section")
    if not _is_injectable(block, section) or _injected_block(block, section) != data:
        raise NotInjectable("the script has no options for some of the section's fields; `inject-ghes-v2-error` takes the block as it is")
    return tuple(_arguments(block, section))


def _is_injectable(block: StructuredBlock, section: ArmProcessor) -> bool:
    """Return whether the options can express the values: one block status, a FRU text of full length, contexts that end in a zero."""
    text = section.fru_text or ""
    return (
        block.block_status in BLOCK_STATUS.values()
        and block.severity in SEVERITIES.values()
        and (not text or (text.isascii() and len(text) == _FRU_TEXT))
        and bool(section.error_infos)
        and all(_context_words(context) for context in section.contexts)
    )


def _injected_block(block: StructuredBlock, section: ArmProcessor) -> bytes:
    """Return the status block that the script builds from the arguments."""
    moment = _timestamp(section)
    options = {"fru-id": section.fru_id, "fru-text": section.fru_text, "timestamp": moment}
    injected = ArmProcessor.model_construct(
        severity=block.severity,
        revision=ENTRY_REVISION,
        entry_validation_bits=_known_bits(section.entry_validation_bits, ENTRY_VALID)
        or sum(bit for name, bit in ENTRY_VALID.items() if options[name]),
        fru_id=section.fru_id,
        fru_text=section.fru_text,
        timestamp=None if moment is None else encode_timestamp(moment),
        timestamp_precise=moment is not None and section.timestamp_precise,
        validation_bits=_known_bits(section.validation_bits, ARM_VALID) or ARM_VALID["running"],
        running_state=int(bool(section.running_state)),
        error_infos=tuple(_injected_info(info) for info in section.error_infos),
        contexts=tuple(ArmContext.model_construct(version=0, type=one.type, registers=one.registers) for one in section.contexts),
        vendor_info=_vendor_bytes(section),
    )
    return encode_structured(
        StructuredBlock.model_construct(severity=block.severity, block_status=block.block_status, sections=(injected,))
    )


def _injected_info(info: ArmErrorInfo) -> ArmErrorInfo:
    return ArmErrorInfo.model_construct(
        validation_bits=_known_bits(info.validation_bits, INFO_VALID),
        error_type=_known_bits(info.error_type, INFO_TYPES),
        multiple_error=info.multiple_error,
        flags=_known_bits(info.flags, INFO_FLAGS),
        error_information=info.error_information,
        virtual_fault_address=info.virtual_fault_address,
        physical_fault_address=info.physical_fault_address,
    )


def _known_bits(value: int | None, names: Mapping[str, int]) -> int:
    return (value or 0) & sum(names.values())


def _vendor_bytes(section: ArmProcessor) -> bytes:
    # Without `--arm vendor` the vendor bytes are not valid, and are decoded as trailing bytes of the section.
    return section.vendor_info or section.trailing or b""


def _timestamp(section: ArmProcessor) -> datetime | None:
    return read_timestamp(section.timestamp) if section.timestamp else None


def _context_words(context: ArmContext) -> list[int]:
    """Return the register values to pass for a context; none if the script cannot build it, because it appends a zero to them."""
    words = [word for (word,) in _WORD.iter_unpack(context.registers)] if len(context.registers) % _WORD.size == 0 else []
    return words[:-1] if words[-1:] == [0] else []


def _arguments(block: StructuredBlock, section: ArmProcessor) -> list[str]:
    arguments = ["arm"]
    arguments += _option("--arm", _names(section.validation_bits, ARM_VALID))
    arguments += ["--running"] if section.running_state else []
    arguments += _option("--block-status", _names(block.block_status, BLOCK_STATUS))
    arguments += _option("--error-severity", next(name for name, number in SEVERITIES.items() if number == block.severity))
    arguments += _option("--gen-err-valid-bits", _names(section.entry_validation_bits, ENTRY_VALID))
    arguments += _option("--fru-id", guid_text(section.fru_id) if section.fru_id else "")
    arguments += _option("--fru-text", section.fru_text or "")
    if (moment := _timestamp(section)) is not None:
        arguments += ["--timestamp", moment.replace(tzinfo=None).isoformat(sep=" ")]
        arguments += ["--precise"] if section.timestamp_precise else []
    for option, value in _INFO_OPTIONS.items():
        arguments += [option, *(value(info) for info in section.error_infos)]
    arguments += _context_arguments(section.contexts)
    arguments += _option("--vendor", ",".join(str(byte) for byte in _vendor_bytes(section)))
    return arguments


_INFO_OPTIONS: dict[str, Callable[[ArmErrorInfo], str]] = {
    "--type": lambda info: _names(info.error_type, INFO_TYPES),
    "--pei-valid": lambda info: _names(info.validation_bits, INFO_VALID),
    "--flags": lambda info: _names(info.flags, INFO_FLAGS),
    "--multiple-error": lambda info: str(info.multiple_error or 0),
    "--error-info": lambda info: hex(info.error_information or 0),
    "--virtual-address": lambda info: hex(info.virtual_fault_address or 0),
    "--physical-address": lambda info: hex(info.physical_fault_address or 0),
}


def _option(option: str, value: str) -> list[str]:
    if value.startswith("-"):  # argparse takes such a word for an option
        return [f"{option}={value}"]
    return [option, value] if value else []


def _names(bits: int | None, names: Mapping[str, int]) -> str:
    return ",".join(name for name, bit in names.items() if (bits or 0) & bit)


def _context_arguments(contexts: Sequence[ArmContext]) -> list[str]:
    if not contexts:
        return []
    arrays = (",".join(map(hex, _context_words(context))) for context in contexts)
    return ["--ctx-type", *(str(context.type) for context in contexts), "--ctx-array", *arrays]

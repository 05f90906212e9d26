"""Arguments of QEMU's scripts/ghes_inject.py (10.2): the ARM processor error that they inject, and the arguments for such an error.

What counts is what the script sends, not what its options promise: several of them have no effect, and a reading names those in `lost`.
"""

from __future__ import annotations

import shlex
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.event import Event
from ras_triage.models.formats.ghes_options import MAX_LENGTH, Options, ScriptFails, choices, integer, integers, parse
from ras_triage.models.formats.items import FoundError, Position, UnreadableRecord
from ras_triage.models.formats.qemu.injection import FORMAT, LOST, NotInjectable, to_found_error
from ras_triage.models.notification import Notification
from ras_triage.models.observed import AssumedField
from ras_triage.models.records.block_fields import StructuredBlock, decode_structured
from ras_triage.models.records.guid import ARM_PROCESSOR, guid, guid_text
from ras_triage.models.records.status_block import ENTRY, ENTRY_V3_LENGTH, encode_block_header
from ras_triage.models.sections.arm_processor import ArmContext, ArmErrorInfo, ArmProcessor
from ras_triage.models.sections.fields import encode_timestamp, join_timestamp, read_timestamp

ARM_VALID = {"mpidr": 1 << 0, "affinity": 1 << 1, "running": 1 << 2, "vendor": 1 << 3}
INFO_FLAGS = {"first": 1 << 0, "last": 1 << 1, "propagated": 1 << 2, "overflow": 1 << 3}
INFO_TYPES = {"cache": 1 << 1, "tlb": 1 << 2, "bus": 1 << 3, "micro-arch": 1 << 4}
INFO_VALID = {"multiple-error": 1 << 0, "flags": 1 << 1, "error-info": 1 << 2, "virt-addr": 1 << 3, "phy-addr": 1 << 4}
BLOCK_STATUS = {"uncorrectable": 1 << 0, "correctable": 1 << 1, "multi-uncorrectable": 1 << 2, "multi-correctable": 1 << 3}
SEVERITIES = {"recoverable": 0, "fatal": 1, "corrected": 2, "none": 3}
ENTRY_VALID = {"fru-id": 1 << 0, "fru-text": 1 << 1, "timestamp": 1 << 2}

_ERROR_INFORMATION = {1 << 1: 0x0091000F, 1 << 2: 0x0054007F, 1 << 3: 0x80D6460FFF, 1 << 4: 0x78DA03FF}
"""What the script takes for a single type without `--error-info`."""
_FLAGS = INFO_FLAGS["first"] | INFO_FLAGS["last"]
_SINGLE, _VIRTUAL, _PHYSICAL = 1, 0xDEADBEEF, 0xABBA0BAD
"""What it writes where nothing is given; the validation bits stay clear."""
_AARCH64_EL1 = 5
_REVISION = 0x0300
_FRU_TEXT = 20

_INFO = struct.Struct("<BBHBHBQQQ")
_CONTEXT = struct.Struct("<HHI")
_HEADER = struct.Struct("<IHHIB3xQQII")
_WORD = struct.Struct("<Q")

_LISTS: dict[str, Callable[[str], int]] = {
    "valid": lambda told: choices("valid", told, INFO_VALID, ("-valid", "--addr")),
    "type": lambda told: choices("type", told, INFO_TYPES, ("-error", "-err")),
    "flags": lambda told: choices("flags", told, INFO_FLAGS, ("-error", "-cap")),
    "error-info": lambda told: integer("error-info", told),
    "multiple-error": lambda told: integer("multiple-error", told),
    "phy-addr": lambda told: integer("phy-addr", told),
    "virt-addr": lambda told: integer("virt-addr", told),
}
_INEFFECTIVE = {
    "mpidr": "--mpidr: the script writes 0, and calls it valid",
    "affinity": "--affinity: the script writes 0, and calls it valid",
    "midr": "--midr: the script writes the machine's or 0",
    "psci": "--psci: the script writes 0",
    "gedb_flags": "--gedb-flags: the script does not look at it",
    "ctx_size": "--ctx-size: the script does not look at the size",
}
"""Options without effect: the script looks for what was given under another name (arm_processor_error.py, qmp_helper.py)."""


def read_arguments(
    arguments: str | Sequence[str], *, notification: Notification | None = None, place: Position | None = None
) -> FoundError | UnreadableRecord:
    """The event that `ghes_inject.py arm ...` injects; the words up to `arm` may be there or not.

    Unread where the script would refuse the arguments or fail on them.
    """
    place = place or Position()
    try:
        words = _split(arguments) if isinstance(arguments, str) else list(arguments)
        options = parse(words)
        block = _block(options, _section(options))
    except ScriptFails as fails:
        return UnreadableRecord(place, str(fails), FORMAT)
    except (struct.error, OverflowError):
        return UnreadableRecord(place, "a number is wider than its field", FORMAT)
    except ValueError:
        return UnreadableRecord(place, "the arguments cannot be split into words: a quotation is not closed", FORMAT)
    return to_found_error(block, notification, place, (*LOST, *_lost(options)), _assumed(options))


def _split(arguments: str) -> list[str]:
    """Return the words of a command line. Raises ScriptFails where it is too long, ValueError where a quotation is not closed."""
    if len(arguments) > MAX_LENGTH:
        raise ScriptFails(f"there are more than {MAX_LENGTH} characters")
    return shlex.split(arguments)


def _assumed(options: Options) -> tuple[AssumedField, ...]:
    section = "/status_block/sections/0"
    found = [AssumedField(f"{section}/midr_el1", "0x0", "the script asks the machine for it, and writes 0 where it has no answer")]
    if options.has_contexts and options.many["ctx_type"] is None:
        because = "the script asks the machine for its architecture; an AArch64 one was taken"
        found.append(AssumedField(f"{section}/contexts", str(_AARCH64_EL1), because))
    return tuple(found)


def _lost(options: Options) -> list[str]:
    lost = [phrase for name, phrase in _INEFFECTIVE.items() if options.has(name)]
    text = options.one["fru_text"]
    if text is not None and len(text) < _FRU_TEXT:
        lost.append("--fru-text: the script does not pad it to 20 bytes, and everything behind it is shifted")
    if options.many["raw_data"]:
        lost.append("--raw-data: the script puts it before the section and counts it as one of its own, and the block is malformed")
    return lost


def _section(options: Options) -> bytes:
    """The section's bytes. Raises ScriptFails; struct.error or OverflowError where a number is wider than its field."""
    infos = _infos(options)
    contexts = _contexts(options)
    vendor = bytes(number for told in options.many["vendor"] or () for number in integers("bytes", told, 0xFF))
    behind = b"".join((*infos, *contexts, vendor))
    running = int(options.one["running"] == "yes")
    header = _HEADER.pack(_arm_valid(options), len(infos), len(contexts), _HEADER.size + len(behind), 0, 0, 0, running, 0)
    return header + behind


def _arm_valid(options: Options) -> int:
    if options.one["arm"]:
        return choices("valid", options.one["arm"], ARM_VALID, ("-error", "-err"))
    given = {"mpidr": "mpidr", "affinity": "affinity"}
    nonzero = (ARM_VALID[bit] for name, bit in given.items() if integer(name, options.one[name] or "0"))
    return ARM_VALID["running"] | sum(nonzero)


def _infos(options: Options) -> list[bytes]:
    sources = {
        "valid": options.many["pei_valid"],
        "type": options.many["type"] or ["cache-error"],
        "flags": options.many["flags"],
        "error-info": options.many["error_info"],
        "multiple-error": options.many["multiple_error"],
        "phy-addr": options.many["physical_address"],
        "virt-addr": options.many["virtual_address"],
    }
    found: list[dict[str, int]] = [{} for _ in range(max(len(told or ()) for told in sources.values()))]
    for name, told in sources.items():
        for index, word in enumerate(told or ()):
            found[index][name] = _LISTS[name](word)
    return [_info(one) for one in found]


def _info(given: Mapping[str, int]) -> bytes:
    if "type" not in given:
        raise ScriptFails("more values than types are given, and the script fails")
    told = dict(given)
    if "error-info" not in told and told["type"] in _ERROR_INFORMATION:
        told["error-info"] = _ERROR_INFORMATION[told["type"]]
    return _INFO.pack(
        0,
        _INFO.size,
        told.get("valid", sum(bit for name, bit in INFO_VALID.items() if name in told)),
        told["type"],
        told.get("multiple-error", _SINGLE),
        told.get("flags", _FLAGS),
        told.get("error-info", 0),
        told.get("virt-addr", _VIRTUAL),
        told.get("phy-addr", _PHYSICAL),
    )


def _contexts(options: Options) -> list[bytes]:
    """One more word than registers are given, as the script counts."""
    types = options.many["ctx_type"]
    arrays = options.many["ctx_array"]
    count = max(len(types or ()), len(options.many["ctx_size"] or ()), len(arrays or ()), 1 if arrays == [] else 0)
    found = []
    for index in range(count):
        kind = integer("type", types[index]) if types and index < len(types) else _AARCH64_EL1
        registers = integers("register", arrays[index]) if arrays and index < len(arrays) else []
        words = struct.pack(f"<{len(registers) + 1}Q", *registers, 0)
        found.append(_CONTEXT.pack(0, kind, len(words)) + words)
    return found


def _block(options: Options, section: bytes) -> bytes:
    """The status block around the section, byte for byte as the script lays it out."""
    one = options.one
    severity = choices("error-severity", one["error_severity"], SEVERITIES, is_mask=False) if one["error_severity"] else 0
    status = choices("block-status", one["block_status"], BLOCK_STATUS, is_mask=False) if one["block_status"] else 1
    raw = bytes(number for told in options.many["raw_data"] or () for number in integers("raw-data", told, 0xFF))
    text = _fru_text(one["fru_text"])
    entry = ENTRY.pack(ARM_PROCESSOR, severity, _REVISION, _entry_valid(options), 0, len(section), _fru_id(one["fru_id"]), text)
    # The structure pads the text, the script does not.
    entry = entry[: ENTRY.size - _FRU_TEXT + len(text)] + _timestamp(options)
    data_length = len(section) + len(raw) + ENTRY_V3_LENGTH
    return encode_block_header(status, 0, len(raw), data_length, severity) + entry + raw + section


def _entry_valid(options: Options) -> int:
    if told := options.one["gen_err_valid_bits"]:
        return choices("validation", told, ENTRY_VALID)
    return sum(bit for name, bit in ENTRY_VALID.items() if options.one[name.replace("-", "_")])


def _fru_id(told: str | None) -> bytes:
    try:
        return guid(told) if told else bytes(16)
    except ValueError:
        raise ScriptFails("`--fru-id` is not a GUID") from None


def _fru_text(told: str | None) -> bytes:
    if not told:
        return bytes(_FRU_TEXT)
    if not told.isascii() or len(told) > _FRU_TEXT:
        raise ScriptFails(f"`--fru-text` is not ASCII of {_FRU_TEXT} characters at most")
    return told.encode()


def _timestamp(options: Options) -> bytes:
    told = options.one["timestamp"]
    if not told:
        return bytes(8)
    if told == "now":
        raise ScriptFails("`--timestamp now` is the time of the injection, which the arguments do not tell")
    try:
        # BCD knows no time zone, and the script puts down what it is given.
        moment = datetime.strptime(told + " +0000", "%Y-%m-%d %H:%M:%S %z")
    except ValueError:
        raise ScriptFails("`--timestamp` is not `YYYY-MM-DD hh:mm:ss`") from None
    return join_timestamp(encode_timestamp(moment), options.one["precise"] == "yes")


def to_arguments(event: Event) -> tuple[str, ...]:
    """The arguments from `arm` on with which the script injects the event's status block, byte for byte.

    Raises NotInjectable where none do: the script knows one ARM processor section, and writes neither MPIDR nor MIDR nor affinity.
    """
    try:
        block = decode_structured(event.status_block or b"")
    except MalformedBytes as error:
        raise NotInjectable(f"the status block is malformed: {error.detail}") from None
    section = block.sections[0] if len(block.sections) == 1 else None
    if not isinstance(section, ArmProcessor):
        raise NotInjectable("the script injects a single ARM processor section")
    arguments = tuple(_words(block, section))
    read = read_arguments(arguments)
    if isinstance(read, UnreadableRecord) or read.event.status_block != event.status_block:
        raise NotInjectable("the script has no options for some of the section's fields; `inject-ghes-v2-error` takes the block as it is")
    return arguments


def _words(block: StructuredBlock, section: ArmProcessor) -> list[str]:
    words = ["arm"]
    words += _one("--arm", _named(section.validation_bits or 0, ARM_VALID))
    words += ["--running"] if section.running_state else []
    words += _one("--block-status", _named(block.block_status or 0, BLOCK_STATUS))
    words += _one("--error-severity", next((name for name, number in SEVERITIES.items() if number == block.severity), ""))
    words += _one("--gen-err-valid-bits", _named(section.entry_validation_bits or 0, ENTRY_VALID))
    words += _one("--fru-id", guid_text(section.fru_id) if section.fru_id else "")
    words += _one("--fru-text", section.fru_text or "")
    words += _stamp_words(section)
    for option, told in _INFO_OPTIONS.items():
        words += [option, *(told(info) for info in section.error_infos)]
    words += _context_words(section.contexts)
    # Without `--arm vendor` the script calls the vendor's bytes not valid, and then they only trail behind the section.
    words += _one("--vendor", ",".join(str(byte) for byte in section.vendor_info or section.trailing or b""))
    return words


_INFO_OPTIONS: dict[str, Callable[[ArmErrorInfo], str]] = {
    "--type": lambda info: _named(info.error_type or 0, INFO_TYPES),
    "--pei-valid": lambda info: _named(info.validation_bits or 0, INFO_VALID),
    "--flags": lambda info: _named(info.flags or 0, INFO_FLAGS),
    "--multiple-error": lambda info: str(info.multiple_error or 0),
    "--error-info": lambda info: hex(info.error_information or 0),
    "--virtual-address": lambda info: hex(info.virtual_fault_address or 0),
    "--physical-address": lambda info: hex(info.physical_fault_address or 0),
}


def _one(option: str, told: str) -> list[str]:
    return [option, told] if told else []


def _named(bits: int, names: Mapping[str, int]) -> str:
    return ",".join(name for name, bit in names.items() if bits & bit)


def _stamp_words(section: ArmProcessor) -> list[str]:
    moment = read_timestamp(section.timestamp) if section.timestamp else None
    if moment is None:
        return []
    return ["--timestamp", moment.strftime("%Y-%m-%d %H:%M:%S"), *(["--precise"] if section.timestamp_precise else [])]


def _context_words(contexts: Sequence[ArmContext]) -> list[str]:
    if not contexts:
        return []
    arrays = ([word for (word,) in _WORD.iter_unpack(context.registers[: len(context.registers) & ~7])] for context in contexts)
    return [
        "--ctx-type",
        *(str(context.type) for context in contexts),
        "--ctx-array",
        *(",".join(hex(word) for word in words[:-1]) or "0" for words in arrays),
    ]

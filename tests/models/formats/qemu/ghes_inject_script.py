"""Model of QEMU's scripts/ghes_inject.py (10.2) for tests of the writer."""

from __future__ import annotations

import struct
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from ras_triage.models.formats.qemu import ghes_inject as names
from ras_triage.models.records.guid import ARM_PROCESSOR, guid
from ras_triage.models.records.status_block import ENTRY, ENTRY_V3_LENGTH, encode_block_header
from ras_triage.models.sections.fields import encode_timestamp, join_timestamp

ERROR_INFORMATION = {1 << 1: 0x0091000F, 1 << 2: 0x0054007F, 1 << 3: 0x80D6460FFF, 1 << 4: 0x78DA03FF}
"""The script's defaults for a single error type."""

_PARSER = ArgumentParser(exit_on_error=False, allow_abbrev=False)
_PARSER.add_argument("command", choices=["arm"])
for _one in ("arm", "block-status", "error-severity", "gen-err-valid-bits", "fru-id", "fru-text", "timestamp"):
    _PARSER.add_argument(f"--{_one}", default="")
for _many in (
    "type", "pei-valid", "flags", "multiple-error", "error-info", "virtual-address", "physical-address", "ctx-type", "ctx-array", "vendor"
):  # fmt: skip
    _PARSER.add_argument(f"--{_many}", nargs="+", default=[])
for _switch in ("running", "precise"):
    _PARSER.add_argument(f"--{_switch}", action="store_true")


def inject(arguments: Sequence[str]) -> bytes:
    """Return the status block that the script sends for its arguments."""
    options = vars(_PARSER.parse_args(list(arguments)))
    infos = b"".join(_infos(options))
    contexts = b"".join(_contexts(options))
    vendor = bytes(int(number, 0) for word in options["vendor"] for number in word.split(","))
    behind = infos + contexts + vendor
    valid = _bits(options["arm"], names.ARM_VALID) or names.ARM_VALID["running"]
    counts = len(infos) // 32, len(options["ctx_array"])
    section = struct.pack("<IHHIB3xQQII", valid, *counts, 40 + len(behind), 0, 0, 0, options["running"], 0) + behind
    severity = names.SEVERITIES[options["error_severity"] or "recoverable"]
    status = names.BLOCK_STATUS[options["block_status"] or "uncorrectable"]
    entry = _entry(options, severity, len(section))
    return encode_block_header(status, 0, 0, len(section) + ENTRY_V3_LENGTH, severity) + entry + section


def _bits(word: str, bits: Mapping[str, int]) -> int:
    return sum(bits[name] for name in set(word.split(","))) if word else 0


def _infos(options: Mapping[str, list[str]]) -> Iterable[bytes]:
    types = options["type"] or ["cache"]
    for index, word in enumerate(types):
        kind = _bits(word, names.INFO_TYPES)
        values = {
            name: options[option][index]
            for name, option in (
                ("multiple-error", "multiple_error"), ("flags", "flags"), ("error-info", "error_info"),
                ("virt-addr", "virtual_address"), ("phy-addr", "physical_address"),
            )
            if index < len(options[option])
        }  # fmt: skip
        if kind in ERROR_INFORMATION:
            values.setdefault("error-info", str(ERROR_INFORMATION[kind]))
        valid = sum(names.INFO_VALID[name] for name in values)
        yield struct.pack(
            "<BBHBHBQQQ",
            0,
            32,
            _bits(options["pei_valid"][index], names.INFO_VALID) if index < len(options["pei_valid"]) else valid,
            kind,
            int(values.get("multiple-error", "1"), 0),
            _bits(values["flags"], names.INFO_FLAGS) if "flags" in values else 3,
            int(values.get("error-info", "0"), 0),
            int(values.get("virt-addr", "0xdeadbeef"), 0),
            int(values.get("phy-addr", "0xabba0bad"), 0),
        )


def _contexts(options: Mapping[str, list[str]]) -> Iterable[bytes]:
    """Yield the contexts; the script appends one zero to the registers of each."""
    for index, word in enumerate(options["ctx_array"]):
        registers = [*(int(number, 0) for number in word.split(",")), 0]
        kind = int(options["ctx_type"][index], 0) if index < len(options["ctx_type"]) else 5
        yield struct.pack(f"<HHI{len(registers)}Q", 0, kind, 8 * len(registers), *registers)


def _entry(options: Mapping[str, str], severity: int, length: int) -> bytes:
    """Return the data entry header; the script does not pad a short FRU text."""
    valid = _bits(options["gen_err_valid_bits"], names.ENTRY_VALID) or sum(
        bit for name, bit in names.ENTRY_VALID.items() if options[name.replace("-", "_")]
    )
    identity = guid(options["fru_id"]) if options["fru_id"] else bytes(16)
    text = options["fru_text"].encode("ascii") or bytes(20)
    entry = ENTRY.pack(ARM_PROCESSOR, severity, 0x0300, valid, 0, length, identity, text)
    return entry[: ENTRY.size - 20 + len(text)] + _stamp(options)


def _stamp(options: Mapping[str, str]) -> bytes:
    if not options["timestamp"]:
        return bytes(8)
    moment = datetime.strptime(options["timestamp"] + " +0000", "%Y-%m-%d %H:%M:%S %z")
    return join_timestamp(encode_timestamp(moment), is_precise=bool(options["precise"]))

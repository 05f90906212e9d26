"""Generator of kernel log records, after cper.c, cper-arm.c and ghes.c.

A record here is a dict: `sequence`, `source`, `severity`, and `sections`, each with the names of the structured status block.
"""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import strategies as st

Record = dict[str, Any]

SEVERITIES = ("recoverable", "fatal", "corrected", "info")
MEMORY_TYPES = ("unknown", "no error", "single-bit ECC", "multi-bit ECC", "single-symbol chipkill ECC")
ARM_TYPES = ("cache error", "TLB error", "bus error", "micro-architectural error")
CONTEXTS = {4: "AArch64 general purpose registers", 5: "AArch64 EL1 context registers", 8: "Misc. system register structure"}
FIRMWARE_TYPES = (
    "IPF SAL Error Record",
    "SOC Firmware Error Record Type1 (Legacy CrashLog Support)",
    "SOC Firmware Error Record Type2",
)
LOCATION = (
    ("node", "node"), ("card", "card"), ("module", "module"), ("rank", "rank"), ("bank", "bank"), ("device", "device"), ("row", "row"),
    ("column", "column"), ("bit_position", "bit_position"), ("requestor_id", "requestor_id"), ("responder_id", "responder_id"),
    ("target_id", "target_id"), ("chip_id", "chip_identification"),
)  # fmt: skip


def bodies(record: Record, new: bool) -> list[str]:
    """Return the lines of a record without prefixes; `new`: in the format of newer kernels."""
    lines = [f"Hardware error from APEI Generic Hardware Error Source: {record['source']}"]
    if record["severity"] == 2:
        lines.append("It has been corrected by h/w and requires no further action")
    lines.append(f"event severity: {SEVERITIES[record['severity']]}")
    for index, section in enumerate(record["sections"]):
        if section.get("time"):
            lines.append(f" {'precise' if section['precise'] else 'imprecise'} tstamp: {section['time']}")
        lines.append(f" Error {index}, type: {SEVERITIES[section['severity']]}")
        if "fru_id" in section:
            lines.append(f" fru_id: {section['fru_id']}")
        if "fru_text" in section:
            lines.append(f" fru_text: {section['fru_text']}")
        lines += ["  " + line for line in PRINTERS[section["type"]](section, new)]
    return lines


def dump(data: bytes, *, ascii_column: bool) -> list[str]:
    """Return a dump as `print_hex_dump` prints it: rows of 16 bytes in groups of four."""
    lines = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        if len(row) % 4:
            words = " ".join(f"{byte:02x}" for byte in row)
        else:
            words = " ".join(f"{word:08x}" for word in struct.unpack(f"<{len(row) // 4}I", row))
        text = "".join(chr(byte) if 0x20 < byte < 0x7F else "." for byte in row)
        lines.append(f"{at:08x}: {words:<35}  {text}" if ascii_column else f"{at:08x}: {words}")
    return lines


def print_memory(section: Record, new: bool) -> list[str]:
    lines = ["section_type: memory error"]
    if "error_status" in section:
        status = f"0x{section['error_status']:016x}"
        lines.append(f" error_status: Storage error in DRAM memory ({status})" if new else f"error_status: {status}")
    lines += [f"{name}: 0x{section[name]:016x}" for name in ("physical_address", "physical_address_mask") if name in section]
    items = []
    for word, name in LOCATION:
        if name in section:
            number = section[name]
            shown = f"0x{number:016x}" if name.endswith("_id") else str(number)
            items.append(f"{word}:{shown} " if new else f"{word}: {shown} ")
    if items:
        lines.append("".join(items))
    if "memory_error_type" in section:
        lines.append(f"error_type: {section['memory_error_type']}, {MEMORY_TYPES[section['memory_error_type']]}")
    if "module_handle" in section:
        lines.append(f"DIMM location: not present. DMI handle: 0x{section['module_handle']:04x} ")
    return lines


def print_pcie(section: Record, _new: bool) -> list[str]:
    lines = ["section_type: PCIe error"]
    if "port_type" in section:
        lines.append(f"port_type: {section['port_type']}, PCIe end point")
    if "version_major" in section:
        lines.append(f"version: {section['version_major']}.{section['version_minor']}")
    if "command" in section:
        lines.append(f"command: 0x{section['command']:04x}, status: 0x{section['status']:04x}")
    if "bus" in section:
        at = section
        lines.append(f"device_id: {at['segment']:04x}:{at['bus']:02x}:{at['device']:02x}.{at['function']:x}")
        lines.append(f"slot: {at['slot']}")
        lines.append(f"secondary_bus: 0x{at['secondary_bus']:02x}")
        lines.append(f"vendor_id: 0x{at['vendor_id']:04x}, device_id: 0x{at['device_id']:04x}")
        lines.append(f"class_code: {at['class_code']:06x}")
    if "serial_number" in section:
        lines.append(f"serial number: 0x{section['serial_number'] & 0xFFFFFFFF:04x}, 0x{section['serial_number'] >> 32:04x}")
    if "bridge_control" in section:
        lines.append(f"bridge: secondary_status: 0x{section['bridge_secondary_status']:04x}, control: 0x{section['bridge_control']:04x}")
    if "aer_uncorrectable_status" in section:
        status, mask = section["aer_uncorrectable_status"], section["aer_uncorrectable_mask"]
        lines.append(f"aer_uncor_status: 0x{status:08x}, aer_uncor_mask: 0x{mask:08x}")
        lines.append(f"aer_uncor_severity: 0x{section['aer_uncorrectable_severity']:08x}")
        lines.append("TLP Header: {:08x} {:08x} {:08x} {:08x}".format(*struct.unpack("<4I", section["aer_header_log"])))
    return lines


def print_arm(section: Record, new: bool) -> list[str]:
    lines = ["section_type: ARM processor error", f"MIDR: 0x{section['midr_el1']:016x}"]
    if "mpidr_el1" in section:
        lines.append(f"Multiprocessor Affinity Register (MPIDR): 0x{section['mpidr_el1']:016x}")
    if "error_affinity_level" in section:
        lines.append(f"error affinity level: {section['error_affinity_level']}")
    if "running_state" in section:
        lines.append(f"running state: 0x{section['running_state']:x}")
        lines.append(f"Power State Coordination Interface state: {section['psci_state']}")
    for index, info in enumerate(section["error_infos"]):
        lines += [f"Error info structure {index}:", f"num errors: {info['multiple_error'] + 1}"]
        lines += [" " + line for line in info_lines(info, new)]
    for index, (kind, registers) in enumerate(section["contexts"]):
        lines += [f"Context info structure {index}:", f" register context type: {CONTEXTS[kind]}"]
        lines += [" " + row for row in dump(registers, ascii_column=False)]
    if "vendor_info" in section:
        lines.append(f"Vendor specific error info has {len(section['vendor_info'])} bytes:")
        lines += [" " + row for row in dump(section["vendor_info"], ascii_column=True)]
    return lines


def info_lines(info: Record, new: bool) -> list[str]:
    words = ("first error captured", "last error captured", "propagated error captured", "overflow occurred, error info is incomplete")
    lines = [word for bit, word in enumerate(words) if info.get("flags", 0) >> bit & 1]
    kind = info["error_type"]
    if new:
        names = "|".join(name for bit, name in enumerate(ARM_TYPES, 1) if kind >> bit & 1)
        lines.append(f"error_type: 0x{kind:02x}: {names}{' with reserved bit(s)' if kind & ~0x1E else ''}")
    else:
        lines.append(f"error_type: {kind}, {ARM_TYPES[kind] if kind < len(ARM_TYPES) else 'unknown'}")
    if "error_information" in info:
        lines.append(f"error_info: 0x{info['error_information']:016x}")
        if info["error_information"] & 4:
            lines.append(f" cache level: {info['error_information'] >> 22 & 7}")
        if info["error_information"] & 16:
            lines.append(f" the error has {'' if info['error_information'] >> 26 & 1 else 'not '}been corrected")
    for name, words_before in (("virtual_fault_address", "virtual"), ("physical_fault_address", "physical")):
        if name in info:
            lines.append(f"{words_before} fault address: 0x{info[name]:016x}")
    return lines


def print_generic_processor(section: Record, _new: bool) -> list[str]:
    lines = ["section_type: general processor error"]
    if "processor_type" in section:
        lines.append(f"processor_type: {section['processor_type']}, ARM")
    if "processor_error_type" in section:
        lines.append(f"error_type: 0x{section['processor_error_type']:02x}")
        names = ", ".join(name for bit, name in enumerate(ARM_TYPES) if section["processor_error_type"] >> bit & 1)
        lines += [names] if names else []
    if "level" in section:
        lines.append(f"level: {section['level']}")
    words = (("cpu_version", "version_info"), ("processor_id", "processor_id"), ("target_address", "target_address"))
    for name, word in (*words, ("requestor_id", "requestor_id"), ("instruction_pointer", "IP")):
        if name in section:
            lines.append(f"{word}: 0x{section[name]:016x}")
    return lines


def print_firmware(section: Record, _new: bool) -> list[str]:
    lines = ["section_type: Firmware Error Record Reference"]
    lines.append(f"Firmware Error Record Type: {FIRMWARE_TYPES[section['record_type']]}")
    lines += ["Revision: 0", f"Record Identifier: {section['record_id']:08x}"]
    return lines + dump(section["trailing"], ascii_column=True)


def print_cxl(section: Record, _new: bool) -> list[str]:
    at = section
    lines = ["section_type: CXL Protocol Error", f" agent_type: {at['agent_type']}, CXL Device"]
    address = at["agent_address"]
    lines.append(f" agent_address: {address >> 24:04x}:{address >> 16 & 0xFF:02x}:{address >> 8 & 0xFF:02x}.{address & 0xFF:x}")
    lines.append(f" slot: {at['slot']}")
    lines.append(f" vendor_id: 0x{at['vendor_id']:04x}, device_id: 0x{at['device_id']:04x}")
    lines.append(f" sub_vendor_id: 0x{at['subsystem_vendor_id']:04x}, sub_device_id: 0x{at['subsystem_id']:04x}")
    lines.append(f" class_code: {at['class_code']:04x}")
    if "serial_number" in at:
        lines.append(f" lower_dw: 0x{at['serial_number'] & 0xFFFFFFFF:08x}, upper_dw: 0x{at['serial_number'] >> 32:08x}")
    if "capability_structure" in at:
        lines += dump(at["capability_structure"], ascii_column=False)
    if "dvsec" in at:
        lines += [f" DVSEC length: 0x{len(at['dvsec']):04x}", " CXL DVSEC:", *dump(at["dvsec"], ascii_column=False)]
    if "error_log" in at:
        lines += [" Error log length: 0x0058", " CXL Error Log:"]
        names = ("cxl_ras_uncor_status", "cxl_ras_uncor_mask", "cxl_ras_uncor_severity", "cxl_ras_cor_status", "cxl_ras_cor_mask")
        registers = struct.unpack("<6I", at["error_log"][:24])
        lines += [f" {name}: 0x{register:08x}" for name, register in zip((*names, "cap_control"), registers, strict=True)]
        lines += [" Header Log Registers:", *dump(at["error_log"][24:], ascii_column=False)]
    return lines


def print_unknown(section: Record, _new: bool) -> list[str]:
    payload = section["payload"]
    head = [f"section type: unknown, {section['guid']}", f"section length: {len(payload):#x}"]
    return head + dump(payload, ascii_column=True)


PRINTERS = {
    "memory": print_memory,
    "pcie": print_pcie,
    "arm_processor": print_arm,
    "generic_processor": print_generic_processor,
    "firmware_record_reference": print_firmware,
    "cxl_protocol": print_cxl,
    "unknown": print_unknown,
}

u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Record]:
    return st.fixed_dictionaries({}, optional=fields)


def together(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Record]:
    """Generate all of the fields, or none."""
    return st.just({}) | st.fixed_dictionaries(fields)


def merged(*parts: st.SearchStrategy[Record]) -> st.SearchStrategy[Record]:
    return st.tuples(*parts).map(lambda dicts: {name: field for part in dicts for name, field in part.items()})


memories = merged(
    st.just({"type": "memory"}),
    some(
        error_status=u64, physical_address=u64, physical_address_mask=u64, node=u16, card=u16, module=u16, rank=u16, bank=u16, device=u16,
        row=st.integers(0, (1 << 18) - 1), column=u16, bit_position=u16, requestor_id=u64, responder_id=u64, target_id=u64,
        chip_identification=st.integers(0, 7), memory_error_type=st.integers(0, 4), module_handle=u16,
    ),
)  # fmt: skip
pcies = merged(
    st.just({"type": "pcie"}),
    some(port_type=st.integers(0, 10), serial_number=u64),
    together(version_major=u8, version_minor=u8),
    together(command=u16, status=u16),
    together(
        segment=u16, bus=u8, device=u8, function=st.integers(0, 7), slot=st.integers(0, 8191), secondary_bus=u8, vendor_id=u16,
        device_id=u16, class_code=st.integers(0, (1 << 24) - 1),
    ),
    together(bridge_secondary_status=u16, bridge_control=u16),
    together(
        aer_uncorrectable_status=u32, aer_uncorrectable_mask=u32, aer_uncorrectable_severity=u32,
        aer_header_log=st.binary(min_size=16, max_size=16),
    ),
)  # fmt: skip
infos = merged(
    st.fixed_dictionaries({"error_type": st.integers(0, 9) | u8, "multiple_error": st.integers(0, 3) | st.integers(0, 0xFFFE)}),
    some(flags=st.integers(1, 15), error_information=u64, virtual_fault_address=u64, physical_fault_address=u64),
)
registers = st.tuples(st.sampled_from(sorted(CONTEXTS)), st.integers(1, 6).flatmap(lambda n: st.binary(min_size=8 * n, max_size=8 * n)))
arms = merged(
    st.fixed_dictionaries(
        {"type": st.just("arm_processor"), "midr_el1": u64, "error_infos": st.lists(infos, min_size=1, max_size=3),
         "contexts": st.lists(registers, max_size=2)}
    ),
    some(mpidr_el1=u64, error_affinity_level=u8, vendor_info=st.binary(min_size=1, max_size=40)),
    together(running_state=u32, psci_state=st.integers(0, (1 << 31) - 1)),
)  # fmt: skip
generics = merged(
    st.just({"type": "generic_processor"}),
    some(
        processor_type=u8, processor_error_type=u8, level=u8, cpu_version=u64, processor_id=u64, target_address=u64, requestor_id=u64,
        instruction_pointer=u64,
    ),
)  # fmt: skip
firmwares = st.fixed_dictionaries(
    {
        "type": st.just("firmware_record_reference"),
        "record_type": st.integers(0, 2),
        "record_id": u64,
        "trailing": st.binary(max_size=40),
    }
)
cxls = merged(
    st.fixed_dictionaries(
        {"type": st.just("cxl_protocol"), "agent_type": st.sampled_from([0, 2, 3, 4]),
         "agent_address": st.tuples(u16, u8, u8, st.integers(0, 7)).map(lambda p: p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]),
         "slot": st.integers(0, 8191), "vendor_id": u16, "device_id": u16, "subsystem_vendor_id": u16, "subsystem_id": u16,
         "class_code": u16}
    ),
    some(
        serial_number=u64, capability_structure=st.binary(min_size=60, max_size=60), dvsec=st.binary(min_size=4, max_size=40),
        error_log=st.binary(min_size=88, max_size=88),
    ),
)  # fmt: skip
unknowns = st.fixed_dictionaries({"type": st.just("unknown"), "guid": st.uuids().map(str), "payload": st.binary(min_size=1, max_size=70)})
texts = st.lists(st.text("ABCxyz019,#_", min_size=1, max_size=6), min_size=1, max_size=3).map(" ".join).filter(lambda text: len(text) <= 20)
times = st.datetimes().map(lambda moment: moment.strftime("%Y").zfill(4) + moment.strftime("-%m-%d %H:%M:%S"))

sections = merged(
    memories | pcies | arms | generics | firmwares | cxls | unknowns,
    st.fixed_dictionaries({"severity": st.integers(0, 3)}),
    some(fru_id=st.uuids().map(str), fru_text=texts),
    together(time=times, precise=st.booleans()),
)


def records(sequence: int | st.SearchStrategy[int] = 1, most_sections: int = 3) -> st.SearchStrategy[Record]:
    return st.fixed_dictionaries(
        {
            "sequence": st.just(sequence) if isinstance(sequence, int) else sequence,
            "source": u16,
            "severity": st.integers(0, 3),
            "sections": st.lists(sections, min_size=1, max_size=most_sections),
        }
    )


def distinct_records(most: int = 4, most_sections: int = 3) -> st.SearchStrategy[list[Record]]:
    """Generate records with distinct numbers."""
    count = st.integers(1, most)
    return count.flatmap(lambda n: st.tuples(*(records(sequence, most_sections) for sequence in range(7, 7 + n)))).map(list)

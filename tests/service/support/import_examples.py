"""Example files for the import, one of each format."""

from __future__ import annotations

import base64
import json
import sqlite3
import struct
from pathlib import Path

from ras_triage.models.event import Event
from ras_triage.models.formats.cper import write_record
from ras_triage.models.formats.qemu.injection import to_qmp
from ras_triage.models.formats.redfish import write_redfish
from ras_triage.models.notification import Notification, NotificationType
from tests.service.support.application import BLOCK, EVENT

SENT = Event(notification=Notification(type=NotificationType.SEA, source_id=0), status_block=BLOCK)

LOG = b"""\
[   10.000000] {1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 0
[   10.000001] {1}[Hardware Error]: event severity: recoverable
[   10.000002] {1}[Hardware Error]:  Error 0, type: recoverable
[   10.000003] {1}[Hardware Error]:   section_type: memory error
[   10.000004] {1}[Hardware Error]:   physical_address: 0x0000000056edd040
[   10.100000] Memory failure: 0x56edd: recovery action for dirty LRU page: Recovered
"""

JOURNAL = b"".join(
    json.dumps(
        {"__REALTIME_TIMESTAMP": "1795252092123456", "_HOSTNAME": "node-17", "_TRANSPORT": "kernel", "PRIORITY": "3", "MESSAGE": message}
    ).encode()
    + b"\n"
    for message in (line.partition("] ")[2] for line in LOG.decode().splitlines())
)

TRACE = b"""\
 <...>-211 [002] d..1. 0.000129: mc_event: 1 Corrected error: Single-bit ECC on DIMM_A1 (mc: 0 location: 0:1:-1 \
address: 0x56edd040 grain: 6 syndrome: 0x0 APEI location: node:1)
"""

LIBCPER = json.dumps(
    {
        "sectionDescriptor": {
            "sectionType": {"data": "a5bc1114-6f64-4ede-b863-3e83ed7c83b1", "type": "Platform Memory"},
            "severity": {"code": 0, "name": "Recoverable"},
        },
        "section": {"Memory": {"physicalAddress": 0x56EDD040, "validationBits": {"physicalAddressValid": True}}},
    }
).encode()


def database(path: Path) -> bytes:
    """rasdaemon's, with an error, what the kernel did, and a vendor's row."""
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE mc_event (id INTEGER PRIMARY KEY, timestamp TEXT, err_count INTEGER, err_type TEXT, err_msg TEXT, label TEXT,"
        " mc INTEGER, top_layer INTEGER, middle_layer INTEGER, lower_layer INTEGER, address INTEGER, grain INTEGER, syndrome INTEGER,"
        " driver_detail TEXT)"
    )
    row = ("2024-07-11 09:50:45 +0000", 1, "Corrected", "Single-bit ECC", "DIMM_A1", 0, 0, -1, -1, 0x56EDD040, 6, 0, "")
    connection.execute("INSERT INTO mc_event VALUES (NULL" + ", ?" * len(row) + ")", row)
    connection.execute(
        "CREATE TABLE memory_failure_event (id INTEGER PRIMARY KEY, timestamp TEXT, pfn TEXT, page_type TEXT, action_result TEXT)"
    )
    connection.execute("INSERT INTO memory_failure_event VALUES (1, '2024-07-11 09:50:46 +0000', '0x56edd', 'dirty LRU page', 'Recovered')")
    connection.execute("CREATE TABLE vendor_event (id INTEGER PRIMARY KEY, regs BLOB)")
    connection.execute("INSERT INTO vendor_event VALUES (1, x'00ff')")
    connection.commit()
    connection.close()
    return path.read_bytes()


def files(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Content and the format that is told, by name."""
    record = write_record(SENT)
    return {
        "events": (json.dumps(EVENT).encode() + b"\n" + json.dumps(EVENT).encode() + b"\n", "event"),
        "record": (record, "cper"),
        "record in hexadecimal": (record.hex().encode(), "cper"),
        "record in base64": (base64.encodebytes(record), "cper"),
        "status block": (BLOCK, "cper"),
        "redfish": (json.dumps(write_redfish(SENT)).encode(), "redfish"),
        "libcper": (LIBCPER, "libcper"),
        "qmp": (to_qmp(SENT).encode(), "qmp"),
        "log": (LOG, "kernel_log"),
        "journal": (JOURNAL, "journal"),
        "trace": (TRACE, "ras_trace"),
        "database": (database(folder / "ras.db"), "rasdaemon"),
    }


def hest_table(enabled: int = 1) -> bytes:
    """Return a HEST of one GHESv2 source, 0, that notifies by abort."""
    notify = bytes([8, 28]) + bytes(26)
    address = struct.pack("<BBBBQ", 0, 64, 0, 4, 0x8000_0000)
    head = struct.pack("<HHHBBIII", 10, 0, 0xFFFF, 0, enabled, 1, 1, 1024)
    source = head + address + notify + struct.pack("<I", 1024) + address + bytes(16)
    return b"HEST" + struct.pack("<IBB", 40 + len(source), 1, 0) + bytes(26) + struct.pack("<I", 1) + source

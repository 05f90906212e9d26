"""Files of other tools: read where they hold an error to decide, else refused by name."""

from __future__ import annotations

from io import BytesIO

import pytest

from ras_triage.models.formats.ras.traced_event import UnmatchedRow
from ras_triage.models.formats.results import FoundError, Position, UnreadableRecord
from ras_triage.models.records.block_fields import decode_structured
from ras_triage.service.importing.readers import read_items
from ras_triage.service.importing.source import ImportSource

TOOLS = {
    "mcelog": b"Hardware event. This is not a software error.\nMCE 0\nCPU 0 BANK 8\nADDR 67dc4d40\nSTATUS 8c00004000010091 MCGSTATUS 0\n",
    "mcelog in syslog": b"Nov 22 10:00:00 node mcelog: Hardware event. This is not a software error.\nNov 22 10:00:00 node mcelog: MCE 0\n",
    "ipmitool sel list": b"   1 | 06/01/2025 | 00:00:00 | Memory #0x53 | Correctable ECC | Asserted\n",
    "ipmitool sel elist": b" 2a | 06/01/25 | 00:00:00 UTC | Memory DIMM_A1 | Uncorrectable ECC | Asserted\n",
    "ipmitool sel list -v": b"SEL Record ID          : 0001\n Record Type           : 02\n",
    "ipmi-sel": b"ID  | Date        | Time     | Name    | Type   | Event\n1   | Jun-01-2025 | 00:00:00 | DIMM A1 | Memory | ECC\n",
    "ras-mc-ctl --summary": b"Memory controller events summary:\n\tCorrected on DIMM Label(s): 'DIMM_A1' location: 0:0:0:-1 errors: 3\n",
    "edac-util": b"mc0: csrow0: CPU_SrcID#0: 3 Corrected Errors\n",
}
WORDS = {"mcelog": "mcelog", "ipmi": "IPMI", "ras-mc-ctl": "ras-mc-ctl --errors", "edac-util": "edac-util"}


def imported(data: bytes) -> list:
    return list(read_items(ImportSource(BytesIO(data)), None, None))


@pytest.mark.parametrize("name", TOOLS)
def test_a_file_without_an_error_to_decide_is_refused_by_name_with_the_way_to_go(name):
    (unread,) = imported(TOOLS[name])
    assert isinstance(unread, UnreadableRecord)
    assert next(word for start, word in WORDS.items() if name.startswith(start)) in unread.reason
    assert "import" in unread.reason


ERRORS = b"""Memory controller events:
1 2024-07-11 09:50:45 +0000 1 Uncorrected error(s): ECC at A1 location: 0:0:1:-1, addr 1458425920, grain 6, syndrome 0 APEI location: node:1
2 2024-07-11 09:51:45 +0000 2 Corrected error(s): memory read error at CPU at 0 location: 0:0:0:-1, addr 0x12345680, grain 32, syndrome 0x0

PCIe AER events:
1 2024-07-11 09:52:45 +0000 0000:01:00.0 Corrected error: Receiver Error

ARM processor events:
1 2024-07-11 09:53:45 +0000 error: affinity_level=2, mpidr=0x81000203, running_state=0x0, psci_state=0x0

Memory failure events:
1 2024-07-11 09:50:46 +0000 error: pfn=0x56edd, page_type=dirty LRU page, action_result=Recovered
2 2024-07-11 09:59:46 +0000 error: pfn=0x99999, page_type=free buddy page, action_result=Recovered

No Disk errors.

MCE events:
1 2024-07-11 09:54:45 +0000 error: Corrected error, bank=8, status= 0x8c00004000010091
"""


def test_what_ras_mc_ctl_prints_is_read_as_the_rows_of_the_database():
    uncorrected, corrected, device, processor, failure, machine_check = imported(ERRORS)
    assert all(isinstance(one, FoundError) and one.format == "ras_mc_ctl" for one in (uncorrected, corrected, device))
    sections = [decode_structured(one.event.status_block).sections[0] for one in (uncorrected, corrected, device)]
    assert [section.physical_address for section in sections[:2]] == [0x56EDD040, 0x12345680]
    assert (sections[0].node, sections[2].type, uncorrected.place) == (1, "pcie", Position(line=2))
    assert uncorrected.event.time.isoformat() == "2024-07-11T09:50:45+00:00"
    assert uncorrected.observed.memory_failures[0].page_type == "dirty LRU page"
    assert isinstance(processor, UnreadableRecord)
    assert "ras-mc_event.db" in processor.reason
    assert all(isinstance(one, UnmatchedRow) for one in (failure, machine_check))
    assert (failure.kind, machine_check.kind) == ("observation", "raw")


def test_a_report_without_errors_is_read():
    assert imported(b"No Memory errors.\n\nNo PCIe AER errors.\n\nNo Extlog errors.\n") == []

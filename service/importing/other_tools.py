"""Files of other tools that hold no error to decide."""

from __future__ import annotations

import re
from typing import Final

_LOG: Final = "import the kernel log of the same time (`journalctl -k -o json`)"

_IPMI: Final = (
    f"a system event log of IPMI: it names a sensor and has no address and no record; {_LOG}, or the CPER entries of the BMC's Redfish log"
)
_SUMMARY: Final = (
    "the output of `ras-mc-ctl --summary`: it has counts and no error; import `ras-mc-ctl --errors`, or better the database"
    " `/var/lib/rasdaemon/ras-mc_event.db`"
)

_TOOLS: Final = (
    (
        re.compile(rb"^(?:Hardware event\. This is not a software error\.|MCE \d{1,9}\s*$)|\bmcelog(?:\[\d+\])?: ", re.MULTILINE),
        f"the output of mcelog: machine checks of x86 have no APEI record and are not decided; {_LOG}",
    ),
    (
        re.compile(rb"^\s*[0-9a-f]{1,4}\s*\|\s*(?:\d\d/\d\d/\d{2,4}|Pre-Init)[^|\n]*\|[^|\n]*\|[^|\n]*\|", re.MULTILINE),
        _IPMI,
    ),
    (
        re.compile(rb"^(?:SEL Record ID\s*:|ID\s*\|\s*Date\s*\|\s*Time\s*\|)", re.MULTILINE),
        _IPMI,
    ),
    (
        re.compile(rb"^(?:Memory controller events|PCIe AER events|ARM processor events|MCE records) summary:", re.MULTILINE),
        _SUMMARY,
    ),
    (
        re.compile(rb"^(?:mc\d+: (?:csrow\d+: )?\S.*: \d+ (?:Un)?[Cc]orrected [Ee]rrors|edac-util: )", re.MULTILINE),
        f"the output of edac-util: it has counts and no address; {_LOG}, whose EDAC lines have the addresses",
    ),
)


def other_tool(head: bytes) -> str | None:
    """Return what a file of another tool is, and what to import instead; None: not a known one."""
    return next((reason for pattern, reason in _TOOLS if pattern.search(head)), None)

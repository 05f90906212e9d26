"""Generator of the manual page: `make reference` writes `docs/ras-triage.1` from the parser of the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from unittest.mock import patch

from argparse_manpage.manpage import Manpage

from ras_triage.service.cli.parser import build_parser, parsers_of

TARGET: Final = Path(__file__).parent.parent / "docs" / "ras-triage.1"

_USAGE_COLUMNS: Final = "66"
"""With the indentation of a manual page, usages fit into 80 columns."""

_ENVIRONMENT: Final = r"""
.TP
.B RAS_TRIAGE_URL
service that \fBsubmit\fR, \fBquery\fR, \fBshow\fR, \fBwatch\fR and \fBimport \-\-submit\fR call
.TP
.B RAS_TRIAGE_TOKEN
API key or JWT for that service
.TP
.B RAS_TRIAGE_CONFIG
settings file of \fBserve\fR, \fBconfig\fR, \fBkeys\fR and \fBstore\fR
.TP
.B RAS_TRIAGE_*
any setting of the service, see \fBras\-triage config\fR
"""


def manual_page() -> str:
    """Return the manual page in the macros of man(7)."""
    with patch.dict(os.environ, {"COLUMNS": _USAGE_COLUMNS}):
        parser = build_parser()
        examples = "\n".join(_examples(parser.epilog, *(one.epilog for one in parsers_of(parser))))
        parser.epilog = None
        page = Manpage(parser)
        page.date, page.manual = "", "ras-triage"
        page.description = "predict what Linux on arm64 does with a hardware error"
        parser._manpage += [  # type: ignore[attr-defined] # of argparse-manpage, which has no other way to add sections
            {"heading": "environment", "content": _ENVIRONMENT.strip()},
            {"heading": "examples", "content": f".nf\n{examples}\n.fi"},
            {"heading": "see also", "content": ".BR rasdaemon (8),\n.BR ras\\-mc\\-ctl (8),\n.BR journalctl (1)"},
        ]
        return f"{page}\n"


def _examples(*epilogs: str | None) -> Iterator[str]:
    for epilog in epilogs:
        for line in (epilog or "").splitlines():
            if line.startswith("  "):
                yield line.strip().replace("\\", "\\e").replace("-", "\\-")


if __name__ == "__main__":
    TARGET.write_text(manual_page(), encoding="utf-8")

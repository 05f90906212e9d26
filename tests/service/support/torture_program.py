"""`ras-triage` with a failing disk and planted defects.

Worker processes load the main module of their service, and with it the defects.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ras_triage.service.cli.main import main
from tests.service.support import planted_defects
from tests.service.support.disk_faults import Disk, Faulty

if __name__ in {"__main__", "__mp_main__"}:
    planted_defects.plant()
    planted_defects.shorten_limits()
if __name__ == "__main__":
    faulty = Faulty(Disk(Path(sys.argv[1])))
    sys.exit(main(sys.argv[2:]))

"""`ras-triage` with a disk that fails on command and the defects of `planted`: python tortured.py CONTROL serve ...

Worker processes load the main module of their service, and with it the defects.
"""

from __future__ import annotations

import sys
from pathlib import Path

import planted
from disk_faults import Disk, Faulty

from ras_triage.service.cli.main import main
from ras_triage.service.engine import attempts, intake
from ras_triage.service.engine.batch import workers

if __name__ in {"__main__", "__mp_main__"}:
    planted.plant()
    workers.INLINE_EVENTS_COLD = workers.INLINE_EVENTS = 0
    intake.LOOP_S = 0.3
    attempts.LIMIT_S = 0.3
if __name__ == "__main__":
    faulty = Faulty(Disk(Path(sys.argv[1])))
    sys.exit(main(sys.argv[2:]))

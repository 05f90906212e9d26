"""How fast a rasdaemon database is read.

usage: python bench/rasdaemon.py [--rounds N] [--rows N]

The yardstick is fetching the same rows with the sqlite3 module and nothing else. Times are those of the processor, figures are medians over
the rounds; machines differ and drift, so compare the ratios within one run. `ras-triage import` also decides each error.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ratios import in_turns, keep

from ras_triage.service.importing.rasdaemon_db import read_database

TABLE = (
    "CREATE TABLE mc_event (id INTEGER PRIMARY KEY, timestamp TEXT, err_count INTEGER, err_type TEXT, err_msg TEXT, label TEXT,"
    " mc INTEGER, top_layer INTEGER, middle_layer INTEGER, lower_layer INTEGER, address INTEGER, grain INTEGER, syndrome INTEGER,"
    " driver_detail TEXT)"
)
DETAIL = (
    "APEI location: node:{} card:1 module:0 rank:0 bank:257 bank_group:1 bank_address:1 device:0 row:{} column:{} bit_position:0"
    " status(0x0000000000000400): Storage error in DRAM memory"
)


def rows(count: int) -> Iterator[tuple[object, ...]]:
    for number in range(count):
        moment = time.strftime("%Y-%m-%d %H:%M:%S +0000", time.gmtime(1_700_000_000 + number))
        detail = DETAIL.format(number % 4, number % 65536, number % 1024)
        yield (moment, 1, "Corrected", "Single-bit ECC", "DIMM_A1", 0, 0, -1, -1, 0x40000000 + (number << 12), 6, 0, detail)


def fetched(path: Path) -> int:
    """The yardstick."""
    with closing(sqlite3.connect(path)) as connection:
        return sum(1 for _ in connection.execute("SELECT * FROM mc_event"))


def read(path: Path) -> int:
    return sum(1 for _ in read_database(str(path)))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--rows", type=int, default=20_000)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ras-mc_event.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(TABLE)
            connection.executemany(f"INSERT INTO mc_event VALUES (NULL{', ?' * 13})", rows(chosen.rows))
            connection.commit()
        yardstick, ours = in_turns(chosen.rounds, lambda: fetched(path), lambda: read(path))
        size = path.stat().st_size / 1e6
    print(f"{chosen.rows} rows, {size:.1f} MB: {chosen.rows / statistics.median(ours):,.0f} rows per second")
    ratio = statistics.median(theirs / own for theirs, own in zip(yardstick, ours, strict=True))
    print(f"the reader's rate is {ratio:.3f} of that of fetching the rows")
    keep("reading a rasdaemon database", "fetching its rows with sqlite3", 1 / ratio)


if __name__ == "__main__":
    main()

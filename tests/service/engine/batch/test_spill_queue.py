"""Results that are buffered in memory, then on disk, in order."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from ras_triage.service.engine.batch.spill_queue import IN_MEMORY, SpillQueue

PART = 64 << 10


def part(number: int) -> bytes:
    return number.to_bytes(4) * (PART // 4)


async def filled(outbox: SpillQueue, parts: int) -> None:
    for number in range(parts):
        await outbox.put(part(number))
    outbox.close()


async def emptied(outbox: SpillQueue) -> bytes:
    taken = b""
    while piece := await outbox.take():
        taken += piece
    return taken


def through(limit: int, parts: int) -> bytes:
    """What a reader gets who begins once the writer is done or can do no more."""

    async def run() -> bytes:
        outbox = SpillQueue(limit)
        writing = asyncio.create_task(filled(outbox, parts))
        await asyncio.wait([writing], timeout=0.2)
        taken = await emptied(outbox)
        await writing
        return taken

    return asyncio.run(run())


PARTS = 3 * IN_MEMORY // PART
EVERYTHING = b"".join(map(part, range(PARTS)))


@pytest.mark.parametrize("limit", [PART, 2 * IN_MEMORY, 16 * IN_MEMORY])
def test_what_was_put_is_taken_in_order_wherever_it_waited(limit: int) -> None:
    assert through(limit, PARTS) == EVERYTHING


def test_a_disk_that_takes_nothing_makes_the_writer_wait_for_the_reader(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))

    assert through(16 * IN_MEMORY, PARTS) == EVERYTHING
    assert [record.getMessage() for record in caplog.records] == ["no disk space for batch results"]


def test_a_disk_that_is_full_in_the_middle_of_a_piece_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    write = SpillQueue._write
    full = iter([False, True, False, True, True])

    def sometimes(outbox: SpillQueue, data: bytes) -> None:
        if next(full, False):
            if outbox._file is not None:
                outbox._file.seek(outbox._write_at)
                outbox._file.write(data[:100])
            raise OSError(28, "No space left on device")
        write(outbox, data)

    monkeypatch.setattr(SpillQueue, "_write", sometimes)
    assert through(16 * IN_MEMORY, PARTS) == EVERYTHING

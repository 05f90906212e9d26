"""Consecutive status blocks, as in the boot error region that BERT points to."""

from __future__ import annotations

import re
import struct
from typing import Final

from ras_triage.models.event import MAX_BLOCK_BYTES
from ras_triage.models.frozen import frozen
from ras_triage.models.records.status_block import BLOCK_STATUS_MAX, HEADER, HEADER_LENGTH, parse_block

_DATA_MIN: Final = 64
"""The shortest data entry, in bytes."""
_DATA_LENGTH_OFFSET: Final = 12
_STATUS: Final = struct.Struct("<I")
_NOT_ZERO: Final = re.compile(rb"[^\0]")


@frozen
class BlockSpan:
    """Position of a status block."""

    start: int
    end: int
    """Of its data entries, and of its raw data."""
    is_cleared: bool
    """Whether its block status is 0: Linux clears it after it has printed the record (`bert_print_all`)."""


def is_status_block(data: bytes) -> bool:
    """Return whether the bytes can be a status block with an error, complete or truncated within its last section.

    The block status has no reserved bit set, the data entries fill the data length exactly, and the block is not too long for an event.
    """
    found = _block_at(data, 0)
    return found is not None and not found.is_cleared


def find_blocks(data: bytes) -> tuple[list[BlockSpan], int | None]:
    """Return the status blocks at the start of `data` and behind each other, and the offset of the first other bytes.

    Blocks may be padded with zeroes. The offset is None if there are only zeroes behind the blocks.
    """
    spans: list[BlockSpan] = []
    found, rest = _block_at(data, 0), _next_byte(data, 0)
    while found is not None:
        spans.append(found)
        rest = _next_byte(data, found.end)
        found = None if rest is None else _next_block(data, found.end, rest)
    return spans, rest


def _next_byte(data: bytes, start: int) -> int | None:
    """Return the offset of the next byte that is not zero."""
    found = _NOT_ZERO.search(data, start)
    return found.start() if found else None


def _next_block(data: bytes, end: int, rest: int) -> BlockSpan | None:
    """Return the block whose first byte that is not zero is at `rest`: that of its status, or if that is cleared, of its data length."""
    for start in dict.fromkeys((end, rest, rest - 1, rest - _DATA_LENGTH_OFFSET, rest - _DATA_LENGTH_OFFSET - 1)):
        if start >= end and (found := _block_at(data, start)) is not None:
            return found
    return None


def _block_at(data: bytes, start: int) -> BlockSpan | None:
    if len(data) - start < HEADER_LENGTH + _DATA_MIN:
        return None
    status, raw_offset, raw_length, length, _ = HEADER.unpack_from(data, start)
    if status > BLOCK_STATUS_MAX or not _DATA_MIN <= length <= MAX_BLOCK_BYTES:
        return None
    end = start + HEADER_LENGTH + length
    block = parse_block(_STATUS.pack(status or 1) + data[start + _STATUS.size : end])
    if block.format_error is not None or block.empty_entries or not block.entries:
        return None
    raw_end = start + raw_offset + raw_length if raw_length else end
    return BlockSpan(start, min(max(end, raw_end), len(data)), is_cleared=status == 0)

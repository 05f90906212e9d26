"""File signatures of what holds no error that can be read."""

from __future__ import annotations

from typing import Final

SQLITE: Final = b"SQLite format 3\0"
"""The first 16 bytes of every SQLite 3 database."""

_COMPRESSED: Final = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"BZh", b"\xfd7zXZ")
"""gzip, zstd, zip, bzip2 and xz."""
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_LETTERS: Final = 4
_MAX_TABLE: Final = 1 << 20
"""Largest ACPI table, in bytes. Text that starts like a table has a far larger number in the length field."""
_BERT: Final = "BERT"
"""Name of the files with the boot error record table and its records, /sys/firmware/acpi/tables/BERT and data/BERT beside it."""


def unreadable_file(head: bytes) -> str | None:
    """Return why a file that starts with these bytes holds no error to read as it is; None where it may."""
    if (table := acpi_table(head)) is not None:
        return _why_not(table)
    if head.startswith(_COMPRESSED):
        return "the file is compressed; decompress it first"
    if head.startswith(_UTF_16):
        return "the text is UTF-16; convert it to UTF-8 first"
    return None


def acpi_table(head: bytes) -> str | None:
    """Return the signature of an ACPI table; None: not one (ACPI 6.5 5.2.6: signature, length, revision, checksum)."""
    signature = head[:_LETTERS]
    if signature not in (b"HEST", b"BERT", b"ERST", b"EINJ") or not 36 <= int.from_bytes(head[4:8], "little") <= _MAX_TABLE:
        return None
    return signature.decode()


def _why_not(table: str) -> str:
    if table == "HEST":
        return "a HEST describes error sources and contains no error; pass it as `--hest` to set their notification types"
    if table == _BERT:
        return "a BERT only points to the records of the previous boot; they are in `/sys/firmware/acpi/tables/data/BERT`, import that file"
    return f"an ACPI table `{table}` contains no error record"

"""Service whose disk fails: SQLite's system calls return errors on command.

Run as a program it is `ras-triage` with such a disk: python -m tests.service.support.disk_faults CONTROL serve ...
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

FAULTS: Final = ("none", "read", "write", "sync", "short", "full", "truncate")
"""What fails: nothing; reads, writes and waiting for the disk with EIO; half of a write; writes with ENOSPC; shortening a file with EIO."""

_SQLITE_IOERR_FSYNC: Final = 10 | 4 << 8

_VFS_POINTERS: Final = """
    xOpen xDelete xAccess xFullPathname xDlOpen xDlError xDlSym xDlClose xRandomness xSleep xCurrentTime xGetLastError
    xCurrentTimeInt64 xSetSystemCall xGetSystemCall xNextSystemCall
"""
_METHODS: Final = """
    xClose xRead xWrite xTruncate xSync xFileSize xLock xUnlock xCheckReservedLock xFileControl xSectorSize xDeviceCharacteristics
    xShmMap xShmLock xShmBarrier xShmUnmap xFetch xUnfetch
"""


class _Vfs(ctypes.Structure):
    _fields_ = (
        ("iVersion", ctypes.c_int), ("szOsFile", ctypes.c_int), ("mxPathname", ctypes.c_int), ("pNext", ctypes.c_void_p),
        ("zName", ctypes.c_char_p), ("pAppData", ctypes.c_void_p), *((name, ctypes.c_void_p) for name in _VFS_POINTERS.split()),
    )  # fmt: skip


class _Methods(ctypes.Structure):
    _fields_ = (("iVersion", ctypes.c_int), *((name, ctypes.c_void_p) for name in _METHODS.split()))


class _File(ctypes.Structure):
    _fields_ = (("pMethods", ctypes.c_void_p),)


_Positioned = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64, use_errno=True)
_Truncate = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int64, use_errno=True)
_Sync = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_Open = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_SetCall = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class Disk:
    """What a test changes while the service runs."""

    def __init__(self, control: Path) -> None:
        if not control.exists():
            control.write_bytes(bytes(2))
        with control.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 2)
        self._calls = 0

    def fail(self, fault: str, every: int = 1) -> None:
        """From now on; `every`: only each so many calls."""
        self._shared[:] = bytes((FAULTS.index(fault), every))

    def fails(self, fault: str) -> bool:
        """Whether a call has to fail now."""
        kind, every = self._shared[0], self._shared[1]
        if FAULTS[kind] != fault:
            return False
        self._calls += 1
        return self._calls % every == 0


def _fail(number: int) -> int:
    ctypes.set_errno(number)
    return -1


class Faulty:
    """SQLite's calls of this process, replaced; what is replaced must live as long as the process."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        libc = ctypes.CDLL(None, use_errno=True)
        self._pread, self._pwrite = _Positioned(("pread64", libc)), _Positioned(("pwrite64", libc))
        self._ftruncate = _Truncate(("ftruncate64", libc))
        self._kept: list[Any] = []
        self._tables: dict[int, _Methods] = {}
        sqlite = ctypes.CDLL("libsqlite3.so.0")
        sqlite.sqlite3_vfs_find.restype = ctypes.c_void_p
        address = sqlite.sqlite3_vfs_find(None)
        self._vfs = ctypes.cast(address, ctypes.POINTER(_Vfs)).contents
        set_call = _SetCall(cast("int", self._vfs.xSetSystemCall))
        for name, call in (
            (b"pread64", _Positioned(self.read)),
            (b"pwrite64", _Positioned(self.write)),
            (b"ftruncate", _Truncate(self.cut)),
        ):
            assert set_call(address, name, self._pointer(call)) == 0, name
        self._open = _Open(cast("int", self._vfs.xOpen))
        self._vfs.xOpen = self._pointer(_Open(self.open))
        real, os.pread = os.pread, lambda handle, size, offset: self._python_read(real, handle, size, offset)

    def _pointer(self, call: Any) -> int:
        self._kept.append(call)
        return cast("int", ctypes.cast(call, ctypes.c_void_p).value)

    def _python_read(self, real: Callable[[int, int, int], bytes], handle: int, size: int, offset: int) -> bytes:
        if self._disk.fails("read"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(handle, size, offset)

    def read(self, handle: int, buffer: int, size: int, offset: int) -> int:
        return _fail(errno.EIO) if self._disk.fails("read") else self._pread(handle, buffer, size, offset)

    def write(self, handle: int, buffer: int, size: int, offset: int) -> int:
        if self._disk.fails("write"):
            return _fail(errno.EIO)
        if self._disk.fails("full"):
            return _fail(errno.ENOSPC)
        if size > 100 and self._disk.fails("short"):
            return self._pwrite(handle, buffer, size // 2, offset)
        return self._pwrite(handle, buffer, size, offset)

    def cut(self, handle: int, size: int) -> int:
        return _fail(errno.EIO) if self._disk.fails("truncate") else self._ftruncate(handle, size)

    def open(self, vfs: int, name: int, file: int, flags: int, out: int) -> int:
        """Open, and have the file's own `xSync` asked first whether the disk fails."""
        result = self._open(vfs, name, file, flags, out)
        opened = ctypes.cast(file, ctypes.POINTER(_File)).contents
        if result == 0 and opened.pMethods:
            opened.pMethods = self._table(opened.pMethods)
        return result

    def _table(self, address: int) -> int:
        if address not in self._tables:
            table = _Methods.from_buffer_copy(ctypes.string_at(address, ctypes.sizeof(_Methods)))
            sync = _Sync(cast("int", table.xSync))
            failing = _Sync(lambda file, flags: _SQLITE_IOERR_FSYNC if self._disk.fails("sync") else sync(file, flags))
            table.xSync = self._pointer(failing)
            self._tables[address] = table
        return ctypes.addressof(self._tables[address])


if __name__ == "__main__":
    from ras_triage.service.cli.main import main

    faulty = Faulty(Disk(Path(sys.argv[1])))
    sys.exit(main(sys.argv[2:]))

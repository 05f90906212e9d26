"""Unix domain socket of the server, and who connects to it."""

from __future__ import annotations

import os
import socket
import stat
import struct
from contextlib import suppress
from errno import EADDRINUSE, ECONNREFUSED, ENAMETOOLONG, ENOTSOCK
from pathlib import Path
from typing import Final

_CREDENTIALS: Final = struct.Struct("3i")
"""`struct ucred`: pid, uid, gid (unix(7))."""

_MAX_PATH_BYTES: Final = 107
"""Longest path of a socket, without the NUL (unix(7))."""

_PROBE_S: Final = 1.0


class UnixListener:
    """A bound Unix domain socket and its file."""

    def __init__(self, path: Path, mode: int) -> None:
        """Bind a socket with these permissions, in place of one that no process listens on any more. Raises OSError."""
        if len(os.fsencode(path)) > _MAX_PATH_BYTES:
            raise OSError(ENAMETOOLONG, f"the path of a socket has at most {_MAX_PATH_BYTES} bytes", str(path))
        _remove_stale(path)
        self._path = path
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            os.fchmod(self.socket.fileno(), mode)  # before it is bound: the file never has more permissions, whatever the umask
            self.socket.bind(str(path))
            path.chmod(mode)  # the umask may have removed some
            self._inode = _inode(path)
        except OSError:
            self.socket.close()
            raise

    def remove(self) -> None:
        """Remove the file, unless another server has put its own in place."""
        with suppress(OSError):
            if _inode(self._path) == self._inode:
                self._path.unlink()


def _inode(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _remove_stale(path: Path) -> None:
    """Remove a socket that no process listens on. Raises OSError for one in use, and for any other file."""
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError(ENOTSOCK, "exists and is not a socket", str(path))
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno != ECONNREFUSED:
                raise
        else:
            raise OSError(EADDRINUSE, "another process listens on this socket", str(path))
    path.unlink()


def peer_user(accepted: socket.socket) -> str:
    """Return the user that connected to a Unix domain socket, such as `uid:1000` (SO_PEERCRED)."""
    _, uid, _ = _CREDENTIALS.unpack(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return f"uid:{uid}"

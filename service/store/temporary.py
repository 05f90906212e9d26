"""Temporary store: an SQLite file that is deleted when the store is closed."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

from ras_triage.service.store.port import StoreUnusable
from ras_triage.service.store.sqlite import SqliteStore


class TemporaryStore(SqliteStore):
    """Store in a new directory under `TMPDIR`, deleted by `close` or at the end of the process. Commits are not flushed to the disk."""

    def __init__(self) -> None:
        """Create an empty store. Raises StoreUnusable."""
        try:
            folder = tempfile.mkdtemp(prefix="ras-triage-")
        except OSError as error:
            raise StoreUnusable(f"cannot create a temporary directory: {(error.strerror or 'unknown reason').lower()}") from None
        self._remove_folder = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        super().__init__(Path(folder) / "store.db", exclusive=False, durable=False)

    def close(self) -> None:
        super().close()
        self._remove_folder()

"""Poisoned pages, stored from one event of a machine to the next."""

from __future__ import annotations

from ras_triage.models.frozen import frozen


@frozen
class PoisonedPage:
    """A poisoned page (PG_hwpoison)."""

    address: int
    """Host physical address of the failed base page, bytes."""
    shift: int
    """log2 of the size of the poisoned range around it, bytes."""

    @property
    def start(self) -> int:
        """Return the start address of the poisoned range."""
        return self.address >> self.shift << self.shift

    def contains(self, address: int) -> bool:
        """Return whether a physical address is in the poisoned range."""
        return address >> self.shift == self.address >> self.shift

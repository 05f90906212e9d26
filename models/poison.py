"""Memory that was taken out of use, as it is remembered from one event of a machine to the next."""

from __future__ import annotations

from ras_triage.models.frozen import frozen


@frozen
class PoisonedPage:
    """A page that counts as poisoned (PG_hwpoison)."""

    address: int
    """Host physical address of the base page that failed, bytes."""
    shift: int
    """log2 of the bytes around it that count as poisoned with it."""

    @property
    def start(self) -> int:
        """The first of these bytes."""
        return self.address >> self.shift << self.shift

    def holds(self, address: int) -> bool:
        """Whether a physical address is among them."""
        return address >> self.shift == self.address >> self.shift

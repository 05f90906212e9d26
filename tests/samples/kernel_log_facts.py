"""What is known of other people's logs: block severity, source id, and each section's type and physical address."""

from __future__ import annotations

FACTS = {
    "01": [(0, 9, [("arm_processor", 0x27CAF50770)])],
    "02": [(0, 9, [("arm_processor", 0x1000093C00)])] * 2,
    "04a": [(0, 1, [("arm_processor", None)])],
    "05": [(0, 0, [("arm_processor", 0xDEADBEEF)])],
    "07": [(0, 1, [("arm_processor", None)])],
    "12": [(2, 2, [("arm_processor", None)])],
    "13": [(2, 2, [("memory", 0x80000000)])],
    "15": [(0, 0, [("guid", None)]), (0, 3, [("guid", None)])],
    "18": [(2, 5, [("memory", 0x4000000300)])],
    "20a": [(2, 2, [("memory", 0x93724C020)])],
    "20b": [(2, 2, [("memory", 0x8D2EF4020)])],
    "21a": [(1, 11, [("pcie", None)])],
    "21b": [(1, 10, [("pcie", None)])],
    "25": [(0, 0, [("memory", 0x8A398A400)] * 2)],
    "25b": [(0, 0, [("memory", 0x8A398A400)] * 2)],
    "26": [(1, None, [("firmware_record_reference", None)])],
    "31": [(2, 4, [("memory", 0x37805200)])],
    "34": [(3, 0, [("memory", None), ("pcie", None)])],
    "36": [(1, None, [("pcie", None)])],
}

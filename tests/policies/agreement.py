"""Agreement of a decision with a recording."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ras_triage.models.decision import Decision, MemoryFailure, Oops, Panic, RecoverPcie, Signal, SoftOffline

PAGE = ~0xFFF
Seen = dict[str, Any]


def number(value: Any) -> int:
    return int(value, 16) if isinstance(value, str) else int(value or 0)


def comparable(tid: Any, code: str, address: Any, lsb: Any, race: bool) -> tuple[Any, ...]:
    """What of a signal is compared. In a race the address is that of the page or of the access, so the whole mapping unit counts."""
    if code in ("BUS_MCEERR_AR", "BUS_MCEERR_AO"):
        return tid, code, number(address) & (-1 << lsb if race else PAGE), lsb
    return (tid, code, number(address)) if code == "BUS_OBJERR" else (tid, code)


def _lucky(seen: Seen) -> tuple[str, ...]:
    """Codes of the signals that a race may add: the thread may meet the poison itself before the worker meets it again."""
    beaten = any(call.get("returns") == -133 or "already poisoned" in (call.get("page_type") or "") for call in seen["memory_failure"])
    return ("BUS_MCEERR_AO", "BUS_MCEERR_AR") if beaten else ("BUS_MCEERR_AO",)


def _not_merged(missing: set[tuple[Any, ...]], seen: Seen) -> set[tuple[Any, ...]]:
    """Decided signals that were not received, without those that the kernel sent while the same signal was pending (`res` 2)."""
    merged = Counter((sent["tid"], sent["code"]) for sent in seen.get("sent", ()) if sent.get("res") == 2)
    left = set()
    for signal in sorted(missing, key=str):
        if merged[signal[:2]]:
            merged[signal[:2]] -= 1
        else:
            left.add(signal)
    return left


def signals_differ(decision: Decision, seen: Seen) -> list[str]:
    race = bool(seen.get("race"))
    told = {comparable(step.tid, step.code, step.address, step.lsb, race) for step in decision.plan if isinstance(step, Signal)}
    real = {comparable(s["tid"], s["code"], s.get("address"), s.get("lsb"), race) for s in seen["signals"]}
    if told == real or seen.get("signals_unseen"):
        return []
    missing, extra = _not_merged(told - real, seen), real - told
    if not missing and not extra:
        return []
    if seen.get("action_required_unseen"):
        missing = {signal for signal in missing if signal[1] != "BUS_MCEERR_AR"}
    if race and not missing and all(signal[1] in _lucky(seen) for signal in extra):
        return []
    return [f"signals: decided {sorted(told, key=str)}, seen {sorted(real, key=str)}"]


def at_notification(decision: Decision, seen: Seen) -> list[str]:
    """What differs between the plan and what the kernel did at the notification."""
    if seen.get("beyond") and decision.certainty == "depends":
        return []
    panics = any(isinstance(step, Panic) for step in decision.plan)
    if panics or seen["panic"]:
        return [] if panics == bool(seen["panic"]) else [f"panic: decided {panics}, seen {seen['panic']}"]
    wrong = []
    oops = any(isinstance(step, Oops) for step in decision.plan)
    if oops != seen["oops"]:
        wrong.append(f"oops: decided {oops}, seen {seen['oops']}")
    told = [(step.pfn, step.page_type, step.result) for step in decision.plan if isinstance(step, MemoryFailure)]
    real = [(number(call["pfn"]), call.get("page_type"), call.get("result")) for call in seen["memory_failure"]]
    reported = [(pfn, words, result) if there[1] else there for (pfn, words, result), there in zip(told, real, strict=False)]
    if len(told) != len(real) or [t[0] for t in told] != [r[0] for r in real] or reported != real:
        wrong.append(f"memory_failure: decided {told}, seen {real}")
    offlined = [(step.pfn, step.returns) for step in decision.plan if isinstance(step, SoftOffline)]
    if offlined != [(number(call["pfn"]), call.get("returns")) for call in seen["soft_offline"]]:
        wrong.append(f"soft_offline: decided {offlined}, seen {seen['soft_offline']}")
    devices = [(step.device, step.severity) for step in decision.plan if isinstance(step, RecoverPcie)]
    if devices != [(device["device"], device["severity"]) for device in seen["pcie"]]:
        wrong.append(f"pcie: decided {devices}, seen {seen['pcie']}")
    return wrong + signals_differ(decision, seen)


def at_next_access(decision: Decision, seen: Seen) -> list[str]:
    """What differs between the decision and what the next access brought."""
    later = seen.get("next_access")
    if later is None or later["result"] not in ("ok", "sigbus"):
        return []
    told = sorted({(step.code, step.lsb) for step in decision.next_access if isinstance(step, Signal)})
    real = sorted({(signal["code"], signal.get("lsb")) for signal in later["signals"]})
    return [] if told == real else [f"next access: decided {told}, seen {real}"]

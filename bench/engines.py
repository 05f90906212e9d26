"""The same errors decided by this library and by other policy engines in one process, in turns."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from error_stream import error_stream
from ratios import keep

from ras_triage.models.event import Event
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide
from ras_triage.service.engine.responses import decision_json

POLICIES = Path(__file__).parent / "peer_policies"
EVENTS = 1000

Events = list[dict[str, Any]]
Engine = Callable[[], list[str]]
"""Decides all events once, and returns the actions."""


def our_engines(events: Events) -> dict[str, Engine]:
    """`decide` of events that are read, and from a JSON text to a JSON text, with the reasons in both."""
    policy = resolve_policy("linux-6.12.107")
    lines = [json.dumps(event, separators=(",", ":")) for event in events]
    read = list(map(Event.model_validate_json, lines))

    def from_json() -> list[str]:
        decisions = [decide(Event.model_validate_json(line), policy) for line in lines]
        list(map(decision_json, decisions))
        return [decision.action for decision in decisions]

    return {
        "ras-triage, decide()": lambda: [decide(event, policy).action for event in read],
        "ras-triage, JSON to JSON": from_json,
    }


def zen_engines(events: Events) -> dict[str, Engine]:
    """GoRules ZEN: one table of eight rows, from a Python value and from a JSON text."""
    if find_spec("zen") is None:
        print("ZEN: not measured, `zen-engine` is not installed", flush=True)
        return {}
    import zen  # noqa: PLC0415 - used when installed

    decision = zen.ZenEngine().create_decision((POLICIES / "zen.json").read_text(encoding="utf-8"))
    lines = [json.dumps(event, separators=(",", ":")) for event in events]
    return {
        "ZEN, from Python values": lambda: [decision.evaluate(event)["result"]["action"] for event in events],
        "ZEN, from a JSON text": lambda: [decision.evaluate(line)["result"]["action"] for line in lines],
    }


def cedar_engines(events: Events) -> dict[str, Engine]:
    """Cedar: one policy for each of two actions. What it cannot say is worked out beforehand, outside of the time."""
    if find_spec("cedarpy") is None:
        print("Cedar: not measured, `cedarpy` is not installed", flush=True)
        return {}
    import cedarpy  # noqa: PLC0415 - used when installed

    policies = cedarpy.PolicySet.from_str((POLICIES / "policies.cedar").read_text(encoding="utf-8"))
    entities = cedarpy.Entities.from_json_str("[]")
    facts = list(map(cedar_facts, events))

    def allowed(action: str, context: dict[str, Any]) -> bool:
        request = {"principal": 'Service::"s"', "action": f'Action::"{action}"', "resource": 'Error::"e"', "context": context}
        return bool(cedarpy.is_authorized(request, policies, entities).allowed)

    def action(context: dict[str, Any]) -> str:
        return next((name for name in ("panic", "inject") if allowed(name, context)), "handled")

    return {"Cedar, from ready facts": lambda: list(map(action, facts))}


def cedar_facts(event: dict[str, Any]) -> dict[str, Any]:
    (section,) = event["status_block"]["sections"]
    return {
        "notification": event["notification"]["type"],
        "severity": event["status_block"]["severity"],
        "flags": section["flags"],
        "mce_kill": event["host"]["tasks"][0]["mce_kill"],
    }


def processor_us(engine: Engine) -> float:
    """Microseconds of this process for each event."""
    began = time.process_time()
    engine()
    return (time.process_time() - began) / EVENTS * 1e6


def compare_engines(turns: int) -> None:
    events = list(error_stream(EVENTS))
    ours = our_engines(events)
    others = zen_engines(events) | cedar_engines(events)
    actions = ours["ras-triage, decide()"]()
    for name, engine in others.items():
        if engine() != actions:
            raise SystemExit(f"{name} does not come to the same actions")
    taken = [{name: processor_us(engine) for name, engine in (ours | others).items()} for _ in range(turns)]
    for name in ours | others:
        print(f"{name:29} {statistics.median(turn[name] for turn in taken):>8,.0f} us of processor time for each decision", flush=True)
    for one in ours:
        for other in others:
            ratio = statistics.median(turn[one] / turn[other] for turn in taken)
            keep(f"{one}: processor time of a decision in process", f"{other}, a simplified policy", ratio)
            print(f"  {one} takes {ratio:.2f} of the processor time of {other}", flush=True)

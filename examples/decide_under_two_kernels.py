"""Decision of one hardware error under two kernel releases, in process."""

from __future__ import annotations

from pathlib import Path

from ras_triage import Decision, Event, decide, resolve_policy

EVENT = Path(__file__).parent.parent / "docs" / "examples" / "corrected-abort.json"
POLICIES = ("linux-6.12.42", "linux-6.12.107")


def main() -> None:
    """Print the action under each policy, and the rules that are in only one of the two decisions."""
    event = Event.model_validate_json(EVENT.read_bytes())
    decisions = [decide(event, resolve_policy(name)) for name in POLICIES]
    for decision in decisions:
        print(f"{decision.policy.name}: {decision.action} ({decision.certainty})")
    for decision, other in zip(decisions, reversed(decisions), strict=True):
        for outcome in sorted(outcomes(decision) - outcomes(other)):
            print(f"only {decision.policy.name}: {outcome}")


def outcomes(decision: Decision) -> set[str]:
    """Return the rules that a decision applied, each with its outcome."""
    return {f"{rule.rule}: {rule.outcome}" for rule in decision.rationale}


if __name__ == "__main__":
    main()

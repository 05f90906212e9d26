"""Which policy decides an event: the one it names, else its kernel's, else the default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ras_triage.models.event import Event
from ras_triage.policies.catalog.policies import UNIFORM, InvalidPolicy, Policy, derive_policy, resolve_policy


def find_policy(name: str, custom: Mapping[str, Policy]) -> Policy:
    """The policy of that name, a user's own first. Raises UnknownPolicy."""
    return custom.get(name) or resolve_policy(name)


def choose_policy(event: Event, default: Policy, custom: Mapping[str, Policy]) -> Policy:
    """The policy that decides `event`. Raises UnknownPolicy for the name in its `policy`, or the kernel in its host facts."""
    if event.policy is not None:
        return find_policy(event.policy, custom)
    if event.host.kernel is not None:
        return resolve_policy(f"linux-{event.host.kernel}")
    return default


def load_policies(texts: Iterable[str]) -> dict[str, Policy]:
    """A user's own policies by name, from the TOML of each.

    Raises InvalidPolicy, also for a name that is taken, and UnknownPolicy for an unknown base.
    """
    custom: dict[str, Policy] = {}
    for text in texts:
        policy = derive_policy(text)
        if policy.name in custom or policy.name == UNIFORM or policy.name.startswith("linux-"):
            raise InvalidPolicy(f"the name `{policy.name}` is taken")
        custom[policy.name] = policy
    return custom

"""Choice of the policy for an event: its own, else its kernel's, else the default."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from ras_triage.models.errors import suggestion
from ras_triage.models.event import Event
from ras_triage.policies.catalog.policies import UNIFORM, InvalidPolicy, Policy, UnknownPolicy, derive_policy, kernel_policy, resolve_policy

_RELEASE: Final = re.compile(r"\d+\.\d+(?:\.\d+)?")


def find_policy(name: str, custom: Mapping[str, Policy]) -> Policy:
    """Return the policy of that name, custom policies first. Raises UnknownPolicy."""
    if name in custom:
        return custom[name]
    try:
        return resolve_policy(name)
    except UnknownPolicy as error:
        releases = (f"linux-{release}" for release in _RELEASE.findall(name))
        raise UnknownPolicy(f"{error}{suggestion(name, (UNIFORM, *custom, *filter(_is_policy, releases)))}") from None


def _is_policy(name: str) -> bool:
    try:
        resolve_policy(name)
    except UnknownPolicy:
        return False
    return True


def choose_policy(event: Event, default: Policy, custom: Mapping[str, Policy]) -> Policy:
    """Return the policy for `event`. Raises UnknownPolicy for the name in its `policy`, or for the kernel in its host facts."""
    if event.policy is not None:
        return find_policy(event.policy, custom)
    if event.host.kernel is not None:
        return kernel_policy(event.host.kernel)
    return default


def load_policy(text: str, custom: Collection[str]) -> Policy:
    """Return a policy from TOML text; `custom` are the names of the other custom policies.

    Raises InvalidPolicy, also for a name that is already in use, and UnknownPolicy for an unknown base.
    """
    policy = derive_policy(text)
    if policy.name in custom or policy.name == UNIFORM or policy.name.startswith("linux-"):
        raise InvalidPolicy(f"`name`: `{policy.name}` is already in use; expected a new name that does not begin with `linux-`")
    return policy

"""Builder of the policy responses: list, details, comparison."""

from __future__ import annotations

from ras_triage.models.decision import PolicyRef
from ras_triage.policies.catalog.behaviours import FLAGS
from ras_triage.policies.catalog.change_points import added_flags, change_points, removed_flags
from ras_triage.policies.catalog.evidence import flag_evidence
from ras_triage.policies.catalog.policies import Policy, flag_differences, flag_meanings, linux_policy, uniform_policy
from ras_triage.policies.catalog.vmms import FLAGS as VMM_FLAGS
from ras_triage.policies.catalog.vmms import Vmm, vmms
from ras_triage.service.api.policy_pages import Difference, FlagDifference, FlagValue, PolicyEntry, PolicyList, PolicyPage, VmmEntry
from ras_triage.service.config.settings import Settings


def list_policies(settings: Settings) -> PolicyList:
    """Return `uniform`, the operator's own policies, and the releases, oldest first; and all VMMs."""
    own = (uniform_policy(), *settings.custom_policies.values())
    releases = (_entry(policy, added_flags(policy), removed_flags(policy)) for policy in change_points())
    monitors = (_vmm_entry(vmm) for vmm in (*vmms().values(), *settings.custom_vmms.values()))
    return PolicyList(settings.default_policy.name, (*(_entry(policy) for policy in own), *releases), tuple(monitors))


def _vmm_entry(vmm: Vmm) -> VmmEntry:
    return VmmEntry(vmm.name, vmm.digest, vmm.summary, tuple(flag for flag in VMM_FLAGS if getattr(vmm.behaviours, flag)))


def _entry(policy: Policy, brings: tuple[str, ...] = (), drops: tuple[str, ...] = ()) -> PolicyEntry:
    return PolicyEntry(policy.name, policy.digest, _release(policy), brings, drops)


def _release(policy: Policy) -> str:
    return str(policy.release)


def describe_policy(policy: Policy) -> PolicyPage:
    """Return a policy with all of its behaviour flags, in the common order of flags."""
    return PolicyPage(policy.name, policy.digest, _release(policy), policy.notes, tuple(_flag(policy, flag) for flag in FLAGS))


def _flag(policy: Policy, flag: str) -> FlagValue:
    value, kernel = getattr(policy.behaviours, flag), linux_policy(policy.release)
    evidence = flag_evidence(flag, policy.release) if value == getattr(kernel.behaviours, flag) else None
    return FlagValue(flag, value, policy.since.get(flag), *flag_meanings()[flag], evidence)


def compare(a: Policy, b: Policy) -> Difference:
    """Return the behaviour flags in which two policies differ."""
    differs = (
        FlagDifference(flag, ours, theirs, (a if ours else b).since.get(flag), *flag_meanings()[flag])
        for flag, (ours, theirs) in flag_differences(a, b).items()
    )
    return Difference(PolicyRef(a.name, a.digest), PolicyRef(b.name, b.digest), tuple(differs))

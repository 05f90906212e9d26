"""Decoding of a HEST under a policy, for HTTP and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ras_triage.models.formats.hest import read_hest
from ras_triage.models.records.error_source import ErrorSource
from ras_triage.policies.catalog.choice import find_policy
from ras_triage.policies.catalog.policies import NEWEST_SERIES, Policy, UnknownPolicy, release_policy
from ras_triage.policies.error_sources import JudgedTable, judge_sources
from ras_triage.service.api.error_sources import HestResponse, SourceReading, TableFault
from ras_triage.service.api.problems import ProblemError, unknown_policy
from ras_triage.service.config.settings import Settings

NEWEST: Final = f"{NEWEST_SERIES[0]}.{NEWEST_SERIES[1]}.0"
"""The first release of the newest series of kernels that was analysed."""


def hest_policy(kernel: str | None, policy: str | None, settings: Settings, *, in_document: bool = False) -> Policy:
    """Return the policy of that name, else that of the kernel release, else that of the newest kernel. Raises ProblemError.

    `in_document`: the names are members of a JSON request, and the problem points to the one that is unknown.
    """
    try:
        return release_policy(kernel or NEWEST) if policy is None else find_policy(policy, settings.custom_policies)
    except UnknownPolicy as error:
        pointer = "/kernel" if policy is None else "/policy"
        raise ProblemError(unknown_policy(str(error), pointer if in_document else "")) from None


def decode_hest(table: bytes, policy: Policy, ram: Sequence[tuple[int, int]]) -> HestResponse:
    """Return the error sources of a HEST and what a kernel does with each; `ram` as for `judge_sources`. Raises MalformedBytes."""
    return judged_response(judge_sources(read_hest(table), policy, ram), policy)


def judged_response(judged: JudgedTable, policy: Policy) -> HestResponse:
    """Return a judged table as a response."""
    fault = None if judged.fault is None else TableFault(*judged.fault)
    readings = [
        SourceReading(source.offset, source.type, source.source_id, _notification(source), *verdict)
        for source, verdict in ((one.source, one.verdict) for one in judged.sources)
    ]
    return HestResponse(policy.reference, fault, tuple(readings))


def _notification(source: ErrorSource) -> str | int | None:
    """Return the name of a source's notification type, its number where it has no name, None where it has none."""
    if source.notification is None:
        return None
    kind = source.notification.type
    return source.notification.number if kind is None else kind.value

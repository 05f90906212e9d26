"""Alternatives of an event: actions under every reading of its unknown facts."""

from __future__ import annotations

from functools import lru_cache

from pydantic import TypeAdapter

from ras_triage.models.decision import WhatIf
from ras_triage.models.event import Event
from ras_triage.models.records.status_block import parse_block
from ras_triage.policies.what_if import what_if
from ras_triage.policies.workload import TooMuchWork
from ras_triage.service.api.decision_response import AlternativesResponse
from ras_triage.service.api.problems import ProblemError
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.responses import policy_of, require_vmms, too_much_work
from ras_triage.service.engine.stored.inputs import DecisionInputs


def alternatives_of(event: Event, settings: Settings, identity: str | None = None) -> AlternativesResponse:
    """Return the alternatives of an event with all its facts, under the policy that it selects.

    Raises ProblemError if the policy or a VMM is unknown, or all readings together would take more steps than `max_workload` allows.
    """
    policy = policy_of(event, settings)
    require_vmms(event, settings)
    block = None if event.status_block is None else parse_block(event.status_block)
    try:
        found: WhatIf = what_if(event, block, policy, settings.max_workload, custom_vmms=settings.custom_vmms)
    except TooMuchWork as error:
        raise ProblemError(too_much_work(error, uses_stored_facts=False)) from None
    return AlternativesResponse(
        found.action,
        found.unknown,
        found.readings,
        found.conditions,
        found.smallest_change,
        id=identity,
        policy=policy.reference,
    )


def stored_alternatives(inputs: DecisionInputs, settings: Settings) -> AlternativesResponse:
    """Return the alternatives of a stored decision, with the facts and under the policy that it was decided with. Raises ProblemError."""
    event, name = inputs.event, inputs.policy_name(settings)
    return alternatives_of(event if name is None else event.model_copy(update={"policy": name}), settings, inputs.stored.id)


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[AlternativesResponse]:
    return TypeAdapter(AlternativesResponse)


def alternatives_json(found: AlternativesResponse) -> bytes:
    """Encode alternatives as the HTTP interface does."""
    return _adapter().dump_json(found)

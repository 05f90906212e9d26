"""Routes of policies."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from ras_triage.policies.catalog.choice import find_policy
from ras_triage.policies.catalog.policies import Policy, UnknownPolicy
from ras_triage.service.api.policy_pages import Difference, PolicyList, PolicyPage
from ras_triage.service.api.problems import ProblemError, unknown_policy
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.policy_pages import compare, describe_policy, list_policies
from ras_triage.service.http.dependencies import SettingsOf, only_parameters

router = APIRouter(prefix="/v1/policies", tags=["policies"], dependencies=[Depends(only_parameters())])


def _find(name: str, settings: Settings) -> Policy:
    try:
        return find_policy(name, settings.custom_policies)
    except UnknownPolicy as error:
        raise ProblemError(unknown_policy(str(error), status=404)) from None


@router.get("")
async def list_all(settings: SettingsOf) -> PolicyList:
    """List every release at which a behaviour changed, `uniform`, and custom policies; and all VMMs.

    Any other `linux-<release>` is valid, too.
    """
    return list_policies(settings)


@router.get("/{name}")
async def show(name: str, settings: SettingsOf) -> PolicyPage:
    """Return one policy, flag by flag."""
    return describe_policy(_find(name, settings))


@router.get("/{a}/diff/{b}")
async def diff(a: str, b: str, settings: SettingsOf) -> Difference:
    """Return the flags in which two policies differ."""
    return compare(_find(a, settings), _find(b, settings))

"""Routes of policies."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from ras_triage.policies.catalog.choice import find_policy
from ras_triage.policies.catalog.policies import Policy, UnknownPolicy
from ras_triage.service.api.policy_pages import Difference, PolicyList, PolicyPage
from ras_triage.service.api.problems import ProblemError, unknown_policy
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.policy_pages import compare, describe_policy, list_policies
from ras_triage.service.engine.stored.policies import define_policy, require_free_name
from ras_triage.service.http.dependencies import Body, PrincipalOf, RuntimeOf, SettingsOf, only_parameters
from ras_triage.service.http.openapi import CONFLICT, json_body
from ras_triage.service.telemetry.logs import audit

router = APIRouter(prefix="/v1/policies", tags=["policies"], dependencies=[Depends(only_parameters())])

Name = Annotated[str, Path(description="Name of a policy, as `linux-6.12.107` or `uniform`")]


def _find(name: str, settings: Settings) -> Policy:
    try:
        return find_policy(name, settings.custom_policies)
    except UnknownPolicy as error:
        raise ProblemError(unknown_policy(str(error), status=404)) from None


@router.get("", operation_id="listPolicies")
async def list_all(settings: SettingsOf) -> PolicyList:
    """List every release at which a behaviour changed, `uniform`, and custom policies; and all VMMs.

    Any other `linux-<release>` is valid, too.
    """
    return list_policies(settings)


@router.get("/{name}", operation_id="getPolicy")
async def show(name: Name, settings: SettingsOf) -> PolicyPage:
    """Return one policy, flag by flag."""
    return describe_policy(_find(name, settings))


@router.put(
    "/{name}",
    operation_id="putPolicy",
    responses={201: {"model": PolicyPage, "description": "A policy with a new name"}, **CONFLICT},
    openapi_extra=json_body("PolicyDefinition"),
)
async def put(name: Name, body: Body, runtime: RuntimeOf, principal: PrincipalOf, response: Response) -> PolicyPage:
    """Store a custom policy. From now on it decides events that name it.

    Another definition under the same name is a new version with a new digest. Earlier decisions keep the digest of theirs.
    """
    policy, definition = define_policy(name, body)
    require_free_name(name, runtime.configured, runtime.policies)
    if await runtime.put_policy(name, policy, definition):
        response.status_code = 201
    audit("policy.put", name, principal.name, digest=policy.digest)
    return describe_policy(policy)


@router.get("/{a}/diff/{b}", operation_id="comparePolicies")
async def diff(a: Name, b: Name, settings: SettingsOf) -> Difference:
    """Return the flags in which two policies differ."""
    return compare(_find(a, settings), _find(b, settings))

"""Route that decodes syndromes and predicts their injection."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Depends, Response

from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.syndromes import answer_syndromes, read_syndrome_request, syndromes_json
from ras_triage.service.http.dependencies import Body, RuntimeOf, SettingsOf, only_parameters
from ras_triage.service.http.openapi import json_body, json_response

LOOP_BYTES: Final = 2 << 10
"""Longest request that is handled in the event loop: about 100 values."""

router = APIRouter(prefix="/v1/syndromes", tags=["syndromes"], dependencies=[Depends(only_parameters())])


@router.post(
    "",
    operation_id="explainSyndromes",
    response_class=Response,
    responses={200: json_response("Explanation", "Explanations", "InjectionResult", description="One answer for each kind of request")},
    openapi_extra=json_body("SyndromeRequest"),
)
async def answer_one(body: Body, settings: SettingsOf, runtime: RuntimeOf) -> Response:
    """Decode ESR_ELx or VSESR_EL2 values, or predict the result of KVM_SET_VCPU_EVENTS.

    An injection that KVM refuses is not an error of the request: the response has the `errno`.
    """
    document = _explain(settings, body) if len(body) <= LOOP_BYTES else await runtime.workers.run(_explain, body)
    return Response(document, media_type="application/json")


def _explain(settings: Settings, body: bytes) -> bytes:
    return syndromes_json(answer_syndromes(read_syndrome_request(body), settings))

"""Syndromes: what a value means, and what KVM makes of one."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from service.openapi import json_body
from service.requests import Body, SettingsOf, only_parameters
from service.syndromes import Explanation, Explanations, InjectionAnswer, answer_syndromes, read_syndrome_request, syndromes_json

router = APIRouter(prefix="/v1/syndromes", tags=["syndromes"], dependencies=[Depends(only_parameters())])


@router.post("", response_model=Explanation | Explanations | InjectionAnswer, openapi_extra=json_body("SyndromeRequest"))
async def answer_one(body: Body, settings: SettingsOf) -> Response:
    """Take ESR_ELx or VSESR_EL2 values apart, or say what comes of a KVM_SET_VCPU_EVENTS.

    An injection that KVM would refuse is no error of the request: the answer gives the `errno`.
    """
    return Response(syndromes_json(answer_syndromes(read_syndrome_request(body), settings)), media_type="application/json")

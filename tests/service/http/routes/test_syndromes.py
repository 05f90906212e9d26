"""Syndromes and injections, over HTTP and on the command line."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ras_triage.models.kvm import VcpuEvents, encode_vcpu_events
from ras_triage.policies.catalog.policies import derive_policy
from ras_triage.service.api.syndromes import MAX_VALUES
from ras_triage.service.config.settings import Settings
from tests.policies.vectors import cases, name_of, recordings
from tests.service.support.application import Call, caller, run

CALL = caller()
PATH = "/v1/syndromes"
PENDING = {"serror_pending": 1, "serror_has_esr": 1, "serror_esr": "0x411", "ext_dabt_pending": 0}
INJECTION: dict[str, Any] = {"kernel": "6.12.107", "host_ras": True, "vcpu_events": PENDING}
MASKED: dict[str, Any] = {**INJECTION, "host_ras": None, "guest_serror_masked": True}
PREFIX = "urn:ras-triage:problem:"


def asked(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    answer = call("POST", PATH, json=request)
    assert answer.status_code == 200, answer.text
    explained: dict[str, Any] = answer.json()
    return explained


def fields(explanation: dict[str, Any]) -> dict[str, str]:
    return {field["name"]: field["value"] for field in explanation["fields"]}


# Values explained


def test_a_value_is_taken_apart_with_names_bits_values_meanings_and_sections(call: Call) -> None:
    answer = asked(call, {"value": "0xbe000411"})

    assert (answer["value"], answer["kind"]) == ("0xbe000411", "esr")
    assert answer["summary"].startswith("SError: UEU, unrecoverable")
    (error_type,) = [field for field in answer["fields"] if field["name"] == "AET"]
    assert error_type == {
        "name": "AET",
        "bits": "12:10",
        "value": "0x1",
        "meaning": "UEU, unrecoverable: contained, but the context cannot continue; end the process or guest",
        "section": "DDI 0487, D24.2 ESR_ELx, ISS encoding for an SError exception",
        "reserved": False,
    }


def test_what_fits_vsesr_is_one_unless_the_caller_says_otherwise(call: Call) -> None:
    assert asked(call, {"value": 0x811})["kind"] == "vsesr"
    assert fields(asked(call, {"value": 0x811, "kind": "esr"}))["EC"] == "0x0"


def test_several_values_are_explained_in_their_order(call: Call) -> None:
    wanted = ["0x811", "0x92000410", "0x811"]
    answer = asked(call, {"values": wanted})

    assert [one["value"] for one in answer["syndromes"]] == wanted
    assert answer["syndromes"][1] == asked(call, {"value": "0x92000410"})


def test_reserved_bits_that_are_set_are_named(call: Call) -> None:
    reserved = [field for field in asked(call, {"value": "0xbe080411"})["fields"] if field["reserved"]]

    assert [(field["name"], field["bits"], field["value"]) for field in reserved] == [("RES0", "23:19", "0x1")]


@settings(deadline=None)
@given(st.integers(0, (1 << 64) - 1), st.sampled_from(["esr", "vsesr"]))
def test_the_fields_make_up_the_value(value: int, kind: str) -> None:
    answer = asked(CALL, {"value": value, "kind": kind})

    assert sum(int(field["value"], 16) << int(field["bits"].rpartition(":")[2]) for field in answer["fields"]) == value


# Injections


def test_an_injection_is_answered_with_what_kvm_the_guest_and_a_linux_guest_do(call: Call) -> None:
    answer = asked(call, INJECTION)

    assert (answer["accepted"], answer["errno"], answer["guest_esr"], answer["linux_guest"]) == (True, 0, "0xbe000411", "panics")
    assert answer["policy"]["name"] == "linux-6.12.107"
    assert answer["explanation"] == asked(call, {"value": "0xbe000411"})
    assert answer["arrivals"] == [{"exception": "serror", "esr": "0xbe000411", "when": "when_unmasked"}]
    assert answer["rationale"][0]["mirrors"] == "__kvm_arm_vcpu_set_events"
    assert (answer["certainty"], answer["reasons"], answer["assumptions"]) == ("certain", [], [])


def test_a_refused_injection_is_an_answer_and_no_problem(call: Call) -> None:
    answer = asked(call, {**INJECTION, "host_ras": False})

    assert (answer["accepted"], answer["errno"], answer["guest_esr"], answer["linux_guest"]) == (False, 22, None, None)
    assert answer["explanation"] is None


def test_the_structure_may_be_sent_as_it_is(call: Call) -> None:
    packed = encode_vcpu_events(VcpuEvents(1, 1, 0, 0x411))
    spoilt = encode_vcpu_events(VcpuEvents(1, 1, 0, 0x411, reserved=bytes(47) + b"\1"))

    assert asked(call, {**INJECTION, "vcpu_events": base64.b64encode(packed).decode()}) == asked(call, INJECTION)
    assert asked(call, {**INJECTION, "vcpu_events": base64.b64encode(spoilt).decode()})["errno"] == 22


def test_what_a_decision_injects_can_be_asked_about(call: Call, event: dict[str, Any]) -> None:
    guest = {"notification": {"type": "sei", "syndrome": "0xbe000c11", "taken_from": "guest"}, "host": event["host"]}
    (step,) = [step for step in call("POST", "/v1/decisions?dry_run=true", json=guest).json()["plan"] if step["kind"] == "inject_serror"]

    assert asked(call, {**INJECTION, "vcpu_events": step["vcpu_events"]})["guest_esr"] == step["guest_esr"]


def test_yes_and_no_may_be_said_as_in_json_or_as_in_c(call: Call) -> None:
    spelt = {"serror_pending": True, "serror_has_esr": True, "serror_esr": 0x411}

    assert asked(call, {**INJECTION, "vcpu_events": spelt}) == asked(call, INJECTION)


def test_what_nobody_said_is_assumed_and_named(call: Call) -> None:
    answer = asked(call, {"vcpu_events": PENDING})

    assert answer["policy"]["name"] == "uniform"
    assert [assumption["fact"] for assumption in answer["assumptions"]] == ["host.ras_extension", "guest.serror_masked"]
    assert asked(call, {**INJECTION, "kernel": "6.1.x"})["certainty"] == "depends"


def test_a_guest_that_does_not_see_the_extension_panics(call: Call) -> None:
    survives = {**PENDING, "serror_esr": "0x811"}

    assert asked(call, {**INJECTION, "vcpu_events": survives})["linux_guest"] == "survives"
    assert asked(call, {**INJECTION, "vcpu_events": survives, "guest_ras": False})["linux_guest"] == "panics"


def test_an_unmasked_serror_is_taken_at_once_from_6_17_on(call: Call) -> None:
    for kernel, when in (("6.16.0", "when_unmasked"), ("6.17.0", "at_once")):
        answer = asked(call, {**INJECTION, "kernel": kernel, "serror_masked": False})
        assert answer["arrivals"][0]["when"] == when


def test_the_mask_of_the_guest_has_two_names_of_which_one_is_given(call: Call) -> None:
    given = {**INJECTION, "kernel": "6.17.8"}
    for name in ("guest_serror_masked", "serror_masked"):
        assert [asked(call, {**given, name: masked})["guest_esr"] for masked in (False, True)] == ["0xbc000411", "0xbe000411"]
    assert asked(call, given)["guest_esr"] == "0xbc000411"
    assert call("POST", PATH, json={**given, "guest_serror_masked": True, "serror_masked": True}).status_code == 422


def test_a_policy_of_the_operators_own_answers() -> None:
    own = derive_policy('name = "mine"\nbase = "linux-7.3.4"\n[flags]\nkvm_ext_dabt_first = false\n')
    call = caller(Settings(custom_policies={"mine": own}))
    both = {**PENDING, "serror_esr": "0xffffffff", "ext_dabt_pending": 1}

    assert asked(call, {"policy": "mine", "vcpu_events": both})["arrivals"] == []
    assert [arrival["exception"] for arrival in asked(call, {"policy": "linux-7.3.4", "vcpu_events": both})["arrivals"]] == ["data_abort"]


# Requests that are none


@pytest.mark.parametrize(
    ("request_", "pointer", "kind"),
    [
        ({}, "", "invalid-request"),
        ({"value": "0x1", "values": ["0x1"]}, "", "invalid-request"),
        ({"value": "0x1", "kernel": "6.12.107"}, "", "invalid-request"),
        ({**INJECTION, "kind": "esr"}, "", "invalid-request"),
        ({"value": "92000410"}, "/value", "invalid-request"),
        ({"value": 1 << 64}, "/value", "invalid-request"),
        ({"value": -1}, "/value", "invalid-request"),
        ({"values": []}, "/values", "invalid-request"),
        ({"values": [0] * (MAX_VALUES + 1)}, "/values", "invalid-request"),
        ({"values": [0, "x"]}, "/values/1", "invalid-request"),
        ({"value": "0x1", "kind": "vbar"}, "/kind", "invalid-request"),
        ({"valeu": "0x1", "value": "0x1"}, "/valeu", "invalid-request"),
        ({**INJECTION, "vcpu_events": {**PENDING, "serror_pending": 256}}, "/vcpu_events/serror_pending", "invalid-request"),
        ({**INJECTION, "vcpu_events": {**PENDING, "pad": 1}}, "/vcpu_events/pad", "invalid-request"),
        ({**INJECTION, "vcpu_events": "AAA="}, "/vcpu_events", "malformed-bytes"),
        ({**INJECTION, "vcpu_events": 5}, "/vcpu_events", "invalid-request"),
        ({**INJECTION, "kernel": "nonsense"}, "/kernel", "unknown-policy"),
        ({**INJECTION, "kernel": "4.19"}, "/kernel", "unknown-policy"),
        ({**INJECTION, "policy": "nonsense"}, "/policy", "unknown-policy"),
        ({**INJECTION, "host_ras": 1}, "/host_ras", "invalid-request"),
    ],
)
def test_the_pointer_names_what_is_wrong(call: Call, request_: dict[str, Any], pointer: str, kind: str) -> None:
    answer = call("POST", PATH, json=request_)

    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["type"] == PREFIX + kind
    assert {fault["pointer"] for fault in answer.json()["errors"]} == {pointer}


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [("POST", PATH, 400, "invalid-json"), ("POST", f"{PATH}?x=1", 422, "invalid-parameter"), ("GET", PATH, 405, "method-not-allowed")],
)
def test_every_refusal_is_a_problem_document(call: Call, method: str, path: str, status: int, kind: str) -> None:
    answer = call(method, path)

    assert (answer.status_code, answer.json()["type"]) == (status, PREFIX + kind)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["value", "values", "kind", "vcpu_events", "kernel", "policy", "host_ras", "serror_masked"]), JSON)
def test_any_value_of_a_field_is_answered(field: str, value: Any) -> None:
    answer = CALL("POST", PATH, content=json.dumps({**INJECTION, field: value}).encode())

    assert answer.status_code in (200, 422)


def test_the_question_and_its_answers_are_described(call: Call) -> None:
    document = call("GET", "/openapi.json").json()

    operation = document["paths"][PATH]["post"]
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/SyndromeRequest"}
    answers = operation["responses"]["200"]["content"]["application/json"]["schema"]["anyOf"]
    assert [answer["$ref"].rpartition("/")[2] for answer in answers] == ["Explanation", "Explanations", "InjectionResult"]
    assert {"value", "vcpu_events", "host_ras"} <= set(document["components"]["schemas"]["SyndromeRequest"]["properties"])


# The command line


@pytest.mark.parametrize("path", recordings("kvm"), ids=name_of)
def test_recorded_injections_are_answered_line_by_line_as_they_went(path: Path) -> None:
    vectors = cases(path)
    masked = [{"guest_serror_masked": vector["guest"] == "bare"} for vector in vectors]
    asked = [{name: vector[name] for name in ("kernel", "host_ras", "vcpu_events")} for vector in vectors]
    lines = [json.dumps(one | other) for one, other in zip(asked, masked, strict=True)]
    done = run("syndrome", "--ndjson", "-", given="\n".join(lines).encode())

    assert (done.returncode, done.stderr) == (0, b"")
    for vector, line in zip(vectors, done.stdout.splitlines(), strict=True):
        answer, seen = json.loads(line), vector["observed"]
        assert answer["errno"] == seen["errno"]
        for field in ("guest_esr", "linux_guest"):
            assert seen.get(field) in (None, answer[field]), vector["id"]


def test_one_value_is_answered_as_http_does(call: Call) -> None:
    for arguments, request in [
        (("0xbe000411",), {"value": "0xbe000411"}),
        (("0x411", "--kind", "esr"), {"value": "0x411", "kind": "esr"}),
        (("0x411", "--kernel", "6.12.107"), {**INJECTION, "host_ras": None}),
        (("0x411", "--policy", "linux-6.12.107", "--no-ras"), {**INJECTION, "host_ras": False}),
        (
            ("0x411", "--kernel", "6.17.8", "--guest-serror-masked"),
            {**INJECTION, "kernel": "6.17.8", "host_ras": None, "guest_serror_masked": True},
        ),
    ]:
        done = run("syndrome", *arguments, "--json")
        assert done.returncode == 0
        assert done.stdout == call("POST", PATH, json=request).content + b"\n"


def test_a_bad_line_has_its_problem_in_its_place() -> None:
    done = run("syndrome", "--ndjson", "-", given=b'{"value": "0x1"}\n\n{\n{"value": "x"}\n{"value": 2}\n')

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 2
    assert [answer.get("value") or answer["type"].removeprefix(PREFIX) for answer in answers] == [
        "0x1",
        "invalid-json",
        "invalid-request",
        "0x2",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["920004x0"],
        ["nonsense"],
        ["0x1", "--kernel", "nonsense"],
        ["0x1", "--policy-file", "/nonexistent"],
        ["--ndjson", "/nonexistent"],
        ["--ndjson", "-", "--kernel", "6.12.107"],
    ],
)
def test_bad_input_is_exit_2_and_a_word_on_standard_error(arguments: list[str]) -> None:
    done = run("syndrome", *arguments)

    assert (done.returncode, done.stdout) == (2, b"")
    assert b"ras-triage: " in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("columns", ["80", "140"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["0xbe180411"], ["ESR_ELx 0xbe180411", "UEU, unrecoverable", "RES0", "12:10"]),
        (["0x92000410"], ["data abort from a lower exception level", "FnV"]),
        (["0x811", "--kernel", "7.3.4"], ["ACCEPTED", "ESR_EL1 0xbe000811", "survives", "linux-7.3.4"]),
        (["0x2000811", "--kernel", "7.3.4"], ["REFUSED, -EINVAL", "nothing", "bits above 24:0"]),
    ],
)
def test_a_page_says_it_in_words_within_its_width(arguments: list[str], words: list[str], columns: str) -> None:
    done = run("syndrome", *arguments, COLUMNS=columns)

    page = done.stdout.decode()
    assert done.returncode == 0
    assert max(map(len, page.splitlines())) <= int(columns)
    assert [word for word in words if word not in " ".join(page.split())] == []
    assert "\x1b" not in page

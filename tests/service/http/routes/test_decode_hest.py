"""Decoding of a HEST over HTTP."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from ras_triage.service.engine.evaluation import LOOP_BYTES
from tests.policies.test_error_sources import REGISTERS, source, table
from tests.service.support.application import Call, run
from tests.service.support.import_examples import hest_table

RAM = {"start": hex(REGISTERS), "size": "0x1000"}


def posted(data: bytes, **options: Any) -> dict[str, Any]:
    return {"json": {"hest": base64.b64encode(data).decode(), **options}}


def test_a_table_is_answered_with_its_sources_as_the_command_prints_them(call: Call) -> None:
    two = table(source(), source(1, source_id=3, notify=1, enabled=0))
    answer = call("POST", "/v1/decode", **posted(two, kernel="6.12.107", ram=[RAM]))

    options = ("--kernel", "6.12.107", "--ram", f"{REGISTERS:#x}-{REGISTERS + 0xFFF:#x}")
    assert answer.status_code == 200
    assert answer.content + b"\n" == run("decode", "-", "--json", *options, given=two).stdout
    assert [(one["source_id"], one["notification"], one["status"]) for one in answer.json()["sources"]] == [
        (2, "gpio", "refused"),
        (3, "external", "skipped"),
    ]


def test_a_source_that_the_driver_reads_is_reported_in_full(call: Call) -> None:
    answer = call("POST", "/v1/decode", **posted(hest_table(), policy="linux-6.12.107")).json()

    assert (answer["policy"]["name"], answer["fault"]) == ("linux-6.12.107", None)
    assert answer["sources"] == [
        {
            "offset": 40,
            "type": 10,
            "source_id": 0,
            "notification": "sea",
            "status": "read",
            "why": "the driver reads the source",
            "mirrors": "ghes_probe",
        }
    ]


@pytest.mark.parametrize(
    ("data", "options", "why"),
    [
        (table(source()), {"ram": [RAM]}, f"read-acknowledge register: it lies in RAM, at {REGISTERS + 8:#x}"),
        (table(source(notify=77)), {}, "unknown notification type 77"),
        (table(source(ack=0)), {}, "read-acknowledge register: its address is 0"),
        (table(source(ack_access=5)), {}, "read-acknowledge register: access size code 5 is not 1 to 4"),
    ],
)
def test_a_refused_source_has_its_reason(call: Call, data: bytes, options: dict[str, Any], why: str) -> None:
    (refused,) = call("POST", "/v1/decode", **posted(data, **options)).json()["sources"]

    assert (refused["status"], refused["why"]) == ("refused", why)


def test_ram_ends_before_the_sum_of_start_and_size(call: Call) -> None:
    below = {"start": hex(REGISTERS - 0x1000), "size": "0x1000"}
    (read,) = call("POST", "/v1/decode", **posted(table(source()), ram=[below])).json()["sources"]

    assert read["status"] == "read"


def test_a_table_too_long_for_the_event_loop_is_decoded_in_a_worker(call: Call) -> None:
    long = table(*(source(index, source_id=index) for index in range(500)))
    answer = call("POST", "/v1/decode", **posted(long, kernel="6.12.107"))

    assert len(answer.request.content) > LOOP_BYTES
    assert [(one["source_id"], one["status"]) for one in answer.json()["sources"]] == [(index, "read") for index in range(500)]


def test_two_sources_with_one_id_leave_the_kernel_without_any(call: Call) -> None:
    answer = call("POST", "/v1/decode", **posted(table(source(), source(1)))).json()

    assert answer["fault"]["mirrors"] == "hest_parse_ghes"
    assert answer["fault"]["why"] == "two enabled generic sources have the id 2: HEST is disabled, no source is read"
    assert [one["status"] for one in answer["sources"]] == ["refused", "refused"]


def test_without_a_kernel_it_is_read_as_the_command_does(call: Call) -> None:
    answer = call("POST", "/v1/decode", **posted(hest_table()))

    assert answer.content + b"\n" == run("decode", "-", "--json", given=hest_table()).stdout


def test_a_policy_takes_precedence_over_a_kernel(call: Call) -> None:
    answer = call("POST", "/v1/decode", **posted(hest_table(), kernel="6.1.1", policy="linux-6.12.107")).json()

    assert answer["policy"]["name"] == "linux-6.12.107"


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (hest_table()[:-1], (4, None, "length")),
        (hest_table()[:30], (30, None, "header")),
        (table(source(), source(1), truncate=4), (132, 1, "type")),
        (table(source(), count=2), (36, 1, "error_source_count")),
        (b"SRAT" + hest_table()[4:], (0, None, "signature")),
        (b"", (0, None, "header")),
    ],
    ids=["cut in a source", "cut in the header", "length within a source", "too few sources", "another table", "no bytes"],
)
def test_malformed_bytes_are_named_by_offset_source_and_field(call: Call, data: bytes, place: tuple[int, int | None, str]) -> None:
    answer = call("POST", "/v1/decode", **posted(data))

    assert (answer.status_code, answer.json()["type"]) == (422, "urn:ras-triage:problem:malformed-bytes")
    (fault,) = answer.json()["errors"]
    assert fault["pointer"] == "/hest"
    assert (fault["offset"], fault.get("section"), fault["field"]) == place


@pytest.mark.parametrize(
    ("options", "kind", "pointer"),
    [
        ({"kernel": "nonsense"}, "unknown-policy", "/kernel"),
        ({"policy": "nonsense"}, "unknown-policy", "/policy"),
        ({"ram": [{"start": "0x0"}]}, "invalid-request", "/ram/0/size"),
        ({"ram": [RAM] * 1025}, "invalid-request", "/ram"),
        ({"record": ""}, "invalid-request", ""),
        ({"hest": "=", "kernel": "6.12.107"}, "invalid-request", "/hest"),
        ({"hest": base64.b64encode(bytes((256 << 10) + 1)).decode()}, "invalid-request", "/hest"),
    ],
    ids=["kernel", "policy", "ram without size", "too many ranges", "also a record", "no base64", "too long"],
)
def test_a_member_that_is_wrong_is_named(call: Call, options: dict[str, Any], kind: str, pointer: str) -> None:
    request = {**posted(hest_table())["json"], **options}
    answer = call("POST", "/v1/decode", json=request)

    assert (answer.status_code, answer.json()["type"]) == (422, f"urn:ras-triage:problem:{kind}")
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_a_kernel_is_only_for_a_table(call: Call) -> None:
    answer = call("POST", "/v1/decode", json={"status_block": "", "kernel": "6.12.107"})

    assert answer.status_code == 422
    assert "`kernel`, `policy` and `ram` require `hest`" in answer.json()["detail"]


def test_the_example_of_the_openapi_document_is_a_table_with_a_source_that_is_read(call: Call) -> None:
    operation = call("GET", "/openapi.json").json()["paths"]["/v1/decode"]["post"]
    example = operation["requestBody"]["content"]["application/json"]["examples"]["hest"]

    answer = call("POST", "/v1/decode", json=example["value"])
    assert [one["status"] for one in answer.json()["sources"]] == ["read"]
    described = operation["responses"]["200"]["content"]["application/json"]["schema"]["anyOf"]
    assert {"$ref": "#/components/schemas/HestResponse"} in described


def test_a_table_in_hexadecimal_is_the_same_table(call: Call, tmp_path: Path) -> None:
    plain = call("POST", "/v1/decode", **posted(hest_table())).json()
    text = hest_table().hex()
    assert call("POST", "/v1/decode", json={"hest": text}).json() == plain
    assert call("POST", "/v1/decode", json={"hest": f"0x{text}"}).json() == plain

    file = tmp_path / "hest.txt"
    file.write_text(text)
    assert json.loads(run("decode", str(file), "--json").stdout) == plain
    imported = call("POST", "/v1/import", params={"hest": text, "dry_run": "true"}, content=b"\0")
    assert imported.status_code == 200

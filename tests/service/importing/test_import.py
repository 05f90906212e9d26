"""Imports of every format, on the command line and over HTTP."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from ras_triage.models.formats.cper import write_record
from ras_triage.models.records.cper_record import CperRecord, SectionDescriptor, encode_record
from ras_triage.models.records.guid import guid
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.batch.workers import Workers
from ras_triage.service.http.app import create_app
from ras_triage.service.http.import_run import LONG_BYTES
from ras_triage.service.importing.format_detection import detect_format
from tests.service.support.application import BLOCK, caller, client, run
from tests.service.support.import_examples import JOURNAL, LOG, SENT, database, files, hest_table
from tests.service.support.server_process import serving

NAMES = ["events", "record", "record in hexadecimal", "record in base64", "status block", "redfish",
    "libcper", "qmp", "log", "journal", "trace", "database"]  # fmt: skip


def lines(written: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.splitlines()]


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, str]]:
    return files(tmp_path_factory.mktemp("held"))


@pytest.mark.parametrize("name", NAMES)
def test_each_format_is_told_by_its_content(held, name):
    content, form = held[name]
    assert detect_format(content) == form


@pytest.mark.parametrize("name", NAMES)
def test_each_format_comes_to_decisions_on_the_command_line(held, name):
    content, form = held[name]
    done = run("import", "--json", "-", given=content)
    *found, last = lines(done.stdout)
    assert (done.returncode, done.stderr) == (0, b""), found
    errors = [one for one in found if "decision" in one]
    assert errors
    assert {one["format"] for one in errors} <= {form, "qemu_injection"} or form in ("qmp", "journal")
    assert all(one["decision"]["action"] and one["event"]["notification"]["type"] and one["place"] is not None for one in errors)
    assert (last["summary"]["errors"], last["summary"]["decided"], last["summary"]["unread"]) == (len(errors), len(errors), 0)


@pytest.mark.parametrize("name", NAMES)
def test_http_finds_what_the_command_line_finds(held, call, name):
    content, _ = held[name]
    answer = call("POST", "/v1/import?dry_run=true", content=content)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert lines(answer.content) == lines(run("import", "--json", "-", given=content).stdout)


def test_a_long_document_of_log_lines_is_read_in_a_worker(call, monkeypatch):
    document = json.dumps([{"strange": line} for line in [*LOG.decode().splitlines(), *("x" * 100 for _ in range(12_000))]]).encode()
    assert len(document) > LONG_BYTES
    read_by: list[object] = []
    run_document = Workers.run_document
    monkeypatch.setattr(Workers, "run_document", lambda *given: read_by.append(given[2]) or run_document(*given))
    found, last = lines(call("POST", "/v1/import?dry_run=true&text_field=strange", content=document).content)
    assert (found["place"], last["summary"]["errors"], read_by) == ({"item": "/0"}, 1, ["collected_log"])


def test_a_log_is_held_against_its_decision():
    found, last = lines(run("import", "--json", "--policy", "linux-6.12.107", "-", given=LOG).stdout)
    assert found["observed"]["memory_failures"][0]["page_type"] == "dirty LRU page"
    assert found["agreement"]["verdict"] in ("agree", "cannot_tell")
    assert sum(last["summary"]["agreement"].values()) == 1
    assert found["decision"]["policy"]["name"] == "linux-6.12.107"


def test_what_was_assumed_is_named_and_an_option_takes_its_place():
    assumed, _ = lines(run("import", "--json", "-", given=LOG).stdout)
    assert "/notification/type" in {one["field"] for one in assumed["assumed"]}
    told, _ = lines(run("import", "--json", "--notification", "sea", "-", given=LOG).stdout)
    assert told["event"]["notification"]["type"] == "sea"
    assert "/notification/type" not in {one["field"] for one in told["assumed"]}


def decided_by(*options: str, given: bytes, kernel: str = "") -> dict[str, Any]:
    """Return the only error of a log; `kernel`: the release in its first line."""
    banner = f"[    0.000000] Linux version {kernel} (a) #1\n".encode() if kernel else b""
    found, _ = lines(run("import", "--json", *options, "-", given=banner + given).stdout)
    return found


def policy_of(found: dict[str, Any]) -> tuple[str, bool]:
    """Return the policy of an error, and whether the import assumed it."""
    return found["decision"]["policy"]["name"], "/policy" in {one["field"] for one in found["assumed"]}


def test_a_log_that_names_no_kernel_is_decided_under_the_newest_linux_and_says_so():
    assert policy_of(decided_by(given=LOG)) == ("linux-7.3.4", True)
    assert policy_of(decided_by(given=LOG, kernel="6.1.176")) == ("linux-6.1.176", False)
    assert policy_of(decided_by("--kernel", "6.1.176", given=LOG)) == ("linux-6.1.176", False)
    assert policy_of(decided_by("--policy", "uniform", given=LOG)) == ("uniform", False)


@pytest.mark.parametrize("kernel", ["5.1.0", "4.14.0-115.el7a.0.1.aarch64", "4.4.38-l4t-r28.2+g2657cd8"])
def test_a_log_of_a_kernel_older_than_the_ledger_is_decided_under_the_oldest_and_says_so(kernel):
    for found in (decided_by(given=LOG, kernel=kernel), decided_by("--kernel", kernel, given=LOG)):
        assert policy_of(found) == ("linux-5.10.209", False)
        assert any("older than 5.10.209" in reason for reason in found["decision"]["reasons"])


def test_a_log_of_a_kernel_whose_name_is_no_release_is_decided_under_the_newest_linux():
    assert policy_of(decided_by(given=LOG, kernel="mainline")) == ("linux-7.3.4", True)


def test_what_ras_mc_ctl_prints_is_decided_under_the_newest_linux():
    row = b"1 2024-07-11 09:51:45 +0000 2 Corrected error(s): read at CPU location: 0:0:0:-1, addr 0x12345680, grain 32, syndrome 0x0"
    assert policy_of(decided_by(given=b"Memory controller events:\n" + row + b"\n")) == ("linux-7.3.4", True)


def test_an_option_does_not_change_the_notification_of_an_exception_without_a_record():
    found = decided_by(
        "--notification", "gsiv", "--kernel", "6.12.107", given=b"[ 1.0] SError Interrupt on CPU3, code 0xbe000011 -- SError\n"
    )
    assert (found["event"]["notification"]["type"], found["decision"]["action"]) == ("sei", "panic")
    assert found["agreement"]["verdict"] == "agree"


def test_a_page_names_the_exception_that_is_no_record():
    shown = run("import", "-", given=b"[ 1.0] SError Interrupt on CPU3, code 0xbe000011 -- SError\n").stdout.decode()
    assert "no record, notified by sei, syndrome 0xbe000011, taken from kernel" in " ".join(shown.split())


def test_the_numbering_of_arm_error_types_tells_how_new_a_kernel_can_be():
    head = b"[   10.0] {1}[Hardware Error]: "
    texts = [b"event severity: recoverable", b" Error 0, type: recoverable", b"  section_type: ARM processor error"]
    texts += [b"  Error info structure 0:", b"  num errors: 1", b"   error_type: %s", b"   physical fault address: 0x0000001000093c00"]
    log = b"".join(head + text + b"\n" for text in texts)
    new, old = decided_by(given=log % b"0x02: cache error"), decided_by(given=log % b"0, cache error")
    assert policy_of(new) == ("linux-7.3.4", True)
    assert "queue_memory_failure" in {step["kind"] for step in old["decision"]["plan"]}
    assert policy_of(old)[0] != policy_of(new)[0]


def test_an_error_source_table_tells_how_a_source_notifies(tmp_path: Path):
    table = tmp_path / "HEST"
    table.write_bytes(hest_table())
    found, _ = lines(run("import", "--json", "--hest", str(table), "-", given=LOG).stdout)
    assert (found["event"]["notification"]["type"], found["event"]["notification"]["source_id"]) == ("sea", 0)
    assert "/notification/type" not in {one["field"] for one in found["assumed"]}
    alone, _ = lines(run("import", "--json", str(table)).stdout)
    assert "--hest" in alone["unread"]["reason"]


def test_a_source_that_no_kernel_reads_tells_nothing(tmp_path: Path):
    table = tmp_path / "HEST"
    table.write_bytes(hest_table(enabled=0))
    found, _ = lines(run("import", "--json", "--hest", str(table), "-", given=LOG).stdout)
    assert "/notification/type" in {one["field"] for one in found["assumed"]}


def test_decode_says_which_sources_of_a_table_a_kernel_reads(tmp_path: Path):
    table = tmp_path / "HEST"
    table.write_bytes(hest_table())
    decoded = json.loads(run("decode", str(table), "--kernel", "6.12.107", "--json").stdout)
    assert (decoded["policy"]["name"], decoded["fault"]) == ("linux-6.12.107", None)
    (source,) = decoded["sources"]
    assert source == {
        "offset": 40,
        "type": 10,
        "source_id": 0,
        "notification": "sea",
        "status": "read",
        "why": "the driver reads the source",
        "mirrors": "ghes_probe",
    }
    inside = json.loads(run("decode", str(table), "--ram", "0x80000000-0x8fffffff", "--json").stdout)
    assert [one["why"] for one in inside["sources"]] == ["read-acknowledge register: it lies in RAM, at 0x80000000"]
    page = run("decode", str(table), "--kernel", "6.12.107", COLUMNS="80").stdout.decode()
    assert "HEST under linux-6.12.107" in page
    assert "the driver reads the source" in page


@pytest.mark.parametrize(
    ("arguments", "given", "complaint"),
    [
        (["--kernel", "6.12.107"], BLOCK, "are for a HEST; this is none"),
        (["--kernel", "nonsense"], hest_table(), "nonsense"),
        (["--ram", "0x8"], hest_table(), "expected two addresses such as `0x40000000-0x5fffffff`"),
    ],
)
def test_wrong_options_for_a_table_are_named(arguments: list[str], given: bytes, complaint: str):
    done = run("decode", "-", *arguments, given=given)
    assert done.returncode == 2
    assert complaint in done.stderr.decode()


def test_an_error_source_table_tells_it_over_http_too(call):
    told = base64.urlsafe_b64encode(hest_table()).rstrip(b"=").decode()
    found, _ = lines(call("POST", f"/v1/import?dry_run=true&hest={told}", content=LOG).content)
    assert (found["event"]["notification"]["type"], found["event"]["notification"]["error_block_length"]) == ("sea", 1024)
    assert "/notification/type" not in {one["field"] for one in found["assumed"]}


@pytest.mark.parametrize("told", ["SEVTVA", "%21", "A", "A" * 9000])
def test_a_table_that_cannot_be_read_is_a_problem(call, told):
    answer = call("POST", f"/v1/import?hest={told}", content=LOG)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


def test_a_page_shows_each_error_and_the_counts():
    done = run("import", "-", given=LOG)
    page = done.stdout.decode()
    assert done.returncode == 0
    for words in ("line 1", "0x56edd040", "Assumed by the import", "Kernel messages", "1 error found, 1 decided"):
        assert words in page


def test_what_cannot_be_read_is_listed_and_the_rest_goes_on(tmp_path: Path):
    (tmp_path / "log").write_bytes(LOG)
    (tmp_path / "broken.json").write_bytes(b'{"execute": "inject-ghes-v2-error", "arguments": {"cper": "!"}}')
    done = run("import", "--json", str(tmp_path / "broken.json"), str(tmp_path / "log"))
    unread, error, last = lines(done.stdout)
    assert done.returncode == 1
    assert (unread["unread"]["reason"], unread["file"]) == ("the argument is not base64", str(tmp_path / "broken.json"))
    assert error["decision"]["action"]
    assert (last["summary"]["unread"], last["summary"]["decided"]) == (1, 1)


def test_a_file_that_is_not_there_is_listed_and_the_others_are_read(tmp_path: Path):
    (tmp_path / "log").write_bytes(LOG)
    missing = str(tmp_path / "none")
    done = run("import", "--json", missing, str(tmp_path / "log"), str(tmp_path))
    unread, error, folder, last = lines(done.stdout)
    assert (done.returncode, last["summary"]["decided"], last["summary"]["unread"]) == (1, 1, 2)
    assert (unread["file"], unread["unread"]["reason"]) == (missing, f"`{missing}`: no such file or directory")
    assert "is a directory" in folder["unread"]["reason"]
    assert error["decision"]["action"]


def test_what_rasdaemon_saw_the_kernel_do_is_compared(tmp_path: Path):
    path = tmp_path / "ras-mc_event.db"
    database(path)
    found, *others, last = lines(run("import", "--json", str(path)).stdout)
    said = "memory_failure_event: pfn 0x56edd: recovery action for dirty LRU page: Recovered"
    assert [one["observed"] for one in found["agreement"]["comparisons"]] == [said]
    assert not any("observation" in one for one in others)
    assert sum(last["summary"]["agreement"].values()) == 1
    assert f"\n{said[:40]}" in run("import", str(path)).stdout.decode().replace("  ", "")


def test_the_text_field_of_a_collected_log_can_be_named(call):
    data = b"".join(json.dumps({"a": line.decode(), "b": {"c": line.decode()}}).encode() + b"\n" for line in LOG.splitlines())
    found, last = lines(call("POST", "/v1/import?dry_run=true&text_field=b.c", content=data).content)
    (plain, _) = lines(run("import", "--json", "-", given=LOG).stdout)
    assert (found["event"], last["summary"]["errors"]) == (plain["event"], 1)
    assert lines(run("import", "--json", "--text-field", "a", "-", given=data).stdout)[-1]["summary"]["errors"] == 1
    assert run("import", "--json", "--text-field", "none", "-", given=data).returncode == 1


def test_every_status_block_of_a_file_is_imported_and_decide_says_that_there_are_more(tmp_path: Path):
    block = base64.b64decode(SENT.model_dump(mode="json")["status_block"])
    path = tmp_path / "BERT"
    path.write_bytes(block + bytes(12) + block + bytes(300))
    first, second, _ = lines(run("import", "--json", str(path)).stdout)
    assert [one["place"] for one in (first, second)] == [{"offset": 0}, {"offset": len(block) + 12}]
    assert [one["event"]["notification"]["type"] for one in (first, second)] == ["bert", "bert"]
    assert "of 2 status blocks" in run("decide", str(path)).stderr.decode()
    page = run("import", str(path)).stdout.decode()
    assert "the machine had gone down before this boot" in page


QUIET = {
    "dmesg": b"[    1.234567] ",
    "dmesg -T": b"[Sat Nov 21 10:08:12 2026] ",
    "dmesg -e": b"[  +0.000321] ",
    "dmesg --time-format iso": b"2026-11-21T10:08:12,000321+01:00 ",
    "/dev/kmsg": b"6,1002,12000642,-;",
    "journald": b"2026-11-21T10:08:12+0100 node-17 kernel: ",
}


@pytest.mark.parametrize("before", QUIET.values(), ids=QUIET)
def test_a_log_without_an_error_is_no_mistake(before):
    done = run("import", "--json", "-", given=(before + b"usb 1-1: new high-speed USB device number 4 using xhci_hcd\n") * 2000)
    (last,) = lines(done.stdout)
    assert (done.returncode, last["summary"]["errors"], last["summary"]["unread"]) == (0, 0, 0)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello\n", b'{"execute": "qmp_capabilities"}', b'{"@odata.id": "/x", "Members": []}', b'{"notification": "seax"}'],
    ids=repr,
)
def test_a_file_of_which_nothing_is_read_is_exit_1(content):
    done = run("import", "--json", "-", given=content)
    *items, last = lines(done.stdout)
    assert (done.returncode, len(items), last["summary"]["decided"]) == (1, 1, 0)
    assert ("unread" in items[0]) or ("problem" in items[0])


def test_an_option_that_is_not_valid_is_exit_2(tmp_path: Path):
    (tmp_path / "hest").write_bytes(b"no table")
    assert run("import", "--hest", str(tmp_path / "hest"), "-", given=LOG).returncode == 2
    assert run("import", "--notification", "seax", "-", given=LOG).returncode == 2


def test_an_entry_of_a_journal_that_cannot_be_read_is_listed_with_its_line():
    *found, last = lines(run("import", "--json", "-", given=JOURNAL + b'{"MESSAGE"\n' + JOURNAL).stdout)
    assert [one["unread"]["place"] for one in found if "unread" in one] == [{"line": 7}]
    assert (last["summary"]["errors"], last["summary"]["unread"]) == (2, 1)


def test_text_of_another_encoding_says_so():
    (found, _) = lines(run("import", "--json", "-", given=LOG.decode().encode("utf-16")).stdout)
    assert "UTF-16" in found["unread"]["reason"]


def test_a_byte_order_mark_is_no_part_of_a_log():
    assert lines(run("import", "--json", "-", given=b"\xef\xbb\xbf" + LOG).stdout) == lines(run("import", "--json", "-", given=LOG).stdout)


PSTORE = guid("75a574e3-5052-4b29-8a8e-be2c6490b89d")
DMESG = guid("c197e04e-d545-4a70-9c17-a5549419eb12")
COMPRESSED = guid("4f118707-04dd-4055-b5dd-956d34ddfac6")
MACHINE_CHECK = guid("fe08ffbe-95e4-4be7-bc73-4096044a38fc")


def stored(payload: bytes, kind: bytes = DMESG, creator: bytes = PSTORE) -> bytes:
    """A record as the persistent store of the firmware keeps it."""
    section = SectionDescriptor(section_offset=200, section_length=len(payload), section_type=kind, severity=1)
    length = 200 + len(payload)
    return encode_record(CperRecord(severity=1, record_length=length, creator_id=creator, sections=(section,), body=payload))


def test_a_store_of_records_is_read_whoever_wrote_them():
    older, newer = LOG.splitlines(keepends=True)[:3], LOG.splitlines(keepends=True)[3:]
    first, second = (f"Panic#1 Part{part}\n".encode() + b"".join(log) for part, log in ((2, older), (1, newer)))
    firmware = write_record(SENT)
    content = firmware + stored(second) + stored(b"x" * 120, MACHINE_CHECK) + firmware + stored(zlib.compress(first), COMPRESSED)
    *found, last = lines(run("import", "--json", "-", given=content).stdout)
    errors = [one for one in found if "decision" in one]
    at = [0, len(firmware) + len(stored(second)) + len(stored(b"x" * 120))]
    assert [(one["format"], one["place"]) for one in errors] == [
        ("cper", {"offset": at[0]}),
        ("cper", {"offset": at[1]}),
        ("kernel_log", {"line": 1}),
    ]
    assert len(errors[2]["observed"]["memory_failures"]) == 1
    (unread,) = [one["unread"] for one in found if "unread" in one]
    assert unread["reason"] == "a pstore record with an x86 machine check is not supported"
    assert (last["summary"]["errors"], last["summary"]["unread"]) == (3, 1)


def test_a_stored_log_that_is_cut_or_too_long_is_read_as_far_as_it_goes():
    bomb = zlib.compress(LOG * 20_000)
    *found, _ = lines(run("import", "--json", "-", given=stored(bomb, COMPRESSED)).stdout)
    assert found[0]["unread"]["reason"] == "the log is truncated, or longer than the limit"
    assert len(found) < 4000
    assert "decision" in found[1]


HOSTILE = {
    "nothing": b"",
    "blanks": b" \n\n ",
    "zeros": bytes(4096),
    "not UTF-8": b"\xff\xfe\x80" * 500,
    "a record that claims 4 GiB": b"CPER\x01\x01\xff\xff\xff\xff\xff\xff" + b"\xff" * 200,
    "a record of 65535 sections": b"CPER\x01\x01\xff\xff\xff\xff\xff\xff" + bytes(8) + struct.pack("<I", 200) + bytes(104) + bytes(72),
    "a database that is none": b"SQLite format 3\0" + b"\xff" * 1000,
    "brackets": b"[" * 200_000,
    "objects": b'{"a":' * 100_000,
    "a long line": b"[Hardware Error]: " + b"x" * 1_000_000,
    "gzip": b"\x1f\x8b\x08\x00" + bytes(20),
    "a table cut": b"HEST\x28\x00\x00\x00" + bytes(32),
    "prose": b"nothing to see here\n" * 10,
    "a command line of ghes_inject.py": b"ghes_inject.py arm -t cache\n",
    "a journal without an end": b'{\n"__CURSOR": "a",\n' + b'"x": 1,\n' * 20_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_listed_as_unread(call, name):
    answer = call("POST", "/v1/import?dry_run=true", content=HOSTILE[name])
    *found, last = lines(answer.content)
    assert answer.status_code == 200
    assert last["summary"]["unread"] == len(found) > 0
    assert all(one["unread"]["reason"] for one in found)


def test_a_file_that_has_to_be_held_and_is_too_long_is_refused_over_http(call):
    answer = call("POST", "/v1/import?as=cper", content=b"CPER" + bytes(17 << 20))
    assert (answer.status_code, answer.json()["type"]) == (413, "urn:ras-triage:problem:payload-too-large")


@pytest.mark.parametrize(
    ("query", "status"), [("as=png", 422), ("policy=linux-1.0", 422), ("kernel=x", 422), ("notification=owl", 422), ("a=b", 422)]
)
def test_what_is_asked_wrongly_is_a_problem(call, query, status):
    answer = call("POST", f"/v1/import?{query}", content=LOG)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_decisions_are_kept_once_for_a_key_and_never_for_a_dry_run():
    with client(create_app(Settings())) as calling:
        calling("POST", "/v1/import?dry_run=true", content=LOG)
        assert calling("GET", "/v1/decisions").json()["decisions"] == []
        first, _ = lines(calling("POST", "/v1/import", content=LOG, headers={"Idempotency-Key": "night"}).content)
        again, _ = lines(calling("POST", "/v1/import", content=LOG, headers={"Idempotency-Key": "night"}).content)
        assert (first["decision"]["repeat"], again["decision"]["repeat"]) == (False, True)
        assert first["decision"]["id"] == again["decision"]["id"]
        (kept,) = calling("GET", "/v1/decisions").json()["decisions"]
        assert kept["id"] == first["decision"]["id"]


def test_facts_that_are_kept_for_a_source_go_into_what_is_imported_of_it():
    event = b'{"source": "node-17", "notification": "polled"}\n'
    with client(create_app(Settings())) as calling:
        calling("PUT", "/v1/hosts/node-17", json={"kernel": "6.12.107"}).raise_for_status()
        found, _ = lines(calling("POST", "/v1/import", content=event).content)
        told, _ = lines(calling("POST", "/v1/import?kernel=6.1.176", content=event).content)
    assert (found["decision"]["policy"]["name"], found["decision"]["host_facts"]["version"]) == ("linux-6.12.107", 1)
    assert (told["decision"]["policy"]["name"], told["decision"]["host_facts"]) == ("linux-6.1.176", None)


def test_other_readings_of_what_was_assumed_are_named_over_http_and_here():
    policy = "linux-6.12.107"
    here, _ = lines(run("import", "--json", "--policy", policy, "-", given=LOG).stdout)
    there, _ = lines(caller()("POST", f"/v1/import?policy={policy}", content=LOG).content)
    assert here["decision"]["warnings"] == there["decision"]["warnings"]
    assert "assumed_asynchronous" in {one["code"] for one in here["decision"]["warnings"]}


@pytest.mark.parametrize("option", ["--server", "--token-file", "--ca-file"])
def test_an_option_for_the_service_without_submit_is_named(option: str):
    done = run("import", "-", option, "http://127.0.0.1:9", given=LOG)
    assert done.returncode == 0
    assert done.stderr.decode() == f"ras-triage: `{option}` has no effect without `--submit`; the errors are decided locally\n"
    assert run("import", "-", given=LOG, RAS_TRIAGE_URL="http://127.0.0.1:9").stderr == b""


def test_a_service_decides_and_keeps_what_is_submitted(tmp_path: Path):
    path = tmp_path / "log"
    path.write_bytes(LOG + b"".join([b"usb 1-1: nothing\n"] * 3000) + LOG)
    with serving("--store", "memory:") as service:
        arguments = ("import", "--json", "--submit", "--server", service.url, str(path))
        done, again = run(*arguments), run(*arguments)
        *found, last = lines(done.stdout)
        ids = [one["decision"]["id"] for one in found]
        assert (done.returncode, len(found), len(set(ids)), last["summary"]["decided"]) == (0, 2, 2, 2), done.stderr
        assert [one["decision"]["id"] for one in lines(again.stdout)[:-1]] == ids
        assert all(one["decision"]["repeat"] for one in lines(again.stdout)[:-1])
        assert found[0]["agreement"]["verdict"] in ("agree", "cannot_tell")
        page = run(*(argument for argument in arguments if argument != "--json")).stdout.decode()
        assert "2 errors found, 2 decided" in page


def test_a_service_that_is_not_there_is_exit_1(tmp_path: Path):
    path = tmp_path / "log"
    path.write_bytes(LOG)
    assert run("import", "--submit", "--server", "http://127.0.0.1:9", str(path)).returncode == 1


def test_text_that_could_be_hexadecimal_or_base64_is_listed_as_unread(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("dead beef\n")
    unread = json.loads(run("import", "--json", "--as", "cper", str(path)).stdout.splitlines()[0])["unread"]
    assert unread["reason"].startswith("could be 4 bytes in hexadecimal or 6 bytes in base64, and neither looks like a CPER record")


def test_hexadecimal_is_listed_as_assumed(tmp_path: Path) -> None:
    path = tmp_path / "block.hex"
    path.write_text(BLOCK.hex())
    error = json.loads(run("import", "--json", str(path)).stdout.splitlines()[0])
    assert [one["field"] for one in error["assumed"]] == ["/notification/type", "/status_block"]
    assert error["event"]["assumed"] == ["/notification/type", "/status_block"]


def test_what_an_import_assumed_is_passed_on_with_the_event(tmp_path: Path) -> None:
    path = tmp_path / "block.bin"
    path.write_bytes(BLOCK)
    options = ("import", "--json", "--kernel", "6.12.107", str(path))
    local = json.loads(run(*options).stdout.splitlines()[0])
    with serving("--store", "memory:") as service:
        submitted = json.loads(run(*options, "--submit", "--server", service.url).stdout.splitlines()[0])
        stored = httpx.get(f"{service.url}/v1/decisions/{submitted['decision']['id']}/event").json()

    assert [warning["code"] for warning in local["decision"]["warnings"]] == ["assumed_asynchronous"]
    assert submitted["decision"]["alternatives"] == local["decision"]["alternatives"] != []
    assert stored["assumed"] == ["/notification/type"]
    exported = run("export", "--to", "event", str(path)).stdout
    again = json.loads(run("import", "--json", "--kernel", "6.12.107", "-", given=exported).stdout.splitlines()[0])
    assert (again["format"], again["decision"]["alternatives"]) == ("event", local["decision"]["alternatives"])
    assert [one["field"] for one in again["assumed"]] == ["/notification/type"]

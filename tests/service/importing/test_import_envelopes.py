"""Logs as log collectors store them: the same errors as in the log itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ras_triage.models.formats.results import FoundError, Position, ReaderDefect, UnreadableRecord
from ras_triage.service.importing.format_detection import InputFormat, detect_format
from ras_triage.service.importing.readers import read_items
from ras_triage.service.importing.source import ImportSource
from tests.models.formats.kernel_log.printed_records import bodies, distinct_records

TIME = "2025-06-01T00:00:00.123456789Z"
FOLLOW_UP = (
    "Memory failure: 0x45678: recovery action for dirty LRU page: Recovered",
    "usb 1-1: new high-speed USB device number 4",
    "SError Interrupt on CPU3, code 0xbe000011 -- SError",
    "CPU: 3 PID: 2930 Comm: Xorg Not tainted 5.18.0-rc7 #1",
    "pstate: 204000c9 (nzCv daIF +PAN -UAO -TCO -DIT -SSBS BTYPE=--)",
    'audit: {"op": "x"}',
    "",
)
STYLES = (
    "[{uptime:12.6f}] {text}",
    "<3>[{uptime:12.6f}][    C1] {text}",
    "Nov 22 10:00:00 node-17 kernel: [{uptime:12.6f}] {text}",
    "{text}",
)


def each(make: Callable[[str], Any]) -> Callable[[list[str]], bytes]:
    return lambda lines: "".join((one if isinstance(one := make(line), str) else json.dumps(one)) + "\n" for line in lines).encode()


def whole(make: Callable[[list[str]], Any], indent: int | None = None) -> Callable[[list[str]], bytes]:
    return lambda lines: json.dumps(make(lines), indent=indent).encode()


def ruby(line: str) -> str:
    return '{"log"=>' + json.dumps(line) + ', "kubernetes"=>{"host"=>"n"}}'


LABELS = {"job": "kernel", "instance": "node-17"}
WRAPPERS = {
    "docker": each(lambda line: {"log": line + "\n", "stream": "stdout", "time": TIME}),
    "docker without line end": each(lambda line: {"log": line, "stream": "stderr", "time": TIME}),
    "containerd": each(lambda line: f"{TIME} stdout F {line}"),
    "containerd, split": each(lambda line: f"{TIME} stderr P {line[:9]}\n{TIME} stderr F {line[9:]}"),
    "docker within containerd": each(lambda line: f"{TIME} stdout F " + json.dumps({"log": line})),
    "fluentd file": each(lambda line: "2025-06-01T00:00:00+00:00\tkernel.log\t" + json.dumps({"log": line, "stream": "stdout"})),
    "fluentd stdout": each(lambda line: "2025-06-01 00:00:00.000000000 +0000 kernel: " + json.dumps({"message": line})),
    "fluent-bit json_lines": each(lambda line: {"date": 1748736000.123, "log": line, "kubernetes": {"pod_name": "agent-1"}}),
    "fluent-bit kmsg": each(lambda line: {"date": 1.5, "priority": 3, "sequence": 7, "sec": 77, "usec": 5, "msg": line}),
    "fluent-bit stdout": each(lambda line: f"[0] kernel: [1748736000.123456789, {ruby(line)}]"),
    "fluent-bit stdout 2.1": each(lambda line: f"[0] kernel: [[1748736000.123456789, {{}}], {ruby(line)}]"),
    "logcli jsonl": each(lambda line: {"labels": LABELS, "line": line, "timestamp": TIME}),
    "logcli default": each(lambda line: TIME + ' {job="kernel", host="node-17"} ' + line),
    "loki": whole(
        lambda lines: {
            "status": "success",
            "data": {"resultType": "streams", "result": [{"stream": LABELS, "values": [["1748736000000000000", one] for one in lines]}]},
        }
    ),
    "loki push": whole(
        lambda lines: {"streams": [{"stream": LABELS, "values": [["1748736000000000000", one, {"a": "b"}] for one in lines]}]}
    ),
    "victorialogs": each(lambda line: {"_time": TIME, "_stream_id": "0", "_stream": '{host="n"}', "_msg": line}),
    "elastic hits": whole(
        lambda lines: {
            "took": 3,
            "hits": {"total": {"value": 9}, "hits": [{"_index": "k", "_source": {"@timestamp": TIME, "message": one}} for one in lines]},
        },
        indent=2,
    ),
    "elasticdump": each(lambda line: {"_index": "k", "_id": "1", "_source": {"message": line, "event": {"original": line}}}),
    "filebeat": each(
        lambda line: {
            "@timestamp": TIME,
            "log": {"offset": 9, "file": {"path": "/var/log/kern.log"}},
            "message": line,
            "host": {"name": "n"},
            "event": {"original": line},
        }
    ),
    "cloudwatch events": whole(
        lambda lines: {
            "events": [{"timestamp": 1748736000000, "message": one, "ingestionTime": 1} for one in lines],
            "nextForwardToken": "f",
        },
        indent=4,
    ),
    "cloudwatch insights": whole(
        lambda lines: {
            "results": [[{"field": "@timestamp", "value": TIME}, {"field": "@message", "value": one}] for one in lines],
            "status": "Complete",
        }
    ),
    "cloudwatch subscription": whole(
        lambda lines: {"logStream": "n", "logEvents": [{"id": "1", "timestamp": 1, "message": one} for one in lines]}
    ),
    "container insights": each(lambda line: {"log": line, "kubernetes": {"host": "ip-10-0-0-1", "pod_name": "p"}, "stream": "stdout"}),
    "kubernetes events": whole(lambda lines: {"kind": "List", "items": [{"kind": "Event", "message": one} for one in lines]}, indent=4),
    "kubectl --prefix": each(lambda line: f"[pod/agent-1/tail] {line}"),
    "opentelemetry": whole(
        lambda lines: {
            "resourceLogs": [
                {
                    "resource": {"attributes": [{"key": "host.name", "value": {"stringValue": "n"}}]},
                    "scopeLogs": [{"logRecords": [{"timeUnixNano": "1", "body": {"stringValue": one}} for one in lines]}],
                }
            ]
        }
    ),
    "google cloud": whole(lambda lines: [{"textPayload": one, "resource": {"type": "k8s_node"}} for one in lines]),
    "unknown field": each(lambda line: {"when": 1, "payload_of_log": line, "facility": "kern"}),
}


def imported(data: bytes, text_field: str | None = None) -> list[Any]:
    return list(read_items(ImportSource(BytesIO(data), text_field=text_field), None, None))


def content(items: list[Any]) -> list[Any]:
    """Return the items without their places."""
    return [
        replace(item, place=Position(), observed=item.observed and item.observed.moved(lambda _: 0)) if hasattr(item, "observed") else item
        for item in items
    ]


@st.composite
def logs(draw: st.DrawFn) -> list[str]:
    style = draw(st.sampled_from(STYLES))
    texts = ["Linux version 6.12.107 (gcc) #1 SMP"] if draw(st.booleans()) else []
    for record in draw(distinct_records(3)):
        texts += [f"{{{record['sequence']}}}[Hardware Error]: {body}" for body in bodies(record, draw(st.booleans()))]
        texts += draw(st.lists(st.sampled_from(FOLLOW_UP), max_size=2))
    return [style.format(uptime=100 + number / 1000, text=text) for number, text in enumerate(texts)]


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@settings(max_examples=15)
@given(lines=logs())
def test_a_wrapped_log_has_the_errors_of_the_log(wrap, lines):
    plain = "".join(line + "\n" for line in lines).encode()
    assert content(imported(wrap(lines))) == content(imported(plain))


RECORD = [
    "[  100.000000] {1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 4",
    "[  100.000100] {1}[Hardware Error]: event severity: recoverable",
    "[  100.000200] {1}[Hardware Error]:  Error 0, type: recoverable",
    "[  100.000300] {1}[Hardware Error]:   section_type: memory error",
    "[  100.000400] {1}[Hardware Error]:   physical_address: 0x0000000045678000",
    "[  100.000500] Memory failure: 0x45678: recovery action for dirty LRU page: Recovered",
]
TRACE = (
    "<idle>-0 [000] d.h1. 12.500000: mc_event: 1 Corrected error: memory read error on DIMM0"
    " (mc:0 location:0:0:-1 address:0x45678000 grain:8 syndrome:0x0 APEI)"
)


@pytest.mark.parametrize("name", WRAPPERS)
def test_an_envelope_is_detected(name):
    assert detect_format(WRAPPERS[name](RECORD)) is InputFormat.COLLECTED_LOG


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_trace_is_read_as_a_trace(name):
    (found,) = imported(WRAPPERS[name]([TRACE]))
    assert isinstance(found, FoundError)
    assert found.format == "ras_trace"


@pytest.mark.parametrize("name", ["docker", "victorialogs", "fluentd file"])
def test_places_are_those_of_the_file(name):
    (found,) = imported(WRAPPERS[name](["first", *RECORD]))
    assert (found.place, found.observed.memory_failures[0].line) == (Position(line=2), 7)


def test_a_field_with_several_lines_keeps_the_places_behind_it():
    data = WRAPPERS["docker"](["a\nb\nc", "d", *RECORD])
    (found,) = imported(data)
    assert (found.place, found.observed.memory_failures[0].line) == (Position(line=3), 8)


def test_a_place_in_a_document_is_a_json_pointer():
    (found,) = imported(WRAPPERS["loki"](["first", *RECORD]))
    assert found.place == Position(item="/data/result/0/values/1")


@pytest.mark.parametrize("name", ["docker", "loki", "elastic hits", "logcli jsonl", "cloudwatch insights"])
def test_a_log_with_its_newest_line_first_is_turned_round(name):
    assert content(imported(WRAPPERS[name](RECORD[::-1]))) == content(imported(WRAPPERS[name](RECORD)))


def test_a_turned_log_keeps_its_places():
    (found,) = imported(WRAPPERS["docker"](RECORD[::-1]))
    assert (found.place, found.observed.memory_failures[0].line) == (Position(line=6), 1)


def test_machines_that_a_collector_mixed_are_kept_apart():
    pairs = [pair for line in RECORD for pair in (("node-1", line), ("node-2", line.replace("45678", "99999")))]
    data = b"".join(each(lambda line, host=host: {"message": line, "host": {"name": host}})([line]) for host, line in pairs)
    first, second = imported(data)
    assert first.observed.memory_failures[0].pfn == 0x45678
    assert second.observed.memory_failures[0].pfn == 0x99999


def test_a_line_that_is_broken_json_is_listed():
    items = imported(WRAPPERS["docker"](RECORD[:3]) + b'{"log": "[ 100.0\n' + WRAPPERS["docker"](RECORD[3:]))
    (unread,) = [item for item in items if isinstance(item, UnreadableRecord)]
    assert (unread.place, unread.reason) == (Position(line=4), "not JSON")


def test_a_field_that_cannot_be_told_is_named_by_an_option():
    data = each(lambda line: {"raw_line": line, "as_shown": line, "no": 1})(RECORD)
    (unread,) = imported(data)
    assert isinstance(unread, UnreadableRecord)
    assert "`raw_line`, `as_shown`" in unread.reason
    assert "--text-field" in unread.reason
    (found,) = imported(data, "as_shown")
    assert isinstance(found, FoundError)


def test_a_field_that_cannot_be_told_in_a_document_is_named_by_an_option_too():
    data = json.dumps([{"raw_line": line, "as_shown": line} for line in RECORD]).encode()
    (unread,) = imported(data)
    assert "the text may be in `raw_line`, `as_shown`; name the field with `--text-field`" in unread.reason
    (found,) = imported(data, "raw_line")
    assert found.place == Position(item="/0")


def test_a_field_may_be_named_by_its_path():
    data = each(lambda line: {"a": {"b.c": line, "x": line}})(RECORD)
    assert isinstance(imported(data, "b.c")[0], FoundError)
    assert isinstance(imported(data, "a.x")[0], FoundError)
    (unread,) = imported(data, "a.y")
    assert "--text-field" in unread.reason


def test_json_that_is_no_envelope_stays_what_it_was():
    assert detect_format(b'{"notification": "sea", "id": "[Hardware Error]"}') is InputFormat.EVENT
    assert detect_format(b'{"some": "thing"}') is InputFormat.EVENT
    assert detect_format(b'[   12.345678] audit: {"message": "x"} {1}[Hardware Error]: event') is InputFormat.KERNEL_LOG


PIECES = (b'{"log": ', b'"[Hardware Error]"', b"}", b"{", b"[", b'{"', b'"=>', b"\n", TIME.encode() + b" stdout P ", b"\xff", b"\x1d")


@given(st.lists(st.sampled_from(PIECES)))
def test_any_bytes_end_in_items(pieces):
    for data in (b"".join(pieces), b'{"log": "x"}\n' + b"".join(pieces)):
        assert not any(isinstance(item, ReaderDefect) for item in imported(data))

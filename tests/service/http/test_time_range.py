"""Limits of the range of times, over HTTP and on the command line."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from ras_triage.service.client import ResponseLimits
from ras_triage.service.client._calls import Calls
from ras_triage.service.client.retry import Retry
from tests.service.support.application import NDJSON, Call, ndjson, run

LAST, FIRST = "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"
OUTSIDE = pytest.mark.parametrize("time", [LAST, FIRST])


@OUTSIDE
def test_an_event_whose_time_utc_does_not_have_is_refused_alone(call: Call, time: str) -> None:
    odd, good = {"time": time, "notification": "gsiv"}, {"notification": "gsiv"}
    single = call("POST", "/v1/decisions", json=odd)
    batch = call("POST", "/v1/decisions/batch", content=ndjson([good, odd, good]), headers=NDJSON)

    assert (single.status_code, single.json()["errors"][0]["pointer"]) == (422, "/time")
    assert "outside the years 1 to 9999 in UTC" in single.json()["detail"]
    assert [json.loads(line).get("status", 201) for line in batch.text.splitlines()] == [201, 422, 201]


@OUTSIDE
def test_a_section_whose_timestamp_utc_does_not_have_is_refused(call: Call, time: str) -> None:
    event = {"notification": "gsiv", "status_block": {"severity": "fatal", "sections": [{"type": "memory", "timestamp": time}]}}
    answer = call("POST", "/v1/decisions?dry_run=true", json=event)

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/status_block/sections/0/timestamp")


@OUTSIDE
@pytest.mark.parametrize("parameter", ["since", "until"])
def test_a_question_about_such_a_time_is_answered(call: Call, parameter: str, time: str) -> None:
    for path in ("/v1/decisions", "/v1/decisions/stats"):
        assert call("GET", path, params={parameter: time}).status_code == 200


@pytest.mark.parametrize("moment", [datetime.max, datetime.min])
def test_a_client_is_told_that_it_asks_for_a_time_that_utc_does_not_have(moment: datetime) -> None:
    offset = timedelta(hours=-23 if moment == datetime.max else 23)
    flow = Calls(Retry(), ResponseLimits()).decisions({"since": moment.replace(tzinfo=timezone(offset))}, 100)

    with pytest.raises(ValueError, match="outside the years 1 to 9999 in UTC"):
        next(flow)


def test_lines_are_decided_behind_one_whose_time_utc_does_not_have() -> None:
    done = run("decide", "--ndjson", "-", given=ndjson([{"time": LAST, "notification": "gsiv"}, {"notification": "gsiv"}]))

    assert [json.loads(line).get("status", "decided") for line in done.stdout.splitlines()] == [422, "decided"]
    assert done.returncode == 2

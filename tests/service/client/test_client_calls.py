"""Client calls against a running service."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Unpack
from uuid import UUID

import pytest

from ras_triage.models.decision import Action, Signal
from ras_triage.models.event import Event, event_key
from ras_triage.models.host import Host
from ras_triage.service.api.decision_response import DecisionResponse
from ras_triage.service.api.problems import Problem
from ras_triage.service.api.syndromes import Explanation, InjectionResult
from ras_triage.service.client import AsyncClient, BatchSummary, Client, Filters, ProblemResponse, Retry, StreamedDecision
from tests.service.support.application import BLOCK, EVENT, NOTHING_TO_QUEUE, run
from tests.service.support.server_process import Service, serving


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with serving("--store", "memory:") as service:
        yield service


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


def test_an_event_is_decided_kept_and_found_again(client: Client) -> None:
    answer = client.decide({**EVENT, "id": "kept"})

    assert UUID(answer.id).version == 7
    assert (answer.action, answer.repeat) == (Action.SIGNAL, False)
    assert any(isinstance(step, Signal) for step in answer.plan)
    assert client.get(answer.id or "") == answer
    assert json.loads(client.event(answer.id or "")) == {**EVENT, "id": "kept"}
    found = client.alternatives(answer.id or "")
    assert (found.id, found.action, found.policy) == (answer.id, answer.action, answer.policy)
    assert sum(condition.readings for condition in found.conditions) == found.readings
    assert client.decide({**EVENT, "id": "kept"}).id == answer.id


def test_an_event_says_the_same_as_an_object_as_json_and_as_a_model(client: Client) -> None:
    document = json.dumps(EVENT).encode()
    forms = (EVENT, document, Event.model_validate_json(document))

    assert {client.decide(form, dry_run=True).event_key for form in forms} == {event_key(Event.model_validate_json(document))}
    assert client.decide(EVENT, dry_run=True).id is None


def test_hexadecimal_and_cloud_events_are_read_as_over_http(client: Client) -> None:
    answer = client.decide({**EVENT, "status_block": BLOCK.hex()}, dry_run=True)
    assert answer.plan == client.decide(EVENT, dry_run=True).plan
    assert "status_block" in [one.fact for one in answer.assumptions]
    assert client.decide(Event.model_validate({**EVENT, "status_block": BLOCK.hex()}), dry_run=True).plan == answer.plan
    with pytest.raises(ProblemResponse, match="could be 4 bytes in hexadecimal or 6 bytes in base64"):
        client.decide({**EVENT, "status_block": "deadbeef"})

    data = {name: value for name, value in EVENT.items() if name != "source"}
    sent = {"specversion": "1.0", "id": "cloud", "source": "/node/1", "type": "t", "data": data}
    first, again = client.decide_many([sent, sent])
    assert isinstance(first, DecisionResponse)
    assert isinstance(again, DecisionResponse)
    assert (first.source, first.id, again.repeat) == ("/node/1", again.id, True)


def test_one_key_names_one_decision(client: Client) -> None:
    first = client.decide(EVENT, idempotency_key="one key")
    again = client.decide(EVENT, idempotency_key="one key")
    other = client.decide(EVENT)

    assert (again.id, again.repeat) == (first.id, True)
    assert other.id != first.id


def test_a_refusal_points_at_what_is_wrong(client: Client) -> None:
    with pytest.raises(ProblemResponse) as refused:
        client.decide({"notification": "sea", "colour": "red"})

    assert refused.value.problem.status == 422
    assert refused.value.problem.errors[0].pointer == "/colour"
    with pytest.raises(ProblemResponse, match="not found"):
        client.get("00000000-0000-7000-8000-000000000000")


def test_many_events_are_answered_in_order_with_problems_in_their_places(client: Client) -> None:
    pretty = json.dumps(EVENT, indent=1).encode()
    first, refused, broken, second = client.decide_many([EVENT, {"notification": "sea", "colour": 1}, b'{"a":\n', pretty])

    assert isinstance(first, DecisionResponse)
    assert isinstance(refused, Problem)
    assert refused.type.endswith("invalid-event")
    assert isinstance(broken, Problem)
    assert broken.type.endswith("invalid-json")
    assert isinstance(second, DecisionResponse)
    assert first.event_key == second.event_key


def test_the_same_events_under_one_key_are_decided_once(client: Client) -> None:
    events = [EVENT, NOTHING_TO_QUEUE, EVENT]
    first = [answer.id for answer in client.decide_many(events, idempotency_key="night run") if isinstance(answer, DecisionResponse)]
    again = [answer.id for answer in client.decide_many(events, idempotency_key="night run") if isinstance(answer, DecisionResponse)]

    assert first == again
    assert len(set(first)) == 3


def test_pages_follow_each_other_without_a_gap(client: Client) -> None:
    ids = [
        answer.id
        for answer in client.decide_many({**EVENT, "source": "paged", "id": str(n)} for n in range(25))
        if isinstance(answer, DecisionResponse)
    ]

    assert [one.id for one in client.decisions(source="paged", page_size=4)] == ids[::-1]
    assert [one.id for one in islice(client.decisions(source="paged", physical_address=0x56EDD040), 3)] == ids[:-4:-1]
    assert list(client.decisions(source="paged", action="panic")) == []


def test_counts_are_grouped(client: Client) -> None:
    list(client.decide_many({**EVENT, "source": "counted"} for _ in range(5)))
    stats = client.stats(group_by=["action", "policy"], bucket="day", source="counted")

    assert (stats.bucket_s, stats.group_by) == (86400, ("action", "policy"))
    assert sum(bucket.count for bucket in stats.buckets) == 5
    assert stats.buckets[0].groups[0]["action"] == "signal"


def test_lists_are_filtered_by_several_values_prefixes_and_ages(client: Client) -> None:
    for number, source in enumerate(["rack1-a", "rack1-b", "rack2-a", "rack,3"]):
        client.decide({**EVENT, "source": source, "id": str(number)})

    def found(**filters: Unpack[Filters]) -> list[str | None]:
        return [one.source for one in client.decisions(page_size=2, **filters)]

    assert found(source="rack1-*") == ["rack1-b", "rack1-a"]
    assert found(source=["rack2-*", "rack,3"], action=("signal", "panic")) == ["rack,3", "rack2-a"]
    assert found(source="rack1-a,rack2-a", physical_address=[0x56EDD040, "0x1"]) == ["rack2-a", "rack1-a"]
    assert found(source="rack1-a", since=timedelta(hours=1), until=datetime.now(UTC) + timedelta(days=1)) == ["rack1-a"]
    assert found(source="rack1-a", since="1h") == ["rack1-a"]
    assert found(source="rack1-a", until=date(2026, 1, 1)) == []
    with pytest.raises(ValueError, match="negative"):
        found(since=timedelta(seconds=-1))


def test_counts_have_empty_buckets_on_request(client: Client) -> None:
    client.decide({**EVENT, "source": "filled"})
    stats = client.stats(group_by="action,policy,source", bucket="minute", fill=True, source="filled", since=timedelta(minutes=5))

    assert len(stats.buckets) in (6, 7)
    assert sum(bucket.count for bucket in stats.buckets) == 1
    assert stats.group_by == ("action", "policy", "source")


def test_results_of_a_batch_name_their_events_over_all_groups(client: Client) -> None:
    events = [{**EVENT, "source": "many", "id": f"e-{number}"} for number in range(1100)]
    events[700] = {"id": "bad", "notification": "nonsense"}
    lines = [json.loads(line) for line in client.decide_lines(events)]

    assert [line["index"] for line in lines] == list(range(1100))
    assert [line["event_id"] for line in lines] == [event["id"] for event in events]
    assert lines[700]["type"].endswith("invalid-event")


def test_a_dry_run_of_many_events_keeps_nothing(client: Client) -> None:
    answers = list(client.decide_many([{**EVENT, "source": "dry"}, {"notification": "nonsense"}], dry_run=True))

    assert isinstance(answers[0], DecisionResponse)
    assert (answers[0].id, answers[0].action) == (None, "signal")
    assert isinstance(answers[1], Problem)
    assert list(client.decisions(source="dry")) == []


def test_summaries_of_many_decisions_say_what_they_are_counted_by(client: Client) -> None:
    first, refused = client.decide_summaries([{**EVENT, "source": "brief", "id": "e-1"}, {"notification": "nonsense"}])

    assert isinstance(first, BatchSummary)
    assert isinstance(refused, Problem)
    (kept,) = client.decisions(source="brief")
    assert (first.index, first.event_id, first.id, first.action, first.event_key) == (0, "e-1", kept.id, "signal", kept.event_key)


def test_hosts_and_poisoned_pages_of_all_sources_are_listed(client: Client) -> None:
    for number in range(5):
        client.put_host(f"listed-{number}", {"kernel": "6.12.107"})
        client.decide({**EVENT, "source": f"listed-{number}"})

    hosts = list(client.hosts(source="listed-*", since=timedelta(hours=1), page_size=2))
    pages = list(client.all_poisoned_pages(source="listed-*", physical_address=0x56EDD123, page_size=2))
    assert [(host.source, host.version) for host in hosts] == [(f"listed-{number}", 1) for number in range(5)]
    assert [(page.source, page.physical_address, page.shift) for page in pages] == [
        (f"listed-{number}", 0x56EDD000, 12) for number in range(5)
    ]


def test_hosts_are_kept_by_version_and_changed_under_a_condition(client: Client) -> None:
    first = client.put_host("rack 1/node", {"kernel": "6.12.107"}, if_version=0)
    assert (first.version, first.host["kernel"]) == (1, "6.12.107")
    assert client.put_host("rack 1/node", Host(kernel="7.3.4"), if_version=1).version == 2
    assert client.host("rack 1/node").host["kernel"] == "7.3.4"
    assert client.host("rack 1/node", version=1).host["kernel"] == "6.12.107"
    with pytest.raises(ProblemResponse) as changed:
        client.delete_host("rack 1/node", if_version=1)
    assert changed.value.problem.status == 412

    assert client.decide({"source": "rack 1/node", "notification": "sea"}).policy.name == "linux-7.3.4"
    client.delete_host("rack 1/node")
    with pytest.raises(ProblemResponse):
        client.host("rack 1/node")


def test_pages_that_were_poisoned_are_told_and_forgotten(client: Client) -> None:
    client.decide({**EVENT, "source": "poisoned"})
    (page,) = client.poisoned_pages("poisoned").pages
    assert (page.physical_address & ~0xFFF, page.shift) == (0x56EDD000, 12)

    client.forget_poisoned_pages("poisoned")
    assert client.poisoned_pages("poisoned").pages == ()


def test_what_is_looked_up_comes_as_values(client: Client) -> None:
    decoded = client.decode(BLOCK)
    assert decoded.status_block["sections"][0]["physical_address"] == "0x56edd040"
    assert client.decide({**EVENT, "status_block": decoded.status_block}, dry_run=True).action == "signal"

    explained = client.syndromes(value="0xbe000411")
    assert isinstance(explained, Explanation)
    injected = client.syndromes(vcpu_events=base64.b64encode(bytes([1, 1] + [0] * 62)).decode(), kernel="6.12.107", host_ras=True)
    assert isinstance(injected, InjectionResult)
    assert injected.accepted

    assert client.policies().default == "uniform"
    assert client.policy("linux-6.1.100").release == "6.1.100"
    assert client.policy_diff("linux-6.1.100", "linux-6.1.192").differs
    stored = client.put_policy("ours", {"base": "linux-6.1.100", "flags": {"queued_accumulates": True}})
    assert client.decide({**EVENT, "policy": "ours"}, dry_run=True).policy.digest == stored.digest
    assert client.store().decisions > 0
    assert client.health().ready


def test_a_stream_goes_on_behind_what_was_seen(client: Client) -> None:
    ids = [client.decide({**EVENT, "source": "streamed", "id": str(n)}).id for n in range(4)]
    first, second = islice(client.watch(source="streamed", last_event_id="0"), 2)
    rest = list(islice(client.watch(source="streamed", last_event_id=second.event_id), 2))

    assert [one.decision.id for one in (first, second, *rest) if isinstance(one, StreamedDecision)] == ids


def test_a_stream_has_no_gap_and_no_duplicate_while_the_service_is_killed_again_and_again(tmp_path: Path) -> None:
    seen: list[str] = []
    with serving("--store", f"sqlite:///{tmp_path / 'store.db'}") as service, Client(service.url, retry=Retry(attempts=40)) as client:

        def watch() -> None:
            with Client(service.url, retry=Retry(attempts=40)) as other:
                seen.extend(one.decision.id for one in islice(other.watch(last_event_id="0"), 60) if isinstance(one, StreamedDecision))

        watching = Thread(target=watch, daemon=True)
        watching.start()
        decided = []
        for number in range(60):
            decided.append(client.decide({**EVENT, "id": str(number)}).id)
            if number % 20 == 10:
                service.kill()
                service.start()
        watching.join(60)

    assert seen == decided


def test_the_asynchronous_client_says_the_same(service: Service) -> None:
    async def events() -> AsyncIterator[dict[str, object]]:
        for number in range(600):
            yield {**EVENT, "source": "awaited", "id": str(number)}

    async def ask() -> None:
        async with AsyncClient(service.url) as client:
            answers = [answer async for answer in client.decide_many(events())]
            assert all(isinstance(answer, DecisionResponse) for answer in answers)
            summaries = [one.id async for one in client.decisions(source="awaited", page_size=500)]
            assert summaries == [answer.id for answer in reversed(answers) if isinstance(answer, DecisionResponse)]
            found = client.watch(source="awaited", last_event_id="0")
            assert (await anext(aiter(found))).event_id
            dry, health, policies = await asyncio.gather(client.decide(EVENT, dry_run=True), client.health(), client.policies())
            assert (dry.id, health.ready, policies.default) == (None, True, "uniform")

    asyncio.run(ask())


def test_a_key_opens_what_its_scopes_allow_and_the_command_line_takes_it_from_a_file_or_the_environment(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'store.db'}"
    token = run("keys", "create", "--name", "dashboard", "--scope", "read", "--store", store).stdout.decode().strip()
    file = tmp_path / "token"
    file.write_text(token + "\n")
    with serving("--store", store) as service, Client(service.url, token=lambda: token) as client:
        assert list(client.decisions()) == []
        with pytest.raises(ProblemResponse, match="scope") as forbidden:
            client.decide(EVENT)
        with pytest.raises(ProblemResponse) as unknown, Client(service.url) as stranger:
            list(stranger.decisions())
        by_file = run("query", "--format", "json", "--server", service.url, "--token-file", str(file))
        by_environment = run("query", "--format", "json", "--server", service.url, RAS_TRIAGE_TOKEN=token)
        without = run("query", "--format", "json", "--server", service.url)

    assert (forbidden.value.problem.status, unknown.value.problem.status) == (403, 401)
    assert by_file.stdout == by_environment.stdout == b"[]\n"
    assert (without.returncode, without.stdout) == (2, b"")

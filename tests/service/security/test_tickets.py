"""Tickets for event streams: lifetime and number."""

from __future__ import annotations

import pytest

from ras_triage.service.api.problems import ProblemError
from ras_triage.service.security import tickets
from ras_triage.service.security.tickets import LIFETIME_S, MAX_TICKETS_PER_PRINCIPAL, Tickets
from ras_triage.service.telemetry.redaction import redact


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_ticket_stands_for_its_credentials_for_a_minute_as_often_as_it_is_used() -> None:
    clock = Clock()
    issued = Tickets(clock)
    ticket = issued.issue("key a", "secret")

    assert [issued.credentials(ticket) for _ in range(3)] == ["secret"] * 3
    clock.now += LIFETIME_S - 1
    assert issued.credentials(ticket) == "secret"
    clock.now += 1
    assert issued.credentials(ticket) is None


def test_an_unknown_ticket_stands_for_nothing() -> None:
    issued = Tickets()
    ticket = issued.issue("key a", "secret")

    assert [issued.credentials(other) for other in ("", "rtt_", ticket[:-1], ticket + "x", "\udcff")] == [None] * 5


def test_tickets_differ_and_are_hidden_in_the_log() -> None:
    issued = Tickets()
    shown = {issued.issue("key a", "secret") for _ in range(10)}

    assert len(shown) == 10
    assert {redact(f"GET /v1/decisions/stream?ticket={ticket}&x=1") for ticket in shown} == {
        "GET /v1/decisions/stream?ticket=rtt_********&x=1"
    }


def test_one_principal_has_a_bounded_number_of_tickets_and_others_are_not_affected() -> None:
    clock = Clock()
    issued = Tickets(clock)
    for _ in range(MAX_TICKETS_PER_PRINCIPAL):
        issued.issue("key a", "a")

    with pytest.raises(ProblemError) as refused:
        issued.issue("key a", "a")
    assert (refused.value.problem.status, refused.value.headers) == (503, {"Retry-After": str(LIFETIME_S)})
    assert issued.issue("key b", "b")
    clock.now += LIFETIME_S
    assert issued.issue("key a", "a"), "expired tickets do not count"


def test_the_number_of_all_tickets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "MAX_TICKETS", 3)
    issued = Tickets()
    for name in ("a", "b", "c"):
        issued.issue(name, name)

    with pytest.raises(ProblemError, match="3 tickets"):
        issued.issue("d", "d")

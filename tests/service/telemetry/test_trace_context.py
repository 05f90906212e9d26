"""W3C trace context."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.service.telemetry.trace_context import TraceContext, read

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01".encode()


def test_a_valid_context_is_taken_as_it_is() -> None:
    assert read([PARENT], [b"congo=t61rcWkgMzE"]) == TraceContext(TRACE, PARENT.decode(), "congo=t61rcWkgMzE")


@pytest.mark.parametrize(
    "parent",
    [
        b"",
        b"00",
        PARENT + b"-more",
        PARENT + b" ",
        PARENT.upper(),
        PARENT.replace(b"00-0a", b"ff-0a"),
        PARENT.replace(TRACE.encode(), b"0" * 32),
        PARENT.replace(b"b7ad6b7169203331", b"0" * 16),
        PARENT.replace(TRACE.encode(), TRACE.encode() + b"0"),
        PARENT[:-1],
    ],
)
def test_a_parent_that_is_not_well_formed_is_as_good_as_none(parent: bytes) -> None:
    assert read([parent], [b"congo=1"]) is None


def test_two_parents_are_none() -> None:
    assert read([PARENT, PARENT], []) is None


def test_a_later_version_is_read_and_passed_on_as_the_first() -> None:
    later = b"01" + PARENT[2:] + b"-what-the-future-brings"

    assert read([later], []) == TraceContext(TRACE, PARENT.decode(), None)


def test_the_vendors_parts_are_joined_in_order() -> None:
    context = read([PARENT], [b"a=1, b=2", b"t@v=3 x"])

    assert context is not None
    assert context.tracestate == "a=1,b=2,t@v=3 x"


@pytest.mark.parametrize(
    "states",
    [
        [b"a"],
        [b"a=\x01"],
        [b"a=1=2"],
        [b"A=1"],
        [b"a=1", b"a=2"],
        [",".join(f"k{index}=1" for index in range(33)).encode()],
        [b"a=" + b"1" * 257],
        [b""],
    ],
)
def test_vendors_parts_that_are_not_well_formed_are_not_passed_on(states: list[bytes]) -> None:
    assert read([PARENT], states) == TraceContext(TRACE, PARENT.decode(), None)


@given(st.lists(st.binary(max_size=80), max_size=3), st.lists(st.binary(max_size=80), max_size=3))
def test_any_headers_are_read(parents: list[bytes], states: list[bytes]) -> None:
    context = read(parents, states)

    assert context is None or context.traceparent.isascii()


@given(st.lists(st.binary(max_size=80), max_size=3))
def test_what_is_passed_on_can_be_a_header(states: list[bytes]) -> None:
    context = read([PARENT], states)

    assert context is not None
    assert context.tracestate is None or context.tracestate.isprintable()

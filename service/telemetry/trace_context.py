"""W3C trace context of requests (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextvars import ContextVar

from ras_triage.models.frozen import frozen

_PARENT = re.compile(
    rb"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<parent>(?!0{16})[0-9a-f]{16})-[0-9a-f]{2}(?P<more>-.*)?"
)
_MEMBER = re.compile(rb"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_MAX_MEMBERS = 32


@frozen
class TraceContext:
    """Trace context, as it is propagated."""

    trace_id: str
    """16 bytes, hexadecimal."""
    traceparent: str
    tracestate: str | None


CURRENT: ContextVar[TraceContext | None] = ContextVar("trace_context", default=None)
"""Trace context of the current request."""


def read(parents: Sequence[bytes], states: Iterable[bytes]) -> TraceContext | None:
    """Parse the values of the `traceparent` and `tracestate` headers; None: missing or invalid.

    A later version is parsed and propagated as version 00 (trace-context 4.3).
    """
    if len(parents) != 1:
        return None
    parent = _PARENT.fullmatch(parents[0])
    if parent is None or (parent["version"] == b"00" and parent["more"]):
        return None
    return TraceContext(parent["trace"].decode(), "00" + parents[0][2:55].decode(), _state(states))


def _state(values: Iterable[bytes]) -> str | None:
    """Return the joined `tracestate`; None: empty, a malformed member, a duplicate key, or too many members."""
    members = [member.strip(b" \t") for value in values for member in value.split(b",") if member.strip(b" \t")]
    keys = {member.partition(b"=")[0] for member in members}
    if not members or len(keys) < len(members) or len(members) > _MAX_MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return None
    return b",".join(members).decode()

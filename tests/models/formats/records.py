"""Events and records for the tests of formats with CPER records."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from ras_triage.models.event import Event
from ras_triage.models.formats.results import FoundError, UnreadableRecord
from ras_triage.models.records.block_fields import decode_structured, encode_structured
from ras_triage.models.records.cper_record import NOTIFICATION_TYPES, encode_record, from_status_block
from ras_triage.models.records.guid import NULL, SECTION_TYPES
from ras_triage.models.records.status_block import DataEntry, encode_block_header, encode_entry
from ras_triage.models.sections.fields import encode_timestamp, join_timestamp

BLOCK = encode_structured(
    {
        "severity": "recoverable",
        "sections": [
            {"type": "memory", "flags": ["primary"], "physical_address": "0x56edd040", "memory_error_type": 3},
            {"type": "pcie", "severity": "corrected", "fru_text": "slot 3", "bus": 5, "device": 1, "function": 0},
        ],
    }
)
MEMORY_BODY = decode_structured(BLOCK).sections[0].encode_payload()
TIME = datetime(2026, 11, 22, 10, 0, 7, tzinfo=UTC)
VENDOR = "e8ed898d-df16-43cc-8ecc-54f060ef157f"


def record(name: str = "sea", *, block: bytes = BLOCK, record_id: int = 0) -> bytes:
    """Return the record of a status block, with a CPER notification type."""
    return encode_record(from_status_block(block, NOTIFICATION_TYPES[name], record_id=record_id))


def only(found: Any) -> FoundError:
    """Return the only error that a parser found."""
    (one,) = found
    assert isinstance(one, FoundError), one
    return one


def refused(found: Any) -> UnreadableRecord:
    """Return the only unreadable record."""
    (one,) = found
    assert isinstance(one, UnreadableRecord), one
    return one


def section_dicts(event: Event) -> list[dict[str, Any]]:
    """Return the sections of an event's status block as JSON."""
    assert event.status_block is not None
    return [section.model_dump(mode="json", exclude_none=True) for section in decode_structured(event.status_block).sections]


def carried(event: Event) -> dict[str, Any]:
    """Return the facts of an event that a CPER record has fields for."""
    assert event.status_block is not None
    block = decode_structured(event.status_block)
    kept = ("fru_id", "fru_text")
    return {
        "severity": block.severity,
        "sections": [
            (
                section.type,
                section.severity,
                section.flags,
                (section.entry_validation_bits or 0) & 0b11,
                *(getattr(section, name) for name in kept),
                section.encode_payload(),
            )
            for section in block.sections
        ],
    }


texts = st.text(st.characters(min_codepoint=1, max_codepoint=0xFF), max_size=20)
times = st.datetimes(datetime(1970, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))
severities = st.integers(0, 3) | st.integers(0, 2**32 - 1)
kinds = st.sampled_from(list(SECTION_TYPES.values())) | st.binary(min_size=16, max_size=16)


@st.composite
def entries(draw: st.DrawFn) -> bytes:
    """Generate a data entry of any section type and content."""
    payload = draw(st.binary(max_size=120))
    revision = draw(st.sampled_from([0x0201, 0x0300, 0x0301]))
    stamps = st.builds(join_timestamp, times.map(stamp), is_precise=st.booleans())
    head = DataEntry(
        offset=0,
        section_type=draw(kinds),
        error_severity=draw(severities),
        revision=revision,
        validation_bits=draw(st.integers(0, 7)),
        flags=draw(st.integers(0, 255)),
        error_data_length=len(payload),
        fru_id=draw(st.just(NULL) | st.binary(min_size=16, max_size=16)),
        fru_text=draw(texts).encode("latin-1").ljust(20, b"\0"),
        timestamp=draw(st.just(bytes(8)) | stamps) if revision >= 0x0300 else None,
    )
    return encode_entry(head) + payload


def stamp(time: datetime) -> bytes:
    """Return the CPER timestamp of a time."""
    return encode_timestamp(time.replace(microsecond=0))


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Generate an event with a well-formed status block."""
    body = b"".join(draw(st.lists(entries(), max_size=3)))
    kind = st.sampled_from(["sea", "sei", "nmi", "mce", "polled", "gsiv", "gpio", "sdei"])
    return Event.model_validate(
        {
            "id": draw(st.none() | st.text(min_size=1, max_size=9)),
            "source": draw(st.none() | st.text(min_size=1, max_size=9)),
            "policy": draw(st.none() | st.just("uniform")),
            "time": draw(st.none() | times),
            "notification": {"type": draw(kind), "source_id": draw(st.none() | st.integers(0, 9)), "ghes_version": draw(st.integers(1, 2))},
            "status_block": encode_block_header(draw(st.integers(1, 0x3FFF)), 0, 0, len(body), draw(severities)) + body,
        }
    )

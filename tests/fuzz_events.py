"""Coverage-guided fuzzing of everything that reads bytes. Started by hand: `make fuzz SECONDS=600`.

Each input is a few choices (notification, policy, source) and a status block or record. Whatever the bytes are, deciding must come to a
decision, decoding to a block that encodes to the same bytes or to MalformedBytes, and neither to more than the input is worth.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports():
    from ras_triage.models.errors import MalformedBytes
    from ras_triage.models.event import Event
    from ras_triage.models.notification import NotificationType
    from ras_triage.models.records.block_fields import decode_structured, encode_structured
    from ras_triage.models.records.cper_record import decode_record, encode_record
    from ras_triage.policies.catalog.policies import Policy, resolve_policy, uniform_policy
    from ras_triage.policies.decide import decide

POLICIES: list[Policy] = [
    uniform_policy(),
    *(resolve_policy(f"linux-{release}") for release in ("5.10.223", "6.1.176", "6.12.107", "7.0.0", "7.3.4")),
]
KINDS = list(NotificationType)
PAGE = {"physical_address": "0x56edd000", "state": "anonymous", "mappings": [{"pid": 103, "address": "0xffff897d5000"}]}
HOST = {"current": {"pid": 103, "tid": 103}, "tasks": [{"pid": 103, "mce_kill": "early"}], "pages": [PAGE]}
STEPS_PER_BYTE, STEPS_AT_LEAST = 2, 64


def decides(choice: int, block: bytes) -> None:
    kind = KINDS[choice % len(KINDS)]
    event = Event.model_validate({"notification": {"type": kind, "syndrome": 0x92000010}, "status_block": block, "host": HOST})
    decision = decide(event, POLICIES[choice // len(KINDS) % len(POLICIES)])
    worth = STEPS_PER_BYTE * len(block) + STEPS_AT_LEAST
    assert len(decision.plan) <= worth, "more steps than the bytes are worth"
    assert len(decision.rationale) <= worth, "more reasons than the bytes are worth"


def round_trips(data: bytes) -> None:
    try:
        block = decode_structured(data)
    except MalformedBytes:
        pass
    else:
        assert encode_structured(block) == data
    try:
        record = decode_record(data)
    except MalformedBytes:
        return
    assert encode_record(record) == data


def one_input(data: bytes) -> None:
    if data:
        decides(data[0], data[1:])
        round_trips(data[1:])


def seed(corpus: Path) -> None:
    """Begin with blocks that a kernel was really given."""
    vectors = Path(__file__).parent / "vectors" / "linux-7.3.4.jsonl"
    for number, line in enumerate(vectors.read_text(encoding="utf-8").splitlines()):
        block = base64.b64decode(json.loads(line)["event"].get("status_block") or "")
        (corpus / f"seed-{number}").write_bytes(bytes([number % 256]) + block)


def main() -> None:
    corpus = Path("fuzz-corpus")
    if not corpus.exists():
        corpus.mkdir()
        seed(corpus)
    atheris.Setup([*sys.argv, str(corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

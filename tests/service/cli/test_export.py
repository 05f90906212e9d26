"""`export`: conversion of imported errors to the formats of other tools."""

from __future__ import annotations

import base64
import json
import shlex
from pathlib import Path

import pytest

from ras_triage.models.event import Event
from ras_triage.models.formats.cper import write_record
from ras_triage.models.notification import Notification
from ras_triage.models.records.block_fields import decode_structured, encode_structured
from tests.models.formats.qemu.ghes_inject_script import inject
from tests.service.support.application import run
from tests.service.support.import_examples import JOURNAL, LOG

FORMATS = ("event", "cper", "redfish", "qmp", "qemu_argument")
ARM_BLOCK = encode_structured(
    {
        "severity": 0,
        "block_status": 1,
        "sections": [
            {
                "type": "arm_processor",
                "validation_bits": 4,
                "running_state": 0,
                "error_infos": [{"error_type": 2, "validation_bits": 4, "error_information": 0x54007F}],
            }
        ],
    }
)
ARM = Event(notification=Notification(type="gpio"), status_block=ARM_BLOCK).model_dump_json(exclude_none=True).encode()
TWO = LOG + LOG.replace(b"{1}", b"{2}").replace(b"56edd", b"77edd")


def found(content: bytes, *options: str) -> list[dict]:
    """The errors that `import` finds."""
    lines = [json.loads(line) for line in run("import", "--json", *options, "-", given=content).stdout.splitlines()]
    return [line for line in lines if "event" in line]


def sections(errors: list[dict]) -> list[list[dict]]:
    blocks = [decode_structured(base64.b64decode(error["event"]["status_block"])) for error in errors]
    return [
        [section.model_dump(mode="json", exclude={"timestamp", "entry_validation_bits"}) for section in block.sections] for block in blocks
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_written_is_found_again(form):
    written = run("export", "--to", form, "-", given=LOG)
    assert (written.returncode, written.stderr) == (0, b"")
    assert sections(found(written.stdout, "--as", form)) == sections(found(LOG))


@pytest.mark.parametrize("form", FORMATS[:4])
def test_several_errors_are_written_one_behind_the_other(form):
    written = run("export", "--to", form, "-", given=TWO)
    assert written.returncode == 0
    assert sections(found(written.stdout)) == sections(found(TWO))


def test_an_arm_error_is_written_as_a_command_line():
    written = run("export", "--to", "ghes_inject", "-", given=ARM)
    assert (written.returncode, written.stdout[:19]) == (0, b"ghes_inject.py arm ")
    assert inject(shlex.split(written.stdout.decode())[1:]) == ARM_BLOCK


def test_a_command_line_is_not_imported():
    written = run("export", "--to", "ghes_inject", "-", given=ARM).stdout
    assert found(written) == []
    assert run("import", "--as", "ghes_inject", "-", given=written).returncode == 2


def test_what_a_format_cannot_carry_is_named_and_the_rest_is_written(tmp_path: Path):
    (tmp_path / "log").write_bytes(LOG)
    (tmp_path / "arm").write_bytes(ARM)
    done = run("export", "--to", "ghes_inject", str(tmp_path / "log"), str(tmp_path / "arm"), str(tmp_path / "none"))
    assert (done.returncode, len(done.stdout.splitlines())) == (2, 1)
    first, second = done.stderr.decode().splitlines()
    assert first == f"ras-triage: not exported: {tmp_path / 'log'}, line 1: the script injects a single ARM processor section"
    assert second.endswith("no such file or directory")


def test_an_event_without_a_record_makes_none():
    done = run("export", "--to", "cper", "-", given=b'{"notification": "sea"}')
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"without a `status_block`" in done.stderr


def test_a_malformed_block_makes_no_record_and_says_where():
    block = encode_structured({"severity": 0, "sections": [{"type": "memory"}]})
    broken = Event(notification=Notification(type="sea"), status_block=block[:-1]).model_dump_json(exclude_none=True)
    done = run("export", "--to", "cper", "-", given=broken.encode())
    assert done.returncode == 2
    assert b"byte 171, `data_length`" in done.stderr


def test_what_is_told_of_the_notification_goes_along():
    written = run("export", "--to", "cper", "--notification", "sea", "-", given=JOURNAL)
    (error,) = found(written.stdout)
    assert error["event"]["notification"]["type"] == "sea"
    assert "/notification/type" not in {one["field"] for one in error["assumed"]}


def test_a_record_is_exported_as_it_came():
    event = Event(notification=Notification(type="sea"), status_block=encode_structured({"severity": 0, "sections": [{"type": "memory"}]}))
    record = write_record(event)
    assert run("export", "--to", "cper", "-", given=record).stdout == record

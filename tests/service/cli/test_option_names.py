"""Problems on the command line name options."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.paths import ROOT
from tests.service.support.application import EVENT, run
from tests.service.support.server_process import Service, serving

LINE = json.dumps(EVENT).encode()
HEST = str(ROOT / "docs" / "examples" / "hest.bin")
EXPECTED = "expected `uniform`, `linux-<release>` such as `linux-6.12.107`, or a custom policy"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["decide", "-", "--policy", "x"], f"unknown policy: `--policy`: unknown policy `x`; {EXPECTED}"),
        (["decide", "-", "--policy", "unifrom"], f"`--policy`: unknown policy `unifrom`; {EXPECTED}; did you mean `uniform`?"),
        (["decide", "-", "--compare", "linux6.12"], f"`--compare`: unknown policy `linux6.12`; {EXPECTED}"),
        (["decide", "-", "--kernel", "6.x"], "unknown policy: `--kernel`: `6.x` is not a kernel release"),
        (["decide", "--ndjson", "-", "--policy", "x"], "`--policy`: unknown policy `x`"),
        (["import", "-", "--policy", "x"], "`--policy`: unknown policy `x`"),
        (["import", "-", "--kernel", "6.x"], "`--kernel`: `6.x` is not a kernel release"),
        (["policies", "unifrom"], f"`NAME`: unknown policy `unifrom`; {EXPECTED}; did you mean `uniform`?"),
        (["policies", "uniform", "--diff", "x"], "`--diff`: unknown policy `x`"),
        (["decode", HEST, "--kernel", "6.x"], "`--kernel`: `6.x` is not a kernel release"),
        (["decode", HEST, "--policy", "x"], "`--policy`: unknown policy `x`"),
        (["syndrome", "0x1", "--kernel", "6.x"], "`--kernel`: `6.x` is not a kernel release"),
        (["syndrome", "0x1", "--policy", "x"], "`--policy`: unknown policy `x`"),
        (["syndrome", "0x1111222233334444f"], "invalid request: `VALUE`: `0x1111222233334444f` should be less than"),
        (["syndrome", "0x1111222233334444f", "--no-ras"], "invalid request: `VALUE`: `0x1111222233334444f` should be less than"),
        (["syndrome", "x"], "`VALUE`: `x` is no syndrome; expected hexadecimal digits such as `0xbe000411`"),
        (["syndrome", HEST], "is no syndrome; read the requests in a file with `--ndjson`"),
    ],
)
def test_a_wrong_value_is_told_with_its_option(arguments: list[str], message: str) -> None:
    done = run(*arguments, given=LINE)
    assert (done.returncode, done.stdout) == (2, b"")
    assert message in done.stderr.decode()
    assert "`/" not in done.stderr.decode().replace(f"`{HEST}`", "")


def test_the_problem_document_names_the_option_too() -> None:
    problem = json.loads(run("decide", "-", "--policy", "x", "--json", given=LINE).stderr)
    assert problem["errors"] == [{"pointer": "", "detail": f"unknown policy `x`; {EXPECTED}", "parameter": "--policy"}]


def test_a_fault_of_the_input_keeps_its_pointer() -> None:
    assert "`/policy`" not in run("decide", "-", given=LINE).stderr.decode()
    refused = run("decide", "-", "--policy", "uniform", given=json.dumps({**EVENT, "host": {"kernl": 1}}).encode())
    assert "`/host/kernl`: unknown field; did you mean `kernel`?" in refused.stderr.decode()


@pytest.fixture(scope="module")
def server() -> Iterator[Service]:
    with serving("--store", "memory:") as service:
        yield service


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["query", "--section", "x"], "--section"),
        (["query", "--physical-address", "here"], "--physical-address"),
        (["query", "--stats", "--group-by", "colour"], "--group-by"),
        (["query", "--stats", "--bucket", "fortnight"], "--bucket"),
        (["watch", "--action", "signl"], "--action"),
    ],
)
def test_what_the_service_refuses_is_told_with_the_option(server: Service, arguments: list[str], option: str) -> None:
    done = run(*arguments, RAS_TRIAGE_URL=server.url)
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"ras-triage: invalid query parameter: `{option}`: ")
    assert "query parameter `" not in done.stderr.decode()


@pytest.mark.parametrize(
    ("written", "value"), [("be000c11", "0xbe000c11"), ("0XBE000C11", "0xbe000c11"), ("00000000be000c11", "0xbe000c11")]
)
def test_a_syndrome_needs_no_prefix(written: str, value: str) -> None:
    done = run("syndrome", written, "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == run("syndrome", value, "--json").stdout


def test_digits_alone_are_hexadecimal_and_it_says_so() -> None:
    done = run("syndrome", "96000210", "--json")
    assert done.stdout == run("syndrome", "0x96000210", "--json").stdout
    assert done.stderr == b"ras-triage: `96000210` is read as hexadecimal, 0x96000210\n"

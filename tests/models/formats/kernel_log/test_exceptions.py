"""Tests of SErrors and aborts without a record in kernel logs, and of those beside one."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.formats.kernel_log.reader import read_kernel_log
from ras_triage.models.formats.results import FoundError, UnmatchedAction
from ras_triage.models.notification import NotificationType
from ras_triage.policies.agreement import compare
from ras_triage.policies.catalog.policies import kernel_policy, resolve_policy
from ras_triage.policies.decide import decide
from tests.models.formats.kernel_log.test_kernel_log import log, record
from tests.models.formats.kernel_log.test_kernel_log_properties import NOISE, STYLES, as_bytes, shuffled_together

ARM = (
    "Hardware error from APEI Generic Hardware Error Source: 9",
    "event severity: recoverable",
    " Error 0, type: recoverable",
    "  section_type: ARM processor error",
    "  MIDR: 0x00000000410fd0c0",
    "  Error info structure 0:",
    "  num errors: 1",
    "   error_type: 0, cache error",
    "   error_info: 0x0000000020400014",
    "   physical fault address: 0x0000001000093c00",
)
SERROR = "SError Interrupt on CPU3, code 0xbe000011 -- SError"
TASK = "CPU: 3 PID: 2930 Comm: Web Content Kdump: loaded Tainted: G   M      W    5.18.7-arm64 #1 SMP"
KERNEL_STATE = "pstate: 204000c9 (nzCv daIF +PAN -UAO -TCO -DIT -SSBS BTYPE=--)"
USER_STATE = "pstate: 20001000 (nzCv daif -PAN -UAO -TCO -DIT +SSBS BTYPE=--)"
OOPS = "Internal error: synchronous external abort: 0000000096000410 [#1] SMP"
KILLED = "devmem[54990]: unhandled exception: DABT (lower EL), ESR 0x0000000092000410, synchronous external abort in devmem[400000+1000]"
CLAIMED = "GHES GHES.0: [Hardware Error]: GHES: devmem:54990: synchronous unrecoverable error (SIGBUS)"
SERROR_PANIC = "Kernel panic - not syncing: Asynchronous SError Interrupt"


def errors(lines: list[bytes]) -> list[FoundError]:
    return [found for found in read_kernel_log(lines) if isinstance(found, FoundError)]


def only(*texts: str) -> FoundError:
    (found,) = read_kernel_log(log(*texts))
    assert isinstance(found, FoundError)
    return found


FORMS: list[tuple[str, dict[str, Any]]] = [
    (SERROR, {"type": "sei", "syndrome": 0xBE000011}),
    ("SError Interrupt on CPU11, code 0x00000000bf000002 -- SError", {"type": "sei", "syndrome": 0xBF000002}),
    ("Bad mode in Error handler detected on CPU3, code 0xbf000002 -- SError", {"type": "sei", "syndrome": 0xBF000002}),
    ("Bad mode in Error handler detected, code 0xbf000002 -- SError", {"type": "sei", "syndrome": 0xBF000002}),
    ("Unhandled 64-bit el1t error exception on CPU0, ESR 0x00000000be000000 -- SError", {"type": "sei", "syndrome": 0xBE000000}),
    (
        "CPU0: SError detected, daif=1c0, spsr=0x200000c5, mpidr=80000100, esr=bf000002",
        {"type": "sei", "syndrome": 0xBF000002, "taken_from": "kernel"},
    ),
    (
        "CPU4: SError detected, daif=140, spsr=0x20000000, mpidr=80000102, esr=bf40c000",
        {"type": "sei", "syndrome": 0xBF40C000, "taken_from": "user"},
    ),
    ("CPU2: SError: mpidr=0x80000000, esr=0xbe000000", {"type": "sei", "syndrome": 0xBE000000}),
    (
        "Synchronous External Abort: synchronous external abort (0x96000610) at 0x0000fffff1a1bfc0",
        {"type": "sea", "syndrome": 0x96000610, "fault_address": 0xFFFFF1A1BFC0, "taken_from": "kernel"},
    ),
    (
        "Unhandled fault: synchronous external abort (0x92000210) at 0x0000007f8e4a0000",
        {"type": "sea", "syndrome": 0x92000210, "fault_address": 0x7F8E4A0000, "taken_from": "user"},
    ),
    (OOPS, {"type": "sea", "syndrome": 0x96000410, "taken_from": "kernel"}),
    ("Internal error: : 96000610 [#15] SMP", {"type": "sea", "syndrome": 0x96000610, "taken_from": "kernel"}),
    (
        "Internal error: level 2 (translation table walk): 96000016 [#1] PREEMPT SMP",
        {"type": "sea", "syndrome": 0x96000016, "taken_from": "kernel"},
    ),
    (
        "Internal error: synchronous parity or ECC error: 96000018 [#1] SMP",
        {"type": "sea", "syndrome": 0x96000018, "taken_from": "kernel"},
    ),
    (KILLED, {"type": "sea", "syndrome": 0x92000410, "taken_from": "user"}),
    (CLAIMED, {"type": "sea", "syndrome": None, "taken_from": "user"}),
    (
        "kvm [812]: Unsupported FSC: EC=0x24 xFSC=0x13 ESR_EL2=0x92000013",
        {"type": "sea", "syndrome": 0x92000013, "taken_from": "guest"},
    ),
    (SERROR_PANIC, {"type": "sei", "syndrome": 0xBF000000}),
    ("Kernel panic - not syncing: synchronous external abort: Fatal exception", {"type": "sea", "syndrome": None, "taken_from": "kernel"}),
]
PREFIXES = {
    **STYLES,
    "kmsg": "3,1234,100000000,-;",
    "rfc5424": "<3>1 2026-11-22T10:00:00Z node-17 kernel - - - [  100.000000] ",
    "dmesg -T": "[Sun Nov 22 10:00:00 2026] ",
    "short-monotonic": "[  100.000000] node-17 kernel: ",
    "mail": "> [  100.000000] ",
    "console": "ttyAMA0: [  100.000000] ",
}


@pytest.mark.parametrize("before", PREFIXES.values(), ids=list(PREFIXES))
@pytest.mark.parametrize(("text", "notification"), FORMS, ids=[text[:60] for text, _ in FORMS])
def test_a_line_about_an_exception_is_an_error_without_a_record(text, notification, before):
    (found,) = read_kernel_log(log(text, before=before.format(uptime=100.0)))
    assert isinstance(found, FoundError)
    assert found.event.status_block is None
    assert {name: getattr(found.event.notification, name) for name in notification} == notification
    assert "/status_block" in {assumption.field for assumption in found.assumed}
    assert decide(found.event, resolve_policy("linux-6.12.107")).plan


@pytest.mark.parametrize(
    "text",
    [
        "Internal error: Oops: 0000000096000004 [#1] SMP",
        "Internal error: Oops - bad mode: 0 [#1] PREEMPT SMP",
        "Unhandled fault at 0xffff800011e00000",
        "Bad mode in Synchronous Abort handler detected, code 0x86000004 -- IABT (current EL)",
        "a.out[123]: unhandled exception: DABT (lower EL), ESR 0x92000007, level 3 translation fault in a.out[400000+1000]",
        "AxiosError detected, status=500, esr=no",
        "CPU: 0 PID: 1 Comm: swapper Not tainted 6.1.0 #1",
        KERNEL_STATE,
    ],
)
def test_a_line_about_another_fault_is_no_error(text):
    assert list(read_kernel_log(log(text))) == []


@pytest.mark.parametrize("quotes", ["", "> "])
@pytest.mark.parametrize(("text", "notification"), [*FORMS, (f"{OOPS} some more words", FORMS[10][1])], ids=str)
@given(width=st.integers(60, 78))
def test_mail_may_wrap_a_line_about_an_exception(text, notification, quotes, width):
    pieces = textwrap.wrap("[  100.000000] " + text, width, break_long_words=False, break_on_hyphens=False)
    task = textwrap.wrap("[  100.000001] " + TASK, width, break_long_words=False, break_on_hyphens=False)
    (found,) = read_kernel_log([f"{quotes}{piece}\n".encode() for piece in (*pieces, *task)])
    assert isinstance(found, FoundError)
    assert {name: getattr(found.event.notification, name) for name in notification} == notification
    assert found.event.host.kernel == "5.18.7-arm64"


@pytest.mark.parametrize(
    "text",
    [
        "Unhandled fault: external abort on non-linefetch (0x1018) at 0xf0a2c000",
        "ERROR:   Unhandled External Abort received on 0x80000000 from NS-EL2",
    ],
)
def test_an_abort_of_another_architecture_or_in_firmware_is_an_observation(text):
    (found,) = read_kernel_log(log(text))
    assert isinstance(found, UnmatchedAction)


def test_an_serror_and_the_panic_behind_it_are_one_error():
    found = only(
        "usb 1-1: reset",
        SERROR,
        TASK,
        "Hardware name: ODROID-M1 (DT)",
        KERNEL_STATE,
        "Call trace:",
        SERROR_PANIC,
        f"---[ end {SERROR_PANIC} ]---",
    )
    assert (found.place.line, found.event.notification.taken_from) == (2, "kernel")
    assert found.event.host.kernel == "5.18.7-arm64"
    assert found.event.host.current is not None
    assert found.event.host.current.tid == 2930
    assert found.observed is not None
    assert [action.cause for action in found.observed.panics] == ["serror"]
    decision = decide(found.event, resolve_policy("linux-5.18.7"))
    assert decision.action == "panic"
    agreement = compare(found.observed, decision, found.assumed)
    assert (agreement.verdict, [one.line for one in agreement.comparisons]) == ("agree", [7, 2])


def test_an_serror_that_the_decision_survives_differs_from_the_log():
    found = only("SError Interrupt on CPU3, code 0xbe000811 -- SError")  # UEO: restartable
    decision = decide(found.event, resolve_policy("uniform"))
    assert decision.action == "handled"
    settled = found.event.model_copy(update={"host": found.event.host.model_copy(update={"ras_extension": True})})
    assert compare(found.observed, decide(settled, resolve_policy("uniform")), found.assumed).verdict == "differ"


def test_the_processor_state_says_what_an_serror_interrupted():
    assert only(SERROR, TASK, USER_STATE).event.notification.taken_from == "user"
    assert only(SERROR, TASK, "pc : [<ffffff80>] lr : [<ffffff80>] pstate: 600001c5").event.notification.taken_from == "kernel"
    unknown = only(SERROR)
    assert "/notification/taken_from" in {assumption.field for assumption in unknown.assumed}


def test_firmwares_line_and_the_kernels_are_one_error_on_one_cpu():
    firmware = "CPU3: SError detected, daif=1c0, spsr=0x200000c5, mpidr=80000100, esr=be000011"
    assert len(errors(log(firmware, SERROR))) == 1
    assert len(errors(log(firmware.replace("CPU3", "CPU2"), SERROR))) == 2


def test_each_cpu_of_an_serror_storm_has_its_own_error():
    lines = [f"CPU{cpu}: SError detected, daif=1c0, spsr=0x200000c5, mpidr=8000010{cpu}, esr=bf000002" for cpu in range(4)]
    assert len(errors(log(*lines))) == 4


@pytest.mark.parametrize("first", ["Synchronous External Abort", "Unhandled fault"])
def test_an_abort_and_its_oops_are_one_error(first):
    abort = f"{first}: synchronous external abort (0x96000410) at 0xffffffdfd05b2bf0"
    panic = "Kernel panic - not syncing: synchronous external abort: Fatal exception"
    found = only(abort, OOPS.replace("00000000960", "960"), "Modules linked in:", TASK, panic)
    assert (found.event.notification.fault_address, found.event.notification.syndrome) == (0xFFFFFFDFD05B2BF0, 0x96000410)
    assert found.observed is not None
    assert (len(found.observed.oopses), len(found.observed.panics)) == (1, 1)
    assert compare(found.observed, decide(found.event, resolve_policy("linux-6.12.107")), found.assumed).verdict == "agree"


def test_a_panic_behind_an_oops_tells_that_oopses_panic():
    outside = only(OOPS, TASK, "Kernel panic - not syncing: synchronous external abort: Fatal exception")
    inside = only(OOPS, TASK, "Kernel panic - not syncing: synchronous external abort: Fatal exception in interrupt")
    policy = resolve_policy("linux-6.12.107")
    assert [decide(found.event, policy).action for found in (outside, inside, only(OOPS, TASK))] == ["panic", "signal", "signal"]
    assert "/host/sysctl/kernel.panic_on_oops" in {assumption.field for assumption in outside.assumed}
    agreements = [compare(found.observed, decide(found.event, policy), found.assumed) for found in (outside, inside)]
    assert [one.comparisons[0].verdict for one in agreements] == ["agree", "cannot_tell"]


def test_a_line_printed_twice_at_once_is_one_error_and_says_so():
    abort = "Synchronous External Abort: synchronous external abort (0x96000610) at 0x0000fffff1a1bfc0"
    twice = [*log(abort, before="[ 2948.857141] "), *log(abort, "Internal error: : 96000610 [#15] SMP", before="[ 2948.857146] ")]
    (found,) = errors(twice)
    assert any("printed 2 times" in phrase for phrase in found.lost)
    assert any("FnV" in phrase for phrase in found.lost)
    apart = [*log(abort, before="[ 2948.857141] "), *log(abort, before="[ 2949.857146] ")]
    assert len(errors(apart)) == 2


def test_the_lines_of_an_abort_that_no_record_accounts_for_are_one_error():
    abort = "synchronous external abort (0x92000410) at 0x0000ffff8d2a1000"
    assert len(errors(log(f"Synchronous External Abort: {abort}", f"Unhandled fault: {abort}"))) == 1


def test_an_serror_in_bad_mode_is_an_oops_of_an_old_kernel():
    bad_mode, oops = "Bad mode in Error handler detected on CPU3, code 0xbf000002 -- SError", "Internal error: Oops - bad mode: 0 [#1] SMP"
    found = only(bad_mode, oops, TASK.replace("5.18.7-arm64", "4.9.140-tegra"))
    assert found.event.host.kernel == "4.9.140-tegra"
    assert found.observed is not None
    assert (len(found.observed.oopses), len(found.observed.serrors)) == (1, 0)
    assert compare(found.observed, decide(found.event, kernel_policy("4.9.140")), found.assumed).verdict == "cannot_tell"
    unnamed = only(bad_mode, oops)
    assert unnamed.event.host.kernel == "4.14.x"
    assert "/host/kernel" in {assumption.field for assumption in unnamed.assumed}
    panicked = only(bad_mode, oops, "Kernel panic - not syncing: Fatal exception in interrupt")
    assert panicked.observed is not None
    assert [panic.cause for panic in panicked.observed.panics] == ["serror"]


def test_two_oopses_are_two_errors():
    assert len(errors(log(OOPS, OOPS.replace("#1", "#2")))) == 2


def test_a_killed_task_is_the_signal_of_its_abort():
    found = only(KILLED)
    assert found.observed is not None
    (signal,) = found.observed.signals
    assert (signal.signal, signal.pid, signal.comm) == ("SIGBUS", 54990, "devmem")
    decision = decide(found.event, resolve_policy("linux-6.12.107"))
    assert compare(found.observed, decision, found.assumed).verdict == "agree"


def test_the_callers_notification_is_not_that_of_an_exception():
    (found,) = read_kernel_log(log(SERROR), NotificationType.GSIV)
    assert isinstance(found, FoundError)
    assert found.event.notification.type == "sei"


# Beside a record


@pytest.mark.parametrize("abort", [OOPS, KILLED, CLAIMED])
def test_an_abort_right_behind_a_record_is_its_notification(abort):
    lines = [*log(*record(1, ARM)), *log(abort, TASK, before="[  100.004000] ")]
    (found,) = errors(lines)
    assert found.event.status_block is not None
    assert found.event.notification.type == "sea"
    assert found.event.notification.source_id == 9
    assert "/notification/type" not in {assumption.field for assumption in found.assumed}
    assert found.event.host.kernel == "5.18.7-arm64"
    assert found.observed is not None


def test_a_record_that_was_handled_beside_an_oops_leaves_its_notification_open():
    handled = "Memory failure: 0x1000093: recovery action for dirty LRU page: Recovered"
    (found,) = errors(log(*record(1, ARM), OOPS, handled))
    assumed = frozenset(assumption.field for assumption in found.assumed)
    assert (found.event.notification.type, "/notification/type" in assumed) == ("sea", True)
    decision = decide(found.event, resolve_policy("linux-6.12.107"), assumed)
    assert {other.when["notification.type"] for other in decision.alternatives if "notification.type" in other.when} == {"polled"}
    assert {one.verdict for one in compare(found.observed, decision, found.assumed).comparisons} == {"agree", "cannot_tell"}
    (alone,) = errors(log(*record(1, ARM), OOPS))
    assert "/notification/type" not in {assumption.field for assumption in alone.assumed}


def test_the_message_of_a_claimed_abort_may_come_before_its_record():
    (found,) = errors(log(CLAIMED, *record(1, ARM)))
    assert (found.event.notification.type, found.event.notification.taken_from) == ("sea", "user")
    old = "Synchronous External Abort: synchronous external abort (0x92000410) at 0x0000ffff8d2a1000"
    (found,) = errors(log(old, *record(1, ARM)))
    assert (found.event.notification.syndrome, found.event.notification.fault_address) == (0x92000410, 0xFFFF8D2A1000)


def test_an_abort_long_after_a_record_is_another_error():
    lines = [*log(*record(1, ARM)), *log(OOPS, before="[  104.000000] ")]
    record_error, abort = errors(lines)
    assert record_error.event.notification.type == "gsiv"
    assert abort.event.status_block is None


def test_an_oops_before_a_record_is_another_error():
    assert len(errors(log(OOPS, *record(1, ARM)))) == 2


def test_an_serror_beside_a_record_is_another_error():
    assert {str(found.event.notification.type) for found in errors(log(*record(1, ARM), SERROR))} == {"gsiv", "sei"}


def test_a_signal_that_only_the_consuming_thread_gets_means_an_abort():
    signal = "0x1000093: Sending SIGBUS to devmem:54990 due to hardware memory corruption"
    own = [*log(*record(1, ARM)), *log(signal, before="[  100.100000][T54990] ")]
    other = [*log(*record(1, ARM)), *log(signal, before="[  100.100000][ T9955] ")]
    poisoned = log(*record(1, ARM), "Memory failure: 0x1000093: already hardware poisoned", signal)
    kinds = [str(errors(lines)[0].event.notification.type) for lines in (own, other, poisoned)]
    assert kinds == ["sea", "gsiv", "sea"]


def test_all_records_of_a_source_have_one_notification_type():
    lines = log(*record(1, ARM), *record(2, ARM), CLAIMED, *record(3, (ARM[0].replace("9", "4"), *ARM[1:])))
    assert [str(found.event.notification.type) for found in errors(lines)] == ["sea", "sea", "gsiv"]


def test_the_caller_knows_the_notification_of_a_record_better():
    (found,) = (one for one in read_kernel_log(log(*record(1, ARM), OOPS), NotificationType.SDEI) if isinstance(one, FoundError))
    assert (str(found.event.notification.type), found.event.notification.syndrome) == ("sdei", None)


# In any order

SEA_CODES = (0x10, 0x14, 0x15, 0x16, 0x17, 0x18, 0x1C, 0x1F)


@st.composite
def exceptions(draw: Any, serial: int) -> list[str]:
    """Generate the lines of one exception whose syndrome has `serial` in it, so that no other has the same."""
    if draw(st.booleans()):
        syndrome, cpu = 0xBF000000 | serial, serial
        first = draw(
            st.sampled_from(
                (
                    f"SError Interrupt on CPU{cpu}, code 0x{syndrome:08x} -- SError",
                    f"SError Interrupt on CPU{cpu}, code 0x{syndrome:016x} -- SError",
                    f"Bad mode in Error handler detected on CPU{cpu}, code 0x{syndrome:08x} -- SError",
                    f"CPU{cpu}: SError detected, daif=1c0, spsr=0x200000c5, mpidr=80000100, esr={syndrome:08x}",
                )
            )
        )
        more = [SERROR_PANIC] if draw(st.booleans()) else []
        return [first, TASK.replace("CPU: 3", f"CPU: {cpu}"), *more]
    code = draw(st.sampled_from(SEA_CODES))
    if draw(st.booleans()):
        syndrome = 0x96000000 | code | serial << 14
        abort = draw(st.sampled_from(("Synchronous External Abort", "Unhandled fault")))
        lines = [
            f"{abort}: any name (0x{syndrome:08x}) at 0xffff8000{serial:08x}",
            f"Internal error: any name: {syndrome:x} [#{serial}] SMP",
        ]
        kept = draw(st.sampled_from((slice(0, 1), slice(1, 2), slice(0, 2))))
        panics = ["Kernel panic - not syncing: any name: Fatal exception"] if kept.stop == 2 and draw(st.booleans()) else []
        return [*lines[kept], *panics]
    syndrome = 0x92000000 | code | serial << 14
    return [f"a b[{serial}]: unhandled exception: DABT (lower EL), ESR 0x{syndrome:x}, any name in a b[400000+1000]"]


@given(data=st.data(), count=st.integers(1, 5), style=st.sampled_from(sorted(STYLES)))
def test_each_exception_is_one_error_whatever_is_printed_between_its_lines(data, count, style):
    before = STYLES[style].format(uptime=100.0)
    parts = [data.draw(exceptions(serial)) for serial in range(1, count + 1)]
    noise = data.draw(st.lists(st.sampled_from((*NOISE, "Call trace:", "Modules linked in:", "x29: 0 x28: 0")), max_size=10))
    lines = as_bytes([before + text for text in shuffled_together(data.draw, [*parts, noise])])
    found = errors(lines)
    syndromes = [reading.event.notification.syndrome for reading in found]
    assert len(found) == count, syndromes
    assert len(set(syndromes)) == count


@given(data=st.data(), style=st.sampled_from(["dmesg", "caller", "pstore", "syslog", "decoded"]))
def test_exceptions_and_records_far_apart_are_all_there(data, style):
    kinds = data.draw(st.lists(st.booleans(), min_size=1, max_size=6))
    texts = [record(serial, ARM) if is_record else data.draw(exceptions(serial)) for serial, is_record in enumerate(kinds, 1)]
    styled = ((STYLES[style].format(uptime=100.0 + 20 * at), lines) for at, lines in enumerate(texts))
    found = errors(as_bytes([before + text for before, lines in styled for text in lines]))
    assert [reading.event.status_block is not None for reading in found] == kinds


def test_a_panic_alone_shows_that_the_serror_was_fatal():
    (found,) = errors(log(SERROR_PANIC, "CPU: 1 PID: 10 Comm: x Not tainted 6.1.176 #1"))
    assert (found.event.notification.type, found.event.notification.syndrome) == ("sei", 0xBF000000)
    assert "/notification/syndrome" in {assumption.field for assumption in found.assumed}
    decision = decide(found.event, resolve_policy("linux-6.1.176"))
    assert (decision.action, decision.certainty) == ("panic", "certain")

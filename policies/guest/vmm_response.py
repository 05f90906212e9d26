"""Response of a VMM to one signal.

The VMM knows only the content of its signals: neither record nor syndrome reaches user space.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, Literal, NamedTuple

from ras_triage.models.decision import (
    Assumption,
    DecisionWarning,
    InjectAbort,
    InjectSerror,
    Log,
    Rationale,
    RecordGuestError,
    Signal,
    Step,
    Translate,
    VmmExits,
)
from ras_triage.models.host import Guest, GuestSource, Vm
from ras_triage.models.memslots import untag_address
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.catalog.vmms import Vmm, vmms
from ras_triage.policies.guest.guest_record import count_guest_pages, encode_guest_record, guest_pages
from ras_triage.policies.guest.injection import (
    ABORT_FROM_USER,
    GuestError,
    GuestErrorKind,
    InjectionCapabilities,
    InjectionChoice,
    InjectionMethod,
    choose_injection,
    injection_step,
)
from ras_triage.policies.guest.kvm import assumed_of_serror
from ras_triage.policies.guest.translation import slot_warnings, translate
from ras_triage.policies.pipeline.facts import Facts
from ras_triage.policies.pipeline.stage_result import EMPTY_RESULT, StageResult, merge_results, rule

MAX_RECORDS: Final = 512
"""Limit of records in the plan for one signal: a 2 MiB page in guest pages of 4 KiB. Further ones are only counted."""

ACTION_REQUIRED: Final = "BUS_MCEERR_AR"
_MEMORY_CODES: Final = (ACTION_REQUIRED, "BUS_MCEERR_AO")

_ASSUMED_VCPU: Final = "the signalled thread runs the first vCPU, or one with an unknown index where none is listed"
ASSUMED_EL0: Final = Assumption(
    "host.vms.guest", "the access came from the guest's user space (EL0); from its kernel ESR_EL1 would be 0x96000410"
)
_NO_SLOTS: Final = Assumption("host.vms.memslots", "no memory slot: none of the VMM's memory is its guest's")
_DEFAULT_GUEST: Final = Guest()
_ASSUMED_GUEST: Final = Assumption("host.vms.guest", "the guest sees the RAS extension, has 4096-byte pages and no error source")
_UNKNOWN_ADDRESS: Final = "signal address unknown: a VMM that gets an address translates it, and may report the exact page to the guest"
_OWN_ACCESS: Final = "if the VMM's own code made the access, it repeats it after its signal handler, and the second signal kills it"

_SURVIVES: Final = {
    InjectionMethod.ABORT: (
        "a Linux guest survives: it poisons the page and kills the task that accessed it; it panics if its kernel made the access"
    ),
    InjectionMethod.RECORD: "a Linux guest survives: it poisons the page before any access",
    InjectionMethod.SERROR: "a Linux guest survives: it ignores the SError",
}
_SURVIVES_WITHOUT_RECORD: Final = (
    "a Linux guest survives: the abort kills the task that accessed the page (BUS_OBJERR), and the record poisons the page; "
    "it panics if its kernel made the access"
)
_PANICS: Final = "a Linux guest panics: the error is contained to the VM"


class SignalledVm(NamedTuple):
    """One VM whose process is signalled."""

    vm: Vm
    vmm: Vmm
    taken_from: str
    policy: Policy
    facts: Facts
    pending: set[GuestSource]
    """Sources whose last record the guest has not acknowledged; grows as records are written."""

    @property
    def capabilities(self) -> InjectionCapabilities:
        guest = self.vm.guest
        return InjectionCapabilities(
            sea_source="sea" in guest.ghes,
            other_source=self.asynchronous is not None,
            host_ras=self.facts.ras_extension,
            guest_ras=guest.ras_extension,
        )

    @property
    def asynchronous(self) -> GuestSource | None:
        """Return the source for unconsumed errors: the first acknowledged one, else the first."""
        sources = [source for source in self.vm.guest.ghes if source != "sea"]
        return next((source for source in sources if source not in self.pending), sources[0] if sources else None)

    def fired_rule(self, name: str, outcome: str, **given: object) -> Rationale:
        return rule(self.policy, f"guest.{name}", outcome, self.vmm.mirrors, vm=self.vm.id, **given)


def identify_custom_vmm(case: SignalledVm) -> StageResult:
    """Return name and digest of a custom VMM: the policy's digest does not cover its behaviours."""
    if case.vmm.name in vmms():
        return EMPTY_RESULT
    fired = case.fired_rule("custom_vmm", "the behaviours of the VMM are from a VMM file", vmm=case.vmm.name, digest=case.vmm.digest)
    return StageResult(rationale=(fired,))


def vmm_response(signal: Signal, case: SignalledVm) -> StageResult:
    """Return a VMM's response to one signal."""
    does = case.vmm.behaviours
    if signal.signal == "SIGKILL":
        return _exits(case, "SIGKILL cannot be handled")
    if not does.handles_sigbus:
        return _exits(case, case.vmm.exits["signal"])
    response = _handled(signal, case)
    if case.vm.guest != _DEFAULT_GUEST:
        return response
    return response._replace(assumptions=(*response.assumptions, _ASSUMED_GUEST))


def _handled(signal: Signal, case: SignalledVm) -> StageResult:
    """Return the response of a VMM that handles SIGBUS."""
    does = case.vmm.behaviours
    required = signal.code == ACTION_REQUIRED
    if signal.code not in _MEMORY_CODES:
        return _inexact(signal, case, "elsewhere", "code", f"{signal.code} has no lost address to report to the guest")
    if required and not does.every_thread_listens and _runs_no_vcpu(signal, case):
        return _exits(case, case.vmm.exits["thread"])
    if not does.listens_without_source and "sea" not in case.vm.guest.ghes:
        return _exits(case, case.vmm.exits["source"]) if required else _ignored(case)
    if signal.address is None:
        return _with_unknown_address(signal, case, required)
    return _translated(signal, case, required)


def _runs_no_vcpu(signal: Signal, case: SignalledVm) -> bool:
    """Return whether the signalled thread is known to run no vCPU."""
    if case.taken_from == "guest" or not case.vm.vcpus:
        return False
    return all(vcpu.tid != signal.tid for vcpu in case.vm.vcpus)


def _with_unknown_address(signal: Signal, case: SignalledVm, required: bool) -> StageResult:
    if not required or not case.vmm.behaviours.falls_back_on_serror:
        return StageResult((Log(f"the VMM of {case.vm.id} translates the address of its signal"),), reasons=(_UNKNOWN_ADDRESS,))
    response = _inexact(signal, case, "unknown", "elsewhere", "the lost address is unknown")
    return response._replace(reasons=(*response.reasons, _UNKNOWN_ADDRESS))


def _translated(signal: Signal, case: SignalledVm, required: bool) -> StageResult:
    """Return the response to a signal with an address: translation, then notification of the guest."""
    lsb = max(signal.lsb or 0, case.facts.page_shift)
    translation = translate(case.vm, signal.address or 0, lsb)
    fired = case.fired_rule("translate", _range_count(translation), hva=hex(translation.hva), lsb=lsb, slots=len(case.vm.memslots))
    assumed = () if case.vm.memslots else (_NO_SLOTS,)
    start = StageResult((translation,), (fired,), (), assumed, warnings=(*slot_warnings(case.vm, translation.hva, lsb), *_tagged(signal)))
    notification = _notify_required(signal, translation, case) if required else _notify_optional(translation, case)
    return merge_results((start, notification))


def _range_count(translation: Translate) -> str:
    if not translation.ranges:
        return "no memory slot: the VMM's own memory"
    ranges = "1 guest range" if len(translation.ranges) == 1 else f"{len(translation.ranges)} guest ranges"
    missing = sum(hole.length for hole in translation.holes)
    return f"{ranges}, and {missing} bytes in no memory slot" if missing else ranges


def _tagged(signal: Signal) -> tuple[DecisionWarning, ...]:
    if signal.address is None or untag_address(signal.address) == signal.address:
        return ()
    return (DecisionWarning("address_tag_stripped", f"the top byte of {signal.address:#x} is a tag (TBI, MTE), not part of the address"),)


# Action required: the guest's access cannot be completed


def _notify_required(signal: Signal, translation: Translate, case: SignalledVm) -> StageResult:
    does = case.vmm.behaviours
    if translation.primary is None:
        return _inexact(signal, case, "elsewhere", "elsewhere", "the consumed memory is not the guest's")
    choice = choose_injection(GuestError(GuestErrorKind.RECOVERABLE, consumed=True, address="guest"), case.capabilities)
    source: GuestSource | None = "sea" if "sea" in case.vm.guest.ghes else case.asynchronous
    if choice.method is not InjectionMethod.ABORT or source is None:
        return _serror(signal, choice, case, "the guest has no error source for a record")
    if source in case.pending and not does.waits_for_acknowledgement:
        return _exits(case, case.vmm.exits["acknowledgement"])
    vcpu, assumed = _vcpu(signal, case)
    pages = guest_pages(translation, case.vm.guest.page_size)
    outcome = Log(_SURVIVES[InjectionMethod.ABORT] if source == "sea" else _SURVIVES_WITHOUT_RECORD)
    steps = (*_records(islice(pages, 1), source, case), InjectAbort(case.vm.id, vcpu, ABORT_FROM_USER), outcome)
    if does.tells_every_page:
        steps += _other_pages(pages, count_guest_pages(translation, case.vm.guest.page_size) - 1, case.asynchronous or source, case)
    words = "the guest takes an abort" if source == "sea" else f"the guest takes an abort; the record is in its {source} source"
    fired = case.fired_rule("tell", words, code=signal.code, source=source, ack_pending=list(case.vm.guest.ack_pending))
    assumptions = (*assumed, ASSUMED_EL0)
    return StageResult(steps, (fired,), () if does.outlives_its_own_access else _own_access(case), assumptions)


def _own_access(case: SignalledVm) -> tuple[str, ...]:
    return (_OWN_ACCESS,) if case.taken_from == "user" else ()


def _vcpu(signal: Signal, case: SignalledVm) -> tuple[int | None, tuple[Assumption, ...]]:
    """Return the index of the vCPU that a thread runs, else of the first, and the assumption for that."""
    vcpus = case.vm.vcpus
    for vcpu in vcpus:
        if vcpu.tid == signal.tid:
            return vcpu.index, ()
    return (vcpus[0].index if vcpus else None), (Assumption("host.vms.vcpus", _ASSUMED_VCPU),)


# Action optional: nothing has consumed the lost memory


def _notify_optional(translation: Translate, case: SignalledVm) -> StageResult:
    vm = case.vm
    if not translation.ranges:
        fired = case.fired_rule("tell", "no notification: the lost memory is not the guest's", code="BUS_MCEERR_AO")
        return StageResult((Log(f"the VMM of {vm.id} loses its own memory, none of its guest's"),), (fired,))
    if not case.vmm.behaviours.tells_action_optional:
        fired = case.fired_rule("tell", "no notification until the guest accesses the page", code="BUS_MCEERR_AO")
        recorded = f"{case.vmm.name} records the page of {vm.id}: it is replaced at reset, and blocks migration until then"
        return StageResult((Log(recorded),), (fired,))
    choice = choose_injection(GuestError(GuestErrorKind.RECOVERABLE, address="guest"), case.capabilities)
    source = case.asynchronous
    if choice.method is InjectionMethod.RECORD and source is not None:
        pages = guest_pages(translation, vm.guest.page_size)
        fired = case.fired_rule("tell", "the guest gets a record", code="BUS_MCEERR_AO", source=source)
        steps = _other_pages(pages, count_guest_pages(translation, vm.guest.page_size), source, case)
        return StageResult((*steps, Log(_SURVIVES[InjectionMethod.RECORD])), (fired,))
    if choice.method is InjectionMethod.SERROR:
        step = _injection(choice, vm.vcpus[0].index if vm.vcpus else None, case)
        fired = case.fired_rule("tell", "the guest has no source for a record: virtual SError that it survives", code="BUS_MCEERR_AO")
        return StageResult((step, Log(_outcome(choice))), (fired,), (), assumed_of_serror(case.policy, case.facts, case.vm))
    fired = case.fired_rule(
        "tell", "no notification: the guest has no source for a record, and would not survive a virtual SError", code="BUS_MCEERR_AO"
    )
    return StageResult((Log(f"the VMM records the page of {vm.id}: its guest is notified when it accesses the page"),), (fired,))


def _ignored(case: SignalledVm) -> StageResult:
    fired = case.fired_rule("tell", "ignored: the guest has no SEA source", code="BUS_MCEERR_AO")
    return StageResult((Log(f"{case.vmm.name} ignores the signal and does not record the page"),), (fired,))


# Records


def _other_pages(pages: Iterator[int], count: int, source: GuestSource, case: SignalledVm) -> tuple[Step, ...]:
    """Return records for pages that the guest did not access."""
    steps = _records(islice(pages, MAX_RECORDS), source, case)
    if count > MAX_RECORDS:
        steps += (Log(f"records for {count - MAX_RECORDS} more guest pages of {case.vm.id}"),)
    return steps


def _records(pages: Iterable[int], source: GuestSource, case: SignalledVm) -> tuple[Step, ...]:
    """Return one record for each page, after a note where the VMM waits for the guest's acknowledgement."""
    records = [RecordGuestError(case.vm.id, source, encode_guest_record(page), page) for page in pages]
    if not records:
        return ()
    steps: tuple[Step, ...] = tuple(records)
    if source in case.pending:
        steps = (Log(f"the VMM waits until the guest acknowledges the last record in its {source} source"), *steps)
    elif len(records) > 1:
        steps = (Log(f"the VMM waits for the guest's acknowledgement after each record in its {source} source"), *steps)
    case.pending.add(source)
    return steps


# Without an exact address


def _inexact(signal: Signal, case: SignalledVm, address: Literal["elsewhere", "unknown"], cause: str, why: str) -> StageResult:
    """Return the response where the guest cannot continue and no record can say why: a virtual SError, or the VMM's exit."""
    if not case.vmm.behaviours.falls_back_on_serror:
        return _exits(case, case.vmm.exits[cause])
    return _serror(
        signal, choose_injection(GuestError(GuestErrorKind.RECOVERABLE, consumed=True, address=address), case.capabilities), case, why
    )


def _serror(signal: Signal, choice: InjectionChoice, case: SignalledVm, why: str) -> StageResult:
    vcpu, assumed = _vcpu(signal, case)
    fired = case.fired_rule(
        "tell", f"{why}: virtual SError", code=signal.code, host_ras=case.capabilities.host_ras, guest_ras=case.capabilities.guest_ras
    )
    assumptions = (*assumed, *assumed_of_serror(case.policy, case.facts, case.vm))
    return StageResult((_injection(choice, vcpu, case), Log(_outcome(choice))), (fired,), (), assumptions)


def _injection(choice: InjectionChoice, vcpu: int | None, case: SignalledVm) -> InjectSerror:
    return injection_step(case.vm, vcpu, choice.iss, case.policy, host_ras=case.facts.ras_extension)


def _outcome(choice: InjectionChoice) -> str:
    return _SURVIVES[choice.method] if choice.survives else _PANICS


def _exits(case: SignalledVm, why: str) -> StageResult:
    return StageResult((VmmExits(case.vm.id, why),), (case.fired_rule("vmm", "the VMM exits, and its guest with it", vmm=case.vmm.name),))

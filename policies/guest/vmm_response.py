"""What a VMM does with one signal.

The VMM knows what its signals say and no more: neither record nor syndrome reaches user space.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, Literal, NamedTuple

from ras_triage.models.decision import (
    Assumption,
    DecisionWarning,
    InjectAbort,
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
from ras_triage.policies.catalog.vmms import Vmm
from ras_triage.policies.guest.guest_record import count_guest_pages, encode_guest_record, guest_pages
from ras_triage.policies.guest.injection import (
    ABORT_FROM_USER,
    GuestError,
    GuestErrorKind,
    InjectionChoice,
    InjectionMeans,
    InjectionMethod,
    choose_injection,
    injection_step,
)
from ras_triage.policies.guest.kvm import assumed_of_serror
from ras_triage.policies.guest.translation import slot_warnings, translate
from ras_triage.policies.pipeline.facts import Facts
from ras_triage.policies.pipeline.stage_result import StageResult, merge_results, rule

MAX_RECORDS: Final = 512
"""Records that one signal's plan spells out: a 2 MiB page in guest pages of 4 KiB. The rest is counted."""

ACTION_REQUIRED: Final = "BUS_MCEERR_AR"
_MEMORY_CODES: Final = (ACTION_REQUIRED, "BUS_MCEERR_AO")

_ASSUMED_VCPU: Final = "the signalled thread runs the first vCPU, or one that is not known by number where none is listed"
ASSUMED_USER: Final = Assumption(
    "host.vms.guest", "the access came from the guest's user space (EL0); from its kernel ESR_EL1 would be 0x96000410"
)
_NO_SLOTS: Final = Assumption("host.vms.memslots", "no slot is listed: nothing that the VMM maps is its guest's")
_PLAIN_GUEST: Final = Guest()
_ASSUMED_GUEST: Final = Assumption("host.vms.guest", "the guest sees the RAS extension, has pages of 4096 bytes, and no error source")
_UNKNOWN_ADDRESS: Final = (
    "the address of the VMM's signal is not known here: a VMM that gets one translates it, and may be able to tell the guest exactly"
)
_OWN_ACCESS: Final = "if the VMM's own code made the access, it makes it again when its handler returns, and dies of the second signal"

_SURVIVES: Final = {
    InjectionMethod.ABORT: (
        "a Linux guest survives: it gives the page up and kills the task that touched it; an access of its own kernel ends it"
    ),
    InjectionMethod.RECORD: "a Linux guest survives: it gives the page up before anybody touches it",
    InjectionMethod.SERROR: "a Linux guest survives: it goes on without a word",
}
_SURVIVES_WITHOUT_RECORD: Final = (
    "a Linux guest survives: the abort kills the task that touched the page (BUS_OBJERR), and the record makes it give the page up; "
    "an access of its own kernel ends it"
)
_PANICS: Final = "a Linux guest panics: the VM is the smallest context that surely holds the error"


class SignalledVm(NamedTuple):
    """One VM whose process is signalled."""

    vm: Vm
    vmm: Vmm
    taken_from: str
    policy: Policy
    facts: Facts
    pending: set[GuestSource]
    """The sources whose last record the guest has not acknowledged; grows as records are written."""

    @property
    def means(self) -> InjectionMeans:
        guest = self.vm.guest
        return InjectionMeans("sea" in guest.ghes, self.asynchronous is not None, self.facts.ras_extension, guest.ras_extension)

    @property
    def asynchronous(self) -> GuestSource | None:
        """The source for what nobody has consumed: the first given, an acknowledged one if there is any."""
        sources = [source for source in self.vm.guest.ghes if source != "sea"]
        return next((source for source in sources if source not in self.pending), sources[0] if sources else None)

    def concludes(self, name: str, outcome: str, **given: object) -> Rationale:
        return rule(self.policy, f"guest.{name}", outcome, self.vmm.mirrors, vm=self.vm.id, **given)


def vmm_response(signal: Signal, case: SignalledVm) -> StageResult:
    """What a VMM does with one signal."""
    does = case.vmm.behaviours
    if signal.signal == "SIGKILL":
        return _dies(case, "no process outlives SIGKILL")
    if not does.handles_sigbus:
        return _dies(case, case.vmm.exits["signal"])
    found = _handled(signal, case)
    return found._replace(assumptions=(*found.assumptions, _ASSUMED_GUEST)) if case.vm.guest == _PLAIN_GUEST else found


def _handled(signal: Signal, case: SignalledVm) -> StageResult:
    """What a VMM that handles SIGBUS does with one."""
    does = case.vmm.behaviours
    required = signal.code == ACTION_REQUIRED
    if signal.code not in _MEMORY_CODES:
        return _inexact(signal, case, "elsewhere", "code", f"{signal.code} names no memory that could be told to the guest")
    if required and not does.every_thread_listens and _is_no_vcpu(signal, case):
        return _dies(case, case.vmm.exits["thread"])
    if not does.listens_without_source and "sea" not in case.vm.guest.ghes:
        return _dies(case, case.vmm.exits["source"]) if required else _ignored(case)
    if signal.address is None:
        return _with_unknown_address(signal, case, required)
    return _translated(signal, case, required)


def _is_no_vcpu(signal: Signal, case: SignalledVm) -> bool:
    """Whether the signalled thread is known to run no vCPU."""
    if case.taken_from == "guest" or not case.vm.vcpus:
        return False
    return all(vcpu.tid != signal.tid for vcpu in case.vm.vcpus)


def _with_unknown_address(signal: Signal, case: SignalledVm, required: bool) -> StageResult:
    if not required or not case.vmm.behaviours.falls_back_on_serror:
        return StageResult((Log(f"the VMM of {case.vm.id} looks up the address of its signal"),), reasons=(_UNKNOWN_ADDRESS,))
    told = _inexact(signal, case, "unknown", "elsewhere", "the lost address is not known")
    return told._replace(reasons=(*told.reasons, _UNKNOWN_ADDRESS))


def _translated(signal: Signal, case: SignalledVm, required: bool) -> StageResult:
    """The VMM knows an address: what of the guest is there, and what the guest is told."""
    lsb = max(signal.lsb or 0, case.facts.page_shift)
    found = translate(case.vm, signal.address or 0, lsb)
    fired = case.concludes("translate", _words(found), hva=hex(found.hva), lsb=lsb, slots=len(case.vm.memslots))
    assumed = () if case.vm.memslots else (_NO_SLOTS,)
    start = StageResult((found,), (fired,), (), assumed, warnings=(*slot_warnings(case.vm, found.hva, lsb), *_tagged(signal)))
    told = _tell_required(signal, found, case) if required else _tell_optional(found, case)
    return merge_results((start, told))


def _words(found: Translate) -> str:
    if not found.ranges:
        return "the VMM's own memory: no slot holds it"
    ranges = "1 guest range" if len(found.ranges) == 1 else f"{len(found.ranges)} guest ranges"
    missing = sum(hole.length for hole in found.holes)
    return f"{ranges}, and {missing} bytes in no slot" if missing else ranges


def _tagged(signal: Signal) -> tuple[DecisionWarning, ...]:
    if signal.address is None or untag_address(signal.address) == signal.address:
        return ()
    return (DecisionWarning("address_tag_stripped", f"the top byte of {signal.address:#x} is a tag (TBI, MTE) and no part of the address"),)


# Action required: the guest's access cannot be completed


def _tell_required(signal: Signal, found: Translate, case: SignalledVm) -> StageResult:
    does = case.vmm.behaviours
    if found.primary is None:
        return _inexact(signal, case, "elsewhere", "elsewhere", "consumed on the guest's behalf, in memory that is not the guest's")
    telling = choose_injection(GuestError(GuestErrorKind.RECOVERABLE, consumed=True, address="guest"), case.means)
    source: GuestSource | None = "sea" if "sea" in case.vm.guest.ghes else case.asynchronous
    if telling.way is not InjectionMethod.ABORT or source is None:
        return _serror(signal, telling, case, "the guest has no error source that could name the page")
    if source in case.pending and not does.waits_for_acknowledgement:
        return _dies(case, case.vmm.exits["acknowledgement"])
    vcpu, assumed = _vcpu(signal, case)
    pages = guest_pages(found, case.vm.guest.page_size)
    outcome = Log(_SURVIVES[InjectionMethod.ABORT] if source == "sea" else _SURVIVES_WITHOUT_RECORD)
    steps = (*_records(islice(pages, 1), source, case), InjectAbort(case.vm.id, vcpu, ABORT_FROM_USER), outcome)
    if does.tells_every_page:
        steps += _other_pages(pages, count_guest_pages(found, case.vm.guest.page_size) - 1, case.asynchronous or source, case)
    words = "the guest takes an abort" if source == "sea" else "the guest takes an abort, and finds the record in another source"
    fired = case.concludes("tell", words, code=signal.code, source=source, ack_pending=list(case.vm.guest.ack_pending))
    assumptions = (*assumed, ASSUMED_USER)
    return StageResult(steps, (fired,), () if does.outlives_its_own_access else _own_access(case), assumptions)


def _own_access(case: SignalledVm) -> tuple[str, ...]:
    return (_OWN_ACCESS,) if case.taken_from == "user" else ()


def _vcpu(signal: Signal, case: SignalledVm) -> tuple[int | None, tuple[Assumption, ...]]:
    """The vCPU that a thread runs; where nobody told, the first."""
    vcpus = case.vm.vcpus
    for vcpu in vcpus:
        if vcpu.tid == signal.tid:
            return vcpu.index, ()
    return (vcpus[0].index if vcpus else None), (Assumption("host.vms.vcpus", _ASSUMED_VCPU),)


# Action optional: nobody has used what is lost


def _tell_optional(found: Translate, case: SignalledVm) -> StageResult:
    vm = case.vm
    if not found.ranges:
        fired = case.concludes("tell", "the guest is not concerned", code="BUS_MCEERR_AO")
        return StageResult((Log(f"the VMM of {vm.id} loses memory of its own, and none of its guest's"),), (fired,))
    if not case.vmm.behaviours.tells_action_optional:
        fired = case.concludes("tell", "the guest is not told before it touches the page", code="BUS_MCEERR_AO")
        kept = f"{case.vmm.name} remembers the page of {vm.id}: it is replaced at reset, and blocks migration until then"
        return StageResult((Log(kept),), (fired,))
    telling = choose_injection(GuestError(GuestErrorKind.RECOVERABLE, address="guest"), case.means)
    source = case.asynchronous
    if telling.way is InjectionMethod.RECORD and source is not None:
        pages = guest_pages(found, vm.guest.page_size)
        fired = case.concludes("tell", "the guest finds a record", code="BUS_MCEERR_AO", source=source)
        steps = _other_pages(pages, count_guest_pages(found, vm.guest.page_size), source, case)
        return StageResult((*steps, Log(_SURVIVES[InjectionMethod.RECORD])), (fired,))
    if telling.way is InjectionMethod.SERROR:
        step = injection_step(vm.id, vm.vcpus[0].index if vm.vcpus else None, telling, case.means)
        fired = case.concludes("tell", "the guest has no source for a record: it gets an SError that lets it go on", code="BUS_MCEERR_AO")
        return StageResult((step, Log(_outcome(telling))), (fired,), (), assumed_of_serror(case.policy, case.facts))
    fired = case.concludes("tell", "the guest has no source for a record, and no SError that would let it go on", code="BUS_MCEERR_AO")
    return StageResult((Log(f"the VMM remembers the page of {vm.id}: its guest is told when it touches it"),), (fired,))


def _ignored(case: SignalledVm) -> StageResult:
    fired = case.concludes("tell", "ignored: the guest has no SEA source to write to", code="BUS_MCEERR_AO")
    return StageResult((Log(f"{case.vmm.name} ignores the signal, and does not remember the page"),), (fired,))


# Records


def _other_pages(pages: Iterator[int], count: int, source: GuestSource, case: SignalledVm) -> tuple[Step, ...]:
    """Records for pages that the guest did not touch."""
    steps = _records(islice(pages, MAX_RECORDS), source, case)
    if count > MAX_RECORDS:
        steps += (Log(f"{count - MAX_RECORDS} more guest pages of {case.vm.id} are told in the same way"),)
    return steps


def _records(pages: Iterable[int], source: GuestSource, case: SignalledVm) -> tuple[Step, ...]:
    """One record for each page, and word of the wait for the guest where there is one."""
    records = [RecordGuestError(case.vm.id, source, encode_guest_record(page), page) for page in pages]
    if not records:
        return ()
    steps: tuple[Step, ...] = tuple(records)
    if source in case.pending:
        steps = (Log(f"the guest has yet to acknowledge the last record of its {source} source: the next is written when it has"), *steps)
    elif len(records) > 1:
        steps = (Log(f"the guest acknowledges each record of its {source} source before the next is written"), *steps)
    case.pending.add(source)
    return steps


# What cannot be told exactly


def _inexact(signal: Signal, case: SignalledVm, address: Literal["elsewhere", "unknown"], cause: str, why: str) -> StageResult:
    """The guest cannot go on and cannot be told why: a virtual SError, or the VMM's own end."""
    if not case.vmm.behaviours.falls_back_on_serror:
        return _dies(case, case.vmm.exits[cause])
    return _serror(signal, choose_injection(GuestError(GuestErrorKind.RECOVERABLE, consumed=True, address=address), case.means), case, why)


def _serror(signal: Signal, telling: InjectionChoice, case: SignalledVm, why: str) -> StageResult:
    vcpu, assumed = _vcpu(signal, case)
    fired = case.concludes("tell", f"{why}: virtual SError", code=signal.code, host_ras=case.means.host_ras, guest_ras=case.means.guest_ras)
    assumptions = (*assumed, *assumed_of_serror(case.policy, case.facts))
    return StageResult((injection_step(case.vm.id, vcpu, telling, case.means), Log(_outcome(telling))), (fired,), (), assumptions)


def _outcome(telling: InjectionChoice) -> str:
    return _SURVIVES[telling.way] if telling.survives else _PANICS


def _dies(case: SignalledVm, why: str) -> StageResult:
    return StageResult((VmmExits(case.vm.id, why),), (case.concludes("vmm", "the VMM dies, and its guest with it", vmm=case.vmm.name),))

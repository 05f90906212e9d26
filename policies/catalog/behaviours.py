"""Behaviour flags of kernels.

A rule tests a flag, never a release. False is always the behaviour of the oldest supported kernel. `ledger.toml` lists the releases that
set a flag, and a policy file may set any of them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Behaviours:
    """A kernel's behaviours where kernels differ. `ledger.toml` and `principles.toml` have each flag's meaning."""

    # GHES driver
    arm_errors_handled: bool = False
    sea_action_required: bool = False
    sea_kills_when_nothing_queued: bool = False
    queued_accumulates: bool = False
    action_required_in_task_work: bool = False
    pfn_left_to_memory_failure: bool = False
    arm_error_type_bitmask: bool = False
    arm_section_bounded: bool = False
    arm_section_bounded_exactly: bool = False
    duplicate_sea_unclaimed: bool = False
    sea_precheck: bool = False
    panic_honours_timeout: bool = False
    ghes_panic_taints: bool = False
    block_limited_to_buffer: bool = False
    aer_needs_unmasked_status: bool = False
    aer_without_state_oopses: bool = False
    aer_integrated_endpoint_recovered: bool = False
    cxl_events_dispatched: bool = False
    cxl_protocol_errors_dispatched: bool = False
    sdei_always_built: bool = False

    # arm64 exceptions and KVM
    exception_taints: bool = False
    walk_level_minus_1_is_sea: bool = False
    abort_address_untagged: bool = False
    kvm_runs_task_work: bool = False
    kvm_walk_level_minus_1_is_sea: bool = False
    kvm_serror_emulated: bool = False
    kvm_serror_entry_without_il: bool = False
    kvm_ext_dabt_first: bool = False
    kvm_sea_to_user: bool = False
    kvm_abort_syndrome_sign_extended: bool = False
    kvm_abort_il_always_set: bool = False

    # memory failure
    free_page_taken_at_once: bool = False
    free_huge_page_recovered: bool = False
    pcp_drained: bool = False
    unhandlable_not_pinned: bool = False
    unhandlable_refused_early: bool = False
    get_hwpoison_page_type: bool = False
    kernel_owned_type: bool = False
    extra_references_tolerated: bool = False
    unmap_failure_kills_clean: bool = False
    unmap_failure_sends_sigbus: bool = False
    ksm_handled: bool = False
    thp_split_failure_kills: bool = False
    thp_split_reads_subpages: bool = False
    file_thp_handled: bool = False
    gigantic_hugetlb_handled: bool = False
    hugetlb_signal_names_base_page: bool = False
    hugetlb_tail_not_collected: bool = False
    shmem_page_kept: bool = False
    swapped_in_page_is_dirty: bool = False
    hugetlbfs_page_kept: bool = False
    dax_early_kill: bool = False
    action_optional_to_others: bool = False
    kill_accessing_process: bool = False
    kill_accessing_absent_is_fine: bool = False
    kill_accessing_names_base_page: bool = False
    second_hugetlb_error_is_huge_page: bool = False
    already_poisoned_reported: bool = False
    already_poisoned_page_type: bool = False
    panic_on_unrecoverable_sysctl: bool = False
    soft_offline_sysctl: bool = False
    soft_offline_kernel_page_errno: bool = False
    poisoned_hugetlb_not_migratable: bool = False
    ghes_assist_sources_skipped: bool = False

    # principles that no kernel has yet
    reads_every_notification: bool = False
    abort_in_kernel_reads_record: bool = False
    corrected_never_signals: bool = False
    worst_section_panics: bool = False
    duplicates_only_unprinted: bool = False
    walk_abort_is_bus_error: bool = False
    serror_ends_context: bool = False
    guest_access_signals_alike: bool = False
    arm_error_types_heeded: bool = False


FLAGS: tuple[str, ...] = tuple(field.name for field in fields(Behaviours))
"""Every flag, in the order of all listings."""

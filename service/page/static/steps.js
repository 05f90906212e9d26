// Texts for the steps of a plan, as the command line words them.

import { bytes, words } from "./format.js";

const thread = (step) => (step.tid === null ? "the interrupted thread" : `thread ${step.tid}`);
const vcpu = (step) => `${step.vcpu === null ? "the interrupted vCPU" : `vCPU ${step.vcpu}`}${step.vm === null ? "" : ` of ${step.vm}`}`;
const returns = (step) => (step.returns ? `, returns ${step.returns}` : "");

const TEXTS = {
  log: (step) => step.what,
  reject: (step) => `rejected: ${step.why}`,
  queue_memory_failure: (step) =>
    `page frame ${step.pfn} is queued for ${step.context === "kworker" ? "a kernel worker" : "the interrupted thread, before it returns to user space"}: ${step.flags.map(words).join(", ") || "action optional"}`,
  memory_failure: (step) => `memory failure on page frame ${step.pfn}: ${[step.page_type ?? "no message", step.result].filter(Boolean).join(": ")}${returns(step)}`,
  soft_offline: (step) => `soft offline of page frame ${step.pfn}: ${step.result}${returns(step)}`,
  signal: (step) =>
    `${step.signal} (${step.code}) to ${thread(step)}${step.pid === null ? "" : ` of process ${step.pid}`}: ${step.address === null ? "no address" : `address ${step.address}`}${step.lsb === null ? "" : `, ${bytes(2 ** step.lsb)} lost`}${step.forced ? ", forced" : ""}`,
  oops: (step) => `kernel oops in the context of ${step.context === "kworker" ? "a kernel worker, which ends" : step.pid === null ? "an unknown thread" : `process ${step.pid}`}: ${step.cause}`,
  recover_pcie: (step) => `PCIe device ${step.device} (${step.severity}) ${step.recovers ? "is handed to AER recovery" : "is only reported"}`,
  report_cxl: (step) => `CXL: ${step.event}`,
  acknowledge: (step) => `the record is acknowledged to firmware ${words(step.when)}`,
  translate: (step) => `host address ${step.hva} is ${step.ranges.length ? "" : "not "}guest memory of ${step.vm}`,
  record_guest_error: (step) => `a record for ${step.ipa} is written to the ${step.notification} source of ${step.vm}`,
  inject_abort: (step) => `${vcpu(step)} takes an abort: its guest sees ESR_EL1 ${step.guest_esr}`,
  inject_serror: (step) => `virtual SError for ${vcpu(step)} ${step.has_esr ? `with VSESR_EL2 ${step.vsesr_el2}` : "without a syndrome"}: its guest sees ESR_EL1 ${step.guest_esr}`,
  vmm_exits: (step) => `${step.vm} ends because its VMM exits: ${step.why}`,
  exit_to_vmm: (step) => `${vcpu(step)} leaves KVM_RUN with ${step.exit}`,
  panic: (step) => `kernel panic, the machine ${step.reboots_after_s === null ? "stays down" : `reboots after ${step.reboots_after_s} s`}: “${step.message}”`,
};

/** Return one step of a plan as a line of text. */
export const describeStep = (step) => TEXTS[step.kind]?.(step) ?? words(step.kind);

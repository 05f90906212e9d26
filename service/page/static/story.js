// A decision as a story: the way through the stages, the plan, and the reasons.

import { h } from "./dom.js";
import { drawAddresses } from "./drawing.js";
import { words } from "./format.js";
import { badge, empty, href, panel, table } from "./parts.js";
import { describeStep } from "./steps.js";

const STAGES = ["admit", "read", "severity", "sections", "memory", "signals", "guest"];

/** Return a JSON value as text. */
export function valueText(value) {
  if (Array.isArray(value)) return value.map(valueText).join(", ") || "none";
  if (value === null || value === undefined) return "none";
  if (typeof value === "object") return Object.entries(value).map(([name, member]) => `${words(name)} ${valueText(member)}`).join(", ");
  return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
}

/** Return action, certainty and policy in one line. */
export const headline = (decision) =>
  h(
    "div",
    { class: "headline" },
    h("span", { class: "verdict" }, badge(decision.action)),
    h("span", {}, decision.certainty === "certain" ? "certain" : "depends on what the event does not say"),
    h("span", {}, "under ", h("a", { href: href("policies", { name: decision.policy.name }) }, decision.policy.name)),
  );

/** Return the stages in order with what each concluded; one that was not reached says so. */
export function stages(decision) {
  const other = decision.rationale.map((one) => one.stage).filter((stage) => !STAGES.includes(stage));
  const item = (stage) => {
    const rules = decision.rationale.filter((one) => one.stage === stage);
    return h(
      "li",
      { class: rules.length ? "stage" : "stage skipped" },
      h("h3", {}, words(stage)),
      rules.length === 0 ? h("p", { class: "quiet" }, "not reached") : h("ul", {}, rules.map((rule) => h("li", {}, rule.outcome))),
    );
  };
  return h("ol", { class: "stages", "aria-label": "Stages" }, [...STAGES, ...new Set(other)].map(item));
}

/** Return the steps of a plan in order. */
export const steps = (plan) =>
  plan.length === 0 ? empty("Nothing happens") : h("ol", { class: "steps" }, plan.map((step) => h("li", {}, h("span", { class: "kind" }, words(step.kind)), h("div", { class: "grow" }, h("p", {}, describeStep(step)), drawAddresses(step)))));

const list = (items) => h("ul", { class: "bullets" }, items.map((item) => h("li", {}, item)));

const given = (values) => h("dl", { class: "given" }, Object.entries(values).map(([name, value]) => h("div", {}, h("dt", {}, words(name)), h("dd", {}, valueText(value)))));

/** Return the parts of a decision below its headline. */
export function story(decision) {
  const reasons = [
    { name: "Rule", className: "mono", cell: (one) => one.rule },
    { name: "Outcome", className: "wrap", cell: (one) => one.outcome },
    { name: "Because of", className: "wrap", cell: (one) => given(one.given) },
    { name: "Kernel function", className: "mono", cell: (one) => (one.mirrors ? `${one.mirrors}()` : "–") },
    { name: "Since", cell: (one) => one.since ?? "–" },
  ];
  return [
    decision.reasons?.length > 0 && panel("Depends on", { className: "caution" }, list(decision.reasons)),
    decision.warnings.length > 0 && panel("Warnings", { className: "caution" }, list(decision.warnings.map((one) => one.detail))),
    panel("Way through the stages", {}, stages(decision)),
    panel("What happens", {}, steps(decision.plan)),
    panel("Next access to the page", {}, decision.next_access.length ? steps(decision.next_access) : h("p", { class: "quiet" }, "No signal.")),
    decision.alternatives.length > 0 && panel("Otherwise", {}, decision.alternatives.map(alternative)),
    panel("Reasons", {}, table("Reasons", reasons, decision.rationale, { class: "reasons" })),
    decision.assumptions.length > 0 &&
      panel("Assumed, because the event does not say", {}, table("Assumptions", [{ name: "Fact", className: "mono", cell: (one) => one.fact }, { name: "Assumed", className: "wrap", cell: (one) => valueText(one.assumed) }], decision.assumptions)),
  ].filter(Boolean);
}

const alternative = (one) =>
  h("details", { class: "alternative" }, h("summary", {}, badge(one.action), " if ", Object.entries(one.when).map(([name, value]) => `${words(name)} is ${valueText(value)}`).join(" and ")), steps(one.plan));

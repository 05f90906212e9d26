// Policies: which kernel has which behaviour and how that is known, the difference of two, and which release changed what.

import { get } from "./api.js";
import { h } from "./dom.js";
import { counted, words } from "./format.js";
import { empty, facts, field, heading, href, loaded, panel, table } from "./parts.js";

export const title = "Policies";

/** Show one policy or the difference of two, which are in the URL, and the ledger. */
export function show(main, { query }, signal) {
  const list = get("v1/policies", {}, signal);
  const [name, other] = [query.get("name"), query.get("compare")];
  const names = h("datalist", { id: "names" });
  list.then((found) => names.replaceChildren(...found.policies.map((policy) => h("option", { value: policy.name }))), () => {});
  const chosen = loaded(async () => {
    const a = name ?? (await list).default;
    return other ? get(`v1/policies/${encodeURIComponent(a)}/diff/${encodeURIComponent(other)}`, {}, signal) : get(`v1/policies/${encodeURIComponent(a)}`, {}, signal);
  }, other ? difference : flags);
  main.replaceChildren(
    heading(title),
    names,
    h(
      "form",
      {
        class: "filters",
        "aria-label": "Policies to show",
        onsubmit: (event) => {
          event.preventDefault();
          location.hash = href("policies", Object.fromEntries(new FormData(event.currentTarget)));
        },
      },
      field("Policy", h("input", { name: "name", value: name ?? "", list: "names", placeholder: "linux-6.12.107", spellcheck: "false" })),
      field("Compare with", h("input", { name: "compare", value: other ?? "", list: "names", placeholder: "linux-7.3.4", spellcheck: "false" })),
      h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Show")),
    ),
    panel(other ? "Differences" : "Behaviours", {}, chosen),
    panel("Releases that changed a behaviour", {}, loaded(() => list, timeline)),
    panel("VMMs", {}, loaded(() => list, vmms)),
  );
}

const yes = (value) => h("span", { class: value ? "yes" : "no" }, value ? "✓ yes" : "– no");
const kernelFunction = (one) => (one.mirrors ? `${one.mirrors}()` : "–");

function flags(policy) {
  const columns = [
    { name: "Behaviour", className: "wrap", cell: (one) => [h("div", {}, one.summary), h("div", { class: "mono quiet" }, one.flag)] },
    { name: "Has it", cell: (one) => yes(one.value) },
    { name: "Since", cell: (one) => one.since ?? "–" },
    { name: "Known", cell: (one) => words(one.evidence ?? "–") },
    { name: "Kernel function", className: "mono", cell: kernelFunction },
  ];
  return [
    facts([
      ["Policy", policy.name],
      ["Release", policy.release],
      ["Digest", h("span", { class: "mono cut" }, policy.digest)],
    ]),
    ...policy.notes.map((note) => h("p", { class: "note" }, note)),
    table(`Behaviours of ${policy.name}`, columns, policy.flags),
  ];
}

function difference({ a, b, differs }) {
  if (differs.length === 0) return empty(`${a.name} and ${b.name} decide alike`, "They have the same behaviours.");
  const columns = [
    { name: "Behaviour", className: "wrap", cell: (one) => [h("div", {}, one.summary), h("div", { class: "mono quiet" }, one.flag)] },
    { name: a.name, cell: (one) => yes(one.a) },
    { name: b.name, cell: (one) => yes(one.b) },
    { name: "Since", cell: (one) => one.since ?? "–" },
    { name: "Kernel function", className: "mono", cell: kernelFunction },
  ];
  return [h("p", {}, counted(differs.length, "behaviour differs", "behaviours differ")), table(`Differences of ${a.name} and ${b.name}`, columns, differs)];
}

/** Return the ledger: for each series its releases that set or cleared a flag, in order. */
function timeline({ policies }) {
  const series = new Map();
  for (const policy of policies.filter((one) => one.brings.length + one.drops.length > 0)) {
    const name = policy.release.split(".").slice(0, 2).join(".");
    series.set(name, [...(series.get(name) ?? []), policy]);
  }
  const change = (sign, names) => names.map((flag) => h("li", {}, h("span", { class: "strong", "aria-hidden": "true" }, sign), h("span", { class: "hidden" }, sign === "+" ? "brings " : "drops "), words(flag)));
  return h(
    "ol",
    { class: "timeline" },
    [...series].map(([name, releases]) =>
      h("li", {}, h("h3", {}, name), h("ol", { class: "releases" }, releases.map((policy) => h("li", {}, h("a", { href: href("policies", { name: policy.name }) }, policy.release), h("ul", {}, change("+", policy.brings), change("−", policy.drops)))))),
    ),
  );
}

const vmms = ({ vmms: found }) =>
  table("VMMs", [{ name: "VMM", cell: (one) => one.name }, { name: "What it is", className: "wrap", cell: (one) => one.summary }, { name: "Behaviours", className: "wrap", cell: (one) => one.flags.map(words).join(", ") || "none" }], found);

// Hosts: stored facts of a source with their versions, and the pages that decisions poisoned.

import { get, request } from "./api.js";
import { h } from "./dom.js";
import { bytes, counted, number, time } from "./format.js";
import { empty, facts, failure, field, fill, heading, href, loaded, panel, table } from "./parts.js";

export const title = "Hosts";

const SIZE = 50;
const SHOWN_VERSIONS = 10;

/** Show the list of sources, or one source. */
export function show(main, { rest, query }, signal) {
  if (rest[0]) return showHost(main, rest[0], query, signal);
  const source = query.get("source") ?? "";
  const ask = (path, cursor) => get(path, { source: source || null, limit: SIZE, cursor }, signal);
  main.replaceChildren(
    heading(title),
    h(
      "form",
      {
        class: "filters",
        role: "search",
        "aria-label": "Filters",
        onsubmit: (event) => {
          event.preventDefault();
          location.hash = href("hosts", { source: new FormData(event.currentTarget).get("source") });
        },
      },
      field("Source", h("input", { name: "source", value: source, placeholder: "node-17 or rack7-*", spellcheck: "false" })),
      h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Apply")),
    ),
    panel("Sources with stored facts", {}, loaded(() => ask("v1/hosts", query.get("cursor")), (page) => hostList(page, source))),
    panel("Poisoned pages", {}, loaded(() => ask("v1/poisoned-pages", query.get("pages")), (page) => poisonList(page, source))),
  );
}

const sourceLink = (one) => h("a", { href: href(`hosts/${encodeURIComponent(one.source)}`) }, one.source);
const damaged = (page) => (page.damaged > 0 ? h("p", { class: "note warning" }, `${counted(page.damaged, "entry", "entries")} cannot be read: the rows in the store are corrupt`) : "");
const following = (link) => h("nav", { class: "pages", "aria-label": "Pages of the list" }, h("a", { class: "button", href: link }, "Next"));

function hostList(page, source) {
  if (page.hosts.length === 0 && !page.damaged) return empty(source ? "No source matches" : "No facts are stored", "Store them with ", h("code", {}, "PUT /v1/hosts/{source}"), ".");
  const columns = [
    { name: "Source", cell: sourceLink },
    { name: "Version", className: "number", cell: (one) => number(one.version) },
    { name: "Changed (UTC)", className: "mono", cell: (one) => time(one.changed_at) },
    { name: "Size", className: "number", cell: (one) => bytes(one.bytes) },
  ];
  return [damaged(page), table("Sources with stored facts", columns, page.hosts), page.next ? following(href("hosts", { source, cursor: page.next })) : ""];
}

const PAGE_COLUMNS = [
  { name: "Physical address", className: "mono", cell: (one) => one.physical_address },
  { name: "Size", className: "number", cell: (one) => bytes(2 ** one.shift) },
];

function poisonList(page, source) {
  if (page.pages.length === 0 && !page.damaged) return empty("No poisoned pages", "A decision that takes a page out of use adds it here.");
  return [damaged(page), table("Poisoned pages", [{ name: "Source", cell: sourceLink }, ...PAGE_COLUMNS], page.pages), page.next ? following(href("hosts", { source, pages: page.next })) : ""];
}

function showHost(main, source, query, signal) {
  const path = encodeURIComponent(source);
  const ask = (version) => optional(get(`v1/hosts/${path}`, { version }, signal));
  const version = query.get("version");
  const stored = loaded(() => Promise.all([ask(version), version ? ask(null) : null]), ([host, newest]) => hostFacts(host, newest ?? host, source));
  const poisoned = h("div", {});
  const update = () => fill(poisoned, () => get(`v1/poisoned-pages/${path}`, {}, signal), (found) => poisonedOf(found, source, update));
  update();
  main.replaceChildren(
    heading(source, h("a", { class: "button", href: href("decisions", { source }) }, "Decisions"), h("a", { class: "button", href: href("hosts") }, "All hosts")),
    panel("Stored facts", {}, stored),
    panel("Poisoned pages", {}, poisoned),
  );
}

/** Return the document, or null where there is none. */
const optional = (asked) => asked.catch((error) => (error.status === 404 ? null : Promise.reject(error)));

/** Return the facts of a version, and links to the versions before the newest. */
function hostFacts(host, newest, source) {
  if (host === null) return empty("No facts are stored for this source", "Store them with ", h("code", {}, "PUT /v1/hosts/{source}"), ".");
  const versions = Array.from({ length: Math.min(newest.version, SHOWN_VERSIONS) }, (_, index) => newest.version - index);
  return [
    facts([
      ["Version", number(host.version)],
      ["Changed", `${time(host.changed_at)} UTC`],
      ["Kernel", host.host.kernel ?? "not given"],
      ["Page size", host.host.page_size ? bytes(host.host.page_size) : "not given"],
      ["Tasks", number(host.host.tasks?.length ?? 0)],
      ["Pages", number(host.host.pages?.length ?? 0)],
      ["Virtual machines", (host.host.vms ?? []).map((vm) => `${vm.id} (${vm.vmm ?? "standard"})`).join(", ") || "none"],
      ["Digest", h("span", { class: "mono cut" }, host.digest)],
    ]),
    versions.length > 1 && h("nav", { class: "segments", "aria-label": "Versions" }, versions.map((version) => h("a", { href: href(`hosts/${encodeURIComponent(source)}`, { version }), "aria-current": version === host.version ? "true" : null }, number(version)))),
    h("details", {}, h("summary", {}, "Facts as JSON"), h("pre", { tabindex: "0" }, JSON.stringify(host.host, null, 2))),
  ].filter(Boolean);
}

function poisonedOf(found, source, update) {
  if (found.pages.length === 0) return empty("No poisoned pages");
  const refused = h("div", {});
  const dialog = h(
    "dialog",
    { "aria-label": "Forget poisoned pages" },
    h("p", {}, `Forget ${counted(found.pages.length, "poisoned page")} of ${source}? Do so after the machine was restarted: later errors of these pages are then decided as if they were sound.`),
    h(
      "div",
      { class: "buttons" },
      h("button", { type: "button", class: "primary", onclick: () => forget(dialog, refused, source, update) }, "Forget them"),
      h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
    ),
    refused,
  );
  return [table("Poisoned pages", PAGE_COLUMNS, found.pages), h("div", { class: "buttons" }, h("button", { type: "button", onclick: () => dialog.showModal() }, "Forget after restart…")), dialog];
}

async function forget(dialog, refused, source, update) {
  try {
    await request("DELETE", `v1/poisoned-pages/${encodeURIComponent(source)}`);
    dialog.close();
    update();
  } catch (error) {
    refused.replaceChildren(failure(error));
  }
}

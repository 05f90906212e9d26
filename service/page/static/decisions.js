// Decisions: a list with the filters of the HTTP interface, which are in the URL.

import { address, get } from "./api.js";
import { showDecision } from "./decision.js";
import { h } from "./dom.js";
import { time, words } from "./format.js";
import { ACTIONS, NOTIFICATIONS, SEVERITIES, badge, empty, field, heading, href, loaded, select, table } from "./parts.js";

export const title = "Decisions";

const FILTERS = ["source", "action", "policy", "notification", "severity", "section", "physical_address", "since", "until"];
const SIZE = 50;

const COLUMNS = {
  time: { name: "Decided (UTC)", cell: (one) => h("a", { class: "mono", href: href(`decisions/${one.id}`) }, time(one.decided_at)) },
  action: { name: "Action", cell: (one) => badge(one.action) },
  certainty: { name: "Certainty", cell: (one) => one.certainty },
  source: { name: "Source", cell: (one) => one.source ?? "–" },
  notification: { name: "Notification", cell: (one) => one.notification },
  severity: { name: "Severity", cell: (one) => one.severity ?? "no record" },
  sections: { name: "Sections", cell: (one) => one.sections.map(words).join(", ") || "–" },
  addresses: { name: "Address", className: "mono", cell: (one) => (one.physical_addresses[0] ?? "–") + (one.physical_addresses.length > 1 ? ` +${one.physical_addresses.length - 1}` : "") },
  policy: { name: "Policy", cell: (one) => one.policy.name },
  event_id: { name: "Event id", className: "mono", cell: (one) => one.event_id ?? "–" },
};
const SHOWN = ["time", "action", "source", "notification", "severity", "sections", "addresses", "policy"];

/** Show a page of the list, or the decision that the path names. */
export function show(main, { rest, query }, signal) {
  if (rest[0]) return showDecision(main, rest[0], signal);
  const filters = Object.fromEntries(FILTERS.map((name) => [name, query.getAll(name)]).filter(([, values]) => values.length));
  const chosen = (query.get("columns") ?? SHOWN.join(",")).split(",").filter((name) => COLUMNS[name]);
  const kept = { ...filters, columns: query.get("columns") };
  const asked = { ...filters, cursor: query.get("cursor"), limit: SIZE };
  main.replaceChildren(
    heading(title),
    filterForm(filters, query.get("columns")),
    loaded(() => get("v1/decisions", asked, signal), (page) => shown(page, asked, kept, new Set(["time", ...chosen]))),
  );
}

function filterForm(filters, columns) {
  const one = (name) => filters[name]?.join(",") ?? "";
  const text = (name, placeholder) => h("input", { name, value: one(name), placeholder, autocomplete: "off", spellcheck: "false" });
  const any = (names) => [["", "any"], ...names.map((name) => [name, words(name)])];
  const choice = (name, names) => select(name, any(names.includes(one(name)) || !one(name) ? names : [...names, one(name)]), one(name));
  const more = ["policy", "severity", "section", "until"].some((name) => filters[name]);
  return h(
    "form",
    {
      class: "filters",
      role: "search",
      "aria-label": "Filters",
      onsubmit: (event) => {
        event.preventDefault();
        location.hash = href("decisions", { ...Object.fromEntries(new FormData(event.currentTarget)), columns });
      },
    },
    field("Source", text("source", "node-17 or rack7-*")),
    field("Action", choice("action", ACTIONS)),
    field("Notification", choice("notification", NOTIFICATIONS)),
    field("Physical address", text("physical_address", "0x56edd040")),
    field("Since", text("since", "24h or 2026-11-30")),
    h(
      "details",
      { class: "more", open: more },
      h("summary", {}, "More filters"),
      h("div", { class: "filters" }, field("Severity", choice("severity", SEVERITIES)), field("Section", text("section", "memory")), field("Policy", text("policy", "linux-6.12.107")), field("Until", text("until", "1h or 2026-11-30"))),
    ),
    h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Apply"), h("a", { class: "button", href: href("decisions", { columns }) }, "Clear")),
  );
}

/** Return a page of the list with its tools. Another choice of columns draws only the list again. */
function shown(page, asked, kept, columns) {
  const container = h("div", {});
  const state = { ...kept };
  const following = h("div", {});
  const draw = () => {
    container.replaceChildren(...list(page, Object.keys(COLUMNS).filter((name) => columns.has(name)), state));
    following.replaceChildren(pages(page, state, Boolean(asked.cursor)));
  };
  const choose = (name, on) => {
    columns[on ? "add" : "delete"](name);
    state.columns = [...columns].join(",");
    history.replaceState(null, "", href("decisions", { ...state, cursor: asked.cursor }));
    draw();
  };
  draw();
  return [toolbar(page, asked, columns, choose), container, following];
}

function toolbar(page, asked, columns, choose) {
  return h(
    "div",
    { class: "toolbar" },
    h(
      "details",
      { class: "menu" },
      h("summary", {}, "Columns"),
      h(
        "fieldset",
        {},
        h("legend", { class: "hidden" }, "Columns"),
        Object.entries(COLUMNS).map(([name, column]) =>
          h("label", {}, h("input", { type: "checkbox", checked: columns.has(name), disabled: name === "time", onchange: (event) => choose(name, event.currentTarget.checked) }), column.name),
        ),
      ),
    ),
    h("a", { class: "button", href: address("v1/decisions", { ...asked, format: "csv" }), download: "decisions.csv" }, "CSV"),
    h("button", { type: "button", onclick: () => save("decisions.ndjson", page.decisions.map((one) => `${JSON.stringify(one)}\n`).join("")) }, "NDJSON"),
  );
}

/** Save text as a file. */
function save(name, text) {
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type: "application/x-ndjson" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function list(page, columns, kept) {
  const damaged = page.damaged > 0 && h("p", { class: "note warning" }, `${page.damaged} decisions of this page cannot be read: their rows in the store are corrupt`);
  if (page.decisions.length > 0) return [damaged || "", table("Decisions, newest first", columns.map((name) => COLUMNS[name]), page.decisions)];
  const filtered = FILTERS.some((name) => kept[name]?.length);
  if (filtered) return [empty("No decision matches these filters", h("a", { href: href("decisions", { columns: kept.columns }) }, "Clear the filters"))];
  return [empty("No decisions yet", "Send an event to ", h("code", {}, "POST /v1/decisions"), ", or ", h("a", { href: href("try") }, "try one here"), ".")];
}

const pages = (page, kept, later) =>
  h(
    "nav",
    { class: "pages", "aria-label": "Pages of the list" },
    later && h("a", { class: "button", href: href("decisions", kept) }, "Newest"),
    page.next && h("a", { class: "button", href: href("decisions", { ...kept, cursor: page.next }) }, "Older"),
  );

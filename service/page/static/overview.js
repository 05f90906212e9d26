// Overview: decisions over time, where errors come from, what is decided now, and the service itself.

import { follow, get, metrics } from "./api.js";
import { overTime } from "./chart.js";
import { h } from "./dom.js";
import { bytes, clock, counted, duration, number } from "./format.js";
import { ACTIONS, badge, empty, facts, fill, heading, href, mark, panel, waiting } from "./parts.js";

export const title = "Overview";

const RANGES = {
  "1h": { text: "1 hour", bucket: 60 },
  "24h": { text: "24 hours", bucket: 1800 },
  "7d": { text: "7 days", bucket: 3 * 3600 },
  "30d": { text: "30 days", bucket: 12 * 3600 },
};
const ROWS = 10;
const REFRESH_MS = 15_000;

/** Show the overview of a range of time, which is in the URL. */
export function show(main, { query }, signal) {
  const range = RANGES[query.get("range")] ? query.get("range") : "24h";
  const ask = (parameters) => get("v1/decisions/stats", { since: range, ...parameters }, signal);
  const [totals, chart, sources, addresses, service] = ["tiles", "chart-space", "ranking-space", "ranking-space", ""].map((name) => h("div", { class: name }, waiting()));
  const update = () => {
    const counts = ask({ bucket: RANGES[range].bucket, group_by: "action", fill: true });
    fill(totals, () => counts, (stats) => tiles(stats, range));
    fill(chart, () => counts, (stats) => (stats.buckets.some((bucket) => bucket.count) ? overTime(stats) : [nothing(range)]));
    for (const [container, name] of [[sources, "source"], [addresses, "physical_address"]]) {
      fill(container, () => ask({ bucket: "all", group_by: name }), (stats) => top(stats, name, range));
    }
    fill(service, () => Promise.all([get("v1/store", {}, signal), metrics(signal)]), serviceFacts);
  };
  update();
  refresh(signal, update);
  main.replaceChildren(
    heading(title, ranges(range)),
    totals,
    panel("Decisions over time", {}, chart),
    h(
      "div",
      { class: "columns" },
      panel("Live", { className: "wide" }, ...live(signal)),
      panel("Service", {}, service),
    ),
    h("div", { class: "columns" }, panel("Sources with most decisions", {}, sources), panel("Addresses with most decisions", {}, addresses)),
  );
}

/** Call `again` while the page is visible, until it is left. */
function refresh(signal, again) {
  const timer = setInterval(() => document.hidden || again(), REFRESH_MS);
  signal.addEventListener("abort", () => clearInterval(timer), { once: true });
}

const ranges = (chosen) =>
  h(
    "nav",
    { class: "segments", "aria-label": "Range of time" },
    Object.entries(RANGES).map(([range, { text }]) => h("a", { href: href("", { range }), "aria-current": range === chosen ? "true" : null }, text)),
  );

const nothing = (range) =>
  empty(`No decisions in the last ${RANGES[range].text}`, "Send an event to ", h("code", {}, "POST /v1/decisions"), ", or ", h("a", { href: href("try") }, "try one here"), ".");

function tiles(stats, range) {
  const sum = (action) => stats.buckets.flatMap((bucket) => bucket.groups).reduce((total, group) => total + (group.action === action ? group.count : 0), 0);
  const all = stats.buckets.reduce((total, bucket) => total + bucket.count, 0);
  const tile = (name, value, link, shape) => h("a", { class: "tile", href: link }, h("span", { class: "tile-name" }, shape, name), h("span", { class: "tile-value" }, number(value)));
  return [
    tile("all decisions", all, href("decisions", { since: range })),
    ...ACTIONS.map((action) => tile(action, sum(action), href("decisions", { since: range, action }), mark(action))),
  ];
}

function top(stats, name, range) {
  const groups = (stats.buckets[0]?.groups ?? []).filter((group) => group[name] !== null).sort((a, b) => b.count - a.count).slice(0, ROWS);
  if (groups.length === 0) return empty("None in this range");
  return h(
    "ol",
    { class: "ranking" },
    groups.map((group) =>
      h(
        "li",
        {},
        h("a", { class: "mono", href: href("decisions", { since: range, [name]: group[name] }) }, group[name]),
        h("meter", { min: 0, max: groups[0].count, value: group.count, "aria-hidden": "true" }),
        h("span", { class: "number" }, number(group.count)),
      ),
    ),
  );
}

/** Return the feed of new decisions. Its rows have a fixed height and number, and it can be paused: nothing else moves. */
function live(signal) {
  const state = h("span", { class: "quiet", role: "status" }, "connecting…");
  const rows = h("ol", { class: "feed", "aria-label": "Newest decisions" });
  const unseen = [];
  let paused = false;
  const pause = h("button", { type: "button", "aria-pressed": "false", onclick: () => hold(!paused) }, "Pause");
  const add = (decision) => {
    rows.prepend(feedRow(decision));
    while (rows.children.length > ROWS) rows.lastElementChild.remove();
  };
  const hold = (held) => {
    paused = held;
    pause.setAttribute("aria-pressed", String(paused));
    if (!paused) unseen.splice(0).forEach(add);
    tell(true);
  };
  const tell = (open) => {
    const text = paused ? `paused, ${number(unseen.length)} new` : open ? "following" : "connection lost, reconnecting…";
    if (state.textContent !== text) state.textContent = text;
  };
  get("v1/decisions", { limit: ROWS }, signal)
    .then((page) => {
      page.decisions.reverse().forEach(add);
      follow({}, {
        signal,
        state: tell,
        seen: (decision) => {
          if (!paused) return add(decision);
          unseen.push(decision);
          unseen.splice(0, unseen.length - ROWS);
          tell(true);
        },
      });
    })
    .catch((error) => error.name === "AbortError" || tell(false));
  return [h("div", { class: "feed-head" }, state, pause), rows];
}

const feedRow = (decision) =>
  h(
    "li",
    {},
    h("a", { href: href(`decisions/${decision.id}`) }, h("time", { datetime: decision.decided_at, class: "mono" }, clock(decision.decided_at)), badge(decision.action), h("span", { class: "grow" }, decision.source ?? "no source")),
    h("span", { class: "quiet mono cut" }, decision.physical_addresses[0] ?? decision.notification),
  );

function serviceFacts([store, metric]) {
  return facts([
    ["Repeats since start", number(metric.repeats_total ?? 0)],
    ["Panics since start", number(metric.panics_total ?? 0)],
    ["Waiting to be stored", `${counted(metric.queue_entries ?? 0, "decision")}, ${bytes(metric.queue_bytes ?? 0)}`],
    ["Oldest waits", duration(metric.oldest_unanswered_seconds ?? 0)],
    ["Kept", counted(store.decisions, "decision")],
    ["On disk", bytes(store.bytes + store.wal_bytes)],
    ...(metric.store_free_bytes ? [["Free on disk", bytes(metric.store_free_bytes)]] : []),
    ["Retention", [store.retention_days && `${number(store.retention_days)} days`, store.retention_bytes && bytes(store.retention_bytes)].filter(Boolean).join(", ") || "none"],
    ["Connections", number(metric.connections ?? 0)],
  ]);
}

// One decision: its event byte by byte, the way through the stages, the plan, and the reasons.

import { get, post } from "./api.js";
import { byteMap } from "./bytes.js";
import { h } from "./dom.js";
import { time, words } from "./format.js";
import { facts, fill, heading, href, loaded, panel } from "./parts.js";
import { headline, story, valueText } from "./story.js";

/** Show the decision with an id. */
export async function showDecision(main, id, signal) {
  const content = h("div", { class: "story" });
  main.replaceChildren(
    heading(
      "Decision",
      h("a", { class: "button", href: `v1/decisions/${encodeURIComponent(id)}` }, "JSON"),
      h("button", { type: "button", onclick: (event) => copy(event.currentTarget) }, "Copy link"),
    ),
    content,
  );
  const path = `v1/decisions/${encodeURIComponent(id)}`;
  await fill(content, () => Promise.all([get(path, {}, signal), get(`${path}/event`, {}, signal)]), ([decision, event]) => [
    headline(decision),
    eventPanel(decision, event, signal),
    ...story(decision),
  ]);
}

async function copy(button) {
  await navigator.clipboard.writeText(location.href);
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy link"), 2000);
}

function eventPanel(decision, event, signal) {
  const notification = typeof event.notification === "string" ? { type: event.notification } : event.notification;
  const pairs = [
    ["Decided", `${time(decision.decided_at)} UTC`],
    ["Source", decision.source ? h("a", { href: href("decisions", { source: decision.source }) }, decision.source) : "none"],
    ["Event id", event.id ?? "none"],
    ...Object.entries(notification).map(([name, value]) => [name === "type" ? "Notification" : words(name), valueText(value)]),
    ["Kernel", event.host?.kernel ?? "not given"],
    ...(decision.host_facts?.version ? [["Stored host facts", `version ${decision.host_facts.version}`]] : []),
    ["Event key", h("span", { class: "mono cut" }, decision.event_key)],
  ];
  const record = event.status_block
    ? loaded(() => post("v1/decode", { status_block: event.status_block, layout: true }, { signal }), byteMap)
    : h("p", { class: "quiet" }, "The event has no record.");
  return panel(
    "What arrived",
    {},
    facts(pairs),
    record,
    h("div", { class: "buttons" }, h("a", { class: "button", href: href("try", { input: JSON.stringify(event) }) }, "Try with other facts")),
    h("details", {}, h("summary", {}, "Event as JSON"), h("pre", { tabindex: "0" }, JSON.stringify(event, null, 2))),
  );
}

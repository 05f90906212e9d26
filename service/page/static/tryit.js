// Try it: paste or build an event and see what two policies decide. Nothing is stored; the input is only in the fragment of the URL.

import { get, post, request } from "./api.js";
import { h } from "./dom.js";
import { words } from "./format.js";
import { NOTIFICATIONS, SEVERITIES, badge, empty, failure, field, heading, href, panel, select } from "./parts.js";
import { stages, steps } from "./story.js";

export const title = "Try it";

const DEFAULTS = { a: "linux-6.12.107", b: "uniform", notification: "sea" };
const SECTIONS = ["memory", "memory2", "arm_processor", "pcie", "generic_processor"];
const STATES = ["", "anonymous", "page_cache", "hugetlb", "thp", "ksm", "slab", "free", "reserved", "unknown"];
const WAIT_MS = 250;
const LONGEST_LINK = 32_768;

const EXAMPLE = {
  notification: { type: "sea", taken_from: "user" },
  status_block: { severity: "recoverable", sections: [{ type: "memory", physical_address: "0x56edd040" }] },
  host: {
    current: { pid: 103, tid: 103 },
    tasks: [{ pid: 103, name: "database" }],
    pages: [{ physical_address: "0x56edd000", state: "anonymous", dirty: true, mappings: [{ pid: 103, address: "0xffff897d5000" }] }],
  },
};

/** Show the input and what it is decided to. */
export function show(main, { query }, signal) {
  const state = { ...DEFAULTS, input: JSON.stringify(EXAMPLE, null, 2) };
  for (const name of Object.keys(state)) if (query.has(name)) state[name] = query.get(name);
  const results = { a: h("div", { class: "result" }), b: h("div", { class: "result" }) };
  const note = h("p", { class: "quiet", role: "status" }, "");
  const input = h("textarea", { class: "mono", rows: 20, spellcheck: "false", autocomplete: "off", "aria-describedby": "input-help" });
  input.value = pretty(state.input);
  let running = new AbortController();
  let timer = null;
  const run = async () => {
    running.abort();
    running = new AbortController();
    signal.addEventListener("abort", () => running.abort(), { once: true });
    remember(state, note);
    await Promise.all(["a", "b"].map((side) => decideInto(results[side], state, state[side], running.signal)));
    compare(results);
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(run, WAIT_MS);
  };
  signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
  const set = (name, value) => {
    state[name] = value;
    later();
  };
  const put = (text) => {
    input.value = text;
    set("input", text);
  };
  input.addEventListener("input", () => set("input", input.value));
  const choice = (side) => h("input", { value: state[side], list: "policies", spellcheck: "false", oninput: (event) => set(side, event.currentTarget.value.trim()) });
  const policies = h("datalist", { id: "policies" });
  get("v1/policies", {}, signal).then((found) => policies.replaceChildren(...found.policies.map((policy) => h("option", { value: policy.name }))), () => {});
  const notification = select("notification", NOTIFICATIONS.map((name) => [name, name]), state.notification);
  notification.addEventListener("change", () => set("notification", notification.value));
  const file = h("input", { type: "file", onchange: async () => file.files[0] && put(await readFile(file.files[0])) });
  main.replaceChildren(
    heading(title, note),
    policies,
    h(
      "div",
      { class: "try" },
      panel(
        "Input",
        { className: "drop" },
        h("p", { id: "input-help", class: "quiet" }, "An event as JSON; a status block or CPER record in base64 or hexadecimal; a kernel log; or any file that import reads. Nothing is stored."),
        field("Input", input, "whole"),
        h("div", { class: "filters" }, field("Notification, where the input has none", notification), field("File, or drop it here", file)),
        builder((event) => put(JSON.stringify(event, null, 2))),
      ),
      h("div", { class: "results" }, ["a", "b"].map((side) => panel(side === "a" ? "First policy" : "Second policy", { className: "policy" }, field("Policy", choice(side)), results[side]))),
    ),
  );
  const drop = main.querySelector(".drop");
  drop.addEventListener("dragover", (event) => event.preventDefault());
  drop.addEventListener("drop", async (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) put(await readFile(event.dataTransfer.files[0]));
  });
  run();
}

/** Put the state into the URL, so that it can be shared. */
function remember(state, note) {
  const link = href("try", state);
  const fits = link.length <= LONGEST_LINK;
  history.replaceState(null, "", fits ? link : href("try", { ...state, input: null }));
  note.textContent = fits ? "The address of this page has the input: share it." : "The input is too long for a link.";
}

/** Return JSON with line breaks; other text as it is. */
function pretty(text) {
  try {
    return text.includes("\n") ? text : JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** Return a file as text; one with binary content in base64. */
async function readFile(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (!bytes.includes(0)) return new TextDecoder().decode(bytes);
  let binary = "";
  for (let at = 0; at < bytes.length; at += 8192) binary += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(binary).replace(/.{76}/g, "$&\n");
}

const isEvent = (text) => {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" && "notification" in value;
  } catch {
    return false;
  }
};

/** Return what the service decides under a policy, without storing it: `[{ decision }]`, or what import found. */
async function decide(state, policy, signal) {
  if (isEvent(state.input)) {
    const query = { dry_run: true };
    return [{ decision: await post("v1/decisions", { ...JSON.parse(state.input), policy }, { query, signal }) }];
  }
  if (state.input.trimStart().startsWith("{")) {
    const type = "application/json";
    return [{ decision: await (await request("POST", "v1/decisions", { query: { dry_run: true }, body: state.input, type, signal })).json() }];
  }
  const query = { dry_run: true, policy, notification: state.notification };
  const response = await request("POST", "v1/import", { query, body: state.input, type: "application/octet-stream", signal });
  return (await response.text()).split("\n").filter(Boolean).map((line) => JSON.parse(line));
}

async function decideInto(container, state, policy, signal) {
  container.setAttribute("aria-busy", "true");
  try {
    container.replaceChildren(...(state.input.trim() ? shown(await decide(state, policy, signal)) : [empty("Nothing to decide", "Paste an event, or build one.")]));
  } catch (error) {
    if (error.name === "AbortError") return;
    container.replaceChildren(failure(error));
  }
  container.removeAttribute("aria-busy");
}

const MOST = 20;

function shown(lines) {
  const decided = lines.filter((line) => line.decision);
  const unread = lines.filter((line) => line.unread).map((line) => h("p", { class: "note warning" }, `not read: ${line.unread.reason}`));
  const problems = lines.filter((line) => line.problem).map((line) => h("p", { class: "note warning" }, line.problem.detail));
  if (decided.length + unread.length + problems.length === 0) return [empty("No error found in the input")];
  if (decided.length === 1) return [...unread, ...problems, whole(decided[0].decision)];
  const more = decided.length > MOST && h("p", { class: "quiet" }, `${decided.length - MOST} more; import the file to see all`);
  return [...unread, ...problems, ...decided.slice(0, MOST).map((line, index) => h("details", { class: "alternative" }, h("summary", {}, `${index + 1}. `, badge(line.decision.action)), whole(line.decision))), more].filter(Boolean);
}

const whole = (decision) =>
  h("div", { class: "outcome", "data-action": decision.action }, h("p", { class: "verdict" }, badge(decision.action)), h("p", { class: "quiet" }, `${decision.certainty}, ${decision.policy.name}`), steps(decision.plan), h("details", {}, h("summary", {}, "Way through the stages"), stages(decision)));

/** Say where two single decisions differ. */
function compare({ a, b }) {
  const [first, second] = [a, b].map((side) => side.querySelector(":scope > .outcome")?.dataset.action);
  for (const side of [a, b]) {
    side.querySelector(".differs")?.remove();
    if (first && second) side.append(h("p", { class: "differs note" }, first === second ? "Both policies come to the same action." : `The policies differ: ${first} and ${second}.`));
  }
}

/** Return a form that builds an event. */
function builder(built) {
  const options = (names) => names.map((name) => [name, words(name) || "not given"]);
  const form = h(
    "form",
    {
      class: "filters",
      onsubmit: (event) => {
        event.preventDefault();
        built(eventOf(Object.fromEntries(new FormData(event.currentTarget))));
      },
    },
    field("Notification", select("type", options(NOTIFICATIONS), "sea")),
    field("Interrupted", select("taken_from", options(["user", "kernel", "guest"]), "user")),
    field("Severity", select("severity", options(SEVERITIES), "recoverable")),
    field("Section", select("section", options(SECTIONS), "memory")),
    field("Physical address", h("input", { name: "address", value: "0x56edd040", spellcheck: "false" })),
    field("Page", select("state", options(STATES), "anonymous")),
    h("div", { class: "buttons" }, h("button", { type: "submit" }, "Build")),
  );
  return h("details", {}, h("summary", {}, "Build an event in a form"), form);
}

function eventOf({ type, taken_from, severity, section, address, state }) {
  const fields = { type: section };
  if (address && section.startsWith("memory")) fields.physical_address = address;
  if (section === "arm_processor") fields.error_infos = [{ error_type: "0x2", ...(address && { physical_fault_address: address }) }];
  const event = { notification: { type, taken_from }, status_block: { severity, sections: [fields] } };
  if (state && address) {
    const page = { physical_address: address.replace(/...$/, "000"), state, mappings: [{ pid: 103, address: "0xffff897d5000" }] };
    event.host = { current: { pid: 103, tid: 103 }, tasks: [{ pid: 103 }], pages: [page] };
  }
  return event;
}

// Parts that several pages have: headings, panels, tables, badges, and the states of what is loaded.

import { address } from "./api.js";
import { h, newId, s } from "./dom.js";

/** Actions, the mildest first: the order of every legend and stack. */
export const ACTIONS = ["handled", "signal", "translate", "inject", "panic"];

/** Notification types and severities, the most frequent first. */
export const NOTIFICATIONS = ["sea", "sei", "polled", "external", "sci", "gsiv", "gpio", "sdei", "nmi", "local", "cmci", "mce", "bert"];
export const SEVERITIES = ["recoverable", "fatal", "corrected", "informational"];

const SHAPES = {
  handled: "M6 1a5 5 0 1 0 0 10 5 5 0 1 0 0-10z",
  signal: "M6 0l6 6-6 6-6-6z",
  translate: "M1 2h10v3H1zM1 7h10v3H1z",
  inject: "M6 1l5.5 10H.5z",
  panic: "M1 1h10v10H1z",
};

/** Return the mark of an action: each has a shape of its own, so that nobody needs to tell colours apart. */
export const mark = (action) =>
  s("svg", { class: `mark ${action}`, viewBox: "0 0 12 12", "aria-hidden": "true" }, s("path", { d: SHAPES[action] || SHAPES.handled }));

/** Return an action as mark and word. */
export const badge = (action) => h("span", { class: `badge ${action}` }, mark(action), action);

/** Return the heading of a page, with what can be done beside it. */
export const heading = (title, ...beside) => h("div", { class: "heading" }, h("h1", { tabindex: "-1" }, title), h("div", { class: "beside" }, beside));

/** Return a titled part of a page. */
export function panel(title, { className = "", beside = [] } = {}, ...content) {
  const id = newId();
  return h("section", { class: `panel ${className}`, "aria-labelledby": id }, h("div", { class: "panel-head" }, h("h2", { id }, title), beside), content);
}

/** Return a state without data: nothing there yet, or nothing that matches. */
export const empty = (text, ...hint) => h("div", { class: "state" }, h("p", { class: "strong" }, text), hint.length > 0 && h("p", {}, hint));

/** Return the state of a failed request, with its problem and a way to try again. */
export function failure(error, retry) {
  const facts = error.errors?.map((one) => [one.pointer, one.detail].filter(Boolean).join(": ")).filter((text) => text !== error.message) ?? [];
  return h(
    "div",
    { class: "state failed", role: "alert" },
    h("p", { class: "strong" }, error.title || "unexpected error"),
    h("p", {}, error.message),
    facts.length > 0 && h("ul", {}, facts.map((fact) => h("li", {}, fact))),
    retry && h("button", { type: "button", onclick: retry }, "Retry"),
  );
}

/** Fill a container with what `render` makes of what `load` returns. Earlier content stays until then, so that nothing jumps. */
export async function fill(container, load, render) {
  container.setAttribute("aria-busy", "true");
  try {
    container.replaceChildren(...[render(await load())].flat());
  } catch (error) {
    if (error.name === "AbortError") return;
    container.replaceChildren(failure(error, () => fill(container, load, render)));
  } finally {
    container.removeAttribute("aria-busy");
  }
}

/** Return the state of a part whose data is on its way. */
export const waiting = () => h("p", { class: "state quiet" }, "Loading…");

/** Return a container that is filled when its data is there. */
export function loaded(load, render, attributes = {}) {
  const container = h("div", { ...attributes }, waiting());
  fill(container, load, render);
  return container;
}

/** Return a table. A column is `{ name, cell, className }`; a caption is for screen readers. */
export function table(caption, columns, rows, attributes = {}) {
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      attributes,
      h("caption", { class: "hidden" }, caption),
      h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col", class: column.className }, column.name)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, columns.map((column) => h("td", { class: column.className }, column.cell(row)))))),
    ),
  );
}

/** Return names and values as a description list. */
export const facts = (pairs) => h("dl", { class: "facts" }, pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));

/** Return a link to a page: its path and query. */
export const href = (path, query = {}) => `#/${address(path, query)}`;

/** Return a labelled form control. */
export const field = (label, control, className = "") => h("label", { class: `field ${className}` }, h("span", {}, label), control);

/** Return a choice of one of several values. */
export const select = (name, choices, chosen) =>
  h("select", { name }, choices.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));

// Shell of the page: which view is shown is in the fragment of the URL, which a browser never sends and no log has.

import { get } from "./api.js";
import * as decisions from "./decisions.js";
import { h } from "./dom.js";
import * as hosts from "./hosts.js";
import * as overview from "./overview.js";
import { empty, failure, heading, href } from "./parts.js";
import * as policies from "./policies.js";
import * as tryit from "./tryit.js";

/** Views by the first part of their path, in the order of the navigation. */
const VIEWS = { "": overview, decisions, try: tryit, hosts, policies };

const main = document.getElementById("main");
let leave = null;

/** Return what the fragment names. */
function place() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [name, ...rest] = path.split("/").map(decodeURIComponent);
  return { name, rest, query: new URLSearchParams(query) };
}

async function show() {
  const now = place();
  const view = VIEWS[now.name];
  const isFirst = leave === null;
  leave?.abort();
  leave = new AbortController();
  const was = document.activeElement;
  document.title = `${view ? view.title : "Not found"} · ras-triage`;
  document.getElementById("nav").replaceChildren(...links(now.name));
  try {
    if (view) await view.show(main, now, leave.signal);
    else main.replaceChildren(heading("Not found"), empty("There is no such page", h("a", { href: href("") }, "Go to the overview")));
  } catch (error) {
    if (error.name === "AbortError") return;
    main.replaceChildren(heading(view.title), failure(error, show));
  }
  if (!isFirst && (!was?.isConnected || was === document.body)) main.querySelector("h1")?.focus({ preventScroll: true });
}

const links = (current) =>
  Object.entries(VIEWS).map(([name, view]) => h("a", { href: href(name), "aria-current": name === current ? "page" : null }, view.title));

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", show);
show();
get(".").then(({ version }) => document.getElementById("version").append(`ras-triage ${version}`), () => {});

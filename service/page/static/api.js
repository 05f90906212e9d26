// Calls of the HTTP interface. Paths are relative, so that the page works under any prefix of a reverse proxy.

/** An RFC 9457 problem, or a service that does not answer (status 0). */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || document.title || `HTTP status ${status}`);
    this.status = status;
    this.title = document.title || "request failed";
    this.type = document.type || "";
    this.errors = document.errors || [];
  }
}

/** Return the address of a call; query values that are null or empty are left out, arrays are repeated. */
export function address(path, query = {}) {
  const pairs = Object.entries(query).flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  const text = new URLSearchParams(pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")).toString();
  return text ? `${path}?${text}` : path;
}

/** Send a request and return the response. Throws Problem. */
export async function request(method, path, { query, body, type, signal } = {}) {
  let response;
  try {
    response = await fetch(address(path, query), { method, body, signal, headers: type ? { "Content-Type": type } : {} });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { title: "service not reachable", detail: "the service does not answer; retry when it runs again" });
  }
  if (response.ok) return response;
  const text = await response.text();
  let problem = {};
  try {
    problem = JSON.parse(text);
  } catch {
    problem = { title: `HTTP status ${response.status}`, detail: text.slice(0, 200) };
  }
  throw new Problem(response.status, problem);
}

/** Return the JSON document of a GET. Throws Problem. */
export const get = async (path, query, signal) => (await request("GET", path, { query, signal })).json();

/** Send a JSON document and return the JSON document of the response. Throws Problem. */
export const post = async (path, document, options = {}) =>
  (await request("POST", path, { ...options, body: JSON.stringify(document), type: "application/json" })).json();

/** Return the metrics of the service without labels, by name without `ras_triage_`. Throws Problem. */
export async function metrics(signal) {
  const text = await (await request("GET", "metrics", { signal })).text();
  return Object.fromEntries([...text.matchAll(/^ras_triage_(\w+) (\S+)$/gm)].map(([, name, value]) => [name, Number(value)]));
}

const RETRY_MS = 3000;

/** Call `seen` for each new decision and `state` with whether the stream is open, until `signal` is aborted. */
export function follow(query, { seen, state, signal }) {
  let last = null;
  const open = () => {
    if (signal.aborted) return;
    const stream = new EventSource(address("v1/decisions/stream", { ...query, last_event_id: last }));
    signal.addEventListener("abort", () => stream.close(), { once: true });
    stream.onopen = () => state(true);
    stream.onerror = () => {
      state(false);
      if (stream.readyState === EventSource.CLOSED) setTimeout(open, RETRY_MS);
    };
    stream.addEventListener("decision", (event) => {
      last = event.lastEventId;
      seen(JSON.parse(event.data));
    });
  };
  open();
}

// A client of a running service with the generated types: decide, list, page on, read a problem. Prints what it got as JSON.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

type Decision = components["schemas"]["DecisionResponse"];
type Signal = components["schemas"]["Signal"];

// JSON alone: lists are also to be had as CSV
const client = createClient<paths, "application/json" | "application/problem+json">({ baseUrl: process.argv[2] });

function event(id: string): components["schemas"]["Event"] {
  const page = { physical_address: "0x56edd000", state: "anonymous" as const, mappings: [{ pid: 103, address: "0xffff897d5000" }] };
  const host = { kernel: "6.12.107", current: { pid: 103, tid: 103 }, tasks: [{ pid: 103 }], pages: [page] };
  const section = { type: "memory" as const, physical_address: "0x56edd040" };
  return { id, source: "typescript", notification: "sea", status_block: { severity: "recoverable", sections: [section] }, host };
}

function signalsOf(decision: Decision): Signal[] {
  return decision.plan.filter((step): step is Signal => step.kind === "signal");
}

const decided: Decision[] = [];
for (const id of ["e-1", "e-2"]) {
  const { data, error } = await client.POST("/v1/decisions", { body: event(id) });
  if (data === undefined) throw new Error(error.title);
  decided.push(data);
}

const listed: string[] = [];
let cursor: string | undefined;
do {
  const { data, error } = await client.GET("/v1/decisions", { params: { query: { limit: 1, cursor } } });
  if (data === undefined) throw new Error(error.detail);
  listed.push(...data.decisions.filter((decision) => decision.source === "typescript").map((decision) => decision.id));
  cursor = data.next ?? undefined;
} while (cursor !== undefined);

const { error: problem, response } = await client.GET("/v1/decisions/{identity}", { params: { path: { identity: "unknown" } } });

console.log(
  JSON.stringify({
    decided: decided.map((decision) => decision.id),
    signals: signalsOf(decided[0]).map((step) => step.address),
    listed,
    problem: { type: problem?.type, status: response.status },
  }),
);

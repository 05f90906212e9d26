// Address ranges drawn to scale: what a signal says is lost, and where host memory lies in a guest.

import { h, s } from "./dom.js";
import { bytes } from "./format.js";

const WIDTH = 640;
const ROW = 28;

const hex = (value) => `0x${value.toString(16)}`;

/** Return a drawing of what a step has of addresses, or null. Ranges longer than a JavaScript number are BigInt. */
export function drawAddresses(step) {
  if (step.kind === "signal" && step.address !== null && step.lsb !== null) return drawSignal(step);
  if (step.kind === "translate") return drawTranslation(step);
  return null;
}

function drawSignal({ address, lsb }) {
  const size = 1n << BigInt(lsb);
  const start = BigInt(address) & ~(size - 1n);
  const at = Number(BigInt(address) - start) / Number(size);
  const text = `${bytes(Number(size))} lost, from ${hex(start)} to ${hex(start + size - 1n)}; the signal's address is ${address}`;
  return figure(
    text,
    s("svg", { viewBox: `0 0 ${WIDTH} ${ROW}`, class: "range-drawing", role: "img", "aria-label": text }, s("rect", { class: "lost", x: 0, y: 8, width: WIDTH, height: 12, rx: 2 }), s("rect", { class: "at", x: at * (WIDTH - 3), y: 2, width: 3, height: 24 })),
  );
}

function drawTranslation({ hva, ranges, holes, vm }) {
  const parts = [...ranges.map((range) => ({ ...range, kind: "guest" })), ...holes.map((hole) => ({ ...hole, kind: "hole" }))];
  const total = parts.reduce((sum, part) => sum + part.length, 0) || 1;
  let x = 0;
  const boxes = parts.map((part) => {
    const width = (part.length / total) * WIDTH;
    const box = s("g", {}, s("rect", { class: part.kind, x, y: 6, width: Math.max(width - 1, 1), height: 16, rx: 2 }));
    x += width;
    return box;
  });
  const lines = parts.map((part) =>
    h("li", {}, h("span", { class: `swatch ${part.kind}`, "aria-hidden": "true" }), part.kind === "guest" ? `${bytes(part.length)} at guest address ${part.ipa} (slot ${part.slot})` : `${bytes(part.length)} at host address ${part.hva} in no slot`),
  );
  const text = `${bytes(total)} from host address ${hva} in ${vm}`;
  return figure(text, s("svg", { viewBox: `0 0 ${WIDTH} ${ROW}`, class: "range-drawing", role: "img", "aria-label": text }, boxes), h("ul", { class: "ranges" }, lines));
}

const figure = (text, ...drawn) => h("figure", {}, drawn, h("figcaption", { class: "quiet" }, text));

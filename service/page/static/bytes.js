// A status block byte by byte: pointing at a field shows its bytes, pointing at bytes shows their field.

import { h } from "./dom.js";
import { counted } from "./format.js";

const SHOWN = 2048;
const ROW = 16;

/** Return the bytes and fields of a block; `decoded` is the response of `POST /v1/decode` with `layout`. */
export function byteMap({ status_block: block, layout }) {
  const data = Uint8Array.from(atob(layout.data), (character) => character.charCodeAt(0));
  const fields = layout.fields;
  const owner = new Int32Array(data.length).fill(-1);
  fields.forEach((field, index) => owner.fill(index, field.offset, field.offset + field.length));
  const cells = Array.from(data.subarray(0, SHOWN), (byte, offset) => h("span", { class: owner[offset] < 0 ? "byte free" : "byte", "data-field": owner[offset] }, byte.toString(16).padStart(2, "0")));
  const rows = fields.map((field, index) =>
    h("button", { type: "button", class: "field-row", "data-field": index }, h("span", { class: "mono" }, field.pointer.slice(1)), h("span", { class: "mono value" }, valueAt(block, field, data)), h("span", { class: "quiet number" }, `${field.offset}–${field.offset + field.length - 1}`)),
  );
  const readout = h("p", { class: "readout", role: "status" }, "Point at a field or a byte.");
  let marked = -1;
  const mark = (index, scroll) => {
    if (index === marked) return;
    for (const element of root.querySelectorAll(".on")) element.classList.remove("on");
    marked = index;
    const field = fields[index];
    if (!field) return;
    for (const cell of cells.slice(field.offset, field.offset + field.length)) cell.classList.add("on");
    rows[index].classList.add("on");
    readout.textContent = `${field.pointer.slice(1)}: ${counted(field.length, "byte")} at offset ${field.offset}`;
    if (scroll) rows[index].parentElement.scrollTop = rows[index].offsetTop - rows[index].parentElement.clientHeight / 2;
  };
  const from = (event) => Number(event.target.closest("[data-field]")?.dataset.field ?? -1);
  const lines = Array.from({ length: Math.ceil(cells.length / ROW) }, (_, row) => h("div", { class: "hex-row" }, h("span", { class: "offset quiet" }, (row * ROW).toString(16).padStart(4, "0")), cells.slice(row * ROW, row * ROW + ROW)));
  const root = h(
    "div",
    {},
    h(
      "div",
      { class: "byte-map" },
      h("div", { class: "hex mono", tabindex: "0", role: "group", "aria-label": "Bytes in hexadecimal", onpointerover: (event) => mark(from(event), true) }, lines, data.length > SHOWN && h("p", { class: "quiet" }, `${counted(data.length - SHOWN, "more byte")} not shown`)),
      h("div", { class: "field-list", role: "group", "aria-label": "Fields", onpointerover: (event) => mark(from(event), false), onfocusin: (event) => mark(from(event), false) }, rows),
    ),
    readout,
  );
  return root;
}

/** Return the decoded value of a field; for one that is not decoded, its little-endian number. */
function valueAt(block, field, data) {
  const value = field.pointer.slice(1).split("/").reduce((part, name) => part?.[name], block);
  if (value !== undefined && value !== null) return Array.isArray(value) ? value.join(", ") || "none" : String(value);
  if (field.length > 8) return "not set";
  return String([...data.subarray(field.offset, field.offset + field.length)].reduceRight((number, byte) => number * 256n + BigInt(byte), 0n));
}

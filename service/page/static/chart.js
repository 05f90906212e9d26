// Decisions over time as stacked bars (SVG), with the same numbers as a table.

import { h, s } from "./dom.js";
import { number, time } from "./format.js";
import { ACTIONS, mark, table } from "./parts.js";

const WIDTH = 960;
const HEIGHT = 220;
const LEFT = 48;
const BOTTOM = 24;
const TOP = 8;
const TICKS = 4;

/** Return the least round number that is not below a value: 1, 2 or 5 times a power of ten, and at least 4. */
export function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return Math.max(TICKS, [1, 2, 4, 5, 10].map((step) => step * power).find((step) => step >= value));
}

const count = (bucket, action) => bucket.groups.find((group) => group.action === action)?.count ?? 0;

/** Return the chart of counts by action; `stats` is the response of `GET /v1/decisions/stats?group_by=action&fill=true`. */
export function overTime(stats) {
  const buckets = stats.buckets;
  const top = roundUp(Math.max(0, ...buckets.map((bucket) => bucket.count)));
  const high = HEIGHT - TOP - BOTTOM;
  const y = (value) => TOP + high - (value / top) * high;
  const step = (WIDTH - LEFT) / Math.max(buckets.length, 1);
  const present = ACTIONS.filter((action) => buckets.some((bucket) => count(bucket, action) > 0));
  const readout = h("p", { class: "readout", "aria-hidden": "true" }, "\u00a0");
  const show = (bucket) => {
    const parts = present.map((action) => [action, count(bucket, action)]).filter(([, value]) => value > 0);
    readout.textContent = `${time(bucket.start)} UTC: ${number(bucket.count)}${parts.length ? ` (${parts.map(([action, value]) => `${action} ${number(value)}`).join(", ")})` : ""}`;
  };
  const bars = buckets.map((bucket, index) => {
    let below = 0;
    const x = LEFT + index * step;
    const pieces = present.map((action) => {
      const value = count(bucket, action);
      if (value === 0) return null;
      const piece = s("rect", { class: `bar ${action}`, x: x + step * 0.1, width: step * 0.8, y: y(below + value), height: y(below) - y(below + value) });
      below += value;
      return piece;
    });
    return s("g", { class: "bucket", onpointerenter: () => show(bucket) }, s("rect", { class: "hit", x, width: step, y: TOP, height: high }), pieces);
  });
  const grid = Array.from({ length: TICKS + 1 }, (_, index) => (top / TICKS) * index);
  const every = Math.max(1, Math.ceil(buckets.length / 6));
  const total = buckets.reduce((sum, bucket) => sum + bucket.count, 0);
  const drawing = s(
    "svg",
    { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${number(total)} decisions over time by action; the same numbers are in the table below` },
    grid.map((value) => [
      s("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y(value), y2: y(value) }),
      s("text", { class: "tick", x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, number(value)),
    ]),
    bars,
    buckets.map((bucket, index) => index % every === 0 && s("text", { class: "tick", x: LEFT + index * step, y: HEIGHT - 6 }, label(bucket, stats.bucket_s))),
  );
  const columns = [
    { name: "From (UTC)", cell: (bucket) => time(bucket.start), className: "mono" },
    ...present.map((action) => ({ name: action, cell: (bucket) => number(count(bucket, action)), className: "number" })),
    { name: "all", cell: (bucket) => number(bucket.count), className: "number" },
  ];
  return [
    h("ul", { class: "legend" }, present.map((action) => h("li", {}, mark(action), action))),
    h("div", { class: "chart-frame" }, drawing),
    readout,
    h("details", {}, h("summary", {}, "Show as a table"), table("Decisions over time", columns, buckets.filter((bucket) => bucket.count > 0))),
  ];
}

const label = (bucket, seconds) => (seconds >= 3 * 3600 ? bucket.start.slice(5, 10) : bucket.start.slice(11, 16));

// Line plots in SVG: axes with units, a readout under the pointer and the arrow keys, and the same data as a table.

import { h, svg } from "./dom.js";
import { local } from "./format.js";

const HEIGHT = 190;
const NARROW = matchMedia("(max-width: 44rem)");
const EDGE = { left: 62, right: 12, top: 10, bottom: 26 };
const POINTS_MAX = 240;
const HOUR = 3_600_000;
const STEPS_MS = [
  60_000,
  300_000,
  900_000,
  1_800_000,
  HOUR,
  3 * HOUR,
  6 * HOUR,
  12 * HOUR,
  24 * HOUR,
  48 * HOUR,
  96 * HOUR,
  168 * HOUR,
];

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

// The point that is being read, and the plots whose data are shown as a table.
let reading = null;
const opened = new Set();

/** As many points as can be told apart, the last of each stretch. */
function thinned(points) {
  if (points.length <= POINTS_MAX) return points;
  const step = points.length / POINTS_MAX;
  return Array.from(
    { length: POINTS_MAX },
    (_, at) => points[Math.min(points.length - 1, Math.ceil((at + 1) * step) - 1)],
  );
}

/** Round values from 0 to at least `most`. */
export function ticks(most, base = 10) {
  if (most <= 0) return [0, 1];
  const rough = most / 4;
  const power = base ** Math.floor(Math.log(rough) / Math.log(base));
  const factors = base === 10 ? [1, 2, 2.5, 5, 10] : [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
  let step = factors.map((factor) => factor * power).find((size) => size * 4 >= most * 0.999) ?? base * power;
  if (base === 10 && power < 1) step = Math.max(step, 1);
  const count = Math.max(1, Math.ceil(most / step - 1e-9));
  return Array.from({ length: count + 1 }, (_, at) => at * step);
}

function durationTicks(most) {
  const units = [1, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, ...STEPS_MS];
  const step = units.find((unit) => unit * 4 >= most) ?? 10 ** Math.ceil(Math.log10(most / 4));
  return Array.from({ length: Math.max(1, Math.ceil(most / step)) + 1 }, (_, at) => at * step);
}

function timeTicks(from, to, most) {
  const step = STEPS_MS.find((size) => (to - from) / size <= most) ?? 720 * HOUR;
  const offset = new Date(from).getTimezoneOffset() * 60_000;
  const all = [];
  for (let at = Math.ceil((from - offset) / step) * step + offset; at <= to; at += step) all.push(at);
  return { all, text: (at) => (step >= 24 * HOUR ? DAY : CLOCK).format(new Date(at)) };
}

/** The longest silence that is still drawn as a line. */
function gapOf(points) {
  const gaps = points
    .slice(1)
    .map((point, at) => point.at - points[at].at)
    .sort((a, b) => a - b);
  return 5 * (gaps[Math.floor(gaps.length / 2)] ?? 0) + 1;
}

/**
 * One metric over time. `points` are `{ at, value }` in order of time, `format` makes text of a value, `kind` is
 * `count`, `bytes` or `duration`.
 */
export function plot({ name, points: all, from, to, format, kind, key }) {
  const points = thinned(all.filter((point) => point.value !== null && point.value !== undefined));
  if (points.length === 0) {
    return h(
      "figure",
      { class: "plot", "data-key": key },
      h("figcaption", null, h("h3", null, name)),
      h("p", { class: "no-data" }, "No sample in this time."),
    );
  }
  // Drawn at about the size at which it is shown, so that its text stays as large as the rest.
  const width = NARROW.matches ? 320 : 520;
  const most = Math.max(...points.map((point) => point.value));
  const rows = kind === "duration" ? durationTicks(most) : ticks(most, kind === "bytes" ? 1024 : 10);
  const top = rows.at(-1);
  const x = (at) => EDGE.left + ((at - from) / (to - from)) * (width - EDGE.left - EDGE.right);
  const y = (value) => HEIGHT - EDGE.bottom - (value / top) * (HEIGHT - EDGE.top - EDGE.bottom);
  const gap = gapOf(points);
  const at = (point) => `${x(point.at).toFixed(1)} ${y(point.value).toFixed(1)}`;
  const line = points
    .map((point, index) => `${index > 0 && point.at - points[index - 1].at <= gap ? "L" : "M"}${at(point)}`)
    .join("");
  const times = timeTicks(from, to, NARROW.matches ? 4 : 6);
  const last = points.at(-1);
  // What the reader points at outlives a refresh.
  const marked = reading?.key === key ? points.findLast((point) => point.at <= reading.at) : null;
  const mark = (point) =>
    svg(
      "g",
      { class: "mark" },
      svg("line", { x1: x(point.at), x2: x(point.at), y1: EDGE.top, y2: HEIGHT - EDGE.bottom }),
      svg("circle", { r: 4, cx: x(point.at), cy: y(point.value) }),
    );
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true", focusable: "false" },
    rows.map((value) =>
      svg(
        "g",
        { class: "grid" },
        svg("line", { x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) }),
        svg("text", { x: EDGE.left - 8, y: y(value) + 4, "text-anchor": "end" }, format(value)),
      ),
    ),
    times.all.map((time) =>
      svg(
        "g",
        { class: "grid" },
        svg("line", { x1: x(time), x2: x(time), y1: HEIGHT - EDGE.bottom, y2: HEIGHT - EDGE.bottom + 4 }),
        svg("text", { x: x(time), y: HEIGHT - 7, "text-anchor": "middle" }, times.text(time)),
      ),
    ),
    svg("path", { class: "line", d: line }),
    points.length === 1 && svg("circle", { class: "dot", cx: x(points[0].at), cy: y(points[0].value), r: 3 }),
    marked && mark(marked),
  );
  const said = (point) => [
    h("strong", null, format((point ?? last).value)),
    h("span", null, point ? ` at ${local(point.at)}` : " now"),
  ];
  // Handlers find their elements where the event is: after a refresh those are still the first ones.
  const show = (event, point) => {
    reading = point && { key, at: point.at };
    const figure = event.currentTarget.closest("figure");
    figure.querySelector(".mark")?.remove();
    if (point) figure.querySelector("svg").append(mark(point));
    figure.querySelector(".readout").replaceChildren(...said(point));
  };
  const hide = (event) => show(event, null);
  const onpointermove = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const along = ((event.clientX - box.left) / box.width) * width - EDGE.left;
    const time = from + (along / (width - EDGE.left - EDGE.right)) * (to - from);
    const far = (point) => Math.abs(point.at - time);
    show(
      event,
      points.reduce((best, point) => (far(point) < far(best) ? point : best)),
    );
  };
  const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
  const onkeydown = (event) => {
    if (!(event.key in moves)) return;
    event.preventDefault();
    const here = points.findLastIndex((point) => point.at <= (reading?.at ?? last.at));
    show(event, points[Math.max(0, Math.min(points.length - 1, here + moves[event.key]))]);
  };
  const box = h(
    "div",
    {
      class: "canvas",
      tabindex: "0",
      role: "group",
      onkeydown,
      "aria-label": `${name}, from ${format(points[0].value)} to ${format(last.value)}; arrow keys read out values`,
      onpointermove,
      onpointerleave: hide,
      onblur: hide,
      onfocus: (event) => show(event, last),
    },
    drawing,
  );
  return h(
    "figure",
    { class: "plot", "data-key": key },
    h("figcaption", null, h("h3", null, name), h("output", { class: "readout" }, said(marked))),
    box,
    dataTable(name, points, format, key),
  );
}

function dataTable(name, points, format, key) {
  const rows = () =>
    [...points]
      .reverse()
      .map((point) =>
        h(
          "tr",
          { "data-key": point.at },
          h("td", null, local(point.at)),
          h("td", { class: "number" }, h("data", { value: point.value }, format(point.value))),
        ),
      );
  const ontoggle = ({ target }) => {
    if (target.open) opened.add(key);
    else opened.delete(key);
    target.querySelector("tbody").replaceChildren(...(target.open ? rows() : []));
  };
  const head = [h("th", { scope: "col" }, "Time"), h("th", { scope: "col", class: "number" }, name)];
  return h(
    "details",
    { ontoggle },
    h("summary", null, "Data"),
    h(
      "div",
      { class: "table-box tall", tabindex: "0", role: "region", "aria-label": `${name}: data` },
      h(
        "table",
        null,
        h("caption", { class: "hidden-text" }, name),
        h("thead", null, h("tr", null, head)),
        h("tbody", null, opened.has(key) && rows()),
      ),
    ),
  );
}

// A table at a glance: plots over time, and what it is.

import * as api from "../api.js";
import { h } from "../dom.js";
import { bytes, count, duration, timeAt, words } from "../format.js";
import { plot } from "../plot.js";
import { route } from "../routes.js";
import { empty, facts, select } from "../ui.js";

const HOUR = 3_600_000;
const RANGES = {
  "1h": ["Last hour", HOUR],
  "6h": ["Last 6 hours", 6 * HOUR],
  "24h": ["Last 24 hours", 24 * HOUR],
  "7d": ["Last 7 days", 168 * HOUR],
  "30d": ["Last 30 days", 720 * HOUR],
};

const METRICS = [
  ["freshness_ms", "Freshness", duration, "duration"],
  ["lag_records", "Lag, records", count, "count"],
  ["rows", "Rows", count, "count"],
  ["bytes", "Size", bytes, "bytes"],
  ["files", "Files", count, "count"],
  ["backlog_files", "Files to compact", count, "count"],
];

const rangeOf = (state) => RANGES[state.range] ?? RANGES["24h"];

export const overviewTab = {
  async load({ state, signal, at }) {
    const to = Date.now();
    const from = to - rangeOf(state)[1];
    const step = Math.max(60_000, Math.floor(rangeOf(state)[1] / 240));
    const page = await api.list(at("series"), {
      parameters: { from_ms: from, to_ms: to, step_ms: step },
      atLeast: 2000,
      signal,
    });
    return { from, to, samples: page.items };
  },

  render({ params, data, state, set, table }) {
    const { from, to, samples } = data;
    const points = (metric) => samples.map((one) => ({ at: one.at_ms, value: one[metric] }));
    const options = Object.entries(RANGES).map(([id, [text]]) => [id, text]);
    return [
      h(
        "div",
        { class: "section-head" },
        h("h2", null, "Over time"),
        h(
          "label",
          null,
          h("span", { class: "hidden-text" }, "Time shown"),
          select(options, state.range in RANGES ? state.range : "24h", (range) => set({ range }, { reload: true })),
        ),
      ),
      samples.length === 0
        ? empty(
            "No samples in this time",
            "While workers report how the table fares, a sample a minute is kept. Choose a longer time, or see ",
            h("a", { href: route.ofCluster(params, "workers") }, "whether a worker is connected"),
            ".",
          )
        : h(
            "div",
            { class: "plots" },
            METRICS.map(([metric, name, format, kind]) =>
              plot({ name, points: points(metric), from, to, format, kind, key: metric }),
            ),
          ),
      h("h2", null, "What it is"),
      facts([
        ["Location", table.location && h("code", { class: "break" }, table.location)],
        ["Formats", table.formats.map(words).join(", ")],
        ["Records are", table.source_format && words(table.source_format)],
        ["Version", h("data", { value: table.version }, table.version.toLocaleString("en"))],
        ["Last commit", timeAt(table.committed_ms)],
        ["Known since", table.created_ms && timeAt(table.created_ms)],
        ["Table UUID", table.table_uuid && h("code", { class: "break" }, table.table_uuid)],
        ["Spec digest", table.spec_digest && h("code", { class: "break" }, table.spec_digest)],
      ]),
    ];
  },
};

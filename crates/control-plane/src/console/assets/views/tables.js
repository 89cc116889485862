// The tables of a cluster: how fresh, how far behind, how large, and what waits to be compacted.

import * as api from "../api.js";
import { h } from "../dom.js";
import { bytes, count, dataBytes, dataCount, dataDuration, duration, exact, known, timeAgo } from "../format.js";
import { route } from "../routes.js";
import { badge, empty, heading, more, search, select, table, tag, tile, tiles } from "../ui.js";
import { healthOf, stateOf } from "./health.js";

const PART = 200;
const STATES = [
  ["", "Every state"],
  ["attention", "Needs attention"],
  ["running", "Running"],
  ["starting", "Starting"],
  ["paused", "Paused"],
  ["retrying", "Retrying"],
  ["stopped", "Stopped"],
  ["unknown", "Not reported"],
];

const unknown = "no worker has said so since the control plane started";

const COLUMNS = [
  {
    id: "name",
    label: "Table",
    head: true,
    sort: (one) => one.name,
    cell: (one) => h("a", { href: one.href }, one.name),
  },
  {
    id: "state",
    label: "State",
    sort: stateOf,
    cell: (one) => {
      const { error } = healthOf(one);
      return [
        badge(stateOf(one), stateOf(one) === "unknown" ? "not reported" : stateOf(one)),
        error && [" ", tag(error, "kind of the last error")],
      ];
    },
  },
  {
    id: "freshness",
    label: "Freshness",
    number: true,
    sort: (one) => healthOf(one).freshness_ms,
    cell: (one) => dataDuration(healthOf(one).freshness_ms, unknown),
  },
  {
    id: "lag",
    label: "Lag",
    number: true,
    sort: (one) => healthOf(one).lag_records,
    cell: (one) => dataCount(healthOf(one).lag_records, unknown),
  },
  { id: "rows", label: "Rows", number: true, sort: (one) => one.rows, cell: (one) => dataCount(one.rows) },
  { id: "files", label: "Files", number: true, sort: (one) => one.files, cell: (one) => dataCount(one.files) },
  { id: "bytes", label: "Size", number: true, sort: (one) => one.bytes, cell: (one) => dataBytes(one.bytes) },
  { id: "backlog", label: "To compact", number: true, sort: (one) => healthOf(one).backlog_files, cell: backlog },
  {
    id: "committed",
    label: "Committed",
    number: true,
    sort: (one) => one.committed_ms,
    cell: (one) => timeAgo(one.committed_ms, "never"),
  },
];

function backlog(one) {
  const { backlog_files: files, backlog_bytes: size } = healthOf(one);
  if (!known(files)) return dataCount(null, unknown);
  return h(
    "data",
    { value: files, title: `${exact(files)} files, ${exact(size)} bytes` },
    `${count(files)}`,
    size ? h("small", null, ` ${bytes(size)}`) : null,
  );
}

const needsAttention = (one) => ["retrying", "stopped"].includes(stateOf(one));

function total(items, of) {
  const all = items.map(of).filter(known);
  return all.length ? all.reduce((sum, value) => sum + value, 0) : null;
}

function summary(items, cursor) {
  const freshness = items.map((one) => healthOf(one).freshness_ms).filter(known);
  const bad = items.filter(needsAttention).length;
  return tiles(
    tile(
      "Tables",
      `${items.length}${cursor ? "+" : ""}`,
      cursor ? "loaded, of which the sums are" : bad ? `${bad} need attention` : "none needs attention",
    ),
    tile(
      "Least fresh",
      dataDuration(freshness.length ? Math.max(...freshness) : null, unknown),
      "oldest uncommitted",
    ),
    tile(
      "Lag",
      dataCount(
        total(items, (one) => healthOf(one).lag_records),
        unknown,
      ),
      "records to read",
    ),
    tile("Rows", dataCount(total(items, (one) => one.rows))),
    tile("Size", dataBytes(total(items, (one) => one.bytes)), [
      dataCount(total(items, (one) => one.files)),
      " files",
    ]),
    tile(
      "To compact",
      dataCount(
        total(items, (one) => healthOf(one).backlog_files),
        unknown,
      ),
      "files",
    ),
  );
}

export const tables = {
  title: ({ params }) => `Tables of ${route.named(params).clusterName}`,
  kept: ["q", "sort", "state"],
  state: () => ({ q: "", sort: "name", state: "", shown: PART }),

  async load({ params, state, signal }) {
    const at = api.path("environments", params.env, "clusters", params.cluster, "tables");
    // A list that does not fit is searched by the server; a whole one here, and anywhere in the name.
    const page = await api.list(at, {
      parameters: { prefix: state.onServer ? state.q : "" },
      limit: PART,
      atLeast: state.shown,
      signal,
    });
    for (const one of page.items) one.href = route.ofTable({ ...params, table: one.name });
    return page;
  },

  render({ params, data, state, set }) {
    const cluster = route.named(params);
    const onquery = (q) => {
      const onServer = Boolean(data.cursor) || (state.onServer && q !== "");
      set({ q, onServer }, { reload: onServer || state.onServer });
    };
    const asked = state.q.toLowerCase();
    const fits = (one) =>
      one.name.toLowerCase().includes(asked) &&
      (!state.state || state.state === stateOf(one) || (state.state === "attention" && needsAttention(one)));
    const items = data.items.filter(fits);
    const none = data.items.length === 0 && !state.q;
    const hint =
      state.onServer && h("p", { class: "hint" }, "Not all tables are loaded: only names that begin so are found.");
    const head = heading("Tables", {
      crumbs: [["Environments", route.to("organisation")]],
      lead: `${cluster.environmentName} / ${cluster.clusterName}`,
    });
    if (none) return [head, noTables(params)];
    return [
      head,
      summary(data.items, data.cursor),
      h(
        "div",
        { class: "tools" },
        search("Filter tables by name", state.q, onquery),
        h(
          "label",
          null,
          h("span", { class: "hidden-text" }, "State"),
          select(STATES, state.state, (chosen) => set({ state: chosen })),
        ),
      ),
      hint,
      items.length === 0
        ? empty(
            "No table matches",
            "Change the filter, or ",
            h(
              "button",
              { class: "text", onclick: () => set({ q: "", state: "", onServer: false }, { reload: true }) },
              "show every table",
            ),
            ".",
          )
        : table({
            caption: `Tables of ${cluster.clusterName}`,
            columns: COLUMNS,
            items,
            id: (one) => one.name,
            sort: state.sort,
            onsort: (sort) => set({ sort }),
          }),
      more(
        data.cursor,
        items.length,
        () => set({ shown: state.shown + PART }, { reload: true }),
        items.length === 1 ? "table" : "tables",
      ),
    ];
  },
};

function noTables(params) {
  return empty(
    "No worker has reported a table yet",
    "Make an API key with the role ",
    h("code", null, "worker"),
    " on this cluster under ",
    h("a", { href: route.to("access", "keys") }, "API keys"),
    ", give it to the workers, and set the control plane's address in their config. ",
    "Tables appear here with their first commit. ",
    h("a", { href: route.ofCluster(params, "workers") }, "See which workers are connected"),
    ".",
  );
}
